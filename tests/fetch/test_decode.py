"""Every source of a request arrives in its role, at the recipe's size."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import pytest
from PIL import Image

from sdbatch.encode.video import encode_video
from sdbatch.errors import SourceTooLarge, SourceUnreadable
from sdbatch.fetch.decode import decode_sources
from sdbatch.fetch.settings import REFERENCE_SIDE, PixelSettings
from sdbatch.job import Encode
from sdbatch.types import Source

RECIPE = {"height": 32, "width": 32, "fit": "cover"}


def _png(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()


def _split(width: int, height: int, mode: str = "RGB") -> Image.Image:
    """Black on the left, white on the right."""
    image = Image.new(mode, (width, height))
    image.paste("white", (width // 2, 0, width, height))
    return image


def _clip(num_frames: int) -> bytes:
    frames_FHWC = np.repeat(np.arange(num_frames, dtype=np.uint8) * 8, 64 * 64 * 3).reshape(-1, 64, 64, 3)
    return encode_video(frames_FHWC, 16.0, Encode(), request_key="a" * 64, n=0, recipe="{}").data


def _read(files: list[tuple[str, bytes]], recipe: dict[str, Any], pixels_max: int = 1_000_000) -> dict[str, Any]:
    sources = [Source(role=role, url=f"{role}-{number}", digest="") for number, (role, _) in enumerate(files)]
    contents = {source.url: data for source, (_, data) in zip(sources, files, strict=True)}
    return decode_sources(
        sources,
        PixelSettings(**recipe),
        lambda source: contents[source.url],
        pixels_max,
    )


def test_images_keep_their_order() -> None:
    colours = ["red", "green", "blue"]
    pixels = _read([("images", _png(Image.new("RGB", (40, 40), colour))) for colour in colours], RECIPE)

    assert [image_HWC.shape for image_HWC in pixels["images"]] == [(32, 32, 3)] * 3
    assert [int(image_HWC[0, 0].argmax()) for image_HWC in pixels["images"]] == [0, 1, 2]


@pytest.mark.parametrize("fit", ["cover", "contain"])
def test_a_mask_is_laid_on_the_picture_before_both_are_fitted(fit: str) -> None:
    files = [("images", _png(_split(96, 48))), ("mask", _png(_split(48, 24, "L")))]
    pixels = _read(files, {**RECIPE, "fit": fit})

    assert pixels["mask"].shape == (32, 32)
    middle_W = pixels["images"][0][16, :, 0] > 127
    assert (middle_W != (pixels["mask"][16] == 255)).sum() <= 1


def test_a_mask_of_another_shape_than_the_picture_is_refused_by_name() -> None:
    with pytest.raises(SourceUnreadable, match="mask-1: a mask of 48 x 48"):
        _read([("images", _png(_split(96, 48))), ("mask", _png(_split(48, 48, "L")))], RECIPE)


def test_a_clip_gives_the_recipes_frames() -> None:
    pixels = _read([("video", _clip(17))], {**RECIPE, "num_frames": 9, "fps": 8.0})

    assert pixels["video"].shape == (9, 32, 32, 3)
    assert np.abs(pixels["video"].mean(axis=(1, 2, 3)) - 16 * np.arange(9)).max() < 3


def test_a_control_image_is_a_picture() -> None:
    one = _read([("control_image", _png(_split(64, 64)))], RECIPE)["control_image"]
    files = [("control_image", _png(_split(64, 64))), ("control_image", _png(_split(32, 32)))]
    two = _read(files, RECIPE)["control_image"]

    assert [pixels.shape for pixels in one] == [(32, 32, 3)]
    assert [pixels.shape for pixels in two] == [(32, 32, 3)] * 2


def test_a_reference_picture_is_a_square_from_its_middle_whatever_the_size_and_fit_of_the_row() -> None:
    sources = [("ip_adapter_images", _png(_split(64, 256))), ("ip_adapter_images", _png(_split(256, 64)))]

    pixels = _read(sources, RECIPE)["ip_adapter_images"]

    assert [one.shape for one in pixels] == [(REFERENCE_SIDE, REFERENCE_SIDE, 3)] * 2


@pytest.mark.parametrize("role", ["images", "mask", "control_image", "video"])
def test_the_cap_holds_for_every_role(role: str) -> None:
    data = _clip(9) if role == "video" else _png(_split(64, 64))

    with pytest.raises(SourceTooLarge, match=f"{role}-0: "):
        _read([(role, data)], {**RECIPE, "num_frames": 9, "fps": 8.0}, pixels_max=63 * 63)


def test_a_source_that_is_enlarged_keeps_its_size_and_must_become_what_the_row_says() -> None:
    source = [("images", _png(_split(64, 48)))]

    free = _read(source, {"height": 0, "width": 0, "enlarges": 4})
    asked = _read(source, {"height": 192, "width": 256, "enlarges": 4})
    assert [pixels.shape for one in (free, asked) for pixels in one["images"]] == [(48, 64, 3)] * 2
    with pytest.raises(SourceUnreadable, match="is 64 x 48 pixels, which become 256 x 192; the row says 256 x 256"):
        _read(source, {"height": 256, "width": 256, "enlarges": 4})
    with pytest.raises(SourceTooLarge, match="which become 4800 x 4400, over 16777216 pixels"):
        _read([("images", _png(_split(1200, 1100)))], {"height": 0, "width": 0, "enlarges": 4}, 10_000_000)
