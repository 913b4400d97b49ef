"""The gallery, opened in a real browser."""

from __future__ import annotations

import html
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from sdbatch.commit.schema import COMMIT, table
from sdbatch.encode.image import thumbnail
from sdbatch.report import gallery
from sdbatch.report.gallery import gallery_pages

EVIL = '<script>document.title="owned"</script><img src=x onerror=document.title="owned">'
BROWSER = shutil.which("chromium")
browser = pytest.mark.skipif(BROWSER is None, reason="needs Debian's chromium")


def _rows(count: int) -> list[dict[str, Any]]:
    import numpy as np

    picture = np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8)
    base = {"model": "tiny", "seed": 1, "num_inference_steps": 4, "guidance_scale": 5.0, "width": 64, "height": 64}
    rows: list[dict[str, Any]] = []
    for number in range(count):
        task = "image-to-image" if number % 3 == 0 else "text-to-image"
        row = {**base, "id": f"row-{number}", "n": 0, "task": task, "prompt": f"scene {number}", "status": "ok"}
        rows.append({**row, "asset": f"assets/row-{number}.png", "thumbnail": thumbnail(picture)})
    rows[0]["prompt"] = EVIL
    rows[1].update(status="failed", error_type="BlankOutput", error_message=EVIL, asset=None, thumbnail=None)
    return rows


def _write(folder: Path, rows: list[dict[str, Any]]) -> Path:
    for name, page in gallery_pages("s3://b/<i>", "r000001", [table(rows, COMMIT)], len(rows)):
        (folder / name).write_bytes(page)
    return folder / "index.html"


def _dom(url: str, folder: Path) -> str:
    assert BROWSER is not None
    command = [BROWSER, "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"]
    command += ["--disable-background-networking", "--disable-component-update", "--disable-sync"]
    command += [f"--user-data-dir={folder / 'profile'}", "--virtual-time-budget=2000", "--dump-dom", url]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr[-500:]
    return done.stdout


def _visible(dom: str) -> list[str]:
    cards = re.findall(r"<article ([^>]*)>", dom)
    return [re.search(r'data-text="(\S+)', card)[1] for card in cards if "hidden" not in card]  # type: ignore[index]


@pytest.mark.browser
@browser
def test_a_browser_shows_every_card_and_runs_nothing_of_a_prompt(tmp_path: Path) -> None:
    dom = _dom(_write(tmp_path, _rows(6)).as_uri(), tmp_path)

    assert len(_visible(dom)) == 6
    assert '<span id="shown">6 of 6</span>' in dom
    assert "owned" not in re.search(r"<title>(.*?)</title>", dom)[1]  # type: ignore[index]
    assert dom.count("<script") == 1
    assert dom.count("<img ") == 5
    assert html.escape(EVIL, quote=False) in dom


@pytest.mark.browser
@browser
@pytest.mark.parametrize(
    ("address", "shown"),
    [
        ("#status=failed", ["row-1"]),
        ("#task=image-to-image", ["row-0", "row-3"]),
        ("#text=SCENE%204", ["row-4"]),
        ("#task=image-to-image&status=failed", []),
    ],
)
def test_the_filters_leave_what_matches(tmp_path: Path, address: str, shown: list[str]) -> None:
    dom = _dom(_write(tmp_path, _rows(6)).as_uri() + address, tmp_path)

    assert _visible(dom) == shown
    assert f'<span id="shown">{len(shown)} of 6</span>' in dom


def test_pages_are_cut_and_name_each_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gallery, "ASSETS_PER_PAGE", 4)
    _write(tmp_path, _rows(10))
    pages = sorted(path.name for path in tmp_path.glob("*.html"))

    assert pages == ["index.html", "page-2.html", "page-3.html"]
    assert [(tmp_path / name).read_text().count("<article") for name in pages] == [4, 4, 2]
    assert 'href="page-3.html"' in (tmp_path / "index.html").read_text()
    assert 'href="index.html"' in (tmp_path / "page-3.html").read_text()


def test_an_empty_campaign_has_a_page_too(tmp_path: Path) -> None:
    pages = list(gallery_pages("out", "r000001", [], 0))

    assert [name for name, _ in pages] == ["index.html"]
    assert b"0 of 0" in pages[0][1]
