"""The files of a model folder that a loader reads, and the digest of their content."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from sdbatch.errors import ModelError
from sdbatch.storage import Entry, Store, leads_out
from sdbatch.storage.digests import sha256_files

READ_SUFFIXES = (".json", ".safetensors", ".txt", ".model", ".jinja")

"""What the loader reads. Pickles (.bin, .ckpt, .pt) and code (.py) are never opened and never digested."""


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


def read_json(store: Store, path: str, name: str) -> dict[str, Any]:
    """Return a JSON object of a model folder; raise ModelError, naming the model, when there is none."""
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
