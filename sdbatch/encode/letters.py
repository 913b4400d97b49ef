"""Which letters a font has."""

from __future__ import annotations

from typing import Final

from PIL.ImageFont import FreeTypeFont

_NO_LETTER: Final = "\U0010ffff"
"""No character: every font draws what it draws for one that it does not have."""


def lacking_letters(font: FreeTypeFont, text: str) -> list[str]:
    """Return the letters of a text that a font does not have, each once."""
    unknown = bytes(font.getmask(_NO_LETTER))
    return sorted({letter for letter in text if not letter.isspace() and bytes(font.getmask(letter)) == unknown})
