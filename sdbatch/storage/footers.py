"""A sum over the footer of a Parquet file of our own: pages have checksums of Parquet's, and the footer has none.

    pages | mark, sum of all that follows | footer, its length, PAR1

One damaged bit of a footer can be fewer rows, other values or a column that is not there. Parquet finds the footer from
the end, and pages by their place from the beginning, so that other readers do not look at what stands in between.
"""

from __future__ import annotations

import zlib
from typing import Final

import pyarrow as pa
import pyarrow.parquet as pq

from sdbatch.storage.in_arrow import in_arrow

_MARK: Final = b"sdb1"
_SUM_BYTES: Final = len(_MARK) + 4
_END_BYTES: Final = 8
"""Length of the footer, and PAR1."""


def with_footer_sum(written: pa.Buffer) -> bytes:
    """Return a Parquet file that was just written, with the sum of its footer."""
    view = memoryview(written)
    start = _footer_start(view)
    pages, end = view[:start], view[start:]
    return b"".join((pages, _MARK, zlib.crc32(end).to_bytes(4, "little"), end))


def refuse_damaged_footer(data: bytes) -> None:
    """Raise pa.ArrowInvalid where a file has a sum and another footer; files of older versions have none."""
    start = _footer_start(memoryview(data))
    before = data[max(start - _SUM_BYTES, 0) : max(start, 0)]
    if before.startswith(_MARK) and int.from_bytes(before[len(_MARK) :], "little") != zlib.crc32(data[start:]):
        raise pa.ArrowInvalid("its footer is damaged")


def checked_file(data: bytes) -> pq.ParquetFile:
    """Open a Parquet file of our own; its footer is compared with its sum, and each page as it is read.

    Raises:
        pa.ArrowException, OSError: When it is no Parquet file, or its footer is damaged.
    """
    refuse_damaged_footer(data)
    return pq.ParquetFile(in_arrow(data), page_checksum_verification=True)


def _footer_start(view: memoryview) -> int:
    return len(view) - _END_BYTES - int.from_bytes(view[-_END_BYTES:-4], "little")
