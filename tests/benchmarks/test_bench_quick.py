"""The benchmark at its smallest: the real command, exact counts, equal outputs and no times."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from benchmarks.trial import Trial, compare

ROOT = Path(__file__).parents[2]


@pytest.mark.long
@pytest.mark.ray
@pytest.mark.slow
def test_the_quick_benchmark_finds_equal_outputs_and_exact_counts(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "benchmarks", "--only", "^speed$", "--quick", "--out", str(tmp_path)]

    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)

    assert done.returncode == 0, done.stdout + done.stderr
    latest = json.loads((tmp_path / "latest.json").read_text())
    found = {row["name"]: row for row in latest["rows"] if row["is_reached"] is not None}
    assert found.keys() == {"count_model_loads", "count_text_rows", "count_batches"}
    assert all(row["is_reached"] for row in found.values()), found
    assert "pictures equal" in found["count_batches"]["note"]
    assert latest["machine"]["cores"] >= 1
    assert latest["versions"].keys() >= {"torch", "ray", "sdbatch"}
    assert latest["load"].keys() == {"speed"}
    assert (tmp_path / "latest.md").read_text().count("not measured") > 10


def _trial(folder: Path, arm: str, value: int) -> Trial:
    folder = folder / arm
    folder.mkdir()
    Image.fromarray(np.full((4, 4, 3), value, np.uint8)).save(folder / "row-0.png")
    files = {"row-0": folder / "row-0.png"}
    return Trial(arm=arm, rate_per_s=1, cpu_ms=1, share=1, wall_s=1, cpu_s=1, notes=[], files=files)


def test_a_picture_that_is_off_by_two_stops_the_benchmark(tmp_path: Path) -> None:
    reference, near, far = (_trial(tmp_path, arm, value) for arm, value in (("a", 100), ("b", 101), ("c", 102)))

    assert compare([reference, near]).startswith("0 of 1")
    with pytest.raises(ValueError, match="c: row-0 is off by 2 of 255 from that of a"):
        compare([reference, near, far])
