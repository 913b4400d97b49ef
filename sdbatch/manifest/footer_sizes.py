"""How much a Parquet footer says that its columns hold, read without Arrow's own view of them.

    bytes of a footer --> row_group_sizes() --> rows, values, and bytes once decoded of each row group

pyarrow 26 ends the whole process (std::terminate) where a damaged footer's statistics do not fit its schema, as soon
as it is asked for a column of a row group. What is needed of a footer is a few numbers, so they are read here.
Thrift's compact protocol: https://github.com/apache/thrift/blob/master/doc/specs/thrift-compact-protocol.md; the fields
by their numbers: https://github.com/apache/parquet-format/blob/master/src/main/thrift/parquet.thrift
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple, TypeVar

_T = TypeVar("_T")
_DEPTH_MAX = 16
"""Structs in structs; a footer has eight at most."""
_TRUE, _FALSE, _BYTE, _I16, _I32, _I64, _DOUBLE, _BINARY, _LIST, _SET, _, _STRUCT = range(1, 13)
_ROW_GROUPS, _COLUMNS, _ROWS, _META_DATA, _NUM_VALUES, _UNCOMPRESSED = 4, 1, 3, 3, 5, 6
_DATA_OFFSET, _DICTIONARY_OFFSET = 9, 11


class ColumnChunk(NamedTuple):
    """Where the values of one column of a row group stand.

    Attributes:
        num_values: Items of lists are counted each.
        decoded_bytes: Bytes once they are decompressed.
        data_offset: Of its first page that is no dictionary.
        dictionary_offset: Of its dictionary; 0 without one.
    """

    num_values: int = 0
    decoded_bytes: int = 0
    data_offset: int = 0
    dictionary_offset: int = 0

    @property
    def start(self) -> int:
        """Where its first page stands, as Arrow finds it."""
        return self.dictionary_offset if 0 < self.dictionary_offset < self.data_offset else self.data_offset


class RowGroupSizes(NamedTuple):
    """What one row group holds.

    Attributes:
        num_rows: Rows.
        num_values: Values of the column that has most of them, items of lists counted each.
        decoded_bytes: Bytes of all columns once they are decompressed.
        chunks: Each of its columns.
    """

    num_rows: int
    num_values: int
    decoded_bytes: int
    chunks: tuple[ColumnChunk, ...] = ()


def row_group_sizes(footer: bytes) -> list[RowGroupSizes]:
    """Return what each row group of a file holds.

    Args:
        footer: The file's metadata, without the length and the magic number that end the file.

    Raises:
        ValueError, IndexError: When it is no footer.
    """
    reader = Thrift(footer)
    groups: list[RowGroupSizes] = []
    for field, kind in reader.fields():
        if field == _ROW_GROUPS and kind == _LIST:
            groups.extend(reader.structs(lambda: _row_group(reader)))
        else:
            reader.skip(kind)
    return groups


def _row_group(reader: Thrift) -> RowGroupSizes:
    num_rows = 0
    chunks: list[ColumnChunk] = []
    for field, kind in reader.fields():
        if field == _COLUMNS and kind == _LIST:
            chunks.extend(reader.structs(lambda: _column_chunk(reader)))
        elif field == _ROWS and kind == _I64:
            num_rows = reader.integer()
        else:
            reader.skip(kind)
    num_values = max((chunk.num_values for chunk in chunks), default=0)
    return RowGroupSizes(num_rows, max(num_values, 0), sum(chunk.decoded_bytes for chunk in chunks), tuple(chunks))


def _column_chunk(reader: Thrift) -> ColumnChunk:
    numbers = dict.fromkeys((_NUM_VALUES, _UNCOMPRESSED, _DATA_OFFSET, _DICTIONARY_OFFSET), 0)
    for field, kind in reader.fields():
        if field == _META_DATA and kind == _STRUCT:
            for inner, inner_kind in reader.fields():
                if inner in numbers and inner_kind == _I64:
                    numbers[inner] = reader.integer()
                else:
                    reader.skip(inner_kind)
        else:
            reader.skip(kind)
    return ColumnChunk(*numbers.values())


class Thrift:
    """Reads one value after another; IndexError where the bytes end before it does."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._place = 0

    @property
    def place(self) -> int:
        """Bytes that were read so far."""
        return self._place

    def fields(self) -> Iterator[tuple[int, int]]:
        """Yield number and type of each field of a struct; the caller reads or skips its value before the next."""
        number = 0
        while head := self._byte():
            number = number + (head >> 4) if head >> 4 else self.integer()
            yield number, head & 15

    def structs(self, read: Callable[[], _T]) -> Iterator[_T]:
        """Yield each item of a list of structs, as `read` reads it."""
        count, kind = self._list_head()
        if kind != _STRUCT:
            raise ValueError("a list that is not one of structs")
        for _ in range(count):
            yield read()

    def integer(self) -> int:
        """Read a number; positive and negative ones take turns."""
        number = self._varint()
        return (number >> 1) ^ -(number & 1)

    def skip(self, kind: int, depth: int = 0) -> None:
        """Go past a value."""
        if depth > _DEPTH_MAX:
            raise ValueError(f"structs over {_DEPTH_MAX} deep")
        if kind in {_I16, _I32, _I64}:
            self._varint()
        elif kind == _BINARY:
            self._forward(self._varint())
        elif kind == _BYTE:
            self._forward(1)
        elif kind == _DOUBLE:
            self._forward(8)
        elif kind == _STRUCT:
            for _, inner in self.fields():
                self.skip(inner, depth + 1)
        elif kind in {_LIST, _SET}:
            count, inner = self._list_head()
            for _ in range(count):
                self._forward(1) if inner in {_TRUE, _FALSE} else self.skip(inner, depth + 1)
        elif kind not in {_TRUE, _FALSE}:  # a footer has no maps
            raise ValueError(f"a value of the unknown type {kind}")

    def _list_head(self) -> tuple[int, int]:
        head = self._byte()
        count = head >> 4
        count = self._varint() if count == 15 else count
        if count > len(self._data):
            raise ValueError("a list that is longer than the footer")
        return count, head & 15

    def _byte(self) -> int:
        byte = self._data[self._place]
        self._place += 1
        return byte

    def _varint(self) -> int:
        number = shift = 0
        while (byte := self._byte()) & 128:
            number |= (byte & 127) << shift
            shift += 7
            if shift > 63:
                raise ValueError("a number of more than 64 bits")
        return number | byte << shift

    def _forward(self, count: int) -> None:
        self._place += count
        if self._place > len(self._data):
            raise IndexError("the footer ends before its values do")
