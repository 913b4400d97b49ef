"""Some rows of a block, chosen at random and yet for ever.

    dimensions, conditions, k --> sample_of() --> k combinations

Every place of the sample draws a value of each dimension by the highest of the hashes of the values' keys (rendezvous
hashing), so a value that is added to twelve takes a thirteenth of the places and leaves the others as they were.
"""

from __future__ import annotations

import hashlib
import heapq
import itertools
from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from sdbatch.desk.axes import Axis
from sdbatch.desk.blocks import Combination, Condition, Dimension, combinations_of
from sdbatch.desk.count import count_of
from sdbatch.desk.form import BriefRefused

SAMPLED_MAX = 1_000_000
TRIES = 512
"""Draws of a place, before the rows that fit are looked through instead."""
LOOKED_THROUGH_MAX = 5_000_000
_MIX_1, _MIX_2 = np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB)


def sample_of(
    dimensions: Sequence[Dimension],
    conditions: Sequence[Condition],
    axes: Sequence[Axis],
    *,
    count: int,
    per: Sequence[int],
    seed: int,
    label: str,
) -> list[Combination]:
    """Return combinations for which every condition holds, chosen by the keys of their values alone.

    Args:
        dimensions: What they are combinations of.
        conditions: What must hold.
        axes: All axes.
        count: How many, or all where there are fewer.
        per: Axes for each of whose values there shall be so many.
        seed: Another one gives other rows.
        label: What messages call the block.

    Raises:
        BriefRefused: When they would be over `SAMPLED_MAX`, or too rare to be found.
    """
    fixed = [dimension for dimension in dimensions if set(dimension.axes) & set(per)]
    free = [dimension for dimension in dimensions if dimension not in fixed]
    sampled: list[Combination] = []
    hashes = [_hashes(one, axes) for one in free]
    for chosen in itertools.product(*(dimension.rows for dimension in fixed)):
        narrowed = [
            Dimension(axes=one.axes, rows=[row], is_whole=False) for one, row in zip(fixed, chosen, strict=True)
        ]
        name = "/".join(
            axes[axis].keys[value]
            for one, row in zip(fixed, chosen, strict=True)
            for axis, value in zip(one.axes, row, strict=True)
        )
        all_hashes = [*(_hashes(one, axes) for one in narrowed), *hashes]
        sampled.extend(_Draw([*narrowed, *free], all_hashes, conditions, axes, f"{seed}:{name}", label).take(count))
        if len(sampled) > SAMPLED_MAX:
            raise BriefRefused(f"{label}: a sample of over {SAMPLED_MAX} rows")
    return sampled


class _Draw:
    """Draws combinations of one product."""

    def __init__(
        self,
        dimensions: Sequence[Dimension],
        hashes: Sequence[NDArray[np.uint64]],
        conditions: Sequence[Condition],
        axes: Sequence[Axis],
        seed: str,
        label: str,
    ) -> None:
        self._dimensions = dimensions
        self._conditions = conditions
        self._axes = axes
        self._seed = seed
        self._label = label
        self._hashes = hashes

    def take(self, count: int) -> list[Combination]:
        """Return so many combinations, or all where there are fewer."""
        there = count_of(self._dimensions, self._conditions, self._label)
        if there <= count:
            return list(self._all())
        taken: dict[Combination, None] = {}
        for place in range(count):
            for attempt in range(TRIES):
                drawn = self._drawn(place, attempt)
                if drawn not in taken and all(one.holds(drawn) for one in self._conditions):
                    taken[drawn] = None
                    break
        if len(taken) < count:
            self._fill(taken, count, there)
        return list(taken)

    def _all(self) -> Iterator[Combination]:
        return combinations_of(self._dimensions, self._conditions, len(self._axes))

    def _fill(self, taken: dict[Combination, None], count: int, there: int) -> None:
        """Take the rest from all that fit, those with the lowest hash of their keys first."""
        if there > LOOKED_THROUGH_MAX:
            message = f"too few of its combinations fit for a sample, and {there} are too many to look through"
            raise BriefRefused(f"{self._label}: {message}; put columns into the tables that say what goes together")
        missing = count - len(taken)
        rest = (one for one in self._all() if one not in taken)
        taken.update(dict.fromkeys(heapq.nsmallest(missing, rest, key=self._hash_of)))

    def _hash_of(self, combination: Combination) -> bytes:
        keys = [axis.keys[value] for axis, value in zip(self._axes, combination, strict=True) if value is not None]
        return hashlib.blake2b("/".join([self._seed, *keys]).encode(), digest_size=8).digest()

    def _drawn(self, place: int, attempt: int) -> Combination:
        row: list[int | None] = [None] * len(self._axes)
        word = hashlib.blake2b(f"{self._seed}:{place}:{attempt}".encode(), digest_size=8).digest()
        salt = np.frombuffer(word, np.uint64)[0]
        for dimension, hashes in zip(self._dimensions, self._hashes, strict=True):
            highest = int(np.argmax(_mixed(hashes ^ salt))) if len(hashes) > 1 else 0
            for axis, value in zip(dimension.axes, dimension.rows[highest], strict=True):
                row[axis] = value
        return tuple(row)


def _hashes(dimension: Dimension, axes: Sequence[Axis]) -> NDArray[np.uint64]:
    """Return a hash of each value of a dimension, by its keys."""
    words = [
        "/".join([axes[axis].keys[value] for axis, value in zip(dimension.axes, row, strict=True)])
        for row in dimension.rows
    ]
    name = "/".join(axes[axis].name for axis in dimension.axes)
    digests = b"".join(hashlib.blake2b(f"{name}={word}".encode(), digest_size=8).digest() for word in words)
    return np.frombuffer(digests, np.uint64)


def _mixed(words: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Return words whose every bit depends on all bits (the finish of splitmix64, after Stafford)."""
    words = (words ^ (words >> np.uint64(30))) * _MIX_1
    words = (words ^ (words >> np.uint64(27))) * _MIX_2
    return words ^ (words >> np.uint64(31))
