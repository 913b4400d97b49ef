"""One rule for `num_gpus: null`, in the plan, on the clock and in what a slot costs."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from conftest import prompts
from typer.testing import CliRunner

import sdbatch
from sdbatch.cli import app
from sdbatch.driver.forecast import PlanReport
from sdbatch.driver.predicted.work import ASSUMED_LOAD_S, ASSUMED_START_S, ASSUMED_TFLOP_PER_S

Values = dict[str, Any]
NULL = "num_gpus: null in plan"


@pytest.fixture
def plan_of(write_manifest: Callable[..., str], job_of: Callable[..., Values]) -> Callable[..., PlanReport]:
    manifest = write_manifest(prompts(6))

    def plan(count: int | str = 2, **model: Any) -> PlanReport:
        models = {"m": {"path": "builtin:tiny-sd", "batch_size": 1, **model}}
        return sdbatch.plan(job_of(manifest, models=models, workers={"count": count}))

    return plan


@pytest.mark.fault("F17", NULL, "the same seconds as num_gpus: 1, not a CPU's")
def test_null_counts_as_one_gpu(plan_of: Callable[..., PlanReport]) -> None:
    null, one, none = plan_of(), plan_of(num_gpus=1.0), plan_of(num_gpus=0.0)
    ratio = ASSUMED_TFLOP_PER_S["gpu"] / ASSUMED_TFLOP_PER_S["cpu"]

    assert null.predicted_gpu_s == pytest.approx(one.predicted_gpu_s)
    assert none.predicted_gpu_s == pytest.approx(one.predicted_gpu_s * ratio)
    assert (null.assumed_gpus, one.assumed_gpus) == (["m"], [])


@pytest.mark.fault("F17", "seconds of slots and seconds on the clock", "a slot counts its GPUs, none or null as one")
def test_a_slot_counts_its_gpus_and_the_clock_its_workers(plan_of: Callable[..., PlanReport]) -> None:
    one = plan_of(num_gpus=1.0)

    def wall_s(seconds: float) -> float:
        """Start, a load each, half of the work, and a quarter of one of the six calls as tail."""
        return ASSUMED_START_S + ASSUMED_LOAD_S + seconds * (1 / 2 + 1 / 24)

    assert one.predicted_wall_s == pytest.approx(wall_s(one.predicted_gpu_s), abs=1e-9)
    assert plan_of(num_gpus=0.5).predicted_gpu_s == pytest.approx(one.predicted_gpu_s / 2)
    assert plan_of(num_gpus=4.0).predicted_gpu_s == pytest.approx(one.predicted_gpu_s * 4)
    assert plan_of(num_gpus=4.0).predicted_wall_s == pytest.approx(one.predicted_wall_s)
    none = plan_of(num_gpus=0.0)
    assert none.predicted_wall_s == pytest.approx(wall_s(none.predicted_gpu_s), abs=1e-9)
    assert plan_of("auto").predicted_wall_s is None


def test_plan_says_what_it_took_null_for(
    write_manifest: Callable[..., str], job_of: Callable[..., Values], tmp_path: Path
) -> None:
    path = tmp_path / "job.yaml"
    path.write_text(json.dumps(job_of(write_manifest(prompts(2)))))
    shown = CliRunner().invoke(app, ["plan", str(path)]).output

    assert "num_gpus of tiny is null and counts as one GPU; where it runs on CPUs, say num_gpus: 0" in shown
    assert "(100% assumed, as nothing like it was measured yet)" in shown


def test_a_measured_rate_takes_the_place_of_the_assumed_one(
    write_manifest: Callable[..., str], job_of: Callable[..., Values]
) -> None:
    values = job_of(write_manifest(prompts(4)))
    sdbatch.run(values, sdbatch.Selection(limit=2), in_process=True)
    plan = sdbatch.plan(values)

    assert plan.rate_measured
    assert plan.assumed_gpus == []
