"""`sdbatch grid`: some rows with every pair of values of two columns, as a page and a sheet."""

from __future__ import annotations

import sys
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from sdbatch import api
from sdbatch.cli.money import BudgetText, show_forecast, spent_line
from sdbatch.cli.options import (
    AcceptFailed,
    AcceptNewKeys,
    AllowCode,
    AllowOpenRay,
    Date,
    InProcess,
    JobFile,
    Json,
    Set,
)
from sdbatch.cli.output import guarded, progress, say, show_plan, show_run
from sdbatch.cli.process import last_line, prepare_generation
from sdbatch.cli.shown import show, tell

if TYPE_CHECKING:
    from sdbatch.driver.forecast import PlanReport
    from sdbatch.driver.grids import GridReport
    from sdbatch.job import Job

NOT_STARTED = 2


def grid(
    job: JobFile,
    x: Annotated[str, typer.Option("--x", metavar="COLUMN=A,B", help="Columns: guidance_scale=1,3,5.")],
    y: Annotated[str | None, typer.Option("--y", metavar="COLUMN=A,B", help="Rows: scheduler=A,B.")] = None,
    only: Annotated[
        list[str] | None, typer.Option("--only", metavar="ID_OR_GLOB", help="Rows of the manifest (repeatable).")
    ] = None,
    name: Annotated[str, typer.Option("--name", help="Folder of the page; by default the axes.")] = "",
    overrides: Set = None,
    date: Date = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show counts and cost; render nothing.")] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Render without asking.")] = False,
    budget: BudgetText = None,
    in_process: InProcess = False,
    accept_failed: AcceptFailed = False,
    accept_new_keys: AcceptNewKeys = False,
    allow_open_ray: AllowOpenRay = False,
    allow_code: AllowCode = False,
    as_json: Json = False,
) -> None:
    """Render rows with every pair of values of two columns, and show them side by side. Counts and cost come first."""

    def planned() -> tuple[Job, PlanReport]:
        checked = api.load_job(job, overrides or (), date)
        return checked, api.plan_grid(checked, x, y, only=only or (), name=name, budget=budget)

    checked, forecast = guarded(planned, as_json)
    if not as_json:
        show_plan(forecast)
        show_forecast(forecast)
    if dry_run or not (yes or forecast.assets == 0 or _is_agreed(as_json)):
        if as_json:
            say({"plan": asdict(forecast), "run": None}, as_json, "")
        elif not dry_run:
            tell("nothing was rendered; --yes renders it")
        raise typer.Exit(0 if dry_run else NOT_STARTED)

    def call() -> GridReport:
        if in_process:
            prepare_generation(is_exact=checked.determinism == "exact")
        return api.grid(
            checked,
            x,
            y,
            only=only or (),
            name=name,
            in_process=in_process,
            progress=progress(),
            accept_new_keys=accept_new_keys,
            allow_open_ray=allow_open_ray,
            allow_code=allow_code,
            budget=budget,
        )

    with last_line():
        report = guarded(call, as_json)
    if as_json:
        say({"plan": asdict(forecast), **asdict(report)}, as_json, "")
    else:
        show_run(report.run, spent_line(report.run))
        if report.run.state in {"done", "failed"}:
            show(f"page: {report.page}\nsheet: {report.sheet}")
    raise typer.Exit(0 if accept_failed and report.run.state == "failed" else report.run.exit_code)


def _is_agreed(as_json: bool) -> bool:
    """Ask, where there is somebody to ask."""
    return not as_json and sys.stdin.isatty() and typer.confirm("Render them?")
