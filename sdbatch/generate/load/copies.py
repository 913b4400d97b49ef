"""A model's files on this machine: where they lie, or copied once from a bucket."""

from __future__ import annotations

import fcntl
import importlib
import json
import os
import shutil
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from sdbatch.checkpoints import (
    BUILTINS,
    builtin_folder,
    component_files,
    content_revision,
    folder_files,
)
from sdbatch.job import Model, Storage
from sdbatch.storage import Entry, Store, open_store, parse_url
from sdbatch.storage.cache import cache_folder


def local_folder(model: Model, revision: str, storage: Mapping[str, Storage]) -> Path:
    """Return the folder of a model on this machine, made or copied first where it is not there."""
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


def local_copy(path: str, storage: Mapping[str, Storage]) -> Path:
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
