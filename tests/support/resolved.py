"""What a resolver returns, row by row, as tests look at it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from sdbatch.plan.problems import RowProblem
from sdbatch.plan.resolve import ResolvedRows
from sdbatch.recipe import request_key
from sdbatch.types import Source


class Row(NamedTuple):
    """One row of `ResolvedRows`."""

    id: str
    recipe: str
    num_outputs: int
    sources: tuple[Source, ...]
    model: str
    batch_key: str
    cost_tflop: float
    shape: str

    @property
    def request_key(self) -> str:
        """Key of the recipe."""
        return request_key(self.recipe)


def rows_of(resolved: ResolvedRows, problems: Iterable[RowProblem], num_rows: int) -> list[Row | None]:
    """Return one entry for each of the rows that were given, None where one has a problem."""
    bad = {problem.offset for problem in problems}
    good = iter(zip(*resolved, strict=True))
    return [None if offset in bad else Row(*next(good)) for offset in range(num_rows)]
