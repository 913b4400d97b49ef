"""Sends a job that was checked here to a cluster, where its driver runs.

Job + overrides --> `sdbatch run ...` --> Cluster.submit() --> SubmitReport
"""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from sdbatch.dispatch.submit import Cluster, campaign_name, inside
from sdbatch.errors import JobError
from sdbatch.job import Job
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
        write: Given the job's log as it comes; without it the call does not wait.

    Raises:
        JobError: When a variable looks like a secret, or the job file would not travel.
    """
    for name, value in environment.items():
        if looks_secret(name, value):
            raise JobError(f"--env {name}: looks like a secret; the job server shows it to anybody")
    output = parse_url(job.output).url
    arguments = ["sdbatch", "run", str(path) if working_dir is None else inside(Path(path), working_dir)]
    # A relative output would be taken from a folder on the head that is cleared away.
    kept = [override for override in overrides if not override.startswith("output=")]
    for override in (*kept, f"output={output}"):
        arguments += ["--set", override]
    arguments += ["--date", date] if date else []
    arguments += ["--accept-failed"] if accept_failed else []
    arguments += ["--accept-new-keys"] if accept_new_keys else []
    cluster = Cluster(address)
    submitted = cluster.submit(shlex.join(arguments), campaign_name(output), working_dir, dict(environment))
    exit_code = cluster.follow(submitted.submission_id, write) if write else None
    return SubmitReport(
        submission_id=submitted.submission_id, is_new=submitted.is_new, output=output, exit_code=exit_code
    )
