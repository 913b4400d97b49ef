"""The real dispatcher on a simulated cluster: level ends, spot losses, and what a run asks of its driver and store."""

from __future__ import annotations

import math

import pytest

from benchmarks.simulate import Scenario, price_of, requests_of, simulate, tail
from sdbatch.dispatch.policy import UNIT_S

SPOT = Scenario(rows=200_000, workers=64, lost_every_s=300.0, back_after_s=60.0, load_s=2.0)
"""Lives of five minutes, so that a short run sees many losses."""


@pytest.mark.parametrize(("workers", "least"), [(8, 0.97), (64, 0.93)])
@pytest.mark.parametrize("seed", range(3))
def test_pictures_and_clips_end_level_though_clips_come_last(workers: int, least: float, seed: int) -> None:
    assert tail(workers, seed).utilisation >= least


def test_workers_that_are_lost_cost_no_row_and_little_time() -> None:
    outcome = simulate(SPOT)

    assert outcome.rows == SPOT.rows
    assert outcome.lost_workers > 30
    assert 0 < outcome.rows_twice < outcome.lost_workers * 2 * UNIT_S / SPOT.picture_s
    assert outcome.utilisation >= 0.9


def test_a_run_takes_as_many_decisions_as_its_work_has_units_of_ten_seconds() -> None:
    outcome = simulate(SPOT)
    least = outcome.useful_s / UNIT_S

    assert outcome.units <= outcome.decisions <= outcome.units + 2 * outcome.lost_workers
    assert least <= outcome.units <= 2.5 * least


def test_a_million_fast_rows_are_handed_out_in_units_of_a_thousand() -> None:
    fast = Scenario(
        rows=1_000_000, workers=2, clips=0.0, batch=32, keys=1, picture_s=1e-4, load_s=0.0, lost_every_s=math.inf
    )

    assert simulate(fast).decisions <= 1_000_000 / 900


def test_workers_keep_their_models() -> None:
    calm = simulate(Scenario(rows=200_000, workers=64, lost_every_s=math.inf))

    assert 64 <= calm.loads <= 2 * 64


def test_a_run_s_store_requests_are_its_assets_commits_and_what_goes_on_beside_them() -> None:
    outcome = simulate(Scenario(rows=20_000, workers=8, lost_every_s=math.inf))
    found = requests_of(outcome, outcome.makespan_s)

    assert found["PUT"] - outcome.rows - outcome.units < 0.1 * outcome.rows
    assert price_of({"PUT": 2_000, "GET": 1_000, "LIST": 0}) == pytest.approx(0.0104)
