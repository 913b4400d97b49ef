"""Which letters of a text a font does not have."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final, Protocol

_NO_LETTER: Final = "\U0010ffff"
"""No character: every font draws what it draws for one that it does not have."""


class Font(Protocol):
    """What is asked of a font; Pillow's are such."""

    def getmask(self, text: str) -> Iterable[int]:
        """Return the pixels of a text."""


def lacking_letters(font: Font, text: str) -> list[str]:
    """Return the letters of a text that a font does not have, each once."""
    unknown = bytes(font.getmask(_NO_LETTER))
    return sorted({letter for letter in text if not letter.isspace() and bytes(font.getmask(letter)) == unknown})
