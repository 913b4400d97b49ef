"""Sends a job to a cluster through Ray's job server.

    entrypoint + package --> submit() --> submission id --> follow() --> the driver's exit code

A submission id is used once; a campaign's are its name and a number. One that runs is followed, not started twice: the
campaign's lease would refuse the second driver anyway.
"""

from __future__ import annotations

import asyncio
import hashlib
import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from aiohttp import ClientError
from ray.exceptions import AuthenticationError, RuntimeEnvSetupError
from ray.job_submission import JobStatus, JobSubmissionClient

from sdbatch.dispatch import ray_inside
from sdbatch.dispatch.ray_joined import first_line, refuse_open, refuse_without_token
from sdbatch.errors import ClusterRefused, JobError, UserError, WorkersUnavailable

FOLLOW_WAIT_S: Final = 60.0
FOLLOW_PAUSE_S: Final = 0.5
_RUNNING = {JobStatus.PENDING, JobStatus.RUNNING}


@dataclass(frozen=True, slots=True, kw_only=True)
class Submitted:
    """A job on a cluster.

    Attributes:
        submission_id: Ray's name for it.
        is_new: Whether this call started it; else it was running already.
    """

    submission_id: str
    is_new: bool


class Cluster:
    """The job server of one cluster.

    Args:
        address: Such as `http://head:8265`. A token is taken from where Ray looks for it (RAY_AUTH_TOKEN, ...).
        allow_open: Whether it may do without a token because RAY_AUTH_MODE says so.

    Raises:
        UserError: When the address is no job server's.
        ClusterRefused: When it does not take our token, or would do without one.
        WorkersUnavailable: When it does not answer.
    """

    def __init__(self, address: str, *, allow_open: bool = False) -> None:
        if not address.startswith(("http://", "https://")):  # Ray takes it for a head's, and tries that for 40 seconds
            raise UserError(f"address {address!r}: a job server's begins with http:// or https://, as http://head:8265")
        refuse_open(allow_open=allow_open)
        refuse_without_token()
        self._address = address
        self._client = self._call(lambda: JobSubmissionClient(address))

    def running(self, campaign: str) -> Submitted | None:
        """Return the job of a campaign that runs; None when none does."""
        found = (job for job in self._jobs(campaign).values() if job.status in _RUNNING)
        return next((Submitted(submission_id=job.submission_id, is_new=False) for job in found), None)

    def submit(self, entrypoint: str, campaign: str, package: Path | None, environment: dict[str, str]) -> Submitted:
        """Start a job for a campaign; see `running` for one that was started before.

        Args:
            entrypoint: Shell command.
            campaign: Name of the campaign; see `campaign_name`.
            package: A .zip file to send along, None when the cluster's image holds all.
            environment: Variables of the driver; never secrets, since the job server shows them to anybody.
        """
        numbers = self._jobs(campaign)
        runtime_env: dict[str, Any] = {"env_vars": environment} if environment else {}
        if package is not None:
            runtime_env |= {"working_dir": str(package)}
        submission_id = f"{campaign}-{max(numbers, default=0) + 1}"

        def submit(**changes: str) -> None:
            environment = {**runtime_env, **changes} or None
            self._client.submit_job(entrypoint=entrypoint, submission_id=submission_id, runtime_env=environment)

        def submit_with_package() -> None:
            try:
                submit()
            except RuntimeEnvSetupError:  # it did not arrive; nothing was started
                there = ray_inside.put_package(self._client, package) if package is not None else None
                if there is None:
                    raise
                submit(working_dir=there)

        self._call(submit_with_package)
        return Submitted(submission_id=submission_id, is_new=True)

    def _jobs(self, campaign: str) -> dict[int, Any]:
        """Return a campaign's jobs by their numbers."""
        numbers = {}
        for job in self._call(self._client.list_jobs):
            match = re.fullmatch(rf"{re.escape(campaign)}-(\d+)", job.submission_id or "")
            if match:
                numbers[int(match.group(1))] = job
        return numbers

    def follow(self, submission_id: str, write: Callable[[str], None]) -> int:
        """Write the job's log as it comes; return the driver's exit code, 1 when it has none.

        A connection that ends before the job does, as one through a forwarded port may, is made again; the server tells
        the log from its beginning then, and what was written is passed over.

        Raises:
            WorkersUnavailable: When none comes about for `FOLLOW_WAIT_S`. The job goes on.
        """
        num_written = 0
        silent_since_s: float | None = None

        async def tail() -> None:
            nonlocal num_written, silent_since_s
            num_told = 0
            async for lines in self._client.tail_job_logs(submission_id):
                silent_since_s = None
                write(lines[max(num_written - num_told, 0) :])
                num_told += len(lines)
                num_written = max(num_written, num_told)

        while True:
            try:
                asyncio.run(tail())
                info = self._call(lambda: self._client.get_job_info(submission_id))
            except (RuntimeError, OSError, ClientError, WorkersUnavailable) as error:
                silent_since_s = silent_since_s or time.monotonic()
                if time.monotonic() - silent_since_s > FOLLOW_WAIT_S:
                    raise WorkersUnavailable(f"{self._address}: {first_line(error)}") from error
            else:
                silent_since_s = None
                if info.status not in _RUNNING:
                    break
            time.sleep(FOLLOW_PAUSE_S)
        if info.driver_exit_code is not None:
            return int(info.driver_exit_code)
        return 0 if info.status == JobStatus.SUCCEEDED else 1

    def _call(self, call: Callable[[], Any]) -> Any:
        try:
            return call()
        except AuthenticationError as error:
            raise ClusterRefused(f"{self._address}: {first_line(error)}") from error
        except (RuntimeError, ConnectionError, ValueError, RuntimeEnvSetupError) as error:
            raise WorkersUnavailable(f"{self._address}: {first_line(error)}") from error


def campaign_name(output: str) -> str:
    """Return a campaign's name for submission ids: the URL's last part and a digest of all of it."""
    last = re.sub(r"[^A-Za-z0-9-]+", "-", output.rstrip("/").rpartition("/")[2]).strip("-") or "campaign"
    return f"sdbatch-{last}-{hashlib.sha256(output.encode()).hexdigest()[:8]}"


def inside(path: Path, folder: Path) -> str:
    """Return `path` relative to `folder`.

    Raises:
        JobError: When it lies elsewhere, and so would not travel.
    """
    try:
        return str(path.resolve().relative_to(folder.resolve()))
    except ValueError as error:
        raise JobError(f"{path} is not inside the working directory {folder}, so it would not travel") from error
