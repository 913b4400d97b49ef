"""Single modules of toy models as files: GGUF, and what a job's entry makes of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray


def make_gguf(weights: Path, path: Path, architecture: str = "flux") -> Path:
    """Write a file of safetensors as GGUF: matrices in Q8_0, the rest in float32."""
    import gguf
    from safetensors.numpy import load_file

    writer = gguf.GGUFWriter(str(path), architecture)
    kind = gguf.GGMLQuantizationType.Q8_0
    for name, tensor in load_file(weights).items():
        if tensor.ndim == 2 and tensor.shape[1] % 32 == 0:
            writer.add_tensor(name, gguf.quants.quantize(tensor, kind), raw_dtype=kind)
        else:
            writer.add_tensor(name, tensor)
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
