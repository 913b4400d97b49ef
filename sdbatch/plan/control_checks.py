"""Validates how many control and reference pictures a row gives, and what it says of each.

given + route + model's entry --> RowProblem, each with what the model reads

Pure, as `sdbatch.plan.checks`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from sdbatch.checkpoints import ModelInfo
from sdbatch.families import Given, Route
from sdbatch.plan.problems import RowProblem

MODES = "control_mode"
"""Parameter with a number for each control picture."""

MODES_MAX = 32
"""Over the kinds that any published ControlNet tells apart."""

CONTROLS_MAX = 8
"""Most control pictures of a row."""

REFERENCES_MAX = 16
"""Most reference pictures of a row; their tokens are read beside the prompt's in every step."""


def check_counts(route: Route, given: Given, model: ModelInfo, scale: float | None) -> list[RowProblem]:
    """Check the numbers of control and reference pictures, which the model's entry decides, and the row's own scale."""
    problems = []
    if "control_image" in route.sources and (message := _controls_problem(route, given.num_controls, model)):
        problems.append(RowProblem("control_image", None, message))
    if given.num_references > REFERENCES_MAX:
        problems.append(
            RowProblem("ip_adapter_images", None, f"has {given.num_references} pictures, over {REFERENCES_MAX}")
        )
    if scale is not None and route.optional and not given.num_references:
        problems.append(RowProblem("ip_adapter_scale", scale, "would be ignored: the row has no ip_adapter_images"))
    return problems


def _controls_problem(route: Route, num_controls: int, model: ModelInfo) -> str:
    """Return what is wrong with a number of control pictures, "" for nothing."""
    nets = len(model.named("controlnet")) or 1
    if route.nets != "each" and nets > 1:
        return f"is read by one ControlNet in {route.pipeline}; models.{model.name} names {nets}"
    if route.nets == "union":
        return f"has {num_controls} pictures, over {CONTROLS_MAX}" if num_controls > CONTROLS_MAX else ""
    if num_controls == nets:
        return ""
    readers = "one ControlNet, which reads one" if nets == 1 else f"{nets} ControlNets, which read one each, in order"
    return f"has {num_controls} picture(s); models.{model.name} names {readers}"


def check_modes(route: Route, given: Given, parameters: Mapping[str, Any], text: str | None) -> list[RowProblem]:
    """Check that a ControlNet of many kinds is told the kind of each control picture."""
    if route.nets != "union" or MODES not in route.parameters:
        return []
    modes = parameters.get(MODES, [])
    if len(modes) == given.num_controls and all(0 <= mode < MODES_MAX for mode in modes):
        return []
    example = json.dumps({MODES: [0, 3, 1, 2, 4, 5][: max(given.num_controls, 1)]})
    message = (
        f"needs {MODES}, the kind of each of the {given.num_controls} control picture(s) as the ControlNet numbers "
        f"them (0 to {MODES_MAX - 1}), such as {example}"
    )
    return [RowProblem("parameters", text, message)]
