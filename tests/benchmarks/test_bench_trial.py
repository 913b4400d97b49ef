"""How a run's figures come from its notes."""

from __future__ import annotations

import os
import subprocess
import sys
import time

import pytest

from benchmarks.meter import Meter
from benchmarks.probe import Note
from benchmarks.trial import steady_of


def _call(process: int, begin_s: float, end_s: float, rows: int = 16) -> Note:
    return Note(process=process, kind="call", begin_s=begin_s, end_s=end_s, rows=rows)


def test_the_steady_part_begins_when_the_last_worker_has_made_a_batch() -> None:
    notes = [_call(1, 0, 1), _call(1, 1, 2), _call(2, 5, 6), _call(1, 6, 7), _call(2, 6, 7)]

    steady = steady_of(notes, end_s=8)

    assert (steady.begin_s, steady.rows, steady.workers) == (6, 32, 2)
    assert steady.rate_per_s == 16


def test_a_worker_that_waits_lowers_the_share_of_time_in_the_model() -> None:
    busy = [_call(1, 0, 10), _call(2, 0, 10)]
    waiting = [_call(1, 0, 10), _call(2, 0, 5)]

    assert steady_of(busy, end_s=10).share == 1
    assert steady_of(waiting, end_s=10).share == 0.75


def test_the_meter_counts_what_children_burn() -> None:
    burn = "import sys, time; end = time.process_time() + 1.0\nwhile time.process_time() < end: pass\nsys.stdin.read()"
    script = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {burn!r}])"
    process = subprocess.Popen([sys.executable, "-c", script], env={**os.environ}, stdin=subprocess.PIPE)
    begin_s = time.time()
    with Meter(process.pid) as meter:
        while meter.total_s < 1.0 and time.time() < begin_s + 60:
            time.sleep(0.05)
        process.communicate(timeout=120)

    assert meter.total_s == pytest.approx(1.0, abs=0.5)
    assert meter.cpu_s(begin_s - 1) == 0
    assert meter.cpu_s(time.time() + 1) == meter.total_s
