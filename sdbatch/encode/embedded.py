"""The origin that every file embeds: the key of its request, and the recipe.

It holds no time, run, worker or attempt: the same request gives the same bytes.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any, Final

FORMAT_VERSION: Final = 1
"""Version of the embedded text's form."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Encoded:
    """One file, ready to be put.

    Attributes:
        data: Content of the whole file.
        suffix: Suffix of the file name, without the dot.
        media_type: Media type, for the store and the metadata.
    """

    data: bytes
    suffix: str
    media_type: str


def embedded_text(request_key: str, n: int, recipe: str | None, **more: int) -> str:
    """Return the text to embed, JSON with sorted keys: equal values give an equal text.

    Args:
        request_key: 64 hex digits.
        n: Output number.
        recipe: Canonical JSON, which stands in the text as it is; None leaves it out.
        more: Further values of a medium, such as a clip's number of frames.
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
