"""What columns hold, as far as expressions compare it.

Arrow type --> kind_of() --> Kind
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final, Literal

import pyarrow as pa

from sdbatch.columns import MANIFEST

Kind = Literal["text", "number", "boolean", "date", "timestamp", "texts", "null", "other"]
"""What a column holds. `texts` are lists of texts, `null` is a column without any value, `other` cannot be compared."""

CALLED: Final[Mapping[str, str]] = {
    "text": "text",
    "number": "a number",
    "boolean": "true or false",
    "date": "a date",
    "timestamp": "a time",
    "texts": "a list of texts",
    "null": "null",
    "other": "of a kind that cannot be compared",
}
"""What a kind is called in messages."""


def kind_of(kind: pa.DataType) -> Kind:
    """Return what a column of an Arrow type holds."""
    if pa.types.is_dictionary(kind):
        return kind_of(kind.value_type)
    if pa.types.is_list(kind) or pa.types.is_large_list(kind):
        return "texts" if kind_of(kind.value_type) == "text" else "other"
    return next((name for name, test in _TESTS if test(kind)), "other")


def is_text(kind: pa.DataType) -> bool:
    """Whether an Arrow type holds text of any width."""
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind))


_TESTS: Final[tuple[tuple[Kind, Callable[[pa.DataType], bool]], ...]] = (
    ("text", is_text),
    ("boolean", pa.types.is_boolean),
    ("number", pa.types.is_integer),
    ("number", pa.types.is_floating),
    ("number", pa.types.is_decimal),
    ("date", pa.types.is_date),
    ("timestamp", pa.types.is_timestamp),
    ("null", pa.types.is_null),
)

MANIFEST_KINDS: Final[Mapping[str, Kind]] = {name: kind_of(column.type) for name, column in MANIFEST.items()}
"""What the manifest's columns hold, x_* apart."""
