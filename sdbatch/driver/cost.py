"""What a campaign has cost, by columns, run or model; it adds up to what the runs themselves recorded.

    every run's commits (time in the model) + its record (time of workers, price) --> campaign_cost() --> CostReport

The time of a run's workers is divided among its rows by their time in the model, each pool of workers by itself, so
that idle time, starts and loads fall on what was made meanwhile. Time that no row used stands in a line of its own.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final

import pyarrow as pa

from sdbatch.campaign.files import each_of, files_by_run, request_parts
from sdbatch.campaign.read import no_run, read_commit, read_requests
from sdbatch.campaign.schema import METADATA
from sdbatch.campaign.spending import HOUR_S, run_record
from sdbatch.errors import JobError
from sdbatch.report.progress import money
from sdbatch.storage import Store

_ROW: Final = ("id", "request_key", "n", "status", "sha256", "model", "denoise_s", "decode_s")
"""Columns that every commit is read with."""
CURRENCY: Final = "currency"
"""Column of the table where runs had prices in several."""
Output = tuple[str, str, int]
"""An output: id, request key, number."""
File = tuple[str, str, int, str]
"""An output and the sha256 of its stored file, to which a verdict is bound."""


@dataclass(slots=True)
class _Sum:
    """What a group of rows took."""

    assets: int = 0
    approved: int = 0
    model_gpu_s: float = 0.0
    worker_gpu_s: float = 0.0
    cost: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class CostReport:
    """What a campaign has cost.

    Attributes:
        by: Columns that it is told by; `currency` stands last among them where runs had prices in several.
        table: A row for each group, the costliest first: the columns of `by`, then `assets` (outputs made, each once,
            where it was made last), `approved` (of them; null without verdicts), `model_gpu_s` (seconds in the model
            times GPUs), `worker_gpu_s` (seconds of workers, idle ones too, times GPUs), `cost` (null without a price),
            `cost_per_asset`, `cost_per_approved`.
        currency: Of the money; None without a price, and where there are several, which have no sum.
        approved: Outputs that a reviewer approved; None where nobody has reviewed anything.
        notes: What a person should know of it.
    """

    by: tuple[str, ...]
    table: pa.Table
    currency: str | None
    approved: int | None
    notes: list[str] = field(default_factory=list)

    def total(self) -> dict[str, Any]:
        """Return the sum over all groups."""
        columns = {name: self.table.column(name).to_pylist() for name in self.table.column_names}
        total = _Sum(
            assets=sum(columns["assets"]),
            approved=sum(filter(None, columns["approved"])),
            model_gpu_s=sum(columns["model_gpu_s"]),
            worker_gpu_s=sum(columns["worker_gpu_s"]),
            cost=sum(filter(None, columns["cost"])),
        )
        return _values(total, has_money=self.currency is not None, has_verdicts=self.approved is not None)

    def as_dict(self) -> dict[str, Any]:
        """Return everything but the table, as plain values."""
        return {
            "by": list(self.by),
            "currency": self.currency,
            "approved": self.approved,
            "total": self.total(),
            "notes": self.notes,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class _Pool:
    """The slots of one shape, of one run."""

    models: frozenset[str]
    gpus: float
    gpu_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class _Run:
    """One run as it is counted."""

    id: str
    pools: tuple[_Pool, ...]
    price: float | None
    currency: str | None
    is_recorded: bool

    def pool_of(self, model: str) -> int | None:
        """Return the place of the pool that a model's workers were of."""
        return next((place for place, pool in enumerate(self.pools) if model in pool.models), None)


def campaign_cost(
    store: Store, by: Sequence[str] = (), approved: Callable[[], Collection[File] | None] = lambda: None
) -> CostReport:
    """Return what a campaign has cost.

    Args:
        store: The campaign.
        by: Columns of the metadata, or x_* of the manifest; `run` is a row's run.
        approved: Returns the files that reviewers approved or picked; None where nobody has reviewed anything.

    Raises:
        JobError: When the campaign has no run, or rows have no such column.
        UserError: When a commit or a record cannot be read.
    """
    runs = files_by_run(store)
    if not runs:
        raise no_run(store)
    names = tuple("run_id" if name == "run" else name for name in by)
    own = _own_columns(store, [files.run for files in runs], [name for name in names if name.startswith("x_")])
    for name in names:
        if not name.startswith("x_") and name not in METADATA.names:
            raise JobError(f"--by {name}: the metadata has no such column; there are run, model, task, x_*, ...")
    columns = list(dict.fromkeys([*_ROW, *(name for name in names if not name.startswith("x_"))]))
    counted = [run for files in runs if (run := _run_of(store, files.run)) is not None]
    currencies = sorted({run.currency for run in counted if run.currency})
    unpriced = _priced_as_the_newest(counted)
    if is_mixed := len(currencies) > 1:
        by, names = (*by, CURRENCY), (*names, CURRENCY)
    verdicts = approved()
    sums: defaultdict[tuple[Any, ...], _Sum] = defaultdict(_Sum)
    made: dict[Output, tuple[tuple[Any, ...], str]] = {}
    commits = {files.run: files.commits for files in runs}
    for run in counted:
        tables = list(each_of(lambda path: read_commit(store, path, columns), commits[run.id]))
        rows = _Rows(pa.concat_tables(tables) if tables else METADATA.empty_table().select(columns))
        groups = list(rows.groups(names, own, {CURRENCY: run.currency} if is_mixed else {}))
        made.update(
            (file[:3], (group, file[3])) for file, group in zip(rows.files(), groups, strict=True) if file is not None
        )
        _add_times(run, rows, groups, names, sums)
    for output, (group, sha256) in made.items():
        sums[group].assets += 1
        sums[group].approved += bool(verdicts and (*output, sha256) in verdicts)
    unrecorded = sum(not run.is_recorded for run in counted)
    notes = [unpriced] if unpriced else []
    if is_mixed:
        notes.append(f"runs had prices in {' and '.join(currencies)}, which do not add up to a sum")
    if unrecorded:
        notes.append(
            f"{unrecorded} run(s) of an older sdbatch did not record the time of their workers; their time in the "
            "model stands for it"
        )
    return CostReport(
        by=tuple(by),
        table=_table(by, sums, has_money=bool(currencies), has_verdicts=verdicts is not None),
        currency=currencies[0] if len(currencies) == 1 else None,
        approved=None if verdicts is None else sum(one.approved for one in sums.values()),
        notes=notes,
    )


def _run_of(store: Store, run: str) -> _Run | None:
    """Return a run's slots and price; None for one that never asked for a worker."""
    record = run_record(store, run)
    if record is None:
        return None
    prices = record.get("prices") or {}
    spending = record.get("spending")
    pools = tuple(
        _Pool(models=frozenset(slot["models"]), gpus=slot["gpus"], gpu_s=slot["gpu_s"])
        for slot in (spending["slots"] if spending else ())
    )
    return _Run(
        id=run,
        pools=pools,
        price=prices.get("gpu_hour"),
        currency=prices.get("currency"),
        is_recorded=spending is not None,
    )


def _priced_as_the_newest(runs: list[_Run]) -> str:
    """Give runs without a price the newest one, where there is any; return what a person should know of it."""
    newest = next((run for run in reversed(runs) if run.price is not None), None)
    lacking = [place for place, run in enumerate(runs) if run.price is None]
    if newest is None or newest.price is None or newest.currency is None or not lacking:
        return ""
    for place in lacking:
        runs[place] = replace(runs[place], price=newest.price, currency=newest.currency)
    price = money(newest.price, newest.currency)
    return f"{len(lacking)} run(s) had no price; their time counts at {price} a GPU hour, which {newest.id} had"


class _Rows:
    """The rows of a run's commits, by columns.

    Args:
        table: With the columns `_ROW` at least.
    """

    def __init__(self, table: pa.Table) -> None:
        self._table = table
        self.models: list[str | None] = table.column("model").to_pylist()
        parts = (table.column(name).to_pylist() for name in ("denoise_s", "decode_s"))
        self.model_s = [(denoise_s or 0.0) + (decode_s or 0.0) for denoise_s, decode_s in zip(*parts, strict=True)]

    def groups(self, names: Sequence[str], own: _OwnColumns, of_run: Mapping[str, Any]) -> Iterator[tuple[Any, ...]]:
        """Yield the values of each row; those of its run are the same for all."""
        ids = self._table.column("id").to_pylist()

        def values(name: str) -> Iterable[Any]:
            if name in of_run:
                return [of_run[name]] * len(ids)
            if name in own:
                return [own.of(request_id, name) for request_id in ids]
            return list(self._table.column(name).to_pylist())

        columns = [values(name) for name in names]
        return iter(zip(*columns, strict=True)) if columns else iter([()] * len(ids))

    def files(self) -> Iterator[File | None]:
        """Yield the file that each row made; None where it made none."""
        columns = (self._table.column(name).to_pylist() for name in ("id", "request_key", "n", "sha256", "status"))
        for *file, status in zip(*columns, strict=True):
            yield (file[0], file[1], file[2], file[3]) if status == "ok" else None


def _add_times(
    run: _Run,
    rows: _Rows,
    groups: Sequence[tuple[Any, ...]],
    names: Sequence[str],
    sums: defaultdict[tuple[Any, ...], _Sum],
) -> None:
    """Add a run's time in the model to the groups of its rows, and the time of its workers by that."""
    pool_of = {model: run.pool_of(model) for model in set(rows.models) if model is not None}
    places = [pool_of.get(model or "") for model in rows.models]
    totals: defaultdict[int | None, float] = defaultdict(float)
    for place, seconds in zip(places, rows.model_s, strict=True):
        totals[place] += seconds
    for group, place, seconds in zip(groups, places, rows.model_s, strict=True):
        pool = None if place is None else run.pools[place]
        own = sums[group]
        own.model_gpu_s += seconds * (pool.gpus if pool else 1.0)
        if pool is None:
            _add_worker_time(own, seconds, run)  # a run of an older version: at least this
        elif totals[place]:
            _add_worker_time(own, pool.gpu_s * seconds / totals[place], run)
    unused = sum(pool.gpu_s for place, pool in enumerate(run.pools) if not totals[place])
    if unused:
        nothing = tuple(map({"run_id": run.id, CURRENCY: run.currency}.get, names))
        _add_worker_time(sums[nothing], unused, run)


def _add_worker_time(own: _Sum, gpu_s: float, run: _Run) -> None:
    own.worker_gpu_s += gpu_s
    own.cost += gpu_s / HOUR_S * (run.price or 0.0)


class _OwnColumns:
    """The x_* columns of ids, as the newest manifest that has an id says."""

    def __init__(self) -> None:
        self._values: dict[str, dict[str, Any]] = {}
        self._names: set[str] = set()

    def __contains__(self, name: str) -> bool:
        return name in self._names

    def add(self, table: pa.Table, names: Sequence[str]) -> None:
        """Add a part of a manifest; ids that are known keep what they have."""
        found = [name for name in names if name in table.column_names]
        self._names.update(found)
        columns = [table.column(name).to_pylist() for name in found]
        for request_id, *values in zip(table.column("id").to_pylist(), *columns, strict=True):
            self._values.setdefault(request_id, dict(zip(found, values, strict=True)))

    def of(self, request_id: str, name: str) -> Any:
        """Return a value of an id."""
        return self._values.get(request_id, {}).get(name)


def _own_columns(store: Store, runs: Sequence[str], names: Sequence[str]) -> _OwnColumns:
    own = _OwnColumns()
    if not names:
        return own
    for run in reversed(runs):
        for path in request_parts(store, run, with_grid=True):
            own.add(read_requests(store, path), names)
    for name in names:
        if name not in own:
            raise JobError(f"--by {name}: no manifest of the campaign has such a column")
    return own


def _values(one: _Sum, *, has_money: bool, has_verdicts: bool) -> dict[str, Any]:
    cost = one.cost if has_money else None
    return {
        "assets": one.assets,
        "approved": one.approved if has_verdicts else None,
        "model_gpu_s": one.model_gpu_s,
        "worker_gpu_s": one.worker_gpu_s,
        "cost": cost,
        "cost_per_asset": cost / one.assets if cost is not None and one.assets else None,
        "cost_per_approved": cost / one.approved if cost is not None and one.approved else None,
    }


def _table(by: Sequence[str], sums: Mapping[tuple[Any, ...], _Sum], *, has_money: bool, has_verdicts: bool) -> pa.Table:
    groups = sorted(sums.items(), key=lambda item: (-item[1].worker_gpu_s, str(item[0])))
    columns: dict[str, Any] = {name: [values[place] for values, _ in groups] for place, name in enumerate(by)}
    values = [_values(one, has_money=has_money, has_verdicts=has_verdicts) for _, one in groups]
    for name, kind in _SUMMED.items():
        columns[name] = pa.array([value[name] for value in values], kind)
    return pa.table(columns)


_SUMMED: Final = {
    "assets": pa.int64(),
    "approved": pa.int64(),
    "model_gpu_s": pa.float64(),
    "worker_gpu_s": pa.float64(),
    "cost": pa.float64(),
    "cost_per_asset": pa.float64(),
    "cost_per_approved": pa.float64(),
}
