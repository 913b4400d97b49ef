"""Which rows a person means: ids and globs, an expression, a sample spread over the values of columns.

    Selection + kinds of the columns --> Picker --> add() for each batch of rows --> picked()
    tables + Selection --> picked_rows() --> the rows of them that are picked

The same selection serves every verb. In run, plan and redo it sees the manifest's columns, elsewhere the metadata's.
"""

from __future__ import annotations

import fnmatch
import heapq
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from hashlib import blake2b
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from sdbatch.arguments import Count, taken
from sdbatch.errors import JobError
from sdbatch.hints import did_you_mean
from sdbatch.manifest.column_values import python_values
from sdbatch.where import Kind, Where, compile_conjuncts, kind_of

GLOB: Final = re.compile(r"[*?[]")
"""A letter that makes a name a pattern; no id has one."""
KNOWN_MAX: Final = 1 << 16
"""Combinations of values whose answer is remembered; where all rows differ, remembering helps nobody."""
SHOWN: Final = 3
"""Ids that a message names."""

Column = Callable[[str], Sequence[Any]]
"""Returns a column of some rows as Python values."""


def texts_of(values: str | Path | Iterable[str | Path]) -> tuple[str, ...]:
    """Return texts that a caller gave; one alone is one, and not its letters."""
    return (str(values),) if isinstance(values, str | Path) else tuple(map(str, values))


@dataclass(frozen=True, slots=True, kw_only=True)
class Selection:
    """Which rows are meant.

    What it leaves out stays in the campaign: a selection never counts as rows that leave.

    Attributes:
        limit: At most so many requests that are made, in manifest order; None for all.
        only: Only these ids, or globs such as `mug-*`; empty for all.
        only_from: Only the ids of a list; None for all. With `only` as well, a row of either is meant.
        where: Only rows for which this expression holds; see `sdbatch.where`.
        sample: Of the rows that the others leave, so many for each value of `per`; the same ones each time.
        per: Columns over whose values `sample` is spread; without any it is of all rows.
        retry_failed: None: failed requests whose class is retryable; "": every failed one; a class name: those.
        skips_unknown: Whether ids that are not there are passed over; else they are an error.
        is_rerolling: Whether rejected and blocked outputs are replaced by further ones.
        again: (id, request key, n) of outputs that are made anew though they are further ones, as `redo` does.
    """

    limit: Count | None = None
    only: frozenset[str] = frozenset()
    only_from: frozenset[str] | None = None
    where: str | None = None
    sample: Count | None = None
    per: tuple[str, ...] = ()
    retry_failed: str | None = None
    skips_unknown: bool = False
    is_rerolling: bool = False
    again: frozenset[tuple[str, str, int]] = frozenset()

    def __post_init__(self) -> None:
        """Take one text for one, and any iterable of them; refuse what cannot be meant."""
        given = {field.name: getattr(self, field.name) for field in fields(self)}
        for name, kind in (("only", frozenset), ("only_from", frozenset), ("per", tuple)):
            if isinstance(given[name], Iterable):
                given[name] = kind(texts_of(given[name]))
        for name, value in taken(Selection, given).items():
            object.__setattr__(self, name, value)
        if self.per and self.sample is None:
            raise JobError(f"--per {self.per[0]}: says over what --sample is spread; give --sample N as well")

    @property
    def is_of_all(self) -> bool:
        """Whether no row is left out for what it is; `limit` and `retry_failed` look at what a run would make."""
        return not self.only and self.only_from is None and self.where is None and self.sample is None


class Picker:
    """Says of rows, batch by batch, which of them a selection means.

    Args:
        selection: The selection.
        kinds: What each column holds; with a column `n`, outputs of one id are told apart.
        named: What messages call the rows' home.
        place: What messages call the place where the expression was written.

    Raises:
        WhereRefused, JobError: When it names a column that is not there, or compares what cannot be compared.
    """

    def __init__(self, selection: Selection, kinds: Mapping[str, Kind], named: str, place: str = "--where") -> None:
        self._selection = selection
        self._named = named
        # Each part that `and` joins is asked by itself: its columns have few combinations of values, all together many.
        wheres = [] if selection.where is None else compile_conjuncts(selection.where, kinds, place)
        self._answers = [_Answers(where, [kinds[name] == "texts" for name in where.names]) for where in wheres]
        for name in selection.per:
            if name not in kinds:
                raise _no_column(name, kinds)
        self._tells_outputs_apart = "n" in kinds
        self._exact = {name for name in selection.only if not GLOB.search(name)}
        self._ids = self._exact | (selection.only_from or frozenset())
        self._unseen = set(self._ids)
        self._globs = {glob: re.compile(fnmatch.translate(glob)) for glob in sorted(selection.only - self._exact)}
        self._idle_globs = set(self._globs)
        self._batches: list[NDArray[np.bool_]] = []
        self._num_candidates = 0
        self._samples: dict[Any, list[tuple[bytes, int]]] = {}

    def add(self, column: Column, num_rows: int) -> NDArray[np.bool_]:
        """Look at some more rows; return which of them are meant, `sample` apart.

        Args:
            column: Returns one of their columns.
            num_rows: Their number.
        """
        picked = np.ones(num_rows, np.bool_)
        if self._selection.only or self._selection.only_from is not None:
            picked &= self._of_ids(column("id"))
        for answers in self._answers:
            picked &= answers.of([column(name) for name in answers.names], num_rows)
        if self._selection.sample is not None:
            self._enter(column, np.flatnonzero(picked).tolist())
        self._batches.append(picked)
        return picked

    def picked(self) -> NDArray[np.bool_]:
        """Return for all rows so far whether they are meant.

        Raises:
            JobError: When the selection names an id that no row has, or a glob that none fits.
        """
        self.check()
        picked = np.concatenate([np.empty(0, np.bool_), *self._batches])
        if self._selection.sample is not None:
            candidates = np.flatnonzero(picked)
            picked = np.zeros(len(picked), np.bool_)
            picked[candidates[self.sampled()]] = True
        return picked

    def sampled(self) -> NDArray[np.int64]:
        """Return the places of the sample, counted among the rows that `add` said are meant."""
        places = [place for sample in self._samples.values() for _, place in sample]
        return np.array(sorted(places), np.int64)

    def check(self) -> None:
        """Raise JobError when the selection names an id that no row so far has, or a glob that none fits."""
        if self._selection.skips_unknown:
            return
        if self._idle_globs:
            raise JobError(f"{min(self._idle_globs)}: {self._named} has no id that fits it")
        if named := self._unseen & self._exact:
            raise JobError(f"{min(named)}: {self._named} has no such id")
        if self._unseen:
            num_listed = len(self._selection.only_from or ())
            shown = ", ".join(sorted(self._unseen)[:SHOWN]) + (", ..." if len(self._unseen) > SHOWN else "")
            raise JobError(f"--only-from: {self._named} lacks {len(self._unseen)} of its {num_listed} ids: {shown}")

    def _of_ids(self, ids: Sequence[str]) -> NDArray[np.bool_]:
        picked = np.fromiter(map(self._ids.__contains__, ids), np.bool_, len(ids))
        if self._unseen:
            self._unseen.difference_update(ids)
        for glob, pattern in self._globs.items():
            fits = np.fromiter((pattern.match(one) is not None for one in ids), np.bool_, len(ids))
            if fits.any():
                self._idle_globs.discard(glob)
            picked |= fits
        return picked

    def _enter(self, column: Column, places: Sequence[int]) -> None:
        """Keep of each group the rows with the highest ranks, which follow from their identity alone."""
        wanted = self._selection.sample or 0
        texts: Sequence[str] = column("id")
        if self._tells_outputs_apart:
            texts = [f"{name}/{n}" for name, n in zip(texts, column("n"), strict=True)]
        groups = [_hashable(column(name)) for name in self._selection.per]
        of_rows: Sequence[Any] = list(zip(*groups, strict=True)) or [()] * len(texts)
        samples = self._samples
        for place in places:
            entry = (blake2b(texts[place].encode(), digest_size=16).digest(), self._num_candidates)
            self._num_candidates += 1
            sample = samples.get(of_rows[place])
            if sample is None:
                samples[of_rows[place]] = [entry]
            elif len(sample) < wanted:
                heapq.heappush(sample, entry)
            elif entry > sample[0]:
                heapq.heapreplace(sample, entry)


class _Answers(dict[Any, bool]):
    """What an expression says of combinations of values, each asked once: most rows repeat them.

    Args:
        where: The expression.
        are_lists: For each column that it reads, whether it holds lists.
    """

    def __init__(self, where: Where, are_lists: Sequence[bool]) -> None:
        super().__init__()
        self.names = where.names
        self._holds = where.holds
        self._are_lists = are_lists

    def of(self, columns: Sequence[Sequence[Any]], num_rows: int) -> NDArray[np.bool_]:
        """Return the answer for each of some rows."""
        if not columns:
            return np.full(num_rows, self._holds({}))
        keys = [
            [None if value is None else tuple(value) for value in values] if is_list else values
            for values, is_list in zip(columns, self._are_lists, strict=True)
        ]
        rows: Iterable[Any] = keys[0] if len(keys) == 1 else zip(*keys, strict=True)
        return np.fromiter(map(self.__getitem__, rows), np.bool_, num_rows)

    def __missing__(self, values: Any) -> bool:
        names = self.names
        answer = self._holds({names[0]: values} if len(names) == 1 else dict(zip(names, values, strict=True)))
        if len(self) < KNOWN_MAX:
            self[values] = answer
        return answer


def picked_rows(parts: Iterable[pa.Table], selection: Selection, named: str = "the campaign") -> Iterator[pa.Table]:
    """Yield the rows of some tables that a selection means, in their order.

    Args:
        parts: Tables such as effective rows, with the column `id`; where they have `n`, it tells an id's outputs apart.
        selection: Which rows. Its `limit` and `retry_failed` are for what a run makes, and pick nothing here.
        named: What messages call the tables.

    Raises:
        WhereRefused, JobError: When it names a column that is not there; once all were read, an id that no row has.
    """
    if selection.is_of_all:
        yield from parts
        return
    picker: Picker | None = None
    held: list[pa.Table] = []
    for part in parts:
        picker = picker or Picker(selection, kinds_of(part), named)
        rows = part.filter(pa.array(picker.add(columns_of(part), part.num_rows)))
        if selection.sample is None:
            yield rows
        else:
            held.append(rows)
    if picker is None:
        return
    picker.check()
    if held:
        yield pa.concat_tables(held, promote_options="default").take(pa.array(picker.sampled()))


def kinds_of(part: pa.Table) -> dict[str, Kind]:
    """Return what each column of a table holds."""
    return {one.name: kind_of(one.type) for one in part.schema}


def columns_of(part: pa.Table) -> Column:
    """Return the columns of a table for `Picker.add`; one that it does not have is null."""

    def column(name: str) -> Sequence[Any]:
        if name not in part.column_names:
            return [None] * part.num_rows
        try:
            return values_of(part.column(name))
        except (ValueError, OverflowError) as error:
            raise JobError(f"--where: {name} holds a value that cannot be compared: {error}") from error

    return column


def values_of(column: pa.ChunkedArray) -> list[Any]:
    """Return a column's values; a float32 through its shortest decimal, so that 0.7 equals 0.7 and not less."""
    return list(python_values(column) if pa.types.is_float32(column.type) else column.to_pylist())


def _hashable(values: Sequence[Any]) -> Sequence[Any]:
    """Return values by which rows can be told apart; lists, and NaN, which equals nothing, by their text."""
    return [repr(value) if isinstance(value, list | dict | float) else value for value in values]


def _no_column(name: str, kinds: Mapping[str, Kind]) -> JobError:
    hint = did_you_mean(name, kinds) or f"known are {', '.join(list(kinds)[:SHOWN])}, ..."
    return JobError(f"--per {name}: is no column here; {hint}")
