"""The manifest that a job names: Parquet as it is, or a table or a brief that becomes one on this machine's disk.

    Job --> opened_manifest() --> ManifestHere: the URL of Parquet, what was read and how

What is built lies in a folder that goes with its process; the campaign keeps the digest of what it was built from.
"""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Final

from sdbatch.driver.rows.briefs import BRIEFS, build_brief
from sdbatch.errors import JobError
from sdbatch.job import Job, ManifestTable, Storage
from sdbatch.manifest.build import Built, build_shards
from sdbatch.manifest.tables import NOT_READ, TABLES, WORKBOOKS
from sdbatch.scratch import Scratch
from sdbatch.storage import open_store, parse_url, split

PREFIX: Final = "sdbatch-tables-"
_PARQUET: Final = ".parquet"


@dataclass(frozen=True, slots=True, kw_only=True)
class ManifestHere:
    """A manifest that can be read.

    Attributes:
        url: Where its Parquet lies.
        tables: sha256 of each file that it was built from, by its path or URL; empty where it was Parquet already.
        notes: How the tables were read where that is not written in them.
        warnings: What its owner should know.
    """

    url: str
    tables: Mapping[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()


@contextmanager
def opened_manifest(job: Job) -> Iterator[ManifestHere]:
    """Make a job's manifest readable; what is built for it is gone at the end.

    Raises:
        ManifestError: Naming every row of a table whose value does not fit its column.
        JobError: When it is not there, or not what its suffix says.
    """
    named = job.manifest if isinstance(job.manifest, ManifestTable) else ManifestTable(path=job.manifest)
    suffix = PurePosixPath(named.path).suffix.lower()
    if suffix == _PARQUET and named == ManifestTable(path=named.path):
        suffix = ""
    if suffix not in (*TABLES, *BRIEFS, *NOT_READ):
        _refuse_options(named)
        yield ManifestHere(url=named.path)
        return
    scratch = Scratch(PREFIX)
    try:
        yield _built(named, suffix, job, scratch.folder)
    finally:
        scratch.close()


def _built(named: ManifestTable, suffix: str, job: Job, folder: Path) -> ManifestHere:
    built: Built
    if suffix in BRIEFS:
        _refuse_options(named)
        if not parse_url(named.path).is_local:
            raise JobError(f"manifest: {named.path}: a brief lies on this machine, beside its tables")
        brief = _here(named.path, job.storage, folder)
        built, files = build_brief(brief, folder / "manifest", job=job, label=named.path)
        tables = {str(file): _digest(file) for file in files}
    else:
        if named.sheet is not None and suffix not in WORKBOOKS:
            raise JobError(
                f"manifest: {named.path}: has no sheets; only a workbook (.xlsx) has the sheet {named.sheet!r}"
            )
        source = _here(named.path, job.storage, folder)
        tables = {named.path: _digest(source)}
        built = build_shards(
            source,
            folder / "manifest",
            rename=named.rename,
            id_format=named.id,
            sheet=named.sheet,
            own=named.own,
            label=named.path,
        )
    return ManifestHere(url=str(folder / "manifest"), tables=tables, notes=built.notes, warnings=built.warnings)


def _refuse_options(named: ManifestTable) -> None:
    """Refuse options that a folder of shards, or a brief, would not be read with."""
    given = [name for name in ("sheet", "id", "rename", "own") if getattr(named, name)]
    if given:
        raise JobError(f"manifest: {named.path}: {given[0]} is for one table: {', '.join(TABLES)}")


def _here(path: str, storage: Mapping[str, Storage], folder: Path) -> Path:
    """Return a table on this machine: itself, or a copy of one in a bucket.

    Raises:
        JobError: When it is not there.
    """
    location = parse_url(path)
    if location.is_local:
        source = Path(location.path)
        if not source.is_file():
            place = (
                f" at {source}; a job's paths begin in the folder where the command runs" if path != str(source) else ""
            )
            raise JobError(f"manifest: {path}: no such file{place}")
        return source
    above, name = split(path)
    copy = folder / name
    try:
        with open_store(above, storage).open(name) as remote, copy.open("wb") as here:
            shutil.copyfileobj(remote, here, 8 << 20)
    except FileNotFoundError as error:
        raise JobError(f"manifest: {path}: no such file") from error
    return copy


def _digest(file: Path) -> str:
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()
