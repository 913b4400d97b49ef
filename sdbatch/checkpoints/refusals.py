"""What a model folder or a model entry may not ask for."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from sdbatch.checkpoints.files import read_json
from sdbatch.errors import ModelError
from sdbatch.families import Family
from sdbatch.job import Model
from sdbatch.storage import Entry, Store

LIBRARIES = ("diffusers", "transformers")

"""Where components' classes come from; and from modules of `diffusers.pipelines`, such as `stable_diffusion`."""

CONFIG_BYTES_MAX = 16 << 20


def refuse_accelerators(name: str, model: Model, family: Family) -> None:
    """Refuse accelerators that a family cannot use, or that would change nothing.

    Raises:
        ModelError: Naming the key, and what the family can.
    """
    for option, value, known in (
        ("channels_last", model.channels_last, {"unet"}),
        ("attention_backend", model.attention_backend, {"transformer"}),
    ):
        if value and family.denoiser not in known:
            raise ModelError(f"models.{name}.{option}: is for a {known.pop()}; {family.title} has a {family.denoiser}")
    if model.step_cache is not None and model.step_cache.kind not in family.step_caches:
        can = ", ".join(sorted(family.step_caches)) or "none"
        raise ModelError(
            f"models.{name}.step_cache: {model.step_cache.kind} skips nothing on {family.title}; of use: {can}"
        )
    if model.guidance_interval is not None and not family.cfg_layout:
        raise ModelError(f"models.{name}.guidance_interval: {family.title} cannot leave guidance out of single steps")


def refuse_libraries(index: Mapping[str, Any], name: str) -> None:
    """Refuse components whose class is looked for anywhere but in diffusers and transformers."""
    spec = importlib.util.find_spec("diffusers")  # found, not imported: that takes seconds
    pipelines = Path(spec.origin).parent / "pipelines" if spec and spec.origin else Path()
    for component, value in index.items():
        if not isinstance(value, list) or not value or value[0] is None:
            continue
        library = str(value[0])
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
