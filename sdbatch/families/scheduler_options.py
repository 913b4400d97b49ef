"""What each scheduler class takes, as a job may say it, without diffusers.

    class + options --> checked_options() --> options in the form that a recipe holds, or what is wrong with them

Names are the arguments of the classes' own constructors. An argument is left out where a class ignores it, where it
gives no finite numbers, or where it says what the weights were trained for. `tests/test_samplers.py` compares
the table with diffusers and runs every value of it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, NamedTuple

from sdbatch.columns import Range
from sdbatch.families.schedulers import FLOW_SCHEDULERS, WAN_SCHEDULERS
from sdbatch.hints import did_you_mean


class Option(NamedTuple):
    """One argument.

    Attributes:
        kind: Type of its values; `list` is a list of step numbers.
        bound: Range of a number, or the choices of a text; None for any value.
    """

    kind: type
    bound: Range | tuple[str, ...] | None = None


Options = Mapping[str, Option]

_FLAG: Final = Option(bool)
_BETAS: Final[Options] = {
    "beta_start": Option(float, Range(over=0, most=0.1)),
    "beta_end": Option(float, Range(over=0, most=0.1)),
    "beta_schedule": Option(str, ("linear", "scaled_linear")),
    "prediction_type": Option(str, ("epsilon", "v_prediction")),
}
_SPACING: Final[Options] = {
    "timestep_spacing": Option(str, ("linspace", "leading", "trailing")),
    "steps_offset": Option(int, Range(least=0, most=1)),
}
EXCLUSIVE: Final = ("use_karras_sigmas", "use_exponential_sigmas", "use_beta_sigmas")
"""Noise levels that a scheduler can have one of; what says one of them takes the place of a folder's own."""
_SIGMAS: Final[Options] = dict.fromkeys(EXCLUSIVE, _FLAG)
_ZERO_SNR: Final[Options] = {"rescale_betas_zero_snr": _FLAG}
_THRESHOLD: Final[Options] = {
    "thresholding": _FLAG,
    "dynamic_thresholding_ratio": Option(float, Range(over=0, most=1)),
    "sample_max_value": Option(float, Range(least=1, most=1000)),
}
_CLIP: Final[Options] = {"clip_sample": _FLAG, "clip_sample_range": Option(float, Range(over=0, most=1000))}
_ORDER: Final[Options] = {"solver_order": Option(int, Range(least=1, most=3))}
_FINAL: Final[Options] = {"final_sigmas_type": Option(str, ("zero", "sigma_min"))}
_ORIGINAL: Final[Options] = {"original_inference_steps": Option(int, Range(least=1, most=1000))}
_SOLVER: Final[Options] = {
    **_ORDER,
    "solver_type": Option(str, ("midpoint", "heun")),
    "lower_order_final": _FLAG,
}
_SDE: Final[Options] = {"algorithm_type": Option(str, ("dpmsolver++", "sde-dpmsolver++"))}
_COGVIDEOX: Final[Options] = {
    **_SPACING,
    **_ZERO_SNR,
    "set_alpha_to_one": _FLAG,
    "snr_shift_scale": Option(float, Range(over=0, most=100)),
}
_SHIFT: Final = Option(float, Range(over=0, most=100))

OPTIONS: Final[Mapping[str, Options]] = {
    "CogVideoXDDIMScheduler": _COGVIDEOX,
    "CogVideoXDPMScheduler": _COGVIDEOX,
    "DDIMScheduler": {**_BETAS, **_SPACING, **_ZERO_SNR, **_THRESHOLD, **_CLIP, "set_alpha_to_one": _FLAG},
    "DDPMScheduler": {
        **_BETAS,
        **_SPACING,
        **_ZERO_SNR,
        **_THRESHOLD,
        **_CLIP,
        "variance_type": Option(str, ("fixed_small", "fixed_large")),
    },
    "DEISMultistepScheduler": {
        **_BETAS,
        **_SPACING,
        **_SIGMAS,
        **_THRESHOLD,
        **_ORDER,
        "lower_order_final": _FLAG,
    },
    "DPMSolverMultistepScheduler": {
        **_BETAS,
        **_SPACING,
        **_SIGMAS,
        **_ZERO_SNR,
        **_THRESHOLD,
        **_SOLVER,
        **_SDE,
        **_FINAL,
        "euler_at_final": _FLAG,
        "use_lu_lambdas": _FLAG,
    },
    "DPMSolverSinglestepScheduler": {**_BETAS, **_SIGMAS, **_THRESHOLD, **_SOLVER, **_SDE, **_FINAL},
    "EulerAncestralDiscreteScheduler": {**_BETAS, **_SPACING, **_ZERO_SNR},
    "EulerDiscreteScheduler": {
        **_BETAS,
        **_SPACING,
        **_SIGMAS,
        **_ZERO_SNR,
        **_FINAL,
        "interpolation_type": Option(str, ("linear", "log_linear")),
        "sigma_min": Option(float, Range(over=0, most=1000)),
        "sigma_max": Option(float, Range(over=0, most=1000)),
    },
    "HeunDiscreteScheduler": {**_BETAS, **_SPACING, **_SIGMAS, **_CLIP},
    "KDPM2AncestralDiscreteScheduler": {**_BETAS, **_SPACING, **_SIGMAS},
    "KDPM2DiscreteScheduler": {**_BETAS, **_SPACING, **_SIGMAS},
    "LCMScheduler": {
        **_BETAS,
        **_THRESHOLD,
        **_CLIP,
        **_ORIGINAL,
        "timestep_scaling": Option(float, Range(over=0, most=1000)),
    },
    "LMSDiscreteScheduler": {**_BETAS, **_SPACING, **_SIGMAS},
    "PNDMScheduler": {**_BETAS, **_SPACING, "skip_prk_steps": _FLAG, "set_alpha_to_one": _FLAG},
    "TCDScheduler": {**_BETAS, **_ORIGINAL},
    "UniPCMultistepScheduler": {
        **_BETAS,
        **_SPACING,
        **_SIGMAS,
        **_ZERO_SNR,
        **_THRESHOLD,
        **_ORDER,
        **_FINAL,
        "disable_corrector": Option(list, Range(least=0, most=1000)),
    },
}
"""Options of every class by its name, for models that predict noise or velocity."""

FLOW_OPTIONS: Final[Mapping[str, Options]] = {
    "DPMSolverMultistepScheduler": {**_SOLVER, "flow_shift": _SHIFT, "euler_at_final": _FLAG},
    "FlowMatchEulerDiscreteScheduler": {
        **_SIGMAS,
        "shift": _SHIFT,
        "shift_terminal": Option(float, Range(over=0, most=0.999)),
    },
    "UniPCMultistepScheduler": {
        **_ORDER,
        "flow_shift": _SHIFT,
        "disable_corrector": Option(list, Range(least=0, most=1000)),
    },
}
"""Options of every class by its name, for models that predict a flow.

Their pipelines hand no generator to a scheduler (0.42.1), so what draws noise in a step would draw it for the whole
call: a row would depend on its neighbours. Other noise levels than the flow's own would take the shift's place.
"""

REQUIRES: Final[Mapping[str, str]] = {
    "CosineDPMSolverMultistepScheduler": "torchsde",
    "DPMSolverSDEScheduler": "torchsde",
    "LMSDiscreteScheduler": "scipy",
    "use_beta_sigmas": "scipy",
}
"""Python packages that a class, or an option that is true, needs."""

STEPS_ORIGINAL: Final = {"LCMScheduler": 50, "TCDScheduler": 50}
"""Steps of the schedule that a distilled model's few are taken from, by class; more cannot be made of it."""


def zero_snr_schedulers(schedulers: tuple[str, ...]) -> list[str]:
    """Return those of a family's schedulers that can bring the last step to a signal of zero."""
    return [name for name in schedulers if "rescale_betas_zero_snr" in options_taken(schedulers, name)]


def options_taken(schedulers: tuple[str, ...], class_name: str) -> Options:
    """Return the options of a class for the models of a family.

    Args:
        schedulers: The family's.
        class_name: One of them.
    """
    return (FLOW_OPTIONS if schedulers in {FLOW_SCHEDULERS, WAN_SCHEDULERS} else OPTIONS)[class_name]


def checked_options(class_name: str, options: Mapping[str, Any], taken: Options) -> tuple[dict[str, Any], str]:
    """Return options in the form that a recipe holds, and what is wrong with them; "" for nothing.

    Args:
        class_name: Class of the scheduler.
        options: Value by name.
        taken: What it takes.
    """
    for name, value in options.items():
        if name not in taken:
            return {}, f"{class_name} takes no {name}{_near(name, taken)}"
        if problem := _problem(value, taken[name]):
            return {}, f"{class_name} takes no {name} = {value!r}: it {problem}"
    on = [name for name in EXCLUSIVE if options.get(name)]
    if len(on) > 1:
        return {}, f"{on[0]} stands beside {on[1]}; only one of them can be met"
    return {name: taken[name].kind(options[name]) for name in sorted(options)}, ""


def is_written(class_name: str, options: Mapping[str, Any]) -> bool:
    """Whether a recipe that sdbatch wrote may hold a class and options, of any family; "" is the model's own class."""
    if not class_name:
        return not options
    tables = [table[class_name] for table in (OPTIONS, FLOW_OPTIONS) if class_name in table]
    return any(not checked_options(class_name, options, taken)[1] for taken in tables)


def _problem(value: Any, option: Option) -> str:
    """Return what is wrong with a value, after "it"; "" for nothing."""
    if option.kind is list:
        numbers = value if isinstance(value, list) else [None]
        return "" if all(type(one) is int and one in _range(option) for one in numbers) else "is no list of steps"
    if option.kind in {int, float}:
        fits = type(value) is int or (option.kind is float and type(value) is float)
        if not fits:
            return "is no whole number" if option.kind is int else "is no number"
        return "" if value in _range(option) else f"is not {option.bound}"
    if type(value) is not option.kind:
        return "is neither true nor false" if option.kind is bool else f"is none of {_choices(option)}"
    return "" if not isinstance(option.bound, tuple) or value in option.bound else f"is none of {_choices(option)}"


def _range(option: Option) -> Range:
    assert isinstance(option.bound, Range), "a number has a range"
    return option.bound


def _choices(option: Option) -> str:
    return ", ".join(option.bound) if isinstance(option.bound, tuple) else "any"


def _near(name: str, known: Options) -> str:
    return "; " + (did_you_mean(name, known) or f"it takes {', '.join(known)}")
