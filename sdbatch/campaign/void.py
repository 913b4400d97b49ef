"""Outputs that were made void, by `redo` or `gc`: commits of earlier runs no longer count for them.

runs/*/redo.parquet --> read_void() --> VoidOutputs.left_out_of(rows) --> the rows that count
"""

from __future__ import annotations

from collections.abc import Iterable

import pyarrow as pa
import pyarrow.compute as pc

from sdbatch.campaign import formats, layout
from sdbatch.campaign.schema import VOID
from sdbatch.errors import UserError
from sdbatch.storage import Store


class VoidOutputs:
    """Which outputs are void, and from which run on they count again.

    Args:
        lists: Runs with what each made void: columns as in `VOID`.
    """

    def __init__(self, lists: Iterable[tuple[str, pa.Table]] = ()) -> None:
        self._since: dict[tuple[str, str, int | None], str] = {}
        for run, table in sorted(lists, key=lambda item: item[0]):
            outputs = zip(*(table.column(name).to_pylist() for name in VOID.names), strict=True)
            self._since.update(dict.fromkeys(outputs, run))
        self._ids = pa.array(sorted({request_id for request_id, _, _ in self._since}), pa.string())

    def left_out_of(self, rows: pa.Table) -> pa.Table:
        """Return the rows (id, request_key, n, commit and more) whose outputs were not made void after their run."""
        if not len(self._ids):
            return rows
        may_be_void = pc.is_in(rows.column("id"), self._ids)
        if not pc.any(may_be_void).as_py():
            return rows
        columns = [rows.filter(may_be_void).column(name).to_pylist() for name in (*VOID.names, "commit")]
        counts = iter([not self._is_void(*row) for row in zip(*columns, strict=True)])
        return rows.filter(pa.array([not may or next(counts) for may in may_be_void.to_pylist()], pa.bool_()))

    def _is_void(self, request_id: str, key: str, n: int | None, commit: str) -> bool:
        since = max(self._since.get((request_id, part, n), "") for part in (key, key[:8]))
        return (layout.run_of(commit) or "") < since


def read_void(store: Store, runs: Iterable[str]) -> VoidOutputs:
    """Read what some runs made void."""
    return VoidOutputs([(run, _void_list(store, run)) for run in runs])


def _void_list(store: Store, run: str) -> pa.Table:
    path = layout.redo(run)
    try:
        return formats.read_table(store.read(path), f"{store.url}/{path}", VOID)
    except pa.ArrowException as error:
        raise UserError(
            f"{store.url}/{path}: not a readable list of void outputs ({error}); restore it, or remove it: the earlier "
            "commits of the outputs in it then count again"
        ) from error
