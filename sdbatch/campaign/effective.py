"""The effective rows: of each request in a run's manifest the outcomes that count now.

    History --> winning() --> outcomes        manifest as the run saw it --> EffectiveRows.parts() --> metadata rows

Requests are joined by their digests; what a metadata row says comes from its commit, and x_* from the manifest.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from sdbatch.campaign import layout, schema
from sdbatch.campaign.digests import (
    Digests,
    DigestTable,
    digest_order,
    group_starts,
    id_digests,
    numbers_of,
    output_digests,
    request_digests,
)
from sdbatch.campaign.excluded import Unwanted
from sdbatch.campaign.files import each_of, parts_in
from sdbatch.campaign.history import History
from sdbatch.campaign.judged import Judged
from sdbatch.campaign.read import read_commit, read_requests
from sdbatch.campaign.tombstones import read_tombstones
from sdbatch.storage import Store
from sdbatch.verdicts import Verdicts

ASKED = pa.schema([("id", pa.string()), ("request_key", pa.string()), ("num_outputs", pa.int32())])
"""Columns of a manifest, as a run saw it, that outcomes are joined with."""

PICTURED_ROWS = 1024
"""Rows of the manifest that are joined at a time where their thumbnails are read too: some 25 MB of them."""


def winning(starts: NDArray[np.int64], numbers: NDArray[np.int64], is_ok: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Say which outcomes count: for each output ok over the rest, then the lowest (run, unit).

    A request's failure as a whole (number -1) counts only while none of its outputs is ok.

    Args:
        starts: Where each request's outcomes begin; within one they lie in (run, unit) order.
        numbers: Output numbers.
        is_ok: Whether the output is made.
    """
    if not len(starts):
        return np.empty(0, np.bool_)
    sizes = np.diff(np.append(starts, len(numbers)))
    request = np.repeat(np.arange(len(starts)), sizes)
    order = np.lexsort((~is_ok, numbers, request))
    is_first = np.append(True, (np.diff(request[order]) != 0) | (np.diff(numbers[order]) != 0))
    wins = np.zeros(len(numbers), np.bool_)
    wins[order[is_first]] = True
    has_ok = np.logical_or.reduceat(is_ok, starts)
    wins &= ~((numbers == -1) & has_ok[request])
    return wins


def winners(rows: pa.Table) -> pa.Table:
    """Return those of some rows, which lie in (run, unit) order, that count; see `winning`."""
    requests = request_digests(id_digests(rows.column("id")), rows.column("request_key"))
    order = digest_order(requests, np.arange(rows.num_rows))
    numbers = numbers_of(rows.column("n"))
    is_ok = np.array([status == "ok" for status in rows.column("status").to_pylist()], np.bool_)
    wins = winning(group_starts(requests.take(order)), numbers[order], is_ok[order])
    return rows.take(pa.array(np.sort(order[wins])))


@dataclass(frozen=True, slots=True, kw_only=True)
class _Matches:
    """Outcomes of one part of the manifest, in its order.

    Attributes:
        row: Row of the part.
        number: Output number, -1 for a request as a whole.
        commit: Place in the history's commits.
    """

    row: NDArray[np.int64]
    number: NDArray[np.int64]
    commit: NDArray[np.int32]


class EffectiveRows:
    """The effective rows of a run's manifest.

    Args:
        store: The campaign.
        run: Whose manifest counts.
        history: What is done.
        verdicts: What people decided.
        folder: Where the manifest lies, when it is not the campaign's own.
    """

    def __init__(self, store: Store, run: str, history: History, verdicts: Verdicts, folder: str | None = None) -> None:
        self._store = store
        self._judged = Judged(verdicts)
        self._history = history
        self._tombstones = read_tombstones(store)
        starts = group_starts(history.requests)
        wins = np.flatnonzero(winning(starts, history.numbers.astype(np.int64), history.is_ok))
        self._requests = DigestTable(history.requests.take(starts))
        self._unwanted = Unwanted(store, history, starts, self._requests, verdicts)
        self._wins = wins
        self._bounds = np.searchsorted(wins, np.append(starts, len(history)))
        self._paths = parts_in(store, folder or layout.requests_folder(run))

    def count(self) -> int:
        """Return their number, without a look at any commit but those of rejected outputs."""
        return sum(len(self._matches(read_requests(self._store, path, ASKED)).row) for path in self._paths)

    def parts(self, *, thumbnails: bool = False) -> Iterator[pa.Table]:
        """Yield them, one table per part of the manifest, in its order: what is committed, verdicts and x_*.

        What was taken down has the status `withdrawn`.

        Args:
            thumbnails: Whether to add the columns of `schema.PICTURES`; the tables are smaller then.

        Raises:
            UserError: When a commit is not readable.
        """
        names = schema.COMMIT.names if thumbnails else schema.METADATA.names
        held: dict[int, pa.Table] = {}
        for asked in self._asked(PICTURED_ROWS if thumbnails else None):
            matches = self._matches(asked)
            wanted = np.unique(matches.commit).tolist()
            held = {commit: held[commit] for commit in wanted if commit in held}
            missing = [commit for commit in wanted if commit not in held]
            held.update(zip(missing, each_of(lambda commit: self._commit(commit, names), missing), strict=True))
            yield self._picked(asked, matches, held, names)

    def _asked(self, rows_max: int | None) -> Iterator[pa.Table]:
        """Yield the manifest in its parts, or in tables of so many rows at most."""
        for path in self._paths:
            part = read_requests(self._store, path)
            step = max(part.num_rows, 1) if rows_max is None else rows_max
            yield from (part.slice(start, step) for start in range(0, max(part.num_rows, 1), step))

    def _matches(self, asked: pa.Table) -> _Matches:
        """Join a part of the manifest with the outcomes that count."""
        requests = request_digests(id_digests(asked.column("id")), asked.column("request_key"))
        place = self._requests.positions(requests)
        row = np.flatnonzero(place >= 0)
        first, after = self._bounds[place[row]], self._bounds[place[row] + 1]
        row = np.repeat(row, after - first)
        offset = np.arange(len(row)) - np.repeat(np.cumsum(after - first) - (after - first), after - first)
        outcome = self._wins[np.repeat(first, after - first) + offset]
        number = self._history.numbers[outcome].astype(np.int64)
        # Outputs beyond what the row asks for now were made for an earlier manifest; they stay, and do not count.
        num_outputs = np.asarray(asked.column("num_outputs")).astype(np.int64)
        counts = self._shown(place, num_outputs, row, number, number < num_outputs[row])
        row, number, outcome = row[counts], number[counts], outcome[counts]
        order = np.lexsort((number, row))
        return _Matches(row=row[order], number=number[order], commit=self._history.commit[outcome[order]])

    def _shown(
        self,
        place: NDArray[np.int64],
        num_outputs: NDArray[np.int64],
        row: NDArray[np.int64],
        number: NDArray[np.int64],
        counts: NDArray[np.bool_],
    ) -> NDArray[np.bool_]:
        """Say which outcomes count, where outputs of their request are not wanted too; see `sdbatch.slate`."""
        rows = self._unwanted.among(place)
        self._unwanted.look(place[rows].tolist())
        shown = {
            one: frozenset(outputs.shown(int(num_outputs[one])))
            for one in rows
            if (outputs := self._unwanted.of(int(place[one])))
        }
        for outcome in np.flatnonzero(np.isin(row, list(shown)) & (number >= 0)).tolist() if shown else ():
            counts[outcome] = number[outcome] in shown[int(row[outcome])]
        return counts

    def _picked(self, asked: pa.Table, matches: _Matches, commits: dict[int, pa.Table], names: list[str]) -> pa.Table:
        """Pick the rows that match out of their commits, in the manifest's order, with its own columns beside them."""
        mine = asked.take(pa.array(matches.row))
        requests = request_digests(id_digests(mine.column("id")), mine.column("request_key"))
        wanted = output_digests(requests, matches.number)
        tables = [pa.schema([schema.COMMIT.field(name) for name in names]).empty_table()]
        place = np.full(len(matches.row), -1, np.int64)
        num_before = 0
        for commit, table in commits.items():
            rows = np.flatnonzero(matches.commit == commit)
            found = _places(table, wanted.take(rows))
            place[rows] = np.where(found >= 0, num_before + found, -1)
            tables.append(table)
            num_before += table.num_rows
        is_there = place >= 0  # an index may tell of a row that its commit does not have; `verify` names it
        picked = self._judged.joined(pa.concat_tables(tables).take(pa.array(place[is_there])))
        for name in asked.column_names:
            if name.startswith("x_"):
                picked = picked.append_column(asked.schema.field(name), mine.column(name).filter(pa.array(is_there)))
        return self._tombstones.laid_over(picked)

    def _commit(self, commit: int, names: list[str]) -> pa.Table:
        return with_own_assets(read_commit(self._store, self._history.commits[commit], names))


def with_own_assets(rows: pa.Table) -> pa.Table:
    """Return rows of a commit in which an `asset` that is no path of ours is null: it would become a link elsewhere."""
    assets = rows.column("asset").to_pylist()
    own = [asset if asset and layout.asset_parts(asset) else None for asset in assets]
    if own == assets:
        return rows
    place = rows.column_names.index("asset")
    return rows.set_column(place, rows.schema.field("asset"), pa.array(own, pa.string()))


def _places(commit: pa.Table, wanted: Digests) -> NDArray[np.int64]:
    """Return the rows of a commit in which some outputs stand, -1 for one that it does not have."""
    requests = request_digests(id_digests(commit.column("id")), commit.column("request_key"))
    outputs = output_digests(requests, numbers_of(commit.column("n")))
    order = digest_order(outputs, np.arange(commit.num_rows))
    place = DigestTable(outputs.take(order)).positions(wanted)
    return np.append(order, -1)[place]
