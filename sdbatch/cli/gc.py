"""`sdbatch gc`: what nothing needs any more, listed and removed."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated

import typer

from sdbatch import api
from sdbatch.cli.options import CampaignUrl, Json, parse_age_s
from sdbatch.cli.output import guarded, say


def gc(
    output: CampaignUrl,
    delete: Annotated[bool, typer.Option("--delete", help="Remove them; without it they are listed.")] = False,
    older_than: Annotated[
        str, typer.Option(metavar="AGE", help="Files that changed more recently stay: 90s, 30m, 12h, 7d.")
    ] = "1d",
    superseded: Annotated[
        bool, typer.Option("--superseded", help="Assets of rows that were edited since go too, but for what is in use.")
    ] = False,
    delivered: Annotated[
        list[str] | None,
        typer.Option("--delivered", metavar="TARGET", help="What files there were made from stays (repeatable)."),
    ] = None,
    even_delivered: Annotated[
        bool, typer.Option("--even-delivered", help="Superseded assets go also where they were delivered.")
    ] = False,
    even_approved: Annotated[
        bool, typer.Option("--even-approved", help="Superseded assets go also where somebody approved or picked them.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Remove what no commit names: orphans, partial files, old beats. Lists them without --delete."""
    age_s = guarded(lambda: parse_age_s(older_than), as_json)
    garbage = guarded(
        lambda: api.gc(
            output,
            delete=delete,
            older_than_s=age_s,
            superseded=superseded,
            delivered=delivered or (),
            even_approved=even_approved,
            even_delivered=even_delivered,
        ),
        as_json,
    )
    word = "removed" if garbage.is_deleted else "would remove (--delete does)"
    paths = [*garbage.orphans, *garbage.superseded, *garbage.temporary, *garbage.beats]
    lines = [f"{word}: {path}" for path in paths]
    lines += [f"{number} superseded assets stay: each {why}" for why, number in sorted(garbage.kept.items())]
    lines.append(
        f"{word}: {len(paths)} files, {garbage.freed_bytes} bytes; {garbage.num_younger} younger than {older_than} stay"
    )
    say(asdict(garbage), as_json, "\n".join(lines))
