"""Names of samplers: compared with diffusers' documentation, and every option with its classes."""

from __future__ import annotations

import inspect
import json
from collections.abc import Mapping
from typing import Any

import pytest
from conftest import long_but

from sdbatch.checkpoints import describe
from sdbatch.columns import Range
from sdbatch.errors import ModelError
from sdbatch.families import FAMILIES
from sdbatch.families.samplers import SAMPLERS, TYPES, Scheduler, scheduler_of
from sdbatch.families.scheduler_options import EXCLUSIVE, FLOW_OPTIONS, OPTIONS, REQUIRES, Option, is_written
from sdbatch.families.schedulers import EPSILON_SCHEDULERS, OF_OWN_NOISE
from sdbatch.job import Job, parse_job
from sdbatch.plan.resolve import Resolver

SD = FAMILIES["Stable Diffusion 1.x/2.x"]
FLUX = next(family for family in FAMILIES.values() if family.class_name == "FluxPipeline")
WAN = FAMILIES["Wan 2.1 T2V"]
KARRAS: Mapping[str, Any] = {"use_karras_sigmas": True}
SDE: Mapping[str, Any] = {"algorithm_type": "sde-dpmsolver++"}
TRAILING: Mapping[str, Any] = {"timestep_spacing": "trailing"}
EXPONENTIAL: Mapping[str, Any] = {"timestep_spacing": "linspace", "use_exponential_sigmas": True}
BETA: Mapping[str, Any] = {"timestep_spacing": "linspace", "use_beta_sigmas": True}
M2 = "DPMSolverMultistepScheduler"

DOCUMENTED: dict[str, tuple[str, Mapping[str, Any]]] = {
    "DPM++ 2M": (M2, {}),
    "DPM++ 2M Karras": (M2, KARRAS),
    "DPM++ 2M SDE": (M2, SDE),
    "DPM++ 2M SDE Karras": (M2, {**KARRAS, **SDE}),
    "DPM++ SDE": ("DPMSolverSinglestepScheduler", {}),
    "DPM++ SDE Karras": ("DPMSolverSinglestepScheduler", KARRAS),
    "DPM2": ("KDPM2DiscreteScheduler", {}),
    "DPM2 Karras": ("KDPM2DiscreteScheduler", KARRAS),
    "DPM2 a": ("KDPM2AncestralDiscreteScheduler", {}),
    "DPM2 a Karras": ("KDPM2AncestralDiscreteScheduler", KARRAS),
    "Euler": ("EulerDiscreteScheduler", {}),
    "Euler a": ("EulerAncestralDiscreteScheduler", {}),
    "Heun": ("HeunDiscreteScheduler", {}),
    "LMS": ("LMSDiscreteScheduler", {}),
    "LMS Karras": ("LMSDiscreteScheduler", KARRAS),
    "DEIS": ("DEISMultistepScheduler", {}),
    "UniPC": ("UniPCMultistepScheduler", {}),
    # The second table: each type with a sampler that takes it.
    "Euler Karras": ("EulerDiscreteScheduler", KARRAS),
    "Euler SGM Uniform": ("EulerDiscreteScheduler", TRAILING),
    "Euler a SGM Uniform": ("EulerAncestralDiscreteScheduler", TRAILING),
    "Euler Simple": ("EulerDiscreteScheduler", TRAILING),
    "DPM++ 2M Exponential": (M2, EXPONENTIAL),
    "DPM++ 2M Beta": (M2, BETA),
    "DPM++ 2M SDE Exponential": (M2, {**EXPONENTIAL, **SDE}),
    # ComfyUI's spellings of the same.
    "euler": ("EulerDiscreteScheduler", {}),
    "euler_ancestral": ("EulerAncestralDiscreteScheduler", {}),
    "heun": ("HeunDiscreteScheduler", {}),
    "dpm_2": ("KDPM2DiscreteScheduler", {}),
    "dpm_2_ancestral karras": ("KDPM2AncestralDiscreteScheduler", KARRAS),
    "dpmpp_2m": (M2, {}),
    "dpmpp_2m karras": (M2, KARRAS),
    "dpmpp_2m_karras": (M2, KARRAS),
    "dpmpp_2m sgm_uniform": (M2, TRAILING),
    "dpmpp_2m_sde_gpu": (M2, SDE),
    "dpmpp_sde_karras": ("DPMSolverSinglestepScheduler", KARRAS),
    "uni_pc": ("UniPCMultistepScheduler", {}),
    "lms": ("LMSDiscreteScheduler", {}),
    "lcm": ("LCMScheduler", {}),
    "ddim": ("DDIMScheduler", {}),
}
"""Names by docs/source/en/api/schedulers/overview.md of diffusers, written off by hand."""


@pytest.mark.parametrize("name", DOCUMENTED)
def test_a_sampler_s_name_is_what_diffusers_documentation_says(name: str) -> None:
    found, problem = scheduler_of(name, SD, {})

    assert (found, problem) == (Scheduler(DOCUMENTED[name][0], dict(sorted(DOCUMENTED[name][1].items()))), "")


@pytest.mark.parametrize(
    ("name", "problem"),
    [
        ("DPM++ 2M Karas", "is not a scheduler of Stable Diffusion 1.x/2.x; did you mean DPM++ 2M Karras?"),
        ("dpmpp_2n", "is not a scheduler of Stable Diffusion 1.x/2.x; did you mean DPM++ 2M?"),
        ("Euler b", "is not a scheduler of Stable Diffusion 1.x/2.x; did you mean Euler?"),
        ("dpm2mm", "is not a scheduler of Stable Diffusion 1.x/2.x; did you mean dpm2m?"),
        ("DPM++ 2S a Karras", "is a sampler that diffusers does not have; the nearest is DPM++ SDE Karras"),
        ("Euler a Karras", "cannot be met: EulerAncestralDiscreteScheduler takes no use_karras_sigmas; it takes"),
    ],
)
def test_a_name_that_is_none_is_refused_with_the_nearest(name: str, problem: str) -> None:
    found, said = scheduler_of(name, SD, {"dpm2m": {"class": M2}})

    assert found is None
    assert said.startswith(problem)


@pytest.mark.parametrize(
    ("family", "name", "found"),
    [
        (FLUX, "Euler", ("FlowMatchEulerDiscreteScheduler", {})),
        (FLUX, "euler simple", ("FlowMatchEulerDiscreteScheduler", {})),
        (FLUX, "euler karras", ("FlowMatchEulerDiscreteScheduler", KARRAS)),
        (FLUX, "euler beta", ("FlowMatchEulerDiscreteScheduler", {"use_beta_sigmas": True})),
        (FLUX, "Euler a", "is not a scheduler of FLUX.1; did you mean Euler?"),
        (FLUX, "DPM++ 2M", "is not a scheduler of FLUX.1"),
        (FLUX, "Euler Normal", "cannot be met: FlowMatchEulerDiscreteScheduler takes no timestep_spacing"),
        (WAN, "uni_pc simple", ("UniPCMultistepScheduler", {})),
        (WAN, "dpmpp_2m", (M2, {})),
        (WAN, "dpmpp_2m karras", f"cannot be met: {M2} takes no use_karras_sigmas"),
        (WAN, "dpmpp_2m_sde", f"cannot be met: {M2} takes no algorithm_type"),
        (WAN, "FlowMatchEulerDiscreteScheduler", f"is not a scheduler of Wan 2.1 T2V ({M2}, UniPC"),
    ],
)
def test_a_flow_model_takes_what_it_can_and_is_told_the_nearest(family: Any, name: str, found: Any) -> None:
    scheduler, problem = scheduler_of(name, family, {})

    if isinstance(found, str):
        assert scheduler is None
        assert problem.startswith(found.replace("FLUX.1", family.title))
    else:
        assert (scheduler, problem) == (Scheduler(*found), "")


def _job(**model: Any) -> Job:
    entry = {"path": "builtin:tiny-random", "batch_size": 4, **model}
    return parse_job({"manifest": "m", "output": "o", "models": {"m": entry}, "seed": 11})


def _resolved(scheduler: str | None, job: Job | None = None, **row: Any) -> tuple[dict[str, Any] | None, list[str]]:
    job = job or _job()
    models = {name: describe(name, model, {}) for name, model in job.models.items()}
    columns: dict[str, list[Any]] = {
        "id": ["a"],
        "task": ["text-to-image"],
        "prompt": ["x"],
        "num_inference_steps": [8],
        "seed": [1],
    }
    columns |= {name: [value] for name, value in {"scheduler": scheduler, **row}.items()}
    rows, problems = Resolver(job, models, lambda _: None, lambda url: url).resolve(columns, 1, {})
    recipe = json.loads(rows.recipe[0]) if rows.recipe else None
    return recipe, [f"{problem.column} {problem.message}" for problem in problems]


def test_names_that_mean_one_thing_give_one_recipe() -> None:
    job = _job(schedulers={"mine": {"class": M2, "use_karras_sigmas": True}, "plain": {"class": M2}})
    karras = [_resolved(name, job)[0] for name in ("DPM++ 2M Karras", "dpmpp_2m_karras", "dpmpp_2m karras", "mine")]

    assert all(recipe == karras[0] for recipe in karras)
    assert karras[0] is not None
    assert (karras[0]["scheduler"], karras[0]["scheduler_options"]) == (M2, {"use_karras_sigmas": True})
    assert _resolved("DPM++ 2M", job)[0] == _resolved(M2, job)[0] == _resolved("plain", job)[0]
    assert "scheduler_options" not in (_resolved(M2, job)[0] or {})
    assert _resolved("", job)[0] == _resolved(None, job)[0]


@pytest.mark.parametrize(
    ("preset", "message"),
    [
        ({"class": "DPMSolverMultistep"}, "is a DPMSolverMultistep, which Stable Diffusion 1.x/2.x does not take; did"),
        ({"class": M2, "use_karas_sigmas": True}, "takes no use_karas_sigmas; did you mean use_karras_sigmas?"),
        ({"class": M2, "use_karras_sigmas": 1}, "takes no use_karras_sigmas = 1: it is neither true nor false"),
        ({"class": M2, "solver_order": 4}, "takes no solver_order = 4: it is not in 1..3"),
        ({"class": M2, "timestep_spacing": "trailling"}, "it is none of linspace, leading, trailing"),
        ({"class": M2, "use_karras_sigmas": True, "use_beta_sigmas": True}, "only one of them can be met"),
        ({"class": "LCMScheduler", "timestep_spacing": "trailing"}, "LCMScheduler takes no timestep_spacing"),
        ({"class": "FlowMatchEulerDiscreteScheduler", "shift": 3.0}, "does not take"),
    ],
)
def test_a_preset_that_cannot_be_met_is_refused_with_what_can(preset: dict[str, Any], message: str) -> None:
    job = _job(schedulers={"mine": preset})

    with pytest.raises(ModelError) as refused:
        describe("m", job.models["m"], {})

    assert message in str(refused.value)
    assert str(refused.value).startswith("models.m.schedulers.mine: ")


def test_a_preset_may_not_be_named_as_a_class_is() -> None:
    with pytest.raises(ModelError, match="choose another name"):
        describe("m", _job(schedulers={"DDIMScheduler": {"class": M2}}).models["m"], {})


def test_a_distilled_schedule_has_no_more_steps_than_it_is_taken_from() -> None:
    job = _job(schedulers={"lcm100": {"class": "LCMScheduler", "original_inference_steps": 100}})

    assert _resolved("LCM", job, num_inference_steps=60)[1] == [
        "num_inference_steps is over the 50 steps that LCMScheduler takes its own from; say 50 or fewer"
    ]
    assert _resolved("lcm100", job, num_inference_steps=60)[1] == []


def test_what_needs_a_package_that_is_not_here_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)

    assert _resolved("LMS")[1] == [
        "scheduler needs the Python package scipy, which is not installed: pip install 'sdbatch[samplers]'"
    ]
    assert _resolved("DPM++ 2M Beta")[1] == [
        "scheduler needs the Python package scipy, which is not installed: pip install 'sdbatch[samplers]'"
    ]
    assert _resolved("DPM++ 2M Karras")[1] == []


def test_a_recipe_of_a_stranger_holds_only_what_a_row_can_say() -> None:
    assert is_written("", {})
    assert is_written(M2, {"use_karras_sigmas": True})
    assert not is_written("DiffusionPipeline", {})
    assert not is_written(M2, {"trained_betas": [1.0]})


# --- compared with diffusers ----------------------------------------------------------------------------------------

TABLES = [(name, OPTIONS[name]) for name in OPTIONS] + [(name, FLOW_OPTIONS[name]) for name in FLOW_OPTIONS]
NOT_HERE = {name for name in OPTIONS if name in REQUIRES}


def _parameters(name: str) -> Mapping[str, inspect.Parameter]:
    import diffusers

    return inspect.signature(getattr(diffusers, name).__init__).parameters


@pytest.mark.parametrize(("name", "options"), [row for row in TABLES if row[0] not in NOT_HERE])
def test_an_option_is_an_argument_of_its_class_with_a_default_of_its_type(
    name: str, options: Mapping[str, Option]
) -> None:
    parameters = _parameters(name)

    assert options.keys() <= parameters.keys()
    for option, (kind, bound) in options.items():
        default = parameters[option].default
        assert default is None or isinstance(default, kind), option
        if isinstance(bound, tuple):
            assert default in bound, option
        elif isinstance(default, int | float) and not isinstance(default, bool):
            assert isinstance(bound, Range)
            assert default in bound or option == "shift_terminal", option


def _values(name: str, option: Option) -> list[Any]:
    if option.kind is bool:
        return [True] if name in EXCLUSIVE else [True, False]
    if isinstance(option.bound, tuple):
        return list(option.bound)
    assert isinstance(option.bound, Range)
    numbers = [0.0006] if option.bound.most == 0.1 else [0.5, 2.0]
    of_kind: dict[type, list[Any]] = {int: [0, 1], float: numbers, list: [[0, 1]]}
    return of_kind[option.kind]


def _tried(name: str, option: Option) -> list[Any]:
    if name == "original_inference_steps":
        return [20]  # not fewer than the steps that are made
    bound = option.bound if option.kind is not list else None
    return [value for value in _values(name, option) if not isinstance(bound, Range) or value in bound]


def _made(name: str, options: Mapping[str, Any]) -> Any:
    """Run six steps of a scheduler on what stands for a model, beside Stable Diffusion's own configuration."""
    import torch

    from sdbatch.generate.load.schedulers import scheduler_from
    from sdbatch.generate.random_weights import tiny_scheduler

    scheduler = scheduler_from(tiny_scheduler(), name, options)
    scheduler.set_timesteps(6)
    generator = torch.Generator().manual_seed(0)
    sample = torch.randn(1, 4, 4, 4, generator=generator) * scheduler.init_noise_sigma
    takes_generator = "generator" in inspect.signature(scheduler.step).parameters
    for timestep in scheduler.timesteps:
        given = scheduler.scale_model_input(sample, timestep)
        predicted = torch.tanh(0.7 * given) + 0.1 * torch.sin(3 * given)
        more = {"generator": generator} if takes_generator else {}
        sample = scheduler.step(predicted, timestep, sample, return_dict=False, **more)[0]
    return sample


@pytest.mark.parametrize(
    "name",
    long_but(
        OPTIONS.keys() - {"KDPM2DiscreteScheduler"},
        sorted(OPTIONS.keys() - NOT_HERE - {"CogVideoXDDIMScheduler", "CogVideoXDPMScheduler"}),
    ),
)
def test_every_value_of_an_option_gives_finite_numbers_and_most_move_them(name: str) -> None:
    import torch

    plain = _made(name, {})
    for option, described in OPTIONS[name].items():
        if option in REQUIRES or (option == "steps_offset" and name == "PNDMScheduler"):
            continue
        base: dict[str, Any] = {}
        if option in {"dynamic_thresholding_ratio", "sample_max_value"}:
            base = {"thresholding": True}
        elif option == "clip_sample_range":
            base = {"clip_sample": True}
        elif option in {"sigma_min", "sigma_max"}:
            base = {"use_karras_sigmas": True}
        elif option == "steps_offset":
            base = {"timestep_spacing": "leading"}
        made = [_made(name, {**base, option: value}) for value in _tried(option, described)]
        against = _made(name, base) if base else plain

        assert all(torch.isfinite(one).all() for one in made), option
        if option in {"dynamic_thresholding_ratio", "euler_at_final", "lower_order_final", "final_sigmas_type"}:
            continue  # they show in few steps, at the end of an order of 3, or where values are large
        assert any(not torch.equal(one, against) for one in made), option


@pytest.mark.parametrize(("own", "laid_over"), [(EXCLUSIVE[0], EXCLUSIVE[1]), (EXCLUSIVE[1], EXCLUSIVE[0])])
def test_noise_levels_take_the_place_of_the_folder_s_own(own: str, laid_over: str) -> None:
    from diffusers import DPMSolverMultistepScheduler

    from sdbatch.generate.load.schedulers import scheduler_from

    scheduler = scheduler_from(DPMSolverMultistepScheduler(**{own: True}), M2, {laid_over: True})

    assert (scheduler.config[own], scheduler.config[laid_over]) == (False, True)


def test_a_stated_shift_is_not_passed_over_for_one_that_follows_from_the_size() -> None:
    import numpy as np
    from diffusers import FlowMatchEulerDiscreteScheduler

    from sdbatch.generate.load.schedulers import scheduler_from

    own = FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True)
    sigmas = []
    for shift in (1.0, 3.0):
        scheduler = scheduler_from(own, "FlowMatchEulerDiscreteScheduler", {"shift": shift})
        scheduler.set_timesteps(sigmas=np.linspace(1.0, 0.25, 4), mu=0.5)
        sigmas.append(scheduler.sigmas.tolist())

    assert sigmas[0] == pytest.approx([1.0, 0.75, 0.5, 0.25, 0.0])
    assert sigmas[1] == pytest.approx([1.0, 0.9, 0.75, 0.5, 0.0])


def test_every_sampler_and_every_class_is_of_use_to_some_family() -> None:
    classes = {name for family in FAMILIES.values() for name in family.schedulers}

    assert {cls for alternatives in SAMPLERS.values() for cls, _ in alternatives} <= classes
    assert classes == OPTIONS.keys() | FLOW_OPTIONS.keys()
    assert all(scheduler_of(f"Euler {kind}", SD, {})[0] for kind in TYPES)


def test_schedulers_of_noise_levels_of_their_own_are_those_without_betas() -> None:
    for names, have_betas in ((OF_OWN_NOISE, False), (set(EPSILON_SCHEDULERS) - NOT_HERE, True)):
        assert {"beta_start" in _parameters(name) for name in names} == {have_betas}
