"""What a person is told while a run goes."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from sdbatch.report.progress import Lines, Snapshot, describe, duration, rate_and_eta


def _snapshot(**changes: Any) -> Snapshot:
    snapshot = Snapshot(
        working_s=50.0,
        outputs_ended=100,
        outputs_pending=400,
        cost_share=0.2,
        rows_failed=0,
        workers=2,
        in_flight=4,
    )
    return dataclasses.replace(snapshot, **changes)


def test_the_rate_counts_assets_and_the_time_to_go_follows_the_work() -> None:
    assert rate_and_eta(_snapshot()) == (2.0, 200.0)


def test_dear_rows_that_come_last_lengthen_the_time_to_go_but_not_the_rate() -> None:
    assert rate_and_eta(_snapshot(cost_share=0.1)) == (2.0, 450.0)


def test_nothing_is_to_go_at_the_end() -> None:
    assert rate_and_eta(_snapshot(outputs_ended=400, cost_share=1.0)) == (8.0, 0.0)


@pytest.mark.parametrize("changes", [{"outputs_ended": 0}, {"working_s": 0.0}, {"cost_share": 0.0}])
def test_nothing_is_known_before_the_first_asset(changes: dict[str, Any]) -> None:
    assert rate_and_eta(_snapshot(**changes)) == (None, None)


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({}, "100/400 assets, 2.0/s, 3 min 20 s to go, 2 workers"),
        ({"rows_failed": 3}, "100/400 assets, 2.0/s, 3 min 20 s to go, 2 workers, 3 failed"),
        ({"workers": 1}, "100/400 assets, 2.0/s, 3 min 20 s to go, 1 worker"),
        ({"outputs_ended": 0, "cost_share": 0.0}, "0/400 assets, 2 workers"),
        ({"outputs_ended": 0, "working_s": 0.0, "workers": 0}, "0/400 assets, 0 workers"),
    ],
)
def test_a_snapshot_is_one_line(changes: dict[str, Any], line: str) -> None:
    assert describe(_snapshot(**changes)) == line


def test_a_slow_rate_is_not_said_to_be_none() -> None:
    assert "0.0/s" not in describe(_snapshot(working_s=5000.0))


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.0, "0 s"),
        (0.4, "0 s"),
        (12.3, "12 s"),
        (59.4, "59 s"),
        (59.6, "1 min 00 s"),
        (185.0, "3 min 05 s"),
        (3599.4, "59 min 59 s"),
        (3599.6, "1 h 00 min"),
        (7800.0, "2 h 10 min"),
        (100 * 3600.0, "100 h 00 min"),
    ],
)
def test_seconds_are_said_as_people_say_them(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_a_line_is_written_at_each_tenth_and_not_between(capsys: pytest.CaptureFixture[str]) -> None:
    lines = Lines()
    for ended in range(0, 401, 10):
        lines.show(_snapshot(outputs_ended=ended))
    shown = [line.split()[1] for line in capsys.readouterr().err.splitlines()]
    assert shown == [f"{ended}/400" for ended in range(0, 401, 40)]


def test_nothing_is_written_before_a_worker_is_ready(capsys: pytest.CaptureFixture[str]) -> None:
    Lines().show(_snapshot(workers=0))
    assert capsys.readouterr().err == ""
