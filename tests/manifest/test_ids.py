"""Ids that are made from columns, and those that count rows."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from sdbatch.errors import JobError, ManifestError
from sdbatch.manifest.build import build_shards
from sdbatch.manifest.ids import IdFormat, slug
from sdbatch.manifest.values import ValueRefused

CSV = "sku,scene,prompt\nMUG 01,Beach (night),a\nMUG 01,caf\u00e9/bar,b\nMUG-02,Beach (night),c\n"
MADE = ["MUG-01-Beach-night", "MUG-01-cafe-bar", "MUG-02-Beach-night"]


def _ids(path: Path, id_format: str, **options: Any) -> list[str]:
    built = build_shards(path, path.parent / "out", id_format=id_format, **options)
    return [row_id for file in built.files for row_id in pq.read_table(file).column("id").to_pylist()]


def _problems(path: Path, id_format: str, **options: Any) -> list[str]:
    with pytest.raises(ManifestError) as caught:
        build_shards(path, path.parent / "out", id_format=id_format, **options)
    return [str(problem).replace(str(path), path.name) for problem in caught.value.problems]


@pytest.mark.fault("F18", "--id '{sku}-{scene}', a row put in on top", "every other row keeps its id")
@pytest.mark.parametrize("options", [{"drop": ["sku", "scene"]}, {"rename": {"sku": "x_sku", "scene": "x_scene"}}])
def test_ids_from_columns_stay_when_a_row_is_put_in(tmp_path: Path, options: dict[str, Any]) -> None:
    path = tmp_path / "a.csv"
    path.write_text(CSV)
    assert _ids(path, "{sku}-{scene}", **options) == MADE
    header, rest = CSV.split("\n", 1)
    path.write_text(f"{header}\nNEW,top,x\n{rest}")
    assert _ids(path, "{sku}-{scene}", **options) == ["NEW-top", *MADE]


@pytest.mark.parametrize("name", ["a.csv", "a.jsonl", "a.parquet"])
def test_a_table_without_ids_is_refused_once_by_its_own_name(name: str, tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("x_sku,prompt\nm,a\n")
    (tmp_path / "a.jsonl").write_text('{"x_sku": "m", "prompt": "a"}\n')
    pq.write_table(pa.table({"x_sku": ["m"], "prompt": ["a"]}), tmp_path / "a.parquet")
    with pytest.raises(ManifestError) as caught:
        build_shards(tmp_path / name, tmp_path / "out", label=name)

    (problem,) = caught.value.problems
    assert f"{name}: id is missing" in str(problem)


def test_a_parquet_file_gives_the_same_ids(tmp_path: Path) -> None:
    columns = {"sku": ["MUG 01", "MUG 01", "MUG-02"], "scene": ["Beach (night)", "caf\u00e9/bar", "Beach (night)"]}
    pq.write_table(pa.table({**columns, "prompt": ["a", "b", "c"]}), tmp_path / "a.parquet")
    assert _ids(tmp_path / "a.parquet", "{sku}-{scene}", drop=["sku", "scene"]) == MADE
    assert _ids(tmp_path / "a.parquet", "{sku}-{x_scene}", drop=["sku"], rename={"scene": "x_scene"}) == MADE


@pytest.mark.fault("F18", "two rows that get one id", "refused, with both lines")
def test_rows_that_get_the_same_id_are_refused_with_both_lines(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("sku,prompt\nMug 1,a\nCup,b\n\nMug/1,c\n")
    assert _problems(path, "{sku}", drop=["sku"]) == [
        "line 5 of a.csv (Mug-1): id 'Mug-1' appears twice; first in line 2"
    ]
    pq.write_table(pa.table({"sku": ["Mug 1", "Cup", "Mug/1"]}), tmp_path / "a.parquet")
    assert _problems(tmp_path / "a.parquet", "{sku}", drop=["sku"]) == [
        "row 3 of a.parquet (Mug-1): id 'Mug-1' appears twice; first in row 1"
    ]


def test_a_column_that_gives_no_id_is_told_by_line(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text(f"sku,prompt\nok,a\n,b\n\u6771\u4eac,c\n-,d\n{'x' * 200},e\n")
    problems = _problems(path, "{sku}", drop=["sku"])
    assert problems[:3] == [
        "line 3 of a.csv: id cannot be made: sku is empty",
        "line 4 of a.csv: id cannot be made: nothing of sku '\u6771\u4eac' can stand in an id",
        "line 5 of a.csv: id cannot be made: nothing of sku '-' can stand in an id",
    ]
    assert problems[3].startswith("line 6 of a.csv: id would be 'xxx")


@pytest.mark.fault("F18", "--id 'scene-{row:05d}'", "made, with a warning that rows put in change ids")
def test_ids_that_count_rows_come_with_a_warning(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("prompt,x_sku\na,m\nb,n\n")
    counted = build_shards(tmp_path / "a.csv", tmp_path / "out", id_format="scene-{row:05d}")
    named = build_shards(tmp_path / "a.csv", tmp_path / "out", id_format="{x_sku}")
    assert len(counted.warnings) == 1
    assert "a row that is put in or taken out gives all after it other ids" in counted.warnings[0]
    assert named.warnings == ()
    assert pq.read_table(named.files[0]).column("id").to_pylist() == ["m", "n"]


def test_ids_of_the_table_stay_which_is_said(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("id,prompt\nmine,a\n")
    built = build_shards(tmp_path / "a.csv", tmp_path / "out", id_format="{row}")
    assert built.warnings == ("the table has a column `id`, so no ids are made from --id; --drop id leaves it out",)
    assert pq.read_table(built.files[0]).column("id").to_pylist() == ["mine"]
    dropped = build_shards(tmp_path / "a.csv", tmp_path / "out", id_format="{prompt}", drop=["id"])
    assert pq.read_table(dropped.files[0]).column("id").to_pylist() == ["a"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{sku", "holds columns in braces"),
        ("{}", "holds columns in braces"),
        ("{sku!r}", "holds columns in braces"),
        ("{row:099999999d}", "holds columns in braces"),
        ("{sku:d}", "Unknown format code 'd'"),
        ("{nope}", "the table has no column 'nope'; it has prompt, sku"),
        ("{row.__class__}", "the table has no column 'row.__class__'"),
    ],
)
def test_a_format_that_is_none_is_refused(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "a.csv").write_text("sku,prompt\nm,a\n")
    with pytest.raises(JobError, match=message.replace("{", "[{]")):
        build_shards(tmp_path / "a.csv", tmp_path / "out", drop=["sku"], id_format=text)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Caf\u00e9 au lait, 1/2", "Cafe-au-lait-1-2"),
        ("a_b.c-d", "a_b.c-d"),
        ("  x  ", "x"),
        ("../etc/passwd", "..-etc-passwd"),
        ("\uff21\uff11", "A1"),
        ("\u6771", ""),
    ],
)
def test_a_slug_holds_what_an_id_may(text: str, expected: str) -> None:
    assert slug(text) == expected


@pytest.mark.parametrize(("value", "expected"), [(12.0, "a12"), (7, "a7"), (True, "atrue"), (2.5, "a2.5")])
def test_a_number_stands_as_a_csv_would_have_it(value: Any, expected: str) -> None:
    assert IdFormat("a{n}")({"n": value}, 0) == expected


def test_an_id_begins_with_a_letter_or_a_digit() -> None:
    with pytest.raises(ValueRefused, match="would be"):
        IdFormat("-{n}")({"n": "x"}, 0)
