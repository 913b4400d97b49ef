"""The digests that pin a job's weights: one for each model, further folder and LoRA.

job --> pins() --> place in the job, path, digest to paste as `revision`
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from sdbatch.checkpoints.builtins import BUILTINS, SHIPPED
from sdbatch.checkpoints.components import component_entries, place_of, store_of
from sdbatch.checkpoints.describe import with_dtype
from sdbatch.checkpoints.files import content_digest, lora_files, model_files, read_json
from sdbatch.checkpoints.ip_adapters import ADAPTER, weights_of
from sdbatch.checkpoints.single_files import is_single_file
from sdbatch.errors import ModelError
from sdbatch.job import Job, Model
from sdbatch.storage import Entry, Store, open_store, parse_url
from sdbatch.storage.locations import split


@dataclass(frozen=True, slots=True, kw_only=True)
class Pin:
    """The digest of one folder of weights.

    Attributes:
        place: Entry of the job that takes it, such as `models.sdxl.controlnet`.
        path: Where the folder lies.
        revision: Content digest, 64 hex digits; the same for the same files in a local folder and in a bucket.
    """

    place: str
    path: str
    revision: str


def pins(job: Job) -> Iterator[Pin]:
    """Yield the digest of every folder of weights that a job names. Reads every byte, also in buckets.

    Raises:
        ModelError: When a folder or a file is not there.
    """
    for name, entry in job.models.items():
        model = with_dtype(name, entry, job.storage)
        place = f"models.{name}"
        title = model.path.removeprefix("builtin:")
        if is_single_file(model.path):
            folder, file = split(model.path)
            digest = _digest(job, place, folder, _only(file))
            yield Pin(place=place, path=parse_url(model.path).url, revision=digest)
        elif title == model.path:
            yield _pin(job, place, model.path, _files_of_model(model))
        elif title in SHIPPED:
            digest = _digest(job, place, str(SHIPPED[title]), _files_of_model(model))
            yield Pin(place=place, path=model.path, revision=digest)
        elif title in BUILTINS:
            yield Pin(place=place, path=model.path, revision=BUILTINS[title].identity)
        else:
            known = ", ".join(f"builtin:{key}" for key in (*SHIPPED, *BUILTINS))
            raise ModelError(f"{place}: {model.path} is not a builtin; there are {known}")
        for option, component in model.laid_over.items():
            dtype = component.dtype or model.dtype
            where = place_of(name, option, is_top=option not in model.components)
            if option == ADAPTER:  # its revision is that of its weights; the image encoder is known by its content
                component = weights_of(where, component, job.storage)  # noqa: PLW2901
            store, file = store_of(component, job.storage)
            entries = component_entries(store, file, dtype)
            yield Pin(place=where, path=parse_url(component.path).url, revision=_digest_of(where, store, entries))
        for word, embedding in model.embeddings.items():
            vectors = embedding.as_lora("")
            yield _pin(job, f"{place}.embeddings.{word}", vectors.path, _only(vectors.weight_name))
    for name, lora in job.loras.items():
        yield _pin(job, f"loras.{name}", lora.path, _only(lora.weight_name))


def _files_of_model(model: Model) -> Callable[[Store, str], list[Entry]]:
    def files(store: Store, place: str) -> list[Entry]:
        index = read_json(store, "model_index.json", f"{place}: {store.url}")
        return model_files(store, index, model)

    return files


def _only(weight_name: str) -> Callable[[Store, str], list[Entry]]:
    return lambda store, _: lora_files(store, weight_name)


def _pin(job: Job, place: str, path: str, files: Callable[[Store, str], list[Entry]]) -> Pin:
    return Pin(place=place, path=parse_url(path).url, revision=_digest(job, place, path, files))


def _digest(job: Job, place: str, path: str, files: Callable[[Store, str], list[Entry]]) -> str:
    store = open_store(path, job.storage)
    return _digest_of(place, store, files(store, place))


def _digest_of(place: str, store: Store, entries: list[Entry]) -> str:
    if not entries:
        raise ModelError(f"{place}: {store.url}: no file of a model there")
    return content_digest(store, entries)
