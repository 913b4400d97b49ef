"""How long a run waits after faults that blame no row, and that one wait counts as one fault."""

from __future__ import annotations

import pytest

from sdbatch.dispatch import policy
from sdbatch.dispatch.backoff import MOST_WAIT_S, Backoff
from sdbatch.dispatch.executor import Shape

CPU = Shape(num_gpus=0, num_cpus=1, memory_gib=None)


@pytest.mark.fault("F34", "workers that die as often as they are replaced", "waits of 1, 2, 4, ... 60 s, then 60 s")
def test_waits_double_up_to_a_minute() -> None:
    backoff, now_s, waits = Backoff(), 1000.0, []
    for _ in range(9):
        assert backoff.add(now_s)
        waits.append(backoff.until_s - now_s)
        now_s = backoff.until_s

    assert waits == [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 60.0, 60.0, 60.0]
    assert max(waits) == MOST_WAIT_S


@pytest.mark.fault("F34", "twenty workers that die in one squeeze", "one fault, and one wait for all of them")
def test_faults_of_one_wait_count_as_one() -> None:
    backoff = Backoff()

    assert [backoff.add(10.0 + n / 100) for n in range(20)] == [True] + [False] * 19
    assert backoff.until_s == 11.0


def test_a_unit_that_ends_well_begins_anew_and_nobody_waits_any_longer() -> None:
    backoff = Backoff()
    for now_s in (0.0, 1.0, 3.0):
        backoff.add(now_s)
    backoff.waiting.append(CPU)
    assert backoff.due(4.0) == []

    backoff.clear()
    assert backoff.due(4.0) == [CPU]
    assert backoff.due(4.0) == []
    backoff.add(5.0)
    assert backoff.until_s == 6.0


def test_a_run_gives_up_after_a_quarter_of_an_hour_without_success() -> None:
    backoff, now_s = Backoff(), 0.0
    for _ in range(policy.MACHINE_FAULTS_MAX - 1):
        backoff.add(now_s)
        now_s = backoff.until_s

    assert 600 < now_s < 1000
