"""`sdbatch init`: a folder to begin with."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated

import typer

from sdbatch import api
from sdbatch.cli.options import Json
from sdbatch.cli.output import guarded, say


def init(
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="A folder that is not there yet, or an empty one.")],
    as_json: Json = False,
) -> None:
    """Write a folder to begin with: a brief, tables and pictures, a job with a tiny model, a delivery."""
    files = guarded(lambda: api.init(folder), as_json)
    lines = [
        f"wrote {len(files)} files under {folder}: {', '.join(files)}",
        f"next: cd {shlex.quote(str(folder))} && sdbatch run job.yaml && sdbatch deliver delivery.yaml",
    ]
    say({"folder": str(folder), "files": files}, as_json, "\n".join(lines))
