"""Modules that a model entry lays over a checkpoint's own: what they are, whether they fit, what names their content.

    entry + component + model_index.json --> look_into() --> LaidOver: class, files, identity; or ModelError

A component is a folder with a config.json (or a tokenizer's, a scheduler's), or one file: .safetensors or .gguf. No
torch: class and fit are known from configurations and headers.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final

from sdbatch.checkpoints.files import content_revision, folder_files, read_json, variant_in
from sdbatch.checkpoints.fitting import file_fault
from sdbatch.checkpoints.gguf import read_gguf
from sdbatch.checkpoints.headers import Header, read_header, read_headers
from sdbatch.checkpoints.identity import identity
from sdbatch.checkpoints.lacks import faults_of_files, faults_of_folder, faults_of_numbers
from sdbatch.checkpoints.layouts import Shapes, behind_prefix
from sdbatch.checkpoints.parameters import num_parameters
from sdbatch.checkpoints.refusals import refuse_code
from sdbatch.checkpoints.strangers import quantised
from sdbatch.checkpoints.variants import SHARD
from sdbatch.errors import ModelError
from sdbatch.families import Family
from sdbatch.hints import did_you_mean, nearest
from sdbatch.job import Component, Storage, base_of
from sdbatch.storage import Entry, Store, open_store, parse_url

Modules = Mapping[str, tuple[str | None, str | None]]
"""Library and class of every module by its name, as model_index.json has them; None where a folder lacks it."""

FILE_SUFFIXES: Final = (".safetensors", ".gguf")

GGUF_CLASSES: Final = frozenset(
    {
        "ChromaTransformer2DModel",
        "Flux2Transformer2DModel",
        "FluxTransformer2DModel",
        "HunyuanVideoTransformer3DModel",
        "LTX2VideoTransformer3DModel",
        "LTXVideoTransformer3DModel",
        "QwenImageTransformer2DModel",
        "SD3Transformer2DModel",
        "UNet2DConditionModel",
        "WanTransformer3DModel",
        "WanVACETransformer3DModel",
        "ZImageTransformer2DModel",
    }
)
"""Denoisers of our families that diffusers reads from one file (0.42.1), and so from GGUF."""

_TAKEN_AS: Final[Mapping[str, tuple[str, ...]]] = {
    "CLIPTextModel": ("CLIPModel", "CLIPTextModelWithProjection"),
    "CLIPTextModelWithProjection": ("CLIPModel",),
    "CLIPVisionModel": ("CLIPModel", "CLIPVisionModelWithProjection"),
    "CLIPVisionModelWithProjection": ("CLIPModel",),
    "Gemma2Model": ("Gemma2ForCausalLM",),
    "Qwen3Model": ("Qwen3ForCausalLM",),
    "T5EncoderModel": ("T5ForConditionalGeneration", "T5Model"),
    "UMT5EncoderModel": ("UMT5ForConditionalGeneration", "UMT5Model"),
}
"""Classes of transformers whose published folders hold the weights of another one, by the one that is loaded."""

_LEFT_OUT: Final = {"safety_checker": "StableDiffusionSafetyChecker", "feature_extractor": "CLIPImageProcessor"}
"""Modules that a model may come without, and their classes."""

_CONFIG_FILES: Final = (
    ("tokenizer", "tokenizer_config.json"),
    ("scheduler", "scheduler_config.json"),
    ("feature_extractor", "preprocessor_config.json"),
    ("image_processor", "preprocessor_config.json"),
    ("processor", "preprocessor_config.json"),
)
"""Beginnings of the names of modules without weights, and the file that describes each."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LaidOver:
    """One component, looked into.

    Attributes:
        class_name: Class it is loaded as.
        revision: Identity of its content; "" when it was not asked for.
        is_pinned: See `ModelInfo`.
        parameters: Number of its weights; 0 where it has none.
        quantized_by: Backend that its weights were quantised with already; "" for none.
        config: Its configuration.
        predicts: What its one file says that it predicts; see `Header`.
    """

    class_name: str
    revision: str
    is_pinned: bool
    parameters: int
    quantized_by: str
    config: Mapping[str, Any]
    predicts: str = ""


def modules_of(index: Mapping[str, Any]) -> dict[str, tuple[str | None, str | None]]:
    """Return library and class of every module that a model_index.json names."""
    pairs = {name: value for name, value in index.items() if isinstance(value, list) and len(value) == 2}
    known = {name: value for name, value in pairs.items() if all(one is None or isinstance(one, str) for one in value)}
    return {name: (library, class_name) for name, (library, class_name) in known.items()}


@contextmanager
def naming(place: str) -> Iterator[None]:
    """Name the entry of the job in a refusal of its files."""
    try:
        yield
    except ModelError as error:
        raise ModelError(f"{place}: {error}") from error


def has_weights(module: str) -> bool:
    """Whether a module of that name holds weights: tokenizers, schedulers and processors do not."""
    return config_file(module) == "config.json"


def config_file(module: str) -> str:
    """Return the name of the file that describes a module."""
    return next((file for start, file in _CONFIG_FILES if module.startswith(start)), "config.json")


def is_file(component: Component) -> bool:
    """Whether a component is one file and not a folder."""
    return component.path.endswith(FILE_SUFFIXES)


def store_of(component: Component, storage: Mapping[str, Storage]) -> tuple[Store, str]:
    """Return the folder a component lies in, and the file's name in it; "" where it is the folder itself."""
    url = parse_url(component.path).url
    if not is_file(component):
        return open_store(url, storage), ""
    folder, _, name = url.rpartition("/")
    return open_store(folder, storage), name


def component_entries(store: Store, file: str, dtype: str) -> list[Entry]:
    """Return the files that are read of a component: one, or those of its folder.

    Raises:
        ModelError: When the file is not there; see `folder_files` for a folder.
    """
    if not file:
        return folder_files(store, dtype=dtype)
    try:
        return [store.stat(file)]
    except (FileNotFoundError, NotADirectoryError) as error:
        raise ModelError(f"{store.url}: no {file} there") from error


def place_of(name: str, module: str, *, is_top: bool) -> str:
    """Return the key of a component in a job."""
    return f"models.{name}.{module}" if is_top else f"models.{name}.components.{module}"


def expected_class(place: str, module: str, family: Family, modules: Modules) -> str | None:
    """Return the class that a pipeline takes for a module; None where any will do, or nothing is known.

    Raises:
        ModelError: When the pipeline has no such module, or its absence is what tells the family.
    """
    further = {name: class_name for route in family.routes for name, class_name in route.every_component.items()}
    if base_of(module) in further and module not in modules:
        return None  # `refuse_of_no_route` looks at its class
    if not modules:
        return None
    if module not in modules:
        known = {*modules, *further}
        hint = did_you_mean(module, known) or f"it has {', '.join(sorted(known))}"
        raise ModelError(f"{place}: {family.class_name} has no module {module!r}; {hint}")
    class_name = modules[module][1]
    if class_name is None and module.endswith("_2") and module.startswith(family.denoiser.removesuffix("_2")):
        raise ModelError(f"{place}: the folder has one {family.denoiser} and takes no second one (model_index.json)")
    if class_name is None and family.unless.get(f"model_index.json {module}") is ...:
        raise ModelError(f"{place}: {family.title} has no {module} and takes none (model_index.json)")
    return class_name or _LEFT_OUT.get(module)


def look_into(
    place: str,
    module: str,
    component: Component,
    *,
    dtype: str,
    expected: str | None,
    own_config: Mapping[str, Any] | None,
    schedulers: tuple[str, ...],
    storage: Mapping[str, Storage],
    with_revision: bool,
) -> LaidOver:
    """Look into one component.

    Args:
        place: Key in the job, for messages.
        module: Name of the module.
        component: The job's entry.
        dtype: Numbers that it is run in.
        expected: Class that the pipeline takes; None for any.
        own_config: Configuration of the model's own module of that name; None where it has none.
        schedulers: Classes of schedulers that the family takes.
        storage: The job's options by URL prefix.
        with_revision: Whether files without a stated revision are digested.

    Raises:
        ModelError: When it is not there, is of another class, or cannot be read.
    """
    store, file = store_of(component, storage)
    name = f"{place}: {store.url}/{file}".rstrip("/")
    if file:
        config, of_config = _config_of_file(place, module, component, own_config, storage)
    else:
        config, of_config = folder_config(store, module, name), ""
    class_name = _class_name(name, module, config, expected, schedulers)
    with naming(place):
        entries = component_entries(store, file, dtype)
    refuse_code(store, entries, name)
    predicts = ""
    if file:
        parameters, quantized_by, predicts = _weights_of_file(store, entries[0], place, class_name, config)
    else:
        headers = read_headers(store, entries)
        if has_weights(module):
            faults = [*faults_of_folder(store, entries, headers), *faults_of_numbers(store, headers, method_of(config))]
        else:
            faults = faults_of_files(store, entries, headers, class_name)
        if faults:
            raise ModelError("\n".join(f"{place}: {fault}" for fault in faults))
        parameters = num_parameters(header for header in headers.values() if isinstance(header, Header))
        quantized_by = method_of(config)
    return LaidOver(
        class_name=class_name,
        revision=_revision(component, store, file, entries, of_config, with_revision=with_revision),
        is_pinned=component.revision is not None or store.is_local,
        parameters=parameters,
        quantized_by=quantized_by,
        config=config,
        predicts=predicts,
    )


def method_of(config: Mapping[str, Any]) -> str:
    """Return the backend that a folder's weights were quantised with, "" for none."""
    stated = config.get("quantization_config")
    if not isinstance(stated, dict):
        return ""
    is_bitsandbytes = stated.get("load_in_4bit") or stated.get("load_in_8bit")
    return "bitsandbytes" if is_bitsandbytes else str(stated.get("quant_method") or "an unnamed backend")


def folder_config(store: Store, module: str, name: str) -> dict[str, Any]:
    """Return the configuration of a component's folder.

    Args:
        store: The folder.
        module: Name of the module.
        name: Key in the job and the folder, for messages.

    Raises:
        ModelError: When there is none.
    """
    try:
        return read_json(store, config_file(module), name)
    except ModelError as error:
        if any(entry.path == "model_index.json" for entry in store.list("", deep=False)):
            message = f"{name}: is a whole model (model_index.json); name its module: {store.url}/{module}"
            raise ModelError(message) from error
        message = f"{name}: no {config_file(module)} there; a component is a folder with one, or one file"
        raise (ModelError(message) if "not JSON" not in str(error) else error) from error


def _config_of_file(
    place: str,
    module: str,
    component: Component,
    own_config: Mapping[str, Any] | None,
    storage: Mapping[str, Storage],
) -> tuple[Mapping[str, Any], str]:
    """Return the configuration of one file, and the digest of what the entry itself says of it."""
    if not has_weights(module):
        raise ModelError(f"{place}: {component.path}: a {module} is a folder with {config_file(module)}, not one file")
    if component.config is not None:
        config = read_json(open_store(parse_url(component.config).url, storage), "config.json", f"{place}.config")
        return config, hashlib.sha256(json.dumps(config, sort_keys=True).encode()).hexdigest()
    if own_config is None:
        raise ModelError(
            f"{place}: {component.path} is one file, and the model has no {module}/config.json that describes it; "
            "say config: the folder of its config.json"
        )
    return own_config, ""


def _class_name(
    name: str, module: str, config: Mapping[str, Any], expected: str | None, schedulers: tuple[str, ...]
) -> str:
    """Return the class that a component is loaded as, once it is known to fit."""
    found = _stated_class(module, config)
    if module.startswith("scheduler"):
        if found not in {expected, *schedulers}:
            near = nearest(found, schedulers) or ", ".join(schedulers[:1])
            raise ModelError(f"{name}: is a {found}, which the model does not take; the nearest is {near}")
        return str(found)
    if expected is None:
        if found is None:
            raise ModelError(f"{name}: its {config_file(module)} names no class")
        return found
    if found is None or found == expected or found in _TAKEN_AS.get(expected, ()):
        return expected
    if module.startswith("tokenizer") and _is_same_tokenizer(found, expected):
        return expected
    raise ModelError(f"{name}: is a {found}; as {module} the model takes {expected}")


def _stated_class(module: str, config: Mapping[str, Any]) -> str | None:
    if module.startswith("tokenizer"):
        found = config.get("tokenizer_class")
    elif config_file(module) == "preprocessor_config.json":
        return None  # they state a class that others stand in for, by what is installed
    else:
        architectures = config.get("architectures")
        found = config.get("_class_name") or (architectures[0] if isinstance(architectures, list | tuple) else None)
    return str(found) if found else None


def _is_same_tokenizer(found: str, expected: str) -> bool:
    generic = {"PreTrainedTokenizerFast", "TokenizersBackend", "AutoTokenizer"}
    return found.removesuffix("Fast") == expected.removesuffix("Fast") or not generic.isdisjoint({found, expected})


def _weights_of_file(
    store: Store, entry: Entry, place: str, class_name: str, config: Mapping[str, Any]
) -> tuple[int, str, str]:
    """Return how many weights one file holds, the backend that they were quantised with, and what it predicts."""
    file = f"{store.url}/{entry.path}"
    if SHARD.search(entry.path):
        raise ModelError(f"{place}: {file}: is one shard of several; name one file with all weights, or the folder")
    if entry.path.endswith(".gguf"):
        if class_name not in GGUF_CLASSES:
            raise ModelError(
                f"{place}: {file}: diffusers reads no {class_name} from GGUF; name a folder, and `quantize` beside it "
                "where it shall be small"
            )
        with naming(place):
            packed = read_gguf(store, entry.path)
        shapes = _bare({**packed.shapes, **packed.reshaped}, class_name)
        matrices = {name for name, shape in _bare(packed.shapes, class_name).items() if len(shape) == 2}
        _refuse_other_module(f"{place}: {file}", file_fault(class_name, config, shapes, matrices))
        return packed.parameters, "gguf", ""
    with naming(place):
        header = read_header(store, entry)
    if any("lora_" in tensor for tensor in header.tensors):
        raise ModelError(f"{place}: {file}: is a LoRA; name it among the job's loras")
    if fault := quantised(header.tensors):
        raise ModelError(f"{place}: {file}: {fault}")
    shapes = _bare({name: tensor["shape"] for name, tensor in header.tensors.items()}, class_name)
    _refuse_other_module(f"{place}: {file}", file_fault(class_name, config, shapes))
    return num_parameters([header]), "", header.predicts


def _bare(shapes: Shapes, class_name: str) -> Shapes:
    """Return the shapes of a denoiser without what stands before its names; those of another class as they are."""
    return (behind_prefix(shapes) if class_name in GGUF_CLASSES else {}) or shapes


def _refuse_other_module(name: str, fault: str) -> None:
    if fault:
        raise ModelError(f"{name}: {fault}")


def _revision(
    component: Component, store: Store, file: str, entries: list[Entry], of_config: str, *, with_revision: bool
) -> str:
    """Return the identity of a component: the stated revision, else that of its files, and of a `config` of its own."""
    if component.revision is not None:
        variant = variant_in(entry.path for entry in entries)
        found = identity(component.revision, file=file or None, variant=variant)
    elif with_revision:
        found = content_revision(store, entries)
    else:
        return ""
    return hashlib.sha256(f"{found}\nconfig {of_config}".encode()).hexdigest() if of_config else found
