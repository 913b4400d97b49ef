"""A grid of pictures with labels, as one PNG.

    axis labels, sections of labelled pictures --> contact_sheet() --> bytes of a PNG

Pictures come one by one and are drawn at once, so that none is held twice.
"""

from __future__ import annotations

import io
import math
from collections.abc import Iterable, Sequence
from typing import Final, NamedTuple

from PIL import Image, ImageDraw, ImageFont

SIDE_PIXELS: Final = 256
"""Longest side of a picture in the sheet; of many pictures each is smaller."""
SIDE_PIXELS_MIN: Final = 48
SHEET_PIXELS_MAX: Final = 60_000_000
SMOOTH_FROM: Final = 4
"""A picture that is enlarged by less is enlarged smoothly; the pixels of a tiny one are what there is to see."""
_GAP: Final = 8
_MARGIN: Final = 16
_LABEL: Final = 16
_TITLE: Final = 20
_SIDE_LABEL_PIXELS: Final = 250
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
    label, title = ImageFont.load_default(_LABEL - 2), ImageFont.load_default(_TITLE - 2)
    for number, section in enumerate(sections):
        top = _MARGIN + number * height_each
        draw.text((_MARGIN, top), _within(section.title, title, size[0] - 2 * _MARGIN), _INK, title)
        for place, text in enumerate(x[1]):
            words = _within(f"{x[0]} {text}", label, side)
            draw.text((left + place * (side + _GAP), top + head - _LABEL - _GAP), words, _FAINT, label)
        for place, text in enumerate(y[1]) if y else ():
            middle = top + head + place * (side + _GAP) + side // 2
            for offset, said in ((-_LABEL, y[0] if y else ""), (0, text)):
                words = _within(said, label, _SIDE_LABEL_PIXELS - _GAP)
                draw.text((_MARGIN, middle + offset), words, _FAINT, label)
        for cell in section.cells:
            place_xy = (left + cell.x * (side + _GAP), top + head + cell.y * (side + _GAP))
            _draw_cell(sheet, draw, place_xy, side, cell, label)
    file = io.BytesIO()
    sheet.save(file, "PNG", compress_level=6)
    return file.getvalue()


def _draw_cell(
    sheet: Image.Image,
    draw: ImageDraw.ImageDraw,
    place: tuple[int, int],
    side: int,
    cell: Labelled,
    font: ImageFont.FreeTypeFont | ImageFont.ImageFont,
) -> None:
    left, top = place
    if cell.picture is None:
        draw.rectangle((left, top, left + side - 1, top + side - 1), fill=_EMPTY)
        draw.text((left + _GAP, top + side // 2 - _LABEL // 2), _within(cell.text, font, side - 2 * _GAP), _FAINT, font)
        return
    scale = side / max(cell.picture.size)
    size = (max(1, round(cell.picture.width * scale)), max(1, round(cell.picture.height * scale)))
    way = Image.Resampling.NEAREST if scale >= SMOOTH_FROM else Image.Resampling.LANCZOS
    sheet.paste(cell.picture.resize(size, way), (left + (side - size[0]) // 2, top + (side - size[1]) // 2))


def _within(text: str, font: ImageFont.FreeTypeFont | ImageFont.ImageFont, width: int) -> str:
    """Return a text cut to a width in pixels; what was cut shows as three points."""
    text = " ".join(text.split())[:200]
    if font.getlength(text) <= width:
        return text
    while text and font.getlength(f"{text}...") > width:
        text = text[:-1]
    return f"{text}..."
