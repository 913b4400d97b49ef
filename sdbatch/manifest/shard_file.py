"""Opens Parquet files of strangers: through Arrow alone, and within bounds that hold before anything is decoded.

    store + path --> read_footer() --> Footer          --> opened() --> a file that Arrow reads by itself

Arrow never gets a Python file here. Its threads may let go of one when the interpreter has already ended, and the
process then aborts (exit 134). A remote file is copied to this machine's disk first, for as long as it is read.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import stat
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from sdbatch.errors import JobError
from sdbatch.manifest.footer_sizes import RowGroupSizes, row_group_sizes
from sdbatch.storage import Store, joined
from sdbatch.storage.in_arrow import in_arrow

FOOTER_BYTES_MAX = 16 << 20
"""Longest footer. Ten million rows in groups of 4,096 with twenty columns have one of some 8 MiB."""
LEAVES_MAX = 1000
"""Most columns of a file, each field of a nested one counted."""
SHARD_ROWS_MAX = 10_000_000
VALUES_FLOOR = 250_000
VALUES_PER_BYTE_MAX = 32
"""Rows of a file, and items of its lists: the floor, and so many more for each byte. Ids differ from row to row, so a
row takes a byte or so at the very least; a file with more than that is made to be larger than it looks."""
EXPANDED_FLOOR = 256 << 20
EXPANDED_PER_BYTE_MAX = 1000
"""Bytes that a file may decode to: the floor, and so many for each of its own bytes."""
_TAIL_BYTES = 64 << 10
_MAGIC = b"PAR1"
READ_FAULTS = (pa.ArrowException, OSError, ValueError, LookupError, OverflowError, MemoryError)
"""What Arrow raises for a damaged file. UnicodeDecodeError is a ValueError."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Footer:
    """What the end of a Parquet file says, after it was found to be within the bounds.

    Attributes:
        schema: Columns, as Arrow reads them.
        metadata: Row groups and their sizes.
        file_bytes: Length of the whole file.
    """

    schema: pa.Schema
    metadata: pq.FileMetaData
    file_bytes: int

    @property
    def expanded_bytes_max(self) -> int:
        """Bytes that its texts may take once each row has its own."""
        return max(EXPANDED_FLOOR, EXPANDED_PER_BYTE_MAX * self.file_bytes)


def read_footer(store: Store, path: str) -> Footer:
    """Read the footer of a Parquet file.

    Raises:
        JobError: When it is not Parquet, or over a bound; the message names the file.
    """
    name = joined(store.url, path)
    try:
        size = _size_bytes(store, path)
        tail = _tail(store, path, size)
        sizes = row_group_sizes(tail[-8 - int.from_bytes(tail[-8:-4], "little") : -8])
        metadata = pq.read_metadata(in_arrow(tail))
        schema = None if metadata.num_columns > LEAVES_MAX else metadata.schema.to_arrow_schema()
        str(schema)  # names that are no text raise here
    except JobError as error:
        raise JobError(f"manifest: {name}: {error}") from error
    except READ_FAULTS as error:
        raise JobError(f"manifest: {name}: not a readable Parquet file: {_one_line(error)}") from error
    if schema is None:
        raise JobError(f"manifest: {name}: has {metadata.num_columns} columns, over {LEAVES_MAX}")
    footer = Footer(schema=schema, metadata=metadata, file_bytes=size)
    _refuse_expansion(footer, sizes, name)
    return footer


@contextlib.contextmanager
def opened(store: Store, path: str) -> Iterator[pa.NativeFile]:
    """Open a file for Arrow; it is closed, and a copy of it removed, at the end."""
    if store.is_local:
        with pa.OSFile(joined(store.url, path)) as file:
            yield file
        return
    with tempfile.NamedTemporaryFile(prefix="sdbatch-shard-") as copy:
        with store.open(path) as source:
            shutil.copyfileobj(source, copy, 8 << 20)
        copy.flush()
        with pa.OSFile(copy.name) as file:
            yield file


def _size_bytes(store: Store, path: str) -> int:
    if not store.is_local:
        return store.stat(path).size_bytes
    status = Path(joined(store.url, path)).stat()
    if not stat.S_ISREG(status.st_mode):  # a pipe would be waited for, a device read for ever
        raise JobError("is not a regular file")
    return status.st_size


def _tail(store: Store, path: str, size: int) -> bytes:
    """Return the end of a file that holds its footer."""
    tail = _read_range(store, path, max(0, size - _TAIL_BYTES), size)
    if len(tail) < 12 or tail[-4:] != _MAGIC:
        raise JobError("not a readable Parquet file: it does not end as one")
    footer_bytes = int.from_bytes(tail[-8:-4], "little")
    if footer_bytes + 8 > size:
        raise JobError("not a readable Parquet file: its footer is longer than itself")
    if footer_bytes > FOOTER_BYTES_MAX:
        raise JobError(f"has a footer of {footer_bytes} bytes, over {FOOTER_BYTES_MAX}")
    return tail if footer_bytes + 8 <= len(tail) else _read_range(store, path, size - footer_bytes - 8, size)


def _read_range(store: Store, path: str, start: int, stop: int) -> bytes:
    if not store.is_local:
        return store.read_range(path, start, stop)
    descriptor = os.open(joined(store.url, path), os.O_RDONLY)
    try:
        return os.pread(descriptor, stop - start, start)
    finally:
        os.close(descriptor)


def _refuse_expansion(footer: Footer, sizes: Sequence[RowGroupSizes], name: str) -> None:
    """Raise JobError when a small file would become a large table."""
    size = footer.file_bytes
    rows = max(footer.metadata.num_rows, sum(group.num_rows for group in sizes))
    if rows > SHARD_ROWS_MAX:
        raise JobError(f"manifest: {name}: has {rows} rows, over {SHARD_ROWS_MAX} in one file; split it")
    values_max = max(VALUES_FLOOR, VALUES_PER_BYTE_MAX * size)
    if rows > values_max:
        raise JobError(f"manifest: {name}: has {rows} rows in {size} bytes, over {values_max}")
    items = max((group.num_values - group.num_rows for group in sizes), default=0)
    expanded = sum(group.decoded_bytes for group in sizes)
    if items > values_max:
        raise JobError(f"manifest: {name}: has {items} items in lists in {size} bytes, over {values_max}")
    if expanded > footer.expanded_bytes_max:
        bound = footer.expanded_bytes_max
        raise JobError(f"manifest: {name}: decodes from {size} to {expanded} bytes, over {bound}")


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split()) or type(error).__name__
