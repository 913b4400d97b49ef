"""Single modules of toy models as files: GGUF, and what a job's entry makes of them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray


def make_gguf(weights: Path, path: Path, architecture: str = "flux") -> Path:
    """Write a file of safetensors as GGUF: matrices in Q8_0, the rest in float32."""
    from safetensors.numpy import load_file

    return write_gguf(load_file(weights), path, architecture)


def write_gguf(
    tensors: Mapping[str, NDArray[np.float32]],
    path: Path,
    architecture: str = "flux",
    *,
    rest: str = "F32",
    in_rows: bool = False,
) -> Path:
    """Write tensors as GGUF, matrices in Q8_0.

    Args:
        tensors: By name.
        path: Where.
        architecture: Its word for the network.
        rest: Type of the rest.
        in_rows: Whether tensors are kept in rows of 256 numbers where that makes whole rows, as ComfyUI's tools do.
    """
    import gguf

    writer = gguf.GGUFWriter(str(path), architecture)
    for name, tensor in tensors.items():
        value = tensor
        if in_rows and value.ndim > 1 and value.size % 256 == 0 and value.shape[-1] % 256:
            writer.add_array(f"comfy.gguf.orig_shape.{name}", [int(side) for side in value.shape])
            value = value.reshape(-1, 256)
        is_matrix = value.ndim == 2 and value.shape[1] % 32 == 0
        kind = gguf.GGMLQuantizationType["Q8_0" if is_matrix else rest]
        writer.add_tensor(name, gguf.quants.quantize(value, kind), raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def loaded(entry: Any, loras: Any = None) -> Any:
    """Load an entry of a job as a worker does."""
    from sdbatch.checkpoints import describe
    from sdbatch.generate.load import load_model
    from sdbatch.job import Model

    model = Model.model_validate(entry)
    return load_model("m", model, describe("m", model, {}).revision, {}, loras or {})


def pixels_of(model: Any, **recipe: Any) -> NDArray[np.float32]:
    """Render one small output of a loaded model, 0..1."""
    from sdbatch.generate.batch import make_batch
    from sdbatch.generate.item import Item
    from sdbatch.recipe import recipe_from

    task = "text-to-video" if "num_frames" in recipe else "text-to-image"
    values = {"task": task, "prompt": "a town", "height": 64, "width": 64, "num_inference_steps": 2, **recipe}
    (output,) = make_batch(model, [Item(recipe=recipe_from(values), seed=1)], None).outputs
    return output.frames_FHWC.astype(np.float32) / np.float32(255)
