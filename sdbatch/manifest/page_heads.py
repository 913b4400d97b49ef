"""Which text columns of a Parquet file may be read without a dictionary, by the heads of their pages.

    file + footer --> plain_columns() --> paths of columns whose texts mostly differ, and whose batches stay small

Read as a dictionary, a text takes its room once, however often a small file repeats it: that is the safe way. But where
the texts differ from row to row, Arrow 26 carries all of a row group's from batch to batch, and a group of a million
rows takes 300 MiB. A column is read plainly only where its pages themselves, not the footer, say that a batch is small.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final, NamedTuple

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from sdbatch.manifest.footer_sizes import ColumnChunk, Thrift, row_group_sizes

GROUP_ROWS_MIN: Final = 32_768
"""Rows of a row group from which on its dictionaries grow too large."""
PLAIN_TEXT_BYTES_MAX: Final = 8192
"""Bytes a row, at most, of a column that is read plainly."""
_HEAD_BYTES: Final = 16 << 10
_PAGES_MAX: Final = 100_000
_DATA, _DICTIONARY, _DATA_V2 = 0, 2, 3
_PLAIN, _BY_DICTIONARY = 0, frozenset({2, 8})
_TYPE, _UNCOMPRESSED, _COMPRESSED, _DATA_HEAD, _DATA_HEAD_V2 = 1, 2, 3, 5, 8


class _Page(NamedTuple):
    kind: int
    uncompressed_bytes: int
    compressed_bytes: int
    num_values: int
    encoding: int
    head_bytes: int


def plain_columns(file: pa.NativeFile, paths: Sequence[str]) -> list[str]:
    """Return those of some text columns that are read plainly; none where the heads of pages cannot be read.

    Args:
        file: A Parquet file, open for reading.
        paths: Of columns; one inside a list is never among the result.
    """
    try:
        return _plain_columns(file, paths)
    except (ValueError, LookupError, OSError, pa.ArrowException):  # read as ever, the file says itself what is wrong
        return []


def _plain_columns(file: pa.NativeFile, paths: Sequence[str]) -> list[str]:
    parquet = pq.ParquetFile(file)
    told = parquet.metadata
    if not any(told.row_group(number).num_rows >= GROUP_ROWS_MIN for number in range(told.num_row_groups)):
        return []  # a footer of many small groups would take a second or more to read here
    groups = row_group_sizes(_footer(file))
    leaves = [leaf.path for leaf in parquet.schema]
    if any(len(group.chunks) != len(leaves) for group in groups):
        return []
    return [
        path
        for number, path in enumerate(leaves)
        if path in paths
        and "." not in path
        and all(_is_small(file, group.chunks[number]) for group in groups)
        and _entries_are_short(file, path, range(len(groups)))
    ]


def _footer(file: pa.NativeFile) -> bytes:
    size = file.size()
    file.seek(size - 8)
    length = int.from_bytes(file.read(4), "little")
    file.seek(size - 8 - length)
    return bytes(file.read(length))


def _is_small(file: pa.NativeFile, chunk: ColumnChunk) -> bool:
    """Whether a chunk's texts differ so much that not all stand in its dictionary, and no page has long ones."""
    is_first, holds_plain = True, False
    for page in _pages(file, chunk):
        if page.kind == _DICTIONARY:
            if not is_first:
                return False
        elif page.encoding == _PLAIN:
            holds_plain = True
            if page.uncompressed_bytes > PLAIN_TEXT_BYTES_MAX * page.num_values:
                return False
        elif page.encoding not in _BY_DICTIONARY or holds_plain:
            return False  # a writer that gave up its dictionary does not come back to it
        is_first = False
    return holds_plain


def _entries_are_short(file: pa.NativeFile, path: str, groups: Sequence[int]) -> bool:
    """Whether no entry of a column's dictionaries is long; Arrow reads them all with the first row."""
    parquet = pq.ParquetFile(file, read_dictionary=[path])
    for group in groups:
        for batch in parquet.iter_batches(1, row_groups=[group], columns=[path], use_threads=False):
            entries = batch.column(0).dictionary if pa.types.is_dictionary(batch.column(0).type) else batch.column(0)
            if (pc.max(pc.binary_length(entries)).as_py() or 0) > PLAIN_TEXT_BYTES_MAX:
                return False
            break
    return True


def _pages(file: pa.NativeFile, chunk: ColumnChunk) -> Iterator[_Page]:
    """Yield the heads of a chunk's pages, found as Arrow finds them."""
    size = file.size()
    place, num_values = chunk.start, 0
    for _ in range(_PAGES_MAX):
        if num_values >= chunk.num_values or place >= size:
            return
        file.seek(place)
        page = _page(file.read(_HEAD_BYTES))
        if page.compressed_bytes < 0 or page.num_values < 0:
            raise ValueError("a page of a negative size")
        yield page
        place += page.head_bytes + page.compressed_bytes
        num_values += page.num_values
    raise ValueError(f"a column chunk of more than {_PAGES_MAX} pages")


def _page(data: bytes) -> _Page:
    """Read a page's head. Raises ValueError or IndexError when it is none."""
    reader = Thrift(data)
    numbers = {_TYPE: -1, _UNCOMPRESSED: 0, _COMPRESSED: 0}
    num_values, encoding = 0, -1
    for field, kind in reader.fields():
        if field in numbers:
            numbers[field] = reader.integer()
        elif field in {_DATA_HEAD, _DATA_HEAD_V2}:
            for inner, inner_kind in reader.fields():
                if inner == 1:
                    num_values = reader.integer()
                elif inner == (2 if field == _DATA_HEAD else 4):
                    encoding = reader.integer()
                else:
                    reader.skip(inner_kind)
        else:
            reader.skip(kind)
    kind = numbers[_TYPE]
    if kind not in {_DATA, _DICTIONARY, _DATA_V2}:
        raise ValueError(f"a page of the unknown type {kind}")
    return _Page(kind, numbers[_UNCOMPRESSED], numbers[_COMPRESSED], num_values, encoding, reader.place)
