"""The files of a model folder that a loader reads, and the digest of their content."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Iterable, Mapping
from typing import Any

from sdbatch.checkpoints.identity import digest_of
from sdbatch.checkpoints.variants import WeightNames, chosen_word, is_weights, word_in
from sdbatch.errors import ModelError
from sdbatch.job import Model
from sdbatch.storage import Entry, LocalStore, Store, leads_out
from sdbatch.storage.digests import sha256_files

READ_SUFFIXES = (".json", ".safetensors", ".txt", ".model", ".jinja")

"""Files that the loader reads. Pickles (.bin, .ckpt, .pt) and code (.py) are never opened and never digested."""

_CHUNK_BYTES = 16 << 20


def model_files(store: Store, index: Mapping[str, Any], model: Model) -> list[Entry]:
    """Return the files that are read of the folder of a job's model. See `component_files`."""
    return component_files(store, index, variant=model.variant, dtype=model.dtype, without=model.components)


def component_files(
    store: Store,
    index: Mapping[str, Any],
    *,
    variant: str = "auto",
    dtype: str = "float32",
    without: Collection[str] = (),
) -> list[Entry]:
    """Return the files a loader reads: model_index.json and what its components' folders hold, weights in one variant.

    Args:
        store: The folder.
        index: Content of its model_index.json.
        variant: The entry's.
        dtype: The entry's.
        without: Components that are laid over; of them the configuration alone is read, which may describe a file.

    Raises:
        ModelError: When the variant is not there, or a name would lead out of the folder.
    """
    folders = named_components(index) - set(without)
    listed = _listed(store)
    chosen = _chosen(store, [entry for entry in listed if _folder_of(entry) in folders], variant, dtype)
    texts = {"model_index.json", *(f"{name}/config.json" for name in without)}
    return [entry for entry in listed if entry.path in texts or entry.path in chosen]


def folder_files(store: Store, *, variant: str = "auto", dtype: str = "float32") -> list[Entry]:
    """Return the files a loader reads of a folder that holds one component, behind links as well.

    Args:
        store: The folder.
        variant: The entry's.
        dtype: The component's.

    Raises:
        ModelError: When the variant is not there, or a name would lead out of the folder (an object store's keys may
            hold `..`).
        StoreRefused: When a link leads nowhere, or in a circle.
    """
    listed = _listed(store)
    chosen = _chosen(store, listed, variant, dtype, depth=0)
    return [entry for entry in listed if entry.path in chosen]


def config_files(store: Store, index: Mapping[str, Any]) -> list[Entry]:
    """Return the files of a folder that configure the components of a model: all that is read but weights."""
    folders = named_components(index)
    return [
        entry
        for entry in _listed(store)
        if entry.path == "model_index.json"
        or (_folder_of(entry) in folders and not is_weights(entry.path.rpartition("/")[2]))
    ]


def named_components(index: Mapping[str, Any]) -> set[str]:
    """Return the components that a model_index.json gives a class; a list that begins with a number is an option."""
    lists = {name: value for name, value in index.items() if isinstance(value, list) and value}
    return {name for name, value in lists.items() if not isinstance(value[0], int | float | None)}


def variant_in(paths: Iterable[str]) -> str:
    """Return the variant among the files that were chosen of a model; "" where all of them are the plain ones."""
    return next(filter(None, (word_in(path.rpartition("/")[2]) for path in paths)), "")


def _listed(store: Store) -> list[Entry]:
    listed = store.list_linked(READ_SUFFIXES) if isinstance(store, LocalStore) else store.list()
    entries = [entry for entry in listed if entry.path.endswith(READ_SUFFIXES)]
    for entry in entries:
        if leads_out(entry.path):
            raise ModelError(f"{store.url}: the file name {entry.path!r} leads out of the folder")
    return entries


def _folder_of(entry: Entry) -> str:
    folder, slash, _ = entry.path.partition("/")
    return folder if slash else ""


def _chosen(store: Store, entries: Iterable[Entry], variant: str, dtype: str, *, depth: int = 1) -> set[str]:
    """Return the paths of what is read: every text, and of each module's weights those of one variant."""
    read: set[str] = set()
    names: dict[str, set[str]] = {}
    for entry in entries:
        *folders, name = entry.path.split("/")
        if not is_weights(name):
            read.add(entry.path)
        if len(folders) == depth:  # weights in deeper folders are not the module's
            names.setdefault("/".join(folders), set()).add(name)
    modules = {folder: WeightNames.of(inside) for folder, inside in names.items()}
    word = chosen_word(modules, variant, dtype, store.url)
    for folder, module in modules.items():
        read |= {f"{folder}/{name}".lstrip("/") for name in _weights(store, folder, names[folder], module, word)}
    return read


def _weights(store: Store, folder: str, names: Collection[str], module: WeightNames, word: str) -> set[str]:
    """Return the names of the weights that are read of one module, those of shards that are not there included."""
    adapters = {ADAPTER} & set(names) if ADAPTER_CONFIG in names else set()
    known = module.word_for(word)
    if known is None:
        return adapters
    name = module.name_of(known)
    return {name, *adapters, *shards_of(store, f"{folder}/{name}".lstrip("/"))}


ADAPTER, ADAPTER_CONFIG = "adapter_model.safetensors", "adapter_config.json"
"""Weights that transformers lays over a module's own when both lie in its folder."""


def shards_of(store: Store, path: str) -> set[str]:
    """Return the names that an index gives of its shards; none for a file that is no index.

    Raises:
        ModelError: When the index cannot be read.
    """
    if not path.endswith(".json"):
        return set()
    weights = read_json(store, path, store.url).get("weight_map")
    if not isinstance(weights, dict) or not weights:
        raise ModelError(f"{store.url}/{path}: has no weight_map, which names the shards; copy the file again")
    return {str(name) for name in weights.values()}


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
        value = json.loads(store.read(path).decode())  # as diffusers does: json itself takes UTF-16, and marks, as well
    except (FileNotFoundError, NotADirectoryError) as error:
        raise ModelError(f"{name}: no {path} there; a model is a folder in diffusers' layout") from error
    except ValueError as error:
        raise ModelError(f"{name}: {path} is not JSON in plain UTF-8: {error}") from error
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
