"""A run that is watched, at a tenth of its size: the page grows by itself, and costs the driver little."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import pytest
from support.browser import needs_browser

from benchmarks.watched import arguments, measure


@pytest.mark.long
@pytest.mark.browser
@needs_browser
def test_the_page_of_a_run_grows_by_itself_and_costs_little(tmp_path: Path) -> None:
    options = arguments().parse_args(
        ["--rows", "200", "--steps", "12", "--model", "builtin:tiny-random", "--in-process", "--every-s", "2"]
    )
    figures = measure(tmp_path, tmp_path, options)
    shown = [num for _, num in figures["grown"]]

    assert figures["state"] == "done"
    assert figures["said"] == []
    assert len({num for num in shown if 0 < num < 200}) >= 2, shown
    assert all(before <= after for before, after in pairwise(shown))
    assert shown[-1] == 200
    assert len(figures["watched"]) > 2
    assert "200 of 200 made, 0 failed, 0 open" in figures["watched"][-1]
    assert figures["shares"]["gallery of wall"] < 0.02, figures
    assert figures["shares"]["gallery and status of wall"] < 0.03, figures
