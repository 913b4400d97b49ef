"""The manifest's columns and the types each may have.

Parquet schema --> check_schema() --> problems, and the user's own x_* fields
"""

from __future__ import annotations

import difflib
from typing import Final

import pyarrow as pa

from sdbatch.columns import MANIFEST
from sdbatch.errors import Problem

COLUMNS: Final[dict[str, pa.DataType]] = {name: column.type for name, column in MANIFEST.items()}
"""Every column a manifest may have beside `x_*`, with the type `manifest build` writes."""

COLUMNS_MAX = 200
"""Most columns of a shard; a footer of thousands takes seconds and memory before any row is read."""


def check_schema(schema: pa.Schema, shard: str) -> list[Problem]:
    """Return the problems of a shard's columns: unknown names, types that cannot hold the value, no `id`."""
    problems = []
    if len(schema) > COLUMNS_MAX:
        problems.append(_problem(shard, None, str(len(schema)), f"columns are over {COLUMNS_MAX}"))
    for name in sorted({name for name in schema.names if schema.names.count(name) > 1}):
        problems.append(_problem(shard, name, None, "appears twice"))
    if "id" not in schema.names:
        problems.append(_problem(shard, "id", None, "is missing; every row needs one"))
    for field in schema:
        if field.name.startswith("x_"):
            if pa.types.is_nested(field.type):
                problems.append(_problem(shard, field.name, str(field.type), "is nested; x_ columns are flat"))
        elif field.name not in COLUMNS:
            near = difflib.get_close_matches(field.name, COLUMNS, n=1)
            hint = f"; did you mean {near[0]}?" if near else ""
            problems.append(_problem(shard, field.name, None, f"is not a known column{hint} (your own start with x_)"))
        elif not _fits(field.type, COLUMNS[field.name]):
            message = f"is not of type {COLUMNS[field.name]}"
            problems.append(_problem(shard, field.name, str(field.type), message))
    return problems


def own_fields(schema: pa.Schema) -> dict[str, pa.DataType]:
    """Return the user's x_* columns with their types; a dictionary column has the type of its values."""
    return {field.name: plain_type(field.type) for field in schema if field.name.startswith("x_")}


def plain_type(kind: pa.DataType) -> pa.DataType:
    """Return the type of a dictionary's values; any other type as it is."""
    return kind.value_type if pa.types.is_dictionary(kind) else kind


def is_text(kind: pa.DataType) -> bool:
    """Whether values of a type are strings."""
    kind = plain_type(kind)
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind))


def _fits(kind: pa.DataType, wanted: pa.DataType) -> bool:
    if pa.types.is_null(kind):
        return True
    if pa.types.is_string(wanted):
        return is_text(kind)
    if pa.types.is_integer(wanted):
        return bool(pa.types.is_integer(kind))
    if pa.types.is_floating(wanted):
        return bool(pa.types.is_floating(kind) or pa.types.is_integer(kind))
    return _fits_list(kind, wanted)


def _fits_list(kind: pa.DataType, wanted: pa.DataType) -> bool:
    """Check a list column; for `images` a plain string is a list of one."""
    if is_text(kind):
        return bool(pa.types.is_string(wanted.value_type))
    if not (pa.types.is_list(kind) or pa.types.is_large_list(kind)):
        return False
    if not pa.types.is_struct(wanted.value_type):
        return _fits(kind.value_type, wanted.value_type)
    inner = kind.value_type
    return bool(
        pa.types.is_struct(inner)
        and {inner.field(i).name for i in range(inner.num_fields)} == {"name", "weight"}
        and is_text(inner.field("name").type)
        and (pa.types.is_floating(inner.field("weight").type) or pa.types.is_integer(inner.field("weight").type))
    )


def _problem(shard: str, column: str | None, value: str | None, message: str) -> Problem:
    return Problem(shard=shard, row=None, column=column, value=value, message=message)
