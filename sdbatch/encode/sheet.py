"""A grid of pictures with labels, as one PNG.

    axis labels, sections of labelled pictures --> contact_sheet() --> bytes of a PNG

Pictures come one by one and are drawn at once, so that none is held twice.
"""

from __future__ import annotations

import io
import math
import unicodedata
from collections.abc import Iterable, Sequence
from contextlib import suppress
from functools import cache
from typing import Final, NamedTuple

from PIL import Image, ImageDraw, ImageFont

from sdbatch.letters import lacking_letters

SIDE_PIXELS: Final = 256
"""Longest side of a picture in the sheet; of many pictures each is smaller."""
SIDE_PIXELS_MIN: Final = 48
SHEET_PIXELS_MAX: Final = 60_000_000
SMOOTH_FROM: Final = 4
"""A picture that is enlarged by less is enlarged smoothly; the pixels of a tiny one are what there is to see."""
TEXT_CHARS_MAX: Final = 200
_GAP: Final = 8
_MARGIN: Final = 16
_LABEL: Final = 16
_TITLE: Final = 20
_SIDE_LABEL_PIXELS: Final = 250
_FONTS: Final = (
    "DejaVuSans.ttf",
    "NotoSans-Regular.ttf",
    "Arial.ttf",
    "NotoSansCJK-Regular.ttc",
    "Arial Unicode.ttf",
    "msyh.ttc",
)
"""Fonts of this machine that are asked for letters that Pillow's own has not, such as é; Pillow finds them by name."""
_INK, _FAINT, _GROUND, _EMPTY = "#1a1a1a", "#666666", "#ffffff", "#eeeeee"

Side = tuple[str, Sequence[str]]
"""An axis: its column, and the labels of its values."""


class Labelled(NamedTuple):
    """One cell.

    Attributes:
        x: Column, from 0.
        y: Row, from 0.
        picture: Its picture; None where there is none.
        text: What is said in its place.
    """

    x: int
    y: int
    picture: Image.Image | None
    text: str = ""


class SheetSection(NamedTuple):
    """The cells of one row of the manifest, under its title."""

    title: str
    cells: Iterable[Labelled]


def contact_sheet(x: Side, y: Side | None, sections: Sequence[SheetSection]) -> bytes:
    """Return a PNG that shows every section as a matrix, each column and row with its label.

    Args:
        x: The columns.
        y: The rows; None for one row.
        sections: Drawn one under the other.
    """
    num_x, num_y = len(x[1]), len(y[1]) if y else 1
    num_cells = max(1, num_x * num_y * len(sections))
    side = max(SIDE_PIXELS_MIN, min(SIDE_PIXELS, math.isqrt(SHEET_PIXELS_MAX // num_cells) - _GAP))
    left = _MARGIN + (_SIDE_LABEL_PIXELS if y else 0)
    head = _TITLE + 2 * _GAP + _LABEL + _GAP
    height_each = head + num_y * (side + _GAP) + _MARGIN
    size = (left + num_x * (side + _GAP) + _MARGIN, _MARGIN + len(sections) * height_each)
    sheet = Image.new("RGB", size, _GROUND)
    draw = ImageDraw.Draw(sheet)
    for number, section in enumerate(sections):
        top = _MARGIN + number * height_each
        _write(draw, (_MARGIN, top), section.title, _TITLE - 2, size[0] - 2 * _MARGIN, _INK)
        for place, text in enumerate(x[1]):
            place_xy = (left + place * (side + _GAP), top + head - _LABEL - _GAP)
            _write(draw, place_xy, f"{x[0]} {text}", _LABEL - 2, side)
        for place, text in enumerate(y[1]) if y else ():
            middle = top + head + place * (side + _GAP) + side // 2
            for offset, said in ((-_LABEL, y[0] if y else ""), (0, text)):
                _write(draw, (_MARGIN, middle + offset), said, _LABEL - 2, _SIDE_LABEL_PIXELS - _GAP)
        for cell in section.cells:
            place_xy = (left + cell.x * (side + _GAP), top + head + cell.y * (side + _GAP))
            _draw_cell(sheet, draw, place_xy, side, cell)
    file = io.BytesIO()
    sheet.save(file, "PNG", compress_level=6)
    return file.getvalue()


def _draw_cell(
    sheet: Image.Image,
    draw: ImageDraw.ImageDraw,
    place: tuple[int, int],
    side: int,
    cell: Labelled,
) -> None:
    left, top = place
    if cell.picture is None:
        draw.rectangle((left, top, left + side - 1, top + side - 1), fill=_EMPTY)
        _write(draw, (left + _GAP, top + side // 2 - _LABEL // 2), cell.text, _LABEL - 2, side - 2 * _GAP)
        return
    scale = side / max(cell.picture.size)
    size = (max(1, round(cell.picture.width * scale)), max(1, round(cell.picture.height * scale)))
    way = Image.Resampling.NEAREST if scale >= SMOOTH_FROM else Image.Resampling.LANCZOS
    sheet.paste(cell.picture.resize(size, way), (left + (side - size[0]) // 2, top + (side - size[1]) // 2))


def _write(
    draw: ImageDraw.ImageDraw, place: tuple[int, int], text: str, pixels: int, width: int, ink: str = _FAINT
) -> None:
    """Write a text, cut to a width in pixels; what was cut shows as three points."""
    text = " ".join(unicodedata.normalize("NFC", text).split())[:TEXT_CHARS_MAX]  # fonts have accents in their letters
    font, lacking = _font(text, pixels)
    known = "".join(unicodedata.normalize("NFD", letter)[0] if letter in lacking else letter for letter in text)
    draw.text(place, _within(known, font, width), ink, font)


def _within(text: str, font: ImageFont.FreeTypeFont, width: int) -> str:
    if font.getlength(text) <= width:
        return text
    while text and font.getlength(f"{text}...") > width:
        text = text[:-1]
    return f"{text}..."


def _font(text: str, pixels: int) -> tuple[ImageFont.FreeTypeFont, list[str]]:
    """Return the font that has most letters of a text, Pillow's own or one of this machine's; and those it lacks."""
    fonts = ((font, lacking_letters(font, text)) for font in _fonts(pixels))
    return min(fonts, key=lambda one: len(one[1]))


@cache
def _fonts(pixels: int) -> list[ImageFont.FreeTypeFont]:
    own = ImageFont.load_default(pixels)
    assert isinstance(own, ImageFont.FreeTypeFont), "Pillow's wheels have FreeType"
    fonts = [own]
    for name in _FONTS:
        with suppress(OSError):
            fonts.append(ImageFont.truetype(name, pixels))
    return fonts
