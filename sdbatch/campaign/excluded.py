"""Outputs that are not wanted: those that somebody rejected, and those that a stage blocked.

    History + Verdicts --> Unwanted.look(places) --> Unwanted.of(place) --> RowOutputs, the outputs of one request

A rejection holds where the stored file is the one that was judged. The history does not hold digests of files, so the
commits of rejected outputs are read; of a manifest's own rows only, so that the cost does not grow with past runs.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from itertools import islice

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from sdbatch.campaign.digests import (
    DigestTable,
    id_digests,
    output_digests,
    request_digests,
)
from sdbatch.campaign.files import each_of
from sdbatch.campaign.history import History
from sdbatch.campaign.judged import Judged
from sdbatch.campaign.read import read_commit
from sdbatch.slate import shown
from sdbatch.storage import Store
from sdbatch.verdicts import Verdicts

_FILE = ("id", "request_key", "n", "sha256")
_OUTCOME = ["id", "request_key", "n", "status", "replaces"]


@dataclass(slots=True, kw_only=True)
class RowOutputs:
    """The outputs of one request of which some are not wanted.

    Attributes:
        made: Numbers that are made.
        rejected: Those of them that somebody rejected.
        blocked: Numbers that a stage blocked, each with its newest failure: a place in the failures of the history.
        failed: Numbers that failed otherwise, likewise; -1 for a failure of the request as a whole after its last
            output was made.
        replaced: Numbers of which another output says that it replaces them.
    """

    made: set[int] = field(default_factory=set)
    rejected: set[int] = field(default_factory=set)
    blocked: dict[int, int] = field(default_factory=dict)
    failed: dict[int, int] = field(default_factory=dict)
    replaced: set[int] = field(default_factory=set)

    @property
    def excluded(self) -> set[int]:
        """Numbers that are not wanted, whatever the settings of stages are now."""
        return self.rejected | self.blocked.keys()

    def shown(self, num_outputs: int) -> tuple[int, ...]:
        """Return the numbers of its effective outputs; see `sdbatch.slate.shown`."""
        return shown(num_outputs, self.excluded, self.made, self.failed, self.replaced)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Rejection:
    """A rejected file, and where the output that it was is committed."""

    place: int
    file: tuple[str, str, int, str]
    commit: int


class Unwanted:
    """The requests of a history that have unwanted outputs.

    Args:
        store: The campaign.
        history: What is done.
        starts: Where each request's outcomes begin.
        requests: The requests, in the same order.
        verdicts: What people decided.
    """

    def __init__(
        self,
        store: Store | None,
        history: History,
        starts: NDArray[np.int64],
        requests: DigestTable,
        verdicts: Verdicts,
    ) -> None:
        self._store = store
        self._commits = history.commits
        self._rows: dict[int, RowOutputs] = {}
        self._open: dict[int, list[_Rejection]] = {}
        is_blocked = np.array([kind.is_blocked for kind in history.failures] + [False], np.bool_)[history.failure]
        of_row = np.searchsorted(starts, np.flatnonzero(is_blocked), side="right") - 1
        rejected, places = _rejected(verdicts, requests)
        ends = np.append(starts, len(history))
        marked = np.unique(np.concatenate([of_row, places])).tolist()
        rows = np.concatenate([np.empty(0, np.int64), *(np.arange(ends[place], ends[place + 1]) for place in marked)])
        numbers = history.numbers[rows].astype(np.int64)
        found = DigestTable(history.replaced).positions(output_digests(history.requests.take(rows), numbers))
        columns = (numbers, history.is_ok[rows], is_blocked[rows], history.failure[rows], found >= 0)
        outcomes = zip(*(column.tolist() for column in columns), strict=True)
        for place in marked:
            self._rows[place] = _outputs_of(islice(outcomes, int(ends[place + 1] - ends[place])))
        for place, file in zip(places.tolist(), rejected, strict=True):
            commit = _commit_of(history, range(ends[place], ends[place + 1]), file[2])
            if commit is not None:
                self._open.setdefault(place, []).append(_Rejection(place=place, file=file, commit=commit))

    def __bool__(self) -> bool:
        return bool(self._rows)

    def of(self, place: int) -> RowOutputs | None:
        """Return the outputs of a request; None where all of them are wanted. `look` comes first."""
        row = self._rows.get(place)
        return row if row is not None and (row.rejected or row.blocked) else None

    def among(self, places: NDArray[np.int64]) -> list[int]:
        """Return, of some requests by their places, which may have unwanted outputs: positions in `places`."""
        if not self._rows:
            return []
        found: list[int] = np.flatnonzero(np.isin(places, list(self._rows))).tolist()
        return found

    def look(self, places: Iterable[int]) -> None:
        """Compare the rejected files of some requests with those that are stored.

        Raises:
            UserError: When a commit is not readable.
        """
        rejections = [rejection for place in places for rejection in self._open.pop(place, ())]
        by_commit: dict[int, list[_Rejection]] = {}
        for rejection in rejections:
            by_commit.setdefault(rejection.commit, []).append(rejection)
        for stored, asked in zip(each_of(self._stored, by_commit), by_commit.values(), strict=True):
            for rejection in asked:
                if rejection.file in stored:
                    self._rows[rejection.place].rejected.add(rejection.file[2])

    def _stored(self, commit: int) -> set[tuple[str, str, int, str]]:
        assert self._store is not None, "verdicts come with the store they are about"
        rows = read_commit(self._store, self._commits[commit], _FILE)
        return set(zip(*(rows.column(name).to_pylist() for name in _FILE), strict=True))


def unwanted_outputs(rows: pa.Table, counting: pa.Table, verdicts: Verdicts) -> dict[tuple[str, str], RowOutputs]:
    """Return the outputs of each request with unwanted ones, by (id, request key), from rows of commits.

    Args:
        rows: Every outcome, in (run, unit) order, with the columns of `INDEX` and `sha256`.
        counting: Those of them that count.
        verdicts: What people decided.
    """
    is_rejected = pc.fill_null(pc.equal(Judged(verdicts).joined(counting).column("verdict"), "rejected"), False)
    rejected = counting.filter(is_rejected).select(["id", "request_key", "n"]).to_pylist()
    blocked = rows.filter(pc.equal(rows.column("status"), "blocked")).select(["id", "request_key"]).to_pylist()
    found = {(row["id"], row["request_key"]): RowOutputs() for row in (*rejected, *blocked)}
    ids = pa.array(sorted({request_id for request_id, _ in found}), pa.string())
    outcomes: dict[tuple[str, str], list[tuple[int, bool, bool, int, bool]]] = {}
    replaced: set[tuple[str, str, int]] = set()
    for row in rows.filter(pc.is_in(rows.column("id"), ids)).select(_OUTCOME).to_pylist():
        request, n = (row["id"], row["request_key"]), -1 if row["n"] is None else row["n"]
        outcomes.setdefault(request, []).append((n, row["status"] == "ok", row["status"] == "blocked", 0, False))
        if row["replaces"] is not None and row["status"] != "failed":
            replaced.add((*request, row["replaces"]))
    by_request: dict[tuple[str, str], set[int]] = {}
    for request_id, key, n in replaced:
        by_request.setdefault((request_id, key), set()).add(n)
    found = {request: _outputs_of(outcomes[request]) for request in found}
    for request, outputs in found.items():
        outputs.replaced = by_request.get(request, set())
    for row in rejected:
        found[row["id"], row["request_key"]].rejected.add(row["n"])
    return found


def _rejected(verdicts: Verdicts, requests: DigestTable) -> tuple[list[tuple[str, str, int, str]], NDArray[np.int64]]:
    """Return the rejected files of requests that the history knows, and the places of these."""
    rows = verdicts.rows.filter(pc.fill_null(pc.equal(verdicts.rows.column("verdict"), "rejected"), False))
    places = requests.positions(request_digests(id_digests(rows.column("id")), rows.column("request_key")))
    known = np.flatnonzero(places >= 0)
    files = rows.select(_FILE).take(known)
    return list(zip(*(column.to_pylist() for column in files.columns), strict=True)), places[known]


def _outputs_of(outcomes: Iterable[tuple[int, bool, bool, int, bool]]) -> RowOutputs:
    """Return a request's outputs from its outcomes, which lie in (run, unit) order.

    Args:
        outcomes: Number, whether it is made, whether it is blocked, its failure, whether another output replaces it.
    """
    outputs = RowOutputs()
    for n, is_ok, is_blocked, failure, is_replaced in outcomes:
        if is_ok:
            outputs.made.add(n)
            outputs.failed.pop(-1, None)
        else:
            (outputs.blocked if is_blocked else outputs.failed)[n] = failure
        if is_replaced:
            outputs.replaced.add(n)
    outputs.blocked = {n: failure for n, failure in outputs.blocked.items() if n not in outputs.made}
    settled = outputs.made | outputs.blocked.keys()
    outputs.failed = {n: failure for n, failure in outputs.failed.items() if n not in settled}
    return outputs


def _commit_of(history: History, rows: range, n: int) -> int | None:
    """Return the commit of a request's made output, of several the first; None when it is not made."""
    return next((int(history.commit[row]) for row in rows if history.is_ok[row] and history.numbers[row] == n), None)
