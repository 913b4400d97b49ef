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
from sdbatch.families.arguments import NO_MODE
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
    if "control_image" in route.sources and (
        message := _controls_problem(route, given.num_controls, model) or _mask_problem(route, model)
    ):
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


def _mask_problem(route: Route, model: ModelInfo) -> str:
    """Return that a ControlNet reads a mask that is not there, or has no channel for one; "" for neither."""
    for name, config in model.net_configs.items():
        net = f"models.{model.name}.{name}"
        reads_mask = any(config.get(key) for key in _MASK_CHANNELS)
        if reads_mask and not route.net_reads_mask:
            return f"is read by {net} beside a mask alone; it serves inpainting, with a mask and no images"
        if route.net_reads_mask and not reads_mask:
            return (
                f"and a mask without images want a ControlNet that reads a mask ({' or '.join(_MASK_CHANNELS)} in its "
                f"config.json), and {net} reads none; give the picture in images, or name such a ControlNet"
            )
    return ""


_MASK_CHANNELS = ("extra_conditioning_channels", "extra_condition_channels")
"""Keys of a ControlNet's config.json for the channels that it reads beside a picture's: of SD3's, of Qwen-Image's."""


def check_modes(
    route: Route, given: Given, model: ModelInfo, parameters: Mapping[str, Any], text: str | None
) -> list[RowProblem]:
    """Check that a ControlNet of many kinds is told the kind of each control picture, and that it knows that kind."""
    if MODES not in route.parameters or "control_image" not in route.sources:
        return []
    message = (_union_problem if route.nets == "union" else _modes_problem)(given, model, parameters.get(MODES))
    return [RowProblem("parameters", text, message)] if message else []


def _union_problem(given: Given, model: ModelInfo, modes: list[int] | None) -> str:
    """Return what is wrong with the kinds that one ControlNet is told of several pictures, "" for nothing."""
    stated = [_number(config, "num_control_type") or _KINDS_OF_UNION for config in model.net_configs.values()]
    kinds = min([MODES_MAX, *stated])
    if modes and len(modes) == given.num_controls and all(0 <= mode < MODES_MAX for mode in modes):
        unknown = [mode for mode in modes if mode >= kinds]
        return f"holds {MODES} {unknown[0]}; {_knows(model, 'controlnet', kinds)}" if unknown else ""
    example = json.dumps({MODES: [0, 3, 1, 2, 4, 5][: max(given.num_controls, 1)]})
    return (
        f"needs {MODES}, the kind of each of the {given.num_controls} control picture(s) as the ControlNet numbers "
        f"them (0 to {kinds - 1}), such as {example}"
    )


def _modes_problem(given: Given, model: ModelInfo, modes: int | list[int] | None) -> str:
    """Return what is wrong with the kind that each ControlNet is told of its own picture, "" for nothing."""
    of_each = modes if isinstance(modes, list) else [NO_MODE if modes is None else modes] * given.num_controls
    for (name, config), mode in zip(model.net_configs.items(), of_each, strict=False):
        kinds = _number(config, "num_mode")
        if kinds is None and mode != NO_MODE:
            return f"holds {MODES} {mode}, which models.{model.name}.{name} would ignore: it has one kind; leave it out"
        if kinds is not None and not 0 <= mode < kinds:
            asked = f"holds {MODES} {mode}" if modes is not None else f"needs {MODES}"
            return f"{asked}; {_knows(model, name, kinds)}"
    return ""


def _number(config: Mapping[str, Any], key: str) -> int | None:
    """Return a whole number of a configuration, None where none stands there."""
    value = config.get(key)
    return value if isinstance(value, int) else None


def _knows(model: ModelInfo, name: str, kinds: int) -> str:
    return f"models.{model.name}.{name} knows the kinds 0 to {kinds - 1} (its config.json)"


_KINDS_OF_UNION = 6
"""Kinds that diffusers' class of SDXL's has where its config.json does not say (0.42.1)."""
