"""What a file holds of its origin: the key of its request, and the recipe.

It holds no time, run, worker or attempt: the same request gives the same bytes.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any, Final

FORMAT_VERSION: Final = 1
"""Form of what is embedded."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Encoded:
    """One file, ready to be put.

    Attributes:
        data: Whole content.
        suffix: Of its name, without the dot.
        media_type: For the store and the metadata.
    """

    data: bytes
    suffix: str
    media_type: str


def embedded_text(request_key: str, n: int, recipe: str | None, **more: int) -> str:
    """Return what is embedded, as JSON with sorted keys: always the same text for the same values.

    Args:
        request_key: 64 hex digits.
        n: Output number.
        recipe: Canonical JSON, which stands in the text as it is; None leaves it out.
        more: What else a medium says.
    """
    values = {name: str(value) for name, value in {"format_version": FORMAT_VERSION, "n": n, **more}.items()}
    values["request_key"] = json.dumps(request_key)
    if recipe is not None:
        values["recipe"] = recipe
    return "{" + ",".join(f'"{name}":{values[name]}' for name in sorted(values)) + "}"


def from_text(text: str) -> dict[str, Any] | None:
    """Return the values of an `embedded_text`, None when the text is another program's."""
    try:
        values = json.loads(text)
    except ValueError:
        return None
    return values if isinstance(values, dict) and values.keys() >= {"request_key", "n"} else None
