"""A forecast rests on what was measured, says so, and is compared with what the run then took."""

from __future__ import annotations

import json
import multiprocessing
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from conftest import prompts
from support.paced import STEP_S
from typer.testing import CliRunner

import sdbatch
from sdbatch import Selection
from sdbatch.campaign import layout
from sdbatch.cli import app
from sdbatch.driver.forecast import PlanReport
from sdbatch.driver.one_run.records import RunResult
from sdbatch.driver.predicted.paces import ENTRIES_MAX, SAMPLES_MAX, Key, Measured, Paces, remember, remembered
from sdbatch.driver.run import run_job
from sdbatch.errors import JobError
from sdbatch.job import parse_job
from sdbatch.report.progress import Silent
from sdbatch.storage.cache import cache_folder

Values = dict[str, Any]
STEPS = 4
OUTPUT_S = STEPS * STEP_S


def _run(values: Values, **selection: Any) -> RunResult:
    return run_job(
        parse_job(values),
        selection=Selection(**selection),
        in_process=True,
        progress=Silent(),
        worker="support.paced:PacedWorker",
    )


@pytest.fixture
def mixed(write_manifest: Callable[..., str], job_of: Callable[..., Values]) -> Callable[..., Values]:
    """Two sizes and two step counts, in turns."""

    def make(rows: int = 64, **changes: Any) -> Values:
        manifest = write_manifest(
            [
                {**row, "width": 64 << (n % 2), "num_inference_steps": STEPS << (n // 2 % 2), "x_product": f"p{n % 3}"}
                for n, row in enumerate(prompts(rows))
            ]
        )
        return job_of(manifest, prices={"gpu_hour": 3600.0, "currency": "EUR"}, **changes)

    return make


def test_a_held_out_half_takes_what_the_measured_half_forecast(mixed: Callable[..., Values], tmp_path: Path) -> None:
    job = mixed()
    first = _run(job, limit=32)
    plan = sdbatch.plan(job)
    rest = _run(job)
    record = json.loads((Path(job["output"]) / layout.run_json(rest.run_id)).read_text())

    assert plan.basis == {"measured": 1.0, "rate": 0.0, "assumed": 0.0}
    assert plan.devices == {"tiny": "a paced device"}
    assert plan.predicted_gpu_s == pytest.approx(8 * OUTPUT_S * (1 + 2 + 2 + 4))
    assert record["forecast"]["models"]["tiny"]["outputs"] == 32
    assert record["forecast"]["models"]["tiny"]["error"] == pytest.approx(0.0, abs=1e-3)
    assert record["forecast"]["models"]["tiny"]["actual_s"] == pytest.approx(plan.predicted_gpu_s)
    assert first.forecast["basis"]["assumed"] == 1.0
    assert first.forecast["models"]["tiny"]["error"] < -0.9  # a GPU's rate was assumed


def test_another_campaign_knows_what_this_one_measured(mixed: Callable[..., Values], tmp_path: Path) -> None:
    _run(mixed())
    other = sdbatch.plan({**mixed(), "output": str(tmp_path / "other")})
    changed = sdbatch.plan({**mixed(), "output": str(tmp_path / "other"), "models": _with(mixed(), dtype="bfloat16")})

    assert other.basis["measured"] == 1.0
    assert other.rate_measured
    assert changed.basis["assumed"] == 1.0  # another dtype has another pace


def _with(values: Values, **options: Any) -> Values:
    return {name: {**model, **options} for name, model in values["models"].items()}


def test_the_campaign_itself_knows_where_the_cache_is_another(
    mixed: Callable[..., Values], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _run(mixed())
    monkeypatch.setenv("SDBATCH_CACHE", str(tmp_path / "another"))
    edited = {**mixed(), "seed": 12}

    assert remembered().by_key == {}
    assert sdbatch.plan(edited).basis["measured"] == 1.0


def test_few_outputs_of_a_shape_count_by_the_models_rate(mixed: Callable[..., Values]) -> None:
    job = mixed(16)
    _run(job, limit=12)  # three of each shape
    plan = sdbatch.plan(job)

    assert plan.basis["rate"] == 1.0
    assert plan.predicted_gpu_s == pytest.approx(OUTPUT_S * (1 + 2 + 2 + 4), rel=0.05)


@pytest.mark.parametrize("num_gpus", [1.0, None])
def test_workers_change_the_clock_and_not_the_gpu_hours(
    write_manifest: Callable[..., str], job_of: Callable[..., Values], num_gpus: float | None
) -> None:
    models = {"m": {"path": "builtin:tiny-sd", "batch_size": 4, "num_gpus": num_gpus, "defaults": {"height": 1024}}}
    job = job_of(write_manifest(prompts(4000)), models=models, prices={"gpu_hour": 2.0, "currency": "EUR"})
    eight, one = (sdbatch.plan({**job, "workers": {"count": count}}) for count in (8, 1))

    assert eight.gpu_hours == one.gpu_hours > 0
    assert [wall.workers for wall in eight.walls] == [1, 4, 8]
    assert [wall.workers for wall in one.walls] == [1, 4]
    assert eight.predicted_wall_s is not None
    assert one.predicted_wall_s is not None
    assert eight.predicted_wall_s < one.predicted_wall_s
    walls = {wall.workers: wall for wall in eight.walls}
    assert walls[1].wall_s == one.predicted_wall_s
    assert walls[8].model_loads == 8
    assert walls[8].wall_s > 20.0 + eight.predicted_gpu_s / 8  # start, load and tail
    assert walls[8].cost == pytest.approx(walls[8].slot_gpu_s / 3600 * 2.0)
    assert walls[8].slot_gpu_s == pytest.approx(8 * walls[8].wall_s)


def test_a_plan_is_told_by_model_task_and_columns(mixed: Callable[..., Values]) -> None:
    job = mixed()
    _run(job, limit=32)
    plan = sdbatch.plan(job, by=["x_product", "width"])

    assert [one.values for one in plan.by_model] == [{"model": "tiny"}]
    assert [one.values for one in plan.by_task] == [{"task": "text-to-image"}]
    assert {tuple(one.values.values()) for one in plan.by} == {
        (f"p{n}", width) for n in range(3) for width in (64, 128)
    }
    for told in (plan.by_model, plan.by_task, plan.by):
        assert sum(one.gpu_s for one in told) == pytest.approx(plan.predicted_gpu_s)
        assert sum(one.assets for one in told) == plan.assets == 32
        assert sum(one.cost or 0 for one in told) == pytest.approx(plan.predicted_gpu_s)
    assert {one.measured for one in plan.by} == {1.0}
    with pytest.raises(JobError, match="--by x_colour: rows have no such column"):
        sdbatch.plan(job, by=["x_colour"])


def test_the_command_says_hours_money_and_what_it_rests_on(mixed: Callable[..., Values], tmp_path: Path) -> None:
    job = mixed(limits={"cost": 500})
    _run(job, limit=32)
    (tmp_path / "job.yaml").write_text(json.dumps(job))
    shown = CliRunner().invoke(app, ["plan", str(tmp_path / "job.yaml"), "--by", "x_product"]).output

    assert "100% measured on outputs of the same shape" in shown
    assert "on 1 worker: " in shown
    assert "on 4 workers: " in shown
    assert "EUR, 1 model load\n" in shown
    assert "limits.cost = 500.00 EUR per campaign: " in shown
    assert "measured: tiny on a paced device" in shown


# --- what is remembered ---------------------------------------------------------------------------------------------


def _paces(key: Key, *samples: tuple[float, int], at_s: float = 1.0) -> Paces:
    paces = Paces()
    paces.by_key[key] = Measured(tflop=1.0, at_s=at_s, samples=list(samples))
    return paces


def test_the_median_is_over_outputs_and_not_over_units() -> None:
    assert Measured(tflop=1.0, at_s=0.0, samples=[(9.0, 1), (8.0, 2), (1.0, 10)]).median_s == 1.0
    assert Measured(tflop=1.0, at_s=0.0, samples=[(9.0, 1)]).median_s == 9.0


def test_the_cache_is_bounded_and_the_newest_stays() -> None:
    for number in range(ENTRIES_MAX // 100 + 2):
        paces = Paces()
        for each in range(100):
            at_s = float(100 * number + each)
            paces.merge(_paces(Key("m", "CPU", f"shape {at_s}"), *[(1.0, 1)] * 50, at_s=at_s))
        remember(paces)
    kept = remembered().by_key

    assert len(kept) == ENTRIES_MAX
    assert max(key.shape for key in kept) in {key.shape for key in paces.by_key}
    assert all(len(measured.samples) == SAMPLES_MAX for measured in kept.values())


def _remember_one(number: int) -> None:
    remember(_paces(Key("m", "CPU", f"shape {number}"), (1.0, 1)))


def test_two_writers_lose_nothing_of_each_other() -> None:
    context = multiprocessing.get_context("fork")
    processes = [context.Process(target=_remember_one, args=(number,)) for number in range(6)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()

    assert len(remembered().by_key) == 6


@pytest.mark.parametrize("text", ["", "[]", '{"paces": [{"model": 1}]}', '{"paces": [{"samples": "x"}, 3]}', "{"])
def test_a_cache_that_is_not_ours_to_read_is_forgotten(text: str) -> None:
    (cache_folder() / "paces.json").write_text(text)

    assert remembered().by_key == {}
    remember(_paces(Key("m", "CPU", "s"), (1.0, 1)))
    assert len(remembered().by_key) == 1


def test_a_plan_of_nothing_takes_nothing(mixed: Callable[..., Values]) -> None:
    job = mixed(8)
    _run(job)
    plan: PlanReport = sdbatch.plan(job)

    assert (plan.predicted_gpu_s, plan.gpu_hours, plan.walls) == (0.0, 0.0, [])
    assert plan.predicted_wall_s == 0.0
