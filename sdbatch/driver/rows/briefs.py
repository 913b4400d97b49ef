"""Briefs: their tables are read, their rows made, and built into a manifest.

brief.yaml, tables beside it, the job's model --> open_brief() --> Brief --> build_brief() --> Parquet
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import pyarrow.parquet as pq

from sdbatch.checkpoints import describe
from sdbatch.desk.axes import VALUES_MAX, TableRows
from sdbatch.desk.brief import Brief, plain_row
from sdbatch.desk.form import Form, read_form
from sdbatch.desk.ladder import Fed, Sizes, feeds, shape_axis
from sdbatch.errors import JobError, ManifestError, Problem
from sdbatch.job import Job
from sdbatch.manifest.build import Built, build_rows
from sdbatch.manifest.cells import blanks_noted
from sdbatch.manifest.shard_file import read_footer
from sdbatch.manifest.tables import open_table
from sdbatch.storage import LocalStore
from sdbatch.types import RefusedValue

BRIEFS: Final = (".yaml", ".yml")
"""Suffixes of briefs."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenBrief:
    """A brief whose tables were read.

    Attributes:
        brief: The brief.
        files: The brief itself and every file that it names.
        notes: How its tables were read where that is not written in them.
        feeds: Which shape each of its formats is made from.
    """

    brief: Brief
    files: tuple[Path, ...]
    notes: tuple[str, ...]
    feeds: tuple[Fed, ...]


def open_brief(path: Path, *, job: Job | None = None, label: str | None = None, needs_sizes: bool = True) -> OpenBrief:
    """Read a brief and its tables, and check them.

    Args:
        path: The brief.
        job: The job whose default model says what sizes are rendered.
        label: What messages call the brief; its path by default.
        needs_sizes: Whether the rows will be made, and so the sizes of its formats must be known.

    Raises:
        JobError, ManifestError: Naming what is wrong.
    """
    label = label or str(path)
    form = read_form(path, label)
    notes: list[str] = []

    def read(table: str, sheet: str | None) -> TableRows:
        return _table_rows(table, sheet, notes)

    place = f"brief {label}"
    fed = feeds(form, _sizes(form, job, label, needs_sizes=needs_sizes), place)
    brief = Brief(form, path.parent, read, place, shape_axis(fed))
    return OpenBrief(
        brief=brief, files=tuple(brief_files(path, form)), notes=tuple(dict.fromkeys(notes)), feeds=tuple(fed)
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class FormatShown:
    """A format and what it is made from, in words.

    Attributes:
        name: The format.
        shape: Key of its shape.
        master: Size of the master, "" where the model is not known.
        crop: Share of the master that is cut off.
        enlarged: By how much the master is enlarged, "" where its size is not known.
    """

    name: str
    shape: str
    master: str
    crop: str
    enlarged: str


@dataclass(frozen=True, slots=True, kw_only=True)
class BriefCount:
    """How many rows a brief has.

    Attributes:
        rows: All rows.
        outputs: Assets that they ask for; rows without `outputs` count as one.
        blocks: Rows of each block that no block before it has.
        formats: What each format is made from.
        notes: How its tables were read where that is not written in them.
    """

    rows: int
    outputs: int
    blocks: dict[str, int]
    formats: list[FormatShown]
    notes: list[str]

    def as_dict(self) -> dict[str, Any]:
        """Return plain values."""
        return asdict(self)


def brief_counted(path: Path, job: Job | None) -> BriefCount:
    """Count the rows of a brief. See `sdbatch.api.count_brief`."""
    opened = open_brief(path, job=job, needs_sizes=False)
    counted = opened.brief.count()
    return BriefCount(
        rows=counted.rows,
        outputs=counted.outputs,
        blocks=counted.blocks,
        formats=[_shown(one) for one in opened.feeds],
        notes=list(opened.notes),
    )


def brief_preview(path: Path, job: Job | None, num_rows: int) -> list[dict[str, Any]]:
    """Return some rows of a brief, without what is empty. See `sdbatch.api.preview_brief`."""
    rows = open_brief(path, job=job).brief.preview(num_rows)
    refused = [
        Problem(shard=str(path), row=None, column=name, value=None, message=value.message, id=row["id"])
        for row in rows
        for name, value in row.items()
        if isinstance(value, RefusedValue)
    ]
    if refused:
        raise ManifestError(refused)
    return [plain_row(row) for row in rows]


def build_brief(
    path: Path, folder: Path, *, job: Job | None = None, label: str | None = None, shards: int = 1
) -> tuple[Built, tuple[Path, ...]]:
    """Write the manifest of a brief; return it and the files that it was made from.

    Raises:
        JobError, ManifestError: Naming what is wrong.
    """
    label = label or str(path)
    opened = open_brief(path, job=job, label=label)
    built = build_rows(opened.brief.rows(), folder, label=label, shards=shards)
    notes = (*opened.notes, *built.notes)
    empty = (f"{name} has no rows: its conditions hold for none" for name in opened.brief.empty_blocks)
    warnings = (*built.warnings, *(empty if built.num_rows else ()))  # a manifest without rows is told as such
    return Built(num_rows=built.num_rows, files=built.files, warnings=warnings, notes=notes), opened.files


def brief_files(path: Path, form: Form | None = None) -> Iterator[Path]:
    """Yield a brief and the files that it names.

    Raises:
        JobError: When it is no brief.
    """
    form = form or read_form(path, str(path))
    yield path
    for axis in form.axes.values():
        name = axis.table or axis.lines
        if name is not None:
            yield path.parent / name


def _shown(fed: Fed) -> FormatShown:
    enlarged = fed.enlarged
    return FormatShown(
        name=fed.format.name,
        shape=fed.shape,
        master=f"{fed.width} x {fed.height}" if fed.width else "",
        crop=f"{fed.crop:.1%}",
        enlarged="" if enlarged is None else f"{enlarged:.2f}",
    )


def _sizes(form: Form, job: Job | None, label: str, *, needs_sizes: bool) -> Sizes | None:
    if not form.formats:
        return None
    if job is None:
        if needs_sizes:
            raise JobError(f"brief {label}: its formats need the sizes of a model; name the job, as in --job job.yaml")
        return None
    name = form.columns.get("model") or job.defaults.model or (next(iter(job.models)) if len(job.models) == 1 else None)
    if not isinstance(name, str) or name not in job.models:
        raise JobError(f"brief {label}: formats need one model; name it as defaults.model of the job, not {name!r}")
    model = describe(name, job.models[name], job.storage, with_revision=False)
    defaults = {**job.defaults.model_dump(exclude_none=True), **job.models[name].defaults.model_dump(exclude_none=True)}
    return Sizes(
        family=model.family,
        width=defaults.get("width", model.width),
        height=defaults.get("height", model.height),
    )


def _table_rows(table: str, sheet: str | None, notes: list[str]) -> TableRows:
    """Yield the rows of an axis's table, each with its line."""
    if "://" in table:
        raise JobError(f"{table}: the tables of a brief lie on this machine, beside it")
    path = Path(table)
    if not path.is_file():
        raise JobError(f"{table}: no such file")
    if path.suffix.lower() == ".parquet":
        yield from _parquet_rows(path)
        return
    opened = open_table(path, sheet=sheet)
    blanks: dict[str, str] = {}
    for line, row in opened.rows(_refuse):
        for name, value in row.items():
            if isinstance(value, str) and (note := blanks_noted(name, value, line)):
                blanks.setdefault(name, note)
        yield line, row
    notes.extend(f"{path.name}: {note}" for note in (*opened.notes, *blanks.values()))


def _refuse(problem: Problem) -> None:
    raise ManifestError([problem])


def _parquet_rows(path: Path) -> Iterator[tuple[None, Mapping[str, Any]]]:
    place = path.absolute()
    footer = read_footer(LocalStore(str(place.parent)), place.name)
    if footer.metadata.num_rows > VALUES_MAX:
        raise JobError(f"{path}: {footer.metadata.num_rows} rows, over {VALUES_MAX}")
    for row in pq.read_table(str(place), use_threads=False).to_pylist():
        yield None, row
