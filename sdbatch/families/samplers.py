"""Names of samplers that people bring from A1111 and ComfyUI, as diffusers' classes and options.

    preset, class or name of a sampler + family --> scheduler_of() --> Scheduler, or what is wrong with the name

Source of classes and options: diffusers' documentation, "Schedulers" (docs/source/en/api/schedulers/overview.md), which
has a table of A1111's samplers and one of schedule types. What it does not name is marked below. A name is read without
regard to case, blanks, `_` and `-`, and may end in a schedule type: `DPM++ 2M Karras` and `dpmpp_2m_karras` are one.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final, NamedTuple

from sdbatch.families.scheduler_options import EXCLUSIVE, FLOW_OPTIONS, OPTIONS, checked_options, options_taken
from sdbatch.families.table import Family
from sdbatch.hints import near, nearest


class Scheduler(NamedTuple):
    """A scheduler as a recipe has it.

    Attributes:
        class_name: diffusers class.
        options: Laid over the configuration of the model's own scheduler; sorted by name.
    """

    class_name: str
    options: Mapping[str, Any]


_NONE: Final[Mapping[str, Any]] = {}
_SDE: Final = {"algorithm_type": "sde-dpmsolver++"}

SAMPLERS: Final[Mapping[str, tuple[tuple[str, Mapping[str, Any]], ...]]] = {
    "DPM++ 2M": (("DPMSolverMultistepScheduler", _NONE),),
    "DPM++ 2M SDE": (("DPMSolverMultistepScheduler", _SDE),),
    "DPM++ SDE": (("DPMSolverSinglestepScheduler", _NONE),),
    "DPM2": (("KDPM2DiscreteScheduler", _NONE),),
    "DPM2 a": (("KDPM2AncestralDiscreteScheduler", _NONE),),
    "Euler": (("EulerDiscreteScheduler", _NONE), ("FlowMatchEulerDiscreteScheduler", _NONE)),
    "Euler a": (("EulerAncestralDiscreteScheduler", _NONE),),
    "Heun": (("HeunDiscreteScheduler", _NONE),),
    "LMS": (("LMSDiscreteScheduler", _NONE),),
    # The documentation has these classes without a name of A1111, or the name is the class's own.
    "DEIS": (("DEISMultistepScheduler", _NONE),),
    "UniPC": (("UniPCMultistepScheduler", _NONE),),
    "DDIM": (("DDIMScheduler", _NONE), ("CogVideoXDDIMScheduler", _NONE)),
    "DDPM": (("DDPMScheduler", _NONE),),
    "LCM": (("LCMScheduler", _NONE),),
    "TCD": (("TCDScheduler", _NONE),),
    "PLMS": (("PNDMScheduler", {"skip_prk_steps": True}),),
    # By the constructor's documentation of DPMSolverMultistepScheduler: solver_type and solver_order.
    "DPM++ 2M SDE Heun": (("DPMSolverMultistepScheduler", {**_SDE, "solver_type": "heun"}),),
    "DPM++ 3M SDE": (("DPMSolverMultistepScheduler", {**_SDE, "solver_order": 3}),),
}
"""Classes and options by A1111's name; of several classes the first that a family takes counts."""

OTHER_NAMES: Final[Mapping[str, str]] = {
    "euler_ancestral": "Euler a",
    "dpm_2": "DPM2",
    "dpm_2_ancestral": "DPM2 a",
    "dpmpp_2m": "DPM++ 2M",
    "dpmpp_2m_sde": "DPM++ 2M SDE",
    "dpmpp_2m_sde_gpu": "DPM++ 2M SDE",
    "dpmpp_2m_sde_heun": "DPM++ 2M SDE Heun",
    "dpmpp_2m_sde_heun_gpu": "DPM++ 2M SDE Heun",
    "dpmpp_3m_sde": "DPM++ 3M SDE",
    "dpmpp_3m_sde_gpu": "DPM++ 3M SDE",
    "dpmpp_sde": "DPM++ SDE",
    "dpmpp_sde_gpu": "DPM++ SDE",
    "uni_pc": "UniPC",
    "uni_pc_bh2": "UniPC",
    "pndm": "PLMS",
}
"""A1111's name by ComfyUI's where it is another one."""

TYPES: Final[Mapping[str, Mapping[str, Any]]] = {
    "Karras": {"use_karras_sigmas": True},
    "SGM Uniform": {"timestep_spacing": "trailing"},
    "Simple": {"timestep_spacing": "trailing"},
    "Exponential": {"timestep_spacing": "linspace", "use_exponential_sigmas": True},
    "Beta": {"timestep_spacing": "linspace", "use_beta_sigmas": True},
    # Not in the documentation: k-diffusion's get_sigmas and ComfyUI's normal_scheduler are a linspace of timesteps.
    "Normal": {"timestep_spacing": "linspace"},
    "Uniform": {"timestep_spacing": "linspace"},
}
"""Options by schedule type, A1111's and ComfyUI's words."""

UNAVAILABLE: Final[Mapping[str, str]] = {
    "DPM++ 2S a": "DPM++ SDE",
    "dpmpp_2s_ancestral": "DPM++ SDE",
    "DPM fast": "DPM++ 2M",
    "DPM adaptive": "DPM++ 2M",
    "heunpp2": "Heun",
}
"""Samplers that diffusers does not have, and the one that is nearest."""

_OWN_SPACING: Final[Mapping[str, str]] = {
    "DPMSolverMultistepScheduler": "trailing",
    "DPMSolverSinglestepScheduler": "linspace",
    "FlowMatchEulerDiscreteScheduler": "trailing",
    "LCMScheduler": "trailing",
    "TCDScheduler": "trailing",
    "UniPCMultistepScheduler": "trailing",
}
"""The spacing of timesteps that a class has for models for which it takes none."""


def scheduler_of(name: str, family: Family, presets: Mapping[str, Mapping[str, Any]]) -> tuple[Scheduler | None, str]:
    """Return the scheduler that a name stands for, or what is wrong with the name; "" for nothing.

    Args:
        name: A preset, a diffusers class or a sampler's name.
        family: Family of the model.
        presets: The model entry's own: `class` and options by name.
    """
    if name in presets:
        own = dict(presets[name])
        return _settled(str(own.pop("class")), own, family)
    if name in family.schedulers:
        return Scheduler(name, _NONE), ""
    found = _BY_NAME.get(_plain(name))
    if found is None:
        return None, _unknown(name, family, presets)
    sampler, kind = found
    if sampler in UNAVAILABLE:
        return None, f"is a sampler that diffusers does not have; the nearest is {_joined(UNAVAILABLE[sampler], kind)}"
    classes = [(cls, options) for cls, options in SAMPLERS[sampler] if cls in family.schedulers]
    if not classes:
        return None, _unknown(name, family, presets)
    class_name, options = classes[0]
    asked = {**options, **(TYPES[kind] if kind else _NONE)}
    return _settled(class_name, _without_given(class_name, asked, family), family)


def preset_problem(name: str, preset: Mapping[str, Any], family: Family) -> str:
    """Return what is wrong with a model entry's own scheduler; "" for nothing.

    Args:
        name: As rows say it.
        preset: `class` and options by name.
        family: Family of the model.
    """
    if name in {*OPTIONS, *FLOW_OPTIONS}:
        return "is the name of a diffusers class, which a row may say already; choose another name"
    return scheduler_of(name, family, {name: preset})[1]


def _settled(class_name: str, options: Mapping[str, Any], family: Family) -> tuple[Scheduler | None, str]:
    if class_name not in family.schedulers:
        return None, f"is a {class_name}, which {family.title} does not take{near(class_name, family.schedulers)}"
    checked, problem = checked_options(class_name, options, options_taken(family.schedulers, class_name))
    return (None, f"cannot be met: {problem}") if problem else (Scheduler(class_name, checked), "")


def _without_given(class_name: str, options: Mapping[str, Any], family: Family) -> dict[str, Any]:
    """Leave out a spacing of timesteps that a class has anyway and so does not take."""
    spacing = options.get("timestep_spacing")
    is_own = spacing == _OWN_SPACING.get(class_name) or not options.keys().isdisjoint(EXCLUSIVE)
    if is_own and "timestep_spacing" not in options_taken(family.schedulers, class_name):
        return {name: value for name, value in options.items() if name != "timestep_spacing"}
    return dict(options)


def _plain(name: str) -> str:
    """Return a name as names are compared: DPM++ 2M Karras is dpmpp2mkarras."""
    return "".join(one for one in name.lower().replace("+", "p") if one.isalnum())


def _joined(sampler: str, kind: str) -> str:
    return f"{sampler} {kind}".strip()


def _names() -> Iterator[tuple[str, tuple[str, str]]]:
    """Yield each name as it is compared, with the sampler and the schedule type that it says."""
    spelled = {name: name for name in (*SAMPLERS, *UNAVAILABLE)} | dict(OTHER_NAMES)
    for name, sampler in spelled.items():
        for kind in ("", *TYPES):
            yield _plain(_joined(name, kind)), (sampler, kind)


_BY_NAME: Final = dict(_names())


def _unknown(name: str, family: Family, presets: Mapping[str, Any]) -> str:
    """Return what a name is told that a family has not: with the nearest that it has."""
    samplers = [one for one, classes in SAMPLERS.items() if any(cls in family.schedulers for cls, _ in classes)]
    known = [*presets, *family.schedulers, *samplers]
    known += [
        typed
        for one in samplers
        for kind in TYPES
        if scheduler_of(typed := _joined(one, kind), family, {})[0] is not None
    ]
    if not samplers:
        return f"is not a scheduler of {family.title}{near(name, known)}"
    by_plain = {_plain(one): one for one in reversed(known)}
    meant = nearest(_plain(name), by_plain)
    hint = f"; did you mean {by_plain[meant]}?" if meant else f" ({', '.join([*presets, *family.schedulers])})"
    return f"is not a scheduler of {family.title}{hint}"
