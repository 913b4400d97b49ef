"""Rows that leave a campaign's metadata and gallery with a new manifest; their assets stay.

    newest run's manifest - ids of the new one, those with a commit --> leaving_rows() --> Leaving

A wrong file, or half of the right one, does no harm that cannot be undone; but nobody should find out from the gallery.
A row that was renamed stays: its request key is there under another id.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Final

import pyarrow as pa
import pyarrow.compute as pc

from sdbatch.campaign import layout
from sdbatch.campaign.files import newest_run_with_manifest, request_parts
from sdbatch.campaign.history import History
from sdbatch.campaign.read import read_json, read_part
from sdbatch.storage import Store

IDS_SHOWN: Final = 5
_BEFORE: Final = pa.schema([("id", pa.string()), ("request_key", pa.string())])


@dataclass(frozen=True, slots=True, kw_only=True)
class Leaving:
    """Rows of a campaign that a manifest does not have any more.

    Attributes:
        num_rows: Their number.
        num_before: Rows of the newest run's manifest for which anything was committed, 0 when nothing leaves.
        ids: The first of their ids, in the order of that manifest.
    """

    num_rows: int = 0
    num_before: int = 0
    ids: tuple[str, ...] = ()

    @property
    def fraction(self) -> float:
        """Their share of the rows there were."""
        return self.num_rows / self.num_before if self.num_before else 0.0

    def __str__(self) -> str:
        shown = ", ".join(self.ids) + (", ..." if self.num_rows > len(self.ids) else "")
        return (
            f"{self.num_rows} of {self.num_before} rows of the campaign are not in this manifest and leave its "
            f"metadata and gallery; their assets stay ({shown})"
        )


def leaving_rows(
    store: Store, rows: Callable[[], Iterable[pa.Table]], ids_digest: str, history: Callable[[], History]
) -> Leaving:
    """Return the rows that leave a campaign when a manifest takes the place of the newest run's.

    Args:
        store: The campaign.
        rows: Yields the manifest in parts, with the column `id`, and `request_key` where keys are known.
        ids_digest: Digest of them all in their order; a run whose status tells of the same has the same rows.
        history: Returns what was ever committed; it is asked when ids are gone.
    """
    run = newest_run_with_manifest(store)
    if run is None or _recorded_digest(store, run) == ids_digest:
        return Leaving()
    before = pa.concat_tables([read_part(store, path, _BEFORE) for path in request_parts(store, run)])
    present = pa.concat_tables([part.select(_names(part)) for part in rows()])
    is_gone = pc.invert(_are_in(before, present, "id"))
    if "request_key" in present.column_names and pc.any(is_gone).as_py():
        is_gone = pc.and_(is_gone, pc.invert(_are_in(before, present, "request_key")))
    if not pc.any(is_gone).as_py():
        return Leaving()
    old = before.column("id").combine_chunks()
    is_known = pa.array(history().knows(old))
    gone = old.filter(pc.and_(is_gone, is_known))
    return Leaving(
        num_rows=len(gone),
        num_before=pc.sum(is_known).as_py() if len(gone) else 0,
        ids=tuple(gone.slice(0, IDS_SHOWN).to_pylist()),
    )


def _names(part: pa.Table) -> list[str]:
    return [name for name in _BEFORE.names if name in part.column_names]


def _are_in(before: pa.Table, present: pa.Table, name: str) -> pa.Array:
    return pc.is_in(before.column(name).combine_chunks(), value_set=present.column(name).combine_chunks())


def _recorded_digest(store: Store, run: str) -> str | None:
    try:
        digest = read_json(store, layout.status_json(run)).get("ids_digest")
    except (FileNotFoundError, ValueError):  # a collection of garbage, or a status that was edited by hand
        return None
    return digest if isinstance(digest, str) else None
