"""Pixels become files that say how they were made."""

from __future__ import annotations

import io
import json
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, PngImagePlugin

from sdbatch.canonical import canonical
from sdbatch.encode.embedded import Encoded
from sdbatch.encode.image import THUMBNAIL_PIXELS_MAX, encode_image, read_embedded_image, thumbnail
from sdbatch.job import Encode

# H and W pixels, C = 3 channels.

FORMATS = {
    "png": Encode(image="png"),
    "jpg": Encode(image="jpg"),
    "webp": Encode(image="webp"),
    "lossless webp": Encode(image="webp", lossless=True),
    "avif": Encode(image="avif"),
}
KEY = "0123456789abcdef" * 4
RECIPE = {
    "prompt": 'Füchse — 狐 🦊, "quoted"\n\tand \\ more',
    "negative_prompt": "",
    "seed": "9223372036854775807",
    "guidance_scale": 7.5,
    "strength": 1e-7,
    "height": 61,
    "images": ["sha256:aa"],
}
USER_COMMENT, EXIF_IFD, SOFTWARE = 0x9286, 0x8769, 0x0131

every_format = pytest.mark.parametrize("options", FORMATS.values(), ids=FORMATS)


def _picture(height: int = 61, width: int = 93) -> NDArray[np.uint8]:
    rows, columns = np.mgrid[0:height, 0:width]
    smooth = np.stack([rows * 255 // height, columns * 255 // width, (rows + columns) % 256], axis=-1)
    noise = np.random.default_rng(7).integers(-8, 9, smooth.shape)
    return np.clip(smooth + noise, 0, 255).astype(np.uint8)


def _encoded(options: Encode, recipe: dict[str, Any] | None = None, n: int = 3) -> Encoded:
    return encode_image(_picture(), options, request_key=KEY, n=n, recipe=canonical(recipe or RECIPE))


def _opened(data: bytes) -> Image.Image:
    image = Image.open(io.BytesIO(data))
    image.load()
    return image


def _foreign(suffix: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(_picture()).save(buffer, suffix, **options)
    return buffer.getvalue()


def _user_comment(comment: bytes) -> Image.Exif:
    exif = Image.Exif()
    exif[SOFTWARE] = "a camera"
    exif.get_ifd(EXIF_IFD)[USER_COMMENT] = comment
    return exif


def _text_chunk(name: str, text: str) -> PngImagePlugin.PngInfo:
    chunks = PngImagePlugin.PngInfo()
    chunks.add_text(name, text)
    return chunks


# --- files ----------------------------------------------------------------------------------------------------------


@every_format
def test_a_file_opens_as_the_picture_it_is_named_for(options: Encode) -> None:
    encoded = _encoded(options)
    image = _opened(encoded.data)
    assert (image.size, image.mode) == ((93, 61), "RGB")
    assert encoded.suffix == options.image
    assert encoded.media_type == Image.MIME[str(image.format)]
    pixels_HWC = np.asarray(image).astype(int)
    assert np.abs(pixels_HWC - _picture()).mean() < 6


@pytest.mark.parametrize("name", ["png", "lossless webp"])
def test_a_lossless_file_keeps_every_pixel(name: str) -> None:
    assert np.array_equal(np.asarray(_opened(_encoded(FORMATS[name]).data)), _picture())


@pytest.mark.parametrize("name", ["jpg", "webp", "avif"])
def test_a_lower_quality_makes_a_smaller_file(name: str) -> None:
    low, high = (_encoded(Encode(image=FORMATS[name].image, quality=quality)) for quality in (30, 95))
    assert len(low.data) < len(high.data)


@every_format
def test_the_same_request_gives_the_same_bytes(options: Encode) -> None:
    assert _encoded(options) == _encoded(options)
    assert _encoded(options, n=4) != _encoded(options, n=3)


# --- what is embedded -----------------------------------------------------------------------------------------------


@every_format
def test_the_recipe_reads_back_to_the_last_character(options: Encode) -> None:
    embedded = read_embedded_image(_encoded(options).data)
    assert embedded == {"format_version": 1, "request_key": KEY, "n": 3, "recipe": RECIPE}
    assert canonical(embedded["recipe"]) == canonical(RECIPE)


@every_format
def test_the_recipe_stands_in_the_file_as_plain_utf_8(options: Encode) -> None:
    assert "Füchse — 狐 🦊".encode() in _encoded(options).data


@every_format
@pytest.mark.parametrize("length", [59_000, 70_000], ids=["a recipe that fits", "a recipe that does not"])
def test_a_recipe_too_long_for_exif_leaves_its_key(options: Encode, length: int) -> None:
    recipe = {"prompt": "x" * length}
    embedded = read_embedded_image(_encoded(options, recipe).data)
    assert embedded is not None
    assert (embedded["request_key"], embedded["n"]) == (KEY, 3)
    is_kept = options.image == "png" or length < 60_000
    assert embedded.get("recipe") == (recipe if is_kept else None)


@every_format
def test_the_recipe_in_the_file_is_the_text_that_the_key_was_made_from(options: Encode) -> None:
    assert f'"recipe":{canonical(RECIPE)},"request_key":"{KEY}"'.encode() in _encoded(options).data


def test_the_cap_on_a_recipe_counts_bytes_not_characters() -> None:
    embedded = read_embedded_image(_encoded(FORMATS["jpg"], {"prompt": "狐" * 25_000}).data)
    assert embedded is not None
    assert embedded.keys() == {"format_version", "request_key", "n"}


@pytest.mark.parametrize("suffix", ["PNG", "JPEG", "WEBP", "AVIF"])
def test_a_picture_without_metadata_holds_nothing_of_ours(suffix: str) -> None:
    assert read_embedded_image(_foreign(suffix)) is None


@pytest.mark.parametrize(
    "comment",
    [
        b"ASCII\0\0\0a holiday",
        b"\0" * 8,
        b"\0" * 8 + b"a holiday",
        b"UNICODE\0\xff\xfe\x00",
        b"\0" * 8 + b"[1, 2]",
        b"\0" * 8 + json.dumps({"workflow": {"nodes": []}}).encode(),
    ],
    ids=["ASCII", "empty", "text", "UTF-16", "JSON list", "JSON of another program"],
)
@pytest.mark.parametrize("suffix", ["JPEG", "WEBP", "AVIF"])
def test_a_picture_with_another_s_comment_holds_nothing_of_ours(suffix: str, comment: bytes) -> None:
    assert read_embedded_image(_foreign(suffix, exif=_user_comment(comment))) is None


@pytest.mark.parametrize("chunk", [("prompt", '{"nodes": []}'), ("sdbatch", "not JSON"), ("sdbatch", "[1]")])
def test_a_png_with_another_s_chunks_holds_nothing_of_ours(chunk: tuple[str, str]) -> None:
    assert read_embedded_image(_foreign("PNG", pnginfo=_text_chunk(*chunk))) is None


@every_format
@pytest.mark.parametrize("share", [0.05, 0.5, 0.9])
def test_a_part_of_a_file_is_no_picture(options: Encode, share: float) -> None:
    data = _encoded(options).data
    with pytest.raises(OSError, match=r"."):
        read_embedded_image(data[: int(share * len(data))])


@pytest.mark.parametrize("data", [b"", b"not a picture", b"GIF89a" + b"\0" * 64])
def test_what_is_no_picture_of_ours_is_refused(data: bytes) -> None:
    with pytest.raises(OSError, match="cannot identify"):
        read_embedded_image(data)


# --- thumbnails -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("height", "width", "size"),
    [
        (1024, 1024, (320, 320)),
        (512, 1024, (320, 160)),
        (1024, 512, (160, 320)),
        (321, 320, (319, 320)),
        (320, 320, (320, 320)),
        (64, 48, (48, 64)),
        (1, 2000, (320, 1)),
    ],
)
def test_a_thumbnail_is_small_and_keeps_its_proportions(height: int, width: int, size: tuple[int, int]) -> None:
    image = _opened(thumbnail(_picture(height, width)))
    assert (image.format, image.size) == ("JPEG", size)
    assert max(image.size) <= THUMBNAIL_PIXELS_MAX


def test_a_thumbnail_takes_a_few_kilobytes_and_the_same_bytes_each_time() -> None:
    image_HWC = _picture(1024, 1024)
    assert thumbnail(image_HWC) == thumbnail(image_HWC)
    assert len(thumbnail(image_HWC)) < 60_000
