"""Rows in the thousands through the real engine without a model: every one committed once, and few calls for them."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.child import peak_mib
from benchmarks.lab import Lab
from benchmarks.scale import QUICK_ROWS, rows


@pytest.mark.long
@pytest.mark.ray
@pytest.mark.slow
def test_rows_that_cost_nothing_are_committed_once_for_few_calls_and_a_second_run_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[2]))
    found = {row.name: row for row in rows(Lab(folder=tmp_path, is_quick=True))}

    assert found.keys() == {"plan_cpu", "plan_memory", "noop_wall", "noop_messages", "resume", "resume_memory"}
    messages = found["noop_messages"].ours
    assert messages is not None
    assert messages * QUICK_ROWS < QUICK_ROWS / 1024 + 100  # the end's small units, and a ping of each worker every 2 s
    done = int(found["resume"].note.split()[0].replace(",", ""))
    assert 0.5 * QUICK_ROWS < done < QUICK_ROWS
    assert found["plan_memory"].is_reached


def test_a_childs_peak_memory_is_its_own_even_under_a_large_parent() -> None:
    ballast = b"x" * (256 << 20)
    script = "from benchmarks.child import peak_mib; print(peak_mib()); b'x' * (64 << 20); print(peak_mib())"
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=Path(__file__).parents[2], capture_output=True, text=True, check=True
    )
    before, after = map(float, done.stdout.split())

    assert peak_mib() > len(ballast) / 2**20
    assert before < after < 256
    assert after - before > 32
