"""What a model folder says of itself, without torch.

    job's models --> describe() --> ModelInfo (family, native size, content revision)

A folder is diffusers' own layout: model_index.json beside one folder per component. Its content revision goes into
every request key, so a changed weight makes every asset of that model anew.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from sdbatch.config import Model, Storage
from sdbatch.errors import ModelError
from sdbatch.families import FAMILIES, Family
from sdbatch.storage import Entry, Store, cache_folder, open_store, parse_url, sha256_files

READ_SUFFIXES = (".json", ".safetensors", ".txt", ".model", ".jinja")
"""What the loader reads. Pickles (.bin, .ckpt, .pt) and code (.py) are never opened and never digested."""

_DTYPE_BYTES = {"float32": 4, "float16": 2, "bfloat16": 2}


@dataclass(frozen=True, slots=True, kw_only=True)
class Builtin:
    """A model the package makes itself.

    Attributes:
        maker: Dotted path of the function that writes its folder.
        class_name: Family.
        revision: Raised when the maker's output changes.
        height: Native, pixels.
        width: Native, pixels.
        parameters: Of the denoiser.
    """

    maker: str
    class_name: str
    revision: str
    height: int
    width: int
    parameters: int


BUILTINS: Final[Mapping[str, Builtin]] = {
    "tiny-sd": Builtin(
        maker="sdbatch.generate.tiny:make_tiny_sd",
        class_name="StableDiffusionPipeline",
        revision="tiny-sd-random-1",
        height=64,
        width=64,
        parameters=246_596,
    ),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelInfo:
    """One entry of the job's `models`, looked into.

    Attributes:
        name: Name in the job.
        path: As in the job, made absolute; `builtin:NAME` stays.
        family: Row of the family table.
        revision: Content revision; "" when it was not asked for.
        height: Native height in pixels.
        width: Native width in pixels.
        parameters: Of the denoiser, from its files' size; 0 when unknown.
        options: The job's entry.
    """

    name: str
    path: str
    family: Family
    revision: str
    height: int
    width: int
    parameters: int
    options: Model


def describe(name: str, model: Model, storage: Mapping[str, Storage], *, with_revision: bool = True) -> ModelInfo:
    """Look into one model folder.

    Args:
        name: Name in the job's `models`.
        model: The job's entry.
        storage: The job's options by URL prefix.
        with_revision: Digest the files too, which reads every weight once (remembered afterwards).

    Raises:
        ModelError: When there is no such folder, or its class is in no family row.
    """
    if model.path.startswith("builtin:"):
        return _describe_builtin(name, model)
    location = parse_url(model.path)
    store = open_store(location.url, storage)
    index = _read_json(store, "model_index.json", f"models.{name}: {location.url}")
    class_name = str(index.get("_class_name"))
    if class_name not in FAMILIES:
        raise ModelError(
            f"models.{name}: {location.url} is a {class_name}; families served: {', '.join(sorted(FAMILIES))}"
        )
    family = FAMILIES[class_name]
    entries = component_files(store, index)
    revision = model.revision or (_revision(store, entries) if with_revision else "")
    height, width = _native_size(store, family)
    weights = sum(
        entry.size_bytes
        for entry in entries
        if entry.path.startswith(f"{family.denoiser}/") and entry.path.endswith(".safetensors")
    )
    return ModelInfo(
        name=name,
        path=location.url,
        family=family,
        revision=revision,
        height=height,
        width=width,
        parameters=weights // _DTYPE_BYTES[model.dtype],
        options=model,
    )


def component_files(store: Store, index: Mapping[str, Any]) -> list[Entry]:
    """Return the files a loader reads: model_index.json and what its components' folders hold."""
    folders = {name for name, value in index.items() if isinstance(value, list) and value[0] is not None}
    return [
        entry
        for entry in store.list()
        if entry.path == "model_index.json"
        or (entry.path.partition("/")[0] in folders and entry.path.endswith(READ_SUFFIXES))
    ]


def builtin_folder(name: str) -> str:
    """Return where a builtin's folder lies on this machine once it was made."""
    return str(cache_folder() / "models" / BUILTINS[name].revision)


def _describe_builtin(name: str, model: Model) -> ModelInfo:
    builtin = BUILTINS.get(model.path.removeprefix("builtin:"))
    if builtin is None:
        known = ", ".join(f"builtin:{key}" for key in BUILTINS)
        raise ModelError(f"models.{name}: {model.path} is no builtin; there are {known}")
    return ModelInfo(
        name=name,
        path=model.path,
        family=FAMILIES[builtin.class_name],
        revision=model.revision or builtin.revision,
        height=builtin.height,
        width=builtin.width,
        parameters=builtin.parameters,
        options=model,
    )


def _read_json(store: Store, path: str, name: str) -> dict[str, Any]:
    try:
        value = json.loads(store.read(path))
    except (FileNotFoundError, NotADirectoryError) as error:
        raise ModelError(f"{name}: no {path} there; a model is a folder in diffusers' layout") from error
    except ValueError as error:
        raise ModelError(f"{name}: {path} is not JSON: {error}") from error
    if not isinstance(value, dict):
        raise ModelError(f"{name}: {path} is not a JSON object")
    return value


def _revision(store: Store, entries: list[Entry]) -> str:
    """Digest names and contents (sha256 locally, size and ETag remotely)."""
    if store.is_local:
        local = sha256_files(f"{store.url}/{entry.path}" for entry in entries)
        marks = [f"{entry.path} {local[f'{store.url}/{entry.path}']}" for entry in entries]
    else:
        marks = [f"{entry.path} {entry.size_bytes} {entry.etag}" for entry in entries]
    return hashlib.sha256("\n".join(marks).encode()).hexdigest()


def _native_size(store: Store, family: Family) -> tuple[int, int]:
    """Return height and width the model was made for: the denoiser's sample size times the VAE's factor."""
    denoiser = _read_json(store, f"{family.denoiser}/config.json", store.url)
    vae = _read_json(store, "vae/config.json", store.url)
    sample = denoiser.get("sample_size", 64)
    height, width = sample if isinstance(sample, list) else (sample, sample)
    factor = 2 ** (len(vae.get("block_out_channels", [0] * 4)) - 1)
    return int(height) * factor, int(width) * factor
