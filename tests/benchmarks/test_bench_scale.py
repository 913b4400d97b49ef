"""Rows in the thousands through the real engine without a model: every one committed once, and few calls for them."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.lab import Lab
from benchmarks.scale import QUICK_ROWS, rows


@pytest.mark.ray
@pytest.mark.slow
def test_rows_that_cost_nothing_are_committed_once_for_few_calls_and_a_second_run_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[2]))
    found = {row.name: row for row in rows(Lab(folder=tmp_path, is_quick=True))}

    assert found.keys() == {"plan_cpu", "plan_memory", "noop_wall", "noop_messages", "resume"}
    messages = found["noop_messages"].ours
    assert messages is not None
    assert messages * QUICK_ROWS < QUICK_ROWS / 1024 + 100  # the end's small units, and a ping of each worker every 2 s
    done = int(found["resume"].note.split()[0].replace(",", ""))
    assert 0.5 * QUICK_ROWS < done < QUICK_ROWS
    assert found["plan_memory"].is_reached
