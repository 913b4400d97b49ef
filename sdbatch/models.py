"""What a model folder says of itself, without torch.

    job's models --> describe()      --> ModelInfo (family, native size, content revision)
    job's loras  --> describe_lora() --> LoraInfo (content revision)

A folder is diffusers' own layout: model_index.json beside one folder per component. Its content revision goes into
every request key, so a changed weight makes every asset of that model anew.
"""

from __future__ import annotations

import difflib
import hashlib
import importlib.util
import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

from sdbatch.config import Lora, Model, Storage
from sdbatch.content import cache_folder, sha256_files
from sdbatch.errors import ModelError
from sdbatch.families import FAMILIES, Family, find_family
from sdbatch.storage import Entry, Store, leads_out, open_store, parse_url

READ_SUFFIXES = (".json", ".safetensors", ".txt", ".model", ".jinja")
"""What the loader reads. Pickles (.bin, .ckpt, .pt) and code (.py) are never opened and never digested."""

COMPONENTS = ("controlnet", "motion_adapter")
"""Further folders of a model entry; each is part of the model's content revision."""

LIBRARIES = ("diffusers", "transformers")
"""Where components' classes come from; and from modules of `diffusers.pipelines`, such as `stable_diffusion`."""
CONFIG_BYTES_MAX = 16 << 20
_DTYPE_BYTES = {"float32": 4, "float16": 2, "bfloat16": 2}


@dataclass(frozen=True, slots=True, kw_only=True)
class Builtin:
    """A model that the package makes itself, where it is first used.

    Attributes:
        maker: Dotted path of the function that writes its folder.
        family: Title.
        revision: Raised when the maker's output changes.
        height: Native, pixels.
        width: Native, pixels.
        parameters: Of the denoiser.
    """

    maker: str
    family: str
    revision: str
    height: int
    width: int
    parameters: int


SHIPPED: Final[Mapping[str, Path]] = {
    name: Path(__file__).parent / "generate" / "tiny" / name for name in ("tiny-sd", "tiny-video")
}
"""Builtins whose weights come with the package: a folder like any other."""

SHIPPED_DEFAULTS: Final[Mapping[str, Mapping[str, Any]]] = {
    "tiny-video": {"height": 64, "width": 64, "num_frames": 17, "fps": 8.0, "guidance_scale": 2.0},
}
"""What they were trained for, where their folder cannot say it and their family's defaults would be wrong."""

BUILTINS: Final[Mapping[str, Builtin]] = {
    "tiny-random": Builtin(
        maker="sdbatch.generate.tiny.random_weights:make_tiny_random",
        family="Stable Diffusion 1.x/2.x",
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
        components: diffusers class of each further folder the entry names: `controlnet`, `motion_adapter`.
        defaults: Settings of its own, over its family's.
    """

    name: str
    path: str
    family: Family
    revision: str
    height: int
    width: int
    parameters: int
    options: Model
    components: Mapping[str, str] = field(default_factory=dict)
    defaults: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class LoraInfo:
    """One entry of the job's `loras`, looked into.

    Attributes:
        name: Name in the job.
        base: Title or class name of the family it fits.
        revision: Digest of its weights; "" when it was not asked for.
    """

    name: str
    base: str
    revision: str

    def fits(self, family: Family) -> bool:
        """Whether it was trained for a family."""
        return self.base in {family.title, family.class_name}


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
    revisions = [found.revision]
    for option in COMPONENTS:
        path = getattr(model, option)
        if path is not None:
            store = open_store(parse_url(path).url, storage)
            config = _read_json(store, "config.json", f"models.{name}.{option}: {store.url}")
            components[option] = str(config.get("_class_name"))
            entries = folder_files(store)
            _refuse_code(store, entries, f"models.{name}.{option}: {store.url}")
            revisions.append(content_revision(store, entries) if with_revision else "")
    refuse_accelerators(name, model, found.family)
    if components and with_revision:
        found = replace(found, revision=hashlib.sha256("\n".join(revisions).encode()).hexdigest())
    return replace(found, components=components)


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
    if model.guidance_interval is not None and not family.guides_by:
        raise ModelError(f"models.{name}.guidance_interval: {family.title} cannot leave guidance out of single steps")


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
    index = _read_json(store, "model_index.json", f"models.{name}: {location.url}")
    configs = {"model_index.json": index}

    def fact(place: str) -> Any:
        file, _, key = place.partition(" ")
        if file not in configs:
            configs[file] = _read_json(store, file, location.url)
        return configs[file].get(key)

    class_name = str(index.get("_class_name"))
    family = find_family(class_name, fact)
    if family is None:
        served = sorted({family.class_name for family in FAMILIES.values()})
        raise ModelError(f"models.{name}: {location.url} is a {class_name}; families served: {', '.join(served)}")
    entries = component_files(store, index)
    _refuse_libraries(index, f"models.{name}: {location.url}/model_index.json")
    _refuse_code(store, entries, f"models.{name}: {location.url}")
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


def component_files(store: Store, index: Mapping[str, Any]) -> list[Entry]:
    """Return the files a loader reads: model_index.json and what its components' folders hold."""
    folders = {name for name, value in index.items() if isinstance(value, list) and value and value[0] is not None}
    return [
        entry
        for entry in folder_files(store)
        if entry.path == "model_index.json" or entry.path.partition("/")[0] in folders
    ]


def folder_files(store: Store) -> list[Entry]:
    """Return the files a loader reads of a folder that holds one component.

    Raises:
        ModelError: When a name would lead out of the folder (an object store's keys may hold `..`).
    """
    entries = [entry for entry in store.list() if entry.path.endswith(READ_SUFFIXES)]
    for entry in entries:
        if leads_out(entry.path):
            raise ModelError(f"{store.url}: the file name {entry.path!r} leads out of the folder")
    return entries


def _refuse_libraries(index: Mapping[str, Any], name: str) -> None:
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


def _refuse_code(store: Store, entries: Iterable[Entry], name: str) -> None:
    """Refuse a folder whose configuration asks for code of its own, or for weights that lie elsewhere."""
    for entry in entries:
        if not entry.path.endswith(("config.json", ".index.json")):
            continue
        if entry.size_bytes > CONFIG_BYTES_MAX:
            raise ModelError(f"{name}: {entry.path} has {entry.size_bytes} bytes, over {CONFIG_BYTES_MAX}")
        config = _read_json(store, entry.path, name)
        if "auto_map" in config:
            raise ModelError(f"{name}: {entry.path} asks for code of the folder (auto_map); none is run")
        weights = config.get("weight_map", {})
        for file in set(weights.values()) if isinstance(weights, dict) else {weights}:
            if not isinstance(file, str) or "/" in file or not file.endswith(".safetensors"):
                raise ModelError(f"{name}: {entry.path} names {file!r}; weights are .safetensors files beside it")


def builtin_folder(name: str) -> str:
    """Return where a builtin's folder lies on this machine, once it was made if it is not shipped."""
    return str(SHIPPED.get(name) or cache_folder() / "models" / BUILTINS[name].revision)


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


def content_revision(store: Store, entries: list[Entry]) -> str:
    """Digest names and contents (sha256 locally, size and ETag remotely)."""
    if store.is_local:
        local = sha256_files(f"{store.url}/{entry.path}" for entry in entries)
        marks = [f"{entry.path} {local[f'{store.url}/{entry.path}']}" for entry in entries]
    else:
        marks = [f"{entry.path} {entry.size_bytes} {entry.etag}" for entry in entries]
    return hashlib.sha256("\n".join(marks).encode()).hexdigest()


def _native_size(family: Family, fact: Callable[[str], Any]) -> tuple[int, int]:
    """Return height and width the model was made for: the family's, or the denoiser's sample size times the VAE's."""
    if "height" in family.defaults:
        return family.defaults["height"], family.defaults["width"]
    sample = fact(f"{family.denoiser}/config.json sample_size") or 64
    height, width = sample if isinstance(sample, list) else (sample, sample)
    channels = fact("vae/config.json block_out_channels") or fact("vae/config.json encoder_block_out_channels")
    factor = 2 ** (len(channels or [0] * 4) - 1)
    return int(height) * factor, int(width) * factor
