"""A model folder becomes pipelines, safely.

    path --> local folder (built or downloaded once) --> checked --> DiffusionPipeline --> one pipeline per task

Only safetensors, only local files, no code from a folder. One folder that serves several tasks is loaded once; its
pipelines share their modules.
"""

from __future__ import annotations

import copy
import fcntl
import importlib
import inspect
import json
import os
import shutil
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import diffusers
import torch
from diffusers.loaders import TextualInversionLoaderMixin
from diffusers.utils import logging as diffusers_logging
from transformers.utils import logging as transformers_logging

from sdbatch.config import Lora, Model, Storage
from sdbatch.content import cache_folder
from sdbatch.errors import ModelError, ModelLoadFailed
from sdbatch.families import Family, TaskRow
from sdbatch.generate.accelerators import accelerate
from sdbatch.generate.memo import Memo
from sdbatch.generate.tokens import TokenCounter
from sdbatch.models import (
    BUILTINS,
    builtin_folder,
    component_files,
    content_revision,
    describe,
    describe_lora,
    folder_files,
)
from sdbatch.storage import Entry, Store, open_store, parse_url

DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}


# Imprinting a mark is the campaign's business, not a pipeline's; the classes that can do it are told not to.
_OPTIONS = {"add_watermarker": False}


class LoadedModel:
    """A model in memory, with a pipeline per way of its tasks; they share their modules.

    Attributes:
        class_name: Of the folder's pipeline.
        family: Row of the family table.
        device: Where it lies: `cuda` or `cpu`.
        options: The job's entry.
        memo: What its encoders made, kept as long as it is.
        tokens: Counts those of a prompt.
    """

    def __init__(
        self,
        pipeline: Any,
        family: Family,
        device: str,
        components: Mapping[str, Any] | None = None,
        loras: Mapping[str, Path] | None = None,
        options: Model | None = None,
    ) -> None:
        """Take a loaded pipeline.

        Args:
            pipeline: Of the folder's own class.
            family: Its family.
            device: Where it lies.
            components: Further modules by name: `controlnet`, `motion_adapter`.
            loras: File of weights by content revision, those that fit the family.
            options: The job's entry.
        """
        self.class_name = type(pipeline).__name__
        self.family = family
        self.device = device
        self.options = options or Model(path="")
        self._base = pipeline
        self._components = components or {}
        self._loras = loras or {}
        self._pipelines: dict[str, Any] = {self.class_name: pipeline}
        self._schedulers: dict[str, Any] = {"": pipeline.scheduler}
        self._adapters: set[str] = set()
        self.tokens = TokenCounter(pipeline, family)
        self.memo = Memo()

    def pipeline(self, way: TaskRow, scheduler: str, loras: Sequence[Sequence[Any]] = ()) -> Any:
        """Return the pipeline of a way with a fresh scheduler and just the adapters asked for.

        Args:
            way: Of the family's task.
            scheduler: diffusers class, or "" for the folder's own.
            loras: (content revision, weight) of each, as in the recipe.

        Raises:
            ModelLoadFailed: When a LoRA is no longer what was planned.
        """
        pipeline = self._pipelines.get(way.pipeline)
        if pipeline is None:
            further = {name: self._components[name] for name in way.components}
            pipeline = self._pipelines[way.pipeline] = _sibling(self._base, way.pipeline, further)
        if scheduler not in self._schedulers:
            self._schedulers[scheduler] = getattr(diffusers, scheduler).from_config(self._base.scheduler.config)
        pipeline.scheduler = copy.deepcopy(self._schedulers[scheduler])
        self._adapt(loras)
        return pipeline

    def scheduler_name(self, scheduler: str) -> str:
        """Return the class name of the scheduler a row gets."""
        return scheduler or type(self._schedulers[""]).__name__

    def _adapt(self, loras: Sequence[Sequence[Any]]) -> None:
        """Switch adapters. They are laid over and never fused, so the weights stay as they were read."""
        for revision, _ in loras:
            if revision not in self._adapters:
                file = self._loras.get(revision)
                if file is None:
                    raise ModelLoadFailed(f"none of the job's loras is what was planned: revision {revision}")
                self._base.load_lora_weights(
                    str(file.parent), weight_name=file.name, adapter_name=revision, use_safetensors=True
                )
                self._adapters.add(revision)
        if loras:
            self._base.enable_lora()
            self._base.set_adapters([revision for revision, _ in loras], [weight for _, weight in loras])
        elif self._adapters:
            self._base.disable_lora()


def _sibling(base: Any, class_name: str, further: Mapping[str, Any]) -> Any:
    """Return a pipeline of another class that shares a pipeline's modules.

    Not `from_pipe`: without `dtype` it casts the shared weights to float32 in place, with one those that a model keeps
    in float32 to something less.
    """
    cls = getattr(diffusers, class_name)
    found = {**base.config, **base.components, **further, **_OPTIONS}
    names = inspect.signature(cls.__init__).parameters.keys()
    pipeline = cls(**{name: found[name] for name in names if name in found})
    _quieten(pipeline)
    return pipeline


def load_model(
    name: str, model: Model, revision: str, storage: Mapping[str, Storage], loras: Mapping[str, Lora] | None = None
) -> LoadedModel:
    """Load a model for generation.

    Args:
        name: Name in the job.
        model: The job's entry.
        revision: Content revision of the plan.
        storage: The job's options by URL prefix.
        loras: The job's; those that fit the model can be laid over it.

    Raises:
        ModelLoadFailed: When it cannot be loaded, or is no longer what was planned.
    """
    diffusers_logging.set_verbosity_error()
    diffusers_logging.disable_progress_bar()
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    dtype = DTYPES[model.dtype]
    # A worker that reserved no GPU leaves them to others, though Ray does not hide them from it.
    device = "cuda" if torch.cuda.is_available() and model.num_gpus != 0 else "cpu"
    try:
        found = describe(name, model.model_copy(update={"family": None}), storage)
        if model.family not in {None, found.family.title}:
            raise ModelLoadFailed(f"{model.path} is {found.family.title}, the job says {model.family}")
        if found.revision != revision:
            raise ModelLoadFailed(f"{model.path} is not what was planned: revision {found.revision}, not {revision}")
        folder = _local_folder(model, revision, storage)
        pipeline = _from_folder(folder, found.family.class_name, dtype)
        components = {
            option: _component(getattr(model, option), class_name, storage, dtype).to(device)
            for option, class_name in found.components.items()
        }
        files = _lora_files(found.family, loras or {}, storage)
    except (OSError, ValueError, RuntimeError, ImportError, ModelError) as error:
        raise ModelLoadFailed(f"{model.path}: {type(error).__name__}: {error}") from error
    _place(pipeline, device, offload_text_encoder=model.offload_text_encoder)
    _quieten(pipeline)
    _name_text_model(getattr(pipeline, "text_encoder", None))
    accelerate(pipeline, found.family, model, device)
    return LoadedModel(pipeline, found.family, device, components, files, model)


def _place(pipeline: Any, device: str, *, offload_text_encoder: bool) -> None:
    for name, module in pipeline.components.items():
        if isinstance(module, torch.nn.Module) and not (offload_text_encoder and name.startswith("text_encoder")):
            module.to(device)


def _from_folder(folder: Path, class_name: str, dtype: torch.dtype) -> Any:
    # A path that is no folder would be taken for a name on a hub and asked for over the network.
    if not (folder / "model_index.json").is_file():
        raise ModelLoadFailed(f"{folder}: no model_index.json there")
    cls = getattr(diffusers, class_name)
    taken = inspect.signature(cls.__init__).parameters
    options = {name: value for name, value in _OPTIONS.items() if name in taken}
    return cls.from_pretrained(str(folder), dtype=dtype, use_safetensors=True, local_files_only=True, **options)


def _quieten(pipeline: Any) -> None:
    """Spare a pipeline what nobody here sees: its progress bar, and a search that finds nothing.

    In every prompt, negatives too, diffusers looks for words that a textual inversion made several tokens of. That
    tokenizes them once more, for 0.13 ms a row; a tokenizer without such words (`word_1` beside `word`) need not.
    """
    pipeline.set_progress_bar_config(disable=True)
    if isinstance(pipeline, TextualInversionLoaderMixin):
        convert = pipeline.maybe_convert_prompt

        def converted(prompt: str | list[str], tokenizer: Any) -> str | list[str]:
            added = tokenizer.added_tokens_encoder
            return convert(prompt, tokenizer) if any(f"{word}_1" in added for word in added) else prompt

        pipeline.maybe_convert_prompt = converted


def _name_text_model(encoder: Any) -> None:
    """Let `clip_skip` find the norm it reads at `text_model`: in transformers 5 CLIP's layers lie in the model itself.

    diffusers 0.42.1 still looks there, and a row with `clip_skip` fails.
    """
    if hasattr(encoder, "final_layer_norm") and not hasattr(encoder, "text_model"):
        object.__setattr__(encoder, "text_model", encoder)  # past torch's own, which would register a loop


def _component(path: str, class_name: str, storage: Mapping[str, Storage], dtype: torch.dtype) -> Any:
    folder = _local_copy(path, storage)
    if not (folder / "config.json").is_file():
        raise ModelLoadFailed(f"{folder}: no config.json there")
    return getattr(diffusers, class_name).from_pretrained(
        str(folder), dtype=dtype, use_safetensors=True, local_files_only=True
    )


def _lora_files(family: Family, loras: Mapping[str, Lora], storage: Mapping[str, Storage]) -> dict[str, Path]:
    """Return the file of every LoRA that fits a family, by content revision."""
    files = {}
    for name, lora in loras.items():
        if lora.base in {family.title, family.class_name}:
            found = describe_lora(name, lora, storage)
            files[found.revision] = _local_copy(lora.path, storage) / lora.weight_name
    return files


def _local_folder(model: Model, revision: str, storage: Mapping[str, Storage]) -> Path:
    if model.path.startswith("builtin:"):
        name = model.path.removeprefix("builtin:")
        return _made_once(Path(builtin_folder(name)), lambda folder: _build(name, folder))
    location = parse_url(model.path)
    if location.is_local:
        return Path(location.path)
    store = open_store(location.url, storage)
    entries = component_files(store, json.loads(store.read("model_index.json")))
    # "/" cannot stand in a folder's name; a revision may be a branch such as refs/pr/1.
    return _made_once(_cached(revision.replace("/", "_")), lambda folder: _download(store, entries, folder))


def _local_copy(path: str, storage: Mapping[str, Storage]) -> Path:
    """Return a folder of weights without a model_index.json on this machine."""
    location = parse_url(path)
    if location.is_local:
        return Path(location.path)
    store = open_store(location.url, storage)
    entries = folder_files(store)
    return _made_once(_cached(content_revision(store, entries)), lambda folder: _download(store, entries, folder))


def _cached(revision: str) -> Path:
    return cache_folder() / "models" / revision


def _build(name: str, folder: Path) -> None:
    module, _, function = BUILTINS[name].maker.partition(":")
    getattr(importlib.import_module(module), function)(folder)


def _download(store: Store, entries: Sequence[Entry], folder: Path) -> None:
    for entry in entries:
        target = folder / entry.path
        target.parent.mkdir(parents=True, exist_ok=True)
        with store.open(entry.path) as source, target.open("wb") as copy_of:
            shutil.copyfileobj(source, copy_of, 16 << 20)


def _made_once(target: Path, make: Any) -> Path:
    """Make a folder whole or not at all; of a node's processes one makes it while the others wait for it."""
    if not target.is_dir():
        target.parent.mkdir(parents=True, exist_ok=True)
        with target.with_name(f".{target.name}.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)  # freed by the system when a process ends, however it does
            if not target.is_dir():
                _make(target, make)
    return target


def _make(target: Path, make: Any) -> None:
    partial = target.with_name(f".{target.name}-{uuid.uuid4().hex}")
    partial.mkdir()
    try:
        make(partial)
        os.rename(partial, target)  # noqa: PTH104 -- atomic; fails where locks do not hold and another was first
    except OSError:
        if not target.is_dir():
            raise
    finally:
        shutil.rmtree(partial, ignore_errors=True)
