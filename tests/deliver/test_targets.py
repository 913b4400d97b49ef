"""The table of a target: what several deliveries write into it, and what is said of a damaged one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from sdbatch.deliver.index import MADE, from_parquet, to_csv, to_parquet
from sdbatch.deliver.targets import FolderTarget, ZipTarget
from sdbatch.errors import JobError, NewerFormat, UserError
from sdbatch.storage import LocalStore


def _row(name: str, delivery: str, **more: Any) -> dict[str, Any]:
    values = {"status": MADE, "delivery": delivery, "id": "a", "n": 0, "file_bytes": 3, "key": "k", "archive": None}
    return {"name": name, **values, "ledger": None, **more}


def _target(folder: Path, delivery: str) -> FolderTarget:
    return FolderTarget(LocalStore(str(folder)), lambda row: bool(row["delivery"] == delivery))


def test_what_another_delivery_wrote_meanwhile_is_kept(tmp_path: Path) -> None:
    one, two = _target(tmp_path, "one"), _target(tmp_path, "two")
    rows = one.read_rows()
    two.write_rows({"b": _row("b", "two")})
    one.write_rows({**rows, "a": _row("a", "one")})

    assert {name: row["delivery"] for name, row in two.read_rows().items()} == {"a": "one", "b": "two"}


def test_a_name_that_another_delivery_took_meanwhile_is_refused(tmp_path: Path) -> None:
    one, two = _target(tmp_path, "one"), _target(tmp_path, "two")
    two.write_rows({"A": _row("A", "two")})

    with pytest.raises(JobError, match="a was taken meanwhile by delivery two"):
        one.write_rows({"a": _row("a", "one")})


def test_equal_rows_are_equal_bytes_in_any_order() -> None:
    one, two = _row("a", "one", x_b="1"), _row("b", "one", x_a="2")

    assert to_parquet({"a": one, "b": two}) == to_parquet({"b": two, "a": one})
    assert from_parquet(to_parquet({"a": one}), "there")["a"]["x_b"] == "1"


@pytest.mark.parametrize("data", [b"", b"PAR1", b"no table at all"])
def test_a_damaged_table_is_said_in_one_line(data: bytes) -> None:
    with pytest.raises(UserError, match=r"there: is not the table of a delivery .*; move it away"):
        from_parquet(data, "there")


def test_one_damaged_bit_of_a_table_is_refused_or_changes_nothing() -> None:
    rows = {name: _row(name, "one", x_b=name) for name in ("a", "b")}
    data = to_parquet(rows)
    whole = from_parquet(data, "there")
    refused = 0
    for place in range(0, len(data), 7):
        try:
            read = from_parquet(bytes([*data[:place], data[place] ^ 1 << place % 8, *data[place + 1 :]]), "there")
        except UserError:
            refused += 1
        else:
            assert read == whole
    assert refused > len(data) / 14


@pytest.mark.parametrize(("mark", "kind"), [("99", NewerFormat), ("x", UserError), (None, UserError)])
def test_a_table_of_another_program_or_a_later_version_is_refused(mark: str | None, kind: type[Exception]) -> None:
    metadata = {b"sdbatch.delivered_version": mark.encode()} if mark else None
    sink = pa.BufferOutputStream()
    pq.write_table(pa.table({"name": ["a"]}).replace_schema_metadata(metadata), sink)

    with pytest.raises(kind):
        from_parquet(sink.getvalue().to_pybytes(), "there")


def test_a_text_that_a_spreadsheet_would_run_is_marked() -> None:
    assert b"'=HYPERLINK" in to_csv({"a": _row("a", "one", x_b="=HYPERLINK(1)")})


def test_an_archive_that_nobody_delivered_is_not_written_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SDBATCH_CACHE", str(tmp_path / "cache"))
    (tmp_path / "all.zip").write_bytes(b"somebody's own")

    with pytest.raises(JobError, match=r"all\.zip: is there, and no delivery of sdbatch made it"):
        ZipTarget(LocalStore(str(tmp_path)), "all.zip", 1_000_000).read_rows()
