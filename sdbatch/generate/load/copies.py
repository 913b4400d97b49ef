"""Finds weights on this machine, and copies them once from a bucket where they are not here.

    path + identity --> local folder, as it is
                    --> bucket: models/TAIL-HASH/ in the cache folder, and models/TAIL-HASH.json beside it

A copy is named by URL and identity, so that two buckets are two copies whatever their revisions say. The record beside
it holds size, mtime, inode and digest of every file; a file that changed since is digested again, and a copy that is no
longer what was downloaded is made anew.
"""

from __future__ import annotations

import fcntl
import hashlib
import importlib
import json
import logging
import os
import shutil
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from sdbatch.checkpoints import (
    BUILTINS,
    SHIPPED,
    builtin_folder,
    component_files,
    content_digest,
    content_revision,
    digest_of,
    folder_files,
    is_content_digest,
    lora_files,
)
from sdbatch.errors import ModelLoadFailed
from sdbatch.job import Component, Lora, Model, Storage
from sdbatch.storage import Entry, Store, open_store, parse_url
from sdbatch.storage.cache import cache_folder
from sdbatch.storage.digests import mark_of, sha256_files

LOG = logging.getLogger("sdbatch.generate")
_CHUNK_BYTES = 16 << 20

Listing = Callable[[Store], list[Entry]]
"""Function that lists the files of a folder that belong to a model."""


def model_folder(model: Model, revision: str, storage: Mapping[str, Storage]) -> Path:
    """Return the folder of a model on this machine; where it is missing, it is made or copied first.

    Args:
        model: The job's entry.
        revision: Identity of the folder.
        storage: The job's options by URL prefix.

    Raises:
        ModelLoadFailed: When the entry states a content digest and the files have another.
    """
    name = model.path.removeprefix("builtin:")
    if name in BUILTINS and name != model.path:
        return _built(name)
    path = str(SHIPPED[name]) if name in SHIPPED and name != model.path else model.path
    return _local(path, model.revision, revision, storage, _files_of_model)


def component_folder(component: Component, revision: str, storage: Mapping[str, Storage]) -> Path:
    """Return a folder of weights without a model_index.json on this machine. See `model_folder`."""
    return _local(component.path, component.revision, revision, storage, folder_files)


def lora_file(lora: Lora, revision: str, storage: Mapping[str, Storage]) -> Path:
    """Return the file of a LoRA on this machine. See `model_folder`."""
    folder = _local(lora.path, lora.revision, revision, storage, lambda store: lora_files(store, lora.weight_name))
    return folder / lora.weight_name


def _files_of_model(store: Store) -> list[Entry]:
    return component_files(store, json.loads(store.read("model_index.json")))


def _local(path: str, stated: str | None, revision: str, storage: Mapping[str, Storage], listing: Listing) -> Path:
    """Return the local folder of weights; its content is checked against a stated content digest."""
    store = open_store(parse_url(path).url, storage)
    if not store.is_local:
        return _copied(store, stated, revision, listing)
    if stated is not None and is_content_digest(stated):
        _refuse_other(store.url, stated, content_digest(store, listing(store)))
    return Path(store.url)


def _refuse_other(url: str, stated: str, digest: str) -> None:
    if digest != stated:
        raise ModelLoadFailed(f"{url}: its files have the digest {digest}, the job's revision is {stated}")


# --- builtins -------------------------------------------------------------------------------------------------------


def _built(name: str) -> Path:
    folder = Path(builtin_folder(name))
    if not folder.is_dir():
        with _lock(folder):
            if not folder.is_dir():
                module, _, function = BUILTINS[name].maker.partition(":")
                with _partial(folder) as partial:
                    getattr(importlib.import_module(module), function)(partial)
                    _move(partial, folder)
    return folder


# --- copies of folders in buckets -----------------------------------------------------------------------------------


def _copied(store: Store, stated: str | None, revision: str, listing: Listing) -> Path:
    folder = _copy_of(store.url, revision)
    with _lock(folder):
        if not _is_whole(folder):
            _download(store, stated, revision, listing, folder)
    return folder


def _copy_of(url: str, revision: str) -> Path:
    """Return the folder for a copy; its name contains the last part of the URL, for people."""
    tail = url.rstrip("/").rpartition("/")[2]
    name = hashlib.sha256(f"{url}\n{revision}".encode()).hexdigest()[:16]
    return cache_folder() / "models" / f"{name}-{tail}"


def _record_of(folder: Path) -> Path:
    return folder.with_name(f"{folder.name}.json")


def _is_whole(folder: Path) -> bool:
    """Whether a copy is there and holds what was downloaded; files whose marks changed are digested again."""
    try:
        files: dict[str, dict[str, str]] = json.loads(_record_of(folder).read_bytes())["files"]
    except FileNotFoundError:
        return False
    present = {str(path.relative_to(folder)) for path in folder.rglob("*") if not path.is_dir()}
    changed = [path for path in sorted(present & files.keys()) if mark_of(str(folder / path)) != files[path]["mark"]]
    digests = sha256_files(str(folder / path) for path in changed)
    differing = sorted(present ^ files.keys())
    differing += [path for path in changed if digests[str(folder / path)] != files[path]["sha256"]]
    if differing:
        LOG.error("model copy changed on disk, copied anew: %s", folder, extra={"files": differing[:10]})
        return False
    if changed:
        _write_record(folder, {path: files[path]["sha256"] for path in files})
    return True


def _download(store: Store, stated: str | None, revision: str, listing: Listing, folder: Path) -> None:
    entries = listing(store)
    with _partial(folder) as partial:
        sha256_by_path = _fetch(store, entries, partial)
        if stated is None and content_revision(store, listing(store)) != revision:
            raise ModelLoadFailed(f"{store.url}: changed while it was copied; it is no longer what was planned")
        if stated is not None and is_content_digest(stated):
            _refuse_other(store.url, stated, digest_of(sha256_by_path))
        _record_of(folder).unlink(
            missing_ok=True
        )  # a kill from here on leaves a copy without a record, which does not count
        if folder.exists():
            with _partial(folder) as outdated:
                os.rename(folder, outdated)  # noqa: PTH104 -- processes that have its files open keep them
        _move(partial, folder)
    _write_record(folder, sha256_by_path)


def _fetch(store: Store, entries: Sequence[Entry], folder: Path) -> dict[str, str]:
    """Copy files into a folder; return `sha256:...` of each."""
    sha256_by_path = {}
    for entry in entries:
        target = folder / entry.path
        target.parent.mkdir(parents=True, exist_ok=True)
        digest = hashlib.sha256()
        with store.open(entry.path) as source, target.open("wb") as copy:
            while chunk := source.read(_CHUNK_BYTES):
                digest.update(chunk)
                copy.write(chunk)
        sha256_by_path[entry.path] = f"sha256:{digest.hexdigest()}"
    return sha256_by_path


def _move(partial: Path, folder: Path) -> None:
    """Give a finished folder its name; where a file system's locks do not hold, another process may have been first."""
    try:
        os.rename(partial, folder)  # noqa: PTH104 -- atomic
    except OSError:
        if not folder.is_dir():
            raise


def _write_record(folder: Path, sha256_by_path: Mapping[str, str]) -> None:
    files = {path: {"mark": mark_of(str(folder / path)), "sha256": digest} for path, digest in sha256_by_path.items()}
    record = _record_of(folder)
    partial = record.with_name(f".{record.name}-{uuid.uuid4().hex}")
    partial.write_text(json.dumps({"files": files}, indent=1))
    partial.replace(record)


@contextmanager
def _lock(folder: Path) -> Iterator[None]:
    """Hold a folder's lock: one process of a node makes the folder while the others wait."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    with folder.with_name(f".{folder.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # the system frees it when the process ends, in whatever way
        yield


@contextmanager
def _partial(folder: Path) -> Iterator[Path]:
    """Give a new empty folder beside another; what is still in it at the end is removed."""
    partial = folder.with_name(f".{folder.name}-{uuid.uuid4().hex}")
    partial.mkdir()
    try:
        yield partial
    finally:
        shutil.rmtree(partial, ignore_errors=True)
