"""What a file says of itself: the request it was made for, and the recipe it was made by.

It holds no time, run, worker or attempt: the same request gives the same bytes.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any


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


def embedded_values(request_key: str, n: int, recipe: str, **more: Any) -> dict[str, Any]:
    """Return what is embedded.

    Args:
        request_key: 64 hex digits.
        n: Output number.
        recipe: Canonical JSON.
        more: What else a medium says.
    """
    return {"format_version": 1, "request_key": request_key, "n": n, **more, "recipe": json.loads(recipe)}


def as_text(values: dict[str, Any]) -> str:
    """Return it as JSON, always the same for the same values."""
    return json.dumps(values, ensure_ascii=False, sort_keys=True, separators=(",", ":"))


def from_text(text: str) -> dict[str, Any] | None:
    """Return what `as_text` was given, None when the text is another program's."""
    try:
        values = json.loads(text)
    except ValueError:
        return None
    return values if isinstance(values, dict) and values.keys() >= {"request_key", "n"} else None
