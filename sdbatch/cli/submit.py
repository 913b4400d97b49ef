"""`sdbatch submit`: a job on a cluster, through Ray's job server."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sdbatch import api
from sdbatch.cli.money import BudgetText
from sdbatch.cli.options import (
    AcceptFailed,
    AcceptNewKeys,
    AllowCode,
    AllowOpenRay,
    Date,
    JobFile,
    Json,
    Set,
    Yes,
    split_pairs,
)
from sdbatch.cli.output import guarded, say
from sdbatch.cli.shown import tell
from sdbatch.errors import JobError

if TYPE_CHECKING:
    from sdbatch.driver.submit import SubmitReport


def submit(
    job: JobFile,
    address: Annotated[str, typer.Option("--address", envvar="RAY_API_SERVER_ADDRESS", help="Ray's job server.")],
    overrides: Set = None,
    date: Date = None,
    no_wait: Annotated[bool, typer.Option("--no-wait", help="Do not follow the log.")] = False,
    working_dir: Annotated[
        Path | None, typer.Option(help="Folder to send along, in which the job file lies; this one by default.")
    ] = None,
    installed: Annotated[
        bool, typer.Option("--installed", help="Send nothing: the cluster's image has the job file at this path.")
    ] = False,
    exclude: Annotated[
        list[str] | None, typer.Option(metavar="PATTERN", help="Send no such files; as a line of .gitignore.")
    ] = None,
    environment: Annotated[
        list[str] | None, typer.Option("--env", metavar="NAME=VALUE", help="Variable of the driver; never a secret.")
    ] = None,
    accept_failed: AcceptFailed = False,
    accept_new_keys: AcceptNewKeys = False,
    allow_open_ray: AllowOpenRay = False,
    allow_code: AllowCode = False,
    yes: Yes = False,
    budget: BudgetText = None,
    as_json: Json = False,
) -> None:
    """Run a job on a cluster through Ray's job server; ends with the job's exit code."""
    variables = split_pairs("--env", environment)
    guarded(lambda: _refuse_unsent(installed, {"--working-dir": working_dir, "--exclude": exclude}), as_json)

    def call() -> SubmitReport:
        return api.submit(
            job,
            address,
            overrides or (),
            date=date,
            working_dir=None if installed else working_dir or Path(),
            environment=variables,
            accept_failed=accept_failed,
            accept_new_keys=accept_new_keys,
            allow_open_ray=allow_open_ray,
            allow_code=allow_code,
            yes=yes,
            budget=budget,
            exclude=exclude or (),
            say=tell,
            write=None if no_wait else lambda text: tell(text, end=""),
        )

    submission = guarded(call, as_json)
    word = f"ended with exit code {submission.exit_code}"
    if submission.exit_code is None:
        word = "submitted" if submission.is_new else "runs already"
    say(asdict(submission), as_json, f"{submission.submission_id} {word}; campaign {submission.output}")
    raise typer.Exit(submission.exit_code or 0)


def _refuse_unsent(installed: bool, options: Mapping[str, object]) -> None:
    for name, value in options.items():
        if installed and value:
            raise JobError(f"{name}: says what is sent, and --installed sends nothing; leave one of them out")
