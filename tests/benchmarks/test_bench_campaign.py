"""The campaign as it comes: what is drawn, how it is compared, and all arms on a small one."""

from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

from benchmarks.as_it_comes import Made, compare
from benchmarks.mixed import campaign
from benchmarks.mixed.grouping import SETTINGS, groups
from benchmarks.overhead import beyond_row, outside_ms
from benchmarks.probe import Note
from benchmarks.trial import Trial

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the manifest of a whole campaign."""
    return campaign.write(tmp_path_factory.mktemp("campaign"), 1200, 20261121)


def test_the_campaign_is_as_mixed_as_it_says(drawn: Path) -> None:
    rows = pq.read_table(drawn).to_pylist()
    tasks = Counter(row["task"] for row in rows)
    pictures = [row for row in rows if row["task"] != "text-to-video"]
    prompts = Counter(row["prompt"] for row in rows)

    assert tasks["text-to-video"] == 5
    assert 380 < tasks["image-to-image"] <= 400
    assert len({row["model"] for row in pictures}) == 2
    assert len({(row["height"], row["width"]) for row in pictures}) == 4
    assert len({row["num_inference_steps"] for row in rows}) == 3
    assert len({row["guidance_scale"] for row in pictures}) == 4
    assert len({row["images"][0] for row in rows if row["images"]}) == 40
    assert sum(count - 1 for count in prompts.values()) == 300, "one prompt in four was there before"
    assert [row["id"] for row in rows] != sorted(row["id"] for row in rows)


def test_a_group_shares_every_setting_and_no_row_is_left_out(drawn: Path) -> None:
    found = groups(drawn)

    assert sorted(row["id"] for group in found for row in group) == [f"row-{number:06d}" for number in range(1200)]
    assert all(len({tuple(row[name] for name in SETTINGS) for row in group}) == 1 for group in found)
    assert max(map(len, found)) <= 16


def _made(folder: Path, value: int) -> Made:
    folder.mkdir()
    Image.fromarray(np.full((4, 4, 3), value, np.uint8)).save(folder / "row-0.png")
    return Made(cpu_s=1, wall_s=1, rate_per_s=1, files={"row-0": folder / "row-0.png"})


def test_an_output_that_is_off_by_two_stops_the_benchmark(tmp_path: Path) -> None:
    reference, near, far = (_made(tmp_path / str(value), value) for value in (100, 101, 102))

    assert compare({"a": reference, "b": near}).startswith("0 of 1")
    with pytest.raises(ValueError, match="c: row-0 is off by 2"):
        compare({"a": reference, "c": far})


def test_what_is_outside_the_calls_is_what_their_threads_did_not_use() -> None:
    notes = [
        Note(process=1, kind="call", begin_s=begin_s, end_s=begin_s + 1, rows=10, cpu_s=0.5) for begin_s in range(5)
    ]
    trial = Trial(arm="a", rate_per_s=1, cpu_ms=70.0, share=1, wall_s=1, cpu_s=1, notes=notes, files={})

    assert outside_ms(trial) == pytest.approx(70 - 50)


@pytest.mark.long
@pytest.mark.ray
@pytest.mark.slow
def test_all_arms_make_a_small_campaign_alike(tmp_path: Path) -> None:
    pytest.importorskip("pandas", reason="Ray Data imports it")
    command = [sys.executable, "-m", "benchmarks", "--only", "^campaign$", "--quick", "--out", str(tmp_path)]

    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)

    assert done.returncode == 0, done.stdout + done.stderr
    found = {row["name"]: row for row in json.loads((tmp_path / "latest.json").read_text())["rows"]}
    assert "of 180 outputs equal" in found["campaign_cpu"]["note"]


def test_a_baseline_that_took_less_than_the_bare_calls_gives_no_ratio() -> None:
    disturbed = beyond_row([-0.3, 5.4], [4.3, -1.2], "768 rows")
    quiet = beyond_row([1.0, 2.0], [4.0, 4.0], "768 rows")

    assert disturbed.judged is None
    assert disturbed.is_reached is None
    assert "1 of 2 pairs" in disturbed.note
    assert quiet.ratio == 0.375
    assert quiet.is_reached
