"""Loads a model folder as pipelines, safely.

    path --> local folder (made or copied once) --> checked --> DiffusionPipeline --> one pipeline per route

Only safetensors, only local files, no code from a folder.
"""

from __future__ import annotations

import inspect
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

import diffusers
import torch
from diffusers.loaders.single_file_utils import SingleFileComponentError
from diffusers.utils import logging as diffusers_logging
from huggingface_hub.errors import StrictDataclassError
from safetensors import SafetensorError
from transformers.utils import logging as transformers_logging

from sdbatch.checkpoints import describe, describe_lora
from sdbatch.errors import DeviceLost, GpuUnusable, ModelError, ModelLoadFailed
from sdbatch.families import Family
from sdbatch.generate.device import device_of
from sdbatch.generate.faults import failure_kind
from sdbatch.generate.load.components import DTYPES, FLOAT32_VAES, ModuleReader
from sdbatch.generate.load.copies import config_folder, lora_file, model_file, model_folder
from sdbatch.generate.load.loaded import OPTIONS, LoadedModel, quieten
from sdbatch.generate.load.loras import LoraFile
from sdbatch.generate.load.mixed import cast_inputs
from sdbatch.generate.load.placing import place, reads_to_device
from sdbatch.generate.load.references import References
from sdbatch.generate.load.room import refuse_without_room, weights_in_words
from sdbatch.generate.load.single_file import pipeline_from_file
from sdbatch.generate.load.whole import READ_ERRORS, told_of_parts
from sdbatch.generate.memory import memory_at_hand, release_memory
from sdbatch.job import Lora, Model, Storage
from sdbatch.points import reached

_REFUSALS: Final = (SafetensorError, SingleFileComponentError, StrictDataclassError)
"""What libraries raise on files that they do not read, beside errors of Python's own."""


def quieten_libraries() -> None:
    """Let diffusers and transformers log errors only and show no progress bars, in the whole process.

    A worker's process calls it where it starts. `load_model` leaves the process of its caller as it was.
    """
    for library in (diffusers_logging, transformers_logging):
        library.set_verbosity_error()
        library.disable_progress_bar()


def load_model(
    name: str,
    model: Model,
    revision: str,
    storage: Mapping[str, Storage],
    loras: Mapping[str, Lora] | None = None,
    *,
    is_gpu_reserved: bool = False,
) -> LoadedModel:
    """Load a model for generation.

    Args:
        name: Name in the job.
        model: The job's entry.
        revision: Planned, or recorded, identity of everything the entry names: `ModelInfo.combined_revision`.
        storage: The job's options by URL prefix.
        loras: The job's LoRAs; those that fit the model can be laid over it.
        is_gpu_reserved: Whether Ray reserved a GPU for this process.

    Raises:
        ModelLoadFailed: When it cannot be loaded, does not fit the device, or is no longer what was planned. The files
            of a stated content digest are compared with it; a stated commit is believed.
        GpuUnusable: When it asks for a GPU and torch cannot use one.
        DeviceLost: When the device refuses every further call.
    """
    reached("before-load")
    # A worker that reserved no GPU leaves them to others, though Ray does not hide them from it.
    device = device_of(model.num_gpus, is_reserved=is_gpu_reserved).name
    read: _Read | None = None
    try:
        with _without_bars():
            read = _read(name, model, revision, storage, loras or {}, device)
            loaded = _place(read, read.options, device)
    except (*_REFUSALS, OSError, ValueError, RuntimeError, ImportError, MemoryError, ModelError) as error:
        kind, said = failure_kind(error), f"{type(error).__name__}: {error}"
        if kind == "Raised":
            raise ModelLoadFailed(f"{model.path}: {said}") from error
    else:
        release_memory()  # what the libraries' loaders have left in cycles
        reached("after-load")
        return loaded
    read = None  # the error is gone as well: both hold what was placed so far
    release_memory()
    if kind == "OutOfMemory":
        needed = weights_in_words(describe(name, model, storage, with_revision=False))
        raise ModelLoadFailed(f"{model.path}: {needed} do not fit: {memory_at_hand(device)}; {said}")
    raise (GpuUnusable if kind == "GpuUnusable" else DeviceLost)(f"{model.path}: {said}")


@contextmanager
def _without_bars() -> Iterator[None]:
    """Let diffusers and transformers show no progress bars meanwhile, in the process of a caller who shows its own."""
    showing = [library for library in (diffusers_logging, transformers_logging) if library.is_progress_bar_enabled()]
    for library in showing:
        library.disable_progress_bar()
    try:
        yield
    finally:
        for library in showing:
            library.enable_progress_bar()


@dataclass(frozen=True, slots=True, kw_only=True)
class _Read:
    """A model that was read, into host memory or to its device.

    Attributes:
        pipeline: Pipeline of the folder's own class.
        family: Family of the model.
        components: Further modules by name.
        loras: By identity, the LoRAs that were made for the family.
        options: The job's entry, its dtype looked up.
        embeddings: File of each textual inversion, by its word and identity.
        embedding_vectors: Vectors of each textual inversion, by its word.
        references: Its IP-Adapter, laid into the denoiser; None without one.
    """

    pipeline: Any
    family: Family
    components: Mapping[str, Any]
    loras: Mapping[str, LoraFile]
    options: Model
    embeddings: Mapping[tuple[str, str], Path]
    embedding_vectors: Mapping[str, int]
    references: References | None


def _read(
    name: str, model: Model, revision: str, storage: Mapping[str, Storage], loras: Mapping[str, Lora], device: str
) -> _Read:
    """Read a model, once it is known to be the one that was planned; module by module to its device where it can."""
    info = describe(name, model.model_copy(update={"family": None}), storage)
    model = model.model_copy(update={"dtype": info.options.dtype})
    if model.family not in {None, info.family.title}:
        raise ModelLoadFailed(f"{model.path} is {info.family.title}, the job says {model.family}")
    if not info.answers_to(revision):
        revision_now = info.combined_revision
        raise ModelLoadFailed(f"{model.path} is not what was planned: revision {revision_now}, not {revision}")
    refuse_without_room(info, device)
    single = info.single_file
    folder = config_folder(single.configs, storage) if single else model_folder(model, info.base_revision, storage)
    reader = ModuleReader(info, model, folder, storage, device)
    laid_over = reader.laid_over()
    passed = {module: laid_over[module] for module in info.always_laid_over}
    if single is not None:
        file = model_file(model, single.revision, storage)
        pipeline = pipeline_from_file(file, folder, info.family, DTYPES[model.dtype], passed)
        reader.quantise_own(pipeline)
    else:
        passed |= reader.quantised()
        read_to = device if not passed and reads_to_device(model) else None
        pipeline = _from_folder(folder, info.family.class_name, model, passed, read_to)
    further = {module: component for module, component in laid_over.items() if module not in passed}
    adapter = reader.ip_adapter()
    references = None if adapter is None else References(pipeline, info.family, adapter)
    if any(component.dtype not in {None, model.dtype} for component in model.laid_over.values()):
        cast_inputs({**pipeline.components, **further})
    return _Read(
        pipeline=pipeline,
        family=info.family,
        components=further,
        loras=_lora_files(info.family, loras, storage),
        options=model,
        embeddings={
            (word, info.embeddings[word]): lora_file(one.as_lora(info.family.title), info.embeddings[word], storage)
            for word, one in model.embeddings.items()
        },
        embedding_vectors=info.embedding_vectors,
        references=references,
    )


def _place(read: _Read, model: Model, device: Literal["cuda", "cpu"]) -> LoadedModel:
    """Put a model on its device and set it up."""
    place(read.pipeline, read.components, read.family, model, device)
    quieten(read.pipeline)
    return LoadedModel(
        read.pipeline,
        read.family,
        device,
        read.components,
        read.loras,
        model,
        embeddings=read.embeddings,
        references=read.references,
        embedding_vectors=read.embedding_vectors,
    )


def _from_folder(folder: Path, class_name: str, model: Model, passed: Mapping[str, Any], device: str | None) -> Any:
    """Return the pipeline of a folder, with some modules that were read before; the others are read to a device."""
    # diffusers would take a path that is not a folder for a name on a hub and ask for it over the network.
    if not (folder / "model_index.json").is_file():
        raise ModelLoadFailed(f"{folder}: no model_index.json there")
    cls = getattr(diffusers, class_name)
    taken = inspect.signature(cls.__init__).parameters
    if unknown := sorted(passed.keys() - taken.keys()):
        raise ModelLoadFailed(f"{class_name} takes no {unknown[0]}; it takes {', '.join(list(taken)[1:])}")
    options: dict[str, Any] = {name: value for name, value in OPTIONS.items() if name in taken}
    if "safety_checker" in taken and not model.safety_checker:
        left_out = {"safety_checker": None, "requires_safety_checker": False}
        options |= {name: value for name, value in left_out.items() if name in taken}
    vae = json.loads((folder / "model_index.json").read_text()).get("vae")
    is_wide = isinstance(vae, list) and vae[-1] in FLOAT32_VAES
    dtype = DTYPES[model.dtype]
    with told_of_parts(), _reading(folder, class_name):
        return cls.from_pretrained(
            str(folder),
            dtype={"default": dtype, "vae": torch.float32} if is_wide else dtype,
            use_safetensors=True,
            local_files_only=True,
            device_map=device,
            **options,
            **passed,
        )


@contextmanager
def _reading(folder: Path, class_name: str) -> Iterator[None]:
    """Blame a folder whose configurations a pipeline cannot read."""
    try:
        yield
    except READ_ERRORS as error:
        raise ModelLoadFailed(f"{folder}: is not read as a {class_name}: {type(error).__name__}: {error}") from error


def _lora_files(family: Family, loras: Mapping[str, Lora], storage: Mapping[str, Storage]) -> dict[str, LoraFile]:
    """Return every LoRA that fits a family, by its identity."""
    files = {}
    for name, lora in loras.items():
        if lora.base in {family.title, family.class_name}:
            info = describe_lora(name, lora, storage)
            if not info.fits(family):
                continue
            files[info.revision] = LoraFile(
                name=name,
                path=lora_file(lora, info.weights_revision, storage),
                is_partial_allowed=lora.partial == "allow",
                is_second=info.is_second,
            )
    return files
