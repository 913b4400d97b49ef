"""Metadata rows as the gallery's page reads them: every value a text, each different one once.

metadata rows --> shown_rows() --> texts          texts --> chunk_values() --> JSON        --> facet_counts()
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import numpy as np
import pyarrow as pa

from sdbatch.columns import COLUMNS, SOURCE_ROLES
from sdbatch.report.tables import python_values

SETTINGS: Final = tuple(column.name for column in COLUMNS if column.in_gallery)
PLAIN: Final = (
    "id",
    "request_key",
    "sha256",
    "status",
    "verdict",
    "reviewed_by",
    "reviewed_at",
    "note",
    "task",
    "model",
    "prompt",
    "negative_prompt",
    "seed",
    "error_type",
    "error_message",
    "copied_from",
    "older",
    *SETTINGS,
)
"""Columns that are shown as they stand; those that a table does not have are left out."""
NUMBERS: Final = ("n", "width", "height")
FACETS: Final = (
    "status",
    "verdict",
    "task",
    "model",
    "size",
    "run",
    "truncated",
    "error_type",
    *SETTINGS,
)
"""Columns that rows are chosen by, beside `x_*`."""
FACET_VALUES_MAX: Final = 50


def shown_rows(rows: pa.Table) -> pa.Table:
    """Return metadata rows in the columns that the page shows; a null is "", or -1 where the column is of numbers."""
    there = set(rows.column_names)
    own = [name for name in rows.column_names if name.startswith("x_")]
    columns = {name: _texts(rows.column(name)) for name in (*PLAIN, *own) if name in there}
    columns |= {name: rows.column(name).fill_null(-1).cast(pa.int32()) for name in NUMBERS}
    columns["size"] = _each(rows, ("width", "height"), _size)
    columns["length"] = _each(rows, ("num_frames", "fps", "media_type"), _length)
    columns["run"] = _texts(rows.column("run_id"))
    columns["truncated"] = _each(rows, ("prompt_truncated",), lambda is_cut: "yes" if is_cut else "no")
    columns["made_from"] = _each(rows, SOURCE_ROLES, _listed)
    columns["asset"] = _each(rows, ("asset", "id", "request_key", "n"), _asset)
    return pa.table(columns)


def chunk_values(rows: pa.Table) -> dict[str, Any]:
    """Return shown rows as JSON values: of each column its different values, and a code for every row.

    Where the values of all rows differ there are no codes.
    """
    columns = []
    for name in rows.column_names:
        if pa.types.is_integer(rows.schema.field(name).type):
            columns.append({"name": name, "numbers": rows.column(name).to_pylist()})
            continue
        coded = _coded(rows.column(name))
        values = coded.dictionary.to_pylist()
        codes = None if len(values) == len(coded) else coded.indices.to_pylist()
        columns.append({"name": name, "values": values, "codes": codes})
    return {"num": rows.num_rows, "columns": columns}


def facet_counts(rows: pa.Table) -> dict[str, dict[str, int]]:
    """Return how many of the shown rows have each value, for the columns that rows are chosen by."""
    counts: dict[str, dict[str, int]] = {}
    for name in rows.column_names:
        if name in FACETS or name.startswith("x_"):
            coded = _coded(rows.column(name))
            if len(coded.dictionary) <= FACET_VALUES_MAX:
                numbers = np.bincount(np.asarray(coded.indices), minlength=len(coded.dictionary)).tolist()
                counts[name] = dict(zip(coded.dictionary.to_pylist(), numbers, strict=True))
    return counts


def _coded(column: pa.ChunkedArray) -> pa.DictionaryArray:
    return column.combine_chunks().dictionary_encode()


def _texts(column: pa.ChunkedArray) -> pa.Array:
    """Return a column's values as people write them."""
    whole = column.combine_chunks()
    if pa.types.is_dictionary(whole.type):
        whole = whole.dictionary_decode()
    if pa.types.is_nested(whole.type):
        return pa.array([_text(value) for value in python_values(whole)], pa.string())
    coded = whole.dictionary_encode()
    values = pa.array([_text(value) for value in python_values(coded.dictionary)], pa.string())
    return values.take(coded.indices).fill_null("")


def _text(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float):
        return f"{value:.12g}"
    return value.isoformat() if isinstance(value, dt.date | dt.time) else str(value)


def _each(rows: pa.Table, names: Sequence[str], text: Callable[..., str]) -> pa.Array:
    """Return a text made from the values of some columns, row by row."""
    columns = [rows.column(name).to_pylist() for name in names]
    return pa.array([text(*values) for values in zip(*columns, strict=True)], pa.string())


def _size(width: int | None, height: int | None) -> str:
    return f"{width} x {height}" if width else ""


def _length(num_frames: int | None, fps: float | None, media_type: str | None) -> str:
    return f"{num_frames} frames, {fps or 0:g} fps" if (media_type or "").startswith("video/") else ""


def _listed(*roles: str | list[str] | None) -> str:
    """Return the URLs of all source columns, one a line: `images` has a list, any other at most one."""
    urls = [[role] if isinstance(role, str) else role or [] for role in roles]
    return "\n".join(url for listed in urls for url in listed)


def _asset(asset: str | None, request_id: str, key: str, n: int | None) -> str:
    """Return the suffix of an asset whose name follows from the row, as all do; else its path."""
    stem, _, suffix = (asset or "").rpartition(".")
    return suffix if stem == f"assets/{request_id}-{key[:8]}-{n}" else asset or ""


def merged_facets(chunks: Sequence[Mapping[str, Mapping[str, int]]]) -> list[dict[str, Any]]:
    """Return the columns that rows are chosen by over all chunks, each with its values and their counts by chunk.

    A column with more than `FACET_VALUES_MAX` values in all of them is left out.
    """
    names = dict.fromkeys(name for counts in chunks for name in counts)
    facets = []
    for name in names:
        values = list(dict.fromkeys(value for counts in chunks for value in counts.get(name, {})))
        if len(values) > FACET_VALUES_MAX or any(name not in counts for counts in chunks):
            continue
        places = {value: place for place, value in enumerate(values)}
        by_chunk = [[[places[value], count] for value, count in counts[name].items()] for counts in chunks]
        facets.append({"name": name, "values": values, "counts": by_chunk})
    return facets
