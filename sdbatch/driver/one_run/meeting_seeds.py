"""Rows that differ in their seeds alone, and whose re-rolls meet: a further output of one is a picture of another.

    rows with further outputs --> MeetingSeeds.add()        every row --> MeetingSeeds.line() --> one warning

Seeds of a row follow on. Rows that were given seeds 7 and 8 share the picture of seed 8, once 7 is rolled again.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

import pyarrow as pa

IDS_SHOWN = 5
_SEED = re.compile(r'"seed":"?(\d+)"?,?')


class MeetingSeeds:
    """The further outputs of a manifest's rows, by recipe and seed."""

    def __init__(self) -> None:
        self._ids: dict[tuple[str, int], str] = {}

    def add(self, request_id: str, recipe: str, further: Sequence[int]) -> None:
        """Note a row's further outputs, made or waiting."""
        rest, seed = _parted(recipe)
        for n in further:
            self._ids.setdefault((rest, seed + n), request_id)

    def line(self, parts: Iterable[pa.Table]) -> list[str]:
        """Return a warning where some meet pictures of other rows; `parts` is asked for only where there are any.

        Args:
            parts: Every row, with the columns `id`, `recipe` and `num_outputs`.
        """
        if not self._ids:
            return []
        rests = {rest for rest, _ in self._ids}
        pairs: dict[tuple[str, str], None] = {}
        for part in parts:
            columns = (part.column(name).to_pylist() for name in ("id", "recipe", "num_outputs"))
            for request_id, recipe, num_outputs in zip(*columns, strict=True):
                rest, seed = _parted(recipe)
                if rest in rests:
                    met = (self._ids.get((rest, seed + n)) for n in range(num_outputs))
                    pairs.update({(other, request_id): None for other in met if other not in {None, request_id}})
        if not pairs:
            return []
        shown = ", ".join(f"{one} and {other}" for one, other in list(pairs)[:IDS_SHOWN])
        more = ", ..." if len(pairs) > IDS_SHOWN else ""
        told = (
            f"{len(pairs)} pair(s) of rows differ in their seeds alone, and a re-roll of the first gives a picture of "
            f"the second once more ({shown}{more}); give such rows seeds that are further apart"
        )
        return [told]


def _parted(recipe: str) -> tuple[str, int]:
    """Return a recipe without its seed, and the seed; a recipe that has none is of seed 0."""
    found = _SEED.search(recipe)
    return (recipe, 0) if found is None else (recipe.replace(found[0], "", 1), int(found[1]))
