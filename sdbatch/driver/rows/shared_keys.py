"""Rows of one request key are rendered once: who takes whose output, and what an earlier run has made already.

    ResolvedManifest, Done --> Sharing       a part's pending rows --> Sharing.count(), then Sharing.request_columns()

Only rows that give `seed` or `seed_group` can share a key; derived seeds differ by id. The first pending row of a key
leads: its request asks for every output that any of them wants, and says which ids take it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from sdbatch.campaign.digests import key_words
from sdbatch.campaign.origins import Origins
from sdbatch.types import Origin

Replaced = tuple[str, int, int]
"""An entry of `Request.replaces`."""


class SharedKeys:
    """The keys that more than one row of a manifest has, told by 64 bits of each.

    Args:
        words: The first 64 bits of every row's request key; see `leading_words`. They are sorted in place: ten million
            rows would otherwise take several times their 80 MB.
    """

    def __init__(self, words: NDArray[np.uint64]) -> None:
        words.sort()
        self._words = np.unique(words[1:][words[1:] == words[:-1]])

    def places(self, keys: pa.Array | pa.ChunkedArray) -> list[int]:
        """Return the places in `keys` of those that are shared."""
        if not len(self._words):
            return []
        places: list[int] = np.flatnonzero(np.isin(leading_words(keys), self._words)).tolist()
        return places


def leading_words(keys: pa.Array | pa.ChunkedArray) -> NDArray[np.uint64]:
    """Return the first 64 bits of each request key."""
    return key_words(keys, 1)[:, 0]


class Takers:
    """The pending rows of each shared key, and the outputs that each of them wants."""

    def __init__(self) -> None:
        self._wanted: dict[str, dict[str, tuple[int, ...]]] = {}

    def add(self, request_key: str, request_id: str, outputs: tuple[int, ...]) -> tuple[int, ...]:
        """Take in a row, in manifest order; return those of its outputs that no earlier row of the key wants."""
        wanted = self._wanted.setdefault(request_key, {})
        known = {n for numbers in wanted.values() for n in numbers}
        wanted[request_id] = outputs
        return tuple(n for n in outputs if n not in known)

    def leads(self, request_key: str, request_id: str) -> bool:
        """Whether a row is the first pending one of its key."""
        return next(iter(self._wanted[request_key])) == request_id

    def outputs(self, request_key: str) -> tuple[int, ...]:
        """Return the outputs that any row of a key wants, ascending."""
        return tuple(sorted({n for outputs in self._wanted[request_key].values() for n in outputs}))

    def takers(self, request_key: str) -> tuple[tuple[str, ...], ...]:
        """Return for each of `outputs` the ids that want it; empty where one row is alone with its key."""
        wanted = self._wanted[request_key]
        if len(wanted) == 1:
            return ()
        return tuple(
            tuple(request_id for request_id, numbers in wanted.items() if n in numbers)
            for n in self.outputs(request_key)
        )


class Sharing:
    """Requests that one run renders once and copies for others; every part is counted before the first one is made.

    Args:
        shared: The keys that several rows of the manifest have.
        origins: What earlier runs made.
    """

    def __init__(self, shared: SharedKeys, origins: Origins) -> None:
        self._shared = shared
        self._origins = origins
        self._takers = Takers()
        self._replaces: dict[str, tuple[Replaced, ...]] = {}

    def count(
        self,
        rows: pa.Table,
        outputs: Sequence[tuple[int, ...]],
        replaces: Mapping[int, Mapping[int, int]] = MappingProxyType({}),
    ) -> list[tuple[int, ...]]:
        """Take in a part's rows with the outputs that each wants; return those that no earlier row of its key wants.

        Args:
            rows: The rows.
            outputs: Numbers that each wants.
            replaces: By row, which number each of its further outputs replaces.
        """
        first = list(outputs)
        ids, keys = rows.column("id"), rows.column("request_key")
        for place in self._shared.places(keys):
            if outputs[place]:
                key, request_id = keys[place].as_py(), ids[place].as_py()
                first[place] = self._takers.add(key, request_id, outputs[place])
                if replaced := _entries(request_id, replaces.get(place)):
                    self._replaces[key] = (*self._replaces.get(key, ()), *replaced)
        return first

    def rendered(self, rows: pa.Table, outputs: Sequence[tuple[int, ...]]) -> list[tuple[int, ...]]:
        """Return, of what `count` returned, the outputs that no earlier run has made."""
        left = list(outputs)
        if self._origins.is_empty:
            return left
        # Of a row whose outputs an earlier row of its key wants as well, nothing is asked.
        asked = [place for place, numbers in enumerate(outputs) if numbers]
        keys = rows.column("request_key").take(pa.array(asked, pa.int64()))
        for place, origins in self._origins.of(keys).items():
            copied = {origin.n for origin in origins}
            left[asked[place]] = tuple(n for n in outputs[asked[place]] if n not in copied)
        return left

    def request_columns(
        self,
        rows: pa.Table,
        outputs: Sequence[tuple[int, ...]],
        replaces: Mapping[int, Mapping[int, int]] = MappingProxyType({}),
    ) -> Mapping[str, list[object]]:
        """Return the columns `outputs`, `takers`, `origins` and `replaces` of requests.

        A row that another one leads has no output.

        Args:
            rows: Pending rows.
            outputs: What each of them wants.
            replaces: By row, which number each of its further outputs replaces.
        """
        ids, keys = rows.column("id"), rows.column("request_key")
        asked = list(outputs)
        takers: list[tuple[tuple[str, ...], ...]] = [()] * rows.num_rows
        lineage: list[tuple[Replaced, ...]] = [()] * rows.num_rows
        for place, replaced in replaces.items():
            lineage[place] = _entries(ids[place].as_py(), replaced)
        for place in self._shared.places(keys):
            key = keys[place].as_py()
            is_leader = self._takers.leads(key, ids[place].as_py())
            asked[place] = self._takers.outputs(key) if is_leader else ()
            takers[place] = self._takers.takers(key) if is_leader else ()
            lineage[place] = self._replaces.get(key, ()) if is_leader else ()
        origins: list[tuple[Origin, ...]] = [()] * rows.num_rows
        for place, made in self._origins.of(keys).items():
            origins[place] = tuple(origin for origin in made if origin.n in asked[place])
        return {
            "outputs": list(asked),
            "takers": list(takers),
            "origins": list(origins),
            "replaces": list(lineage),
        }


def _entries(request_id: str, replaces: Mapping[int, int] | None) -> tuple[Replaced, ...]:
    return tuple((request_id, n, replaced) for n, replaced in (replaces or {}).items())
