"""A round of review by keys in a browser: the page on a disk, its file taken in, then the page of `sdbatch review`."""

from __future__ import annotations

import re
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from conftest import prompts
from support.browser import Page, browser, needs_browser
from support.servers import end

import sdbatch
from sdbatch import Selection

pytestmark = [pytest.mark.browser, needs_browser]
REROLL = Selection(is_rerolling=True)


def _shown(page: Page) -> list[str]:
    return [str(name) for name in page.ask("sdbatch.filter.shown.map(row => sdbatch.data.name(row))")]


def _tab_to(page: Page, selector: str) -> None:
    """Press Tab until such an element has the focus."""
    for _ in range(60):
        page.press("Tab")
        if page.ask(f"document.activeElement.matches('{selector}')"):
            return
    raise AssertionError(f"Tab does not lead to {selector}")


def _file(folder: Path) -> Path:
    """Wait for the file of decisions that the browser downloads."""
    until_s = time.monotonic() + 60
    while not (files := list(folder.glob("decisions-*.jsonl"))) and time.monotonic() < until_s:
        time.sleep(0.02)
    return files[0]


def _sdbatch(*arguments: str | Path) -> str:
    command = [sys.executable, "-m", "sdbatch", *map(str, arguments)]
    return subprocess.run(command, check=True, capture_output=True, text=True, timeout=120).stdout


@contextmanager
def _served(output: str) -> Any:
    """Let the command serve a campaign; yield the page's address and, at the end, what it printed."""
    command = [sys.executable, "-m", "sdbatch", "review", output, "--no-browser", "--by", "kim"]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.PIPE)
    told: list[str] = []
    try:
        assert process.stderr is not None
        found = re.search(r"http://\S+", process.stderr.readline().decode())
        assert found is not None
        yield found[0], told
        process.terminate()
        assert process.wait(60) == 0
        assert process.stdout is not None
        told.append(process.stdout.read().decode())
    finally:
        end(process)


def test_a_round_by_keys(
    tmp_path: Path, write_manifest: Callable[..., str], job_of: Callable[..., dict[str, Any]]
) -> None:
    job = job_of(write_manifest(prompts(4, num_outputs=2)), limits={"rerolls": 2})
    output = job["output"]

    def run(selection: Selection | None = None) -> tuple[int, int]:
        result = sdbatch.run(job, selection, in_process=True)
        return result.counts["rows_generated"], result.outputs_waiting

    def verdicts() -> Counter[str]:
        return Counter(row["verdict"] or "open" for row in sdbatch.metadata(output).to_pylist())

    assert run() == (8, 0)
    with browser(tmp_path) as page:
        # The page as it lies on a disk: decisions leave it as a file.
        page.open(Path(output, "report", "index.html").as_uri())
        _tab_to(page, "#reviewer")
        page.write("jane")
        _tab_to(page, ".tile")
        page.press("a", "r", "p", "ArrowRight", "r", "a")
        page.press("Enter", "n")  # the light box, and its note
        page.write("too dark")
        page.press("Enter", "r", "a", "Escape")
        page.wait("!document.getElementById('box').open")
        assert page.ask("document.getElementById('download').textContent") == "Download 7 decisions"
        _tab_to(page, "#download")
        page.press("Enter")
        file = _file(page.folder)

        assert "7 decisions added; outputs: 3 approved, 1 open, 1 picked, 3 rejected" in _sdbatch(
            "review", output, "--import", file
        )
        assert "0 decisions added" in _sdbatch("review", output, "--import", file)
        noted = [row for row in sdbatch.metadata(output).to_pylist() if row["note"]]
        assert [(row["id"], row["n"], row["verdict"], row["reviewed_by"], row["note"]) for row in noted] == [
            ("row-0003", 0, "rejected", "jane", "too dark")
        ]
        assert run() == (0, 3)
        assert run(REROLL) == (3, 0)
        assert verdicts() == {"approved": 3, "picked": 1, "open": 4}

        # The page of the server: what is open is gone through, and each decision is saved at once.
        with _served(output) as (address, told):
            page.open(f"{address}#f.verdict=open")
            assert _shown(page) == ["row-0000 #2", "row-0001 #1", "row-0002 #2", "row-0003 #2"]
            page.press("ArrowRight", "a", "r", "r", "a", "u", "a")
            page.wait("sdbatch.review.own.size === 4")
            page.wait("[...sdbatch.review.own.values()].every(decision => decision.saved)")
            assert page.ask("document.getElementById('unsaved').hidden")
            assert verdicts() == {"approved": 5, "picked": 1, "rejected": 2}
            page.ask("sdbatch.lookForNewer()")
            assert page.ask("document.getElementById('banner').hidden")

            # A run meanwhile: the page stays as it is, and says that it is old.
            assert run(REROLL) == (2, 0)
            page.ask("sdbatch.lookForNewer()")
            assert page.ask("document.getElementById('banner').innerText").startswith("The campaign has changed since")
            assert len(_shown(page)) == 4
            page.click("#banner button")
            page.wait("window.sdbatch && sdbatch.isReady === true && document.getElementById('banner').hidden")
            assert _shown(page) == ["row-0001 #2", "row-0002 #3"]
        assert page.said == []
        assert re.fullmatch(r"[456] decisions saved\n", told[0]), told

        # One is rejected to the end, the other is approved at its second try.
        with _served(output) as (address, _):
            page.open(f"{address}#f.verdict=open")
            assert _shown(page) == ["row-0001 #2", "row-0002 #3"]
            page.press("ArrowRight", "r", "a")
            page.wait("[...sdbatch.review.own.values()].filter(decision => decision.saved).length === 2")
    assert verdicts() == {"approved": 6, "picked": 1, "rejected": 1}

    delivery = {
        "delivery": "spring",
        "campaign": output,
        "to": str(tmp_path / "out"),
        "only": "approved",
        "processes": 1,
        "name": "{id}-{n}.{ext}",
        "formats": [{"name": "small", "width": 64, "height": 64, "type": "png"}],
    }
    report = sdbatch.deliver(delivery)
    assert (report.made, report.failed) == (7, {})
    assert sorted(file.stem for file in (tmp_path / "out").glob("*.png")) == [
        *("row-0000-0", "row-0000-2", "row-0001-0", "row-0002-1", "row-0002-3", "row-0003-1", "row-0003-2")
    ]
