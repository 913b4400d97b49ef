"""What a campaign will cost and did, in words: lines of `plan`, the summary's line, and the command `cost`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any

import typer

from sdbatch import api
from sdbatch.cli.options import CampaignUrl, Json
from sdbatch.cli.output import guarded, say
from sdbatch.cli.shown import show, show_table
from sdbatch.cli.summary import counted
from sdbatch.driver.cost import CURRENCY
from sdbatch.driver.forecast import PlanReport
from sdbatch.driver.one_run.records import RunResult
from sdbatch.driver.predicted.costs import WorkForecast
from sdbatch.report.progress import duration, hours, money

By = Annotated[
    str | None, typer.Option("--by", metavar="COLUMN,...", help="Tell it by these columns, such as x_product,task.")
]

BudgetText = Annotated[
    str | None,
    typer.Option(
        "--budget",
        metavar="AMOUNT",
        help="Stop before so much is spent (exit 6): 12.50, 12.50EUR, 3gpu_hours, 40EUR/day. Over the job's own limit.",
    ),
]

_SHOWN = 20


def columns_of(text: str | None) -> list[str]:
    """Return the columns that `--by` names."""
    return [name.strip() for name in (text or "").split(",") if name.strip()]


def forecast_lines(forecast: PlanReport) -> list[str]:
    """Return what a run would take, as lines for a person."""
    lines = []
    basis = forecast.basis
    shares = (
        ("measured on outputs of the same shape", basis.get("measured", 0.0)),
        ("by the model's speed at other sizes and steps", basis.get("rate", 0.0)),
        ("assumed, as nothing like it was measured yet", basis.get("assumed", 0.0)),
    )
    if forecast.predicted_gpu_s:
        told = ", ".join(f"{share:.0%} {word}" for word, share in shares if share)
        cost = _cost(forecast.gpu_hours * 3600, forecast)
        lines.append(f"time in the model: {hours(forecast.gpu_hours)}{cost} ({told})")
    for wall in forecast.walls:
        loads = counted(wall.model_loads, "model load", "model loads")
        cost = "" if wall.cost is None else f", {money(wall.cost, forecast.currency or '')}"
        workers = counted(wall.workers, "worker", "workers")
        taken = f"{hours(wall.slot_gpu_s / 3600)} of workers"
        lines.append(f"on {workers}: {duration(wall.wall_s)} by the clock, {taken}{cost}, {loads}")
    devices = ", ".join(f"{name} on {device}" for name, device in sorted(forecast.devices.items()))
    if devices:
        lines.append(f"measured: {devices}")
    return [*lines, *forecast.budget]


def show_forecast(forecast: PlanReport) -> None:
    """Print what a run would take: the lines, and tables by model, task and columns where there is more than one."""
    for told in (forecast.by_model, forecast.by_task, forecast.by):
        if len(told) > 1 or (told and told is forecast.by):
            _show_work(told, forecast)
    for line in forecast_lines(forecast):
        show(line)


def _show_work(told: Sequence[WorkForecast], forecast: PlanReport) -> None:
    names = list(dict.fromkeys(name for one in told for name in one.values))
    rows = [
        (
            *(_shown(one.values.get(name)) for name in names),
            str(one.assets),
            hours(one.gpu_s / 3600),
            *(() if one.cost is None else (money(one.cost, forecast.currency or ""),)),
            f"{one.measured:.0%}",
        )
        for one in told[:_SHOWN]
    ]
    money_header = ("money",) if told[0].cost is not None else ()
    show_table(rows, (*names, "assets", "in the model", *money_header, "measured"))
    if len(told) > _SHOWN:
        show(f"... and {len(told) - _SHOWN} more (--json gives them)")


def _cost(gpu_s: float, forecast: PlanReport) -> str:
    """Return what some seconds cost, as the forecast's own work is priced."""
    priced = [one for one in forecast.by_model if one.cost is not None and one.gpu_s]
    if not priced or priced[0].cost is None:
        return ""
    return f", {money(gpu_s * priced[0].cost / priced[0].gpu_s, forecast.currency or '')}"


def spent_line(result: RunResult) -> str:
    """Return the line of a run's summary that says what it took; "" where no worker was there."""
    if not result.gpu_hours:
        return ""
    cost = "" if result.cost is None else f", {money(result.cost, result.currency or '')}"
    is_assumed = result.forecast.get("basis", {}).get("assumed") == 1.0
    told = "".join(
        f"; {name}: {duration(model['actual_s'])} in the model" + ("" if is_assumed else _compared(model))
        for name, model in result.forecast.get("models", {}).items()
    )
    first = "; no forecast, as nothing was measured before" if told and is_assumed else ""
    return f"workers took {hours(result.gpu_hours)}{cost}{told}{first}"


def _compared(model: Mapping[str, Any]) -> str:
    off = "" if model["error"] is None else f" ({_off(model['error'])})"
    return f", {duration(model['forecast_s'])} were forecast{off}"


def _off(error: float) -> str:
    """Return in words how far a forecast was from what a run took: forecast over actual, less 1."""
    return f"{abs(error):.0%} too {'low' if error < 0 else 'high'}"


def _shown(value: Any) -> str:
    return "" if value is None else str(value)


def cost(
    output: CampaignUrl,
    by: By = None,
    as_json: Json = False,
) -> None:
    """Show what a campaign has cost: model time, worker time with idle, money, per asset and per approved one."""
    report = guarded(lambda: api.cost(output, columns_of(by)), as_json)
    if as_json:
        say({**report.as_dict(), "rows": report.table.to_pylist()}, as_json, "")
        return
    names = [name for name in report.table.column_names if name in report.by]
    rows = report.table.to_pylist()
    has_money = report.currency is not None or CURRENCY in report.by
    has_verdicts = report.approved is not None
    headers = ["assets", "in the model", "of workers"]
    headers += ["money", "per asset"] if has_money else ["per asset"]
    headers += ["approved", "per approved"] if has_verdicts else []

    def cells(row: dict[str, Any]) -> list[str]:
        currency = report.currency or row.get(CURRENCY)
        per = [row["cost_per_asset"], row["cost_per_approved"]] if has_money else [None, None]
        found = [str(row["assets"]), hours(row["model_gpu_s"] / 3600), hours(row["worker_gpu_s"] / 3600)]
        if has_money:
            found += [_money(row["cost"], currency), _money(per[0], currency)]
        else:
            found += [hours(row["worker_gpu_s"] / row["assets"] / 3600) if row["assets"] else ""]
        if has_verdicts:
            found += [str(row["approved"]), _money(per[1], currency)]
        return found

    total = report.total()
    lines = [[*(_told(name, row[name]) for name in names), *cells(row)] for row in rows[:_SHOWN]]
    if names:
        lines.append(["all", *[""] * (len(names) - 1), *cells(total)])
    else:
        lines = [cells(total)]
    show_table(lines, (*names, *headers))
    if len(rows) > _SHOWN:
        show(f"... and {len(rows) - _SHOWN} more rows (--json gives them)")
    for note in report.notes:
        show(note)


def _told(name: str, value: Any) -> str:
    """Return a value of a column; a run is told by its number, as `sdbatch runs` tells it."""
    return _shown(value).partition("-")[0] if name in {"run", "run_id"} else _shown(value)


def _money(amount: float | None, currency: str | None) -> str:
    return "" if amount is None or currency is None else money(amount, currency)
