"""Which text columns are read plainly: those whose own pages say that no batch gets large."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from sdbatch.manifest import page_heads
from sdbatch.manifest.footer_sizes import ColumnChunk, RowGroupSizes, row_group_sizes
from sdbatch.manifest.page_heads import PLAIN_TEXT_BYTES_MAX, _is_small, plain_columns
from sdbatch.manifest.read import list_shards, read_batches

ROWS = 40_000
DIFFERENT = [f"scene number {number} of an old town by the sea, in the evening" for number in range(ROWS)]


def _file(folder: Path, prompts: list[str | None], **options: Any) -> Path:
    path = folder / "rows.parquet"
    table = pa.table({"id": [f"row-{number:06d}" for number in range(len(prompts))], "prompt": prompts})
    pq.write_table(table, path, **{"data_page_size": 64 << 10, "dictionary_pagesize_limit": 64 << 10, **options})
    return path


def _plain(path: Path) -> list[str]:
    with pa.OSFile(str(path)) as file:
        return plain_columns(file, ["id", "prompt"])


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"use_dictionary": False},
        {"data_page_version": "2.0"},
        {"compression": "zstd"},
        {"compression": "none"},
        {"row_group_size": 33_000},
    ],
)
def test_different_texts_are_read_plainly_and_are_the_same(tmp_path: Path, options: dict[str, Any]) -> None:
    path = _file(tmp_path, [*DIFFERENT[:-2], None, ""], **options)
    (shard,) = list_shards(str(path), {})
    read = [text for batch in read_batches(shard) for text in batch.columns["prompt"]]

    assert _plain(path) == ["id", "prompt"]
    assert read == [*DIFFERENT[:-2], None, ""]


@pytest.mark.parametrize(
    ("prompts", "options"),
    [
        pytest.param(["a town", "a harbour"] * (ROWS // 2), {}, id="few texts stand in the dictionary"),
        pytest.param(["x" * (PLAIN_TEXT_BYTES_MAX + 1), *DIFFERENT[1:]], {}, id="a long text in the dictionary"),
        pytest.param(
            [*DIFFERENT, *["x" * (PLAIN_TEXT_BYTES_MAX + 1)] * 1000],
            {"use_dictionary": False, "compression": "zstd"},
            id="a long text said again and again",
        ),
        pytest.param(
            DIFFERENT,
            {"use_dictionary": False, "column_encoding": {"id": "PLAIN", "prompt": "DELTA_BYTE_ARRAY"}},
            id="texts that share their beginnings",
        ),
        pytest.param(DIFFERENT, {"row_group_size": 4096}, id="small row groups"),
    ],
)
def test_texts_that_may_become_large_keep_their_dictionary(
    tmp_path: Path, prompts: list[str | None], options: dict[str, Any]
) -> None:
    assert "prompt" not in _plain(_file(tmp_path, prompts, **options))


def _first_page(path: Path) -> int:
    data = path.read_bytes()
    footer = data[-8 - int.from_bytes(data[-8:-4], "little") : -8]
    return row_group_sizes(footer)[0].chunks[1].start


@pytest.mark.parametrize("damage", [b"\xff" * 32, b"\0" * 32])
def test_a_page_without_a_readable_head_is_not_trusted(tmp_path: Path, damage: bytes) -> None:
    path = _file(tmp_path, list(DIFFERENT))
    start = _first_page(path)
    data = path.read_bytes()
    path.write_bytes(data[:start] + damage + data[start + len(damage) :])

    assert "prompt" not in _plain(path)


PLAIN, BY_DICTIONARY = 0, 8


def _varint(number: int) -> bytes:
    number *= 2  # as Thrift writes a number that is not negative
    digits = b""
    while number > 127:
        digits, number = digits + bytes([number & 127 | 128]), number >> 7
    return digits + bytes([number])


def _data_page(encoding: int, num_values: int, num_bytes: int) -> bytes:
    """Return a page as it stands in a file: the head of a data page in Thrift's compact protocol, then its bytes."""
    i32, struct = b"\x15", b"\x2c"
    values = i32 + _varint(num_values) + i32 + _varint(encoding) + b"\0"
    head = i32 + _varint(0) + i32 + _varint(num_bytes) + i32 + _varint(num_bytes) + struct + values + b"\0"
    return head + bytes(num_bytes)


@pytest.mark.parametrize(
    ("pages", "is_small"),
    [
        ([(BY_DICTIONARY, 5, 10), (PLAIN, 5, 100)], True),
        ([(PLAIN, 5, 100), (BY_DICTIONARY, 5, 10)], False),  # its entries were not seen with the first row
        ([(PLAIN, 5, 100), (PLAIN, 1, PLAIN_TEXT_BYTES_MAX + 1)], False),
        ([(BY_DICTIONARY, 5, 10)], False),
    ],
)
def test_a_chunk_is_judged_by_every_one_of_its_pages(pages: list[tuple[int, int, int]], is_small: bool) -> None:
    data = b"PAR1" + b"".join(_data_page(*page) for page in pages)
    chunk = ColumnChunk(num_values=sum(num for _, num, _ in pages), data_offset=4)

    assert _is_small(pa.BufferReader(data), chunk) is is_small


def test_the_footer_of_small_groups_is_not_read_once_more(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    footers: list[bytes] = []

    def counted(footer: bytes) -> list[RowGroupSizes]:
        footers.append(footer)
        return row_group_sizes(footer)

    monkeypatch.setattr(page_heads, "row_group_sizes", counted)
    assert _plain(_file(tmp_path, [*DIFFERENT], row_group_size=4096)) == []
    assert not footers
    assert _plain(_file(tmp_path, [*DIFFERENT])) == ["id", "prompt"]
    assert len(footers) == 1
