"""The table of promises: what is judged, in which direction, and that nothing is left out."""

from __future__ import annotations

import importlib
import json
from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks.__main__ import circumstances
from benchmarks.groups import GROUPS
from benchmarks.table import (
    COMPARED,
    TARGETS,
    Row,
    from_json,
    full,
    in_page,
    in_readme,
    paired,
    row,
    to_json,
    to_markdown,
)

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize(
    ("name", "figures", "is_reached"),
    [
        ("cpu_per_row", {"ours": 10, "baseline": 20, "ratio": 2.0}, True),
        ("cpu_per_row", {"ours": 10, "baseline": 19, "ratio": 1.9}, False),
        ("plan_cpu", {"ours": 6}, True),
        ("plan_cpu", {"ours": 6.1}, False),
        ("count_batches", {"ours": 48, "baseline": 48, "ratio": 1.0}, True),
        ("count_batches", {"ours": 96, "baseline": 48, "ratio": 2.0}, False),
        ("plan_cpu", {}, None),
    ],
)
def test_a_promise_is_reached_on_its_own_side_of_the_bound(
    name: str, figures: dict[str, float], is_reached: bool | None
) -> None:
    assert row(name, **figures).is_reached is is_reached  # type: ignore[arg-type]


def test_a_promise_that_nobody_measured_stands_in_the_table() -> None:
    measured = [row("plan_cpu", ours=3.0), Row(name="beside", ours=1.0)]

    rows = full(measured)

    assert [one.name for one in rows] == [*TARGETS, "beside"]
    assert {one.name for one in rows if one.judged is not None} == {"plan_cpu", "beside"}
    assert all("not measured" in one.note for one in rows if one.judged is None)


def test_pairs_are_judged_by_the_median_of_their_own_ratios() -> None:
    found = paired("cpu_per_row", ours=[10, 20, 5], baseline=[20, 60, 20], ratios=[2, 3, 4])

    assert (found.ours, found.baseline, found.ratio, found.spread) == (10, 20, 3, (2, 4))


def test_a_row_survives_json() -> None:
    found = paired("cpu_per_row", [10, 20], [20, 60], [2, 3], note="threads pinned")

    assert from_json(to_json(found)) == found


def test_every_row_of_the_markdown_has_every_column() -> None:
    lines = to_markdown(full([paired("cpu_per_row", [10, 20], [20, 60], [2, 3])])).splitlines()

    assert {line.count("|") for line in lines} == {10}


@pytest.mark.parametrize("name", GROUPS)
def test_a_group_names_a_function(name: str) -> None:
    module, _, function = GROUPS[name].partition(":")

    assert callable(getattr(importlib.import_module(module), function))


def test_the_documentation_has_the_latest_figures() -> None:
    latest = json.loads((ROOT / "benchmarks" / "results" / "latest.json").read_text())
    rows = [from_json(values) for values in latest["rows"]]
    page = (ROOT / "docs/how/speed.md").read_text()

    assert in_page(page, rows, circumstances(latest)) == page, "`make bench` writes both"
    assert in_page(page, [row("plan_cpu", ours=1.25)], "").count("| 1.25 s |") == 1


def test_the_readme_compares_with_the_latest_figures() -> None:
    latest = json.loads((ROOT / "benchmarks" / "results" / "latest.json").read_text())
    rows = {values["name"]: from_json(values) for values in latest["rows"]}
    page = (ROOT / "README.md").read_text()

    assert in_readme(page, rows.values()) == page, "`make bench` writes both"

    slower = replace(rows["steady rows/s / accelerate"], baseline=0.125, ratio=700.0, spread=(600.0, 800.0))
    changed = in_readme(page, [*rows.values(), slower])
    assert "two processes | 0.125 |" in changed
    assert "700 times (600 to 800) as many rows a second as accelerate's loop" in changed


def test_the_best_rate_of_the_readme_stands_out() -> None:
    latest = json.loads((ROOT / "benchmarks" / "results" / "latest.json").read_text())
    rows = {values["name"]: from_json(values) for values in latest["rows"]}
    page = (ROOT / "README.md").read_text()
    for name in COMPARED:
        best = in_readme(page, [*rows.values(), replace(rows[name], baseline=9999.0)])
        (line,) = (line for line in best.splitlines() if "**9,999**" in line)
        assert COMPARED[name] in line


def test_a_run_without_the_arms_leaves_the_readme() -> None:
    assert in_readme("as it was", [row("plan_cpu", ours=1.0)]) == "as it was"
