"""A label that is seen: words on a dark ground in a corner of a picture.

Label + size --> label_image() --> RGBA --> labelled() --> picture with its label; clips lay it on with ffmpeg
"""

from __future__ import annotations

from functools import cache
from typing import Final

from PIL import Image, ImageDraw, ImageFont

from sdbatch.deliver.marking import Label
from sdbatch.errors import EncodeFailed, JobError

LABEL_VERSION: Final = 1
"""Raised when the same label gives other pixels."""
LETTERS_PIXELS_MIN: Final = 8
"""Height of letters below which nobody reads them."""
_GROUND: Final = (0, 0, 0, 176)
_LETTERS: Final = (255, 255, 255, 255)


def check_label(label: Label) -> None:
    """Refuse a label that would not be seen as it is written: blank, of several lines, with columns or unknown letters.

    Raises:
        JobError: Naming what is wrong.
    """
    if not label.text.strip() or len(label.text.splitlines()) > 1:
        raise JobError(f"label.text: {label.text!r} is not one line of words")
    if "{" in label.text:
        raise JobError(
            f"label.text: {label.text!r} has a brace; a label is the same on every file, and takes no columns"
        )
    font = _font(32)
    unknown = bytes(font.getmask("\U0010ffff"))
    lacking = sorted(
        {letter for letter in label.text if not letter.isspace() and bytes(font.getmask(letter)) == unknown}
    )
    if lacking:
        raise JobError(f"label.text: {label.text!r} has {' '.join(lacking)}, which the label's font does not have")


def label_image(label: Label, width: int, height: int) -> Image.Image:
    """Return the label of a picture of some size, RGBA.

    Raises:
        EncodeFailed: When it is wider than the picture even where its letters are as small as can be read.
    """
    pixels = max(round(min(width, height) * label.height), LETTERS_PIXELS_MIN)
    while True:
        font = _font(pixels)
        left, top, right, bottom = font.getbbox(label.text)
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
    ImageDraw.Draw(image).text((edge - left, edge - top), label.text, font=font, fill=_LETTERS)
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


@cache
def _font(pixels: int) -> ImageFont.FreeTypeFont:
    font = ImageFont.load_default(pixels)
    assert isinstance(font, ImageFont.FreeTypeFont), "Pillow's wheels have FreeType"
    return font
