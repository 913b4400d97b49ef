"""The gallery, opened in a real browser."""

from __future__ import annotations

import html
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from sdbatch.campaign.schema import COMMIT, table
from sdbatch.encode.image import thumbnail
from sdbatch.encode.video import encode_video
from sdbatch.job import Encode
from sdbatch.report import gallery
from sdbatch.report.gallery import gallery_pages

EVIL = '<script>document.title="owned"</script><img src=x onerror=document.title="owned">'
PLAY_TRIES = 6
BROWSER = shutil.which("chromium")
browser = pytest.mark.skipif(BROWSER is None, reason="needs Debian's chromium")


def _rows(count: int) -> list[dict[str, Any]]:
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


def _clip_row(folder: Path, suffix: str) -> dict[str, Any]:
    """Return the row of a clip that lies in the campaign; only its first frame is black."""
    frames_FHWC = np.full((9, 64, 96, 3), (250, 10, 10), np.uint8)
    frames_FHWC[0] = 0
    options = Encode(video=suffix)
    encoded = encode_video(frames_FHWC, 8.0, options, request_key="a" * 64, n=0, recipe="{}")
    (folder / "assets").mkdir(exist_ok=True)
    (folder / "assets" / f"clip.{suffix}").write_bytes(encoded.data)
    shape = {"width": 96, "height": 64, "num_frames": 9, "fps": 8.0, "media_type": encoded.media_type}
    row = {**_rows(3)[2], **shape, "id": "clip", "task": "text-to-video", "asset": f"assets/clip.{suffix}"}
    return {**row, "thumbnail": thumbnail(frames_FHWC[0])}


def _write(folder: Path, rows: list[dict[str, Any]]) -> Path:
    folder.mkdir(exist_ok=True)
    for name, page in gallery_pages("s3://b/<i>", "r000001", [table(rows, COMMIT)], len(rows)):
        (folder / name).write_bytes(page)
    return folder / "index.html"


def _browse(url: str, folder: Path, *what: str) -> str:
    assert BROWSER is not None
    command = [BROWSER, "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"]
    command += ["--disable-background-networking", "--disable-component-update", "--disable-sync"]
    command += [f"--user-data-dir={folder / 'profile'}", "--virtual-time-budget=2000", *what, url]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr[-500:]
    return done.stdout


def _dom(url: str, folder: Path) -> str:
    return _browse(url, folder, "--dump-dom")


def _red_cards(url: str, folder: Path) -> int:
    """Return how many cards of the screen show the clips' red, which their first frame has not."""
    picture = folder / "screen.png"
    _browse(url, folder, "--window-size=700,500", f"--screenshot={picture}")
    pixels_HWC = np.asarray(Image.open(picture).convert("RGB")).astype(int)
    is_red_W = (np.abs(pixels_HWC - (250, 10, 10)).max(axis=-1) < 12).sum(axis=0) > 80
    return int((np.diff(is_red_W.astype(int)) == 1).sum())


def _show_red(count: int, url: str, folder: Path) -> bool:
    """Whether so many cards come to show red; virtual time does not wait for a decoder, hence the tries."""
    return any(_red_cards(url, folder) == count for _ in range(PLAY_TRIES))


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


def test_a_clip_shows_its_first_frame_and_is_not_read_before_it_is_played(tmp_path: Path) -> None:
    row = {**_clip_row(tmp_path, "mp4"), "video": "brand/source.mp4"}
    page = _write(tmp_path / "report", [row]).read_text()

    attributes = 'controls loop playsinline preload="none"'
    assert re.search(rf'<video src="../assets/clip.mp4" poster="data:image/webp;base64,\S+" {attributes}>', page)
    assert "96 x 64, 9 frames, 8 fps" in page
    assert "from brand/source.mp4" in page


@pytest.mark.browser
@browser
def test_a_browser_plays_both_kinds_of_clips_under_the_pages_own_policy(tmp_path: Path) -> None:
    page = _write(tmp_path / "report", [_clip_row(tmp_path, suffix) for suffix in ("mp4", "webm")])
    playing = page.read_text().replace('preload="none"', "autoplay muted")  # what a click would do
    page.write_text(playing)
    assert _show_red(2, page.as_uri(), tmp_path)
    page.write_text(playing.replace("media-src 'self' file:;", ""))
    assert _red_cards(page.as_uri(), tmp_path) == 0


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
