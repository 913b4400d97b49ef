"""What a model's configurations say of it that no pipeline reads, or that its family does not serve; without torch.

model_index.json + family --> faults_of_index(): modules that are not there, classes that nobody has
facts + family            --> refuse_other_inputs(): a UNet that reads more than latents, a prediction nobody knows
"""

from __future__ import annotations

import importlib.util
from collections.abc import Collection, Iterator, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any, Final

from sdbatch.checkpoints.facts import Fact
from sdbatch.checkpoints.files import named_components
from sdbatch.errors import ModelError
from sdbatch.families import Family
from sdbatch.families.schedulers import (
    FLOW_SCHEDULERS,
    OF_FLOW,
    OF_OTHER_PIPELINES,
    TAKE_SIGMAS,
    TOLD_OF_FLOW,
    WAN_SCHEDULERS,
)

_OF_LATENTS: Final = ("StableDiffusionPipeline", "StableDiffusionXLPipeline", "StableDiffusionXLImg2ImgPipeline")
"""Classes whose UNet reads latents and nothing beside them."""
_KINDS: Final = {5: "a depth model", 7: "an upscaler", 8: "InstructPix2Pix", 9: "an inpainting model"}
"""What a UNet is that reads so many channels where the VAE has 4."""
_OF_NOISE: Final = ("prediction_type", "scale_factors", "use_flow_sigmas", "variance_type")
"""Entries of a scheduler's configuration that say what noise it is for."""
_PREDICTIONS: Final = ("epsilon", "sample", "v_prediction", "flow_prediction")


def faults_of_index(index: Mapping[str, Any], family: Family, without: Collection[str]) -> Iterator[str]:
    """Yield what is wrong with a model_index.json.

    Args:
        index: Its content.
        family: Family of the model.
        without: Components that are laid over, or not read.
    """
    for name in sorted(named_components(index) - set(without)):
        value = index[name]
        if len(value) != 2 or not all(isinstance(part, str) for part in value):
            yield f"{name} is {value}; it must be [library, class], such as [diffusers, AutoencoderKL]"
        elif value[0] == "diffusers" and not _has_diffusers(value[1]):
            yield f"{name} is a {value[1]}, which diffusers, as it is installed, does not have"
        elif name == "scheduler" and not _is_taken(value[1], family):
            yield f"{name} is a {value[1]}, which {family.title} does not take; the nearest is {_nearest(family)}"
    for name in (family.denoiser, "vae", "scheduler"):
        if name not in without and name not in named_components(index):
            yield f"names no {name}, which {family.title} needs; lay one over it: components: {{{name}: FOLDER}}"


def _is_taken(class_name: str, family: Family) -> bool:
    """Whether a family's pipelines can call a scheduler of a class."""
    if class_name.startswith("CogVideoX"):
        return class_name in family.schedulers
    if _predicts_flow(family):
        return class_name in TAKE_SIGMAS if family.gives_sigmas else class_name.startswith(OF_FLOW + TOLD_OF_FLOW)
    return not class_name.startswith(OF_FLOW) and class_name not in OF_OTHER_PIPELINES


def _predicts_flow(family: Family) -> bool:
    """Whether a model of a family predicts a flow; Sana does, of which rows may ask for no other scheduler."""
    return {*FLOW_SCHEDULERS, *WAN_SCHEDULERS}.issuperset(family.schedulers)


def _nearest(family: Family) -> str:
    return family.schedulers[0] if family.schedulers else FLOW_SCHEDULERS[0]


@lru_cache(maxsize=1)
def _names_of_diffusers() -> str:
    spec = importlib.util.find_spec("diffusers")  # without importing it, which takes seconds
    return Path(spec.origin).read_text() if spec and spec.origin else ""


def _has_diffusers(class_name: str) -> bool:
    text = _names_of_diffusers()
    return not text or f'"{class_name}"' in text


def refuse_other_inputs(place: str, family: Family, fact: Fact, without: Collection[str]) -> None:
    """Refuse a model whose numbers its family's pipelines would read otherwise than it was made for.

    Args:
        place: Key in the job and the model's folder, for messages.
        family: Family of the model.
        fact: See `facts_of`.
        without: Components that are laid over.

    Raises:
        ModelError: Naming the file, the entry and what is served.
    """
    if family.class_name in _OF_LATENTS:
        _refuse_more_than_latents(place, family, fact)
    said = None if "scheduler" in without else fact("scheduler/scheduler_config.json prediction_type")
    if said is not None and said not in _PREDICTIONS:
        raise ModelError(
            f"{place}: scheduler/scheduler_config.json says prediction_type {said!r}; there are "
            + ", ".join(_PREDICTIONS)
        )
    scheduler = fact("model_index.json scheduler")
    if "scheduler" not in without and isinstance(scheduler, list):
        config = {key: fact(f"scheduler/scheduler_config.json {key}") for key in _OF_NOISE}
        refuse_other_noise(f"{place}: scheduler", family, str(scheduler[-1]), config)


def refuse_other_noise(place: str, family: Family, class_name: str, config: Mapping[str, Any]) -> None:
    """Refuse a scheduler that takes what a model predicts for something else.

    Args:
        place: Key in the job and the scheduler's folder, for messages.
        family: Family of the model.
        class_name: The scheduler's class.
        config: Its configuration.

    Raises:
        ModelError: Naming the scheduler and the nearest that fits.
    """
    said, nearest = config.get("prediction_type"), f"the nearest is {_nearest(family)}"
    is_told, has_levels = said == "flow_prediction", bool(config.get("use_flow_sigmas"))
    is_of_flow = class_name.startswith(OF_FLOW) or (is_told and has_levels)
    if not _is_taken(class_name, family):
        raise ModelError(f"{place}: is a {class_name}, which {family.title} does not take; {nearest}")
    if is_told != has_levels and not class_name.startswith(OF_FLOW):
        raise ModelError(
            f"{place}: is a {class_name} whose configuration says prediction_type {said or 'epsilon'} and "
            f"use_flow_sigmas {str(has_levels).lower()}: of a flow it says flow_prediction and true, of noise neither; "
            f"{nearest}"
        )
    if _predicts_flow(family) and not is_of_flow:
        raise ModelError(
            f"{place}: is a {class_name} for what predicts {said or 'epsilon'}, and {family.title} predicts a flow; "
            f"{nearest}"
        )
    if config.get("scale_factors"):
        raise ModelError(
            f"{place}: is a {class_name} with scale_factors, which enlarges latents between its steps, and no pipeline "
            f"of {family.title} does that; {nearest}"
        )
    if str(config.get("variance_type", "")).startswith("learned"):
        raise ModelError(
            f"{place}: is a {class_name} whose variance_type is {config['variance_type']}, for what predicts variances "
            f"as well, and {family.title} does not; {nearest}"
        )


def _refuse_more_than_latents(place: str, family: Family, fact: Fact) -> None:
    reads, has = fact("unet/config.json in_channels"), fact("vae/config.json latent_channels")
    if isinstance(reads, int) and isinstance(has, int) and reads != has:
        kind = _KINDS.get(reads, "another model")
        raise ModelError(
            f"{place}: is {kind}, which is not served as {family.title}: its unet/config.json says in_channels "
            f"{reads}, and the VAE has {has}"
        )
