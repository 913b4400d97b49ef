"""A model folder becomes pipelines, safely.

    path --> local folder (built or downloaded once) --> checked --> DiffusionPipeline --> one pipeline per task

Only safetensors, only local files, no code from a folder. One folder that serves several tasks is loaded once; its
pipelines share their modules.
"""

from __future__ import annotations

import copy
import importlib
import json
import os
import shutil
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import diffusers
import torch
from diffusers.utils import logging as diffusers_logging
from transformers.utils import logging as transformers_logging

from sdbatch.config import Model, Storage
from sdbatch.errors import ModelError, ModelLoadFailed
from sdbatch.models import BUILTINS, builtin_folder, component_files, describe
from sdbatch.storage import cache_folder, open_store, parse_url

DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}


class LoadedModel:
    """A model in memory, with a pipeline per task.

    Attributes:
        class_name: Of the folder's pipeline.
        device: Where it lies: `cuda` or `cpu`.
        dtype: torch's.
    """

    def __init__(self, pipeline: Any, device: str, dtype: torch.dtype) -> None:
        self.class_name = type(pipeline).__name__
        self.device = device
        self.dtype = dtype
        self._base = pipeline
        self._pipelines: dict[str, Any] = {self.class_name: pipeline}
        self._schedulers: dict[str, Any] = {"": pipeline.scheduler}

    def pipeline(self, class_name: str, scheduler: str) -> Any:
        """Return the pipeline of a class with a fresh scheduler.

        Args:
            class_name: diffusers class, from the family's row.
            scheduler: diffusers class, or "" for the folder's own.
        """
        pipeline = self._pipelines.get(class_name)
        if pipeline is None:
            cls = getattr(diffusers, class_name)
            # Without dtype, from_pipe casts the shared weights to float32 in place.
            pipeline = cls.from_pipe(self._base, dtype=self.dtype)
            pipeline.set_progress_bar_config(disable=True)
            self._pipelines[class_name] = pipeline
        if scheduler not in self._schedulers:
            self._schedulers[scheduler] = getattr(diffusers, scheduler).from_config(self._base.scheduler.config)
        pipeline.scheduler = copy.deepcopy(self._schedulers[scheduler])
        return pipeline

    def scheduler_name(self, scheduler: str) -> str:
        """Return the class name of the scheduler a row gets."""
        return scheduler or type(self._schedulers[""]).__name__


def load_model(name: str, model: Model, revision: str, storage: Mapping[str, Storage]) -> LoadedModel:
    """Load a model for generation.

    Args:
        name: Name in the job.
        model: The job's entry.
        revision: Content revision of the plan.
        storage: The job's options by URL prefix.

    Raises:
        ModelLoadFailed: When it cannot be loaded, or is no longer what was planned.
    """
    diffusers_logging.set_verbosity_error()
    diffusers_logging.disable_progress_bar()
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    try:
        found = describe(name, model, storage)
        if found.revision != revision:
            raise ModelLoadFailed(f"{model.path} is not what was planned: revision {found.revision}, not {revision}")
        folder = _local_folder(model, revision, storage)
        pipeline = _from_folder(folder, found.family.class_name, DTYPES[model.dtype])
    except (OSError, ValueError, RuntimeError, ImportError, ModelError) as error:
        raise ModelLoadFailed(f"{model.path}: {type(error).__name__}: {error}") from error
    # A worker that reserved no GPU leaves them to others, though Ray does not hide them from it.
    device = "cuda" if torch.cuda.is_available() and model.num_gpus != 0 else "cpu"
    pipeline.to(device)
    pipeline.set_progress_bar_config(disable=True)
    return LoadedModel(pipeline, device, DTYPES[model.dtype])


def _from_folder(folder: Path, class_name: str, dtype: torch.dtype) -> Any:
    # A path that is no folder would be taken for a name on a hub and asked for over the network.
    if not (folder / "model_index.json").is_file():
        raise ModelLoadFailed(f"{folder}: no model_index.json there")
    watermark = {"add_watermarker": False} if "StableDiffusionXL" in class_name else {}
    return getattr(diffusers, class_name).from_pretrained(
        str(folder), dtype=dtype, use_safetensors=True, local_files_only=True, **watermark
    )


def _local_folder(model: Model, revision: str, storage: Mapping[str, Storage]) -> Path:
    if model.path.startswith("builtin:"):
        name = model.path.removeprefix("builtin:")
        return _made_once(Path(builtin_folder(name)), lambda folder: _build(name, folder))
    location = parse_url(model.path)
    if location.is_local:
        return Path(location.path)
    # "/" cannot stand in a folder's name; a revision may be a branch such as refs/pr/1.
    target = cache_folder() / "models" / revision.replace("/", "_")
    return _made_once(target, lambda folder: _download(location.url, folder, storage))


def _build(name: str, folder: Path) -> None:
    module, _, function = BUILTINS[name].maker.partition(":")
    getattr(importlib.import_module(module), function)(folder)


def _download(url: str, folder: Path, storage: Mapping[str, Storage]) -> None:
    store = open_store(url, storage)
    index = json.loads(store.read("model_index.json"))
    for entry in component_files(store, index):
        target = folder / entry.path
        target.parent.mkdir(parents=True, exist_ok=True)
        with store.open(entry.path) as source, target.open("wb") as copy_of:
            shutil.copyfileobj(source, copy_of, 16 << 20)


def _made_once(target: Path, make: Any) -> Path:
    """Make a folder whole or not at all; of several processes one wins and the others take what it made."""
    if not target.is_dir():
        partial = target.with_name(f".{target.name}-{uuid.uuid4().hex}")
        partial.mkdir(parents=True)
        try:
            make(partial)
            os.rename(partial, target)  # noqa: PTH104 -- atomic; fails when another process was first
        except OSError:
            if not target.is_dir():
                raise
        finally:
            shutil.rmtree(partial, ignore_errors=True)
    return target
