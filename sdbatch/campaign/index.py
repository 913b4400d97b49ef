"""A run's indexes: what a resume reads in the place of its commits.

units as they are committed --> RunIndex --> runs/<run>/index/<n>.parquet, the rest of them at the run's end
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Final

import pyarrow as pa

from sdbatch.campaign import layout
from sdbatch.campaign.schema import INDEX, to_parquet
from sdbatch.campaign.write import lineage_of
from sdbatch.points import reached
from sdbatch.storage import Store
from sdbatch.types import RowOutcome, Unit

INDEX_EVERY_COMMITS: Final = 1000
INDEX_ROWS_MAX: Final = 65_536
"""Rows of one index; they are held in memory until it is written."""


class RunIndex:
    """The commits of one run that no index covers yet.

    Args:
        store: The campaign.
        run: The run.
        every_commits: How many of them an index covers at most.
    """

    def __init__(self, store: Store, run: str, every_commits: int | None = None) -> None:
        self._store = store
        self._run = run
        self._every_commits = every_commits or INDEX_EVERY_COMMITS
        self._waiting: list[pa.Table] = []
        self._num_written = 0

    def add(self, unit: Unit, outcomes: tuple[RowOutcome, ...]) -> None:
        """Note a committed unit, and write an index when it is time.

        Raises:
            StoreUnavailable: When the index could not be written; the next unit tries again.
        """
        self._waiting.append(index_of(unit, outcomes, layout.commit(self._run, unit.id)))
        if len(self._waiting) >= self._every_commits or sum(part.num_rows for part in self._waiting) >= INDEX_ROWS_MAX:
            self.write_rest()

    def write_rest(self) -> None:
        """Write an index over the commits that none covers yet: at the run's end, however it ends."""
        if self._waiting:
            data = to_parquet(pa.concat_tables(self._waiting), distinct=("id", "request_key"), run_id=self._run)
            reached("writing-an-index")
            self._store.put_new(layout.index(self._run, self._num_written), data)
            self._waiting, self._num_written = [], self._num_written + 1


def index_of(unit: Unit, outcomes: tuple[RowOutcome, ...], commit: str) -> pa.Table:
    """Return a unit's rows of an index: from its receipt what is not ok, the rest from the unit itself."""
    ended = {(outcome.id, outcome.n): outcome for outcome in outcomes}
    ids, keys, numbers = _places(unit, ended)
    ends = [ended.get(place, _OK) for place in zip(ids, numbers, strict=True)] if ended else [_OK]
    lineage = lineage_of(unit.requests)
    replaces = list(map(lineage.get, zip(ids, keys, numbers, strict=True))) if lineage else [None] * len(ids)
    columns = {"id": ids, "request_key": keys, "n": numbers, "replaces": replaces}
    table = pa.table({name: pa.array(values, INDEX.field(name).type) for name, values in columns.items()})
    for name in _END:
        values = pa.array([getattr(end, name) for end in ends], INDEX.field(name).type)
        # Nearly every unit is ok as a whole: one value then stands for all of its rows.
        table = table.append_column(name, values if ended else pa.repeat(values[0], len(ids)))
    return table.append_column("commit", pa.repeat(pa.scalar(commit), len(ids))).select(INDEX.names).cast(INDEX)


def _places(unit: Unit, ended: Collection[tuple[str, int | None]]) -> tuple[list[str], list[str], list[int | None]]:
    """Return id, request key and n of each row that a unit settles; n is None of a request that failed as a whole."""
    requests = unit.requests
    if not ended and not any(request.takers for request in requests):  # by far the most
        return (
            [request.id for request in requests for _ in request.outputs],
            [request.request_key for request in requests for _ in request.outputs],
            [n for request in requests for n in request.outputs],
        )
    places = [
        (taker, request.request_key, n)
        for request in requests
        for taker in request.ids
        for n in ((None,) if (taker, None) in ended else request.outputs_of(taker))
    ]
    ids, keys, numbers = map(list, zip(*places, strict=True))
    return ids, keys, numbers


_END: Final = tuple(name for name in INDEX.names if name not in {"id", "request_key", "n", "replaces", "commit"})
_OK: Final = RowOutcome(id="", request_key="", n=None, status="ok")
