"""What commands print, and how an error becomes lines and an exit code."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from dataclasses import asdict
from typing import Any, NoReturn

import typer
from rich.console import Console
from rich.table import Table

from sdbatch.driver import RunResult
from sdbatch.errors import ManifestError, SdbatchError
from sdbatch.logs import redacted
from sdbatch.report.progress import Lines, Progress, Terminal
from sdbatch.storage import joined


def counted(number: int, singular: str, plural: str) -> str:
    """Return a number with its noun."""
    return f"{number} {singular if number == 1 else plural}"


def progress() -> Progress:
    """Return what shows a run: a line that changes on a terminal, lines in a log."""
    return Terminal() if sys.stderr.isatty() else Lines()


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
    for warning in result.warnings:
        print(redacted(f"warning: {warning}"), file=sys.stderr)
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
