"""A part of the resolved manifest on this machine's disk: a table of some ten thousand rows, one file.

    ResolvedRows --> part_table() --> write_part() --> file --> read_parts() --> the columns that are asked for

Parts are written once and read a few times by the same process, so they are Arrow's own files: Parquet's encodings
would take more than twice the time and save a fifth of the room.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from sdbatch.campaign.digests import Digests, id_digests, request_digests
from sdbatch.plan.resolve import ResolvedRows

PART: Final = pa.schema(
    [
        ("id", pa.string()),
        ("request_key", pa.string()),
        ("num_outputs", pa.int32()),
        ("recipe", pa.string()),
        ("sources", pa.list_(pa.struct([(name, pa.string()) for name in ("role", "url", "digest", "asset")]))),
        ("model", pa.string()),
        ("batch_key", pa.string()),
        ("cost_tflop", pa.float64()),
        ("waits_for", pa.string()),  # the first source that a run before has to make; null where nothing lacks
        ("shape", pa.string()),
        ("digest_high", pa.uint64()),  # of the request, in this process: what the campaign's history is asked by
        ("digest_low", pa.uint64()),
    ]
)
"""Columns of every part; the user's x_* stand behind them."""
DIGEST: Final = ("digest_high", "digest_low")


def part_table(rows: ResolvedRows, own: pa.Table, ids: NDArray[np.uint64]) -> pa.Table:
    """Return resolved rows, with their keys, their digests and their x_* columns, as a table.

    Args:
        rows: The rows.
        own: Their x_* columns.
        ids: The digest of each id; see `sdbatch.campaign.digests.id_digests`.
    """
    num_rows = len(rows.id)
    keys = rows.request_key
    digests = request_digests(ids, keys)
    columns = {
        **{name: _array(values, PART.field(name).type) for name, values in rows._asdict().items() if name != "sources"},
        "request_key": keys,
        "sources": _sources(rows),
        "waits_for": pa.nulls(num_rows, pa.string()),
        "digest_high": pa.array(digests.high),
        "digest_low": pa.array(digests.low),
    }
    table = pa.table([columns[name] for name in PART.names], schema=PART)
    for name in own.column_names:
        table = table.append_column(name, own.column(name))
    return table


def part_digests(part: pa.Table) -> Digests:
    """Return the digests of a part's requests."""
    high, low = (part.column(name).to_numpy() for name in DIGEST)
    return Digests(high=high, low=low)


def with_digests(part: pa.Table) -> pa.Table:
    """Return a part with the digests of its requests as its ids and keys are now."""
    digests = request_digests(id_digests(part.column("id")), part.column("request_key"))
    for name, words in zip(DIGEST, (digests.high, digests.low), strict=True):
        if name in part.column_names:
            part = part.set_column(part.column_names.index(name), PART.field(name), pa.array(words))
        else:
            part = part.append_column(PART.field(name), pa.array(words))
    return part


def _array(values: Sequence[Any], kind: pa.DataType) -> pa.Array:
    """Return values as an Arrow column; where all rows of a batch have the same one, it is read once."""
    if values and values[0] == values[-1] and values.count(values[0]) == len(values):
        return pa.repeat(pa.scalar(values[0], kind), len(values))
    return pa.array(values, kind)


def _sources(rows: ResolvedRows) -> pa.Array:
    kind = PART.field("sources").type
    if not any(rows.sources):
        no_items = pa.array([], kind.value_type)
        return pa.ListArray.from_arrays(pa.array(np.zeros(len(rows.id) + 1, np.int32)), no_items, type=kind)
    told = [
        [{"role": s.role, "url": s.url, "digest": s.digest, "asset": s.asset} for s in sources]
        for sources in rows.sources
    ]
    return pa.array(told, kind)


def write_part(part: pa.Table, path: Path) -> None:
    """Write a part; one that is there is replaced."""
    options = pa.ipc.IpcWriteOptions(compression="zstd", use_threads=False)
    with pa.ipc.new_file(str(path), part.schema, options=options) as file:
        file.write_table(part)


def read_part(path: Path, columns: Sequence[str] | None = None) -> pa.Table:
    """Return a part, or those of some columns that it has, in the order in which they are named."""
    if columns is None:
        return _read(path, None)
    there = part_schema(path)
    names = [name for name in columns if name in there.names]
    return _read(path, [there.get_field_index(name) for name in names]).select(names)


def read_parts(paths: Iterable[Path], columns: Sequence[str], *, ahead: bool) -> Iterator[pa.Table]:
    """Yield parts one after the other.

    Args:
        paths: Their files.
        columns: See `read_part`.
        ahead: Whether a thread reads the next one while one is worked on; both of them are in memory then.
    """
    if not ahead:
        yield from (read_part(path, columns) for path in paths)
        return
    with ThreadPoolExecutor(1, "read-part") as reader:
        coming: Future[pa.Table] | None = None
        for path in paths:
            ready, coming = coming, reader.submit(read_part, path, columns)
            if ready is not None:
                yield ready.result()
        if coming is not None:
            yield coming.result()


def part_schema(path: Path) -> pa.Schema:
    """Return the columns of a part."""
    with pa.OSFile(str(path)) as file:
        return pa.ipc.open_file(file).schema


def _read(path: Path, fields: list[int] | None) -> pa.Table:
    options = pa.ipc.IpcReadOptions(use_threads=False, included_fields=fields)
    with pa.OSFile(str(path)) as file:
        return pa.ipc.open_file(file, options=options).read_all()
