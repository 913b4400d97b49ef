"""A job file is read and checked; everything that is wrong is reported at once.

    jobs/*.yaml --> YAML --> --set overrides --> Job

An unknown key is an error that names the nearest known one.
"""

from __future__ import annotations

import difflib
import os
import re
from datetime import UTC, datetime
from pathlib import Path
from string import Template
from typing import Any, get_args, get_origin

import yaml
from pydantic import BaseModel, ValidationError

from sdbatch.errors import JobError
from sdbatch.job.records import refuse_newer, without_revisions
from sdbatch.job.settings import Job
from sdbatch.logs import looks_secret

JOB_BYTES_MAX = 1 << 20


class _UniqueKeyLoader(yaml.SafeLoader):
    """SafeLoader that refuses duplicate keys and aliases (a small file of aliases expands without bound)."""

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        if self.check_event(yaml.AliasEvent):
            raise JobError("YAML aliases are not taken; write the value out")
        return super().compose_node(parent, index)

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[Any] = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            if isinstance(key, str | int) and key in seen:
                raise JobError(f"line {key_node.start_mark.line + 1}: key {key!r} appears twice")
            seen.add(key if isinstance(key, str | int) else id(key))
        return super().construct_mapping(node, deep)


def read_job(
    path: str | Path, overrides: tuple[str, ...] = (), date: str | None = None, *, with_revisions: bool = True
) -> Job:
    """Read a job file and check it.

    Args:
        path: YAML file, at most `JOB_BYTES_MAX` bytes.
        overrides: `a.b.c=VALUE` each, VALUE in YAML; they win over the file.
        date: What `${date}` in the manifest's path stands for, YYYY-MM-DD; by default SDBATCH_DATE, else today (UTC).
        with_revisions: Whether stated revisions count. Without them the job of `models pin` is read, whose revisions
            may be ones that are refused.

    Raises:
        JobError: Naming every key that is wrong.
    """
    file = Path(path)
    try:
        data = file.read_bytes()
    except OSError as error:
        raise JobError(f"job file {path}: {error.strerror or error}") from error
    if len(data) > JOB_BYTES_MAX:
        raise JobError(f"job file {path}: {len(data)} bytes is over {JOB_BYTES_MAX}")
    values = _load_yaml(data, str(path))
    return parse_job(values, overrides, name=str(path), date=date, with_revisions=with_revisions)


def parse_job(
    values: Any,
    overrides: tuple[str, ...] = (),
    *,
    name: str = "job",
    date: str | None = None,
    with_revisions: bool = True,
) -> Job:
    """Check a job given as plain values. See `read_job`."""
    if not isinstance(values, dict):
        raise JobError(f"{name}: a job is a mapping of keys, not {type(values).__name__}")
    for override in overrides:
        values = _overridden(values, override)
    refuse_newer(values, name)
    _refuse_secrets(values, name)
    if not with_revisions:
        values = without_revisions(values)
    if isinstance(values.get("manifest"), str):
        values = {**values, "manifest": _dated(values["manifest"], date, name)}
    try:
        return Job.model_validate(values)
    except ValidationError as error:
        places: dict[str, list[str]] = {}
        for problem in error.errors():
            place, message = _explain_error(problem)
            places.setdefault(place, []).append(message)
        # A value that fits none of several types is one fault, said once.
        lines = [f"{name}: {place}: {' or '.join(dict.fromkeys(said))}" for place, said in places.items()]
        raise JobError("\n".join(lines)) from error


def _load_yaml(data: bytes, name: str) -> Any:
    try:
        return yaml.load(data, Loader=_UniqueKeyLoader)  # noqa: S506 -- a subclass of SafeLoader
    # PyYAML raises what it meets in a scalar: ValueError for the date 2026-13-45, AttributeError for a torn one.
    except (yaml.YAMLError, ValueError, AttributeError, RecursionError) as error:
        said = " ".join(str(error).replace('in "<byte string>", ', "").split())
        raise JobError(f"{name}: not YAML: {said}") from error
    except JobError as error:
        raise JobError(f"{name}: {error}") from error


def _overridden(values: dict[str, Any], override: str) -> dict[str, Any]:
    """Return `values` with one `a.b=VALUE` laid over, leaving the argument as it was."""
    path, separator, text = override.partition("=")
    if not separator or not path:
        raise JobError(f"--set {override}: not of the form KEY.KEY=VALUE")
    return _set_path(values, path.split("."), _load_yaml(text.encode(), f"--set {override}"), override)


def _set_path(values: dict[str, Any], parts: list[str], new: Any, override: str) -> dict[str, Any]:
    """Return `values` with `new` at the path `parts`; of existing keys that hold dots, the longest that fits counts."""
    joined = [".".join(parts[:count]) for count in range(len(parts), 0, -1)]
    key = next((name for name in joined if name in values), parts[0])
    rest = parts[key.count(".") + 1 :]
    if not rest:
        return {**values, key: new}
    inner = values.get(key)
    if inner is not None and not isinstance(inner, dict):
        raise JobError(f"--set {override}: {key} is a value, not a mapping")
    return {**values, key: _set_path(inner or {}, rest, new, override)}


def _dated(manifest: str, date: str | None, name: str) -> str:
    """Put the tick's date into a manifest's path: plain substitution, one name."""
    if "${" not in manifest:
        return manifest
    chosen = date or os.environ.get("SDBATCH_DATE") or datetime.now(UTC).date().isoformat()
    try:
        valid = datetime.strptime(chosen, "%Y-%m-%d").replace(tzinfo=UTC).date().isoformat() == chosen
    except ValueError:
        valid = False
    if not valid:
        raise JobError(f"{name}: date {chosen!r} is not of the form YYYY-MM-DD")
    try:
        return Template(manifest).substitute(date=chosen)
    except (KeyError, ValueError) as error:
        raise JobError(f"{name}: manifest: {manifest!r}: the only name to be filled in is ${{date}}") from error


def _refuse_secrets(values: Any, name: str, path: str = "") -> None:
    """Refuse what looks like a credential: a job file is copied into every campaign it makes."""
    if isinstance(values, dict):
        for key, value in values.items():
            here = f"{path}.{key}" if path else str(key)
            if isinstance(value, str) and looks_secret(str(key), value):
                raise JobError(f"{name}: {here} looks like a secret; use the environment, a profile or an identity")
            _refuse_secrets(value, name, here)


def _explain_error(problem: Any) -> tuple[str, str]:
    """Return the key one pydantic error is about, and a line with the value and the bound."""
    loc = tuple(part for part in problem["loc"] if part != "[key]" and not _is_union_branch(part))
    place = ".".join(str(part) for part in loc) or "job"
    if problem["type"] == "extra_forbidden":
        known = _known_keys(loc[:-1])
        near = difflib.get_close_matches(str(loc[-1]), known, n=1)
        return place, "unknown key; " + (f"did you mean {near[0]}?" if near else f"known are {', '.join(known)}")
    if problem["type"] == "missing":
        return place, "missing"
    message = problem["msg"].removeprefix("Value error, ").removeprefix("Input should be ")
    if problem["type"] in {"model_type", "dict_type"}:
        message = "a mapping of keys"
    value = problem["input"]
    if place == "job":
        return place, str(message)
    if problem["type"] == "value_error":
        return place, str(message)
    return place, f"{value!r} should be {message}" if not isinstance(value, dict | list) else f"should be {message}"


def _is_union_branch(part: Any) -> bool:
    return isinstance(part, str) and bool(re.match(r"^(constrained-|literal\[|int$|float$|str$)", part))


def _known_keys(loc: tuple[Any, ...]) -> list[str]:
    """Return the field names of the model that stands at `loc` in a job."""
    model: Any = Job
    for part in loc:
        model = _mapping_of(model)
        if isinstance(model, type) and issubclass(model, BaseModel):
            model = model.model_fields[part].annotation if part in model.model_fields else None
        elif get_origin(model) is dict:
            model = get_args(model)[1]
    model = _mapping_of(model)
    return list(model.model_fields) if isinstance(model, type) and issubclass(model, BaseModel) else []


def _mapping_of(kind: Any) -> Any:
    """Return the mapping that an optional or an annotated type is of, else the type itself."""
    if get_origin(kind) is dict:
        return kind
    inner = [_mapping_of(one) for one in get_args(kind)]
    return next((one for one in inner if isinstance(one, type) and issubclass(one, BaseModel)), kind)
