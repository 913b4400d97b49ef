"""What a model folder says of itself, without torch.

    job's models --> describe()      --> ModelInfo (family, native size, content revision)
    job's loras  --> describe_lora() --> LoraInfo (content revision)

A folder is diffusers' own layout: model_index.json beside one folder per component. Its content revision goes into
every request key, so a changed weight makes every asset of that model anew.
"""

from __future__ import annotations

import difflib
import hashlib
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from sdbatch.checkpoints.builtins import BUILTINS, SHIPPED, SHIPPED_DEFAULTS
from sdbatch.checkpoints.files import component_files, content_revision, folder_files, read_json
from sdbatch.checkpoints.info import LoraInfo, ModelInfo
from sdbatch.checkpoints.refusals import refuse_accelerators, refuse_code, refuse_libraries
from sdbatch.errors import ModelError
from sdbatch.families import FAMILIES, Family, find_family
from sdbatch.job import Lora, Model, Storage
from sdbatch.storage import open_store, parse_url

COMPONENTS = ("controlnet", "motion_adapter")

"""Further folders of a model entry; each is part of the model's content revision."""

_DTYPE_BYTES = {"float32": 4, "float16": 2, "bfloat16": 2}


def describe(name: str, model: Model, storage: Mapping[str, Storage], *, with_revision: bool = True) -> ModelInfo:
    """Look into one model folder, or take what the job states of it.

    Args:
        name: Name in the job's `models`.
        model: The job's entry.
        storage: The job's options by URL prefix.
        with_revision: Digest the files too, which reads every weight once (remembered afterwards).

    Raises:
        ModelError: When there is no such folder, or its class is in no family row.
    """
    if model.path.startswith("builtin:"):
        found = _describe_builtin(name, model, storage, with_revision)
    elif model.family is not None:
        found = _describe_stated(name, model, model.family)
    else:
        found = _describe_folder(name, model, storage, with_revision)
    components: dict[str, str] = {}
    revisions: dict[str, str] = {}
    for option in COMPONENTS:
        path = getattr(model, option)
        if path is not None:
            store = open_store(parse_url(path).url, storage)
            config = read_json(store, "config.json", f"models.{name}.{option}: {store.url}")
            components[option] = str(config.get("_class_name"))
            entries = folder_files(store)
            refuse_code(store, entries, f"models.{name}.{option}: {store.url}")
            revisions[option] = content_revision(store, entries) if with_revision else ""
    refuse_accelerators(name, model, found.family)
    base = found.revision
    if components and with_revision:
        combined = "\n".join([base, *revisions.values()])
        found = replace(found, revision=hashlib.sha256(combined.encode()).hexdigest())
    return replace(found, base_revision=base, components=components, component_revisions=revisions)


def describe_lora(name: str, lora: Lora, storage: Mapping[str, Storage], *, with_revision: bool = True) -> LoraInfo:
    """Look into one entry of the job's `loras`. See `describe`.

    Raises:
        ModelError: When its file is not there, or it is for no family served.
    """
    store = open_store(parse_url(lora.path).url, storage)
    files = [entry for entry in store.list() if entry.path == lora.weight_name]
    if not files:
        raise ModelError(f"loras.{name}: {store.url}: no {lora.weight_name} there")
    found = LoraInfo(name=name, base=lora.base, revision=content_revision(store, files) if with_revision else "")
    if not any(found.fits(family) for family in FAMILIES.values()):
        raise ModelError(f"loras.{name}: base {lora.base!r} is no family; there are {', '.join(FAMILIES)}")
    return found


def _describe_folder(name: str, model: Model, storage: Mapping[str, Storage], with_revision: bool) -> ModelInfo:
    location = parse_url(model.path)
    store = open_store(location.url, storage)
    index = read_json(store, "model_index.json", f"models.{name}: {location.url}")
    configs = {"model_index.json": index}

    def fact(place: str) -> Any:
        file, _, key = place.partition(" ")
        if file not in configs:
            configs[file] = read_json(store, file, location.url)
        return configs[file].get(key)

    class_name = str(index.get("_class_name"))
    family = find_family(class_name, fact)
    if family is None:
        served = sorted({family.class_name for family in FAMILIES.values()})
        raise ModelError(f"models.{name}: {location.url} is a {class_name}; families served: {', '.join(served)}")
    entries = component_files(store, index)
    refuse_libraries(index, f"models.{name}: {location.url}/model_index.json")
    refuse_code(store, entries, f"models.{name}: {location.url}")
    height, width = _native_size(family, fact)
    weights = sum(
        entry.size_bytes
        for entry in entries
        if entry.path.startswith(f"{family.denoiser}/") and entry.path.endswith(".safetensors")
    )
    return ModelInfo(
        name=name,
        path=location.url,
        family=family,
        revision=model.revision or (content_revision(store, entries) if with_revision else ""),
        height=height,
        width=width,
        parameters=weights // _DTYPE_BYTES[model.dtype],
        options=model,
    )


def _describe_stated(name: str, model: Model, title: str) -> ModelInfo:
    """Return what the job says of a model whose folder lies elsewhere; a worker's load looks whether it is so."""
    family = FAMILIES.get(title)
    if family is None:
        near = difflib.get_close_matches(title, FAMILIES, n=1)
        hint = f"did you mean {near[0]}?" if near else f"there are {', '.join(FAMILIES)}"
        raise ModelError(f"models.{name}.family: {title!r} is no family; {hint}")
    height = model.defaults.height or family.defaults.get("height")
    width = model.defaults.width or family.defaults.get("width")
    if height is None or width is None:
        raise ModelError(f"models.{name}: {title} has no size of its own; say defaults.height and defaults.width")
    return ModelInfo(
        name=name,
        path=parse_url(model.path).url,
        family=family,
        revision=model.revision or "",
        height=height,
        width=width,
        parameters=0,
        options=model,
    )


def _describe_builtin(name: str, model: Model, storage: Mapping[str, Storage], with_revision: bool) -> ModelInfo:
    title = model.path.removeprefix("builtin:")
    if title in SHIPPED:
        lying = model.model_copy(update={"path": str(SHIPPED[title])})
        info = _describe_folder(name, lying, storage, with_revision)
        own = SHIPPED_DEFAULTS.get(title, {})
        height, width = own.get("height", info.height), own.get("width", info.width)
        return replace(info, path=model.path, options=model, height=height, width=width, defaults=own)
    builtin = BUILTINS.get(title)
    if builtin is None:
        known = ", ".join(f"builtin:{key}" for key in (*SHIPPED, *BUILTINS))
        raise ModelError(f"models.{name}: {model.path} is no builtin; there are {known}")
    return ModelInfo(
        name=name,
        path=model.path,
        family=FAMILIES[builtin.family],
        revision=model.revision or builtin.revision,
        height=builtin.height,
        width=builtin.width,
        parameters=builtin.parameters,
        options=model,
    )


def _native_size(family: Family, fact: Callable[[str], Any]) -> tuple[int, int]:
    """Return height and width the model was made for: the family's, or the denoiser's sample size times the VAE's."""
    if "height" in family.defaults:
        return family.defaults["height"], family.defaults["width"]
    sample = fact(f"{family.denoiser}/config.json sample_size") or 64
    height, width = sample if isinstance(sample, list) else (sample, sample)
    channels = fact("vae/config.json block_out_channels") or fact("vae/config.json encoder_block_out_channels")
    factor = 2 ** (len(channels or [0] * 4) - 1)
    return int(height) * factor, int(width) * factor
