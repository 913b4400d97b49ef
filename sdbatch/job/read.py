"""A job file is read and checked; everything that is wrong is reported at once.

    jobs/*.yaml --> YAML --> --set overrides --> Job

An unknown key is an error that names the nearest known one. In `--set` a key that takes text takes it as it stands; any
other value is YAML.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from string import Template
from types import NoneType, UnionType
from typing import Annotated, Any, Final, Literal, Union, get_args, get_origin

import yaml
from pydantic import BaseModel, ValidationError

from sdbatch.columns import column_meant
from sdbatch.errors import JobError
from sdbatch.job.reach import refuse_unfilled
from sdbatch.job.records import refuse_newer, without_revisions
from sdbatch.job.settings import Job
from sdbatch.logs import looks_secret, without_secrets

JOB_BYTES_MAX = 1 << 20
NUMBER_CHARACTERS_MAX: Final = 64
"""Longest number of a job file: the digits of a longer one take minutes to turn into a value."""
SHOWN_CHARACTERS_MAX: Final = 200
"""Longest part of a wrong value that a message shows."""
_TABLES: Final = {".csv", ".tsv", ".xlsx", ".jsonl", ".parquet"}
_KINDS: Final = {
    "job": ({"manifest", "models"}, "check"),
    "brief": ({"axes", "rows"}, "brief count"),
    "delivery": ({"campaign", "formats"}, "deliver"),
}
"""Keys that each kind of file always has, and the verb that reads it."""
_OCTAL: Final = re.compile(r"[-+]?0[0-7_]+")
_INT, _FLOAT = "tag:yaml.org,2002:int", "tag:yaml.org,2002:float"


class _UniqueKeyLoader(yaml.SafeLoader):
    """SafeLoader without what surprises people or takes them minutes.

    Refused are duplicate keys, aliases (a small file of them expands without bound), and numbers that are too long or
    to base 60 or 8; 12:30 is text.
    """

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

    def construct_number(self, node: yaml.ScalarNode) -> int | float:
        """Return a number of bounded length."""
        text = str(self.construct_scalar(node))
        place = f"line {node.start_mark.line + 1}"
        if len(text) > NUMBER_CHARACTERS_MAX:
            raise JobError(f"{place}: a number of {len(text)} characters; {NUMBER_CHARACTERS_MAX} are taken")
        if ":" in text:
            raise JobError(f"{place}: {text!r} is a number to base 60; write it with digits alone")
        if _OCTAL.fullmatch(text):
            raise JobError(f"{place}: {text!r} is {int(text, 8)} to base 8; leave out the first 0, or put it in quotes")
        number: int | float = self.construct_yaml_int(node) if node.tag == _INT else self.construct_yaml_float(node)
        return number


def _without_base_60(tag: str, pattern: re.Pattern[str]) -> re.Pattern[str]:
    """Return PyYAML's pattern of a number, but that no colon stands in it."""
    return re.compile(rf"(?!.*:)(?:{pattern.pattern})", re.VERBOSE | re.DOTALL) if tag in {_INT, _FLOAT} else pattern


_UniqueKeyLoader.yaml_implicit_resolvers = {
    letter: [(tag, _without_base_60(tag, pattern)) for tag, pattern in resolvers]
    for letter, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
for _tag in (_INT, _FLOAT):
    _UniqueKeyLoader.add_constructor(_tag, _UniqueKeyLoader.construct_number)


class _TextLoader(_UniqueKeyLoader):
    """The same for a file of texts: `no` may be a locale, and a truth value is `true` or `false` alone."""

    def construct_truth(self, node: yaml.ScalarNode) -> bool:
        """Return a truth value that is written as one."""
        text = str(self.construct_scalar(node))
        if text.lower() not in {"true", "false"}:
            place = f"line {node.start_mark.line + 1}"
            raise JobError(f"{place}: YAML reads {text} without quotes as a truth value; put the word in quotes")
        return text.lower() == "true"


_TextLoader.add_constructor("tag:yaml.org,2002:bool", _TextLoader.construct_truth)


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
    if Path(path).suffix.lower() in _TABLES:
        raise JobError(f"job file {path}: is a table; a job is a YAML file that names it, as in `manifest: {path}`")
    values = read_yaml(path, "job file")
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
    refuse_other_kind(values, name, "job")
    for override in overrides:
        values = _overridden(values, override)
    refuse_newer(values, name)
    refuse_secrets(values, name)
    refuse_unfilled(values.get("output"), f"{name}: output")
    if not with_revisions:
        values = without_revisions(values)
    manifest = values.get("manifest")
    if isinstance(manifest, str):
        values = {**values, "manifest": _dated(manifest, date, name)}
    elif isinstance(manifest, dict) and isinstance(manifest.get("path"), str):
        values = {**values, "manifest": {**manifest, "path": _dated(manifest["path"], date, name)}}
    try:
        return Job.model_validate(values)
    except ValidationError as error:
        raise explained(error, Job, name) from error


def read_yaml(path: str | Path, kind: str) -> Any:
    """Return the value of a small YAML file.

    Args:
        path: The file, at most `JOB_BYTES_MAX` bytes.
        kind: What it is, for messages.

    Raises:
        JobError: When it cannot be read, is too long, or is not YAML.
    """
    try:
        data = Path(path).read_bytes()
    except OSError as error:
        raise JobError(f"{kind} {path}: {error.strerror or error}") from error
    if len(data) > JOB_BYTES_MAX:
        raise JobError(f"{kind} {path}: {len(data)} bytes is over {JOB_BYTES_MAX}")
    return load_yaml(data, str(path))


def refuse_other_kind(values: Mapping[Any, Any], name: str, wanted: str) -> None:
    """Refuse a file of another kind of ours by what it is, before all of its keys are called unknown.

    Args:
        values: What the file holds.
        name: Name of the file.
        wanted: One of the kinds: job, brief or delivery.

    Raises:
        JobError: When it is of another kind.
    """
    for kind, (keys, verb) in _KINDS.items():
        if kind != wanted and keys <= values.keys():
            raise JobError(f"{name}: is a {kind}, and a {wanted} is asked for; `sdbatch {verb} {name}` reads a {kind}")


def explained(error: ValidationError, model: type[BaseModel], name: str) -> JobError:
    """Return what pydantic says of a file's values as one line for each key.

    Args:
        error: As it was raised.
        model: What the values were checked against.
        name: Name of the file.
    """
    places: dict[str, list[str]] = {}
    for problem in error.errors():
        place, message = _explain_error(problem, model)
        places.setdefault(place, []).append(message)
    # A value that fits none of several types is one fault, said once.
    return JobError("\n".join(f"{name}: {place}: {' or '.join(dict.fromkeys(said))}" for place, said in places.items()))


def load_yaml(data: bytes, name: str, *, is_of_texts: bool = False) -> Any:
    """Return the value of a YAML file.

    Args:
        data: The file.
        name: What messages call it.
        is_of_texts: Whether words such as `no` are meant as texts, and refused without quotes.

    Raises:
        JobError: When it is not YAML, or holds what surprises people; see `_UniqueKeyLoader`.
    """
    try:
        return yaml.load(data, Loader=_TextLoader if is_of_texts else _UniqueKeyLoader)  # noqa: S506 -- SafeLoader's
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
    keys = _keys_of(values, path.split("."), override)
    # Among the defaults an empty text means none; elsewhere it takes a value back.
    takes_empty = "defaults" in keys
    return _set(values, keys, _override_value(_kind_at(tuple(keys)), text, takes_empty, f"--set {override}"))


def _override_value(kind: Any, text: str, takes_empty: bool, name: str) -> Any:
    """Return the value that an override gives to a key of some type.

    A text is taken as it stands, also one with `#` or `: ` in it, which YAML would cut or split; only where a key may
    be null, `null` is that. Where a text stands for the first key of a mapping, `{...}` is the mapping.
    """
    takes_text, takes_null, takes_mapping = _takes(kind)
    is_null = takes_null and (text == "null" or (not text and not takes_empty))
    if not takes_text or is_null or (takes_mapping and _is_braced(text.strip())):
        return load_yaml(text.encode("utf-8", "surrogateescape"), name)
    return text


def _is_braced(text: str) -> bool:
    return text.startswith("{") and text.endswith("}")


def _takes(kind: Any) -> tuple[bool, bool, bool]:
    """Return whether a type takes text and no other plain value, whether null, and whether a mapping too."""
    kinds = _alternatives(kind)
    texts = [one for one in kinds if one is str or _is_choice_of_texts(one)]
    mappings = [one for one in kinds if isinstance(one, type) and issubclass(one, BaseModel)]
    # A folder's mapping may be given as its path alone: see `_folder_of` in the settings.
    stands_for_path = any("path" in one.model_fields for one in mappings) and NoneType in kinds
    others = [one for one in kinds if one is not NoneType and one not in [*texts, *mappings]]
    return (bool(texts) or stands_for_path) and not others, NoneType in kinds, bool(mappings)


def _is_choice_of_texts(kind: Any) -> bool:
    return get_origin(kind) is Literal and all(isinstance(choice, str) for choice in get_args(kind))


def _alternatives(kind: Any) -> list[Any]:
    """Return the types that a type is a union of, annotations taken off."""
    if get_origin(kind) is Annotated:
        return _alternatives(get_args(kind)[0])
    if get_origin(kind) in {Union, UnionType}:
        return [one for inner in get_args(kind) for one in _alternatives(inner)]
    return [kind]


def _keys_of(values: dict[str, Any], parts: list[str], override: str) -> list[str]:
    """Return the keys of a dotted path; of existing keys that hold dots, the longest that fits counts."""
    joined = [".".join(parts[:count]) for count in range(len(parts), 0, -1)]
    key = next((name for name in joined if name in values), parts[0])
    rest = parts[key.count(".") + 1 :]
    if not rest:
        return [key]
    inner = values.get(key)
    if inner is not None and not isinstance(inner, dict):
        raise JobError(f"--set {override}: {key} is a value, not a mapping")
    return [key, *_keys_of(inner or {}, rest, override)]


def _set(values: dict[str, Any], keys: list[str], new: Any) -> dict[str, Any]:
    """Return a copy of `values` with `new` at the path `keys`."""
    first, *rest = keys
    return {**values, first: _set(values.get(first) or {}, rest, new) if rest else new}


def _dated(manifest: str, date: str | None, name: str) -> str:
    """Put the tick's date into a manifest's path: plain substitution, one name."""
    if "${" not in manifest:
        if date is not None:
            raise JobError(f"{name}: date {date!r}: the manifest's path, {manifest}, has no ${{date}} to put it into")
        return manifest
    today = os.environ.get("SDBATCH_DATE") or datetime.now(UTC).date().isoformat()
    chosen = today if date is None else date
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


def refuse_secrets(values: Any, name: str, path: str = "", key: str = "") -> None:
    """Refuse what looks like a credential, in keys and lists too: a job is copied into every campaign it makes."""
    if isinstance(values, dict):
        for inner_key, value in values.items():
            if without_secrets(str(inner_key)) != str(inner_key):
                place = without_secrets(f"{path}.{inner_key}".lstrip("."))
                raise JobError(f"{name}: the key {place} looks like a secret; {_SECRETS_ELSEWHERE}")
            refuse_secrets(value, name, f"{path}.{inner_key}".lstrip("."), str(inner_key))
    elif isinstance(values, list | tuple | set):
        for number, value in enumerate(values):
            refuse_secrets(value, name, f"{path}.{number}", key)
    elif isinstance(values, str | bytes):
        text = values.decode("utf-8", "replace") if isinstance(values, bytes) else values
        if looks_secret(key, text):
            raise JobError(f"{name}: {path} looks like a secret; {_SECRETS_ELSEWHERE}")


_SECRETS_ELSEWHERE: Final = "use the environment, a profile or an identity"


def _explain_error(problem: Any, model: type[BaseModel]) -> tuple[str, str]:
    """Return the key one pydantic error is about, and a line with the value and the bound."""
    loc = tuple(part for part in problem["loc"] if part != "[key]" and not _is_union_branch(part))
    place = _shortened(".".join(str(part) for part in loc)) or "job"
    if problem["type"] == "extra_forbidden":
        known = _known_keys(loc[:-1], model)
        near = column_meant(str(loc[-1]), known)
        return place, "unknown key; " + (f"did you mean {near}?" if near else f"known are {', '.join(known)}")
    if problem["type"] == "missing":
        return place, "missing"
    message = problem["msg"].removeprefix("Value error, ")
    if problem["type"] in {"model_type", "dict_type"}:
        message = "should be a mapping of keys"
    value = problem["input"]
    if place == "job" or problem["type"] == "value_error":
        return place, str(message)
    demand = re.sub(r"^\w+ (?=should )", "", message)  # Input, String, List, Dictionary ... should
    is_plain = not isinstance(value, dict | list)
    return place, f"{_shortened(repr(value))} {demand}" if is_plain else demand


def _shortened(text: str) -> str:
    return text if len(text) <= SHOWN_CHARACTERS_MAX else f"{text[:SHOWN_CHARACTERS_MAX]}..."


def _is_union_branch(part: Any) -> bool:
    return isinstance(part, str) and bool(re.match(r"^(constrained-|literal\[|int$|float$|str$)", part))


def _kind_at(loc: tuple[Any, ...], model: type[BaseModel] = Job) -> Any:
    """Return the type of the value that stands at `loc` in a file; None where nothing may stand."""
    kind: Any = model
    for part in loc:
        kind = _mapping_of(kind)
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            kind = kind.model_fields[part].annotation if part in kind.model_fields else None
        elif get_origin(kind) is dict:
            kind = get_args(kind)[1]
        else:
            return None
    return kind


def _known_keys(loc: tuple[Any, ...], model: type[BaseModel]) -> list[str]:
    """Return the field names of what stands at `loc` in a file that is checked against a model."""
    inner = _mapping_of(_kind_at(loc, model))
    return list(inner.model_fields) if isinstance(inner, type) and issubclass(inner, BaseModel) else []


def _mapping_of(kind: Any) -> Any:
    """Return the mapping that an optional or an annotated type is of, else the type itself."""
    if get_origin(kind) is dict:
        return kind
    inner = [_mapping_of(one) for one in get_args(kind)]
    return next((one for one in inner if isinstance(one, type) and issubclass(one, BaseModel)), kind)
