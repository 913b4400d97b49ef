"""Sends a job that was checked here to a cluster, where its driver runs.

Job + overrides --> `sdbatch run ...`   \
                                             Cluster.submit() --> SubmitReport
its folder --> list_package() --> .zip   /
"""

from __future__ import annotations

import os
import shlex
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sdbatch.dispatch.package import list_package, pack
from sdbatch.dispatch.submit import Cluster, campaign_name, inside
from sdbatch.driver.rows.briefs import BRIEFS, brief_files
from sdbatch.errors import JobError, WorkersUnavailable
from sdbatch.job import Job, with_budget
from sdbatch.job.on_end import FROM_ENVIRONMENT
from sdbatch.logs import looks_secret
from sdbatch.storage import parse_url


@dataclass(frozen=True, slots=True, kw_only=True)
class SubmitReport:
    """A job on a cluster.

    Attributes:
        submission_id: Ray's name for it.
        is_new: Whether this call started it; else it was running already and was followed.
        output: The campaign.
        exit_code: The driver's; None when it was not waited for.
    """

    submission_id: str
    is_new: bool
    output: str
    exit_code: int | None


def submit_job(
    path: str | Path,
    job: Job,
    address: str,
    overrides: Iterable[str],
    *,
    date: str | None,
    working_dir: Path | None,
    environment: Mapping[str, str],
    accept_failed: bool,
    accept_new_keys: bool,
    allow_open_ray: bool,
    allow_code: bool = False,
    yes: bool,
    budget: str | None,
    exclude: tuple[str, ...],
    say: Callable[[str], None],
    write: Callable[[str], None] | None,
) -> SubmitReport:
    """Run a job on a cluster. The arguments are those of `sdbatch.api.submit`.

    Args:
        path: Job file.
        job: The same, with overrides.
        address: The job server.
        overrides: `key.key=value` each.
        date: What `${date}` in the manifest's path stands for.
        working_dir: Folder to send along, None when the cluster's image holds all.
        environment: Variables of the driver there.
        accept_failed: Exit 0 although rows failed.
        accept_new_keys: Render outputs again whose keys an older version of sdbatch made.
        allow_open_ray: Whether a Ray cluster may be one that asks for no token.
        allow_code: Let the run call functions that the job names.
        yes: Let more rows of the campaign leave than `limits.leaving_fraction`.
        budget: Stop before so much is spent, over the job's own limit; see `sdbatch.job.with_budget`.
        exclude: Further patterns of files that stay here.
        say: Told what is sent, before it is sent.
        write: Given the job's log as it comes; without it the call does not wait.

    Raises:
        JobError: When a variable looks like a secret, an override holds an address of `on_end`, the budget is none, or
            the job file would not travel.
    """
    for name, value in environment.items():
        if looks_secret(name, value):
            raise JobError(f"--env {name}: looks like a secret; the job server shows it to anybody")
    is_in_command = any(override.partition("=")[0] == "on_end" for override in overrides)
    if is_in_command and not all(entry.startswith(FROM_ENVIRONMENT) for entry in job.on_end):
        raise JobError(
            "--set on_end: an address is often a key, and the job server shows a run's command to anybody; "
            "write it into the job file, or write env:NAME for a variable of the cluster"
        )
    if budget is not None:
        with_budget(job, budget)  # what is none is refused here, and not by a driver on the cluster
    output = parse_url(job.output).url
    flags = {
        "--accept-failed": accept_failed,
        "--accept-new-keys": accept_new_keys,
        "--allow-open-ray": allow_open_ray,
        "--allow-code": allow_code,
        "--yes": yes,
    }
    place = str(path) if working_dir is None else inside(Path(path), working_dir)
    arguments = run_command(place, output, overrides, {"--date": date, "--budget": budget}, flags)
    with _packed(Path(path), job, working_dir, exclude) as (package, described):
        cluster = Cluster(address, allow_open=allow_open_ray)
        campaign = campaign_name(output)
        submitted = cluster.running(campaign)
        if submitted is None:
            if described:
                say(described)
            submitted = cluster.submit(shlex.join(arguments), campaign, package, dict(environment))
        else:
            say(
                f"{submitted.submission_id} runs already, with the files and options that it was sent with; what was "
                "changed since is not in it: the same command makes that once it has ended"
            )
            if budget is not None:
                say(f"--budget {budget} is not used: it goes on with the budget it began with")
    try:
        exit_code = cluster.follow(submitted.submission_id, write) if write else None
    except (KeyboardInterrupt, WorkersUnavailable):
        say(
            f"{submitted.submission_id} goes on, and is not followed any more; the same command follows it, "
            f"`sdbatch cancel {output}` stops it"
        )
        raise
    return SubmitReport(
        submission_id=submitted.submission_id, is_new=submitted.is_new, output=output, exit_code=exit_code
    )


def run_command(
    place: str,
    output: str,
    overrides: Iterable[str],
    options: Mapping[str, str | None],
    flags: Mapping[str, bool],
) -> list[str]:
    """Return the command of a job's driver.

    Args:
        place: Path of the job file there.
        output: URL of the campaign: a relative one would be taken from a folder on the head that is cleared away.
        overrides: `key.key=value` each.
        options: Options of the command, and their values; None for one that was not given.
        flags: Its flags, and whether each was given.
    """
    arguments = ["sdbatch", "run", place]
    kept = [override for override in overrides if not override.startswith("output=")]
    for override in (*kept, f"output={output}"):
        arguments += ["--set", override]
    for option, value in options.items():
        arguments += [] if value is None else [option, value]
    return arguments + [flag for flag, is_given in flags.items() if is_given]


@contextmanager
def _packed(
    path: Path, job: Job, working_dir: Path | None, exclude: tuple[str, ...]
) -> Iterator[tuple[Path | None, str]]:
    """Pack what a job takes along, which is there while the block runs, and say what that is."""
    if working_dir is None:
        yield None, ""
        return
    folder = working_dir.resolve()
    output = parse_url(job.output)
    package = list_package(
        folder,
        [
            path.resolve(),
            *_named_paths(job.model_dump(mode="json", exclude={"output"}), folder),
            *_of_brief(job, folder),
        ],
        exclude,
        Path(output.path) if output.is_local else None,
    )
    with tempfile.TemporaryDirectory(prefix="sdbatch-package-") as scratch:
        archive = Path(scratch) / "package.zip"
        pack(package, archive)
        yield archive, package.described()


def _of_brief(job: Job, folder: Path) -> list[Path]:
    """Return the tables that a job's brief is made from.

    Raises:
        JobError: When one of them lies outside of the folder, and would not be there.
    """
    if not job.manifest_path.lower().endswith(BRIEFS):
        return []
    tables = [file.resolve() for file in brief_files(folder / job.manifest_path)]
    if outside := [file for file in tables if not file.is_relative_to(folder)]:
        raise JobError(
            f"{outside[0]}: the brief needs it, and it lies outside of {folder}, which is sent; move it inside"
        )
    return tables


def _named_paths(value: Any, folder: Path) -> Iterator[Path]:
    """Yield the local files and folders that a job names and that lie in its folder; of a glob, its folder.

    Raises:
        JobError: When one that is named from the folder lies outside of it, and would not be there.
    """
    if isinstance(value, dict):
        for inner in value.values():
            yield from _named_paths(inner, folder)
    elif isinstance(value, list):
        for inner in value:
            yield from _named_paths(inner, folder)
    elif isinstance(value, str) and value and "://" not in value and "\0" not in value:
        path = folder / value
        path = path.parent if any(letter in path.name for letter in "*?[") else path
        try:
            is_there = path != folder and path.exists()
        except OSError:  # no path: a text of the job
            return
        if is_there and not Path(value).is_absolute() and ".." in Path(os.path.relpath(path, folder)).parts:
            raise JobError(
                f"{value}: lies outside of {folder}, which is sent; move it inside, or write a path that every node "
                "has, which begins with /"
            )
        if is_there:
            yield path
