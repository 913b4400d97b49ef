"""Describes the folder of an image classifier from its own files, without torch.

folder --> describe_classifier() --> ClassifierInfo (labels, content revision)
"""

from __future__ import annotations

from dataclasses import dataclass

from sdbatch.checkpoints.files import content_revision, folder_files, read_json
from sdbatch.checkpoints.refusals import refuse_code
from sdbatch.errors import ModelError
from sdbatch.storage import open_store, parse_url

_NEEDED = ("config.json", "preprocessor_config.json", "model.safetensors")


@dataclass(frozen=True, slots=True, kw_only=True)
class ClassifierInfo:
    """An image classifier, looked into.

    Attributes:
        labels: What it tells apart, in the order of its scores.
        revision: Digest of its files; "" when it was not asked for.
    """

    labels: tuple[str, ...]
    revision: str


def describe_classifier(path: str, name: str, *, with_revision: bool = True) -> ClassifierInfo:
    """Look into a local folder in transformers' layout.

    Args:
        path: The folder.
        name: Setting that names it, for messages.
        with_revision: Digest the files too, which reads every weight once (remembered afterwards).

    Raises:
        ModelError: When it is not such a folder, or asks for code of its own.
    """
    location = parse_url(path)
    if not location.is_local:
        raise ModelError(f"{name}.path: {path} is not a local folder")
    store = open_store(location.url, {})
    config = read_json(store, "config.json", f"{name}: {location.url}")
    entries = folder_files(store)
    refuse_code(store, entries, f"{name}: {location.url}")
    files = {entry.path for entry in entries}
    needed = [file for file in _NEEDED if file not in files and f"{file}.index.json" not in files]
    if needed:
        raise ModelError(f"{name}: {location.url}: no {needed[0]} there; a classifier is {', '.join(_NEEDED)}")
    labels = config.get("id2label")
    if not isinstance(labels, dict) or not labels:
        raise ModelError(f"{name}: {location.url}: config.json has no id2label; a classifier names its labels there")
    return ClassifierInfo(
        labels=tuple(str(label) for _, label in sorted(labels.items(), key=lambda item: int(item[0]))),
        revision=content_revision(store, entries) if with_revision else "",
    )
