"""The files of the gallery: every row once, each file named by its content, what changes in one small file."""

from __future__ import annotations

import base64
import datetime as dt
import hashlib
import json
import re
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from support.galleries import as_table, campaign_rows, columns_of, growing, handed, row, state_of, write

from sdbatch.report import gallery
from sdbatch.report.gallery import chunks_of, state_values
from sdbatch.report.gallery_rows import merged_facets, shown_rows

EVIL = '<script>document.title="owned"</script>__proto__'


def _shown(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return list(shown_rows(as_table(rows)).to_pylist())


def test_every_row_stands_once_in_the_files_that_the_state_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gallery, "CHUNK_ROWS", 25)
    rows = campaign_rows(10)
    write(tmp_path, rows)
    state = state_of(tmp_path)
    ids = [name for chunk in state["chunks"] for name in columns_of(tmp_path, chunk["name"])["id"]]

    assert ids == [one["id"] for one in rows]
    assert [chunk["num"] for chunk in state["chunks"]] == [25, 25, 10]
    assert state["total"] == 60


def test_every_picture_is_that_of_its_row(tmp_path: Path) -> None:
    rows = campaign_rows(15)
    rows[3]["source_thumbnail"] = rows[4]["source_thumbnail"] = b"one source"
    write(tmp_path, rows)
    (chunk,) = state_of(tmp_path)["chunks"]
    packs = handed(tmp_path / "report" / f"{chunk['name']}.js")["packs"]
    columns = columns_of(tmp_path, chunk["name"])

    def picture(kind: str, ref: int) -> bytes | None:
        return (
            None
            if ref < 0
            else base64.b64decode(handed(tmp_path / "report" / f"{packs[kind][str(ref >> 6)]}.js")[ref & 63])
        )

    assert len(packs["thumbs"]) == 2
    assert [picture("thumbs", ref) for ref in columns["thumbs"]] == [one["thumbnail"] for one in rows]
    assert columns["sources"] == [0 if place in (3, 4) else -1 for place in range(90)]
    assert picture("sources", 0) == b"one source"


def test_the_facets_count_every_file_and_leave_out_columns_of_many_values(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gallery, "CHUNK_ROWS", 100)
    write(tmp_path, campaign_rows(60))
    facets = {facet["name"]: facet for facet in state_of(tmp_path)["facets"]}
    locales = facets["x_locale"]
    totals = [sum(count for pairs in locales["counts"] for code, count in pairs if code == place) for place in range(6)]

    assert "x_product" not in facets  # 60 of them
    assert dict(zip(locales["values"], totals, strict=True)) == dict.fromkeys(
        ("de-DE", "en-GB", "es-ES", "fr-FR", "it-IT", "ja-JP"), 60
    )


def test_a_column_that_one_file_has_not_is_no_facet() -> None:
    assert merged_facets([{"x_a": {"1": 2}, "x_b": {"": 2}}, {"x_a": {"2": 1}}]) == [
        {"name": "x_a", "values": ["1", "2"], "counts": [[[0, 2]], [[1, 1]]]}
    ]


def test_values_are_shown_as_people_write_them() -> None:
    own = {"x_day": dt.date(2026, 11, 3), "x_is_new": True, "x_price": 19.9, "x_whole": 3.0, "x_none": None}
    (shown,) = _shown([row(0, width=None, height=None, guidance_scale=0.1, **own)])

    assert {name: shown[name] for name in own} == {
        "x_day": "2026-11-03",
        "x_is_new": "true",
        "x_price": "19.9",
        "x_whole": "3",
        "x_none": "",
    }
    assert (shown["size"], shown["guidance_scale"], shown["width"]) == ("", "0.1", -1)


def test_a_date_that_python_does_not_have_is_told() -> None:
    rows = as_table([row(0)]).append_column("x_day", pa.array([4_000_000], pa.date32()))

    assert shown_rows(rows).column("x_day").to_pylist() == ["(a value that cannot be shown)"]


def test_a_file_lies_under_its_digest_and_an_equal_gallery_has_equal_files(tmp_path: Path) -> None:
    write(tmp_path / "a", campaign_rows(3))
    write(tmp_path / "b", campaign_rows(3))
    names = [
        {str(file.relative_to(folder)): file.read_bytes() for file in folder.rglob("*.*")}
        for folder in (tmp_path / "a", tmp_path / "b")
    ]

    assert names[0] == names[1]
    assert len({Path(name).parent.name for name in names[0]}) == 4  # no source has a picture


def test_a_gallery_that_grows_keeps_what_it_has_and_says_what_was_replaced(tmp_path: Path) -> None:
    rows = campaign_rows(4)
    grown = growing(tmp_path)
    grown.add(as_table(rows[:6]))
    grown.flush(state_values("out", "r1", "running", made=6, pending=24))
    first = state_of(tmp_path)
    grown.add(as_table(rows[6:]))
    grown.flush(state_values("out", "r1", "done"))
    second = state_of(tmp_path)

    assert [first["total"], second["total"]] == [6, 24]
    assert columns_of(tmp_path, second["chunks"][0]["name"])["id"] == [one["id"] for one in rows]
    assert grown.replaced == [first["chunks"][0]["name"] + ".js"]
    assert (first["made"], first["pending"], first["state"]) == (6, 24, "running")


def test_a_gallery_goes_on_from_the_state_of_another(tmp_path: Path) -> None:
    write(tmp_path, campaign_rows(2))
    before = chunks_of((tmp_path / "report" / "state.js").read_bytes())
    grown = growing(tmp_path)
    grown.chunks.extend(before)
    grown.add(as_table([row(99, x_locale="pl-PL")]))
    grown.flush(state_values("out", "r2", "running"))
    facets = {facet["name"]: facet["values"] for facet in state_of(tmp_path)["facets"]}

    assert state_of(tmp_path)["total"] == 13
    assert facets["x_locale"][-1] == "pl-PL"


@pytest.mark.parametrize(
    "state",
    [b"", b"\xff", b"sdbatch.state(1);", b'sdbatch.state("{}");', b'sdbatch.state("{\\"version\\":9}");', b"<html>"],
)
def test_a_state_that_is_not_ours_begins_anew(state: bytes) -> None:
    assert chunks_of(state) == []


def test_a_state_that_names_a_file_elsewhere_begins_anew() -> None:
    values = {"version": 1, "chunks": [{"name": "../../x", "num": 1}], "facets": []}
    good = {**values, "chunks": [{"name": "data/" + "0" * 16, "num": 1}]}

    assert chunks_of(f"sdbatch.state({json.dumps(json.dumps(values))});".encode()) == []
    assert len(chunks_of(f"sdbatch.state({json.dumps(json.dumps(good))});".encode())) == 1


def test_the_page_lets_nothing_run_but_its_own_scripts_and_files(tmp_path: Path) -> None:
    page = write(tmp_path, [row(0)], campaign=EVIL).read_text()
    policy = re.search(r'Content-Security-Policy" content="([^"]+)"', page)[1].replace("&#39;", "'")  # type: ignore[index]
    scripts = re.findall(r"<script>(.*?)</script>\n", page, re.DOTALL)
    digests = {f"'sha256-{base64.b64encode(hashlib.sha256(one.encode()).digest()).decode()}'" for one in scripts}

    assert "default-src 'none'" in policy
    assert "require-trusted-types-for 'script'" in policy
    assert "unsafe" not in policy
    assert set(re.search(r"script-src ([^;]+)", policy)[1].split()) == digests | {"'self'", "file:"}  # type: ignore[index]
    assert len(scripts) == len(gallery.SCRIPTS)
    assert "<script>document" not in page


def test_no_script_of_the_page_makes_html_of_text() -> None:
    for name in gallery.SCRIPTS:
        assert not re.search(
            r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\b|new Function", gallery._read(name)
        )
