"""Metadata as a file: the suffix decides which kind, and a value that Python does not have ends nothing."""

from __future__ import annotations

import csv
import datetime as dt
import errno
import gc
import json
import os
from decimal import Decimal
from pathlib import Path
from typing import Any

import openpyxl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from sdbatch.cli.commands import app
from sdbatch.errors import JobError
from sdbatch.report import workbook
from sdbatch.report.tables import UNREADABLE, python_rows, write_rows

WHEN = dt.datetime(2026, 11, 26, 20, 57, 1, tzinfo=dt.UTC)
TABLE = pa.table(
    {
        "id": ["a", "b"],
        "prompt": ['two\nlines, "quoted"', None],
        "images": [["x.png", "y.png"], None],
        "stages": [[{"name": "quality", "score": 0.5}], []],
        "adopted": [True, None],
        "x_price": [0.1, float("nan")],
        "x_sum": pa.array([Decimal("1.50"), None]),
        "committed_at": pa.array([WHEN, None], pa.timestamp("ms", "UTC")),
    }
)
STAGES = '[{"name": "quality", "score": 0.5}]'


@pytest.mark.fault("F22", "metadata --to x.csv", "a CSV, lists as JSON text")
@pytest.mark.parametrize(("suffix", "delimiter"), [(".csv", ","), (".tsv", "\t"), (".CSV", ",")])
def test_a_table_of_cells_can_be_read_by_anybody(tmp_path: Path, suffix: str, delimiter: str) -> None:
    write_rows(TABLE, tmp_path / f"rows{suffix}")
    with (tmp_path / f"rows{suffix}").open(encoding="utf-8", newline="") as file:
        header, first, second = csv.reader(file, delimiter=delimiter)

    assert header == TABLE.column_names
    when = "2026-11-26T20:57:01+00:00"
    assert first == ["a", 'two\nlines, "quoted"', '["x.png", "y.png"]', STAGES, "true", "0.1", "1.50", when]
    assert second == ["b", "", "", "[]", "", "nan", "", ""]


FORMULAS = ['=HYPERLINK("http://evil.example")', "+1", "-1", "@SUM(A1)", "\t=1", "plain", "a=b"]


def test_a_text_is_no_formula_in_a_table_of_cells(tmp_path: Path) -> None:
    write_rows(pa.table({"prompt": FORMULAS, "x_price": [-1.5] * len(FORMULAS)}), tmp_path / "rows.csv")
    with (tmp_path / "rows.csv").open(encoding="utf-8", newline="") as file:
        _, *rows = csv.reader(file)

    assert [row[0] for row in rows] == [f"'{text}" for text in FORMULAS[:5]] + FORMULAS[5:]
    assert rows[0][1] == "-1.5", "a number is one"


def test_a_workbook_has_texts_as_they_are_and_no_formula(tmp_path: Path) -> None:
    seeds = [1, 2**62, 3, 4, 5, 6, 7]
    table = pa.table({"prompt": FORMULAS, "seed": pa.array(seeds, pa.int64()), "x_bad": ["a\x0bb"] * len(FORMULAS)})
    write_rows(table, tmp_path / "rows.xlsx")
    write_rows(TABLE, tmp_path / "all.xlsx")
    headings, *rows = openpyxl.load_workbook(tmp_path / "rows.xlsx").active.iter_rows()
    _, first, second = openpyxl.load_workbook(tmp_path / "all.xlsx").active.iter_rows(values_only=True)

    assert [cell.value for cell in headings] == table.column_names
    assert [row[0].value for row in rows] == FORMULAS
    assert {row[0].data_type for row in rows} == {"s"}
    assert [row[1].value for row in rows] == [1, str(2**62), 3, 4, 5, 6, 7]
    assert rows[0][2].value == "a\ufffdb"
    assert first[2:] == ('["x.png", "y.png"]', STAGES, True, 0.1, "1.50", "2026-11-26T20:57:01+00:00")
    assert second == ("b", None, None, "[]", None, None, None, None)


def test_a_workbook_says_what_it_cannot_hold(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(JobError, match=r"row 1: recipe has 32768 characters; a cell of a workbook takes 32767"):
        write_rows(pa.table({"recipe": ["x" * 32_768]}), tmp_path / "rows.xlsx")
    monkeypatch.setattr(workbook, "ROWS_MAX", 1)
    with pytest.raises(JobError, match="more than 1 rows, as a sheet takes"):
        write_rows(TABLE, tmp_path / "rows.xlsx")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.fault("F22", "metadata --to x.jsonl", "JSON lines")
def test_json_lines_keep_their_types(tmp_path: Path) -> None:
    write_rows(TABLE, tmp_path / "rows.jsonl")
    first, second = map(json.loads, (tmp_path / "rows.jsonl").read_text(encoding="utf-8").splitlines())

    assert first["images"] == ["x.png", "y.png"]
    assert (first["adopted"], first["x_price"], first["committed_at"]) == (True, 0.1, "2026-11-26T20:57:01+00:00")
    assert (second["prompt"], second["x_price"]) == (None, None)


def test_parquet_is_the_table_itself(tmp_path: Path) -> None:
    write_rows(TABLE, tmp_path / "rows.parquet")
    assert pq.read_table(tmp_path / "rows.parquet").drop_columns("x_price") == TABLE.drop_columns("x_price")


@pytest.mark.fault("F22", "metadata --to x.xls, or without a suffix", "refused, with the suffixes that are taken")
@pytest.mark.parametrize("name", ["rows.xls", "rows", "rows.csv.gz"])
def test_another_suffix_is_refused_and_nothing_is_written(tmp_path: Path, name: str) -> None:
    with pytest.raises(JobError, match=r"is none of \.parquet, \.csv, \.tsv, \.jsonl, \.xlsx"):
        write_rows(TABLE, tmp_path / name)
    assert list(tmp_path.iterdir()) == []


def test_a_wrong_suffix_is_refused_before_a_row_is_read(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["metadata", str(tmp_path / "no-campaign"), "--to", str(tmp_path / "rows.xls")]
    with pytest.raises(SystemExit) as ended:
        app(command)
    assert ended.value.code == 2
    assert "the suffix '.xls' is none of" in capsys.readouterr().err


def test_a_file_that_cannot_be_written_is_told_in_a_line(tmp_path: Path) -> None:
    with pytest.raises(JobError, match=r"there is no folder .*nowhere"):
        write_rows(TABLE, tmp_path / "nowhere" / "rows.csv")
    (tmp_path / "folder.csv").mkdir()
    with pytest.raises(JobError, match="is a folder"):
        write_rows(TABLE, tmp_path / "folder.csv")


@pytest.mark.fault("S9", "x_ values of an older campaign that Python does not have", "told as such; nothing ends")
@pytest.mark.parametrize(
    "column",
    [
        pa.array([0, 10**18], pa.timestamp("us")),
        pa.array([0, 2**31 - 1], pa.date32()),
        pa.array([None, 1], pa.timestamp("us", "Mars/Olympus")),
    ],
    ids=["year 31969", "date", "time zone"],
)
def test_a_value_that_python_does_not_have_is_told_as_such(column: pa.Array, tmp_path: Path) -> None:
    batch = pa.record_batch({"id": ["a", "b"], "x_t": column})
    with pytest.raises((ValueError, OverflowError, LookupError)):
        batch.to_pylist()
    rows: list[dict[str, Any]] = list(python_rows(batch))

    assert [row["id"] for row in rows] == ["a", "b"]
    assert rows[1]["x_t"] == UNREADABLE
    for suffix in (".csv", ".jsonl"):
        write_rows(pa.Table.from_batches([batch]), tmp_path / f"rows{suffix}")
        assert UNREADABLE in (tmp_path / f"rows{suffix}").read_text()


@pytest.mark.parametrize("suffix", [".xlsx", ".csv", ".parquet"])
def test_a_disk_that_takes_nothing_is_told_with_the_file(
    suffix: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A full disk while the file is written, and one that is mounted for reading, where nothing can be removed."""
    fresh = tmp_path / f".rows{suffix}.{os.getpid()}.new"
    if suffix != ".csv":  # is opened as a new file
        fresh.symlink_to("/dev/full")
        with pytest.raises(JobError, match=rf"--to .*rows{suffix}: .*No space left on device"):
            write_rows(TABLE, tmp_path / f"rows{suffix}")
        gc.collect()
    fresh.mkdir()

    def refused(path: Path, *, missing_ok: bool = False) -> None:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS), str(path))

    monkeypatch.setattr(Path, "unlink", refused)
    with pytest.raises(JobError, match=rf"--to .*rows{suffix}: "):
        write_rows(TABLE, tmp_path / f"rows{suffix}")
