"""State of a manifest's requests: which outputs are made, how each failed, whether its id is known.

History, Verdicts --> Done        a part of the manifest --> Done.standing() --> Standing, one row a request
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import lru_cache
from typing import Final

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from sdbatch.campaign.digests import Digests, DigestTable, digest_order, group_starts, id_digests
from sdbatch.campaign.excluded import RowOutputs, Unwanted
from sdbatch.campaign.history import History
from sdbatch.campaign.origins import Origins
from sdbatch.campaign.tombstones import NOTHING_TAKEN_DOWN, read_tombstones
from sdbatch.storage import Store
from sdbatch.verdicts import NO_VERDICTS, Verdicts

_WORD_BITS: Final = 64
_ALL_BITS: Final = np.uint64(2**_WORD_BITS - 1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """State of some requests, one row each.

    Attributes:
        outputs: Outputs still to be made, of those asked for.
        is_made: Whether there are none.
        is_begun: Whether any of its outputs is made.
        failure: Its newest failure, -1 for none: a place in the failures of `Done`.
        is_known: Whether the id was ever committed, with whichever key.
        unwanted: By its row, each request of which somebody rejected an output, or a stage blocked one: what to make of
            it follows from its outputs one by one (`sdbatch.slate`), and not from the columns above.
    """

    outputs: list[tuple[int, ...]]
    is_made: NDArray[np.bool_]
    is_begun: NDArray[np.bool_]
    failure: NDArray[np.int32]
    is_known: NDArray[np.bool_]
    unwanted: dict[int, RowOutputs] = field(default_factory=dict)


class Done:
    """Committed outcomes, looked up for a plan by request, a part of the manifest at a time.

    Args:
        history: All that counts.
        store: The campaign, where commits of rejected outputs are read, and what was taken down; it may be left out
            where there is neither.
        verdicts: What people decided.

    Attributes:
        failures: Every different failure.
        origins: Outputs that are made, by request key alone.
        tombstones: What was taken down.
    """

    def __init__(self, history: History, store: Store | None = None, verdicts: Verdicts = NO_VERDICTS) -> None:
        starts = group_starts(history.requests)
        self.failures = history.failures
        is_each_once = len(starts) == len(history)
        self._requests = DigestTable(history.requests if is_each_once else history.requests.take(starts))
        made, self._many = _made_bits(history, starts)
        # One element more at the end: what place -1, a request that was never committed, stands for.
        self._made = np.append(made, np.uint64(0))
        del made  # of ten million requests 80 MB
        self._failure = np.append(_newest_failures(history, starts), np.int32(-1))
        self._commits = history.commits
        ids, self._newest = _newest_commits(history)
        self._ids = DigestTable(Digests(high=ids, low=ids))
        self.origins = Origins(history)
        self.tombstones = NOTHING_TAKEN_DOWN if store is None else read_tombstones(store)
        self._unwanted = Unwanted(store, history, starts, self._requests, verdicts)

    @property
    def is_empty(self) -> bool:
        """Whether nothing was ever committed."""
        return not len(self._newest)

    def standing(self, requests: Digests, ids: pa.ChunkedArray, num_outputs: pa.ChunkedArray) -> Standing:
        """Say how requests stand.

        Args:
            requests: Their digests.
            ids: The id of each.
            num_outputs: How many outputs each asks for.
        """
        place = np.full(len(ids), -1, np.int64) if self.is_empty else self._requests.positions(requests)
        made = self._made[place]
        has_many = np.isin(place, list(self._many)) if self._many else np.zeros(len(place), np.bool_)
        counts = np.asarray(num_outputs).astype(np.int64)
        outputs, is_made = _each_missing(made, counts)
        for row in np.flatnonzero((counts > _WORD_BITS) & has_many):
            numbers = self._many[int(place[row])]
            outputs[row] = tuple(n for n in range(counts[row]) if n not in numbers)
            is_made[row] = not outputs[row]
        return Standing(
            outputs=outputs,
            is_made=is_made,
            is_begun=(made != 0) | has_many,
            failure=self._failure[place],
            is_known=self._is_known(ids, place),
            unwanted=self._unwanted_of(place),
        )

    def _unwanted_of(self, place: NDArray[np.int64]) -> dict[int, RowOutputs]:
        rows = self._unwanted.among(place)
        self._unwanted.look(place[rows].tolist())
        return {row: outputs for row in rows if (outputs := self._unwanted.of(int(place[row])))}

    def _is_known(self, ids: pa.ChunkedArray, place: NDArray[np.int64]) -> NDArray[np.bool_]:
        is_known = place >= 0
        if not self.is_empty:
            others = ~is_known  # of most rows the request itself was committed
            is_known[others] = self._places_of(id_digests(ids.filter(pa.array(others)))) >= 0
        return is_known

    def newest_commits(self, ids: pa.ChunkedArray) -> list[str | None]:
        """Return the newest commit of each id, None for one that was never committed."""
        places = self._places_of(id_digests(ids))
        return [self._commits[self._newest[place]] if place >= 0 else None for place in places]

    def _places_of(self, ids: NDArray[np.uint64]) -> NDArray[np.int64]:
        return self._ids.positions(Digests(high=ids, low=ids))


def _each_missing(
    made: NDArray[np.uint64], counts: NDArray[np.int64]
) -> tuple[list[tuple[int, ...]], NDArray[np.bool_]]:
    """Return the outputs that each request lacks, and whether it lacks none; where all are alike, one look tells."""
    if len(made) and (made == made[0]).all() and (counts == counts[0]).all():
        missing = _missing(int(made[0]), int(counts[0]))
        return [missing] * len(made), np.full(len(made), not missing)
    outputs: list[tuple[int, ...]] = [()] * len(made)
    wanted = _ALL_BITS >> np.maximum(_WORD_BITS - counts, 0).astype(np.uint64)  # a bit for each output
    is_made = (wanted & ~made == 0) & (counts <= _WORD_BITS)
    lacking = np.flatnonzero(~is_made)
    for place, bits, count in zip(lacking.tolist(), made[lacking].tolist(), counts[lacking].tolist(), strict=True):
        outputs[place] = _missing(bits, count)
    return outputs, is_made


# Of a million rows most have the same outputs: one value for all of them takes half the time, a tenth of the memory.
@lru_cache(maxsize=4096)
def _missing(made: int, num_outputs: int) -> tuple[int, ...]:
    return tuple([n for n in range(num_outputs) if n >= _WORD_BITS or not made >> n & 1])


def _made_bits(history: History, starts: NDArray[np.int64]) -> tuple[NDArray[np.uint64], dict[int, frozenset[int]]]:
    """Return for each request the outputs that are made: as bits, and as a set where a number is beyond them."""
    is_other = ~(history.is_ok & (history.numbers < _WORD_BITS))
    bits = history.numbers.astype(np.uint64)
    bits[is_other] = 0
    np.left_shift(np.uint64(1), bits, out=bits)  # in place, as a history of ten million outputs takes 80 MB a column
    bits[is_other] = 0
    made = bits if len(starts) == len(bits) else np.bitwise_or.reduceat(bits, starts)
    many: dict[int, frozenset[int]] = {}
    beyond = np.flatnonzero(history.is_ok & (history.numbers >= _WORD_BITS))
    ends = np.append(starts, len(history))
    for group in np.unique(np.searchsorted(starts, beyond, side="right") - 1).tolist():
        rows = slice(ends[group], ends[group + 1])
        many[group] = frozenset(history.numbers[rows][history.is_ok[rows]].tolist())
    return made, many


def _newest_failures(history: History, starts: NDArray[np.int64]) -> NDArray[np.int32]:
    """Return for each request the last of its failures, -1 for none."""
    if not len(starts):
        return np.empty(0, np.int32)
    rows = np.arange(len(history), dtype=np.int32)
    last = np.maximum.reduceat(np.where(history.failure >= 0, rows, np.int32(-1)), starts)
    return np.where(last >= 0, history.failure[last], np.int32(-1))


def _newest_commits(history: History) -> tuple[NDArray[np.uint64], NDArray[np.int32]]:
    """Return each id once, sorted, and the last commit that tells of it."""
    order = digest_order(Digests(high=history.ids, low=history.ids), history.commit)
    ids, commits = history.ids[order], history.commit[order]
    is_last = np.append(ids[1:] != ids[:-1], True)[: len(ids)]
    return (ids, commits) if is_last.all() else (ids[is_last], commits[is_last])
