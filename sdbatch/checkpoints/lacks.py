"""What the folder of a model lacks to be loaded, from names, sizes and headers alone.

    folder + chosen files + their headers --> lacks() --> one line for each fault: file, what is wrong, remedy

Everything here is found where a job is checked, before anything is downloaded and before a GPU is held.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any, Final

from sdbatch.checkpoints.files import named_components, shards_of
from sdbatch.checkpoints.headers import POINTER, POINTER_BYTES_MAX, POINTER_REMEDY, Header
from sdbatch.checkpoints.strangers import quantised
from sdbatch.checkpoints.variants import WeightNames
from sdbatch.errors import ModelError
from sdbatch.storage import Entry, Store

_WITHOUT_WEIGHTS: Final = ("Scheduler", "Tokenizer", "Processor", "FeatureExtractor", "Backend", "Guidance")
"""Words in the names of the classes that have no weights, such as `CLIPImageProcessorPil`."""

_UNREAD: Final[Mapping[str, str]] = {
    ".bin": "a pickle",
    ".ckpt": "a pickle",
    ".pt": "a pickle",
    ".pth": "a pickle",
    ".h5": "TensorFlow's",
    ".msgpack": "Flax's",
    ".onnx": "ONNX's",
    ".gguf": "GGUF's",
}
"""Endings of files of weights that are not read from a folder, and what they are."""


def faults_of_model(
    store: Store,
    index: Mapping[str, Any],
    entries: Sequence[Entry],
    headers: Mapping[str, Header | ModelError],
    without: Collection[str] = (),
) -> list[str]:
    """Return what each component of a folder lacks.

    Args:
        store: The folder.
        index: Content of its model_index.json.
        entries: The files that were chosen in it.
        headers: Of its weights; see `read_headers`.
        without: Components that are not read.
    """
    files = [entry for entry in entries if entry.path.partition("/")[0] not in without]
    found = [*_bad_files(store, files, headers)]
    for name in sorted(named_components(index) - set(without)):
        class_name = str(index[name][-1])
        inside = {path[len(name) + 1 :] for path in (entry.path for entry in files) if path.startswith(f"{name}/")}
        if not inside and not _names(store, name):
            found.append(
                f"{store.url}/{name}: model_index.json names this component ({class_name}), and there is no such "
                "folder; copy it there"
            )
        elif "Tokenizer" in class_name:
            found += _without_words(f"{store.url}/{name}", class_name, inside)
        elif not any(word in class_name for word in _WITHOUT_WEIGHTS):
            found += _lacking(store, name, inside)
    return found


def faults_of_folder(store: Store, entries: Sequence[Entry], headers: Mapping[str, Header | ModelError]) -> list[str]:
    """Return what the folder of a single component lacks. See `faults_of_model`."""
    return [*_bad_files(store, entries, headers), *_lacking(store, "", {entry.path for entry in entries})]


def faults_of_files(
    store: Store, entries: Sequence[Entry], headers: Mapping[str, Header | ModelError], class_name: str
) -> list[str]:
    """Return what the folder of a component without weights lacks. See `faults_of_model`."""
    is_tokenizer = "Tokenizer" in class_name
    lacking = _without_words(store.url, class_name, {entry.path for entry in entries}) if is_tokenizer else []
    return [*_bad_files(store, entries, headers), *lacking]


def faults_of_numbers(store: Store, headers: Mapping[str, Header | ModelError], method: str) -> list[str]:
    """Return which of a module's files hold quantised weights that its configuration does not call so.

    Args:
        store: The folder.
        headers: Of its weights; see `read_headers`.
        method: Backend that they are quantised with by its configuration; "" for none.
    """
    said = {path: quantised(header.tensors) for path, header in headers.items() if isinstance(header, Header)}
    return [f"{store.url}/{path}: {fault}" for path, fault in said.items() if fault and not method]


def has_words(class_name: str, inside: Collection[str]) -> bool:
    """Whether a tokenizer's folder holds its vocabulary; a tokenizer without one is read, and knows no word."""
    if class_name.startswith("ByT5"):  # its words are bytes
        return True
    return not WORDS.isdisjoint(inside) or {"vocab.json", "merges.txt"} <= set(inside)


WORDS: Final = frozenset(
    {"tokenizer.json", "spiece.model", "tokenizer.model", "sentencepiece.bpe.model", "vocab.txt", "tekken.json"}
)
"""Files that hold a tokenizer's vocabulary; in its oldest form two do together."""


def _without_words(place: str, class_name: str, inside: Collection[str]) -> list[str]:
    if has_words(class_name, inside):
        return []
    return [f"{place}: has no vocabulary ({', '.join(sorted(WORDS))}, or vocab.json and merges.txt); copy it there"]


def _bad_files(store: Store, entries: Iterable[Entry], headers: Mapping[str, Header | ModelError]) -> Iterable[str]:
    for entry in entries:
        header = headers.get(entry.path)
        if isinstance(header, ModelError):
            yield str(header)
        elif header is None and entry.size_bytes <= POINTER_BYTES_MAX and _is_pointer(store, entry):
            yield f"{store.url}/{entry.path}: {POINTER_REMEDY}"


def _is_pointer(store: Store, entry: Entry) -> bool:
    # A pointer names a sha256, so it is never shorter than its beginning and 64 digits.
    return entry.size_bytes > len(POINTER) + 64 and store.read_range(entry.path, 0, len(POINTER)) == POINTER


def _lacking(store: Store, folder: str, inside: Collection[str]) -> list[str]:
    """Return what a module's folder lacks of configuration and weights.

    Args:
        store: The model.
        folder: The module's folder in it; "" for the model's own.
        inside: Names of the chosen files in it.
    """
    place = f"{store.url}/{folder}".rstrip("/")
    found = [] if "config.json" in inside else [f"{place}: has no config.json; copy it there"]
    read = WeightNames.of(inside)
    if not read.words:
        return [*found, f"{place}: {_without_weights(_names(store, folder))}"]
    (word,) = read.words
    file = read.name_of(word)
    missing = sorted(shards_of(store, f"{folder}/{file}".lstrip("/")) - set(inside))
    return [*found, *(f"{place}: {file} names {name}, which is not there; copy it there" for name in missing)]


def _without_weights(names: Collection[str]) -> str:
    variants = sorted(WeightNames.of(names).words)
    if variants:
        return f"has weights as variant {', '.join(variants)} alone; say variant: {variants[0]}"
    for ending, kind in _UNREAD.items():
        others = sorted(name for name in names if name.endswith(ending))
        if others:
            return (
                f"has no .safetensors file, only {others[0]}, which is {kind} and is never opened; load the model "
                "where you trust it and save it again with `save_pretrained(..., safe_serialization=True)`"
            )
    return "has no weights; copy the .safetensors files there"


def _names(store: Store, folder: str) -> set[str]:
    """Return the names of all files in a folder of the model, whatever they are."""
    return {entry.path.rpartition("/")[2] for entry in store.list(folder, deep=False)}
