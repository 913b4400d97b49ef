"""A label that is seen: words on a dark ground in a corner of a picture.

Label + size --> label_image() --> RGBA --> labelled() --> picture with its label; clips lay it on with ffmpeg
"""

from __future__ import annotations

import hashlib
import unicodedata
from functools import cache
from pathlib import Path
from typing import Any, Final

from PIL import Image, ImageDraw, ImageFont, features

from sdbatch.deliver.marking import Label
from sdbatch.errors import EncodeFailed, JobError
from sdbatch.letters import lacking_letters

LABEL_VERSION: Final = 1
"""Raised when the same label gives other pixels."""
LETTERS_PIXELS_MIN: Final = 8
"""Height of letters below which nobody reads them."""
FONT_BYTES_MAX: Final = 100 << 20
"""Longest file of a font; those of all Chinese, Japanese and Korean letters have some 20 MB."""
_GROUND: Final = (0, 0, 0, 176)
_LETTERS: Final = (255, 255, 255, 255)


def check_label(label: Label) -> None:
    """Refuse a label that would not be seen as it is written: blank, of several lines, with columns or unknown letters.

    Letters that join or change their order, such as Arabic ones, are set by Raqm, which not every Pillow has.

    Raises:
        JobError: Naming what is wrong.
    """
    if not label.text.strip() or len(label.text.splitlines()) > 1:
        raise JobError(f"label.text: {label.text!r} is not one line of words")
    if "{" in label.text:
        raise JobError(
            f"label.text: {label.text!r} has a brace; a label is the same on every file, and takes no columns"
        )
    text = _letters(label)
    if lacking := lacking_letters(_font(label.font, 32), text):
        hint = "" if label.font else "; name another in label.font by its path, such as fonts/DejaVuSans.ttf"
        raise JobError(
            f"label.text: {label.text!r} has {' '.join(lacking)}, which the label's font does not have{hint}"
        )
    if not features.check("raqm") and any(map(_is_set_by_raqm, text)):
        raise JobError(
            f"label.text: {label.text!r} has letters that join or run from right to left, which Pillow sets with Raqm "
            "and FriBiDi; install FriBiDi (Debian: libfribidi0)"
        )


def label_values(label: Label) -> dict[str, Any]:
    """Return everything that decides what a label looks like: of a font its content, wherever it lies."""
    values = {"version": LABEL_VERSION, **label.model_dump(exclude={"font"})}
    return values if label.font is None else {**values, "font": _font_digest(label.font)}


def label_image(label: Label, width: int, height: int) -> Image.Image:
    """Return the label of a picture of some size, RGBA.

    Raises:
        EncodeFailed: When it is wider than the picture even where its letters are as small as can be read.
    """
    text = _letters(label)
    pixels = max(round(min(width, height) * label.height), LETTERS_PIXELS_MIN)
    while True:
        font = _font(label.font, pixels)
        left, top, right, bottom = font.getbbox(text)
        edge = max(pixels // 3, 2)
        size = (round(right - left) + 2 * edge, round(bottom - top) + 2 * edge)
        if size[0] <= width and size[1] <= height:
            break
        if pixels <= LETTERS_PIXELS_MIN:
            raise EncodeFailed(
                f"the label {label.text!r} takes {size[0]} x {size[1]} pixels, which {width} x {height} do not hold"
            )
        pixels = max(pixels * 3 // 4, LETTERS_PIXELS_MIN)
    image = Image.new("RGBA", size, _GROUND)
    ImageDraw.Draw(image).text((edge - left, edge - top), text, font=font, fill=_LETTERS)
    return image


def label_place(label: Label, size: tuple[int, int], of: tuple[int, int]) -> tuple[int, int]:
    """Return where a label's left upper corner lies on a picture.

    Args:
        label: The label.
        size: Its width and height.
        of: The picture's.
    """
    margin = min(max(min(of) // 50, 0), (of[0] - size[0]) // 2, (of[1] - size[1]) // 2)
    left = margin if label.place.endswith("left") else of[0] - size[0] - margin
    top = margin if label.place.startswith("top") else of[1] - size[1] - margin
    return left, top


def labelled(image: Image.Image, label: Label) -> Image.Image:
    """Return a picture (RGB) with its label."""
    words = label_image(label, *image.size)
    shown = image.copy()
    shown.paste(words.convert("RGB"), label_place(label, words.size, image.size), words.getchannel("A"))
    return shown


def _letters(label: Label) -> str:
    """Return the text with each accent in its letter, as fonts have them."""
    return unicodedata.normalize("NFC", label.text)


def _is_set_by_raqm(letter: str) -> bool:
    return unicodedata.bidirectional(letter) in {"R", "AL"} or unicodedata.category(letter) in {"Mc", "Mn"}


@cache
def _font(file: str | None, pixels: int) -> ImageFont.FreeTypeFont:
    try:
        font = ImageFont.load_default(pixels) if file is None else ImageFont.truetype(_font_file(file), pixels)
    except OSError as error:
        raise JobError(f"label.font: {file!r} cannot be read as a font ({error}); TTF, OTF and TTC are") from error
    assert isinstance(font, ImageFont.FreeTypeFont), "Pillow's wheels have FreeType"
    return font


@cache
def _font_digest(file: str) -> str:
    return hashlib.sha256(_font_file(file).read_bytes()).hexdigest()


def _font_file(file: str) -> Path:
    """Return a font's file, where it is one: Pillow would look for a font of that name in the machine's folders."""
    path = Path(file)
    if not path.is_file():
        raise JobError(f"label.font: {file!r} is not a file of this machine")
    if path.stat().st_size > FONT_BYTES_MAX:
        raise JobError(f"label.font: {file!r} has {path.stat().st_size} bytes, over {FONT_BYTES_MAX}")
    return path
