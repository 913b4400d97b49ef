"""CSV, TSV, JSONL or Parquet become a manifest.

    file --> rows as text or JSON, or batches of Parquet --> renamed, read by the schema --> spool --> Parquet shards

Values go through the reader that also stands before a Parquet manifest which is used as it is (`values`), so that the
same table gives the same request keys however it comes.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from sdbatch.errors import ManifestError, Problem
from sdbatch.manifest.check import Problems
from sdbatch.manifest.ids import IdFormat
from sdbatch.manifest.read import RowBatch, open_shard, read_batches
from sdbatch.manifest.row_place import problem_at, shown, shown_id
from sdbatch.manifest.schema import COLUMNS, unknown_column
from sdbatch.manifest.spool import LINE, Spool, write_shards
from sdbatch.manifest.tables import fault, read_rows
from sdbatch.manifest.typed_rows import TypedRows
from sdbatch.manifest.values import ValueRefused
from sdbatch.storage import LocalStore


@dataclass(frozen=True, slots=True, kw_only=True)
class Built:
    """A manifest folder that was written.

    Attributes:
        num_rows: Rows in it.
        files: Its shards, in order.
        warnings: What its owner should know.
    """

    num_rows: int
    files: list[Path]
    warnings: tuple[str, ...] = ()


def build_shards(
    source: Path,
    folder: Path,
    *,
    shards: int = 1,
    rename: Mapping[str, str] | None = None,
    drop: Iterable[str] = (),
    id_format: str | None = None,
) -> Built:
    """Write a manifest folder.

    Args:
        source: `.csv`, `.tsv`, `.jsonl` or `.parquet`.
        folder: Gets `part-00000.parquet`, ...; shards of an earlier build there are removed.
        shards: Number of files; rows are split evenly, in order.
        rename: The manifest's name of a column, by the source's name.
        drop: Columns of the source to leave out.
        id_format: Format of the ids that are made where the source has no column `id`: from its columns, as in
            `{sku}-{scene}`, or from the row number, as in `scene-{row:05d}`.

    Raises:
        ManifestError: Naming every row whose value does not fit its column.
        JobError: When the id format is none, or the folder cannot be written to.
    """
    problems = Problems()
    names = _Names(source, rename or {}, frozenset(drop), IdFormat(id_format) if id_format else None)
    with Spool() as spool:
        read = _parquet_tables if source.suffix.lower() == ".parquet" else _row_tables
        ids = _Ids()
        for table in read(source, names, problems):
            spool.add(table)
            ids.add(table)
        problems.extend(names.problems())
        if not problems.count:
            problems.extend(ids.problems(spool, source))
        if problems.count:
            raise ManifestError(problems.kept, problems.count)
        files = write_shards(spool, names.of_manifest or ["id"], folder, shards, source.name)
        return Built(num_rows=spool.num_rows, files=files, warnings=names.warnings())


class _Names:
    """What the columns of a table are called in the manifest."""

    def __init__(self, source: Path, rename: Mapping[str, str], drop: frozenset[str], ids: IdFormat | None) -> None:
        self.source = source
        self.rename = rename
        self.drop = drop
        self.ids = ids
        self.of_manifest: list[str] = []
        self.has_rows = False
        self.has_made_ids = False
        self._seen: set[str] = set()

    def see(self, names: Iterable[str], row: Mapping[str, Any]) -> None:
        """Take the names of a row's columns, in the table and in the manifest."""
        self.has_rows = True  # or at least a header
        if not self._seen.issuperset(names):
            self._seen.update(names)
        self.of_manifest.extend(name for name in row if name not in self.of_manifest)

    def problems(self) -> Iterator[Problem]:
        """Yield the problems of the names themselves."""
        if self.ids is not None and self.has_made_ids:
            self.ids.check_columns({*self._seen, *self.of_manifest} - {"id"})
        for name in self.of_manifest:
            if name not in COLUMNS and not name.startswith("x_"):
                yield self._problem(name, unknown_column(name))
        for name in sorted((self.rename.keys() | self.drop) - self._seen) if self.has_rows else ():
            yield self._problem(name, "is to be renamed or dropped, and the file has no such column")

    def warnings(self) -> tuple[str, ...]:
        """Return what to know of the ids that were made, or were not."""
        if self.ids is None or not self.has_rows:
            return ()
        if not self.has_made_ids:
            return ("the table has a column `id`, so no ids are made from --id; --drop id leaves it out",)
        if not self.ids.counts_rows:
            return ()
        message = "ids are made from row numbers: a row that is put in or taken out gives all after it other ids, and"
        return (f"{message} they are rendered again; name columns instead, as in --id '{{sku}}-{{scene}}'",)

    def _problem(self, name: str, message: str) -> Problem:
        column = name if name.isprintable() else shown(name)
        return Problem(shard=str(self.source), row=None, column=column, value=None, message=message)


def _row_tables(source: Path, names: _Names, problems: Problems) -> Iterator[pa.Table]:
    """Yield the rows of a text table, typed, some at a time."""
    rows = TypedRows(source, problems)
    for number, (line, row) in enumerate(read_rows(source, problems.add)):
        named = _named(row, names)
        names.see(row, named)
        if names.ids is not None and "id" not in named:
            named["id"] = _made_id(names, {**row, **named}, number, line, problems)
            names.see((), named)
        rows.add(line, number, named)
        if rows.is_full:
            yield rows.take()
    if rows.num_rows:
        yield rows.take()


def _named(row: Mapping[str, Any], names: _Names) -> dict[str, Any]:
    named: dict[str, Any] = {}
    for name, value in row.items():
        if name in names.drop:
            continue
        target = names.rename.get(name, name)
        if target in named:
            raise fault(names.source, "is the name of two columns after renaming; drop one", column=target)
        named[target] = value
    return named


def _made_id(names: _Names, row: Mapping[str, Any], number: int, line: int | None, problems: Problems) -> str | None:
    assert names.ids is not None
    names.has_made_ids = True
    try:
        return names.ids(row, number)
    except ValueRefused as error:
        shard = str(names.source)
        problems.add(Problem(shard=shard, row=number, column="id", value=None, message=str(error), line=line))
        return None


def _parquet_tables(source: Path, names: _Names, problems: Problems) -> Iterator[pa.Table]:
    """Yield the rows of a Parquet file, read as a manifest's shard is."""
    place = source.absolute()
    also = names.ids.columns if names.ids else ()
    store = LocalStore(str(place.parent))
    shard = open_shard(store, place.name, rename=names.rename, drop=names.drop, also=also)
    names.see(shard.columns, dict.fromkeys(shard.names.values()))
    names.has_made_ids = names.ids is not None and "id" in {p.column for p in shard.problems if p.value is None}
    problems.extend(p for p in shard.problems if not (names.has_made_ids and p.column == "id"))
    for batch in read_batches(shard):
        problems.extend(batch.problems)
        columns = dict(batch.columns)
        if names.has_made_ids:
            columns["id"] = _made_ids(names, batch, problems)
            names.see((), columns)
        table = pa.table({name: pa.array(values, COLUMNS[name]) for name, values in _listed(columns).items()})
        for name in batch.own.column_names:
            table = table.append_column(name, batch.own.column(name))
        yield table.append_column(LINE, pa.nulls(table.num_rows, pa.int64()))


def _listed(columns: Mapping[str, list[Any]]) -> dict[str, list[Any]]:
    """Return columns whose lists are lists: a plain text stands for a list of one."""
    return {
        name: [[value] if isinstance(value, str) else value for value in values]
        if pa.types.is_list(COLUMNS[name])
        else values
        for name, values in columns.items()
    }


def _made_ids(names: _Names, batch: RowBatch, problems: Problems) -> list[str | None]:
    assert names.ids is not None
    columns = {**batch.columns, **batch.also}
    columns |= {
        name: batch.own.column(name).to_pylist() for name in names.ids.columns if name in batch.own.column_names
    }
    made: list[str | None] = []
    for offset in range(batch.num_rows):
        row = {name: columns[name][offset] for name in names.ids.columns if name in columns}
        try:
            made.append(names.ids(row, batch.start + offset))
        except ValueRefused as error:
            made.append(None)
            problems.add(problem_at(batch, offset, "id", None, str(error)))
    return made


class _Ids:
    """Finds ids that stand twice, in 8 bytes a row."""

    def __init__(self) -> None:
        self._hashes: list[NDArray[np.int64]] = []

    def add(self, table: pa.Table) -> None:
        """Take the ids of some rows."""
        ids = table.column("id").to_pylist() if "id" in table.column_names else []
        self._hashes.append(np.fromiter(map(hash, ids), np.int64, len(ids)))

    def problems(self, spool: Spool, source: Path) -> Iterator[Problem]:
        """Yield a problem for each id that stood before; the ids are read again only when two hashes are equal."""
        values, counts = np.unique(np.concatenate([np.zeros(0, np.int64), *self._hashes]), return_counts=True)
        suspects = set(values[counts > 1].tolist()) - {hash(None)}
        if not suspects:
            return
        first: dict[str, str] = {}
        numbers = itertools.count()
        for table in spool.tables():
            for row_id, line in zip(table.column("id").to_pylist(), table.column(LINE).to_pylist(), strict=True):
                number = next(numbers)
                if row_id is None or hash(row_id) not in suspects:
                    continue
                place = f"row {number + 1}" if line is None else f"line {line}"
                if row_id in first:
                    message = f"appears twice; first in {first[row_id]}"
                    yield Problem(
                        shard=str(source),
                        row=number,
                        column="id",
                        value=repr(row_id)[:80],
                        message=message,
                        id=shown_id(row_id),
                        line=line,
                    )
                first.setdefault(row_id, place)
