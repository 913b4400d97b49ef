"""Rows of one request key are rendered once: who takes whose output.

    request keys of the manifest --> SharedKeys       pending rows that share a key --> Takers --> Request.takers

Only rows that give `seed` or `seed_group` can share a key; derived seeds differ by id.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

_KEY_BYTES = 32


def key_digests(keys: Sequence[str]) -> NDArray[np.uint64]:
    """Return the first 64 bits of each request key (64 hex digits): equal keys give equal numbers."""
    return np.frombuffer(bytes.fromhex("".join(keys)), ">u8")[:: _KEY_BYTES // 8].astype(np.uint64)


class SharedKeys:
    """The keys that more than one row of a manifest has; of two unlike keys in 2**64 one may be taken for shared.

    Args:
        parts: The manifest's rows; their column `request_key` is read.
    """

    def __init__(self, parts: Iterable[pa.Table]) -> None:
        found = [key_digests(part.column("request_key").to_pylist()) for part in parts]
        digests, counts = np.unique(np.concatenate([np.empty(0, np.uint64), *found]), return_counts=True)
        self._digests = digests[counts > 1]

    def __bool__(self) -> bool:
        return len(self._digests) > 0

    def places(self, keys: Sequence[str]) -> list[int]:
        """Return the places in `keys` of those that are shared."""
        if not self:
            return []
        places: list[int] = np.flatnonzero(np.isin(key_digests(keys), self._digests)).tolist()
        return places


class Takers:
    """The pending rows of each shared key: the first one leads, and its request gives the others their outputs too."""

    def __init__(self) -> None:
        self._wanted: dict[str, dict[str, tuple[int, ...]]] = {}

    def add(self, request_key: str, request_id: str, outputs: tuple[int, ...]) -> None:
        """Take in a row that wants some outputs of a key, in manifest order."""
        self._wanted.setdefault(request_key, {})[request_id] = outputs

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
