"""The weights of every module of a model, counted from the headers of its files, without reading the weights."""

from __future__ import annotations

from collections.abc import Mapping

from sdbatch.checkpoints.builtins import SHIPPED
from sdbatch.checkpoints.components import store_of
from sdbatch.checkpoints.files import folder_files, model_files, read_json
from sdbatch.checkpoints.gguf import read_gguf
from sdbatch.checkpoints.headers import Header, read_header, read_headers
from sdbatch.checkpoints.info import ModelInfo
from sdbatch.checkpoints.parameters import num_parameters
from sdbatch.errors import ModelError
from sdbatch.families.peaks import peaks_of
from sdbatch.job import Component, Storage
from sdbatch.storage import Entry, Store, open_store


def module_parameters(model: ModelInfo, storage: Mapping[str, Storage]) -> dict[str, int]:
    """Return the parameters of each module by its name; those of the published model where the files are not looked at.

    Raises:
        ModelError: When a file is not safetensors.
    """
    found = _of_folder(model, storage)
    if found is None:
        published = peaks_of(model.family.title, model.parameters)
        found = dict(published.modules) if published is not None else {}
    for name, component in model.options.laid_over.items():
        if parameters := _of_component(component, storage):
            found[name] = parameters
    return found


def _of_folder(model: ModelInfo, storage: Mapping[str, Storage]) -> dict[str, int] | None:
    """Return those of a folder in diffusers' layout; None for a single file, or a folder that lies elsewhere."""
    options = model.options
    path = str(SHIPPED.get(model.path.removeprefix("builtin:"), model.path))
    if path.startswith("builtin:"):  # made by a worker that needs it, and tiny
        return {model.family.denoiser: model.parameters}
    if options.family is not None or path.endswith(".safetensors"):
        return None
    store = open_store(path, storage)
    index = read_json(store, "model_index.json", f"models.{model.name}: {path}")
    by_module: dict[str, list[Header]] = {}
    for file, header in _headers(store, model_files(store, index, options)).items():
        by_module.setdefault(file.partition("/")[0], []).append(header)
    return {name: num_parameters(headers) for name, headers in by_module.items() if name not in options.laid_over}


def _of_component(component: Component, storage: Mapping[str, Storage]) -> int:
    """Return the parameters of a folder or of a file, whatever its tensors are called."""
    store, file = store_of(component, storage)
    if file.endswith(".gguf"):
        return read_gguf(store, file).parameters
    if file:
        return num_parameters([read_header(store, store.stat(file))])
    return num_parameters(_headers(store, folder_files(store)).values())


def _headers(store: Store, entries: list[Entry]) -> dict[str, Header]:
    """Return the headers of files of weights, by path."""
    found = {}
    for path, header in read_headers(store, entries).items():
        if isinstance(header, ModelError):
            raise header
        found[path] = header
    return found
