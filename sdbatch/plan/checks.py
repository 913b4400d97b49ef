"""What a row's values are held against, before any model loads.

    values + family row + model --> (column, value, what is wrong), each with its bound

Pure: no torch, no storage. Every message can stand after the value in a line for people.
"""

from __future__ import annotations

import difflib
import importlib.util
import itertools
import json
import math
from collections.abc import Iterable, Mapping
from typing import Any

from sdbatch.checkpoints import LoraInfo, ModelInfo
from sdbatch.families import (
    Family,
    Given,
    Route,
    nearest_multiple,
    next_frame_count,
)
from sdbatch.recipe import SOURCE_ROLES

STEPS_MAX = 1000
GUIDANCE_MAX = 1000.0
FPS_MAX = 240.0
LORAS_MAX = 16
LORA_WEIGHT_MAX = 10.0

Wrong = tuple[str, Any, str]
"""Column, value, message."""


def check_values(values: Mapping[str, Any]) -> list[Wrong]:
    """Check what can be told without a model."""
    wrong: list[Wrong] = []
    steps = values.get("num_inference_steps")
    if steps is not None and not 1 <= steps <= STEPS_MAX:
        wrong.append(("num_inference_steps", steps, f"is not in 1..{STEPS_MAX}"))
    guidance = values.get("guidance_scale")
    if guidance is not None and not 0 <= guidance <= GUIDANCE_MAX:  # NaN is not in the range either
        wrong.append(("guidance_scale", guidance, f"is not in 0..{GUIDANCE_MAX:g}"))
    fps = values.get("fps")
    if fps is not None and not 0 < fps <= FPS_MAX:
        wrong.append(("fps", fps, f"is not over 0 and at most {FPS_MAX:g}"))
    duration_s = values.get("duration_s")
    if duration_s is not None and not (math.isfinite(duration_s) and duration_s > 0):
        wrong.append(("duration_s", duration_s, "is not over 0 seconds"))
    if values.get("fit", "cover") not in {"cover", "contain"}:
        wrong.append(("fit", values["fit"], "is neither cover nor contain"))
    if "strength" in values:
        wrong.extend(_check_strength(values["strength"], steps or STEPS_MAX))
    return wrong


def _check_strength(strength: float, steps: int) -> list[Wrong]:
    if not (math.isfinite(strength) and 0 < strength <= 1):
        return [("strength", strength, "is not over 0 and at most 1")]
    if steps >= 1 and int(steps * strength) < 1:
        return [("strength", strength, f"leaves no step of {steps}; at least {math.ceil(1e4 / steps) / 1e4} is needed")]
    return []


def check_family(values: Mapping[str, Any], family: Family) -> list[Wrong]:
    """Check what a family bounds: sizes, frame counts and schedulers."""
    wrong: list[Wrong] = []
    for name in ("height", "width"):
        value = values[name]
        nearest = nearest_multiple(value, family.size_multiple, family.size_min, family.size_max)
        if value % family.size_multiple:
            wrong.append((name, value, f"is not a multiple of {family.size_multiple}; the nearest is {nearest}"))
        elif not family.size_min <= value <= family.size_max:
            wrong.append((name, value, f"is not in {family.size_min}..{family.size_max}"))
    if "num_frames" in values:
        wrong.extend(_check_frames(values["num_frames"], family))
    if "scheduler" in values and values["scheduler"] not in family.schedulers:
        hint = near(values["scheduler"], family.schedulers)
        wrong.append(("scheduler", values["scheduler"], f"is no scheduler of {family.title}{hint}"))
    return wrong


def _check_frames(num_frames: int, family: Family) -> list[Wrong]:
    if not 1 <= num_frames <= family.frames_max:
        return [("num_frames", num_frames, f"is not in 1..{family.frames_max}")]
    multiple = family.frame_multiple
    nearest = nearest_multiple(num_frames - 1, multiple, 0, family.frames_max - 1) + 1
    if nearest != num_frames:
        return [("num_frames", num_frames, f"is not of the form {multiple} k + 1; the nearest is {nearest}")]
    return []


def nearest_route(rows: Iterable[Route], given: Given) -> tuple[Route, list[tuple[str, str]]]:
    """Return the way that a task's sources fit best, and what is wrong with them: (column, message) each."""
    tried = [(row, _misfits(row, given)) for row in rows]
    return min(tried, key=lambda item: (len(item[1]), _images_off(item[0], given)))


def _images_off(row: Route, given: Given) -> int:
    least, most = row.images
    return max(least - given.num_images, given.num_images - most, 0)


def _misfits(row: Route, given: Given) -> list[tuple[str, str]]:
    wrong = []
    least, most = row.images
    if not least <= given.num_images <= most:
        bound = f"{least}" if least == most else f"{least} to {most}"
        wrong.append(("images", f"has {given.num_images} source(s); the task takes {bound}"))
    for role in SOURCE_ROLES[1:]:
        if role in given.others - row.sources:
            wrong.append((role, "is a source the task would ignore"))
        elif role in row.sources - given.others:
            wrong.append((role, "is missing; the task needs one"))
    if given.keyframes and not row.keyframes:
        wrong.append(("keyframes", "would be ignored: the task takes no key frames"))
    return wrong


def check_route(route: Route, task: str, model: ModelInfo, values: Mapping[str, Any]) -> list[Wrong]:
    """Check that what a way needs is there (folders the job names, Python packages), and that its source is read."""
    wrong: list[Wrong] = [("task", task, message) for message in lacking(route, model)]
    steps, strength = values.get("num_inference_steps", 0), values.get("strength", 0.0)
    # As the pipelines themselves round: diffusers 0.42.1, get_timesteps of the flow models.
    if route.full_strength_ignores_source and 0 < strength <= 1 and int(steps - steps * strength) < 1:
        bound = f"at most {math.floor(1e4 * (steps - 1) / steps) / 1e4} reads it" if steps > 1 else "2 steps are needed"
        wrong.append(("strength", strength, f"leaves nothing of the source in {steps} step(s); {bound}"))
    return wrong


def lacking(route: Route, model: ModelInfo) -> list[str]:
    """Return what a way needs and does not find, said for people: folders of the model's entry, Python packages."""
    reasons = []
    for option, class_name in route.components.items():
        found = model.components.get(option)
        if found != class_name:
            has = "has none" if found is None else f"is a {found}"
            reasons.append(f"needs models.{model.name}.{option} to be a {class_name}; it {has}")
    for package in route.requires:
        if importlib.util.find_spec(package) is None:
            reasons.append(f"needs the Python package {package}, which is not installed")
    return reasons


def settled_keyframes(
    keyframes: tuple[int, ...] | None, num_images: int, num_frames: int, row: Route, multiple: int
) -> tuple[list[int], list[Wrong]]:
    """Return the frame of each image, spread evenly from first to last when the row does not say, and what is wrong.

    Args:
        keyframes: As the row has them; None for spread.
        num_images: How many images there are, at least 1.
        num_frames: Of the clip.
        row: The way, which takes key frames.
        multiple: Of the family's frame rule; chained segments keep to it.
    """
    unit = multiple if row.keyframes == "chained" else 1
    last = num_frames - 1
    frames = list(keyframes) if keyframes else _spread(num_images, last // unit, unit)
    shown = list(keyframes) if keyframes else None

    def wrong(message: str) -> tuple[list[int], list[Wrong]]:
        return frames, [("keyframes", shown, message)]

    if len(frames) != num_images:
        return wrong(f"has {len(frames)} frame(s) for {num_images} image(s)")
    for frame in frames:
        if not 0 <= frame <= last:
            return wrong(f"holds {frame}, which is not in 0..{last}")
    if any(one >= two for one, two in itertools.pairwise(frames)):
        return wrong(
            "is not ascending" if keyframes else f"cannot stand apart: {num_images} images in {num_frames} frames"
        )
    if row.keyframes == "chained":
        ends = [0] if num_images == 1 else [0, last]
        if [frames[0], frames[-1]][:num_images] != ends:
            return wrong(f"does not begin at 0 and end at {last}, as this model needs")
    for frame in frames:
        if frame % unit:
            nearest = nearest_multiple(frame, unit, 0, last)
            return wrong(f"holds {frame}, which is not a multiple of {unit}; the nearest is {nearest}")
    return frames, []


def _spread(count: int, last: int, unit: int) -> list[int]:
    return [0] if count == 1 else [round(index * last / (count - 1)) * unit for index in range(count)]


def settled_frames(values: dict[str, Any], family: Family) -> None:
    """Turn `duration_s` into the next count the family makes, and the count that is kept of it where they differ."""
    duration_s = values.pop("duration_s", None)
    if duration_s is None:
        return
    kept = max(1, round(duration_s * values["fps"]))
    values["num_frames"] = next_frame_count(kept, family.frame_multiple)
    if values["num_frames"] != kept:
        values["num_frames_kept"] = kept


def settled_parameters(text: str | None, row: Route, task: str) -> tuple[dict[str, Any], list[Wrong]]:
    """Return the further arguments a row asks for, and what is wrong with them."""

    def wrong(message: str) -> tuple[dict[str, Any], list[Wrong]]:
        return {}, [("parameters", text, message)]

    if not text:
        return {}, []
    try:
        given = json.loads(text)
    except (ValueError, RecursionError) as error:
        return wrong(f"is not JSON: {error}")
    if not isinstance(given, dict):
        return wrong("is not a JSON object")
    taken = {*row.arguments, *row.arguments.values()} - {""}
    for name, value in given.items():
        kind = row.parameters.get(name)
        if kind is None and name in taken:
            return wrong(f"holds {name}, which is settled by columns of the manifest")
        if kind is None:
            return wrong(f"holds {name}, which {task} of this model does not take{near(name, row.parameters)}")
        if not _is_a(value, kind):
            return wrong(f"holds {name} = {value!r}, which is no {kind.__name__}")
        given[name] = kind(value)
    return given, []


def _is_a(value: Any, kind: type) -> bool:
    if kind is float:
        return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    return type(value) is kind


def settled_loras(
    wanted: tuple[tuple[str, float], ...], known: Mapping[str, LoraInfo], family: Family
) -> tuple[list[list[Any]], list[Wrong]]:
    """Return (revision, weight) of each LoRA, sorted so that their order does not matter, and what is wrong."""
    wrong: list[Wrong] = []
    names = [name for name, _ in wanted]
    if len(names) > LORAS_MAX:
        return [], [("loras", names, f"holds {len(names)}, over {LORAS_MAX}")]
    for name, weight in wanted:
        lora = known.get(name)
        if lora is None:
            wrong.append(("loras", name, f"is not in the job's loras{near(name, known)}"))
        elif not lora.fits(family):
            wrong.append(("loras", name, f"was made for {lora.base}, not for {family.title}"))
        elif names.count(name) > 1:
            wrong.append(("loras", name, "stands twice"))
        elif not (weight is not None and abs(weight) <= LORA_WEIGHT_MAX):  # NaN is not in the range either
            wrong.append(
                ("loras", f"{name} {weight}", f"has a weight not in {-LORA_WEIGHT_MAX:g}..{LORA_WEIGHT_MAX:g}")
            )
    if not wrong and importlib.util.find_spec("peft") is None:
        wrong.append(("loras", names, "need the Python package peft, which is not installed"))
    return [] if wrong else sorted([known[name].revision, float(weight)] for name, weight in wanted), wrong


def near(name: Any, known: Iterable[str]) -> str:
    """Return a hint: the known name that is nearest, else all of them."""
    names = list(known)
    found = difflib.get_close_matches(str(name), names, n=1)
    return f"; did you mean {found[0]}?" if found else f" ({', '.join(names) or 'there are none'})"
