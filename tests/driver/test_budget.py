"""A campaign's budget: over runs, kills and edits, in money and in hours, by campaign, day and run."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from conftest import prompts
from support.paced import STEP_S, simulate
from support.stores import CountingStore

import sdbatch
from sdbatch import Selection
from sdbatch.campaign import layout
from sdbatch.campaign.checked import UnreadableFile
from sdbatch.campaign.spending import DAYS_MAX, Spending, Spent, spending_before
from sdbatch.driver.one_run.records import RunResult
from sdbatch.driver.predicted.budget import RunBudget
from sdbatch.driver.run import run_job
from sdbatch.errors import JobError
from sdbatch.job import Prices, parse_job, with_budget
from sdbatch.report.progress import Silent
from sdbatch.storage import open_store

WriteManifest = Callable[..., str]
JobOf = Callable[..., dict[str, Any]]
PACED = "support.paced:PacedWorker"
STEPS = 10
OUTPUT_S = STEPS * STEP_S
UNIT_S = 4 * OUTPUT_S
LATE_S = 12.0
"""What a busy machine adds to two workers that sleep; all rows of the run that it bounds take 20 seconds."""
EUR = {"gpu_hour": 3600.0, "currency": "EUR"}
"""At this price a second of a worker costs one euro."""


@pytest.fixture
def paced_job(write_manifest: WriteManifest, job_of: JobOf) -> Callable[..., dict[str, Any]]:
    def make(rows: int = 40, prompt: str = "scene", **changes: Any) -> dict[str, Any]:
        manifest = write_manifest([{**row, "prompt": f"{prompt} {row['id']}"} for row in prompts(rows)])
        return job_of(manifest, defaults={"task": "text-to-image", "num_inference_steps": STEPS}, **changes)

    return make


def _run(values: dict[str, Any], budget: str | None = None, **selection: Any) -> RunResult:
    """Run in this process, by a clock that the worker's sleep alone moves."""
    job = parse_job(values)
    with pytest.MonkeyPatch.context() as patch:
        simulate(patch.setattr)
        return run_job(
            job if budget is None else with_budget(job, budget),
            selection=Selection(**selection),
            in_process=True,
            progress=Silent(),
            worker=PACED,
        )


def _spent_s(values: dict[str, Any]) -> float:
    return spending_before(open_store(values["output"], {}), layout.AFTER_ALL_RUNS).total.gpu_s


def test_a_budget_stops_within_one_unit_and_a_larger_one_goes_on(paced_job: Callable[..., dict[str, Any]]) -> None:
    job = paced_job(prices=EUR, limits={"cost": 1.0})
    first = _run(job)
    spent = _spent_s(job)
    again = _run(job)
    rest = _run(job, "100EUR")

    assert (first.state, first.exit_code, again.exit_code, rest.exit_code) == ("stopped", 6, 6, 0)
    assert 0 < first.counts["rows_ok"] < 40
    assert first.counts["rows_ok"] * OUTPUT_S <= 1.0
    assert 1.0 - 2 * UNIT_S <= spent <= 1.0 + UNIT_S
    assert (again.counts["rows_ok"], again.gpu_hours) == (0, 0.0)
    assert first.counts["rows_ok"] + rest.counts["rows_ok"] == 40
    assert first.cost == pytest.approx(first.gpu_hours * 3600)
    assert str(first.message).startswith("limits.cost = 1.00 EUR per campaign is reached: ")
    assert str(first.message).endswith("run again with a larger one (--budget AMOUNT) to go on")
    record = json.loads((Path(job["output"]) / layout.run_json(rest.run_id)).read_text())
    assert record["spending"]["before"]["gpu_s"] == pytest.approx(spent, abs=0.01)
    assert record["prices"] == EUR


def test_an_edited_prompt_does_not_reset_a_budget_in_gpu_hours(paced_job: Callable[..., dict[str, Any]]) -> None:
    limits = {"limits": {"gpu_hours": 1.0 / 3600}}
    first = _run(paced_job(**limits))
    edited = _run(paced_job(prompt="another", **limits))

    assert (first.exit_code, edited.exit_code, edited.counts["rows_ok"]) == (6, 6, 0)
    assert "limits.gpu_hours = 1.0 GPU seconds per campaign" in str(edited.message)


def test_a_budget_of_a_run_is_each_runs_own(paced_job: Callable[..., dict[str, Any]]) -> None:
    job = paced_job(rows=24, limits={"gpu_hours": {"max": 0.8 / 3600, "per": "run"}})
    made = [_run(job).counts["rows_ok"] for _ in range(2)]

    assert all(made)


KILLED = """
import glob, os, signal, sys, json, time
from support import paced
from sdbatch import points
from sdbatch.campaign import lease
from sdbatch.driver.run import run_job
from sdbatch import Selection
from sdbatch.job import parse_job
from sdbatch.report.progress import Silent

lease.BEAT_EVERY_S = 0.05
paced.simulate()
left = int(sys.argv[2])
def beats():
    return json.load(open(max(glob.glob(job.output + "/lease/*.beat"))))["count"]
def strike(name):
    global left
    if name != "after-the-commit":
        return
    left -= 1
    if left == 0:
        told = beats() + 2  # the second one that begins from now on tells of all that was spent
        while beats() < told:
            time.sleep(0.01)
        os.kill(os.getpid(), signal.SIGKILL)
points.install(strike)
job = parse_job(json.loads(open(sys.argv[1]).read()))
run_job(job, selection=Selection(), in_process=True, progress=Silent(), worker="support.paced:PacedWorker")
"""


def test_killed_drivers_and_retries_do_not_multiply_a_budget(
    paced_job: Callable[..., dict[str, Any]], tmp_path: Path
) -> None:
    job = paced_job(rows=100, limits={"gpu_hours": 4.0 / 3600})
    (tmp_path / "job.json").write_text(json.dumps(job))
    for number_of_commits in (2, 1):
        driver = subprocess.run(
            [sys.executable, "-c", KILLED, str(tmp_path / "job.json"), str(number_of_commits)],
            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
            check=False,
            capture_output=True,
            timeout=120,
        )
        assert driver.returncode == -signal.SIGKILL, driver.stderr.decode()
    killed_s = _spent_s(job)
    rest = _run(job)
    total_s = _spent_s(job)

    made_s = OUTPUT_S * sum(rows["rows_ok"] for rows in [rest.counts])
    assert killed_s == pytest.approx(OUTPUT_S * (4 + 24 + 4), abs=1e-3)  # two units and one
    assert made_s <= 4.0 - killed_s
    assert rest.exit_code == 6
    assert 4.0 - 2 * UNIT_S <= total_s <= 4.0 + UNIT_S
    assert total_s == pytest.approx(killed_s + rest.gpu_hours * 3600, abs=0.01)


def test_what_a_year_of_runs_took_is_read_from_one_object(tmp_path: Path) -> None:
    store = CountingStore(str(tmp_path))
    total = Spending()
    for epoch in range(1, 366):
        own = Spending.at(Prices(gpu_hour=3600.0), {f"2026-{epoch:05d}": 10.0})
        run = layout.run_id(epoch, "20260101T000000Z")
        spending = {"before": total.as_dict(), "own": own.as_dict(), "slots": []}
        store.put_new(layout.run_json(run), json.dumps({"spending": spending}).encode())
        total = total.plus(own)
    store.set_fault(None)
    found = spending_before(store, layout.AFTER_ALL_RUNS)

    assert (store.lists, store.gets) == (1, 1)
    assert found == total
    assert found.total == Spent(gpu_s=3650.0, priced={"USD": (3650.0, 3650.0)})
    assert len(found.days) == DAYS_MAX


def test_a_status_that_was_edited_by_hand_bounds_nothing_and_is_refused_where_a_budget_hangs_on_it(
    tmp_path: Path,
) -> None:
    store = CountingStore(str(tmp_path))
    run = layout.run_id(2, "20260101T000000Z")
    store.put_new(layout.run_json(run), json.dumps({"spending": {"own": {"gpu_s": -5}}}).encode())

    with pytest.raises(UnreadableFile, match="spending"):
        spending_before(store, layout.AFTER_ALL_RUNS)
    assert spending_before(store, layout.AFTER_ALL_RUNS, is_bounded=False).num_unrecorded == 1


def test_runs_of_an_older_version_are_named(tmp_path: Path, job_of: JobOf) -> None:
    store = CountingStore(str(tmp_path))
    for epoch in (1, 2):
        store.put_new(layout.run_json(layout.run_id(epoch, "20260101T000000Z")), b'{"state": "done"}')
    before = spending_before(store, layout.AFTER_ALL_RUNS)
    told = RunBudget(parse_job(job_of("m", limits={"gpu_hours": 3})), before).told()

    assert before.num_unrecorded == 2
    assert told == [
        "limits.gpu_hours = 3.00 GPU hours per campaign: 0 GPU hours spent, 3.00 GPU hours left",
        "2 run(s) of an older sdbatch did not record the time of their workers; no budget counts them",
    ]


def test_a_day_counts_what_was_spent_on_it_alone(job_of: JobOf) -> None:
    today = datetime.fromtimestamp(time.time(), UTC).date().isoformat()
    prices = Prices(gpu_hour=2.0, currency="EUR")
    before = Spending.at(prices, {"2020-01-01": 36_000.0, today: 3600.0})
    job = parse_job(
        job_of(
            "m",
            prices=prices.model_dump(),
            limits={"cost": {"max": 5.0, "per": "day"}, "gpu_hours": {"max": 12.0, "per": "campaign"}},
        )
    )
    budget = RunBudget(job, before)

    assert budget.left_gpu_s({}) == pytest.approx(3600.0)  # of 12 hours 11 are gone; of the day's 2.5 one is
    assert "limits.gpu_hours = 12.0 GPU hours per campaign is reached" in budget.reached(60.0, {})
    daily = RunBudget(with_budget(job, "100gpu_hours"), before)
    assert daily.left_gpu_s({}) == pytest.approx(1.5 * 3600)
    assert "run again tomorrow (UTC), or now with a larger one" in daily.reached(60.0, {})


def test_money_of_earlier_runs_keeps_its_price(job_of: JobOf) -> None:
    dear, cheap = Prices(gpu_hour=4.0, currency="EUR"), Prices(gpu_hour=2.0, currency="EUR")
    spent = Spent.at(dear, 3600.0).plus(Spent.at(None, 3600.0)).plus(Spent.at(cheap, 3600.0))

    assert spent.money(cheap) == pytest.approx(4.0 + 2.0 + 2.0)
    assert spent.money(Prices(gpu_hour=1.0, currency="USD")) == pytest.approx(3.0)


@pytest.mark.parametrize(
    ("text", "name", "amount", "per"),
    [
        ("12.50", "cost", 12.5, "campaign"),
        ("12.50EUR", "cost", 12.5, "campaign"),
        ("12 EUR/day", "cost", 12.0, "day"),
        ("3gpu_hours", "gpu_hours", 3.0, "run"),
        ("3 gpu_hours/campaign", "gpu_hours", 3.0, "campaign"),
    ],
)
def test_the_flag_lays_over_the_jobs_own_budget(job_of: JobOf, text: str, name: str, amount: float, per: str) -> None:
    job = parse_job(job_of("m", prices=EUR, limits={"cost": 5, "gpu_hours": {"max": 1, "per": "run"}}))
    budget = getattr(with_budget(job, text).limits, name)

    assert (budget.max, budget.per) == (amount, per)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("much", "is an amount over 0"),
        ("0", "is an amount over 0"),
        ("-3", "is an amount over 0"),
        ("5USD", "the job's prices are in EUR, not in USD"),
    ],
)
def test_a_flag_that_is_no_budget_is_refused(job_of: JobOf, text: str, message: str) -> None:
    with pytest.raises(JobError, match=message):
        with_budget(parse_job(job_of("m", prices=EUR)), text)
    with pytest.raises(JobError, match="the job has no prices"):
        sdbatch.run(job_of("m"), in_process=True, budget="5")


def test_money_without_a_price_is_refused(job_of: JobOf) -> None:
    with pytest.raises(JobError, match=r"limits\.cost needs prices"):
        parse_job(job_of("m", limits={"cost": 5}))


@pytest.mark.ray
def test_workers_of_a_cluster_count_from_slot_to_end_and_stop_at_the_bound(
    ray_cluster: None, paced_job: Callable[..., dict[str, Any]]
) -> None:
    job = parse_job(paced_job(rows=400, workers={"count": 2}, limits={"gpu_hours": 6.0 / 3600}))
    result = run_job(job, selection=Selection(), in_process=False, progress=Silent(), worker=PACED)
    record = json.loads((Path(job.output) / layout.run_json(result.run_id)).read_text())
    spent_s = record["spending"]["own"]["gpu_s"]
    (slot,) = record["spending"]["slots"]

    assert result.exit_code == 6
    assert 0 < result.counts["rows_ok"] < 400
    assert result.counts["rows_ok"] * OUTPUT_S <= min(spent_s, 6.0)  # idle time and starts count beside it
    assert 6.0 - 4 * UNIT_S - 0.6 <= spent_s <= 6.0 + 2 * UNIT_S + LATE_S
    assert slot["models"] == ["tiny"]
    assert slot["slot_s"] == spent_s <= 2 * result.wall_s
    assert record["forecast"]["gpu_s"]["actual"] == pytest.approx(spent_s, abs=0.01)
