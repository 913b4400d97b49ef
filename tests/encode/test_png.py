"""PNG files as we write them: every pixel, every text, for any reader, and small."""

from __future__ import annotations

import io
import zlib

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from sdbatch.encode import png
from sdbatch.encode.png import encode_png

# H and W pixels, C = 3 channels.


def _noise(height: int, width: int) -> NDArray[np.uint8]:
    return np.random.default_rng(height * width).integers(0, 256, (height, width, 3), dtype=np.uint8)


def _smooth(side: int) -> NDArray[np.uint8]:
    """Return a picture whose neighbouring pixels are alike, with the grain of a photograph."""
    coarse = Image.fromarray(_noise(12, 12)).resize((side, side), Image.Resampling.BICUBIC)
    grain = np.random.default_rng(1).integers(-3, 4, (side, side, 3))
    return np.clip(np.asarray(coarse) + grain, 0, 255).astype(np.uint8)


def _read(data: bytes) -> NDArray[np.uint8]:
    with Image.open(io.BytesIO(data), formats=("PNG",)) as image:
        image.verify()  # the checksums of the chunks
    with Image.open(io.BytesIO(data), formats=("PNG",)) as image:
        return np.asarray(image)


@pytest.mark.parametrize(("height", "width"), [(1, 1), (1, 300), (300, 1), (61, 93), (64, 64), (200, 1501)])
def test_every_pixel_of_any_size_reads_back(height: int, width: int) -> None:
    image_HWC = _noise(height, width)

    assert np.array_equal(_read(encode_png(image_HWC, [])), image_HWC)


def test_strips_meet_without_a_seam(monkeypatch: pytest.MonkeyPatch) -> None:
    image_HWC = _noise(40, 30)
    whole = encode_png(image_HWC, [])

    for rows in (1, 7, 39):
        monkeypatch.setattr(png, "_STRIP_BYTES", rows * 30 * 3)
        assert encode_png(image_HWC, []) == whole


def test_pixels_that_lie_apart_in_memory_are_read_as_they_are() -> None:
    image_HWC = _noise(40, 60)[::2, ::3]

    assert np.array_equal(_read(encode_png(image_HWC, [])), image_HWC)


def test_texts_read_back_in_their_order() -> None:
    texts = [("sdbatch", 'Füchse — 狐 🦊 "quoted"\n\tand \\'), ("Software", "sdbatch"), ("XML:com.adobe.xmp", "<x/>")]

    with Image.open(io.BytesIO(encode_png(_noise(8, 8), texts))) as image:
        assert [(name, str(image.info[name])) for name, _ in texts] == [
            texts[0],
            texts[1],
            ("XML:com.adobe.xmp", "<x/>"),
        ]


def test_a_picture_with_grain_takes_fewer_bytes_than_pillow_writes() -> None:
    image_HWC = _smooth(256)
    buffer = io.BytesIO()
    Image.fromarray(image_HWC).save(buffer, "PNG", compress_level=1)

    ours = len(encode_png(image_HWC, []))

    assert ours < len(buffer.getvalue()) < len(zlib.compress(image_HWC.tobytes()))
