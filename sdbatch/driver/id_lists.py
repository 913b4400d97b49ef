"""Ids that a person has in a file, or hands in through a pipe: what `--only-from` reads.

FILE (one id a line; or a table with a column `id`), or - --> read_ids() --> ids
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final, TextIO

import pyarrow as pa
import pyarrow.parquet as pq

from sdbatch.errors import JobError, ManifestError, Problem
from sdbatch.manifest.row_place import ID
from sdbatch.manifest.tables import TABLES, open_table

LINE_CHARS_MAX: Final = 4096
IDS_MAX: Final = 10_000_000
_STDIN: Final = "-"
_LINES: Final = (".txt", "")
"""Suffixes of files that hold one id a line."""


def read_ids(path: str, stdin: TextIO) -> frozenset[str]:
    """Return the ids of a list.

    Args:
        path: A file of one id a line (empty lines and those that begin with # count for nothing), a table with a
            column `id`, or - for lines that come through a pipe.
        stdin: Where these come from.

    Raises:
        JobError: When it cannot be read, is no table although its suffix says so, or holds what is no id.
    """
    ids: set[str] = set()
    for number, text in _texts(path, stdin):
        if not ID.fullmatch(text):
            raise JobError(f"--only-from {path}: {text[:60]!r} is no id ({number})")
        ids.add(text)
        if len(ids) > IDS_MAX:
            raise JobError(f"--only-from {path}: has over {IDS_MAX} ids")
    return frozenset(ids)


def _texts(path: str, stdin: TextIO) -> Iterator[tuple[str, str]]:
    """Yield what stands where an id is expected, and the place of each."""
    if path == _STDIN:
        yield from _of_lines(path, stdin)
        return
    file = Path(path)
    suffix = file.suffix.lower()
    if not file.is_file():
        raise JobError(f"--only-from {path}: no such file; - reads ids from a pipe, one a line")
    try:
        if suffix == ".parquet":
            yield from _of_parquet(file)
        elif suffix in TABLES and suffix not in _LINES:
            yield from _of_table(file)
        else:
            with file.open(encoding="utf-8-sig") as lines:
                yield from _of_lines(path, lines)
    except ManifestError as error:
        raise JobError(f"--only-from {error.problems[0]}") from error
    except (OSError, UnicodeDecodeError, pa.ArrowException) as error:
        raise JobError(f"--only-from {path}: cannot be read: {' '.join(str(error).split())[:200]}") from error


def _of_lines(path: str, lines: TextIO) -> Iterator[tuple[str, str]]:
    number = 0
    while line := lines.readline(LINE_CHARS_MAX):
        number += 1
        if len(line) == LINE_CHARS_MAX and not line.endswith("\n"):
            raise JobError(f"--only-from {path}: line {number} has over {LINE_CHARS_MAX} characters")
        text = line.strip()
        if text and not text.startswith("#"):
            yield f"line {number}", text


def _of_parquet(file: Path) -> Iterator[tuple[str, str]]:
    with pq.ParquetFile(file) as table:
        if "id" not in table.schema_arrow.names:
            raise _no_ids(str(file), table.schema_arrow.names)
        number = 0
        for batch in table.iter_batches(65_536, columns=["id"], use_threads=False):
            for value in batch.column(0).to_pylist():
                number += 1
                yield f"row {number}", "" if value is None else str(value)


def _of_table(file: Path) -> Iterator[tuple[str, str]]:
    problems: list[Problem] = []
    for line, row in open_table(file).rows(problems.append):
        if problems:
            raise JobError(f"--only-from {file}: {problems[0]}")
        name = next((name for name in row if name.strip().lower() == "id"), None)
        if name is None:
            raise _no_ids(str(file), row)
        yield f"line {line}", "" if row[name] is None else str(row[name]).strip()
    if problems:
        raise JobError(f"--only-from {file}: {problems[0]}")


def _no_ids(path: str, names: Iterable[str]) -> JobError:
    return JobError(f"--only-from {path}: has no column id; it has {', '.join(list(names)[:10])}")
