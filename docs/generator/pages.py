"""Generated pieces stand between marks in the pages; what is around them is written by people.

<!-- generated: columns -->
...
<!-- /generated: columns -->
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

DOCS: Final = Path(__file__).parents[1]
_PIECE: Final = re.compile(r"<!-- generated: (?P<name>[a-z-]+) -->.*?<!-- /generated: (?P=name) -->", re.DOTALL)


def with_pieces(text: str, pieces: Mapping[str, Callable[[], str]]) -> str:
    """Return a page with the current text of each piece that it has marks for.

    Raises:
        KeyError: When a page asks for a piece that is not there.
        ValueError: When a mark has no counterpart.
    """
    filled = _PIECE.sub(lambda match: _between(match["name"], pieces[match["name"]]()), text)
    if filled.count("<!-- generated: ") != len(_PIECE.findall(filled)):
        raise ValueError("a mark `<!-- generated: NAME -->` is not closed by `<!-- /generated: NAME -->`")
    return filled


def names_in(text: str) -> list[str]:
    """Return the pieces that a page has marks for, in its order."""
    return [match["name"] for match in _PIECE.finditer(text)]


def pages() -> list[Path]:
    """Return every page of the documentation, the texts that wait for their place left out."""
    return [page for page in sorted(DOCS.rglob("*.md")) if DOCS / "new" not in page.parents]


def _between(name: str, content: str) -> str:
    return f"<!-- generated: {name} -->\n\n{content}\n\n<!-- /generated: {name} -->"
