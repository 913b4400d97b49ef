"""The counts of the benchmarks of scale, at their smallest and in this process."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from benchmarks import scale_assets, scale_large, scale_runs


@pytest.fixture(autouse=True)
def _fsync_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "fsync", os.fsync)  # the benchmarks leave it out, and it comes back with the test's end


def test_status_and_a_resume_ask_as_little_after_many_runs_as_after_few(tmp_path: Path) -> None:
    found = {}
    for runs in (12, 24):
        output, manifest = str(tmp_path / f"{runs}"), str(tmp_path / f"manifest-{runs}")
        made = scale_runs.make(output, manifest, str(runs), "10")
        status, resume = scale_runs.status(output), scale_runs.resume(output)
        plan = scale_runs.plan(output, manifest)

        assert resume["outcomes"] == made["outcomes"] == 10 * (runs - 1) + 9
        assert plan["reused"] == 9
        found[runs] = (sum(status["calls"].values()), resume["calls"]["read"], sum(plan["calls"].values()))

    for status_calls, objects, plan_calls in found.values():
        assert status_calls <= 3
        assert objects <= 10
        assert plan_calls <= 60


def test_metadata_and_gallery_ask_for_commits_and_never_for_assets(tmp_path: Path) -> None:
    output = str(tmp_path / "campaign")
    made = scale_assets.make(output, str(tmp_path / "manifest"), "40")
    written = scale_assets.metadata(output)
    verified = scale_assets.verify(output)

    assert made["bytes"] > 40 * 100
    assert written["requests"]["read"] <= 6
    assert verified["hashed"] == 40
    assert verified["findings"] == 0
    assert verified["requests"]["read"] <= 40 + 8
    assert verified["requests"]["list"] <= 5
    assert scale_assets.hashing(output)["requests"] == {"list": 1, "read": 40}


def test_a_resume_of_a_snapshot_makes_the_tenth_that_is_left(tmp_path: Path) -> None:
    manifest, output = tmp_path / "manifest", str(tmp_path / "campaign")
    scale_large.write_manifest(manifest, 12_000)
    made = scale_large.make(str(manifest), output)
    resumed = scale_large.resume(str(manifest), output)

    assert scale_large.plan(str(manifest), str(tmp_path / "empty"))["rows"] == {"new": 12_000}
    assert made["outcomes"] + resumed["pending"] == 12_000
    assert resumed["first"] == f"row-{9 * scale_large.UNIT_ROWS:08d}"


def test_the_figures_beside_a_ratio_are_medians_of_their_pairs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    taken = {"hashing": iter((1.0, 2.0, 4.0)), "verify": iter((3.0, 2.0, 8.0)), "metadata": iter((5.0,))}

    def measured(_: str, what: str, *_arguments: object) -> dict[str, Any]:
        found = {"bytes": 1, "peak_mib": 1, "requests": {}, "hashed": 1000, "findings": 0}
        return {**found, "cpu_s": next(taken[what])} if what in taken else found

    monkeypatch.setattr(scale_assets, "measured", measured)
    _, verified = scale_assets._rows("campaign", tmp_path, 1000, "disk")
    assert (verified.ours, verified.baseline, verified.ratio, verified.spread) == (3.0, 2.0, 2.0, (1.0, 3.0))
