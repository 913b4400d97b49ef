"""Refuses model entries of a job that contradict their family or each other."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterable, Mapping
from itertools import combinations

from sdbatch.checkpoints.files import component_files, read_json
from sdbatch.checkpoints.info import ModelInfo
from sdbatch.checkpoints.single_files import file_of
from sdbatch.errors import ModelError
from sdbatch.families import FAMILIES, Family
from sdbatch.families.samplers import preset_problem
from sdbatch.job import Model, Storage
from sdbatch.storage import Entry, Store, open_store
from sdbatch.storage.locations import split

SAMPLE_BYTES = 64 << 10
"""Read from the middle of each file of weights where two folders are said to be one content."""


def refuse_accelerators(name: str, model: Model, family: Family) -> None:
    """Refuse accelerators that a family cannot use, or that would change nothing.

    Raises:
        ModelError: Naming the key, and what the family can.
    """
    for option, value, known in (
        ("channels_last", model.channels_last, {"unet"}),
        ("attention_backend", model.attention_backend, {"transformer"}),
    ):
        if value and family.denoiser not in known:
            raise ModelError(f"models.{name}.{option}: is for a {known.pop()}; {family.title} has a {family.denoiser}")
    if model.step_cache is not None and model.step_cache.kind not in family.step_caches:
        can = ", ".join(sorted(family.step_caches)) or "none"
        raise ModelError(
            f"models.{name}.step_cache: {model.step_cache.kind} skips nothing on {family.title}; of use: {can}"
        )
    asked = {
        "prompt_weights": model.prompt_weights == "compel",
        "long_prompt": model.long_prompt == "chunk",
        "embeddings": bool(model.embeddings),
    }
    for option, is_asked in asked.items():
        if is_asked and not family.takes_encoded_prompts:
            can = ", ".join(one.title for one in FAMILIES.values() if one.takes_encoded_prompts)
            what = "" if option == "embeddings" else f" {getattr(model, option)}"
            raise ModelError(f"models.{name}.{option}:{what} is not for {family.title}; it is for {can}")
    for preset, options in model.schedulers.items():
        if problem := preset_problem(preset, options, family):
            raise ModelError(f"models.{name}.schedulers.{preset}: {problem}")
    if model.vae.tiling is True and not family.vae_tiles:
        raise ModelError(f"models.{name}.vae.tiling: the VAE of {family.title} cannot decode in tiles")
    if model.guidance_interval is not None and not family.cfg_layout:
        raise ModelError(f"models.{name}.guidance_interval: {family.title} cannot leave guidance out of single steps")


def refuse_shared_revisions(models: Iterable[ModelInfo], storage: Mapping[str, Storage]) -> None:
    """Refuse two folders that are said to be of one revision and are not alike.

    Rows that move from one to the other would keep their request keys, and so the other model's pictures. Names, sizes,
    configurations and a sample of every file of weights are compared. Entries that state their family are not looked
    into, as check and plan promise; a content digest is compared where it is loaded.

    Raises:
        ModelError: Naming both models and the first file that differs.
    """
    stated = [model for model in models if model.options.revision and not model.options.family]
    folders = [model for model in stated if not model.path.startswith("builtin:")]
    for one, two in combinations(folders, 2):
        if one.options.revision == two.options.revision and one.path != two.path and not _are_two_files(one, two):
            # What either lays over its folder is read elsewhere, and is no part of what the revision names.
            without = {*one.options.components, *two.options.components}
            samples = [_samples(model, storage, without) for model in (one, two)]
            spare = {f"{module}/config.json" for module in without} - (samples[0].keys() & samples[1].keys())
            differing = _first_difference(
                *({path: mark for path, mark in found.items() if path not in spare} for found in samples)
            )
            if differing is not None:
                raise ModelError(
                    f"models.{one.name} and models.{two.name} state one revision, {one.options.revision}, but "
                    f"{one.path} and {two.path} differ in {differing}; "
                    "`sdbatch models pin JOB` prints the digest of each"
                )


def _are_two_files(one: ModelInfo, two: ModelInfo) -> bool:
    """Whether two models are files of different names, which a commit may well hold: their identities differ."""
    singles = (one.single_file, two.single_file)
    return None not in singles and split(one.path)[1] != split(two.path)[1]


def _samples(model: ModelInfo, storage: Mapping[str, Storage], without: Collection[str]) -> dict[str, str]:
    if model.single_file is not None:
        store, file = file_of(model.options, storage)
        return {file: _sample(store, store.stat(file))}
    store = open_store(model.path, storage)
    index = read_json(store, "model_index.json", f"models.{model.name}: {model.path}")
    return {entry.path: _sample(store, entry) for entry in component_files(store, index, without=without)}


def _sample(store: Store, entry: Entry) -> str:
    """Return size and digest of one file: whole where it is small, else of its middle."""
    start = max(0, entry.size_bytes - SAMPLE_BYTES) // 2
    part = store.read_range(entry.path, start, start + SAMPLE_BYTES) if entry.size_bytes else b""
    return f"{entry.size_bytes} {hashlib.sha256(part).hexdigest()}"


def _first_difference(one: Mapping[str, str], two: Mapping[str, str]) -> str | None:
    return min((path for path in one.keys() | two.keys() if one.get(path) != two.get(path)), default=None)
