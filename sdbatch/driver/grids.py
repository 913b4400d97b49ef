"""Grids: some rows of a manifest, each rendered with every pair of values of two of its columns.

    job, axes --> opened_grid() --> rows of their own --> forecast, run --> a page and a sheet under report/grids/

A cell's id follows from its row and its values alone, so that it never moves, and its seed is the row's, so that cells
differ in nothing else. Rows of a grid are rows of the campaign, beside its manifest: nothing leaves because of them.
"""

from __future__ import annotations

import fnmatch
import hashlib
import itertools
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final

import pyarrow as pa

from sdbatch.campaign import layout
from sdbatch.campaign.effective import EffectiveRows
from sdbatch.campaign.history import History
from sdbatch.canonical import canonical
from sdbatch.driver.aside import Aside
from sdbatch.driver.forecast import PlanReport, forecast
from sdbatch.driver.grid_axes import GridAxis, parse_axis
from sdbatch.driver.one_run.records import RunResult
from sdbatch.driver.picking import Selection
from sdbatch.driver.rows.tables import ManifestHere, opened_manifest
from sdbatch.driver.run import run_job
from sdbatch.encode.sheet import Labelled, SheetSection, contact_sheet
from sdbatch.errors import JobError, ManifestError, RowError
from sdbatch.fetch.pictures import decode_image
from sdbatch.hints import did_you_mean
from sdbatch.job import Job
from sdbatch.manifest.read import RowBatch, list_shards, read_batches
from sdbatch.manifest.schema import COLUMNS
from sdbatch.manifest.spool import LINE, Spool, write_shards
from sdbatch.plan.seeds import row_seeds
from sdbatch.report.grid import GridSection, grid_page
from sdbatch.report.progress import Progress
from sdbatch.report.tables import python_rows
from sdbatch.scratch import Scratch
from sdbatch.storage import Store, joined
from sdbatch.verdicts import NO_VERDICTS

ROWS_MAX: Final = 50
"""Most rows of a manifest that one grid takes."""
CELLS_MAX: Final = 2000
PICTURE_PIXELS_MAX: Final = 200_000_000
"""Most pixels of a picture that the sheet shows; one with more is shown by its thumbnail."""
NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}")
_ID_CHARS: Final = 110
"""Characters of a row's id that stand in the ids of its cells: with ".grid-" and 12 digits, 128 in all."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Grid:
    """What a grid is to show.

    Attributes:
        x: Its columns.
        y: Its rows; None for one row.
        only: Ids of the manifest's rows, or patterns such as `mug-*`; empty for all.
        name: Folder of its page; made from the axes where it is "".
    """

    x: GridAxis
    y: GridAxis | None = None
    only: tuple[str, ...] = ()
    name: str = ""

    def __post_init__(self) -> None:
        if self.y is not None and self.x.column == self.y.column:
            raise JobError(f"--x and --y are both {self.x.column}; two columns are needed")
        if self.name and not NAME.fullmatch(self.name):
            raise JobError(f"--name {self.name[:80]}: a name has 1 to 64 letters, digits, `_` or `-`")

    @property
    def folder(self) -> str:
        """Name of the grid."""
        return self.name or "-by-".join(axis.column for axis in self.axes)

    @property
    def axes(self) -> tuple[GridAxis, ...]:
        """Its one or two axes."""
        return (self.x,) if self.y is None else (self.x, self.y)

    @property
    def num_cells(self) -> int:
        """Cells for each row of the manifest."""
        return len(self.x.values) * (len(self.y.values) if self.y else 1)


@dataclass(frozen=True, slots=True, kw_only=True)
class GridReport:
    """A grid that was made.

    Attributes:
        run: The run.
        page: URL of its page.
        sheet: URL of its sheet.
    """

    run: RunResult
    page: str
    sheet: str


@dataclass(frozen=True, slots=True, kw_only=True)
class _Cell:
    """One cell: places on both axes, and the id of its row."""

    x: int
    y: int
    id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class _OpenGrid:
    """A grid whose rows were built: its manifest, and the cells of each row by the row's id."""

    manifest: ManifestHere
    cells: Mapping[str, Sequence[_Cell]]


def grid_of(x: str, y: str | None, only: Iterable[str] = (), name: str = "") -> Grid:
    """Return the grid that the texts of a command mean.

    Raises:
        JobError: When they mean none.
    """
    columns, rows = parse_axis(x, "--x"), None if y is None else parse_axis(y, "--y")
    return Grid(x=columns, y=rows, only=tuple(only), name=name)


def plan_grid(job: Job, grid: Grid) -> PlanReport:
    """Return what a grid would make; nothing is written.

    Raises:
        UserError: With what is wrong.
    """
    with _opened(job, grid) as opened:
        return forecast(job, Selection(), built=opened.manifest)


def make_grid(
    job: Job,
    grid: Grid,
    *,
    in_process: bool,
    progress: Progress,
    accept_new_keys: bool = False,
    allow_open_ray: bool = False,
    allow_code: bool = False,
) -> GridReport:
    """Make what is missing of a grid, and show it. See `sdbatch.driver.run.run_job`.

    Raises:
        UserError, CampaignHeld: Before anything was written.
    """
    with _opened(job, grid) as opened:
        aside = Aside(
            manifest=opened.manifest,
            write=lambda store, run, history: _write(store, run, history, grid, opened.cells),
        )
        result = run_job(
            job,
            selection=Selection(),
            in_process=in_process,
            progress=progress,
            accept_new_keys=accept_new_keys,
            allow_open_ray=allow_open_ray,
            allow_code=allow_code,
            aside=aside,
        )
    page, sheet = (joined(result.output, layout.grid_file(grid.folder, name)) for name in ("index.html", "sheet.png"))
    return GridReport(run=result, page=page, sheet=sheet)


# --- rows -----------------------------------------------------------------------------------------------------------


@contextmanager
def _opened(job: Job, grid: Grid) -> Iterator[_OpenGrid]:
    """Build the rows of a grid in a folder that goes at the end."""
    with opened_manifest(job) as manifest:
        rows, own = _picked(job, manifest.url, grid)
    if len(rows) * grid.num_cells > CELLS_MAX:
        size = f"{len(rows)} rows with {grid.num_cells} cells each"
        raise JobError(f"grid {grid.folder}: {size} are over {CELLS_MAX}; name fewer rows with --only, or fewer values")
    _set_seeds(job, rows)
    scratch = Scratch("sdbatch-grid-")
    try:
        cells = _built(grid, rows, own, scratch)
        yield _OpenGrid(manifest=ManifestHere(url=str(scratch.folder / "manifest")), cells=cells)
    finally:
        scratch.close()


def _picked(job: Job, url: str, grid: Grid) -> tuple[list[dict[str, Any]], pa.Table]:
    """Return the rows of the manifest that a grid is for, and their own columns.

    Raises:
        JobError: When an id is not there, or rows are too many.
        ManifestError: When a value of such a row is refused.
    """
    rows: list[dict[str, Any]] = []
    own: list[pa.Table] = []
    ids: list[str] = []
    for shard in list_shards(url, job.storage):
        if shard.problems:
            raise ManifestError(list(shard.problems), len(shard.problems))
        for batch in read_batches(shard):
            offsets = [place for place, name in enumerate(batch.columns["id"]) if _is_named(name, grid.only)]
            _refuse_problems(batch, offsets)
            ids += [name for name in batch.columns["id"] if name]
            if len(rows) + len(offsets) > ROWS_MAX:
                raise JobError(f"grid {grid.folder}: over {ROWS_MAX} rows; name those of the grid with --only")
            rows += [{name: values[place] for name, values in batch.columns.items()} for place in offsets]
            own.append(batch.own.take(pa.array(offsets, pa.int64())))
    for wanted in grid.only:
        if not any(_is_named(row["id"], (wanted,)) for row in rows):
            hint = did_you_mean(wanted, ids)
            raise JobError(f"{wanted}: the manifest has no such id{hint and f'; {hint}'}")
    if not rows:
        raise JobError(f"grid {grid.folder}: the manifest has no row")
    return rows, pa.concat_tables(own, promote_options="default")


def _is_named(request_id: str | None, only: Sequence[str]) -> bool:
    return request_id is not None and (not only or any(fnmatch.fnmatchcase(request_id, one) for one in only))


def _refuse_problems(batch: RowBatch, offsets: Sequence[int]) -> None:
    picked = {batch.start + place for place in offsets}
    if problems := [problem for problem in batch.problems if problem.row in picked]:
        raise ManifestError(problems, len(problems))


def _set_seeds(job: Job, rows: Sequence[dict[str, Any]]) -> None:
    """Give each row the seed that it has in the manifest: a cell, whose id is another one, would derive another."""
    seeds, groups = ([row.get(name) for row in rows] for name in ("seed", "seed_group"))
    for row, seed in zip(rows, row_seeds(job.seed, [row["id"] for row in rows], seeds, groups), strict=True):
        row |= {"seed": seed, "seed_group": None, "num_outputs": 1}


def _built(grid: Grid, rows: Sequence[Mapping[str, Any]], own: pa.Table, scratch: Scratch) -> dict[str, list[_Cell]]:
    """Write the manifest of a grid; return the cells of each row."""
    cells: dict[str, list[_Cell]] = {}
    made: list[dict[str, Any]] = []
    ys: Sequence[Any] = grid.y.values if grid.y else (None,)
    for row in rows:
        for (y, y_value), (x, x_value) in itertools.product(enumerate(ys), enumerate(grid.x.values)):
            values = {grid.x.column: x_value} | ({grid.y.column: y_value} if grid.y else {})
            cell = _Cell(x=x, y=y, id=cell_id(row["id"], values))
            cells.setdefault(row["id"], []).append(cell)
            labels = {"x_grid_x": grid.x.labels[x], "x_grid_y": grid.y.labels[y] if grid.y else None}
            made.append({**row, **values, "id": cell.id, "x_grid": grid.folder, "x_grid_row": row["id"], **labels})
    names = [name for name in COLUMNS if any(row.get(name) is not None for row in made)]
    table = pa.table(
        {name: pa.array([_as_listed(name, row.get(name)) for row in made], COLUMNS[name]) for name in names}
    )
    places = pa.array([place for place in range(len(rows)) for _ in range(grid.num_cells)], pa.int64())
    marks = ("x_grid", "x_grid_row", "x_grid_x", "x_grid_y")
    for name in own.column_names:
        if name not in marks:
            table = table.append_column(name, own.column(name).take(places))
    for name in marks:
        table = table.append_column(name, pa.array([row[name] for row in made], pa.string()))
    with Spool() as spool:
        spool.add(table.append_column(LINE, pa.nulls(table.num_rows, pa.int64())))
        write_shards(spool, table.column_names, scratch.folder / "manifest", 1, f"the grid {grid.folder}")
    return cells


def _as_listed(name: str, value: Any) -> Any:
    return [value] if isinstance(value, str) and pa.types.is_list(COLUMNS[name]) else value


def cell_id(row_id: str, values: Mapping[str, Any]) -> str:
    """Return the id of a cell: from its row and its values by column, whichever axis each of them is on."""
    digest = hashlib.sha256(canonical({"id": row_id, "values": dict(values)}).encode()).hexdigest()
    return f"{row_id[:_ID_CHARS]}.grid-{digest[:12]}"


# --- what is shown --------------------------------------------------------------------------------------------------


def _write(store: Store, run: str, history: History, grid: Grid, cells: Mapping[str, Sequence[_Cell]]) -> None:
    """Write the page and the sheet of a grid."""
    found: dict[str, dict[str, Any]] = {}
    for part in EffectiveRows(store, run, history, NO_VERDICTS, layout.grid_requests_folder(run)).parts(
        thumbnails=True
    ):
        for row in (row for batch in part.to_batches(max_chunksize=CELLS_MAX) for row in python_rows(batch)):
            found.setdefault(row["id"], row)
    sections = [
        GridSection(id=request_id, cells=[(cell.x, cell.y, found.get(cell.id)) for cell in of_row])
        for request_id, of_row in cells.items()
    ]
    sides = [(axis.column, axis.labels) for axis in grid.axes]
    page = grid_page(store.url, run, grid.folder, sides[0], sides[1] if grid.y else None, sections)
    sheet = contact_sheet(
        (grid.x.column, grid.x.labels),
        (grid.y.column, grid.y.labels) if grid.y else None,
        [
            SheetSection(title=section.id, cells=(Labelled(x, y, *_picture(store, row)) for x, y, row in section.cells))
            for section in sections
        ],
    )
    store.put(layout.grid_file(grid.folder, "sheet.png"), sheet, "image/png")
    store.put(layout.grid_file(grid.folder, "index.html"), page, "text/html; charset=utf-8")


def _picture(store: Store, row: Mapping[str, Any] | None) -> tuple[Any, str]:
    """Return the picture of a cell, and what is said in its place where there is none: a clip shows its first frame."""
    if row is None:
        return None, "not made"
    if row["error_type"] or not row["asset"]:
        return None, f"{row['status']}: {row['error_type'] or ''}"
    is_picture = (row["media_type"] or "").startswith("image/")
    try:
        data = store.read(row["asset"]) if is_picture else row["thumbnail"]
        return decode_image(data or b"", row["asset"], PICTURE_PIXELS_MAX), ""
    except (FileNotFoundError, RowError):
        return None, "not readable"
