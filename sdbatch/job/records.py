"""Jobs that were written down: those of older runs are brought up to the present, newer ones are refused by name.

    run.json of any earlier version --> job_of_record() --> Job

A user's file is read strictly (`read.py`). A record is read to render from once more: what this version no longer takes
is left out of it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from pydantic import ValidationError

from sdbatch.errors import JobError
from sdbatch.job.model import ENTRY_COMPONENTS
from sdbatch.job.reach import STORAGE_OPTIONS
from sdbatch.job.settings import JOB_VERSION, Job
from sdbatch.job.weights import is_fixed

FAULTS_MAX = 100
"""Values left out of one record; a record with more of them is not a job."""


def job_of_record(values: Mapping[str, Any]) -> Job:
    """Return the job that a run wrote down, whichever version of sdbatch it was.

    Left out are keys that this version does not know, values that it no longer takes, and revisions that can move: a
    model without its revision is digested where it is loaded.

    Raises:
        JobError: When a newer version wrote it, or when it names no manifest, output or model.
    """
    refuse_newer(values, "job of a record")
    present = _with_fixed_revisions(values)
    present["storage"] = _with_options_taken(values.get("storage") or {})
    for _ in range(FAULTS_MAX):
        try:
            return Job.model_validate(present)
        except ValidationError as error:
            fault = error.errors()[0]
            if not _drop(present, fault["loc"]):
                place = ".".join(map(str, fault["loc"])) or "job"
                raise JobError(f"job of a record: {place}: {fault['msg']}") from error
    raise JobError(f"job of a record: over {FAULTS_MAX} values that this version does not take")


def refuse_newer(values: Mapping[str, Any], name: str) -> None:
    """Raise JobError when a job states a version that came after this one."""
    version = values.get("version", JOB_VERSION)
    if isinstance(version, int) and version > JOB_VERSION:
        raise JobError(f"{name}: job version {version}: this sdbatch reads up to {JOB_VERSION}")


def without_revisions(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return a job's values without any revision, and without stated families, which need one."""
    return _with_models(values, lambda _: False)


def _with_fixed_revisions(values: Mapping[str, Any]) -> dict[str, Any]:
    return _with_models(values, lambda revision: isinstance(revision, str) and is_fixed(revision))


def _with_models(values: Mapping[str, Any], keeps: Callable[[Any], bool]) -> dict[str, Any]:
    """Return a copy of a job's values in which only the revisions stand that `keeps` answers for."""

    def entry(value: Any) -> Any:
        if isinstance(value, list):
            return [entry(one) for one in value]
        if not isinstance(value, Mapping):
            return value
        copy = {**value, **{name: entry(value[name]) for name in ENTRY_COMPONENTS if name in value}}
        for named in ("components", "embeddings"):
            if isinstance(copy.get(named), Mapping):
                copy[named] = {name: entry(component) for name, component in copy[named].items()}
        if not keeps(copy.get("revision")):
            copy.pop("revision", None)
            copy.pop("family", None)
        return copy

    parts = {
        part: {name: entry(value) for name, value in values[part].items()}
        for part in ("models", "loras")
        if isinstance(values.get(part), Mapping)
    }
    return {**values, **parts}


def _with_options_taken(storage: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Return options by prefix, less what the scheme of a prefix ignores."""
    taken = {prefix: STORAGE_OPTIONS.get(prefix.partition("://")[0], ()) for prefix in storage}
    return {
        prefix: {name: value for name, value in options.items() if name in taken[prefix]}
        for prefix, options in storage.items()
        if taken[prefix]
    }


def _drop(values: dict[str, Any], place: tuple[Any, ...]) -> bool:
    """Take out the value that a fault is about, with copies of what holds it; return whether there was one."""
    holder: Any = values
    for part in place[:-1]:
        inner = holder.get(part) if isinstance(holder, dict) else None
        if not isinstance(inner, Mapping):
            break  # the rest of the place names a type that the value was tried as
        holder[part] = dict(inner)
        holder = holder[part]
    else:
        part = place[-1] if place else None
    if not isinstance(holder, dict) or part not in holder:
        return False
    del holder[part]
    return True
