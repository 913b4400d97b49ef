"""What a family's own rules make of a row's price and bounds: guidance that is an input, a bound of pixels."""

from __future__ import annotations

from typing import Any

import pytest
from support.resolved import Row, rows_of

from sdbatch.checkpoints import describe
from sdbatch.families import FAMILIES
from sdbatch.job import parse_job
from sdbatch.plan.resolve import Resolver


def _resolved(family: str, **row: Any) -> Row | str:
    """Return one row of a model of a family, or what is wrong with it."""
    model = {"path": "/m", "family": family, "revision": "a" * 64, "defaults": {"height": 512, "width": 512}}
    job = parse_job({"manifest": "m", "output": "o", "models": {"m": model}, "seed": 1})
    resolver = Resolver(
        job, {"m": describe("m", job.models["m"], {})}, lambda _: None, lambda url: url, {}, loads_here=False
    )
    columns = {name: [value] for name, value in {"id": "a", "task": "text-to-image", "prompt": "a fox", **row}.items()}
    resolved, problems = resolver.resolve(columns, 1, {})
    (found,) = rows_of(resolved, problems, 1)
    return found or "; ".join(f"{problem.column} {problem.message}" for problem in problems)


@pytest.mark.parametrize(("family", "passes"), [("Flux.2 dev", 1), ("Flux.2 Klein", 2), ("HiDream-I1", 2)])
def test_guidance_that_is_an_input_of_the_denoiser_costs_no_second_pass(family: str, passes: int) -> None:
    found = _resolved(family, num_inference_steps=10, guidance_scale=4.0)
    assert isinstance(found, Row)
    quarter = FAMILIES[family].tflop_reference / 4  # 512 x 512 of 1024 x 1024

    assert found.cost_tflop == pytest.approx(passes * 10 * quarter)
    assert ("guided" in found.shape) == (passes == 2)


@pytest.mark.parametrize(
    ("height", "width", "message"),
    [
        (1024, 1024, ""),
        (768, 1360, ""),
        (1040, 1024, "height x width 1024 = 1064960 pixels are over 1048576, the most that HiDream-I1 makes"),
    ],
)
def test_a_family_s_own_bound_of_pixels_is_named(height: int, width: int, message: str) -> None:
    found = _resolved("HiDream-I1", height=height, width=width)

    assert found == message if message else isinstance(found, Row)


@pytest.mark.parametrize(
    ("height", "width", "message"),
    [
        (1024, 1024, ""),
        (640, 1408, ""),
        (1408, 640, ""),
        (512, 512, "height x width 512 is no size that Kandinsky 5 T2I makes (1024 x 1024, "),
        (720, 1280, "the nearest in shape is 768 x 1280"),
        (1024, 768, "the nearest in shape is 1152 x 896"),
        (1000, 1000, "the nearest in shape is 1024 x 1024"),
        (0, 1024, "height x width 1024 is no size that Kandinsky 5 T2I makes"),
    ],
)
def test_a_size_that_is_none_of_a_family_s_few_is_refused_with_the_nearest(
    height: int, width: int, message: str
) -> None:
    """Its pipeline would make another size of the row's without a word."""
    found = _resolved("Kandinsky 5 T2I", height=height, width=width)

    assert message in found if message else isinstance(found, Row)
