"""The short part of `make chaos`: a few of its cases, and that a case can fail."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from chaos_cases import cases, judged, kill_at, reference, struck_problems
from chaos_lab import Lab
from chaos_points import POINTS, VICTIMS, kills, senseless

import sdbatch.points

CHOSEN = ("kill/local/between-two-assets/worker", "kill/local/amid-compaction/driver", "kill/s3/before-the-commit/s3")
CASES = {case.name: case for case in cases()}


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    with Lab(tmp_path_factory.mktemp("chaos")) as made:
        yield made


@pytest.mark.long
@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.parametrize("name", CHOSEN)
def test_a_kill_and_the_same_command_again_leave_what_an_undisturbed_run_leaves(name: str, lab: Lab) -> None:
    """In the short run a worker on Ray is killed in test_campaign_copies.py."""
    found = CASES[name].act(lab, lab.case_folder(name))

    assert found.problems == []
    assert found.figures["ok"] == 40


@pytest.mark.long
@pytest.mark.slow
def test_a_driver_killed_amid_compaction_leaves_what_the_same_command_ends_well(lab: Lab) -> None:
    """The driver compacts in its own process, so no cluster is started."""
    point = next(point for point in POINTS if point.name == "amid-compaction")
    found = kill_at(point, "driver", "local", lab, lab.case_folder("amid-compaction"), "--in-process")

    assert found.problems == []
    assert found.figures["ok"] == 40


def test_every_point_and_victim_is_either_struck_or_left_out_for_a_reason() -> None:
    struck = set(kills())
    left_out = {
        (point, victim, store)
        for point in POINTS
        for victim in VICTIMS
        for store in ("local", "s3")
        if senseless(point, victim, store)
    }

    assert not struck & left_out
    assert len(struck) + len(left_out) == len(POINTS) * len(VICTIMS) * 2
    assert len(CASES) == len(cases())


def test_every_point_of_the_product_is_struck_and_stands_in_its_code() -> None:
    code = "".join(path.read_text() for path in Path(sdbatch.points.__file__).parent.rglob("*.py"))

    assert [point.name for point in POINTS] == list(sdbatch.points.POINTS)
    assert sorted(re.findall(r"\breached\(\"([a-z-]+)\"\)", code)) == sorted(sdbatch.points.POINTS)


def test_a_point_without_a_hook_is_passed_and_one_with_a_hook_tells_its_name() -> None:
    passed: list[str] = []
    sdbatch.points.reached("after-fetch")
    sdbatch.points.install(passed.append)
    try:
        sdbatch.points.reached("after-fetch")
    finally:
        sdbatch.points.install(None)
    sdbatch.points.reached("after-load")

    assert passed == ["after-fetch"]


def test_a_point_that_is_gone_fails_its_case(lab: Lab) -> None:
    point = replace(POINTS[0], name="after-taking-the-leash")
    found = kill_at(point, "driver", "local", lab, lab.case_folder("gone"))

    assert found.problems == ["sdbatch.points has no point after-taking-the-leash; mend the table of points"]


def test_a_point_that_is_never_passed_fails_its_case(tmp_path: Path) -> None:
    assert struck_problems(tmp_path) == ["the point was never passed"]


@pytest.mark.slow
def test_a_lost_asset_a_doubled_row_and_half_a_file_fail_a_case(lab: Lab, tmp_path: Path) -> None:
    wanted = reference(lab, lab.rows(40))
    shutil.copytree(lab.folder / "work" / "reference-0", tmp_path / "copy")
    output = tmp_path / "copy" / "campaign"
    lost, half, *_ = sorted((output / "assets").iterdir())
    lost.unlink()
    half.write_bytes(half.read_bytes()[:-9])
    (half.parent / f"{half.stem}9{half.suffix}").write_bytes(b"")
    (tmp_path / "copy" / "made").open("a").write("0 0 7 7\n")
    found = judged(tmp_path / "copy", str(output), wanted, 0, [], {})

    assert {"1 missing", "1 doubled", "1 other", "2 half", "1 orphans"} <= set(found.problems)
    assert "1 outputs were made again, over 0" in found.problems
