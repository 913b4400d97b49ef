"""The files of a model folder that a loader reads, and the digest of their content."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from typing import Any

from sdbatch.checkpoints.identity import digest_of
from sdbatch.errors import ModelError
from sdbatch.storage import Entry, LocalStore, Store, leads_out
from sdbatch.storage.digests import sha256_files

READ_SUFFIXES = (".json", ".safetensors", ".txt", ".model", ".jinja")

"""Files that the loader reads. Pickles (.bin, .ckpt, .pt) and code (.py) are never opened and never digested."""

_CHUNK_BYTES = 16 << 20


def component_files(store: Store, index: Mapping[str, Any]) -> list[Entry]:
    """Return the files a loader reads: model_index.json and what its components' folders hold."""
    folders = {name for name, value in index.items() if isinstance(value, list) and value and value[0] is not None}
    return [
        entry
        for entry in folder_files(store)
        if entry.path == "model_index.json" or entry.path.partition("/")[0] in folders
    ]


def folder_files(store: Store) -> list[Entry]:
    """Return the files a loader reads of a folder that holds one component, behind links as well.

    Raises:
        ModelError: When a name would lead out of the folder (an object store's keys may hold `..`).
        StoreRefused: When a link leads nowhere, or in a circle.
    """
    listed = store.list_linked(READ_SUFFIXES) if isinstance(store, LocalStore) else store.list()
    entries = [entry for entry in listed if entry.path.endswith(READ_SUFFIXES)]
    for entry in entries:
        if leads_out(entry.path):
            raise ModelError(f"{store.url}: the file name {entry.path!r} leads out of the folder")
    return entries


def lora_files(store: Store, weight_name: str) -> list[Entry]:
    """Return the one file of a LoRA.

    Raises:
        ModelError: When it is not there.
    """
    try:
        return [store.stat(weight_name)]
    except (FileNotFoundError, NotADirectoryError) as error:
        raise ModelError(f"{store.url}: no {weight_name} there") from error


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


def content_revision(store: Store, entries: Iterable[Entry]) -> str:
    """Return what names the content of files without a stated revision.

    On a local disk it is their content digest. In a bucket it is over size and ETag, since the bytes are not read; that
    names the upload rather than the content (see `content_digest`).
    """
    if store.is_local:
        return content_digest(store, entries)
    marks = [f"{entry.path} {entry.size_bytes} {entry.etag}" for entry in entries]
    return hashlib.sha256("\n".join(marks).encode()).hexdigest()


def content_digest(store: Store, entries: Iterable[Entry]) -> str:
    """Digest paths and contents, alike for a folder and a bucket. Reads every byte, of local files only once."""
    paths = [entry.path for entry in entries]
    if store.is_local:
        known = sha256_files(f"{store.url}/{path}" for path in paths)
        return digest_of({path: known[f"{store.url}/{path}"] for path in paths})
    return digest_of({path: _sha256_remote(store, path) for path in paths})


def _sha256_remote(store: Store, path: str) -> str:
    digest = hashlib.sha256()
    with store.open(path) as handle:
        while chunk := handle.read(_CHUNK_BYTES):
            digest.update(chunk)
    return f"sha256:{digest.hexdigest()}"
