"""The rows of a table on their way to shards: on disk, batch by batch, so that a table of any length fits in memory.

    tables of some rows --> Spool.add() --> files --> write_shards() --> part-00000.parquet, ...

What the user's own columns are is known only at the end: numbers that were whole for a thousand rows may not stay so.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Self

import pyarrow as pa
import pyarrow.parquet as pq

from sdbatch.errors import JobError
from sdbatch.manifest.origin import OriginNotes
from sdbatch.manifest.schema import COLUMNS

ROW_GROUP_ROWS = 4096
LINE = "line"
"""Column of the spool that says on which line of the table a row begins; null where the table has no lines."""


class Spool:
    """Tables in a temporary folder, which goes when the spool is left.

    Attributes:
        num_rows: Rows of all tables.
    """

    def __init__(self) -> None:
        self.num_rows = 0
        self._folder = tempfile.TemporaryDirectory(prefix="sdbatch-build-")
        self._files: list[Path] = []
        self._kinds: dict[str, pa.DataType] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._folder.cleanup()

    def add(self, table: pa.Table) -> None:
        """Keep some rows; columns may come and go, and whole numbers may become any numbers, and these text."""
        for field in table.schema:
            if _is_wider(field.type, self._kinds.get(field.name, pa.null())):
                self._kinds[field.name] = field.type
        path = Path(self._folder.name) / f"{len(self._files):06d}.arrow"
        options = pa.ipc.IpcWriteOptions(compression="zstd")
        # Arrow opens a path by itself; a Python file is one that its threads could hold at the end.
        with pa.OSFile(str(path), "wb") as file, pa.ipc.new_file(file, table.schema, options=options) as writer:
            writer.write_table(table)
        self._files.append(path)
        self.num_rows += table.num_rows

    def tables(self) -> Iterator[pa.Table]:
        """Yield every row, with all columns in their final types."""
        kinds = {name: pa.string() if pa.types.is_null(kind) else kind for name, kind in self._kinds.items()}
        for path in self._files:
            with pa.OSFile(str(path)) as file, pa.ipc.open_file(file) as reader:
                table = reader.read_all()
            columns = {
                name: table.column(name).cast(kind) if name in table.column_names else pa.nulls(table.num_rows, kind)
                for name, kind in kinds.items()
            }
            yield pa.table(columns)


def _is_wider(kind: pa.DataType, known: pa.DataType) -> bool:
    """Whether a column whose values were of a known type is of another one, which can hold them all."""
    if pa.types.is_null(known):
        return True
    if pa.types.is_integer(known):
        return bool(pa.types.is_floating(kind) or pa.types.is_string(kind))
    if pa.types.is_date(known):
        return bool(pa.types.is_timestamp(kind))
    return bool(pa.types.is_floating(known) and pa.types.is_string(kind))


def write_shards(spool: Spool, names: list[str], folder: Path, shards: int, table_name: str) -> list[Path]:
    """Write the rows of a spool as a manifest folder; return its files. Shards of an earlier build there are removed.

    Args:
        spool: The rows.
        names: Columns, in order.
        folder: Gets `part-00000.parquet`, ...
        shards: Number of files; rows are split evenly, in order.
        table_name: Name of the table that the rows come from, for the messages about them.

    Raises:
        JobError: When the folder cannot be written to.
    """
    files = [folder / f"part-{number:05d}.parquet" for number in range(shards)]
    fresh = [file.with_name(f".{file.name}.new") for file in files]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        try:
            _write(spool, names, fresh, table_name)
            for file, written in zip(files, fresh, strict=True):
                written.replace(file)
        finally:
            for written in fresh:
                written.unlink(missing_ok=True)
        for old in folder.glob("part-*.parquet"):
            if old not in files:
                old.unlink()
    except OSError as error:
        raise JobError(f"{folder}: cannot be written to: {error.strerror or error}") from error
    return files


def _write(spool: Spool, names: list[str], files: list[Path], table_name: str) -> None:
    tables = spool.tables()
    schema = pa.schema([(name, COLUMNS.get(name, pa.string())) for name in names])
    rest: pa.Table | None = None
    for number, file in enumerate(files):
        start, end = (spool.num_rows * edge // len(files) for edge in (number, number + 1))
        left = end - start
        notes = OriginNotes(table_name)
        writer: pq.ParquetWriter | None = None
        while left or writer is None:
            if rest is None or not rest.num_rows:
                rest = next(tables, None)
            part = schema.empty_table() if rest is None else rest.slice(0, left)
            if writer is None:
                writer = pq.ParquetWriter(str(file), part.select(names).schema, compression="zstd")
            if part.num_rows:
                writer.write_table(part.select(names), row_group_size=ROW_GROUP_ROWS)
                notes.add([line for line in part.column(LINE).to_pylist() if line is not None])
            left -= part.num_rows
            rest = None if rest is None else rest.slice(part.num_rows)
        writer.add_key_value_metadata(notes.note())
        writer.close()
