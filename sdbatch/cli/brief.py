"""`sdbatch brief`: how many rows, some of them, or all of them as a manifest."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from sdbatch import api
from sdbatch.cli.options import Json, Set
from sdbatch.cli.output import guarded, note, say, say_built
from sdbatch.cli.shown import show, show_table

brief_app = typer.Typer(no_args_is_help=True, help="Make many rows from a brief: axes, products, templates.")

BriefFile = Annotated[Path, typer.Argument(metavar="BRIEF", help="Brief (YAML).")]
JobOfBrief = Annotated[
    str | None, typer.Option("--job", metavar="JOB", help="Job file; its default model says what sizes formats need.")
]


@brief_app.command("count")
def brief_count(brief: BriefFile, job: JobOfBrief = None, overrides: Set = None, as_json: Json = False) -> None:
    """Count the rows without making them, and show which shape feeds which format."""
    counted = guarded(lambda: api.count_brief(brief, job, overrides or ()), as_json)
    note(counted.notes, as_json)
    if as_json:
        say(counted.as_dict(), as_json, "")
        return
    show_table([(name, str(number)) for name, number in counted.blocks.items()], ("block", "rows"), str(brief))
    if counted.formats:
        show_table(
            [(one.name, one.shape, one.master, one.crop, one.enlarged) for one in counted.formats],
            ("format", "shape", "master", "cut off", "enlarged"),
        )
    show(f"{counted.rows} rows, {counted.outputs} outputs")


@brief_app.command("preview")
def brief_preview(
    brief: BriefFile,
    rows: Annotated[int, typer.Option("--rows", min=1, max=1000, help="How many, spread over all values.")] = 5,
    job: JobOfBrief = None,
    overrides: Set = None,
    as_json: Json = False,
) -> None:
    """Show some rows as the manifest will have them, spread over all values."""
    shown = guarded(lambda: api.preview_brief(brief, rows, job, overrides or ()), as_json)
    if as_json:
        say({"rows": shown}, as_json, "")
        return
    for row in shown:
        show(str(row["id"]))
        for name, value in row.items():
            if name != "id":
                show(f"  {name}: {value}")


@brief_app.command("build")
def brief_build(
    brief: BriefFile,
    to: Annotated[Path, typer.Option("--to", help="Folder for the shards.")],
    shards: Annotated[int, typer.Option(min=1, help="Number of files.")] = 1,
    job: JobOfBrief = None,
    overrides: Set = None,
    as_json: Json = False,
) -> None:
    """Build the Parquet manifest of a brief. A job may also name the brief itself as its manifest."""
    built = guarded(lambda: api.build_brief(brief, to, job, overrides or (), shards=shards), as_json)
    say_built(built, to, as_json)
