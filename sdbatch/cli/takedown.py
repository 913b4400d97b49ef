"""`sdbatch takedown`: what was made from a source, or picked by an expression, listed and removed for good."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from sdbatch import api
from sdbatch.cli.options import CampaignUrl, Json
from sdbatch.cli.output import guarded, say, warn
from sdbatch.cli.shown import show
from sdbatch.cli.summary import counted

if TYPE_CHECKING:
    from sdbatch.driver.takedown import TakedownReport

_IDS_SHOWN = 20


def takedown(
    output: CampaignUrl,
    source: Annotated[
        list[str] | None,
        typer.Option("--source", metavar="URL|DIGEST", help="What was made from this source (repeatable)."),
    ] = None,
    where: Annotated[
        str | None,
        typer.Option("--where", metavar="EXPR", help="Outputs for which this holds, as in \"x_artist == 'A'\"."),
    ] = None,
    delivered: Annotated[
        list[str] | None,
        typer.Option("--delivered", metavar="TARGET", help="Remove what was delivered there too (repeatable)."),
    ] = None,
    note: Annotated[str, typer.Option("--note", help="Why, for the record.")] = "",
    by: Annotated[
        str | None, typer.Option("--by", metavar="NAME", help="Who takes it down; the user by default.")
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", help="Remove it for good; without it all of it is listed.")] = False,
    as_json: Json = False,
) -> None:
    """Take down what was made from a source whose rights were withdrawn. Lists it without --yes."""
    found = guarded(
        lambda: api.takedown(output, source or (), where=where, delivered=delivered or (), by=by, note=note, yes=yes),
        as_json,
    )
    if as_json:
        say(asdict(found), as_json, "")
    else:
        _show(found)


def _show(found: TakedownReport) -> None:
    word = "removed" if found.is_removed else "would remove (--yes does)"
    there = set(found.assets)
    for one in found.outputs:
        state = "" if one.asset in there else " (no longer there)"
        show(f"{word}: {one.asset}{state}: {one.why}")
    for path in [*found.credentials, *found.grids]:
        show(f"{word}: {path}")
    for target, names in found.delivered.items():
        for name in names:
            show(f"{word}: {target}: {name}")
    for source in [*found.urls, *found.digests]:
        show(f"withdrawn source: {source}")
    ids = ", ".join(found.ids[:_IDS_SHOWN]) + (", ..." if len(found.ids) > _IDS_SHOWN else "")
    show(f"{counted(len(found.ids), 'row', 'rows')}{': ' if ids else ''}{ids}; their metadata stay as history")
    num_delivered = sum(map(len, found.delivered.values()))
    show(
        f"{word}: {counted(len(found.assets), 'asset', 'assets')} ({found.asset_bytes} bytes), "
        f"{counted(found.thumbnails, 'thumbnail', 'thumbnails')}, "
        f"{counted(num_delivered, 'delivered file', 'delivered files')}"
        + (f"; {found.withdrawn_before} outputs were taken down before" if found.withdrawn_before else "")
    )
    warn(found.warnings, False)
