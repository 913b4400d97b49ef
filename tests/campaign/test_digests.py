"""Hashes are found where `numpy.searchsorted` finds them, whatever they are like."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from sdbatch.campaign.digests import Digests, DigestTable, SortedHashes

_TOP = np.uint64(2**64 - 1)


def _even(count: int, seed: int = 0) -> NDArray[np.uint64]:
    return np.random.default_rng(seed).integers(0, _TOP, count, np.uint64, endpoint=True)


_WORDS = {
    "none": np.empty(0, np.uint64),
    "one": np.array([7], np.uint64),
    "even": _even(10_000),
    "all alike": np.full(1_000, 5, np.uint64),
    "all in one corner": np.arange(5_000, dtype=np.uint64),
    "at both ends": np.concatenate([np.zeros(100, np.uint64), _even(50), np.full(100, _TOP)]),
}


@pytest.mark.parametrize("words", _WORDS.values(), ids=_WORDS)
def test_places_are_those_of_a_bisection(words: NDArray[np.uint64]) -> None:
    ordered = np.sort(words)
    near = np.concatenate([ordered - np.uint64(1), ordered, ordered + np.uint64(1)])  # past the ends they wrap around
    wanted = np.concatenate([near, _even(1_000, seed=1), np.array([0, 2**63, _TOP], np.uint64)])

    assert SortedHashes(ordered).places(wanted).tolist() == np.searchsorted(ordered, wanted).tolist()


@pytest.mark.parametrize("words", _WORDS.values(), ids=_WORDS)
def test_a_table_knows_what_it_holds_and_nothing_else(words: NDArray[np.uint64]) -> None:
    pairs = sorted({(int(high), low) for high in words.tolist() for low in (3, 2**63)})
    held = _digests(pairs)

    found = DigestTable(held).positions(_digests([*reversed(pairs), *((high, low + 1) for high, low in pairs)]))

    assert found.tolist() == [*reversed(range(len(pairs))), *[-1] * len(pairs)]


def _digests(pairs: list[tuple[int, int]]) -> Digests:
    columns = np.array(pairs, np.uint64).reshape(-1, 2)
    return Digests(high=columns[:, 0].copy(), low=columns[:, 1].copy())
