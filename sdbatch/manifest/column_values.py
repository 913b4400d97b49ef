"""One column of a Parquet batch becomes Python values, and the rows whose value does not fit.

    Arrow column --> column_values() --> values, refused rows      x_* --> own_column() --> Arrow column, refused rows

Most columns of most batches hold exactly what the manifest wants, which a glance at the whole column tells; only where
one does not is every value read by itself (`values.read_value`).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from sdbatch.columns import seed_problem
from sdbatch.manifest.schema import COLUMNS, is_list, is_text, plain_type
from sdbatch.manifest.values import LIST_ITEMS_MAX, NORMALIZED, ValueRefused, normal_text, read_value

Refused = dict[int, tuple[Any, str]]
"""By offset of the row: the value, and what is wrong with it."""

_NOT_TEXT: Final = b""
_DAY_US = 86_400_000_000
_YEAR_1_DAYS, _YEAR_9999_DAYS = -719_162, 2_932_896
"""Days since 1970 of 0001-01-01 and 9999-12-31, between which Python and most databases have dates."""
_UNITS_PER_DAY = {"s": 86_400, "ms": 86_400_000, "us": _DAY_US, "ns": 1000 * _DAY_US}


def column_values(name: str, column: pa.ChunkedArray) -> tuple[list[Any], Refused]:
    """Return a manifest column as Python values, None where one is refused, and the refused ones."""
    if column.null_count == len(column):
        return [None] * len(column), {}
    refused: Refused = {}
    if is_list(column.type):
        column, refused = _without_long_lists(column)
    elif (values := _as_they_are(name, column)) is not None:
        return values, {}
    values = []
    for offset, value in enumerate(python_values(column)):
        if value is _NOT_TEXT:
            values.append(None)
            refused[offset] = (None, "is not UTF-8 text")
            continue
        try:
            values.append(read_value(name, value))
        except ValueRefused as error:
            values.append(None)
            refused[offset] = (value, str(error))
    return values, refused


def _as_they_are(name: str, column: pa.ChunkedArray) -> list[Any] | None:
    """Return the values of a column that fit without a change; None when one may not."""
    wanted, kind = COLUMNS[name], plain_type(column.type)
    try:
        if is_text(kind):
            return _texts_as_they_are(name, column) if not pa.types.is_floating(wanted) else None
        if pa.types.is_integer(kind) and pa.types.is_integer(wanted):
            values = _spelled_out(column)
            found = [value for value in values if value is not None]
            return values if _are_in_range(name, min(found), max(found)) else None
        if pa.types.is_float64(kind) and pa.types.is_floating(wanted):
            is_plain = pc.all(pc.is_finite(column)).as_py() if not pa.types.is_dictionary(column.type) else False
            return column.to_pylist() if is_plain else None
    except UnicodeDecodeError:
        return None  # which row it is, is found out value by value
    return None


def _texts_as_they_are(name: str, column: pa.ChunkedArray) -> list[Any] | None:
    """Return texts; rows share the string of an equal one, and each distinct text is brought to normal form once."""
    is_listed = pa.types.is_list(COLUMNS[name])
    values: list[Any] = []
    for chunk in column.chunks:
        texts, places = _distinct(chunk)
        if is_listed and any(text and text.lstrip().startswith("[") for text in texts):
            return None
        if name in NORMALIZED:
            texts = _normal_texts(texts)
        values.extend(texts if places is None else [None if place is None else texts[place] for place in places])
    return values


def _distinct(chunk: pa.Array) -> tuple[list[Any], list[int | None] | None]:
    """Return a chunk's texts, and where each row's stands among them; None where they are in the order of the rows."""
    if pa.types.is_dictionary(chunk.type):
        if len(chunk.dictionary) <= len(chunk):
            return chunk.dictionary.to_pylist(), chunk.indices.to_pylist()
        chunk = chunk.dictionary_decode()
    return chunk.to_pylist(), None


def _normal_texts(texts: Sequence[str | None]) -> list[str | None]:
    joined = "".join(filter(None, texts))
    if joined.isascii() and "\r" not in joined:
        return list(texts)
    return [normal_text(text) if text else text for text in texts]


def _are_in_range(name: str, least: int, most: int) -> bool:
    if name == "seed":
        return not (seed_problem(least) or seed_problem(most))
    width: int = COLUMNS[name].bit_width - 1
    return bool(-(2**width) <= least and most < 2**width)


def python_values(column: pa.ChunkedArray) -> Iterator[Any]:
    """Yield values; a float32 through its shortest decimal, bytes that are no text as `_NOT_TEXT`."""
    narrow = _has_narrow_float(column.type)
    try:
        values = _spelled_out(column)
    except UnicodeDecodeError:
        values = [_text_or_mark(scalar) for chunk in column.chunks for scalar in chunk]
    yield from (_shortest(value, column.type) for value in values) if narrow else values


def _spelled_out(column: pa.ChunkedArray) -> list[Any]:
    values: list[Any] = []
    for chunk in column.chunks:
        if pa.types.is_dictionary(chunk.type):
            distinct = chunk.dictionary.to_pylist()
            values.extend(None if place is None else distinct[place] for place in chunk.indices.to_pylist())
        else:
            values.extend(chunk.to_pylist())
    return values


def _text_or_mark(scalar: pa.Scalar) -> Any:
    try:
        return scalar.as_py()
    except UnicodeDecodeError:
        return _NOT_TEXT


def _has_narrow_float(kind: pa.DataType) -> bool:
    kind = plain_type(kind)
    if is_list(kind):
        return _has_narrow_float(kind.value_type)
    if pa.types.is_struct(kind):
        return any(_has_narrow_float(kind.field(number).type) for number in range(kind.num_fields))
    return bool(pa.types.is_float32(kind) or pa.types.is_float16(kind))


def _shortest(value: Any, kind: pa.DataType) -> Any:
    """Return a value whose narrow floats are what a person would have written: 0.7, not 0.699999988079071."""
    kind = plain_type(kind)
    if value is None:
        return None
    if is_list(kind):
        return [_shortest(item, kind.value_type) for item in value]
    if pa.types.is_struct(kind):
        return {name: _shortest(item, kind.field(name).type) for name, item in value.items()}
    if pa.types.is_float32(kind):
        return float(str(np.float32(value)))
    return float(str(np.float16(value))) if pa.types.is_float16(kind) else value


def _without_long_lists(column: pa.ChunkedArray) -> tuple[pa.ChunkedArray, Refused]:
    """Return lists with null for those over the cap, before any item becomes a Python value."""
    if any(_is_view(chunk.type) for chunk in column.chunks):
        column = column.cast(pa.large_list(column.type.value_type))
    lengths = pc.fill_null(pc.list_value_length(column), 0)
    over = np.flatnonzero(np.asarray(pc.greater(lengths, LIST_ITEMS_MAX)))
    if not len(over):
        return column, {}
    message = f"items are over {LIST_ITEMS_MAX} in one row"
    refused: Refused = {offset: (lengths[offset].as_py(), message) for offset in over.tolist()}
    rows = np.arange(len(column), dtype=np.int64)
    rows[over] = -1
    kept = pa.array(rows, mask=rows < 0)
    return pa.chunked_array([column.combine_chunks().take(kept)]), refused


def _is_view(kind: pa.DataType) -> bool:
    return bool(pa.types.is_list_view(kind) or pa.types.is_large_list_view(kind))


def own_column(column: pa.ChunkedArray, kind: pa.DataType) -> tuple[pa.ChunkedArray, Refused]:
    """Return an x_* column in the type in which it is carried, null where a value is refused, and the refused ones."""
    if pa.types.is_dictionary(column.type):
        column = column.cast(column.type.value_type)
    if isinstance(column.type, pa.BaseExtensionType):
        column = pa.chunked_array([chunk.storage for chunk in column.chunks], column.type.storage_type)
    refused: Refused = {}
    if pa.types.is_temporal(column.type):
        refused = _times_refused(column)
    elif is_text(column.type):
        refused = _texts_refused(column)
    if refused:
        column = _with_nulls(column, list(refused))
    return column.cast(kind), refused


def _times_refused(column: pa.ChunkedArray) -> Refused:
    """Find dates and timestamps that Python and most databases do not have, and nanoseconds that would be lost."""
    kind = column.type
    is_date32 = pa.types.is_date32(kind)
    per_day = 1 if is_date32 else _UNITS_PER_DAY["ms" if pa.types.is_date64(kind) else kind.unit]
    counts = _int64(column, pa.int32() if is_date32 else pa.int64())
    # In its own time zone a moment can be up to a day away from what it is in UTC.
    margin = 1 if pa.types.is_timestamp(kind) and kind.tz else 0
    days = counts // per_day
    refused: Refused = {}
    for offset in np.flatnonzero((days < _YEAR_1_DAYS + margin) | (days > _YEAR_9999_DAYS - margin)).tolist():
        refused[offset] = (int(counts[offset]), f"as {kind} is outside of the years 1 to 9999")
    if pa.types.is_timestamp(kind) and kind.unit == "ns":
        for offset in np.flatnonzero(counts % 1000).tolist():
            refused.setdefault(offset, (int(counts[offset]), "nanoseconds since 1970 are not whole microseconds"))
    return refused


def _int64(column: pa.ChunkedArray, kind: pa.DataType) -> NDArray[np.int64]:
    """Return the numbers behind dates or timestamps, 0 for null."""
    parts = [np.asarray(pc.fill_null(chunk.view(kind), 0)).astype(np.int64) for chunk in column.chunks]
    return np.concatenate(parts) if parts else np.zeros(0, np.int64)


def _texts_refused(column: pa.ChunkedArray) -> Refused:
    try:
        for chunk in column.chunks:
            chunk.validate(full=True)
    except (pa.ArrowException, UnicodeDecodeError):
        scalars = (scalar for chunk in column.chunks for scalar in chunk)
        broken = [offset for offset, scalar in enumerate(scalars) if _text_or_mark(scalar) is _NOT_TEXT]
        return dict.fromkeys(broken, (None, "is not UTF-8 text"))
    return {}


def _with_nulls(column: pa.ChunkedArray, offsets: Sequence[int]) -> pa.ChunkedArray:
    is_kept = np.ones(len(column), np.bool_)
    is_kept[list(offsets)] = False
    return pc.if_else(pa.array(is_kept), column, pa.scalar(None, column.type))
