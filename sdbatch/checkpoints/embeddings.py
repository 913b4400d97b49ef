"""Describes the textual inversions of a model entry from the headers of their files.

    models.NAME.embeddings --> describe_embeddings() --> identity of the content by word

A file holds one tensor of vectors for a model with one text encoder (A1111's `emb_params`, or any name), and `clip_l`
and `clip_g` for one with two.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final, NamedTuple

from sdbatch.checkpoints.files import content_revision, lora_files
from sdbatch.checkpoints.headers import Header, read_headers
from sdbatch.checkpoints.identity import identity
from sdbatch.errors import ModelError
from sdbatch.families import Family
from sdbatch.job import Model, Storage
from sdbatch.storage import open_store, parse_url

VECTORS_MAX: Final = 75
"""Most vectors of one word: what a text encoder of 77 tokens reads beside start and end."""
OF_TWO: Final = {"clip_l": "text_encoder", "clip_g": "text_encoder_2"}
"""Text encoder that each tensor is for, in a file for a model with two of them."""


class EmbeddingInfo(NamedTuple):
    """One textual inversion of a model entry.

    Attributes:
        revision: Identity of its content; "" when it was not asked for.
        is_pinned: Whether that names the content.
        num_vectors: Vectors that its word stands for; each takes a token's place.
    """

    revision: str
    is_pinned: bool
    num_vectors: int


def has_two(family: Family) -> bool:
    """Whether the models of a family have two text encoders."""
    return family.class_name.startswith("StableDiffusionXL")


def describe_embeddings(
    name: str,
    model: Model,
    family: Family,
    config_of: Callable[[str], Mapping[str, Any] | None],
    storage: Mapping[str, Storage],
    *,
    with_revision: bool,
) -> dict[str, EmbeddingInfo]:
    """Return what each textual inversion is, by its word.

    Args:
        name: Name of the model in the job.
        model: The job's entry.
        family: Its family.
        config_of: Returns the configuration of a text encoder by its name, None where it is not at hand.
        storage: The job's options by URL prefix.
        with_revision: Digest the files where no revision is stated.

    Raises:
        ModelError: When a file is not there, or its vectors are none of the model's text encoders.
    """
    found = {}
    for word, embedding in model.embeddings.items():
        place = f"models.{name}.embeddings.{word}"
        file = embedding.as_lora(family.title)
        store = open_store(parse_url(file.path).url, storage)
        try:
            entries = lora_files(store, file.weight_name)
        except ModelError as error:
            raise ModelError(f"{place}: {error}") from error
        header = read_headers(store, entries)[file.weight_name]
        if not isinstance(header, Header):
            raise ModelError(f"{place}: {header}")
        for fault in _faults(header, family, config_of):
            raise ModelError(f"{place}: {file.weight_name} {fault}")
        if embedding.revision is not None:
            revision = identity(embedding.revision, file=file.weight_name)
        else:
            revision = content_revision(store, entries) if with_revision else ""
        is_pinned = embedding.revision is not None or store.is_local
        found[word] = EmbeddingInfo(revision, is_pinned, _num_vectors(header))
    return found


def _num_vectors(header: Header) -> int:
    """Return how many vectors a sound file holds for each text encoder."""
    shape = next(iter(header.tensors.values()))["shape"]
    return shape[0] if len(shape) == 2 else 1


def _faults(header: Header, family: Family, config_of: Callable[[str], Mapping[str, Any] | None]) -> Iterator[str]:
    names = list(header.tensors)
    if has_two(family):
        if set(names) != OF_TWO.keys():
            yield f"holds {', '.join(names) or 'nothing'}; for {family.title} it must hold clip_l and clip_g"
            return
        encoders = OF_TWO
    else:
        if len(names) != 1:
            yield f"holds {len(names)} tensors ({', '.join(names[:4])}); for {family.title} it must hold one"
            return
        encoders = {names[0]: "text_encoder"}
    counts = set()
    for tensor, encoder in encoders.items():
        shape = list(header.tensors[tensor]["shape"])
        if not 1 <= len(shape) <= 2 or (len(shape) == 2 and not 1 <= shape[0] <= VECTORS_MAX):
            yield f"holds {tensor} of shape {shape}, which is not 1 to {VECTORS_MAX} vectors"
            return
        width = (config_of(encoder) or {}).get("hidden_size")
        if width is not None and shape[-1] != width:
            yield f"holds vectors of {shape[-1]} numbers; the model's {encoder} takes {width}"
        counts.add(shape[0] if len(shape) == 2 else 1)
    if len(counts) > 1:
        yield f"holds {' and '.join(map(str, sorted(counts)))} vectors; both text encoders need as many"
