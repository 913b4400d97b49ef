"""Tells others that a run ended: a small JSON object is posted to each address that the job names under `on_end`.

    RunResult, or the error that ended the run --> message_of() --> tell_end() --> what was not told

It never fails a run: it has a bound in time and size, follows no redirect, and says in one line what went wrong. An
address is a secret where its path or query is one, so that only its host is ever shown or recorded.
"""

from __future__ import annotations

import http.client
import os
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from typing import Any, Final

from sdbatch.driver.one_run.records import RunResult
from sdbatch.errors import JobError, SdbatchError
from sdbatch.job import Job
from sdbatch.job.on_end import FROM_ENVIRONMENT, address_problem, host_of
from sdbatch.logs import redacted_json, without_secrets

ANSWER_S: Final = 10.0
"""Longest wait for all addresses together, which are asked at the same time."""
TEXT_CHARS_MAX: Final = 2000
"""Longest text of a message."""


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """Takes an answer that sends elsewhere for a refusal: nobody said that the message may go there."""

    def redirect_request(self, *_: object, **__: object) -> None:
        return None


def addresses_of(job: Job) -> tuple[str, ...]:
    """Return the addresses that a job names, those in the environment looked up.

    Raises:
        JobError: When a variable is not set, or holds no address.
    """
    return tuple(_address(number, entry) for number, entry in enumerate(job.on_end))


def message_of(result: RunResult) -> dict[str, Any]:
    """Return what is posted of a run that ended."""
    return {
        "event": "run ended",
        "run_id": result.run_id,
        "output": result.output,
        "state": result.state,
        "exit_code": result.exit_code,
        "counts": result.counts,
        "failures": result.failures,
        "campaign": dict(result.campaign),
        "wall_s": round(result.wall_s, 3),
        "message": _short(result.message),
    }


def message_of_error(run_id: str, output: str, error: BaseException) -> dict[str, Any]:
    """Return what is posted of a run that an error ended."""
    is_interrupt = isinstance(error, KeyboardInterrupt)
    exit_code = 130 if is_interrupt else error.exit_code if isinstance(error, SdbatchError) else 1
    state = "interrupted" if is_interrupt else "stopped"
    text = "stopped at once by a second signal" if is_interrupt else str(error)
    named = {"event": "run ended", "run_id": run_id, "output": output}
    return {**named, "state": state, "exit_code": exit_code, "message": _short(text)}


def tell_end(addresses: Sequence[str], message: Mapping[str, Any]) -> list[str]:
    """Post a message to some addresses; return a line for each that did not take it."""
    data = redacted_json(message).encode()
    faults = dict.fromkeys(range(len(addresses)), f"no answer within {ANSWER_S:g} s")
    threads = [
        threading.Thread(target=_post, args=(number, address, data, faults), daemon=True)
        for number, address in enumerate(addresses)
    ]
    for thread in threads:
        thread.start()
    until_s = time.monotonic() + ANSWER_S
    for thread in threads:
        thread.join(max(until_s - time.monotonic(), 0.0))
    return [f"on_end: {host_of(addresses[number])} was not told: {fault}" for number, fault in sorted(faults.items())]


def _post(number: int, address: str, data: bytes, faults: dict[int, str]) -> None:
    """Post a message; what went wrong stays in `faults`."""
    headers = {"Content-Type": "application/json; charset=utf-8", "User-Agent": "sdbatch"}
    try:
        request = urllib.request.Request(address, data=data, headers=headers, method="POST")  # noqa: S310 -- checked
        with urllib.request.build_opener(_NoRedirect).open(request, timeout=ANSWER_S):
            faults.pop(number, None)
    except urllib.error.HTTPError as error:
        redirect = "; redirects are not followed" if 300 <= error.code < 400 else ""
        faults[number] = f"it answered {error.code}{redirect}"
        error.close()
    except (OSError, http.client.HTTPException, ValueError) as error:
        reason = error.reason if isinstance(error, urllib.error.URLError) else error
        faults[number] = f"{type(reason).__name__}: {' '.join(str(reason).split())[:200]}".replace(
            address, "its address"
        )


def _address(number: int, entry: str) -> str:
    if not entry.startswith(FROM_ENVIRONMENT):
        return entry
    name = entry.removeprefix(FROM_ENVIRONMENT)
    address = os.environ.get(name, "")
    if not address:
        raise JobError(f"on_end.{number}: {entry}: the environment has no {name}")
    if problem := address_problem(address):
        raise JobError(f"on_end.{number}: {entry}: what {name} holds {problem}")
    return address


def _short(text: str | None) -> str | None:
    return None if text is None else without_secrets(text)[:TEXT_CHARS_MAX]
