"""Pictures and names of files taken out of what is otherwise written once, when something is taken down.

    a commit + rows --> without_pictures() --> the same commit, but for their thumbnails
    the newest metadata --> mark_metadata() --> the same rows, `withdrawn` where they were taken down

Ids, keys, numbers and outcomes stay as they are: an index or a snapshot that covers a commit goes on agreeing with it.
"""

from __future__ import annotations

from collections.abc import Callable, Collection

import pyarrow as pa
import pyarrow.compute as pc

from sdbatch.campaign import layout
from sdbatch.campaign.read import read_json
from sdbatch.campaign.schema import PICTURES, footer, from_parquet, to_parquet
from sdbatch.campaign.tombstones import Tombstones
from sdbatch.errors import UserError
from sdbatch.storage import Store

_PARQUET = "application/vnd.apache.parquet"
Output = tuple[str, str, int | None]
"""Id, request key and number of a row."""


def num_pictures(store: Store, commit: str, rows: Collection[Output]) -> int:
    """Return how many thumbnails a commit holds of some of its rows."""
    table = from_parquet(store.read(commit), ["id", "request_key", "n", *PICTURES.names])
    return _num_pictures(table.filter(_is_of(table, rows)))


def blank_pictures(store: Store, commit: str, rows: Collection[Output]) -> None:
    """Take the thumbnails of some rows out of their commit, and leave all else in it as it is."""
    data = store.read(commit)
    table = from_parquet(data)
    is_theirs = _is_of(table, rows)
    if not _num_pictures(table.filter(is_theirs)):
        return
    for name in _pictures(table):
        place, kind = table.schema.get_field_index(name), table.schema.field(name)
        table = table.set_column(place, kind, pc.if_else(is_theirs, pa.scalar(None, kind.type), table.column(name)))
    store.put(commit, to_parquet(table, for_query=False, **_notes(data)), _PARQUET)


def mark_metadata(store: Store, tombstones: Tombstones, confirm: Callable[[], None]) -> None:
    """Say in the newest compacted metadata what was taken down.

    Args:
        store: The campaign.
        tombstones: What was taken down.
        confirm: Raises when the campaign is no longer ours; asked before a part is replaced.
    """
    try:
        folder = str(read_json(store, layout.LATEST)["path"]).rstrip("/")
    except (FileNotFoundError, ValueError, KeyError):  # no run has ended, or `verify` names it
        return
    for entry in store.list(folder) if folder.startswith("metadata/") else ():
        data = store.read(entry.path)
        try:
            table = from_parquet(data)
        except (pa.ArrowException, OSError) as error:
            raise UserError(
                f"{store.url}/{entry.path}: not readable metadata ({error}); run again, which writes them anew, and "
                "take down again"
            ) from error
        marked = tombstones.laid_over(table)
        if not marked.equals(table):
            confirm()
            store.put(entry.path, to_parquet(marked, for_query=True, **_notes(data)), _PARQUET)


def _notes(data: bytes) -> dict[str, str]:
    return {name: value for name, value in footer(data).items() if name != "format_version"}


def _num_pictures(rows: pa.Table) -> int:
    return sum(rows.num_rows - rows.column(name).null_count for name in _pictures(rows))


def _pictures(table: pa.Table) -> list[str]:
    return [name for name in PICTURES.names if name in table.column_names]


def _is_of(table: pa.Table, rows: Collection[Output]) -> pa.Array:
    names = zip(*(table.column(name).to_pylist() for name in ("id", "request_key", "n")), strict=True)
    return pa.array([name in rows for name in names], pa.bool_())
