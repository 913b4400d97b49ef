"""The gallery, used in a real browser from a disk: views, filters, keys, decisions, a run that goes on."""

from __future__ import annotations

import asyncio
import io
import json
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from support.browser import Page, browser, needs_browser
from support.galleries import as_table, campaign_rows, drawn, growing, row, write

from sdbatch.encode.image import thumbnail
from sdbatch.encode.video import encode_video
from sdbatch.job import Encode
from sdbatch.report import gallery
from sdbatch.report.gallery import state_values
from sdbatch.report.grid import GridSection, grid_page
from sdbatch.review.decision import Decision, parse_decision
from sdbatch.review.server import ReviewServer
from sdbatch.storage import open_store

pytestmark = [pytest.mark.browser, needs_browser]
EVIL = '<script>document.title="owned"</script><img src=x onerror=document.title="owned">'
SHOWN = "sdbatch.filter.shown.map(row => sdbatch.data.name(row))"
Open = Callable[..., Page]


@pytest.fixture(scope="module")
def tab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    """One browser for all tests."""
    with browser(tmp_path_factory.mktemp("browser")) as page:
        yield page


@pytest.fixture
def opened(tab: Page, tmp_path: Path) -> Open:
    """Write a gallery, open it under an address, and return the tab."""

    def open_(rows: list[dict[str, Any]], address: str = "", **state: Any) -> Page:
        tab.said.clear()
        tab.size(1280, 800)
        tab.open(write(tmp_path, rows, campaign=str(tmp_path), **state).as_uri() + address)
        return tab

    return open_


def _focused(page: Page) -> str:
    return str(page.ask("sdbatch.data.name(sdbatch.focused)"))


def _downloaded(folder: Path) -> list[Path]:
    """Wait for a file of decisions, and return those that are there."""
    until_s = time.monotonic() + 60
    while not (files := list(folder.glob("decisions-*.jsonl"))) and time.monotonic() < until_s:
        time.sleep(0.02)
    return files


def _decisions(page: Page) -> list[dict[str, Any]]:
    return list(page.ask("[...sdbatch.review.own.values()]"))


def test_the_sheet_shows_pictures_and_what_is_the_same_is_said_once(opened: Open) -> None:
    page = opened(campaign_rows(3))
    page.wait("document.querySelectorAll('.tile img[src^=data]').length === 18")

    assert page.ask("document.getElementById('summary').textContent") == "18 assets"
    assert "model tiny" in page.ask("document.getElementById('constants').textContent")
    caption = page.ask("document.querySelector('.tile .caption').innerText")
    assert caption == "mug-000.beach.de-DE\nmug-000 · de-DE · beach · 512 x 512"
    assert page.said == []


def test_the_whole_matrix_of_a_grid_is_on_paper(tab: Page, tmp_path: Path) -> None:
    cells = [(x, y, row(0, thumbnail=None)) for x in range(8) for y in range(5)]
    steps = [str(x) for x in range(8)]
    page = grid_page("c", "r", "g", ("steps", steps), ("scale", steps[:5]), [GridSection("a", cells)])
    (tmp_path / "grid.html").write_bytes(page)
    tab.size(700, 1000)
    tab.attach()
    tab.send("Page.navigate", url=(tmp_path / "grid.html").as_uri())
    tab.wait("document.readyState === 'complete' && document.querySelectorAll('td').length === 40")
    hidden = "(box => [box.scrollWidth > box.clientWidth, box.scrollHeight > box.clientHeight])"
    is_cut = f"{hidden}(document.querySelector('.matrix'))"

    assert tab.ask(is_cut) == [True, True]
    tab.send("Emulation.setEmulatedMedia", media="print")
    on_paper = tab.ask(is_cut), tab.ask("document.documentElement.scrollWidth")
    tab.send("Emulation.setEmulatedMedia", media="")
    assert on_paper == ([False, False], 700)


def test_rows_without_an_asset_are_not_counted_as_assets(opened: Open) -> None:
    page = opened([row(0), row(1), row(2, status="failed", error_type="BlankOutput")])
    assert page.ask("document.getElementById('summary').textContent") == "2 assets; 1 row has none"


def test_a_number_and_a_yes_of_ones_own_say_what_they_are(opened: Open) -> None:
    page = opened(
        [row(0, x_price="4.5", x_hero="true", x_scene="beach"), row(1, x_price="7", x_hero="false", x_scene="city")]
    )
    captions = page.ask("[...document.querySelectorAll('.caption .faint')].map(one => one.textContent)")
    assert [caption.rsplit(" · ", 1)[0] for caption in captions] == [
        "price 4.5 · hero true · beach",
        "price 7 · hero false · city",
    ]


def test_all_that_is_shown_is_on_paper_with_its_pictures(opened: Open) -> None:
    rows = campaign_rows(40, pictures=[thumbnail(drawn(number, 64, 48)) for number in range(3)])
    page = opened(rows, "#f.x_locale=de-DE&f.x_locale=ja-JP")
    num = page.ask("sdbatch.filter.shown.length")
    assert num > 70
    assert page.ask("document.querySelectorAll('.tile').length") < num
    page.press("ArrowRight", "a")
    page.ask(
        "window.print = () => { window.printed ="
        " [...document.querySelectorAll('#paper img')].map(one => one.naturalWidth); }"
    )
    page.click("#print")

    widths = page.wait("window.printed")
    failed = page.ask("document.querySelectorAll('#paper .nothing').length")
    assert failed > 0
    assert len(widths) == num - failed
    assert set(widths) == {64}
    paper = page.ask("document.getElementById('paper').textContent")
    assert f"{num} of {len(rows)} · locale: de-DE, ja-JP" in paper
    assert "✓ approved" in paper
    assert page.said == []
    page.send("Emulation.setEmulatedMedia", media="print")
    assert page.ask(
        "document.querySelector('#paper').offsetHeight > 2000 && !document.querySelector('#view').offsetHeight"
    )
    page.send("Emulation.setEmulatedMedia", media="")
    assert page.ask(
        "!document.querySelector('#paper').offsetHeight && document.querySelector('#view').offsetHeight > 0"
    )

    page.ask("sdbatch.box.open(sdbatch.filter.shown[3]), sdbatch.paper.lay()")
    assert page.ask("document.querySelectorAll('#paper figure').length") == 1
    page.ask("window.dispatchEvent(new Event('afterprint'))")
    assert page.ask("document.getElementById('paper')") is None


def test_what_is_written_from_right_to_left_leaves_sizes_as_they_are(opened: Open) -> None:
    rows = campaign_rows(1)
    for one in rows:
        one |= {"x_product": "كوب " + one["id"][-5:], "x_scene": "شاطئ", "prompt": "كوب أزرق, 4k"}
        del one["x_locale"]
    rows[0]["x_product"] = "كوب"
    rows[0]["prompt"] = "كوب أزرق, 4k — ضوء"
    page = opened(rows)
    page.ask(
        """window.left = (box, text) => {
          const walker = document.createTreeWalker(box, NodeFilter.SHOW_TEXT), range = document.createRange();
          for (let node; (node = walker.nextNode());) {
            const place = node.data.indexOf(text);
            if (place < 0) continue;
            range.setStart(node, place); range.setEnd(node, place + text.length);
            return range.getBoundingClientRect().left;
          }
          throw Error(text);
        }"""
    )
    product, size = page.ask(
        "['كوب', '512'].map(text => window.left(document.querySelector('.tile .caption .faint'), text))"
    )
    page.click(".tile .frame")
    page.wait("[...document.querySelectorAll('dd')].some(one => one.textContent.includes('ضوء'))", 10)
    first, last = page.ask(
        "['أزرق', 'ضوء'].map(text => window.left("
        "[...document.querySelectorAll('dd')].find(one => one.textContent.includes('ضوء')), text))"
    )

    assert product < size
    assert first > last


def test_a_text_from_right_to_left_is_cut_at_its_end(opened: Open) -> None:
    rows = campaign_rows(1)
    for number, one in enumerate(rows):
        one |= {"prompt": f"{'זוג כוסות כחולות על שולחן עץ ' * 4}{number}", "x_product": "כוס", "x_scene": "חוף"}
        one |= {"width": 256, "height": 256, "x_locale": "he"}
    page = opened(rows)
    sides = page.ask(
        "[...document.querySelectorAll('.tile .caption .faint')].map(one => [getComputedStyle(one).direction, "
        "one.scrollWidth > one.clientWidth])"
    )

    assert sides
    assert all(side == ["rtl", True] for side in sides)


def test_the_lines_of_the_sheet_are_as_wide_as_the_view_and_keep_proportions(opened: Open) -> None:
    page = opened(campaign_rows(6))
    boxes = page.ask(
        "[...document.querySelectorAll('.frame')].map(f => f.getBoundingClientRect())"
        ".map(b => [b.top, b.left, b.right, b.width / b.height])"
    )
    lines: dict[int, list[list[float]]] = {}
    for box in boxes:
        lines.setdefault(round(box[0]), []).append(box)
    whole = [lines[top] for top in sorted(lines)][:-1]
    width = page.ask("document.getElementById('view').clientWidth")

    assert len(whole) > 2
    assert {round(line[-1][2] - line[0][1]) for line in whole} == {width - 32}
    assert {round(box[3], 1) for box in boxes} == {1.0, 0.7, 1.5, 0.8}


def test_nothing_of_a_text_runs(opened: Open) -> None:
    rows = [
        row(0, prompt=EVIL, x_evil=EVIL, x_b="1", note=EVIL, thumbnail=b"none", images=[EVIL]),
        row(1, prompt="b", x_evil="__proto__", x_b="2", status="failed", error_type=EVIL, error_message=EVIL),
        row(2, prompt="c", x_evil="constructor", x_b="2", asset="javascript:alert(1)", thumbnail=b"none"),
    ]
    page = opened(rows, "#open=row-0/0")
    page.press("ArrowRight", "ArrowRight")

    assert page.ask("sdbatch.data.asset(2)") == ""
    assert page.ask("document.querySelector('.bar a[target]').hidden") is True
    for view in ("matrix", "table", "sheet"):
        page.ask(
            f"sdbatch.box && document.getElementById('box').close(); sdbatch.view.view = '{view}'; sdbatch.changed()"
        )
        assert EVIL in page.ask("document.getElementById('facets').textContent")
    assert page.ask("document.title") == f"{page.ask('sdbatch.data.head.campaign')} - sdbatch"
    assert page.ask("[...document.querySelectorAll('img')].filter(i => i.getAttribute('src') === 'x').length") == 0


def test_the_policy_refuses_html_and_foreign_scripts(opened: Open) -> None:
    page = opened([row(0)])

    assert (
        page.ask("(() => { try { document.body.innerHTML = '<b>'; return 'made'; } catch (e) { return e.name; } })()")
        == "TypeError"
    )
    assert (
        page.ask("sdbatch.data.script('../../evil.js').catch(e => e.message)")
        == "not a file of the gallery: ../../evil.js"
    )


@pytest.mark.parametrize(
    ("address", "num"),
    [
        ("#f.status=failed", 1),
        ("#f.x_locale=de-DE&f.x_locale=fr-FR", 34),
        ("#f.x_locale=de-DE&f.x_scene=beach", 4),
        ("#q=DE", 102),  # "de" stands in desert and de-DE, and in the ids of both: see the next
        ("#q=desert%20de-de", 4),
        ("#f.x_locale=pl-PL", 0),
    ],
)
def test_the_address_says_what_is_shown(opened: Open, address: str, num: int) -> None:
    rows = campaign_rows(17)
    expected = num
    if "q=DE" in address:
        expected = sum("de" in f"{one['id']} {one['prompt']}".lower() for one in rows)
    page = opened(rows, address)

    assert page.ask("sdbatch.filter.shown.length") == expected
    if not num:
        assert (
            page.ask("document.querySelector('.empty').innerText") == "No asset matches these filters.\n\nClear filters"
        )
        page.click(".empty button")
        assert page.ask("sdbatch.filter.shown.length") == len(rows)


def test_a_facet_counts_what_a_click_would_show(opened: Open) -> None:
    page = opened(campaign_rows(10), "#f.x_scene=beach")
    counts = page.ask(
        "Object.fromEntries([...document.querySelectorAll('#facets label')]"
        ".map(l => [l.children[1].textContent, l.children[2].textContent]))"
    )

    assert (counts["beach"], counts["desert"], counts["de-DE"]) == ("12", "12", "2")
    page.ask("[...document.querySelectorAll('#facets label')].find(l => l.textContent.startsWith('desert')).click()")
    assert page.ask("sdbatch.filter.shown.length") == 24
    assert page.ask("location.hash") == "#f.x_scene=beach&f.x_scene=desert"


def test_the_matrix_has_a_cell_for_each_pair(opened: Open) -> None:
    page = opened(campaign_rows(4), "#view=matrix&h=64&rows=x_product&cols=x_locale")
    heads = page.ask("[...document.querySelectorAll('.matrix thead th')].map(t => t.textContent)")
    names = page.ask(
        "[...document.querySelectorAll('.matrix tbody tr:not(.spacer)')]"
        ".map(r => [...r.querySelectorAll('.tile')].map(t => sdbatch.data.text(t.row, 'x_locale')))"
    )

    assert heads == ["product by locale", "de-DE", "en-GB", "es-ES", "fr-FR", "it-IT", "ja-JP"]
    assert names == [heads[1:]] * 4
    assert page.ask("getComputedStyle(document.querySelector('.matrix thead th')).position") == "sticky"


def test_the_table_sorts_by_a_heading(opened: Open) -> None:
    page = opened(campaign_rows(3), "#view=table")
    page.ask("[...document.querySelectorAll('.rows thead button')].find(b => b.textContent === 'locale').click()")
    locales = (
        "[...document.querySelectorAll('.rows td.c-own')].map(t => t.textContent)"
        ".filter(t => t.includes('-') && !t.startsWith('mug'))"
    )
    up = page.ask(locales)
    page.ask(
        "[...document.querySelectorAll('.rows thead button')].find(b => b.textContent.startsWith('locale')).click()"
    )

    assert up == sorted(up)
    assert len(up) == 18
    assert page.ask(locales)[0] == "ja-JP"
    assert page.ask("document.querySelector('th[aria-sort=descending]').innerText") == "locale ↓"


def test_only_what_is_on_the_screen_is_in_the_page(opened: Open) -> None:
    pictures = [thumbnail(drawn(1, 80, 80))]
    page = opened(campaign_rows(500, pictures=pictures))
    first = page.ask("document.querySelectorAll('.tile').length")
    page.ask("document.getElementById('view').scrollTop = 40000")
    page.wait("[...document.querySelectorAll('.tile')].filter(t => t.place > 1000).length > 5")

    assert page.ask("sdbatch.filter.shown.length") == 3000
    assert first < 150
    assert page.ask("document.querySelectorAll('.tile').length") < 150


def test_pictures_of_older_campaigns_are_webps(opened: Open) -> None:
    buffer = io.BytesIO()
    Image.fromarray(drawn(1, 80, 40)).save(buffer, "WEBP")
    page = opened(campaign_rows(1, takes=2, pictures=[thumbnail(drawn(1, 80, 80)), buffer.getvalue()]))
    page.wait("[...document.querySelectorAll('.tile img')].every(image => image.naturalWidth > 0)")
    found = page.ask("[...document.querySelectorAll('.tile img')].map(i => [i.src.slice(0, 18), i.naturalHeight])")

    assert {tuple(one) for one in found} == {("data:image/jpeg;ba", 80), ("data:image/webp;ba", 40)}


def test_the_light_box_shows_the_file_its_source_and_its_takes(opened: Open, tmp_path: Path) -> None:
    rows = campaign_rows(1, takes=3)
    rows[0]["source_thumbnail"] = thumbnail(drawn(77, 512, 512))
    rows[0]["older"] = "assets/mug-000.beach.de-DE-00000000-0.png\nassets/../../x.png"
    (tmp_path / "assets").mkdir()
    Image.fromarray(drawn(0, 512, 512)).save(tmp_path / rows[0]["asset"])
    page = opened(rows, "#open=mug-000.beach.de-DE/0")
    page.wait("document.querySelector('.stage .result').src.endsWith('-0.png')")
    page.press("s")

    assert page.ask("document.querySelector('.stage .result').naturalWidth") == 512
    assert page.ask("document.querySelector('.stage .source').style.clipPath") == "inset(0px 50% 0px 0px)"
    assert page.ask("document.querySelectorAll('.strip button').length") == 3
    assert page.ask("[...document.querySelectorAll('.older a')].map(a => a.getAttribute('href'))") == [
        "../assets/mug-000.beach.de-DE-00000000-0.png"
    ]
    assert page.ask("document.querySelector('.details code').textContent").endswith(" mug-000.beach.de-DE")
    page.press("3")
    assert page.ask("document.getElementById('box-title').textContent") == "mug-000.beach.de-DE #2"
    page.press("z")
    assert page.ask("document.querySelector('.stage').classList.contains('actual')")
    page.ask("document.querySelector('.details details').open = true")
    page.wait("document.querySelector('.details pre').textContent.includes('\"prompt\"')")


def test_everything_is_reached_by_keys(opened: Open) -> None:
    page = opened(campaign_rows(5))
    page.press("ArrowRight", "ArrowRight")
    second = _focused(page)
    page.press("ArrowDown")
    below = _focused(page)
    page.press("ArrowUp", "ArrowLeft", "Enter")

    assert (second, below == second) == ("mug-000.beach.en-GB", False)
    assert page.ask("document.getElementById('box').open")
    assert page.ask("document.getElementById('box-title').textContent") == "mug-000.beach.de-DE"
    page.press("ArrowRight", "Escape")
    page.wait("!document.getElementById('box').open && sdbatch.box.row === null")
    assert _focused(page) == "mug-000.beach.en-GB"
    assert page.ask("document.activeElement.row === sdbatch.focused")
    page.press("/")
    page.write("beach")
    assert page.ask("sdbatch.filter.shown.length") == 6


def test_decisions_are_made_by_keys_kept_and_downloaded(opened: Open, tab: Page, tmp_path: Path) -> None:
    rows = campaign_rows(2)
    page = opened(rows)
    page.ask("document.getElementById('reviewer').value = 'jane'")
    page.press("ArrowRight", "a", "r", "p", "a", "u")

    assert {one["id"]: one["verdict"] for one in _decisions(page)} == {
        rows[0]["id"]: "approved",
        rows[1]["id"]: "rejected",
        rows[2]["id"]: "picked",
        rows[3]["id"]: "approved",
        rows[4]["id"]: "none",
    }
    lines = page.ask("sdbatch.review.lines([...sdbatch.review.own.values()])").splitlines()
    first = parse_decision(lines[0].encode())
    assert (first.id, first.request_key, first.n, first.sha256, first.by, first.verdict) == (
        *(rows[0][name] for name in ("id", "request_key", "n", "sha256")),
        "jane",
        "approved",
    )
    page.click("#download")
    (file,) = _downloaded(tab.folder)
    assert [parse_decision(line, by="x").line for line in file.read_bytes().splitlines()] == [
        parse_decision(line.encode()).line for line in lines
    ]
    page.open((tmp_path / "report" / "index.html").as_uri() + "#f.verdict=approved&f.verdict=picked")
    assert page.ask(SHOWN) == [rows[0]["id"], rows[2]["id"], rows[3]["id"]]
    assert page.ask("document.getElementById('download').textContent") == "Download decisions again"


def test_a_picture_that_was_made_anew_is_open_again(opened: Open) -> None:
    rows = campaign_rows(1)
    opened(rows).press("ArrowRight", "a", "a")
    rows[0]["sha256"] = "f" * 64
    page = opened(rows, "#f.verdict=approved")

    assert page.ask(SHOWN) == [rows[1]["id"]]


def test_a_note_stays_with_its_verdict(opened: Open) -> None:
    rows = campaign_rows(1)
    page = opened(rows, f"#open={rows[0]['id']}/0")
    page.press("n")
    page.write("too dark")
    page.press("Enter", "r", "ArrowLeft")

    assert [(one["verdict"], one["comment"]) for one in _decisions(page)] == [("rejected", "too dark")]
    assert page.ask("document.querySelector('.right input').value") == "too dark"


def test_a_verdict_of_the_campaign_is_shown_and_a_later_word_wins(opened: Open) -> None:
    rows = campaign_rows(1)
    for one in rows[:2]:
        one |= {
            "verdict": "rejected",
            "reviewed_by": "bob",
            "note": "blurred",
            "reviewed_at": "2026-11-26T10:00:00+00:00",
        }
    page = opened(rows, "#f.verdict=rejected")

    assert page.ask("sdbatch.filter.shown.length") == 2
    page.press("ArrowRight", "a")
    assert page.ask("sdbatch.review.verdict(0)") == "approved"
    assert page.ask("sdbatch.review.note(1)") == "blurred"
    page.ask("sdbatch.data.plain.get('reviewed_at')[0] = '2099-01-01T00:00:00+00:00'")
    assert page.ask("sdbatch.review.verdict(0)") == "rejected"


@pytest.mark.parametrize("view", ["sheet", "matrix", "table"])
def test_keys_go_from_open_picture_to_open_picture_and_none_is_decided_twice(opened: Open, view: str) -> None:
    rows = campaign_rows(1)
    page = opened(rows, f"#view={view}&f.verdict=open")
    page.press("ArrowDown" if view == "table" else "ArrowRight", "a", "r", "a", "r")

    assert [(one["id"], one["verdict"]) for one in _decisions(page)] == [
        (one["id"], verdict)
        for one, verdict in zip(rows, ["approved", "rejected", "approved", "rejected"], strict=False)
    ]
    assert _focused(page) == rows[4]["id"]
    again = page.ask("document.getElementById('apply-facets').textContent")
    assert again == "Apply filters again (4 decided meanwhile)"
    page.click("#apply-facets")
    assert page.ask(SHOWN) == [rows[4]["id"], rows[5]["id"]]
    assert page.ask("document.getElementById('apply-facets').hidden")


def test_the_light_box_goes_from_open_picture_to_open_picture(opened: Open) -> None:
    rows = campaign_rows(1)
    page = opened(rows, "#f.verdict=open")
    page.press("ArrowRight", "ArrowRight", "Enter", "a", "r", "Escape")

    assert [(one["id"], one["verdict"]) for one in _decisions(page)] == [
        (rows[1]["id"], "approved"),
        (rows[2]["id"], "rejected"),
    ]
    # The dialog says that it is closed after it is; the focus is set then.
    page.wait(f"sdbatch.data.name(sdbatch.focused) === '{rows[3]['id']}'")
    assert page.ask("!document.getElementById('box').open")
    page.wait("document.activeElement.row === sdbatch.focused")


def test_a_key_means_the_picture_with_the_focus_or_none(opened: Open) -> None:
    page = opened(campaign_rows(1), "#f.x_locale=de-DE")
    page.press("ArrowRight")
    page.click("#clear-facets")
    page.press("r")
    assert _decisions(page) == []

    page.press("ArrowRight", "r")
    assert [one["verdict"] for one in _decisions(page)] == ["rejected"]


def test_a_failed_row_cannot_be_approved_and_says_why(opened: Open) -> None:
    page = opened([row(0, status="failed", error_type="BlankOutput", error_message="all black")], "#open=row-0/0")
    page.press("a")

    assert _decisions(page) == []
    assert "BlankOutput: all black" in page.ask("document.querySelector('.stage').innerText")


def _clip(tmp_path: Path, suffix: str) -> dict[str, Any]:
    frames_FHWC = np.full((9, 64, 96, 3), (250, 10, 10), np.uint8)
    encoded = encode_video(frames_FHWC, 8.0, Encode(video=suffix), request_key="a" * 64, n=0, recipe="{}")
    one = row(0, id=f"clip-{suffix}", task="text-to-video", num_frames=9, fps=8.0, media_type=encoded.media_type)
    one["asset"] = one["asset"].replace(".png", f".{suffix}")
    (tmp_path / "assets").mkdir(exist_ok=True)
    (tmp_path / one["asset"]).write_bytes(encoded.data)
    return {**one, "thumbnail": thumbnail(frames_FHWC[0] // 4)}


def test_a_clip_plays_while_the_mouse_is_over_it(opened: Open, tmp_path: Path) -> None:
    page = opened([_clip(tmp_path, "mp4"), _clip(tmp_path, "webm")])
    for place in range(2):
        box = page.ask(f"document.querySelectorAll('.tile')[{place}].getBoundingClientRect().toJSON()")
        assert page.ask("document.querySelectorAll('video').length") == 0
        page.move(box["left"] + 20, box["top"] + 20)
        page.wait("document.querySelector('video') && document.querySelector('video').currentTime > 0")
        page.move(1200, 700)
    assert page.said == []


def test_a_page_that_is_open_grows_with_the_run(tab: Page, tmp_path: Path) -> None:
    rows = campaign_rows(4)
    grown = growing(tmp_path)
    grown.put(gallery.INDEX, gallery.index_page("out"))
    grown.add(as_table(rows[:6]))
    told = {"made": 6, "pending": 24, "eta_s": 65.0, "workers": 2, "updated_s": time.time()}
    grown.flush(state_values("out", "r1", "running", **told))
    tab.open((tmp_path / "report" / "index.html").as_uri())
    tab.press("ArrowRight", "ArrowRight")

    assert "6 of 24 made · 1 min 5 s to go · 2 workers" in tab.ask("document.getElementById('banner').innerText")
    grown.add(as_table(rows[6:]))
    grown.add(as_table([{**rows[1], "request_key": "e" * 64, "seed": 5, "asset": None}]))
    grown.flush(state_values("out", "r1", "interrupted", made=24, pending=30, message="stopped by a signal"))
    tab.ask("sdbatch.data.script('state.js?1')")
    tab.ask("sdbatch.look()")
    tab.wait("sdbatch.filter.shown.length === 24")

    assert _focused(tab) == rows[1]["id"]
    assert tab.ask("sdbatch.data.text(sdbatch.focused, 'seed')") == "5"
    assert tab.ask("sdbatch.data.before.size") == 1
    assert tab.ask("document.getElementById('banner').innerText") == "Interrupted · 24 of 30 made · stopped by a signal"


def test_of_a_large_campaign_a_filter_loads_what_it_needs(opened: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gallery, "CHUNK_ROWS", 30)
    rows = [{**one, "x_half": "first" if place < 60 else "second"} for place, one in enumerate(campaign_rows(20))]
    page = opened(rows)
    page.ask("sdbatch.ROWS_MAX = 60; sdbatch.data.reset(); sdbatch.look()")
    page.wait("sdbatch.data.num === 60")

    assert page.ask(
        "document.getElementById('summary').textContent"
    ) == "60 loaded, of 120 in all; a filter brings others".replace("60 loaded", "60 assets loaded")
    counts = (
        "[...document.querySelectorAll('#facets label')].map(l => l.textContent).filter(t => /^(first|second)/.test(t))"
    )
    assert page.ask(counts) == ["first60", "second60"]
    page.ask("[...document.querySelectorAll('#facets label')].find(l => l.textContent.startsWith('second')).click()")
    page.wait("sdbatch.filter.shown.length === 60 && sdbatch.data.text(sdbatch.filter.shown[0], 'x_half') === 'second'")


def test_of_a_large_campaign_an_open_verdict_is_found(opened: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gallery, "CHUNK_ROWS", 30)
    rows = campaign_rows(20)
    page = opened([{**one, "verdict": "approved" if place < 90 else None} for place, one in enumerate(rows)])
    page.ask("location.hash = 'f.verdict=open'; sdbatch.ROWS_MAX = 60; sdbatch.data.reset(); sdbatch.look()")

    page.wait("sdbatch.filter.shown.length > 0")
    assert page.ask("sdbatch.filter.shown.every(row => sdbatch.data.text(row, 'reviewed_verdict') === '')")
    page.ask("location.hash = 'f.verdict=picked'; sdbatch.look()")
    page.wait("sdbatch.data.num === 0 && sdbatch.filter.shown.length === 0")
    assert page.ask("document.body.innerText.includes('No asset matches')")


def test_a_narrow_screen_has_no_sideways_scrolling(opened: Open) -> None:
    page = opened(campaign_rows(6))
    page.size(360, 740)
    page.wait("sdbatch.parts.sheet.width < 361 && document.querySelectorAll('.tile').length > 2")

    assert page.ask("document.documentElement.scrollWidth") <= 360
    assert page.ask("document.getElementById('view').scrollWidth") <= 360
    page.click("#filters")
    assert page.ask("getComputedStyle(document.getElementById('facets')).display") != "none"


def test_a_save_that_failed_is_said(opened: Open, tmp_path: Path) -> None:
    rows = campaign_rows(1)
    page = opened(rows)
    html = (tmp_path / "report" / "index.html").read_text()
    (tmp_path / "report" / "index.html").write_text(
        html.replace('name="sdbatch-review" content=""', 'name="sdbatch-review" content="../decisions"')
    )
    page.open((tmp_path / "report" / "index.html").as_uri())
    page.press("ArrowRight", "r")
    said = page.wait("!document.getElementById('unsaved').hidden && document.getElementById('unsaved').textContent")

    assert said.startswith("NOT saved: 1 decision")
    assert not page.ask("document.getElementById('download').hidden")


def test_a_decision_is_saved_where_the_page_is_served_and_said_when_it_was_not(opened: Open, tmp_path: Path) -> None:
    rows = campaign_rows(1)
    page = opened(rows)
    saved: list[Decision] = []
    server = ReviewServer(store=open_store(str(tmp_path), {}), save=saved.extend, by="bob", say=lambda _: None)
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    try:
        page.open(asyncio.run_coroutine_threadsafe(server.start(), loop).result(60))
        page.press("ArrowRight", "a", "r")
        page.wait("[...sdbatch.review.own.values()].every(decision => decision.saved)")
        assert [(one.id, one.verdict, one.by) for one in saved] == [
            (rows[0]["id"], "approved", "bob"),
            (rows[1]["id"], "rejected", "bob"),
        ]
        assert page.ask("document.getElementById('unsaved').hidden && document.getElementById('download').hidden")
    finally:
        asyncio.run_coroutine_threadsafe(server.stop(), loop).result(60)
    page.press("p")
    said = page.wait("!document.getElementById('unsaved').hidden && document.getElementById('unsaved').textContent")
    loop.call_soon_threadsafe(loop.stop)
    thread.join(60)

    assert said.startswith("NOT saved: 1 decision")
    assert len(saved) == 2


def test_the_state_of_the_decisions_is_json(opened: Open) -> None:
    page = opened(campaign_rows(1))
    page.press("ArrowRight", "a")
    line = json.loads(page.ask("sdbatch.review.lines([...sdbatch.review.own.values()])"))

    assert sorted(line) == ["at", "comment", "format_version", "id", "n", "request_key", "sha256", "verdict"]
