"""`sdbatch status`, `runs` and `failures`: what a person looks at between and during runs."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterable, Iterator
from itertools import takewhile
from typing import Annotated, Any

import typer

from sdbatch import api
from sdbatch.cli.completing import failure_classes
from sdbatch.cli.options import CampaignUrl, Json, Only, OnlyFrom, Where, selection_of
from sdbatch.cli.output import guarded, say
from sdbatch.cli.shown import show, show_in_place, show_table
from sdbatch.cli.streams import is_read
from sdbatch.cli.summary import failure_line, status_lines, watch_line
from sdbatch.report.progress import duration

watching_app = typer.Typer(no_args_is_help=True)

INTERRUPTED = 130


@watching_app.command()
def status(
    output: CampaignUrl,
    watch: Annotated[bool, typer.Option("--watch", help="Go on until the run has ended.")] = False,
    as_json: Json = False,
) -> None:
    """Show where a campaign and its newest run stand. Needs no Ray."""
    if watch:
        guarded(lambda: _watch(output, as_json), as_json)
        return
    latest = guarded(lambda: api.status(output), as_json)
    say(latest, as_json, "\n".join(status_lines(latest)))


def _watch(output: str, as_json: bool) -> None:
    """Show a run until it has ended: one line in its place on a terminal, else a line whenever something changed."""
    in_place = sys.stdout.isatty() and not as_json
    try:
        if in_place:
            for latest in takewhile(lambda _: is_read(), api.watch(output)):
                show_in_place(watch_line(latest))
        else:
            for latest in takewhile(lambda _: is_read(), news(api.watch(output))):
                say(latest, as_json, watch_line(latest))
    except KeyboardInterrupt as error:
        raise typer.Exit(INTERRUPTED) from error
    finally:
        if in_place:
            show("")


def news(looks: Iterable[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """Yield those looks at a run that tell something other than the time and what follows from it."""
    before: Any = None
    for latest in looks:
        told = [latest.get(name) for name in ("run_id", "state", "counts", "campaign", "workers", "waits_for")]
        if told != before:
            yield latest
        before = told


@watching_app.command()
def runs(
    output: CampaignUrl,
    limit: Annotated[int, typer.Option("--limit", min=1, help="The newest so many.")] = 20,
    every: Annotated[bool, typer.Option("--all", help="All of them.")] = False,
    as_json: Json = False,
) -> None:
    """List the runs of a campaign, the newest first, with what each made."""
    found = guarded(lambda: api.runs(output, None if every else limit), as_json)
    if as_json:
        say({"runs": found}, as_json, "")
        return
    headers = ("run", "state", "began (UTC)", "took", "made", "kept", "failed", "copied")
    show_table([_run_cells(run) for run in found], headers)
    if len(found) == limit and not every:
        show(f"the newest {limit} runs; --all lists all of them")


def _run_cells(run: dict[str, Any]) -> tuple[str, ...]:
    counts = run["counts"] or {}
    took = "" if run["wall_s"] is None else duration(run["wall_s"])
    numbers = (str(counts.get(name, "")) for name in ("rows_ok", "rows_reused", "rows_failed", "assets_copied"))
    began = (run["started_at"] or "")[:16].replace("T", " ")
    return (run["run_id"].partition("-")[0], run["state"] or "", began, took, *numbers)


@watching_app.command()
def failures(
    output: CampaignUrl,
    error_class: Annotated[
        str | None, typer.Option("--class", metavar="CLASS", help="Only this class.", autocompletion=failure_classes)
    ] = None,
    only: Only = None,
    only_from: OnlyFrom = None,
    where: Where = None,
    limit: Annotated[int, typer.Option("--limit", min=0, help="Show so many; their number is of all.")] = 50,
    as_json: Json = False,
) -> None:
    """List what failed and is not made: id, class, message, attempts, and how many there are of each class."""
    table = guarded(lambda: api.failures(output, selection_of(only, only_from, where), error_class), as_json)
    classes = Counter(table.column("error_type").to_pylist())
    by_class = {str(name): number for name, number in classes.most_common()}
    if as_json:
        say({"failures": table.to_pylist(), "by_class": by_class, "total": table.num_rows}, as_json, "")
        return
    for failure in table.slice(0, limit).to_pylist():
        attempts = failure["attempts"] or 1
        show(failure_line(failure) + (f" ({attempts} attempts)" if attempts > 1 else ""))
    if table.num_rows > limit:
        show(f"... and {table.num_rows - limit} more; --limit shows more of them, --json all")
    words = ", ".join(f"{number} {name}" for name, number in by_class.items())
    show(f"{table.num_rows} failed: {words}" if by_class else "nothing failed")
