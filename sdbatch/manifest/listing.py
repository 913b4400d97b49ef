"""The README's table of manifest columns, which `make columns` writes.

MANIFEST --> markdown() --> between the marks of README.md
"""

from __future__ import annotations

import pyarrow as pa

from sdbatch.columns import MANIFEST, Range
from sdbatch.families.listing import between_marks

BEGIN, END = "<!-- columns: made by `make columns` -->", "<!-- /columns -->"
_OWN = (
    "| `x_*` | text, numbers, booleans, dates, timestamps | your own columns, carried unchanged into the metadata; "
    "timestamps in microseconds, years 1 to 9999 |"
)


def markdown() -> str:
    """Return the table of columns, one line for each."""
    lines = ["| column | type | meaning |", "|---|---|---|"]
    for name, column in MANIFEST.items():
        shows_bound = isinstance(column.bound, Range) and not column.family_bounds and column.use != "seed"
        bound = f"; {column.bound}" if shows_bound else ""
        lines.append(f"| `{name}` | {_type(column.type)} | {column.meaning}{bound} |")
    return "\n".join([*lines, _OWN])


def in_readme(text: str) -> str:
    """Return a README with the current table. Raises ValueError when the marks are not there."""
    return between_marks(text, BEGIN, END, markdown())


def _type(kind: pa.DataType) -> str:
    if pa.types.is_list(kind):
        item = "struct" if pa.types.is_struct(kind.value_type) else _type(kind.value_type)
        return f"list of {item}" + (", or string" if item == "string" else "")
    return {"int32": "int", "double": "float"}.get(str(kind), str(kind))
