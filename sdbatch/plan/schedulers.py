"""Settles the scheduler of a row: a class and its options, whatever name it was asked by.

scheduler + model entry's presets + family --> settled_scheduler() --> scheduler, scheduler_options; RowProblems
"""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping
from typing import Any

from sdbatch.checkpoints import ModelInfo
from sdbatch.families import Route
from sdbatch.families.samplers import scheduler_of
from sdbatch.families.scheduler_options import REQUIRES, STEPS_ORIGINAL
from sdbatch.families.schedulers import CALLED_ALONE, FLOW_SCHEDULERS, OF_OWN_NOISE, SAY_NO_SHIFT, SCALE_NOISE
from sdbatch.plan.problems import RowProblem

_REMEDY = "pip install 'sdbatch[samplers]'"


def settled_scheduler(values: dict[str, Any], model: ModelInfo, *, loads_here: bool = True) -> list[RowProblem]:
    """Put class and options in the place of the name in some values, and return the problems of the name.

    Args:
        values: Settled values by column; without a scheduler they stay as they are.
        model: Description of the model.
        loads_here: Whether this machine's Python packages are those that load the models.
    """
    name = values.get("scheduler")
    if name is None:
        return []
    found, problem = scheduler_of(name, model.family, model.options.schedulers)
    if found is None:
        return [RowProblem("scheduler", name, problem)]
    if model.scheduler in OF_OWN_NOISE or (model.has_own_noise and found.class_name != model.scheduler):
        message = f'is for other noise levels than {model.name} was trained for; say "" for its own, {model.scheduler}'
        return [RowProblem("scheduler", name, message)]
    values["scheduler"] = found.class_name
    if found.options:
        values["scheduler_options"] = dict(found.options)
    on = [option for option, value in found.options.items() if value is True]
    packages = {REQUIRES[one] for one in (found.class_name, *on) if one in REQUIRES} if loads_here else set()
    problems = [
        RowProblem("scheduler", name, f"needs the Python package {package}, which is not installed: {_REMEDY}")
        for package in sorted(packages)
        if importlib.util.find_spec(package) is None
    ]
    steps_max = STEPS_ORIGINAL.get(found.class_name)
    steps = values.get("num_inference_steps")
    if steps_max is not None and steps is not None:
        steps_max = found.options.get("original_inference_steps", steps_max)
        if steps > steps_max:
            message = (
                f"is over the {steps_max} steps that {found.class_name} takes its own from; say {steps_max} or fewer"
            )
            problems.append(RowProblem("num_inference_steps", steps, message))
    return problems


def check_own(
    values: Mapping[str, Any], route: Route, model: ModelInfo, *, loads_here: bool = True
) -> list[RowProblem]:
    """Check that the model's own scheduler can be read, and called where the row names no other.

    Args:
        values: Settled values by column, the scheduler's class among them.
        route: The route.
        model: Description of the model.
        loads_here: Whether this machine's Python packages are those that load the models.
    """
    own = model.scheduler
    lacking = [name for name in model.scheduler_requires if loads_here and importlib.util.find_spec(name) is None]
    if lacking:
        remedy = _REMEDY if lacking == ["scipy"] else f"pip install {' '.join(lacking)}"
        message = f"is not read: {model.name}'s own, {own}, needs {' and '.join(lacking)}, not installed here: {remedy}"
        return [RowProblem("scheduler", values.get("scheduler"), message)]
    if values.get("scheduler") or not own:
        return []
    message = ""
    if own not in CALLED_ALONE.get(route.pipeline, (own,)):
        asked = model.family.schedulers[0]
        message = f"cannot be called by {route.pipeline}: that is {model.name}'s own, {own}; say {asked}"
    elif route.pipeline in SCALE_NOISE and not own.startswith("FlowMatch"):
        message = (
            f"cannot begin from a picture: {route.pipeline} calls scale_noise, which {model.name}'s own, {own}, does "
            f"not have; say {FLOW_SCHEDULERS[0]}"
        )
    return [RowProblem("scheduler", values.get("scheduler"), message)] if message else []


def check_shift(values: Mapping[str, Any], route: Route, model: ModelInfo) -> list[RowProblem]:
    """Check that a scheduler is told how far noise levels are shifted, where it waits for that.

    Args:
        values: Settled values by column, the scheduler's class and options among them.
        route: The route.
        model: Description of the model.
    """
    is_told = route.pipeline not in SAY_NO_SHIFT or "shift" in values.get("scheduler_options", {})
    if not model.shifts_by_size or is_told or values.get("scheduler") == "DPMSolverMultistepScheduler":
        return []
    flow = FLOW_SCHEDULERS[0]
    preset = f"models.{model.name}.schedulers: {{NAME: {{class: {flow}, shift: 1.0}}}}"
    remedy = f"name a preset with a shift ({preset})" if flow in model.family.schedulers else "lay another one over it"
    message = (
        f"waits to be told how far noise levels are shifted (the model's own says use_dynamic_shifting), which "
        f"{route.pipeline} does not tell it; {remedy}"
    )
    return [RowProblem("scheduler", values.get("scheduler"), message)]
