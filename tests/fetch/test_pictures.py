"""Sources become RGB of the asked size, by stated rules; strangers' files stop at the caps."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from PIL import Image

from sdbatch.errors import SourceTooLarge, SourceUnreadable
from sdbatch.fetch.pictures import decode_image, decode_mask, fit_image, fit_mask

CAP = 1_000_000


def _bytes(image: Image.Image, kind: str = "PNG", **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "AVIF"])
def test_each_format_is_read(kind: str) -> None:
    image = decode_image(_bytes(Image.new("RGB", (40, 20), (200, 100, 50)), kind), "a", CAP)

    assert (image.mode, image.size) == ("RGB", (40, 20))
    assert np.abs(np.asarray(image).astype(int) - (200, 100, 50)).max() <= 8


def test_transparent_parts_become_white_not_what_lies_under_them() -> None:
    image = decode_image(_bytes(Image.new("RGBA", (8, 8), (255, 0, 0, 0))), "a", CAP)

    assert np.asarray(image).min() == 255


def test_sixteen_bits_are_scaled_not_clipped() -> None:
    ramp = Image.fromarray(np.linspace(0, 65535, 256).astype(np.uint16).reshape(16, 16))
    values = np.asarray(decode_image(_bytes(ramp), "a", CAP))[..., 0]

    assert (values.min(), values.max()) == (0, 255)
    assert 120 < values.mean() < 135


def test_a_turned_photo_stands_upright() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    image = decode_image(_bytes(Image.new("RGB", (40, 20)), "JPEG", exif=exif), "a", CAP)

    assert image.size == (20, 40)


@pytest.mark.parametrize("mode", ["CMYK", "L", "P", "1"])
def test_every_mode_comes_out_as_rgb(mode: str) -> None:
    kind = "JPEG" if mode == "CMYK" else "PNG"

    assert decode_image(_bytes(Image.new("RGB", (8, 8), (9, 9, 9)).convert(mode), kind), "a", CAP).mode == "RGB"


def test_print_colours_come_out_as_they_look() -> None:
    image = decode_image(_bytes(Image.new("CMYK", (16, 16), (0, 255, 255, 0)), "JPEG"), "a", CAP)

    assert np.abs(np.asarray(image).astype(int) - (255, 0, 0)).max() <= 4


def test_a_palettes_transparent_colour_becomes_white() -> None:
    image = Image.new("P", (8, 8), 1)
    image.putpalette([0, 0, 0, 200, 0, 0])
    image.paste(0, (0, 0, 4, 8))
    values = np.asarray(decode_image(_bytes(image, transparency=0), "a", CAP))

    assert values[0, 0].tolist() == [255, 255, 255]
    assert values[0, 7].tolist() == [200, 0, 0]


@pytest.mark.parametrize("kind", ["WEBP", "PNG", "AVIF"])
def test_of_an_animation_the_first_frame_is_taken(kind: str) -> None:
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("red", "blue")]
    options = {"lossless": True} if kind == "WEBP" else {}
    image = decode_image(_bytes(frames[0], kind, save_all=True, append_images=frames[1:], **options), "a", CAP)

    assert np.abs(np.asarray(image).astype(int) - (255, 0, 0)).max() <= 4


def _eps() -> bytes:
    return b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\nshowpage\n"


def _half() -> bytes:
    data = _bytes(Image.effect_noise((64, 64), 50))
    return data[: len(data) // 2]


@pytest.mark.parametrize("make", [_eps, _half, lambda: b"", lambda: b"not a picture"])
def test_what_is_no_whole_picture_of_ours_is_unreadable(make: Callable[[], bytes]) -> None:
    with pytest.raises(SourceUnreadable, match=r"brand/a\.png"):
        decode_image(make(), "brand/a.png", CAP)


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def _bomb(width: int, height: int) -> bytes:
    """Return a PNG of a few bytes that says it is large."""
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + _chunk(b"IHDR", header) + _chunk(b"IDAT", zlib.compress(b"")) + _chunk(b"IEND", b"")


@pytest.mark.parametrize("side", [9_000, 60_000])
def test_a_bomb_is_refused_before_it_is_unpacked(side: int) -> None:
    with pytest.raises(SourceTooLarge):
        decode_image(_bomb(side, side), "a", 40_000_000)


def test_a_picture_over_the_cap_is_named_with_both_figures() -> None:
    with pytest.raises(SourceTooLarge, match="20 x 10 pixels are over 199"):
        decode_image(_bytes(Image.new("RGB", (20, 10))), "a", 199)


def test_cover_crops_the_middle_and_contain_keeps_all() -> None:
    wide = Image.new("RGB", (90, 30), "black")
    wide.paste(Image.new("RGB", (30, 30), "white"), (30, 0))

    assert fit_image(wide, 30, 30, "cover").min() == 255
    contained = fit_image(wide, 30, 30, "contain")
    assert contained.shape == (30, 30, 3)
    assert contained[15, 0].max() == 0
    assert contained[15, 15].min() > 200


# --- masks ----------------------------------------------------------------------------------------------------------


def _mask(width: int = 60, height: int = 30, mode: str = "L") -> Image.Image:
    """Black, with a white square in the middle third."""
    mask = Image.new("L", (width, height), 0)
    mask.paste(255, (width // 3, 0, 2 * width // 3, height))
    return mask.convert(mode)


@pytest.mark.parametrize(
    ("mode", "kind"), [("L", "PNG"), ("1", "PNG"), ("P", "PNG"), ("RGB", "JPEG"), ("RGBA", "WEBP")]
)
def test_a_mask_of_any_mode_is_one_channel_of_two_values(mode: str, kind: str) -> None:
    mask = decode_mask(_bytes(_mask(mode=mode), kind), "a", CAP)
    mask_HW = fit_mask(mask, (60, 30), 30, 60, "cover", "a")

    assert mask_HW.shape == (30, 60)
    assert set(np.unique(mask_HW)) == {0, 255}
    assert np.flatnonzero(mask_HW[15]).tolist() == list(range(20, 40))


def test_a_mask_with_transparent_parts_is_refused() -> None:
    mask = _mask(mode="RGBA")
    mask.putalpha(_mask())

    with pytest.raises(SourceUnreadable, match="a mask is black and white; this one has transparent parts"):
        decode_mask(_bytes(mask), "a", CAP)


@pytest.mark.parametrize("fit", ["cover", "contain"])
@pytest.mark.parametrize("scale", [1, 2])
def test_a_mask_lies_on_its_picture_whatever_its_scale(fit: str, scale: int) -> None:
    picture = Image.merge("RGB", [_mask(120, 60)] * 3)
    image_HWC = fit_image(picture, 64, 64, fit, (0, 0, 0))
    mask_HW = fit_mask(_mask(60 * scale, 30 * scale), picture.size, 64, 64, fit, "a")

    assert (mask_HW != np.where(image_HWC[..., 0] > 127, 255, 0)).mean() < 0.04
    assert mask_HW.any()


def test_what_contain_pads_is_kept() -> None:
    white = Image.new("L", (60, 30), 255)

    assert np.flatnonzero(fit_mask(white, (60, 30), 60, 60, "contain", "a")[:, 30]).tolist() == list(range(15, 45))


def test_a_mask_of_another_shape_than_its_picture_is_refused() -> None:
    with pytest.raises(SourceUnreadable, match="a mask of 60 x 30 does not lie on a picture of 30 x 60"):
        fit_mask(_mask(), (30, 60), 64, 64, "cover", "a")
    assert fit_mask(_mask(61, 30), (120, 60), 64, 64, "cover", "a").any()


def test_a_mask_that_changes_nothing_is_refused() -> None:
    with pytest.raises(SourceUnreadable, match="no part of the mask is white"):
        fit_mask(Image.new("L", (64, 64)), (64, 64), 64, 64, "cover", "a")
