"""Finds weights on this machine, and copies them once from a bucket where they are not here.

    path + identity --> local folder, as it is
                    --> bucket: models/HASH-TAIL/ in the cache folder, and models/HASH-TAIL.json beside it
                    --> in a variant: models/HASH-view-TAIL/, links to either under the names of plain files

A copy is named by URL and identity, so that two buckets are two copies whatever their revisions say. The record beside
it holds size, mtime, inode and digest of every file; a file that changed since is digested again, and a copy that is no
longer what was downloaded is made anew.
"""

from __future__ import annotations

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
from typing import Any

from sdbatch.checkpoints import (
    BUILTINS,
    SHIPPED,
    builtin_folder,
    component_entries,
    content_digest,
    content_revision,
    digest_of,
    is_content_digest,
    lora_files,
    model_files,
    read_json,
    store_of,
    variant_in,
)
from sdbatch.checkpoints.files import config_files
from sdbatch.checkpoints.transfer import FILES, copy_files
from sdbatch.checkpoints.turns import turn
from sdbatch.checkpoints.variants import plain_path
from sdbatch.errors import ModelLoadFailed
from sdbatch.generate.load.partials import lock_of, partial_of, sweep
from sdbatch.job import Component, Lora, Model, Storage
from sdbatch.storage import Entry, Store, open_store, parse_url
from sdbatch.storage.cache import cache_folder
from sdbatch.storage.digests import mark_of, sha256_files
from sdbatch.storage.locations import split

LOG = logging.getLogger("sdbatch.generate")

Listing = Callable[[Store], list[Entry]]
"""Function that lists the files of a folder that belong to a model."""


def model_folder(model: Model, revision: str, storage: Mapping[str, Storage]) -> Path:
    """Return the folder of a model on this machine; where it is missing, it is made or copied first.

    Args:
        model: The job's entry; its dtype is no longer `auto`.
        revision: Identity of the folder.
        storage: The job's options by URL prefix.

    Raises:
        ModelLoadFailed: When the entry states a content digest and the files have another.
    """
    name = model.path.removeprefix("builtin:")
    if name in BUILTINS and name != model.path:
        return _built(name)
    path = str(SHIPPED[name]) if name in SHIPPED and name != model.path else model.path

    def listing(store: Store) -> list[Entry]:
        return model_files(store, json.loads(store.read("model_index.json")), model)

    # One commit is copied apart for every set of modules that is not read of it.
    part = ",".join(sorted(model.components)) if model.revision else ""
    return _under_plain_names(*_local(path, model.revision, revision, storage, listing, part))


def model_file(model: Model, revision: str, storage: Mapping[str, Storage]) -> Path:
    """Return the file of a model that is one file on this machine. See `model_folder`."""
    folder, name = split(model.path)
    local, _ = _local(folder, model.revision, revision, storage, lambda store: lora_files(store, name))
    return local / name


def config_folder(configs: str, storage: Mapping[str, Storage]) -> Path:
    """Return a folder of configs without weights on this machine; see `SingleFile.configs`."""

    def listing(store: Store) -> list[Entry]:
        return config_files(store, json.loads(store.read("model_index.json")))

    store = open_store(configs, storage)
    revision = "" if store.is_local else content_revision(store, listing(store))
    return _local(configs, None, revision, storage, listing)[0]


def component_path(component: Component, revision: str, storage: Mapping[str, Storage], dtype: str) -> Path:
    """Return a component's folder on this machine, or its one file. See `model_folder`.

    Args:
        component: The job's entry.
        revision: Identity of its content.
        storage: The job's options by URL prefix.
        dtype: Numbers that the component is run in.
    """
    store, file = store_of(component, storage)

    def listing(store: Store) -> list[Entry]:
        return component_entries(store, file, dtype)

    stated = component.revision
    if not file:
        return _under_plain_names(*_local(component.path, stated, revision, storage, listing))
    # A file's own configuration is in its identity and is not among the files.
    digest = revision if stated or component.config is None else content_revision(store, listing(store))
    folder, _ = _local(store.url, stated, digest, storage, listing)
    return folder / file


def component_config(component: Component, storage: Mapping[str, Storage]) -> dict[str, Any]:
    """Return the configuration that an entry names for its one file."""
    assert component.config is not None
    return read_json(open_store(parse_url(component.config).url, storage), "config.json", component.config)


def lora_file(lora: Lora, revision: str, storage: Mapping[str, Storage]) -> Path:
    """Return the file of a LoRA on this machine. See `model_folder`."""
    folder, _ = _local(lora.path, lora.revision, revision, storage, lambda store: lora_files(store, lora.weight_name))
    return folder / lora.weight_name


def _local(
    path: str, stated: str | None, revision: str, storage: Mapping[str, Storage], listing: Listing, part: str = ""
) -> tuple[Path, list[str]]:
    """Return the local folder of weights and the files in it; they are compared with a stated content digest."""
    store = open_store(parse_url(path).url, storage)
    if not store.is_local:
        return _copied(store, stated, revision, listing, part)
    entries = listing(store)
    if stated is not None and is_content_digest(stated):
        _refuse_other(store.url, stated, content_digest(store, entries))
    return Path(store.url), [entry.path for entry in entries]


def _refuse_other(url: str, stated: str, digest: str) -> None:
    if digest != stated:
        raise ModelLoadFailed(f"{url}: its files have the digest {digest}, the job's revision is {stated}")


def _under_plain_names(folder: Path, paths: Sequence[str]) -> Path:
    """Return a folder in which the files that were chosen bear the names of plain ones; as it is where they do.

    diffusers takes one variant for a whole pipeline, finds it by the beginning of a word in any file's name, and does
    not survive a file without an ending (0.42.1); links say of each module which file is read.
    """
    if not variant_in(paths):
        return folder
    links = {plain_path(path): str((folder / path).absolute()) for path in paths}
    name = hashlib.sha256(json.dumps(links, sort_keys=True).encode()).hexdigest()[:16]
    view = cache_folder() / "models" / f"{name}-view-{folder.name}"
    if not all((view / path).exists() for path in links):
        with turn(lock_of(view), str(folder)), _partial(view) as partial:
            for path, target in links.items():
                (partial / path).parent.mkdir(parents=True, exist_ok=True)
                (partial / path).symlink_to(target)
            shutil.rmtree(view, ignore_errors=True)  # links that somebody removed some of
            _move(partial, view)
    return view


# --- builtins -------------------------------------------------------------------------------------------------------


def _built(name: str) -> Path:
    folder = Path(builtin_folder(name))
    if not folder.is_dir():
        with turn(lock_of(folder), f"builtin:{name}"):
            if not folder.is_dir():
                module, _, function = BUILTINS[name].maker.partition(":")
                with _partial(folder) as partial:
                    getattr(importlib.import_module(module), function)(partial)
                    _move(partial, folder)
    return folder


# --- copies of folders in buckets -----------------------------------------------------------------------------------


def _copied(store: Store, stated: str | None, revision: str, listing: Listing, part: str) -> tuple[Path, list[str]]:
    folder = _copy_of(store.url, f"{revision}\nwithout {part}" if part else revision)
    with turn(lock_of(folder), store.url):
        if not _is_whole(folder):
            _download(store, stated, revision, listing, folder)
        return folder, sorted(_recorded(folder))


def _copy_of(url: str, revision: str) -> Path:
    """Return the folder for a copy; its name contains the last part of the URL, for people."""
    tail = url.rstrip("/").rpartition("/")[2]
    name = hashlib.sha256(f"{url}\n{revision}".encode()).hexdigest()[:16]
    return cache_folder() / "models" / f"{name}-{tail}"


def _record_of(folder: Path) -> Path:
    return folder.with_name(f"{folder.name}.json")


def _recorded(folder: Path) -> dict[str, dict[str, str]]:
    files: dict[str, dict[str, str]] = json.loads(_record_of(folder).read_bytes())["files"]
    return files


def _is_whole(folder: Path) -> bool:
    """Whether a copy is there and holds what was downloaded; files whose marks changed are digested again."""
    try:
        files = _recorded(folder)
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
    if stated is None and content_revision(store, entries) != revision:
        raise ModelLoadFailed(f"{store.url}: changed since it was looked into; it is no longer what was planned")
    sweep(folder)
    partial = partial_of(folder)
    sha256_by_path = copy_files(store, entries, partial, lambda: sweep(folder, needs_room=True))
    if _objects(listing(store)) != _objects(entries):
        raise ModelLoadFailed(f"{store.url}: changed while it was copied; it is no longer what was planned")
    if stated is not None and is_content_digest(stated) and digest_of(sha256_by_path) != stated:
        shutil.rmtree(partial, ignore_errors=True)
        _refuse_other(store.url, stated, digest_of(sha256_by_path))
    # A kill from here on leaves a copy without a record, which does not count.
    _record_of(folder).unlink(missing_ok=True)
    if folder.exists():
        with _partial(folder) as outdated:
            os.rename(folder, outdated)  # noqa: PTH104 -- processes that have its files open keep them
    _move(partial / FILES, folder)
    _write_record(folder, sha256_by_path)
    shutil.rmtree(partial, ignore_errors=True)


def _objects(entries: Sequence[Entry]) -> set[tuple[str, int, str]]:
    return {(entry.path, entry.size_bytes, entry.etag) for entry in entries}


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
def _partial(folder: Path) -> Iterator[Path]:
    """Give a new empty folder beside another; what is still in it at the end is removed."""
    partial = folder.with_name(f".{folder.name}-{uuid.uuid4().hex}")
    partial.mkdir()
    try:
        yield partial
    finally:
        shutil.rmtree(partial, ignore_errors=True)
