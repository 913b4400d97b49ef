"""Bytes as a file that Arrow reads without Python.

Arrow 26 reads Parquet in threads of its own, also with `use_threads=False`. When the interpreter has ended and one of
them lets go of the last hold on a Python file or on Python's bytes, the process aborts (exit 134).
"""

from __future__ import annotations

import pyarrow as pa


def in_arrow(data: bytes) -> pa.BufferReader:
    """Copy bytes into memory of Arrow's own, and return that as a file."""
    buffer = pa.allocate_buffer(len(data))  # of exactly this size: an output stream would take up to twice as much
    if data:
        pa.FixedSizeBufferWriter(buffer).write(data)
    return pa.BufferReader(buffer)
