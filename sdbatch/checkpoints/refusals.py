"""Refuses what a model folder may not ask for: code, other libraries, weights that lie elsewhere."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from sdbatch.checkpoints.files import named_components, read_json
from sdbatch.errors import ModelError
from sdbatch.storage import Entry, Store

LIBRARIES = ("diffusers", "transformers")

"""Libraries of components' classes; modules of `diffusers.pipelines`, such as `stable_diffusion`, are others."""

CONFIG_BYTES_MAX = 16 << 20


def refuse_libraries(index: Mapping[str, Any], name: str) -> None:
    """Refuse components whose class is looked for anywhere but in diffusers and transformers."""
    spec = importlib.util.find_spec("diffusers")  # without importing it, which takes seconds
    pipelines = Path(spec.origin).parent / "pipelines" if spec and spec.origin else Path()
    for component in sorted(named_components(index)):
        library = str(index[component][0])
        is_ours = library in LIBRARIES or (library.isidentifier() and (pipelines / library).is_dir())
        if not is_ours or not component.isidentifier():
            raise ModelError(f"{name}: component {component!r} is of {library!r}; served are {', '.join(LIBRARIES)}")


def refuse_code(store: Store, entries: Iterable[Entry], name: str) -> None:
    """Refuse a folder whose configuration asks for code of its own, or for weights that lie elsewhere."""
    for entry in entries:
        if not entry.path.endswith(("config.json", ".index.json")):
            continue
        if entry.size_bytes > CONFIG_BYTES_MAX:
            raise ModelError(f"{name}: {entry.path} has {entry.size_bytes} bytes, over {CONFIG_BYTES_MAX}")
        config = read_json(store, entry.path, name)
        if "auto_map" in config:
            raise ModelError(f"{name}: {entry.path} asks for code of the folder (auto_map); none is run")
        weights = config.get("weight_map", {})
        for file in set(weights.values()) if isinstance(weights, dict) else {weights}:
            if not isinstance(file, str) or "/" in file or not file.endswith(".safetensors"):
                raise ModelError(f"{name}: {entry.path} names {file!r}; weights are .safetensors files beside it")
