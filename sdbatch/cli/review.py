"""`sdbatch review`: the gallery in a browser, or decisions from a file or the command line itself."""

from __future__ import annotations

import webbrowser
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sdbatch import api
from sdbatch.cli.options import CampaignUrl, Json, Only, OnlyFrom, Per, Sample, Where, selection_of
from sdbatch.cli.output import guarded, say, warn
from sdbatch.cli.shown import show, show_table, tell
from sdbatch.cli.summary import counted
from sdbatch.driver.picking import Selection
from sdbatch.errors import JobError

if TYPE_CHECKING:
    from sdbatch.driver.review import Review, ReviewReport

ROWS_SHOWN = 20
_MEANT = "ID, 'GLOB' or ID/N"
Meant = list[str] | None


def review(
    output: CampaignUrl,
    approve: Annotated[Meant, typer.Option(metavar=_MEANT, help="Approve these outputs (repeatable).")] = None,
    reject: Annotated[Meant, typer.Option(metavar=_MEANT, help="Reject them: run --reroll replaces them.")] = None,
    pick: Annotated[Meant, typer.Option(metavar="ID/N", help="Pick one output of a row: it alone is wanted.")] = None,
    clear: Annotated[Meant, typer.Option(metavar=_MEANT, help="Take back what you said of them.")] = None,
    note: Annotated[str, typer.Option(metavar="TEXT", help="Write this beside every decision of this command.")] = "",
    decisions: Annotated[
        Path | None,
        typer.Option("--import", metavar="FILE.jsonl", help="Take in decisions downloaded from a gallery."),
    ] = None,
    by: Annotated[str | None, typer.Option(metavar="NAME", help="Who decides; your user name by default.")] = None,
    listed: Annotated[bool, typer.Option("--list", help="Show what people decided.")] = False,
    only: Only = None,
    only_from: OnlyFrom = None,
    where: Where = None,
    sample: Sample = None,
    per: Per = None,
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port of the server; any that is free by default.")] = 0,
    no_browser: Annotated[bool, typer.Option("--no-browser", help="Print the address; open no browser.")] = False,
    as_json: Json = False,
) -> None:
    """Look at a campaign's gallery in a browser and decide; or decide here, or take in a file of decisions."""
    selection = guarded(lambda: selection_of(only, only_from, where, sample, per), as_json)
    is_here = listed or decisions is not None or note or any((approve, reject, pick, clear))
    if not is_here:
        saved = guarded(lambda: _served(output, selection, by, port, not no_browser), as_json)
        say({"saved": saved}, as_json, f"{counted(saved, 'decision', 'decisions')} saved")
        return
    report = guarded(
        lambda: api.review(
            output,
            approve=approve or (),
            reject=reject or (),
            pick=pick or (),
            clear=clear or (),
            note=note,
            by=by,
            decisions=decisions,
            selection=selection,
        ),
        as_json,
    )
    if as_json:
        say(asdict(report), as_json, "")
    else:
        _show(report, listed)


def _served(output: str, selection: Selection, by: str | None, port: int, opens_browser: bool) -> int:
    if not selection.is_of_all:
        raise JobError(
            "review: --only, --where and the like go with --list or --approve; in the browser the gallery filters"
        )

    def opened(address: str) -> None:
        tell(f"the gallery is at {address}\nit answers this machine alone; Ctrl-C ends it")
        if opens_browser:
            webbrowser.open(address)

    return api.serve_review(output, by=by, port=port, say=tell, opened=opened)


def _show(report: ReviewReport, listed: bool) -> None:
    if listed:
        _table(report.decisions, "decisions")
    _table(report.stale, "stale: another file is stored now, so these do not count")
    warn(report.picks, False)
    verdicts = ", ".join(f"{number} {verdict}" for verdict, number in report.verdicts.items()) or "none"
    if report.unknown:
        show(f"{counted(report.unknown, 'decision', 'decisions')} on outputs that are not shown any more")
    show(f"{counted(report.saved, 'decision', 'decisions')} added; outputs: {verdicts}")


def _table(reviews: list[Review], title: str) -> None:
    rows = [(f"{one.id}/{one.n}", one.verdict, one.by, one.at, one.note) for one in reviews[:ROWS_SHOWN]]
    if rows:
        show_table(rows, ("output", "verdict", "by", "at", "note"), title)
    if len(reviews) > ROWS_SHOWN:
        show(f"... and {len(reviews) - ROWS_SHOWN} more (--json gives all)")
