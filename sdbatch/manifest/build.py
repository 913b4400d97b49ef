"""CSV, TSV, workbooks, JSONL, Parquet or rows become a manifest.

    file --> rows of cells or JSON, or batches of Parquet --> renamed, read by the schema --> spool --> Parquet shards

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
from sdbatch.manifest.cells import Cells
from sdbatch.manifest.check import Problems
from sdbatch.manifest.column_names import ColumnNames
from sdbatch.manifest.ids import IdFormat
from sdbatch.manifest.read import RowBatch, open_shard, read_batches
from sdbatch.manifest.row_place import problem_at, shown_id
from sdbatch.manifest.schema import COLUMNS
from sdbatch.manifest.shard_file import read_footer
from sdbatch.manifest.spool import LINE, Spool, write_shards
from sdbatch.manifest.tables import Table, open_table
from sdbatch.manifest.typed_rows import TypedRows
from sdbatch.manifest.values import ValueRefused
from sdbatch.storage import LocalStore

Rows = Iterable[Mapping[str, Any]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Built:
    """A manifest folder that was written.

    Attributes:
        num_rows: Rows in it.
        files: Its shards, in order.
        warnings: What its owner should know.
        notes: How the table was read where that is not written in it, such as its separator.
    """

    num_rows: int
    files: list[Path]
    warnings: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


def build_shards(
    source: Path,
    folder: Path,
    *,
    shards: int = 1,
    rename: Mapping[str, str] | None = None,
    drop: Iterable[str] = (),
    id_format: str | None = None,
    sheet: str | None = None,
    own: bool = False,
    label: str | None = None,
) -> Built:
    """Write a manifest folder.

    Args:
        source: `.csv`, `.tsv`, `.txt`, `.xlsx`, `.jsonl` or `.parquet`.
        folder: Gets `part-00000.parquet`, ...; shards of an earlier build there are removed.
        shards: Number of files; rows are split evenly, in order.
        rename: The manifest's name of a column, by the source's name.
        drop: Columns of the source to leave out.
        id_format: Format of the ids that are made where the source has no column `id`: from its columns, as in
            `{sku}-{scene}`, or from the row number, as in `scene-{row:05d}`.
        sheet: Sheet of a workbook; None for the only one that holds something.
        own: Whether columns that manifests do not have become the user's own, `x_*`.
        label: What messages call the source; its path by default.

    Raises:
        ManifestError: Naming every row whose value does not fit its column.
        JobError: When the id format is none, or the folder cannot be written to.
    """
    problems = Problems()
    label = label or str(source)
    names = ColumnNames(label, rename or {}, drop, IdFormat(id_format) if id_format else None, own=own)
    with Spool() as spool:
        if source.suffix.lower() == ".parquet":
            notes: list[str] = []
            tables = _parquet_tables(source, names, problems)
        else:
            table = open_table(source, label=label, sheet=sheet, is_known=names.is_known)
            notes = table.notes
            tables = _row_tables(table, names, problems)
        files = _written(tables, spool, names, problems, folder, shards)
        said = tuple(f"{Path(label).name}: {note}" for note in notes)
        return Built(num_rows=spool.num_rows, files=files, warnings=names.warnings(), notes=said)


def build_rows(rows: Rows, folder: Path, *, label: str, shards: int = 1) -> Built:
    """Write a manifest folder from rows by the manifest's columns, which come one by one.

    Args:
        rows: The rows.
        folder: Gets `part-00000.parquet`, ...; shards of an earlier build there are removed.
        label: Where the rows come from, as messages name it.
        shards: Number of files.

    Raises:
        ManifestError: Naming every row whose value does not fit its column.
        JobError: When the folder cannot be written to.
    """
    problems = Problems()
    names = ColumnNames(label, {}, (), None, own=False)
    cells = Cells()  # what a template gives is text from a table's cells
    with Spool() as spool:
        files = _written(_typed(rows, names, problems, cells), spool, names, problems, folder, shards)
        said = tuple(f"{Path(label).name}: {note}" for note in cells.notes.values())
        return Built(num_rows=spool.num_rows, files=files, notes=said)


def _written(
    tables: Iterable[pa.Table], spool: Spool, names: ColumnNames, problems: Problems, folder: Path, shards: int
) -> list[Path]:
    """Write the tables as shards, when nothing is wrong with any of them."""
    ids = _Ids()
    for table in tables:
        spool.add(table)
        ids.add(table)
    problems.extend(names.problems(knows_of_id=any(problem.column == "id" for problem in problems.kept)))
    if not problems.count:
        problems.extend(ids.problems(spool, names.label))
    if problems.count:
        raise ManifestError(problems.kept, problems.count)
    return write_shards(spool, names.of_manifest or ["id"], folder, shards, Path(names.label).name)


def _typed(rows: Rows, names: ColumnNames, problems: Problems, cells: Cells) -> Iterator[pa.Table]:
    typed = TypedRows(names.label, problems, cells)
    for number, row in enumerate(rows):
        if not number or len(row) != len(names.of_manifest):
            names.see(row)
        typed.add(None, number, row)
        if typed.is_full:
            yield typed.take()
    if typed.num_rows:
        yield typed.take()


def _row_tables(table: Table, names: ColumnNames, problems: Problems) -> Iterator[pa.Table]:
    """Yield the rows of a table of text or of a workbook, typed, some at a time."""
    cells = Cells() if table.has_cells else None
    typed: TypedRows | None = None
    for number, (line, row) in enumerate(table.rows(problems.add)):
        if typed is None:  # only now is the sheet known that stands in the label
            names.label = table.label
            typed = TypedRows(table.label, problems, cells)
        named = names.named(row)
        if names.ids is not None and "id" not in named:
            named["id"] = _made_id(names, row, named, number, line, problems)
            names.see(named)
        typed.add(line, number, named)
        if typed.is_full:
            yield typed.take()
    if typed is not None and typed.num_rows:
        yield typed.take()
    if typed is None and table.header and not problems.count:
        names.label = table.label
        names.see_header(table.header)
    table.notes.extend(cells.notes.values() if cells else ())


def _made_id(
    names: ColumnNames,
    row: Mapping[str, Any],
    named: Mapping[str, Any],
    number: int,
    line: int | None,
    problems: Problems,
) -> str | None:
    try:
        return names.made_id(row, named, number)
    except ValueRefused as error:
        message = str(error)
        problems.add(Problem(shard=names.label, row=number, column="id", value=None, message=message, line=line))
        return None


def _parquet_tables(source: Path, names: ColumnNames, problems: Problems) -> Iterator[pa.Table]:
    """Yield the rows of a Parquet file, read as a manifest's shard is."""
    place = source.absolute()
    also = names.ids.columns if names.ids else ()
    store = LocalStore(str(place.parent))
    there = [name for name in read_footer(store, place.name).schema.names if isinstance(name, str)]
    targets = {name: names.of(name) for name in there}
    rename = {name: target for name, target in targets.items() if target is not None}
    drop = targets.keys() - rename.keys()
    shard = open_shard(store, place.name, rename=rename, drop=drop, also=also)
    names.see(shard.names.values())
    names.has_made_ids = names.ids is not None and "id" in {p.column for p in shard.problems if p.value is None}
    problems.extend(p for p in shard.problems if not (names.has_made_ids and p.column == "id"))
    for batch in read_batches(shard):
        problems.extend(batch.problems)
        columns = dict(batch.columns)
        if names.has_made_ids:
            columns["id"] = _made_ids(names, batch, problems)
            names.see(columns)
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


def _made_ids(names: ColumnNames, batch: RowBatch, problems: Problems) -> list[str | None]:
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

    def problems(self, spool: Spool, label: str) -> Iterator[Problem]:
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
                        shard=label,
                        row=number,
                        column="id",
                        value=repr(row_id)[:80],
                        message=message,
                        id=shown_id(row_id),
                        line=line,
                    )
                first.setdefault(row_id, place)
