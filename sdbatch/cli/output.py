"""What commands print, and how an error becomes lines and an exit code."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import typer

from sdbatch.api import BuildReport
from sdbatch.cli.shown import show, show_json, show_table, tell
from sdbatch.cli.summary import counted, failure_lines, summary_lines
from sdbatch.driver.forecast import PlanReport
from sdbatch.driver.one_run.records import RunResult
from sdbatch.errors import ManifestError, SdbatchError
from sdbatch.local_faults import local_faults_named, temporary_folder
from sdbatch.report.progress import Lines, Progress, Terminal
from sdbatch.storage import joined

if TYPE_CHECKING:
    from sdbatch.driver.delivery.plan import DeliverReport

_MISSING_SHOWN = 10

_WHY_LEFT_OUT = {"where": "for which where does not hold", "selection": "not picked by this command"}


def progress() -> Progress:
    """Return what shows a run: a line that changes on a terminal, lines in a log."""
    return Terminal() if sys.stderr.isatty() else Lines()


def warn(lines: Iterable[str], as_json: bool) -> None:
    """Print warnings for people; in a JSON object they stand in the object."""
    if not as_json:
        for line in lines:
            tell(f"warning: {line}")


def note(lines: Iterable[str], as_json: bool) -> None:
    """Print how tables were read; in a JSON object the notes stand in the object."""
    if not as_json:
        for line in lines:
            tell(line)


WHAT_ROWS = {
    "new": "not made yet",
    "changed": "made with other settings before",
    "outputs": "made, but for some of their outputs",
    "retry": "failed before, and tried again",
    "reroll": "rejected, and replaced",
    "reused": "made already",
    "failed": "failed before; --retry-failed tries them again",
    "unselected": "left out by this command",
    "waiting": "made from outputs that are not there yet",
    "withdrawn": "taken down, or made from a source that was",
    "leaving": "no longer in the manifest; their assets stay",
}
"""What the rows of a plan are, by its words for them."""


def say_built(built: BuildReport, to: Path, as_json: bool) -> None:
    """Print what was built."""
    note(built.notes, as_json)
    warn(built.warnings, as_json)
    say(asdict(built), as_json, f"{built.rows} rows in {len(built.files)} shard(s) under {to}")


def show_plan(forecast: PlanReport) -> None:
    """Print what a run would make, and why."""
    numbers = dict(sorted(forecast.rows.items()))
    numbers |= {"leaving": forecast.rows_leaving} if forecast.rows_leaving else {}
    rows = [(reason, str(number), WHAT_ROWS.get(reason, "")) for reason, number in numbers.items()]
    show_table(rows, ("rows", "number", "which are"), "plan")
    if forecast.changed:
        show("changed in: " + ", ".join(f"{name} ({number})" for name, number in forecast.changed.items()))
    waiting = list(forecast.waiting.items())
    for url, number in waiting[:_MISSING_SHOWN]:
        show(f"waiting for {url}: {counted(number, 'row', 'rows')}")
    if len(waiting) > _MISSING_SHOWN:
        show(f"... and for {len(waiting) - _MISSING_SHOWN} more outputs")
    for url in forecast.sources_missing[:_MISSING_SHOWN]:
        show(f"missing source, its rows will fail: {url}")
    if len(forecast.sources_missing) > _MISSING_SHOWN:
        show(f"... and {len(forecast.sources_missing) - _MISSING_SHOWN} more missing sources")
    if forecast.unpinned:
        names = ", ".join(forecast.unpinned)
        show(f"unpinned, known by size and ETag: {names}; `sdbatch models pin` prints the digests")
    note(forecast.notes, False)
    warn(forecast.warnings, False)
    for memory in forecast.memory:
        show(f"{memory.model}: {memory}")
    copies = f", {forecast.copies} of them copies" if forecast.copies else ""
    show(f"{counted(forecast.assets, 'asset', 'assets')} to make{copies}")
    if forecast.assumed_gpus:
        names = ", ".join(forecast.assumed_gpus)
        show(f"num_gpus of {names} is null and counts as one GPU; where it runs on CPUs, say num_gpus: 0")


def show_delivery(report: DeliverReport) -> None:
    """Print what a delivery made, or would make."""
    rows = [(one.format, str(one.files), f"{one.crop_max:.1%}", f"{one.enlargement_max:.2f}") for one in report.formats]
    show_table(rows, ("format", "files", "cropped at most", "enlarged at most"))
    warn(report.warnings, False)
    failed = list(report.failed.items())
    for name, fault in failed[:_MISSING_SHOWN]:
        tell(f"not made: {name}: {fault}")
    if len(failed) > _MISSING_SHOWN:
        tell(f"... and {len(failed) - _MISSING_SHOWN} more, which delivered.csv names")
    if report.unsigned:
        name, fault = next(iter(report.unsigned.items()))
        tell(f"not signed: {counted(len(report.unsigned), 'file', 'files')}, such as {name}: {fault}")
    for name in report.stale[:_MISSING_SHOWN]:
        why = "an older file stays in its place" if name in report.failed else "no longer asked for"
        show(f"{why} (--prune removes it): {name}")
    if len(report.stale) > _MISSING_SHOWN:
        show(f"... and {len(report.stale) - _MISSING_SHOWN} more that are no longer asked for")
    if report.left_out:
        number = sum(report.left_out.values())
        why = ", ".join(f"{count} {_WHY_LEFT_OUT.get(name, name)}" for name, count in report.left_out.items())
        show(f"{counted(number, 'output', 'outputs')} left out: {why}")
    word = "to make" if report.state == "dry-run" else "made"
    removed = f", {len(report.removed)} removed" if report.removed else ""
    show(
        f"{report.delivery} {report.state}: {report.made} {word}, {report.current} there already, "
        f"{len(report.failed)} failed of {counted(report.files, 'file', 'files')}{removed}; {report.to}"
    )


def end_run(
    result: RunResult, accept_failed: bool, as_json: bool, spent: str = "", *, verbose: bool = False
) -> NoReturn:
    """Print how a run ended, with the line that says what it took, and exit with its code."""
    if as_json:
        say({**asdict(result), "gallery": joined(result.output, "report/index.html")}, as_json, "")
    else:
        show_run(result, spent, verbose=verbose)
        if result.state in {"done", "failed"}:
            filtered = "#f.status=failed" if result.state == "failed" else ""
            show(f"gallery: {joined(result.output, 'report/index.html')}{filtered}")
    raise typer.Exit(0 if accept_failed and result.state == "failed" else result.exit_code)


def show_run(result: RunResult, spent: str = "", *, verbose: bool = False) -> None:
    """Print how a run ended, with the line that says what it took."""
    for line in summary_lines(result, spent):
        show(line)
    if verbose:
        counts = [(name, str(number)) for name, number in result.counts.items()]
        show_table([*counts, *((f"failed: {kind}", str(number)) for kind, number in result.failures.items())])
    warn(result.warnings, False)
    for line in failure_lines(result):
        tell(line)
    if result.message:
        tell(result.message)


def guarded(call: Callable[[], Any], as_json: bool) -> Any:
    """Call a verb; an error that was raised on purpose becomes its lines and its exit code."""
    try:
        with local_faults_named(temporary_folder(), "TMPDIR"):
            return call()
    except SdbatchError as error:
        if as_json:
            problems = [asdict(problem) for problem in error.problems] if isinstance(error, ManifestError) else []
            say({"error": type(error).__name__, "message": str(error), "problems": problems}, as_json, "")
        else:
            tell(f"sdbatch: {error}")
        raise typer.Exit(error.exit_code) from error


def say(value: dict[str, Any], as_json: bool, text: str) -> None:
    """Print one JSON object, or a text for people; secrets are taken out."""
    if as_json:
        show_json(value)
    else:
        show(text)
