"""Loads a model folder as pipelines, safely.

    path --> local folder (made or copied once) --> checked --> DiffusionPipeline --> one pipeline per route

Only safetensors, only local files, no code from a folder.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import diffusers
import torch
from diffusers.utils import logging as diffusers_logging
from transformers.utils import logging as transformers_logging

from sdbatch.checkpoints import describe, describe_lora
from sdbatch.errors import ModelError, ModelLoadFailed
from sdbatch.families import Family
from sdbatch.generate.accelerators import accelerate
from sdbatch.generate.load.copies import component_folder, lora_file, model_folder
from sdbatch.generate.load.loaded import OPTIONS, LoadedModel, quieten
from sdbatch.generate.load.loras import LoraFile
from sdbatch.job import Lora, Model, Storage
from sdbatch.points import reached

DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}


def quieten_libraries() -> None:
    """Let diffusers and transformers log errors only and show no progress bars, in the whole process.

    A worker's process calls it where it starts. `load_model` leaves the process of its caller as it is.
    """
    for library in (diffusers_logging, transformers_logging):
        library.set_verbosity_error()
        library.disable_progress_bar()


def load_model(
    name: str, model: Model, revision: str, storage: Mapping[str, Storage], loras: Mapping[str, Lora] | None = None
) -> LoadedModel:
    """Load a model for generation.

    Args:
        name: Name in the job.
        model: The job's entry.
        revision: Planned, or recorded, identity of everything the entry names: `ModelInfo.combined_revision`.
        storage: The job's options by URL prefix.
        loras: The job's LoRAs; those that fit the model can be laid over it.

    Raises:
        ModelLoadFailed: When it cannot be loaded, or is no longer what was planned. The files of a stated content
            digest are compared with it; a stated commit is believed.
    """
    reached("before-load")
    dtype = DTYPES[model.dtype]
    # A worker that reserved no GPU leaves them to others, though Ray does not hide them from it.
    device = "cuda" if torch.cuda.is_available() and model.num_gpus != 0 else "cpu"
    try:
        info = describe(name, model.model_copy(update={"family": None}), storage)
        if model.family not in {None, info.family.title}:
            raise ModelLoadFailed(f"{model.path} is {info.family.title}, the job says {model.family}")
        if not info.answers_to(revision):
            revision_now = info.combined_revision
            raise ModelLoadFailed(f"{model.path} is not what was planned: revision {revision_now}, not {revision}")
        folder = model_folder(model, info.base_revision, storage)
        pipeline = _from_folder(folder, info.family.class_name, dtype)
        components = {
            option: _component(
                component_folder(component, info.component_revisions[option], storage), info.components[option], dtype
            ).to(device)
            for option, component in model.components.items()
        }
        files = _lora_files(info.family, loras or {}, storage)
    except (OSError, ValueError, RuntimeError, ImportError, ModelError) as error:
        raise ModelLoadFailed(f"{model.path}: {type(error).__name__}: {error}") from error
    _place(pipeline, device, offload_text_encoder=model.offload_text_encoder)
    quieten(pipeline)
    accelerate(pipeline, info.family, model, device)
    reached("after-load")
    return LoadedModel(pipeline, info.family, device, components, files, model)


def _place(pipeline: Any, device: str, *, offload_text_encoder: bool) -> None:
    for name, module in pipeline.components.items():
        if isinstance(module, torch.nn.Module) and not (offload_text_encoder and name.startswith("text_encoder")):
            module.to(device)


def _from_folder(folder: Path, class_name: str, dtype: torch.dtype) -> Any:
    # diffusers would take a path that is not a folder for a name on a hub and ask for it over the network.
    if not (folder / "model_index.json").is_file():
        raise ModelLoadFailed(f"{folder}: no model_index.json there")
    cls = getattr(diffusers, class_name)
    taken = inspect.signature(cls.__init__).parameters
    options = {name: value for name, value in OPTIONS.items() if name in taken}
    return cls.from_pretrained(str(folder), dtype=dtype, use_safetensors=True, local_files_only=True, **options)


def _component(folder: Path, class_name: str, dtype: torch.dtype) -> Any:
    if not (folder / "config.json").is_file():
        raise ModelLoadFailed(f"{folder}: no config.json there")
    return getattr(diffusers, class_name).from_pretrained(
        str(folder), dtype=dtype, use_safetensors=True, local_files_only=True
    )


def _lora_files(family: Family, loras: Mapping[str, Lora], storage: Mapping[str, Storage]) -> dict[str, LoraFile]:
    """Return every LoRA that fits a family, by its identity."""
    files = {}
    for name, lora in loras.items():
        if lora.base in {family.title, family.class_name}:
            revision = describe_lora(name, lora, storage).revision
            files[revision] = LoraFile(
                name=name,
                path=lora_file(lora, revision, storage),
                is_partial_allowed=lora.partial == "allow",
            )
    return files
