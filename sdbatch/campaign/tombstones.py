"""What was taken down: outputs that are gone for good, and sources that nothing is made from any more.

    takedowns/*.parquet --> read_tombstones() --> Tombstones.laid_over(rows) --> rows as people see them
                                                 Tombstones.bar(part) --> the rows of a manifest that no run makes

A tombstone is written before the first file is removed, so that a takedown that was interrupted shows, and goes on when
it is called again. Commits stay as the history; nothing else says what was taken down.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from sdbatch.campaign import formats, layout
from sdbatch.campaign.schema import PICTURES, table, to_parquet
from sdbatch.errors import UserError
from sdbatch.storage import Store

WITHDRAWN: Final = "withdrawn"
"""Status of an output that was taken down."""

TOMBSTONE: Final = pa.schema(
    [
        ("id", pa.string()),
        ("request_key", pa.string()),
        ("n", pa.int32()),
        ("asset", pa.string()),
        ("sha256", pa.string()),
        ("source", pa.string()),
        ("digest", pa.string()),
        ("why", pa.string()),
        ("at", pa.timestamp("ms", tz="UTC")),
        ("by", pa.string()),
        ("note", pa.string()),
    ]
)
"""A row is either an output (`id` to `sha256`) or a source (`source`, its URL, or `digest`, its content); `why` says
what named it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Tombstones:
    """Everything that was ever taken down in a campaign.

    Attributes:
        outputs: A row for each output; columns as in `TOMBSTONE`.
        urls: Sources that are withdrawn, by URL.
        digests: Contents that are withdrawn: of sources, and of outputs, which may be sources of others.
    """

    outputs: pa.Table = field(default_factory=lambda: pa.Table.from_batches([], TOMBSTONE))
    urls: frozenset[str] = frozenset()
    digests: frozenset[str] = frozenset()

    def __bool__(self) -> bool:
        return bool(self.outputs.num_rows or self.urls or self.digests)

    @property
    def keys(self) -> pa.Array:
        """Request keys of which an output was taken down."""
        return pc.unique(self.outputs.column("request_key"))

    @property
    def paths(self) -> frozenset[str]:
        """Paths of the files that were taken down."""
        return frozenset(self.outputs.column("asset").to_pylist())

    def cover(self, rows: pa.Table) -> NDArray[np.bool_]:
        """Say of rows (request_key, n) which are outputs that were taken down, under whichever id."""
        covered = np.zeros(rows.num_rows, np.bool_)
        if not self.outputs.num_rows:
            return covered
        places = np.flatnonzero(np.asarray(pc.is_in(rows.column("request_key"), self.keys)).astype(np.bool_))
        if len(places):
            theirs = _names(rows.select(["request_key", "n"]).take(pa.array(places)))
            covered[places] = np.asarray(pc.is_in(theirs, _names(self.outputs))).astype(np.bool_)
        return covered

    def laid_over(self, rows: pa.Table) -> pa.Table:
        """Return metadata rows in which what was taken down is `withdrawn`: without a file, and without a picture."""
        if not self.outputs.num_rows or not rows.num_rows:
            return rows
        is_made = np.asarray(pc.is_in(rows.column("status"), pa.array(["ok", WITHDRAWN]))).astype(np.bool_)
        covered = self.cover(rows) & is_made
        if not covered.any():
            return rows
        mask = pa.array(covered)
        values = {
            "status": WITHDRAWN,
            "asset": None,
            **dict.fromkeys(PICTURES.names),
            "error_message": "was taken down",
        }
        for name, value in values.items():
            if name in rows.column_names:
                place = rows.schema.get_field_index(name)
                kind = rows.schema.field(name)
                column = pc.if_else(mask, pa.scalar(value, kind.type), rows.column(name))
                rows = rows.set_column(place, kind, column)
        return rows

    def bar(self, part: pa.Table) -> NDArray[np.bool_]:
        """Say of rows of a manifest which no run makes: their key, or one of their sources, was taken down.

        Args:
            part: `request_key` and `sources` of the rows.
        """
        barred = np.asarray(pc.is_in(part.column("request_key"), self.keys)).astype(np.bool_)
        if not self.urls and not self.digests:
            return barred
        sources = part.column("sources").combine_chunks()
        of_row = np.asarray(pc.list_parent_indices(sources))
        members = pc.list_flatten(sources)
        for name, withdrawn in (("url", self.urls), ("digest", self.digests)):
            found = pc.is_in(pc.struct_field(members, name), pa.array(sorted(withdrawn), pa.string()))
            barred[of_row[np.asarray(found).astype(np.bool_)]] = True
        return barred


NOTHING_TAKEN_DOWN: Final = Tombstones()  # made at import, so no `empty_table`: see `without_pandas`


def read_tombstones(store: Store) -> Tombstones:
    """Return what was taken down.

    Raises:
        UserError: When a tombstone is not readable: what it tells of would be made again.
    """
    paths = [entry.path for entry in store.list(layout.TAKEDOWNS, deep=False) if layout.is_takedown(entry.path)]
    if not paths:
        return NOTHING_TAKEN_DOWN
    rows = pa.concat_tables([_read(store, path) for path in paths])
    outputs = rows.filter(pc.is_valid(rows.column("request_key")))
    urls, digests, made = (
        {value for value in column.to_pylist() if value}
        for column in (rows.column("source"), rows.column("digest"), outputs.column("sha256"))
    )
    return Tombstones(
        outputs=outputs, urls=frozenset(urls), digests=frozenset(digests | {f"sha256:{one}" for one in made})
    )


def put_tombstone(store: Store, run: str, rows: Iterable[Mapping[str, Any]]) -> None:
    """Write what one takedown is about to remove.

    Args:
        store: The campaign, which is held.
        run: Id that follows from the lease.
        rows: Columns as in `TOMBSTONE`.
    """
    store.put_new(layout.takedown(run), to_parquet(table(rows, TOMBSTONE)), "application/vnd.apache.parquet")


def _read(store: Store, path: str) -> pa.Table:
    try:
        return formats.read_table(store.read(path), f"{store.url}/{path}", TOMBSTONE)
    except (pa.ArrowException, FileNotFoundError) as error:
        raise UserError(
            f"{store.url}/{path}: not a readable record of a takedown ({error}); restore it, or remove it and take "
            "down again what it told of"
        ) from error


def _names(rows: pa.Table) -> pa.ChunkedArray:
    return pc.binary_join_element_wise(rows.column("request_key"), rows.column("n").cast(pa.string()), "/")
