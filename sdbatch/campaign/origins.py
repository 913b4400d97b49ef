"""Which outputs of a request key are committed already, under whichever id: what a new id gets a copy of.

History --> Origins        request keys --> Origins.of() --> the commits that tell of their outputs
"""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from sdbatch.campaign.digests import SortedHashes, key_words
from sdbatch.campaign.history import History
from sdbatch.types import Origin


class Origins:
    """Every output that is made, by the first 64 bits of its request key; whoever copies compares the whole key.

    Args:
        history: All that counts.
    """

    def __init__(self, history: History) -> None:
        words = history.requests.high ^ history.ids  # a request's digest is its key's, the id laid over it
        order = np.argsort(words)
        if not history.is_ok.all():
            order = order[history.is_ok[order]]
            words = words[history.is_ok]
        self._numbers = history.numbers[order]
        self._commit = history.commit[order]
        self._commits = history.commits
        words.sort()  # in place, as another column of ten million outputs takes 80 MB
        self._words = words
        self._hashes = SortedHashes(words)

    @property
    def is_empty(self) -> bool:
        """Whether nothing is made."""
        return not len(self._words)

    def of(self, keys: pa.Array | pa.ChunkedArray) -> dict[int, tuple[Origin, ...]]:
        """Return, by place in `keys`, the outputs of those keys that have any: of each the lowest (run, unit)."""
        if self.is_empty or not len(keys):
            return {}
        wanted = key_words(keys, 1)[:, 0]
        starts = self._hashes.places(wanted)
        is_there = self._words[np.minimum(starts, len(self._words) - 1)] == wanted
        places = np.flatnonzero(is_there)
        ends = np.searchsorted(self._words, wanted[places], side="right")
        return {
            place: self._between(start, end)
            for place, start, end in zip(places.tolist(), starts[places].tolist(), ends.tolist(), strict=True)
        }

    def _between(self, start: int, end: int) -> tuple[Origin, ...]:
        first: dict[int, int] = {}
        for n, commit in zip(self._numbers[start:end].tolist(), self._commit[start:end].tolist(), strict=True):
            first[n] = min(commit, first.get(n, commit))
        return tuple(Origin(n=n, commit=self._commits[commit]) for n, commit in sorted(first.items()))
