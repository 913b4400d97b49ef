"""What a family can make and what it cannot: frames, key frames, parameters, LoRAs; the nearest it can is named."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from typing import Any

import pytest
from support.resolved import Row, rows_of

from sdbatch.checkpoints import LoraInfo, describe
from sdbatch.families import FAMILIES, Given, Route
from sdbatch.job import Job, parse_job
from sdbatch.plan.checks import nearest_route, settled_keyframes, settled_loras
from sdbatch.plan.problems import RowProblem
from sdbatch.plan.resolve import Resolver

LTX = FAMILIES["LTX-Video"]
CLIP = {"id": "a", "task": "text-to-video", "prompt": "a fox"}
MODEL = {"path": "/models/ltx", "family": "LTX-Video", "revision": "1" * 40, "batch_size": 4}


def _job(**changes: Any) -> Job:
    return parse_job({"manifest": "m", "output": "o", "models": {"ltx": MODEL}, "seed": 11, **changes})


def _resolve(row: dict[str, Any], loras: dict[str, LoraInfo] | None = None, **changes: Any) -> Row | list[RowProblem]:
    job = _job(**changes)
    models = {name: describe(name, model, {}) for name, model in job.models.items()}
    resolver = Resolver(job, models, lambda _: None, lambda url: f"/brand/{url}", loras)
    resolved, faults = resolver.resolve({name: [value] for name, value in row.items()}, 1, {})
    (found,) = rows_of(resolved, faults, 1)
    return faults if found is None else found


def _recipe(row: dict[str, Any], **changes: Any) -> dict[str, Any]:
    resolved = _resolve(row, **changes)
    assert isinstance(resolved, Row), resolved
    recipe: dict[str, Any] = json.loads(resolved.recipe)
    return recipe


def _explain_error(row: dict[str, Any], **changes: Any) -> list[tuple[str | None, str]]:
    faults = _resolve(row, **changes)
    assert not isinstance(faults, Row)
    return [(fault.column, fault.message) for fault in faults]


# --- frames ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("duration_s", "fps", "made", "kept"),
    [(1.0, 8.0, 9, 8), (2.0, 8.0, 17, 16), (2.125, 8.0, 17, None), (0.01, 8.0, 1, None)],
)
def test_a_duration_is_made_at_the_next_count_and_trimmed(
    duration_s: float, fps: float, made: int, kept: int | None
) -> None:
    recipe = _recipe({**CLIP, "duration_s": duration_s, "fps": fps})

    assert (recipe["num_frames"], recipe.get("num_frames_kept"), recipe["fps"]) == (made, kept, fps)
    assert "duration_s" not in recipe


@pytest.mark.parametrize(
    ("row", "model", "job", "frames"),
    [
        ({"num_frames": 9}, {"duration_s": 3.0}, {"duration_s": 4.0}, 9),
        ({"duration_s": 1.0}, {"num_frames": 25}, {}, 9),
        ({}, {"num_frames": 25}, {"duration_s": 1.0}, 25),
        ({}, {"duration_s": 1.0}, {"num_frames": 25}, 9),
        ({}, {}, {"num_frames": 25}, 25),
        ({}, {}, {}, 161),
    ],
)
def test_the_nearest_layer_that_says_how_long_counts(
    row: dict[str, Any], model: dict[str, Any], job: dict[str, Any], frames: int
) -> None:
    models = {"ltx": {**MODEL, "defaults": model}}
    assert _recipe({**CLIP, "fps": 8.0, **row}, models=models, defaults=job)["num_frames"] == frames


BEYOND = [
    (
        {"num_frames": 1025, "height": 2048, "width": 2048},
        "num_frames",
        "of 2048 x 2048 pixels are over 1073741824 pixels in all; at most 256 frames fit",
        ("a clip of 1025 frames of 2048 x 2048", "refused at plan, the bound named"),
    ),
    (
        {"height": 8192, "width": 8192},
        "height",
        "x width 8192 = 67108864 pixels are over 16777216",
        ("a picture of 8192 x 8192", "refused at plan, the bound named"),
    ),
    (
        {"fps": 1e-300},
        "fps",
        "is not in 0.01..240",
        ("fps 1e-300", "refused at plan, the bound named"),
    ),
    (
        {"duration_s": 1e308},
        "duration_s",
        "is not over 0 and at most 86400",
        ("duration_s 1e308", "refused at plan, the bound named"),
    ),
    (
        {"parameters": '{"max_sequence_length": 1' + "0" * 400 + "}"},
        "parameters",
        "holds max_sequence_length = 1" + "0" * 39 + "..., which is not in 1..4096",
        ("a parameter of 400 digits", "refused at plan, the bound named"),
    ),
    (
        {"parameters": '{"decode_timestep": 1' + "0" * 400 + "}"},
        "parameters",
        "holds decode_timestep = 1" + "0" * 39 + "..., which is not in -1000..1000",
        ("a parameter of 400 digits", "refused at plan, the bound named"),
    ),
    (
        {"parameters": '{"decode_timestep": 1e999}'},
        "parameters",
        "holds decode_timestep = inf, which is not in -1000..1000",
        ("an infinite parameter", "refused at plan, the bound named"),
    ),
]


@pytest.mark.parametrize(
    ("change", "column", "message"),
    [
        ({"num_frames": 12}, "num_frames", "is not of the form 8 k + 1; the nearest is 9"),
        ({"num_frames": 13}, "num_frames", "is not of the form 8 k + 1; the nearest is 17"),
        ({"num_frames": 0}, "num_frames", "is not in 1..1025"),
        ({"num_frames": 1033}, "num_frames", "is not in 1..1025"),
        ({"num_frames": 9, "duration_s": 1.0}, "duration_s", "stands beside num_frames; only one of them can be met"),
        ({"duration_s": 0.0}, "duration_s", "is not over 0 and at most 86400"),
        ({"duration_s": math.inf}, "duration_s", "is not over 0 and at most 86400"),
        ({"duration_s": 9999.0}, "num_frames", "is not in 1..1025"),
        ({"fps": 0.0}, "fps", "is not in 0.01..240"),
        ({"fps": math.nan}, "fps", "is not in 0.01..240"),
        ({"height": 500}, "height", "is not a multiple of 32; the nearest is 512"),
        *(
            pytest.param(change, column, message, marks=pytest.mark.fault("S11", given, right))
            for change, column, message, (given, right) in BEYOND
        ),
        ({"strength": 0.5}, "strength", "is not taken by text-to-video of LTX-Video"),
    ],
)
def test_a_clip_the_family_cannot_make_is_refused(change: dict[str, Any], column: str, message: str) -> None:
    assert (column, message) in _explain_error({**CLIP, **change})


def test_a_clip_s_key_changes_with_its_rate_and_length() -> None:
    rows: list[dict[str, Any]] = [
        {},
        {"fps": 8.0},
        {"num_frames": 9},
        {"duration_s": 0.32, "fps": 25.0},
        {"parameters": '{"guidance_rescale": 0.5}'},
    ]
    keys = {json.dumps(_recipe({**CLIP, **row}), sort_keys=True) for row in rows}
    assert len(keys) == len(rows)


# --- key frames -----------------------------------------------------------------------------------------------------


def _row(keyframes: Any) -> Route:
    return Route(pipeline="P", arguments={}, images=(1, 8), keyframes=keyframes)


@pytest.mark.parametrize(
    ("kind", "given", "images", "frames"),
    [
        ("any", None, 3, [0, 8, 16]),
        ("any", None, 1, [0]),
        ("any", (2, 5), 2, [2, 5]),
        ("chained", None, 3, [0, 8, 16]),
        ("chained", None, 4, [0, 4, 12, 16]),
        ("chained", (0, 4, 16), 3, [0, 4, 16]),
    ],
)
def test_key_frames_are_taken_or_spread_from_first_to_last(
    kind: str, given: tuple[int, ...] | None, images: int, frames: list[int]
) -> None:
    assert settled_keyframes(given, images, 17, _row(kind), 4) == (frames, [])


@pytest.mark.parametrize(
    ("kind", "given", "images", "message"),
    [
        ("any", (0, 8), 3, "has 2 frame(s) for 3 image(s)"),
        ("any", (0, 17), 2, "holds 17, which is not in 0..16"),
        ("any", (-1, 8), 2, "holds -1, which is not in 0..16"),
        ("any", (8, 0), 2, "is not ascending"),
        ("any", (8, 8), 2, "is not ascending"),
        ("any", None, 18, "cannot stand apart: 18 images in 17 frames"),
        ("chained", None, 6, "cannot stand apart: 6 images in 17 frames"),
        ("chained", (0, 8), 2, "does not begin at 0 and end at 16, as this model needs"),
        ("chained", (4, 16), 2, "does not begin at 0 and end at 16, as this model needs"),
        ("chained", (0, 7, 16), 3, "holds 7, which is not a multiple of 4; the nearest is 8"),
    ],
)
def test_key_frames_that_cannot_stand_are_refused(
    kind: str, given: tuple[int, ...] | None, images: int, message: str
) -> None:
    row = replace(_row(kind), images=(1, 32))
    assert [said for _, _, said, _ in settled_keyframes(given, images, 17, row, 4)[1]] == [message]


# --- routes -----------------------------------------------------------------------------------------------------------

ROUTES = (
    Route(pipeline="One", arguments={}, images=(1, 1)),
    Route(pipeline="Set", arguments={}, images=(1, 4), keyframes="any"),
    Route(pipeline="Led", arguments={}, images=(1, 1), sources=frozenset({"control_image"})),
)


@pytest.mark.parametrize(
    ("given", "pipeline", "expected"),
    [
        (Given(1), "One", []),
        (Given(3), "Set", []),
        (Given(1, keyframes=True), "Set", []),
        (Given(1, frozenset({"control_image"})), "Led", []),
        (Given(9), "Set", [("images", "has 9 source(s); the task takes 1 to 4")]),
        (Given(1, frozenset({"mask"})), "One", [("mask", "is a source the task would ignore")]),
    ],
)
def test_the_route_is_the_one_that_takes_what_is_given(
    given: Given, pipeline: str, expected: list[tuple[str, str]]
) -> None:
    route, problems = nearest_route(ROUTES, given)
    assert (route.pipeline, [(problem.column, problem.message) for problem in problems]) == (pipeline, expected)
    assert route.takes(given) == (not expected)


def test_a_package_that_is_missing_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    row = replace(LTX.tasks["text-to-video"][0], requires=("no_such_package",))
    monkeypatch.setitem(FAMILIES["LTX-Video"].tasks, "text-to-video", (row,))
    (fault,) = _explain_error(CLIP)
    assert fault[0] == "task"
    assert fault[1].startswith("is not served by ltx (LTX-Video: image-to-video, ")
    assert fault[1].endswith("); it needs the Python package no_such_package, which is not installed")


# --- what a flow model would not read --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("steps", "strength", "message"),
    [
        (4, 0.9, "leaves nothing of the source in 4 step(s); at most 0.75 reads it"),
        (28, 1.0, "leaves nothing of the source in 28 step(s); at most 0.9642 reads it"),
        (1, 1.0, "leaves nothing of the source in 1 step(s); 2 steps are needed"),
        (4, 0.75, None),
        (28, 0.9642, None),
    ],
)
def test_a_strength_at_which_the_source_is_not_read_is_refused(
    steps: int, strength: float, message: str | None
) -> None:
    models = {"flux": {"path": "/models/flux", "family": "Flux.1", "revision": "1" * 40}}
    row: dict[str, Any] = {"id": "a", "task": "image-to-image", "prompt": "p", "images": "a.png"}
    row |= {"num_inference_steps": steps, "strength": strength}
    found = _resolve(row, models=models)
    assert isinstance(found, Row) if message is None else found == [RowProblem("strength", strength, message)]


def test_a_negative_prompt_that_would_not_be_read_is_refused() -> None:
    models = {"flux": {"path": "/models/flux", "family": "Flux.1", "revision": "1" * 40}}
    row = {"id": "a", "task": "text-to-image", "prompt": "p", "negative_prompt": "blur"}
    message = "is read by this model only with true_cfg_scale over 1 in parameters"
    assert _explain_error(row, models=models) == [("negative_prompt", message)]
    read = {**row, "parameters": '{"true_cfg_scale": 4}'}
    assert _recipe(read, models=models)["negative_prompt"] == "blur"
    dropped = _recipe({**row, "negative_prompt": None}, models=models, defaults={"negative_prompt": "blur"})
    assert "negative_prompt" not in dropped


# --- LoRAs ----------------------------------------------------------------------------------------------------------

KNOWN = {
    "ink": LoraInfo(name="ink", base="LTX-Video", revision="bb"),
    "wool": LoraInfo(name="wool", base="LTXPipeline", revision="aa"),
    "xl": LoraInfo(name="xl", base="Stable Diffusion XL", revision="cc"),
}


def _lora(*items: tuple[str, float]) -> dict[str, Any]:
    return {**CLIP, "seed": 1, "loras": [{"name": name, "weight": weight} for name, weight in items]}


def test_loras_are_keyed_by_content_whatever_their_order() -> None:
    one, two = (
        _resolve(_lora(*items), KNOWN) for items in ([("ink", 1), ("wool", 0.5)], [("wool", 0.5), ("ink", 1.0)])
    )
    assert one == two
    assert isinstance(one, Row)
    assert json.loads(one.recipe)["loras"] == [["aa", 0.5], ["bb", 1.0]]


def test_rows_with_other_loras_share_no_batch() -> None:
    choices = [_lora(), _lora(("ink", 1.0)), _lora(("ink", 0.5)), _lora(("wool", 1.0))]
    found = [_resolve(row, KNOWN) for row in choices]
    assert len({row.batch_key for row in found if isinstance(row, Row)}) == len(choices)


@pytest.mark.parametrize(
    ("items", "message"),
    [
        ([("inc", 1.0)], "is not in the job's loras; did you mean ink?"),
        ([("xl", 1.0)], "was made for Stable Diffusion XL, not for LTX-Video"),
        ([("ink", 1.0), ("ink", 0.5)], "appears twice"),
        ([("ink", math.nan)], "has a weight not in -10..10"),
        ([("ink", 11.0)], "has a weight not in -10..10"),
        ([("ink", 1.0)] * 17, "holds 17, over 16"),
    ],
)
def test_a_lora_that_cannot_be_used_is_refused(items: list[tuple[str, float]], message: str) -> None:
    _, problems = settled_loras(tuple(items), KNOWN, LTX)
    assert {problem.message for problem in problems} == {message}


def test_loras_need_peft(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    _, problems = settled_loras((("ink", 1.0),), KNOWN, LTX)
    assert [problem.message for problem in problems] == ["need the Python package peft, which is not installed"]


# --- what shares a call -----------------------------------------------------------------------------------------------


def test_rows_of_a_shared_source_share_a_batch_only_with_their_source() -> None:
    job = parse_job(
        {
            "manifest": "m",
            "output": "o",
            "models": {"k": {"path": "/k", "family": "Flux.2 Klein", "revision": "1" * 40}},
        }
    )
    resolver = Resolver(job, {"k": describe("k", job.models["k"], {})}, lambda _: None, lambda url: url)
    rows: dict[str, list[Any]] = {
        "id": ["a", "b", "c"],
        "task": ["image-to-image"] * 3,
        "prompt": ["p", "q", "p"],
        "images": [["x", "y"], ["x", "y"], ["y", "x"]],
    }
    found, faults = resolver.resolve(rows, 3, {"x": "sha256:1", "y": "sha256:2"})

    assert not faults
    assert [key == found.batch_key[0] for key in found.batch_key] == [True, True, False]
