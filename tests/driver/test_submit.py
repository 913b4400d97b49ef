"""What is sent to a cluster: the driver's command, with its budget."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from conftest import prompts

import sdbatch
from sdbatch.driver.submit import run_command
from sdbatch.errors import JobError, WorkersUnavailable


def test_the_drivers_command_has_what_was_given_and_an_output_that_is_absolute() -> None:
    options = {"--date": None, "--budget": "40EUR/day"}
    command = run_command(
        "jobs/demo.yaml", "s3://b/spring", ["output=out", "seed=3"], options, {"--yes": True, "--accept-failed": False}
    )

    assert command == [
        *("sdbatch", "run", "jobs/demo.yaml", "--set", "seed=3", "--set", "output=s3://b/spring"),
        *("--budget", "40EUR/day", "--yes"),
    ]


@pytest.mark.parametrize(
    ("budget", "error", "message"),
    [
        ("lots", JobError, "--budget lots: not a budget; it is an amount over 0"),
        ("12EUR", JobError, "--budget 12EUR: the job has no prices"),
        ("3gpu_hours", WorkersUnavailable, "http://127.0.0.1:9"),  # a budget, so the job server is asked
    ],
)
def test_what_is_no_budget_is_refused_before_the_cluster_is_asked(
    budget: str,
    error: type[Exception],
    message: str,
    tmp_path: Path,
    write_manifest: Callable[..., str],
    job_of: Callable[..., dict[str, Any]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("RAY_AUTH_TOKEN", "a" * 64)
    monkeypatch.setenv("RAY_AUTH_MODE", "token")
    path = tmp_path / "job.yaml"
    path.write_text(yaml.safe_dump(job_of(write_manifest(prompts(1)))))

    with pytest.raises(error, match=message):
        sdbatch.submit(path, "http://127.0.0.1:9", working_dir=tmp_path, budget=budget)


def test_an_address_that_may_be_a_key_does_not_travel_in_the_command(
    tmp_path: Path, write_manifest: Callable[..., str], job_of: Callable[..., dict[str, Any]]
) -> None:
    path = tmp_path / "job.yaml"
    path.write_text(yaml.safe_dump(job_of(write_manifest(prompts(1)), on_end=["env:CHAT_URL"])))
    override = 'on_end=["https://hooks.example.com/T/B/k"]'

    with pytest.raises(JobError, match=r"--set on_end.*the job server shows a run's command to anybody") as caught:
        sdbatch.submit(path, "http://127.0.0.1:9", overrides=[override], working_dir=tmp_path)
    assert "/k" not in str(caught.value)
