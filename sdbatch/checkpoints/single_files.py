"""Describes a model whose weights are one file, from the file's header and a folder of configs, without torch.

    job's entry --> describe_file() --> ModelInfo, with what is known of the file

What the file itself does not hold comes from the entry's components; what is lacking is named here, before anything is
downloaded. Its identity is over the file and its configs: both decide pixels.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any, Final

from sdbatch.checkpoints.components import modules_of
from sdbatch.checkpoints.facts import Fact, facts_of, native_size
from sdbatch.checkpoints.files import (
    config_files,
    content_digest,
    content_revision,
    lora_files,
    named_components,
    read_json,
)
from sdbatch.checkpoints.headers import SAID_WHERE, Header, is_taken_for_another, read_header
from sdbatch.checkpoints.identity import combined, identity
from sdbatch.checkpoints.indexes import refuse_other_inputs
from sdbatch.checkpoints.info import ModelInfo, SingleFile
from sdbatch.checkpoints.lacks import has_words
from sdbatch.checkpoints.layout_table import LAYOUTS
from sdbatch.checkpoints.layouts import Keys, Layout, alternatives, behind_prefix, families_of, told
from sdbatch.checkpoints.parameters import num_parameters, stored_dtype
from sdbatch.checkpoints.refusals import refuse_code, refuse_libraries
from sdbatch.checkpoints.strangers import ENDINGS, beside_a_model, module_of_a_model, quantised
from sdbatch.checkpoints.variants import SHARD
from sdbatch.errors import ModelError
from sdbatch.families import FAMILIES, Family, find_family
from sdbatch.job import Model, Storage
from sdbatch.storage import Entry, Store, open_store, parse_url
from sdbatch.storage.locations import split

CONFIGS: Final = Path(__file__).parent / "configs"
"""Folders of configs that come with the package."""
CLIP_WORDS: Final = CONFIGS / "clip"
"""Vocabulary of every CLIP tokenizer."""

_VAES: Final = {"AutoencoderKL": ("first_stage_model.", "vae."), "AutoencoderKLLTXVideo": ("vae.",)}
"""Autoencoders that diffusers reads from a single file, and how their keys begin."""


def is_single_file(path: str) -> bool:
    """Whether a model's path names one file, by its ending; a local folder of such a name is a folder."""
    named = path.lower().endswith((".safetensors", *ENDINGS)) and not path.startswith("builtin:")
    if not named:
        return False
    location = parse_url(path)
    return not (location.is_local and Path(location.path).is_dir())


def file_of(model: Model, storage: Mapping[str, Storage]) -> tuple[Store, str]:
    """Return the folder that a single file lies in, and its name there."""
    folder, name = split(model.path)
    return open_store(folder, storage), name


def describe_file(name: str, model: Model, storage: Mapping[str, Storage], *, with_revision: bool) -> ModelInfo:
    """Look into one file. See `sdbatch.checkpoints.describe`.

    Raises:
        ModelError: When the file is no checkpoint, or of no model that is served; when `like` or `config` contradicts
            its keys; when it lacks what no component gives.
    """
    place, url = f"models.{name}", parse_url(model.path).url
    for ending, said in ENDINGS.items():
        if url.lower().endswith(ending):
            raise ModelError(f"{place}: {url} {said}")
    if SHARD.search(url):
        raise ModelError(
            f"{place}: {url} is one shard of several; name the folder that they lie in, or one file with all weights"
        )
    if model.family is not None:
        raise ModelError(f"{place}.family: the header of a single file is read in any case; say like: instead")
    if model.variant not in {"auto", ""}:
        raise ModelError(f"{place}.variant: {url} is a single file and has no variants; leave it out")
    try:
        return _looked_into(name, model, storage, with_revision)
    except ModelError as error:
        said = str(error)
        raise ModelError(f"{place}: {said if said.startswith(url) else f'{url} {said}'}") from error


def _looked_into(name: str, model: Model, storage: Mapping[str, Storage], with_revision: bool) -> ModelInfo:
    store, file = file_of(model, storage)
    (entry,) = _entries(store, file)
    header = read_header(store, entry)
    keys = Keys.of(header.tensors)
    layout = _layout(header, keys, model)
    configs = open_store(model.config or str(CONFIGS / layout.configs), storage)
    index = read_json(configs, "model_index.json", f"config {configs.url}")
    fact = facts_of(index, lambda file: read_json(configs, file, configs.url))
    family = _family(index, configs, fact, layout, keys)
    files = config_files(configs, index)
    if model.config is not None:
        refuse_libraries(index, f"config {configs.url}")
        refuse_code(configs, files, f"config {configs.url}")
    refuse_other_inputs(f"config {configs.url}", family, fact, model.components)
    if model.like is None and model.config is None and "scheduler" not in model.components:
        _refuse_other_prediction(header, fact, layout, keys)
    _refuse_lacking(layout, family, index, keys, model, {one.path for one in files})
    denoiser = _denoiser(header)
    parameters = num_parameters([denoiser])
    # The published model's other modules have its figures, which do not hold for one of a size of its own.
    own = set() if model.config is None else named_components(index) - {family.denoiser}
    others = _counted(header, own, index, layout)
    height, width = native_size(family, fact)
    revision = _revision(model, store, entry) if with_revision else ""
    return ModelInfo(
        name=name,
        path=parse_url(model.path).url,
        family=family,
        revision=combined(revision, {"config": content_digest(configs, files)}) if with_revision else "",
        is_pinned=model.revision is not None or store.is_local,
        height=height,
        width=width,
        parameters=parameters,
        options=model if model.dtype != "auto" else model.model_copy(update={"dtype": stored_dtype([denoiser])}),
        modules=modules_of(index),
        module_parameters={family.denoiser: parameters, **others},
        single_file=SingleFile(
            title=layout.title if model.config is None else family.title,
            configs=configs.url,
            revision=revision,
            assumed=_assumed(layout, keys, model),
        ),
    )


def _entries(store: Store, file: str) -> list[Entry]:
    try:
        return lora_files(store, file)
    except ModelError as error:
        raise ModelError("is not there") from error


def _revision(model: Model, store: Store, entry: Entry) -> str:
    if model.revision is not None:
        return identity(model.revision, file=entry.path)
    return content_revision(store, [entry])


def _layout(header: Header, keys: Keys, model: Model) -> Layout:
    """Return what a file is laid out as; refuse what is no model."""
    said = beside_a_model(keys.shapes) or quantised(header.tensors)
    if said:
        raise ModelError(said)
    layout = told(LAYOUTS, keys, model.like, any_size=model.config is not None)
    if layout is None:
        examples = ", ".join(sorted(keys.shapes)[:3]) or "none"
        raise ModelError(
            module_of_a_model(keys.shapes)
            or f"has the keys of no model that is known ({examples}); name a folder in diffusers' layout instead"
        )
    if strange := layout.strange(keys):
        raise ModelError(
            f"has the keys of {layout.title}, and {len(strange)} layers that it does not have, such as {strange[0]}; "
            "it is a model made of that one; name its folder in diffusers' layout"
        )
    return layout


def _family(index: Mapping[str, Any], configs: Store, fact: Fact, layout: Layout, keys: Keys) -> Family:
    class_name = str(index.get("_class_name"))
    family = find_family(class_name, fact)
    if family is None:
        served = sorted({family.class_name for family in FAMILIES.values()})
        raise ModelError(f"has a config of {class_name} in {configs.url}; families served: {', '.join(served)}")
    if family.title not in families_of(LAYOUTS, keys):
        raise ModelError(f"has the keys of {layout.title}, and its config {configs.url} is of {family.title}")
    return family


def _refuse_other_prediction(header: Header, fact: Fact, layout: Layout, keys: Keys) -> None:
    """Refuse a file that says of itself that it predicts otherwise than the model that its keys are taken for."""
    taken = fact("scheduler/scheduler_config.json prediction_type")
    if is_taken_for_another(header.predicts, taken):
        others = ", ".join(map(repr, alternatives(LAYOUTS, layout, keys)))
        chooses = f"say like: {others}" if others else "name its folder in diffusers' layout"
        raise ModelError(
            f"has the keys of {layout.title}, which predicts {taken}, and says of itself that it predicts "
            f"{header.predicts} ({SAID_WHERE}); {chooses}, or like: {layout.title!r} where that is wrong"
        )


def _refuse_lacking(
    layout: Layout, family: Family, index: Mapping[str, Any], keys: Keys, model: Model, files: Collection[str]
) -> None:
    """Refuse a file that lacks a module which no component gives."""
    if model.safety_checker and "safety_checker" not in model.laid_over:
        raise ModelError("holds no safety checker; name it in components, or leave safety_checker out")
    lacking = []
    for name in sorted(named_components(index) - model.laid_over.keys() - {family.denoiser, "safety_checker"}):
        class_name = str(index[name][-1])
        if not _is_held(name, class_name, layout, keys, files):
            lacking.append(f"{name} ({class_name})")
    if lacking:
        example = lacking[0].partition(" ")[0]
        raise ModelError(
            f"is {layout.title} and comes without {', '.join(lacking)}; name each in components, such as "
            f"components: {{{example}: FOLDER/{example}}}"
        )


def _is_held(name: str, class_name: str, layout: Layout, keys: Keys, files: Collection[str]) -> bool:
    """Whether the file, or the configs, hold a module of the model."""
    if class_name in _VAES:
        return any(keys.holds(beginning) for beginning in _VAES[class_name])
    if name in layout.encoders:
        return any(key in keys.shapes for key in layout.encoders[name])
    inside = {path.partition("/")[2] for path in files if path.startswith(f"{name}/")}
    if class_name.startswith("CLIPTokenizer"):
        return "tokenizer_config.json" in inside
    if "Tokenizer" in class_name:
        return has_words(class_name, inside)
    return "scheduler_config.json" in inside or "preprocessor_config.json" in inside


def _denoiser(header: Header) -> Header:
    """Return a header with the denoiser's tensors alone."""
    return Header(tensors=behind_prefix(header.tensors) or header.tensors, file_bytes=header.file_bytes)


def _counted(header: Header, names: Collection[str], index: Mapping[str, Any], layout: Layout) -> dict[str, int]:
    """Return the parameters of each of some modules that the file holds."""
    found = {}
    for name in names:
        beginning = _VAES.get(str(index[name][-1])) or _before(layout.encoders.get(name, ()))
        tensors = {key: tensor for key, tensor in header.tensors.items() if beginning and key.startswith(beginning)}
        if tensors:
            found[name] = num_parameters([Header(tensors=tensors, file_bytes=header.file_bytes)])
    return found


def _before(keys: Collection[str]) -> tuple[str, ...]:
    """Return how all keys of a text encoder begin, by the keys that tell it."""
    return tuple(match[0] for key in keys if (match := _ENCODER.match(key)))


_ENCODER: Final = re.compile(r"(cond_stage_model|conditioner\.embedders\.\d|text_encoders\.[^.]+)\.")


def _assumed(layout: Layout, keys: Keys, model: Model) -> str:
    if model.like is not None or model.config is not None or not layout.assumed:
        return ""
    others = alternatives(LAYOUTS, layout, keys)
    chooses = f"; like: chooses ({', '.join([layout.title, *others])})" if others else ""
    return f"taken for {layout.title}: {layout.assumed}{chooses}"
