"""The outputs of a row that are wanted: its slate, and what stands for an output that is not wanted any more.

    num_outputs, excluded numbers --> slate() --> the numbers that are wanted
    slate, what is made --> shown() --> the numbers that a person sees
    new numbers --> lineage() --> the excluded number that each of them replaces

An output is excluded when somebody rejected it or a stage blocked it. Pure: plan, metadata and review ask it.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from itertools import count, islice


def slate(num_outputs: int, excluded: Collection[int], rerolls: int | None = None) -> tuple[int, ...]:
    """Return the first `num_outputs` numbers that are not excluded, ascending.

    Args:
        num_outputs: Outputs that the row asks for.
        excluded: Numbers that somebody rejected or a stage blocked.
        rerolls: Numbers stay below num_outputs x (1 + rerolls), so that the slate may be shorter; None for no bound.
    """
    numbers: Iterable[int] = count() if rerolls is None else range(num_outputs * (1 + rerolls))
    return tuple(islice((n for n in numbers if n not in excluded), num_outputs))


def num_given_up(num_outputs: int, excluded: Collection[int], rerolls: int) -> int:
    """Return how many outputs of a row are wanted for which no number is left."""
    return num_outputs - len(slate(num_outputs, excluded, rerolls))


def shown(
    num_outputs: int,
    excluded: Collection[int],
    made: Collection[int],
    failed: Collection[int],
    replaced: Collection[int],
) -> tuple[int, ...]:
    """Return the numbers of a row's effective outputs: its slate, and the excluded ones that nothing replaces yet.

    Args:
        num_outputs: Outputs that the row asks for.
        excluded: Numbers that somebody rejected or a stage blocked; each of them has an outcome.
        made: Numbers that are made.
        failed: Numbers that were tried and are neither made nor blocked.
        replaced: Excluded numbers of which a made, or blocked, output says that it replaces them.
    """
    wanted = slate(num_outputs, excluded)
    num_lacking = num_outputs - sum(n < num_outputs or n in made for n in wanted)
    # What is known to be replaced goes first; where nothing is known (numbers that were made before), the oldest does.
    waiting = sorted(excluded, key=lambda n: (n in replaced, -n))[:num_lacking]
    return tuple(sorted([*(n for n in wanted if n in made or n in failed), *waiting]))


def lineage(numbers: Sequence[int], excluded: Collection[int], replaced: Collection[int]) -> dict[int, int]:
    """Return which excluded number each new one replaces: those that nothing replaces yet, in order.

    Args:
        numbers: New numbers beyond `num_outputs`, ascending.
        excluded: As in `shown`.
        replaced: As in `shown`.
    """
    open_places = sorted(n for n in excluded if n not in replaced)
    return {n: place for n, place in zip(numbers, open_places, strict=False) if place < n}
