"""Rows of the commits that count, from the commits themselves: what `verify` and `gc` go by.

    every commit --> void and late ones left out --> Committed.rows

A resume believes the newest snapshot; here each commit is opened, also those that the snapshot tells of.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from sdbatch.campaign import layout
from sdbatch.campaign.digests import Digests, id_digests, numbers_of, output_digests, request_digests
from sdbatch.campaign.files import HistoryFiles, RunFiles, each_of, files_by_run
from sdbatch.campaign.history import UnreadableSnapshot, commit_rows, snapshot_parts
from sdbatch.campaign.void import VoidOutputs, read_void
from sdbatch.storage import Store

_STATUSES = ("ok", "failed", "blocked")
Sum = tuple[int, int, int]
"""Number of a commit's rows and two sums over their digests: equal for the same rows in any order."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Committed:
    """The commits of a campaign, compared with its snapshot.

    Attributes:
        runs: The files of every run.
        void: Everything that was ever made void.
        every_row: Rows of every commit that can be read, in (run, unit) order.
        rows: Those of them that count.
        snapshot: The run whose snapshot a resume reads; None for none.
        in_snapshot: What that snapshot tells, by commit.
        late: Commits with rows that would count, had they come before that snapshot.
        torn: Snapshots that cannot be read.
    """

    runs: tuple[RunFiles, ...]
    void: VoidOutputs
    every_row: pa.Table
    rows: pa.Table
    snapshot: str | None
    in_snapshot: dict[str, Sum]
    late: tuple[str, ...]
    torn: tuple[str, ...]

    def without_void_at(self, store: Store, run: str) -> pa.Table:
        """Return the rows of a run and earlier ones without what was void as of its end."""
        void = read_void(store, [files.run for files in self.runs if files.is_redo and files.run <= run])
        return void.left_out_of(self.every_row.filter(is_of_runs_to(self.every_row, run)))


def read_committed(store: Store, schema: pa.Schema, unreadable: list[str] | None = None) -> Committed:
    """Read every commit.

    Args:
        store: The campaign.
        schema: Columns of a commit, those of `INDEX` and more; `commit` is its path.
        unreadable: Gets the commits that cannot be read as a whole; without it one such is an error, as is one that the
            snapshot tells of and that is not there.

    Raises:
        UserError: See `unreadable`.
    """
    runs = tuple(files_by_run(store))
    void = read_void(store, [files.run for files in runs if files.is_redo])
    snapshot, in_snapshot, torn = _snapshot(store, runs)
    there = {path for files in runs for path in files.commits}
    paths = sorted(there | (in_snapshot.keys() if unreadable is None else set()))
    is_whole = unreadable is not None
    parts = each_of(lambda path: commit_rows(store, path, schema, unreadable, is_whole=is_whole), paths)
    every_row = pa.concat_tables([schema.empty_table(), *parts])
    rows, late = void.left_out_of(every_row), ()
    if snapshot:
        is_covered = is_of_runs_to(rows, snapshot)
        is_told = pc.is_in(rows.column("commit"), pa.array(sorted(in_snapshot), pa.string()))
        is_late = pc.and_(is_covered, pc.invert(is_told))
        late = tuple(sorted(set(rows.filter(is_late).column("commit").to_pylist())))
        rows = rows.filter(pc.invert(is_late))
    return Committed(
        runs=runs,
        void=void,
        every_row=every_row,
        rows=rows,
        snapshot=snapshot,
        in_snapshot=in_snapshot,
        late=late,
        torn=tuple(torn),
    )


def _snapshot(store: Store, runs: Iterable[RunFiles]) -> tuple[str | None, dict[str, Sum], list[str]]:
    """Return the newest snapshot that can be read, what it tells, and those that cannot be."""
    torn: list[str] = []
    for run in sorted((files.run for files in runs if files.snapshot_bytes), reverse=True):
        told: dict[str, Sum] = {}
        try:
            for part in snapshot_parts(store, HistoryFiles(snapshot=run, later=()), VoidOutputs(), sums_by_commit):
                for commit, added in part.items():
                    told[commit] = _added(told.get(commit, (0, 0, 0)), added)
        except UnreadableSnapshot:
            torn.append(layout.snapshot(run))
        else:
            return run, told, torn
    return None, {}, torn


def sums_by_commit(rows: pa.Table) -> dict[str, Sum]:
    """Return for each commit what its rows (id, request_key, n, status, commit) add up to."""
    outputs = outcome_digests(rows)
    coded = rows.column("commit").cast(pa.string()).dictionary_encode().combine_chunks()
    codes = np.asarray(coded.indices)
    order = np.argsort(codes, kind="stable")
    starts = np.flatnonzero(np.append(True, np.diff(codes[order]) != 0)) if len(order) else np.empty(0, np.int64)
    if not len(starts):
        return {}
    counts = np.diff(np.append(starts, len(order))).tolist()
    sums = [np.add.reduceat(words[order], starts).tolist() for words in (outputs.high, outputs.low)]
    names = coded.dictionary.to_pylist()
    return {
        names[codes[order[start]]]: (count, high, low)
        for start, count, high, low in zip(starts.tolist(), counts, *sums, strict=True)
    }


def outcome_digests(rows: pa.Table) -> Digests:
    """Return digests of (id, request key, n, status)."""
    requests = request_digests(id_digests(rows.column("id")), rows.column("request_key"))
    outputs = output_digests(requests, numbers_of(rows.column("n")))
    codes = {status: code + 1 for code, status in enumerate(_STATUSES)}
    status = np.array([codes.get(text, 0) for text in rows.column("status").to_pylist()], np.uint64)
    return Digests(high=outputs.high + status, low=outputs.low)


def _added(one: Sum, two: Sum) -> Sum:
    return one[0] + two[0], (one[1] + two[1]) % 2**64, (one[2] + two[2]) % 2**64


def is_of_runs_to(rows: pa.Table, run: str) -> pa.Array:
    """Say which rows were committed by a run or an earlier one: paths sort by run, and "0" is the sign after "/"."""
    return pc.less(rows.column("commit"), f"{layout.RUNS}/{run}0")
