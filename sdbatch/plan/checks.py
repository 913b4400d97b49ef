"""Validates row values against the columns' bounds, the model and the family, before any model loads.

    values + route + model --> RowProblem, each with its bound

Pure: no torch, no storage. A message follows column and value in a line for people.
"""

from __future__ import annotations

import importlib.util
import itertools
import math
from collections.abc import Iterable, Mapping
from typing import Any

from sdbatch.canonical import parse_json
from sdbatch.checkpoints import LoraInfo, ModelInfo, missing_package
from sdbatch.columns import MANIFEST, named
from sdbatch.families import Family, Given, Route, nearest_multiple, nearest_size, next_frame_count
from sdbatch.families.arguments import PARAMETER_BOUND, PARAMETER_BOUNDS, PER_NET
from sdbatch.hints import near
from sdbatch.job import ENTRY_COMPONENTS
from sdbatch.plan.problems import RowProblem
from sdbatch.plan.sources import OTHER_ROLES

_NOTHING = Given()
LORAS_MAX = 16
LORA_WEIGHT_MAX = 10.0
FRAMES_MAX = 10**9
"""Over what any family makes; seconds times frames a second can be more than a number holds."""
PIXELS_MAX = 1 << 24
"""Most pixels of one picture or frame, such as 4096 x 4096; a guard against typing errors."""

CLIP_PIXELS_MAX = 1 << 30
"""Most pixels of all frames of one clip, which are 12 GiB in floats; such as 1024 frames of 1024 x 1024."""

VALUE_CHARACTERS_MAX = 40
STEPS_MAX = 1000
"""Steps that a strength is held against where a row does not say how many."""
_CHECKED = [MANIFEST[name] for name in named("argument") if not MANIFEST[name].family_bounds]


def check_values(values: Mapping[str, Any]) -> list[RowProblem]:
    """Check what can be told without a model: the bounds that the table of columns has."""
    problems = [
        RowProblem(column.name, values[column.name], message)
        for column in _CHECKED
        if column.name in values and (message := column.problem(values[column.name]))
    ]
    if "strength" in values and not any(problem.column == "strength" for problem in problems):
        problems.extend(_check_strength(values["strength"], values.get("num_inference_steps") or STEPS_MAX))
    return problems


def _check_strength(strength: float, steps: int) -> list[RowProblem]:
    if steps >= 1 and int(steps * strength) < 1:
        bound = math.ceil(1e4 / steps) / 1e4
        return [RowProblem("strength", strength, f"leaves no step of {steps}; at least {bound} is needed")]
    return []


def check_family(values: Mapping[str, Any], family: Family) -> list[RowProblem]:
    """Check what a family bounds: sizes and frame counts."""
    problems: list[RowProblem] = []
    for name in ("height", "width"):
        if name not in values or family.sizes:
            continue
        value = values[name]
        nearest = nearest_multiple(value, family.size_multiple, family.size_min, family.size_max)
        if value % family.size_multiple:
            message = f"is not a multiple of {family.size_multiple}; the nearest is {nearest}"
            problems.append(RowProblem(name, value, message))
        elif not family.size_min <= value <= family.size_max:
            problems.append(RowProblem(name, value, f"is not in {family.size_min}..{family.size_max}"))
    if family.sizes and values.keys() >= {"height", "width"}:
        problems.extend(_check_size(values["height"], values["width"], family))
    if "num_frames" in values:
        problems.extend(_check_frames(values["num_frames"], family))
    if not problems and values.keys() >= {"height", "width"}:
        problems.extend(_check_pixels(values["height"], values["width"], values.get("num_frames", 1), family))
    return problems


def _check_size(height: int, width: int, family: Family) -> list[RowProblem]:
    """Check that a size is one of the few that a family makes, where they are few."""
    if (height, width) in family.sizes:
        return []
    made = ", ".join(f"{one} x {other}" for one, other in family.sizes)
    message = f"x width {width} is no size that {family.title} makes ({made})"
    if height > 0 and width > 0:
        nearest = nearest_size(height, width, family.sizes)
        message += f"; the nearest in shape is {nearest[0]} x {nearest[1]}"
    return [RowProblem("height", height, message)]


def _check_pixels(height: int, width: int, num_frames: int, family: Family) -> list[RowProblem]:
    """Check that one output fits a machine: each side and the frames may be within bounds, and their product not."""
    pixels_max = family.pixels_max or PIXELS_MAX
    if height * width > pixels_max:
        of_family = f", the most that {family.title} makes" if family.pixels_max else ""
        message = f"x width {width} = {height * width} pixels are over {pixels_max}{of_family}"
        return [RowProblem("height", height, message)]
    if num_frames * height * width > CLIP_PIXELS_MAX:
        most = CLIP_PIXELS_MAX // (height * width)
        message = f"of {height} x {width} pixels are over {CLIP_PIXELS_MAX} pixels in all; at most {most} frames fit"
        return [RowProblem("num_frames", num_frames, message)]
    return []


def _check_frames(num_frames: int, family: Family) -> list[RowProblem]:
    if not family.frames_min <= num_frames <= family.frames_max:
        return [RowProblem("num_frames", num_frames, f"is not in {family.frames_min}..{family.frames_max}")]
    multiple = family.frame_multiple
    nearest = nearest_multiple(num_frames - 1, multiple, family.frames_min - 1, family.frames_max - 1) + 1
    if nearest != num_frames:
        message = f"is not of the form {multiple} k + 1; the nearest is {nearest}"
        return [RowProblem("num_frames", num_frames, message)]
    return []


def nearest_route(
    routes: Iterable[Route], given: Given, model: ModelInfo | None = None
) -> tuple[Route, list[RowProblem]]:
    """Return the route that a request's sources fit best, and the problems of the sources that do not fit it.

    Of routes that take the same sources, the one whose components the model's entry names goes first.
    """
    tried = [(route, _source_problems(route, given)) for route in routes]

    def misfit(item: tuple[Route, list[RowProblem]]) -> tuple[int, int, int]:
        route, problems = item
        lacks = 0 if model is None else len(_lacking_components(route, model, given))
        return len(problems), _images_off(route, given), lacks

    return min(tried, key=misfit)


def _images_off(route: Route, given: Given) -> int:
    least, most = route.images
    return max(least - given.num_images, given.num_images - most, 0)


def _source_problems(route: Route, given: Given) -> list[RowProblem]:
    problems = []
    least, most = route.images
    if not least <= given.num_images <= most:
        bound = f"{least}" if least == most else f"{least} to {most}"
        problems.append(RowProblem("images", None, f"has {given.num_images} source(s); the task takes {bound}"))
    for role in OTHER_ROLES:
        if role in given.others - route.sources - route.optional:
            problems.append(RowProblem(role, None, "is a source the task would ignore"))
        elif role in route.sources - given.others:
            problems.append(RowProblem(role, None, "is missing; the task needs one"))
    if given.keyframes and not route.keyframes:
        problems.append(RowProblem("keyframes", None, "would be ignored: the task takes no key frames"))
    return problems


def check_route(
    route: Route,
    task: str,
    model: ModelInfo,
    values: Mapping[str, Any],
    given: Given = _NOTHING,
    *,
    loads_here: bool = True,
) -> list[RowProblem]:
    """Check that what a route needs is there (see `lacking`), and that it reads its source."""
    problems = [RowProblem("task", task, message) for message in lacking(route, model, given, loads_here=loads_here)]
    steps, strength = values.get("num_inference_steps", 0), values.get("strength", 0.0)
    # As the pipelines themselves round: diffusers 0.42.1, get_timesteps of the flow models.
    if route.full_strength_ignores_source and 0 < strength <= 1 and int(steps - steps * strength) < 1:
        bound = f"at most {math.floor(1e4 * (steps - 1) / steps) / 1e4} reads it" if steps > 1 else "2 steps are needed"
        problems.append(RowProblem("strength", strength, f"leaves nothing of the source in {steps} step(s); {bound}"))
    return problems


def lacking(route: Route, model: ModelInfo, given: Given = _NOTHING, *, loads_here: bool = True) -> list[str]:
    """Return, in words, what a route needs and does not have.

    Args:
        route: The route.
        model: Description of its model, whose entry names further folders.
        given: What a request gives; optional sources need components of their own.
        loads_here: Whether this machine's Python packages are those that load it.
    """
    reasons = _lacking_components(route, model, given)
    if unserved := model.unserved.get(route.name):
        reasons.append(f"needs a model without {unserved}")
    for package in route.requires if loads_here else ():
        if importlib.util.find_spec(package) is None:
            reasons.append(f"needs the Python package {package}, which is not installed")
    for module, backend in model.quantized_by.items() if loads_here else ():
        if package := missing_package(backend):
            reasons.append(f"needs, for the quantised {module}, {package}")
    return reasons


def _lacking_components(route: Route, model: ModelInfo, given: Given) -> list[str]:
    reasons = []
    for option, class_name in route.components_for(given).items():
        place = f"models.{model.name}.{option if option in ENTRY_COMPONENTS else f'components.{option}'}"
        names = model.named(option)
        wrong = [name for name in names if model.components[name] != class_name]
        if wrong:
            numbered = "" if len(names) == 1 else f" {names.index(wrong[0]) + 1}"
            reasons.append(f"needs {place}{numbered} to be a {class_name}; it is a {model.components[wrong[0]]}")
        elif not names:
            reasons.append(f"needs {place} to be a {class_name}; it has none")
    return reasons


def settled_keyframes(
    keyframes: tuple[int, ...] | None, num_images: int, num_frames: int, route: Route, multiple: int
) -> tuple[list[int], list[RowProblem]]:
    """Return the frame of each image, spread evenly from first to last when the row does not say, and the problems.

    Args:
        keyframes: As the row has them; None for spread.
        num_images: How many images there are, at least 1.
        num_frames: Frames of the clip.
        route: The route, which takes key frames.
        multiple: The family's frame rule; chained segments keep to it.
    """
    unit = multiple if route.keyframes == "chained" else 1
    last = num_frames - 1
    frames = list(keyframes) if keyframes else _spread(num_images, last // unit, unit)
    shown = list(keyframes) if keyframes else None

    def refused(message: str) -> tuple[list[int], list[RowProblem]]:
        return frames, [RowProblem("keyframes", shown, message)]

    if len(frames) != num_images:
        return refused(f"has {len(frames)} frame(s) for {num_images} image(s)")
    for frame in frames:
        if not 0 <= frame <= last:
            return refused(f"holds {frame}, which is not in 0..{last}")
    if any(one >= two for one, two in itertools.pairwise(frames)):
        return refused(
            "is not ascending" if keyframes else f"cannot stand apart: {num_images} images in {num_frames} frames"
        )
    if route.keyframes == "chained":
        ends = [0] if num_images == 1 else [0, last]
        if [frames[0], frames[-1]][:num_images] != ends:
            return refused(f"does not begin at 0 and end at {last}, as this model needs")
    for frame in frames:
        if frame % unit:
            nearest = nearest_multiple(frame, unit, 0, last)
            return refused(f"holds {frame}, which is not a multiple of {unit}; the nearest is {nearest}")
    return frames, []


def _spread(count: int, last: int, unit: int) -> list[int]:
    return [0] if count == 1 else [round(index * last / (count - 1)) * unit for index in range(count)]


def settled_frames(values: dict[str, Any], family: Family) -> None:
    """Turn `duration_s` into the next count the family makes, and the count that is kept of it where they differ."""
    duration_s = values.pop("duration_s", None)
    if duration_s is None:
        return
    kept = max(1, round(min(duration_s * values["fps"], FRAMES_MAX)))
    values["num_frames"] = max(next_frame_count(kept, family.frame_multiple), family.frames_min)
    if values["num_frames"] != kept:
        values["num_frames_kept"] = kept


def settled_parameters(
    text: str | None, route: Route, task: str, num_controls: int = 1
) -> tuple[dict[str, Any], list[RowProblem]]:
    """Return the further arguments that a row asks for, and the problem they have.

    Args:
        text: The row's `parameters`.
        route: The route, which says what it takes.
        task: The row's task, for messages.
        num_controls: Control pictures; of several each may have a number of its own.
    """

    def refused(message: str) -> tuple[dict[str, Any], list[RowProblem]]:
        return {}, [RowProblem("parameters", text, message)]

    if not text:
        return {}, []
    try:
        given = parse_json(text)
    except (ValueError, RecursionError) as error:
        return refused(f"is not JSON: {error}")
    if not isinstance(given, dict):
        return refused("is not a JSON object")
    taken = {*route.arguments, *route.arguments.values()} - {""}
    for name, value in given.items():
        kind = route.parameters.get(name)
        if kind is None and name in taken:
            return refused(f"holds {name}, which is settled by columns of the manifest")
        if kind is None:
            return refused(f"holds {name}, which {task} of this model does not take{near(name, route.parameters)}")
        if message := _value_problem(name, value, kind, num_controls):
            return refused(f"holds {name} {message}")
        given[name] = [kind(item) for item in value] if isinstance(value, list) and kind is not list else kind(value)
    return given, []


def _value_problem(name: str, value: Any, kind: type, num_controls: int) -> str:
    """Return what is wrong with the value of a further argument, "" for nothing."""
    is_per_net = name in PER_NET and kind is not list and isinstance(value, list)
    if is_per_net and (num_controls < 2 or len(value) != num_controls):
        return f"with {len(value)} number(s) for {num_controls} control picture(s)"
    if is_per_net and not all(_is_a(item, kind) for item in value):
        return f"= {_cut(value)}, which is not a list of type {kind.__name__}"
    if not is_per_net and not _is_a(value, kind):
        return f"= {_cut(value)}, which is not of type {kind.__name__}"
    bound = PARAMETER_BOUNDS.get(name, PARAMETER_BOUND)
    if any(type(number) in {int, float} and number not in bound for number in _items(value)):
        return f"= {_cut(value)}, which is not {bound}"
    return ""


def _is_a(value: Any, kind: type) -> bool:
    if kind is float:
        return isinstance(value, int | float) and not isinstance(value, bool)
    if kind is list:
        return isinstance(value, list) and all(type(item) is int for item in value)
    return type(value) is kind


def _items(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def _cut(value: Any) -> str:
    """Return a value as it may stand inside a message."""
    text = repr(value)
    return text if len(text) <= VALUE_CHARACTERS_MAX else f"{text[:VALUE_CHARACTERS_MAX]}..."


def settled_loras(
    wanted: tuple[tuple[str, float], ...], known: Mapping[str, LoraInfo], family: Family, *, loads_here: bool = True
) -> tuple[list[list[Any]], list[RowProblem]]:
    """Return (revision, weight) of each LoRA, sorted so that their order does not matter, and the problems."""
    problems: list[RowProblem] = []
    names = [name for name, _ in wanted]
    if len(names) > LORAS_MAX:
        return [], [RowProblem("loras", names, f"holds {len(names)}, over {LORAS_MAX}")]
    for name, weight in wanted:
        lora = known.get(name)
        if lora is None:
            problems.append(RowProblem("loras", name, f"is not in the job's loras{near(name, known)}"))
        elif not lora.fits(family):
            problems.append(RowProblem("loras", name, f"was made for {lora.base}, not for {family.title}"))
        elif names.count(name) > 1:
            problems.append(RowProblem("loras", name, "appears twice"))
        elif not (weight is not None and abs(weight) <= LORA_WEIGHT_MAX):  # NaN is not in the range either
            message = f"has a weight not in {-LORA_WEIGHT_MAX:g}..{LORA_WEIGHT_MAX:g}"
            problems.append(RowProblem("loras", f"{name} {weight}", message))
    if not problems and loads_here and importlib.util.find_spec("peft") is None:
        problems.append(RowProblem("loras", names, "need the Python package peft, which is not installed"))
    if problems:
        return [], problems
    return sorted([known[name].revision, float(weight)] for name, weight in wanted), []
