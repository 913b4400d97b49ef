"""What commands print, and how an error becomes lines and an exit code."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterable
from dataclasses import asdict
from pathlib import Path
from typing import Any, NoReturn

import typer
from rich.console import Console
from rich.table import Table

from sdbatch.driver import PlanReport, RunResult
from sdbatch.errors import JobError, ManifestError, SdbatchError
from sdbatch.logs import redacted
from sdbatch.report.progress import Lines, Progress, Terminal, duration
from sdbatch.storage import joined

_MISSING_SHOWN = 10


def write_table(table: Any, path: Path) -> None:
    """Write rows as one Parquet file."""
    import pyarrow.parquet as pq

    try:
        pq.write_table(table, path, compression="zstd")
    except OSError as error:
        raise JobError(f"--to {path}: {error.strerror or error}") from error


def counted(number: int, singular: str, plural: str) -> str:
    """Return a number with its noun."""
    return f"{number} {singular if number == 1 else plural}"


def progress() -> Progress:
    """Return what shows a run: a line that changes on a terminal, lines in a log."""
    return Terminal() if sys.stderr.isatty() else Lines()


def warn(lines: Iterable[str], as_json: bool) -> None:
    """Print warnings for people; in a JSON object they stand in the object."""
    if not as_json:
        for line in lines:
            print(redacted(f"warning: {line}"), file=sys.stderr)


def show_plan(forecast: PlanReport) -> None:
    """Print what a run would make, and why."""
    table = Table("rows", "number", title="plan", title_justify="left")
    for reason, number in sorted(forecast.rows.items()):
        table.add_row(reason, str(number))
    if forecast.rows_leaving:
        table.add_row("leaving", str(forecast.rows_leaving))
    Console().print(table)
    if forecast.changed:
        print("changed in: " + ", ".join(f"{name} ({number})" for name, number in forecast.changed.items()))
    for url in forecast.sources_missing[:_MISSING_SHOWN]:
        print(redacted(f"missing source, its rows will fail: {url}"))
    if len(forecast.sources_missing) > _MISSING_SHOWN:
        print(f"... and {len(forecast.sources_missing) - _MISSING_SHOWN} more missing sources")
    if forecast.unpinned:
        names = ", ".join(forecast.unpinned)
        print(f"unpinned, known by size and ETag: {names}; `sdbatch models pin` prints the digests")
    warn(forecast.warnings, False)
    basis = "measured here" if forecast.rate_measured else "assumed rate"
    wall = "" if forecast.predicted_wall_s is None else f", {duration(forecast.predicted_wall_s)} on the clock"
    print(f"{forecast.assets} assets to make, about {duration(forecast.predicted_gpu_s)} in the model{wall} ({basis})")
    if forecast.assumed_gpus:
        names = ", ".join(forecast.assumed_gpus)
        print(f"num_gpus of {names} is null and counts as one GPU; where it runs on CPUs, say num_gpus: 0")


def end_run(result: RunResult, accept_failed: bool, as_json: bool) -> NoReturn:
    """Print how a run ended and exit with its code."""
    if as_json:
        say({**asdict(result), "gallery": joined(result.output, "report/index.html")}, as_json, "")
    else:
        _summary(result)
    raise typer.Exit(0 if accept_failed and result.state == "failed" else result.exit_code)


def _summary(result: RunResult) -> None:
    print(f"{result.run_id} {result.state}")
    table = Table(show_header=False)
    for name, number in result.counts.items():
        table.add_row(name, str(number))
    for kind, number in result.failures.items():
        table.add_row(f"failed: {kind}", str(number))
    Console().print(table)
    warn(result.warnings, False)
    if result.message:
        print(redacted(result.message), file=sys.stderr)
    if result.state in {"done", "failed"}:
        filtered = "#status=failed" if result.state == "failed" else ""
        print(f"gallery: {joined(result.output, 'report/index.html')}{filtered}")


def guarded(call: Callable[[], Any], as_json: bool) -> Any:
    """Call a verb; an error that was raised on purpose becomes its lines and its exit code."""
    try:
        return call()
    except SdbatchError as error:
        if as_json:
            problems = [asdict(problem) for problem in error.problems] if isinstance(error, ManifestError) else []
            say({"error": type(error).__name__, "message": str(error), "problems": problems}, as_json, "")
        else:
            print(redacted(f"sdbatch: {error}"), file=sys.stderr)
        raise typer.Exit(error.exit_code) from error


def say(value: dict[str, Any], as_json: bool, text: str) -> None:
    """Print one JSON object, or a text for people; secrets are taken out."""
    print(redacted(json.dumps(value, ensure_ascii=False, default=str) if as_json else text))
