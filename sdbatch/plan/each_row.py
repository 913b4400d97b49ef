"""What a row raises is that row's problem; the rows beside it are resolved as ever.

rows --> Resolver.resolve(), all at once --> did they raise? then each half, down to the row that raises
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

from sdbatch.plan.problems import RowProblem
from sdbatch.plan.resolve import Columns, ResolvedRows, Resolver

ROW_FAULTS: Final = (ArithmeticError, AttributeError, LookupError, OSError, RecursionError, TypeError, ValueError)
"""What a value that no check foresaw can raise."""


def resolve_each(
    resolver: Resolver, columns: Columns, num_rows: int, digests: Mapping[str, str]
) -> tuple[ResolvedRows, list[RowProblem]]:
    """Resolve some rows; see `Resolver.resolve`. A row that makes it raise has that as its problem."""
    try:
        return resolver.resolve(columns, num_rows, digests)
    except ROW_FAULTS as error:
        if num_rows == 1:
            message = f"cannot be planned: {type(error).__name__}: {' '.join(str(error).split())[:200]}"
            return ResolvedRows._make([] for _ in ResolvedRows._fields), [RowProblem(None, None, message)]
    middle = num_rows // 2
    rows, problems = _part(resolver, columns, 0, middle, digests)
    more_rows, more_problems = _part(resolver, columns, middle, num_rows, digests)
    joined = ResolvedRows._make([*one, *two] for one, two in _pairs(rows, more_rows))
    return joined, [*problems, *more_problems]


def _pairs(rows: ResolvedRows, more: ResolvedRows) -> Iterator[tuple[list[Any], list[Any]]]:
    """Yield each column of some rows with that of others."""
    for name in ResolvedRows._fields:
        yield getattr(rows, name), getattr(more, name)


def _part(
    resolver: Resolver, columns: Columns, start: int, end: int, digests: Mapping[str, str]
) -> tuple[ResolvedRows, list[RowProblem]]:
    of_part = {name: values[start:end] for name, values in columns.items()}
    rows, problems = resolve_each(resolver, of_part, end - start, digests)
    return rows, [problem._replace(offset=problem.offset + start) for problem in problems]
