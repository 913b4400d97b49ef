"""Pictures of every format that people bring are read whole, within the job's bounds alone, or refused by name."""

from __future__ import annotations

import io
import re
import struct
import sys
import zlib
from typing import Any

import numpy as np
import pytest
from PIL import Image, PngImagePlugin

from sdbatch.errors import SourceTooLarge, SourceUnreadable
from sdbatch.fetch.headers import picture_fault
from sdbatch.fetch.opening import open_picture
from sdbatch.fetch.pictures import decode_image, decode_mask

CAP = 1_000_000
RED = (200, 40, 40)


def _bytes(image: Image.Image, kind: str = "PNG", **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def _array(data: bytes, notes: list[str] | None = None, pixels_max: int = CAP) -> Any:
    return np.asarray(decode_image(data, "a", pixels_max, notes)).astype(int)


@pytest.mark.fault("F35", "TIFF, BMP and GIF stills", "their pixels")
@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("TIFF", {}),
        ("TIFF", {"compression": "tiff_lzw"}),
        ("TIFF", {"compression": "jpeg"}),
        ("TIFF", {"compression": "tiff_adobe_deflate", "big_tiff": True}),
        ("BMP", {}),
        ("GIF", {}),
    ],
)
def test_more_formats_of_stills_are_read(kind: str, options: dict[str, Any]) -> None:
    assert np.abs(_array(_bytes(Image.new("RGB", (40, 20), RED), kind, **options)) - RED).max() <= 3


def test_what_the_first_frame_of_a_gif_leaves_free_is_white() -> None:
    frame = Image.new("P", (8, 8), 1)
    frame.putpalette([*RED, 0, 0, 255])
    data = _bytes(frame, "GIF", optimize=False)
    place = data.index(b"\x2c" + struct.pack("<4H", 0, 0, 8, 8))
    larger = data[:6] + struct.pack("<2H", 20, 16) + data[10:place]
    pixels = _array(larger + b"\x2c" + struct.pack("<4H", 4, 6, 8, 8) + data[place + 9 :])

    assert pixels.shape == (16, 20, 3)
    assert (pixels[6:14, 4:12] == (0, 0, 255)).all()
    pixels[6:14, 4:12] = 255
    assert (pixels == 255).all()


def test_what_the_first_frame_of_a_webp_leaves_free_is_white() -> None:
    first = Image.new("RGBA", (20, 16))
    first.paste((0, 0, 255, 255), (4, 6, 12, 14))
    second = Image.new("RGBA", (20, 16), (*RED, 255))
    data = _bytes(first, "WEBP", save_all=True, append_images=[second], lossless=True)
    assert not data[20] & 0x10, "no frame has alpha of its own"

    pixels = _array(data)

    assert (pixels[6:14, 4:12] == (0, 0, 255)).all()
    pixels[6:14, 4:12] = 255
    assert (pixels == 255).all()


@pytest.mark.fault("F35", "an animated GIF, and a TIFF of several pages", "the first frame, and a note")
@pytest.mark.parametrize("kind", ["GIF", "TIFF"])
def test_of_several_frames_the_first_is_taken_and_noted(kind: str) -> None:
    frames = [Image.new("RGB", (8, 8), colour) for colour in (RED, (0, 0, 255))]
    notes: list[str] = []
    data = _bytes(frames[0], kind, save_all=True, append_images=frames[1:])

    assert np.abs(_array(data, notes) - RED).max() <= 3
    assert notes == ["a: it has 2 frames, of which the first was taken"]


@pytest.mark.fault("F35", "a HEIC picture, upright by its own rotation", "its pixels, with the extra `heic`")
def test_a_heic_is_read() -> None:
    heif = pytest.importorskip("pillow_heif")
    image = Image.new("RGB", (64, 32), RED)
    image.paste((0, 0, 200), (32, 0, 64, 32))
    exif = Image.Exif()
    exif[0x0112] = 6  # its left half is to stand on top
    buffer = io.BytesIO()
    heif.from_pillow(image).save(buffer, quality=95, exif=exif.tobytes())
    values = _array(buffer.getvalue())

    assert values.shape == (64, 32, 3)
    assert np.abs(values[8, 16] - RED).max() <= 8
    assert np.abs(values[56, 16] - (0, 0, 200)).max() <= 8


@pytest.mark.fault("F35", "a HEIC picture where the extra is not installed", "refused, naming the extra")
def test_a_heic_without_its_library_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pillow_heif", None)

    with pytest.raises(SourceUnreadable, match=r"a: is a HEIC picture; `pip install 'sdbatch\[heic\]'` reads these"):
        _array(b"\0\0\0\x18ftypheic\0\0\0\0mif1heic")


@pytest.mark.fault("F35", "PSD, JPEG 2000, PDF, SVG, a clip in the place of a picture", "refused by what it is")
@pytest.mark.parametrize(
    ("data", "title"),
    [
        (b"8BPS\0\1", "a Photoshop"),
        (b"\0\0\0\x0cjP  \r\n", "a JPEG 2000"),
        (b"%PDF-1.7", "a PDF"),
        (b"<svg xmlns=", "an SVG"),
        (b"<!DOCTYPE html>", "an HTML"),
        (b"\xef\xbb\xbf\n <!doctype HTML>", "an HTML"),
        (b'{"error": "gone"}', "a JSON"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:", "a Git LFS pointer"),
        (b"\0\0\0\x18ftypisom\0\0\0\0", "a video"),
        (b"\0\0\0\x0cJXL \r\n", "a JPEG XL"),
        (b"II*\0\x10\0\0\0CR\x02\0", "a camera raw"),
    ],
)
def test_what_is_not_read_is_named(data: bytes, title: str) -> None:
    with pytest.raises(SourceUnreadable, match=rf"a: is {title}.* file; pictures are PNG, JPEG"):
        _array(data)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF", "AVIF"])
@pytest.mark.parametrize(("turn", "corner"), [(3, (19, 39)), (6, (0, 19)), (8, (39, 0))])
def test_every_format_stands_upright(kind: str, turn: int, corner: tuple[int, int]) -> None:
    image = Image.new("RGB", (40, 20), (0, 0, 200))
    image.paste(RED, (0, 0, 20, 10))
    exif = Image.Exif()
    exif[0x0112] = turn
    values = _array(_bytes(image, kind, exif=exif))
    row, column = corner

    assert values.shape == ((20, 40, 3) if turn == 3 else (40, 20, 3))
    assert (
        np.abs(values[min(max(row, 2), values.shape[0] - 3), min(max(column, 2), values.shape[1] - 3)] - RED).max() < 40
    )


# --- values without 8 bits ------------------------------------------------------------------------------------------


_TURNED = b'<rdf:Description xmlns:tiff="http://ns.adobe.com/tiff/1.0/" tiff:Orientation="6"/>'


def _with_xmp(image: Image.Image, kind: str) -> bytes:
    if kind == "PNG":
        texts = PngImagePlugin.PngInfo()
        texts.add_itxt("XML:com.adobe.xmp", _TURNED.decode())
        return _bytes(image, kind, pnginfo=texts)
    if kind == "TIFF":
        return _bytes(image, kind, tiffinfo={700: _TURNED})
    return _bytes(image, kind, xmp=_TURNED)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF", "AVIF", "cut JPEG"])
def test_a_picture_that_xmp_alone_turns_lies_as_browsers_show_it(kind: str) -> None:
    image = Image.new("RGB", (40, 20), RED)
    data = _with_xmp(image, kind.removeprefix("cut "))
    assert b'tiff:Orientation="6"' in data
    notes: list[str] = []

    pixels = _array(data[:-2] if kind.startswith("cut") else data, notes)

    assert pixels.shape == (20, 40, 3)
    assert kind == "PNG" or notes[0].startswith("a: its XMP alone says that it is turned")


def test_exif_turns_a_picture_whatever_its_xmp_says() -> None:
    exif = Image.Exif()
    exif[0x0112] = 8
    notes: list[str] = []
    data = _bytes(Image.new("RGB", (40, 20), RED), "JPEG", exif=exif, xmp=_TURNED.replace(b"6", b"3"))

    assert _array(data, notes).shape == (40, 20, 3)
    assert notes == []


def _tiff(values: Any, **tags: int) -> bytes:
    return _bytes(Image.fromarray(values), "TIFF", tiffinfo={int(tag[1:]): value for tag, value in tags.items()})


def test_sixteen_bits_with_white_as_0_are_turned() -> None:
    values = np.full((16, 16), 40_000, np.uint16)

    assert _array(_tiff(values))[0, 0, 0] == 156
    assert _array(_tiff(values, t262=0))[0, 0, 0] == 99


@pytest.mark.parametrize(("kind", "title"), [(np.float32, "floating-point"), (np.int32, "signed or 32-bit")])
def test_values_without_a_white_are_refused(kind: Any, title: str) -> None:
    with pytest.raises(SourceUnreadable, match=f"a: holds .*{title}.* values"):
        _array(_tiff(np.full((16, 16), 0.5, kind)))


def test_pixels_of_a_tiff_that_are_not_read_are_told_from_a_broken_file() -> None:
    data = _rgb_tiff(bits=16, is_apart=False)
    deep = data.replace(struct.pack("<3H", 16, 16, 16), struct.pack("<3H", 12, 12, 12))
    assert deep != data

    with pytest.raises(SourceUnreadable, match="a: holds pixels that are not read, such as RGB of 12 or 32 bits"):
        decode_image(deep, "a", CAP)
    assert "holds pixels that are not read" in str(picture_fault(deep, io.BytesIO(deep), CAP))


def _rgb_tiff(*, bits: int, is_apart: bool) -> bytes:
    """Return an uncompressed TIFF whose left half is red and whose right half is blue."""
    red_HWC, blue_HWC = np.full((8, 8, 3), RED), np.full((8, 8, 3), (20, 60, 220))
    values_HWC = np.concatenate([red_HWC, blue_HWC], axis=1).astype(f"<u{bits // 8}") * (257 if bits == 16 else 1)
    data = (np.moveaxis(values_HWC, -1, 0) if is_apart else values_HWC).tobytes()
    behind = 8 + len(data)
    pieces = [(behind + 6 + 4 * number, 8 + number * len(data) // 3) for number in range(3)]
    starts = b"".join(struct.pack("<I", start) for _, start in pieces)
    extra = struct.pack("<3H", *[bits] * 3) + starts + struct.pack("<3I", *[len(data) // 3] * 3)
    many = 3 if is_apart else 1
    tags = [
        (256, 3, 1, 16),
        (257, 3, 1, 8),
        (258, 3, 3, behind),
        (259, 3, 1, 1),
        (262, 3, 1, 2),
        (273, 4, many, behind + 6 if is_apart else 8),
        (277, 3, 1, 3),
        (278, 3, 1, 8),
        (279, 4, many, behind + 18 if is_apart else len(data)),
        (284, 3, 1, 2 if is_apart else 1),
    ]
    listed = struct.pack("<H", len(tags)) + b"".join(struct.pack("<2H2I", *tag) for tag in tags) + b"\0" * 4
    return struct.pack("<2sHI", b"II", 42, behind + len(extra)) + data + extra + listed


@pytest.mark.parametrize(("bits", "is_apart"), [(8, False), (8, True), (16, False)])
def test_channels_of_a_tiff_are_read(bits: int, is_apart: bool) -> None:
    values = _array(_rgb_tiff(bits=bits, is_apart=is_apart))

    assert (values[:, :8] == RED).all()
    assert (values[:, 8:] == (20, 60, 220)).all()


def test_channels_that_would_be_read_wrongly_are_refused() -> None:
    data = _rgb_tiff(bits=16, is_apart=True)
    with pytest.raises(SourceUnreadable, match="a: has its channels one after the other, in 16 bits"):
        _array(data)
    assert "save it interleaved" in str(picture_fault(data, io.BytesIO(data), CAP))


@pytest.mark.parametrize("tags", [{"t254": 1}, {"t50706": 1}])
def test_a_small_copy_in_front_of_a_camera_raw_is_not_taken_for_it(tags: dict[str, int]) -> None:
    data = _tiff(np.zeros((16, 16, 3), np.uint8), **tags)
    with pytest.raises(SourceUnreadable, match=r"a: has a small copy of its picture in front, as camera raws"):
        _array(data)
    assert "export it as JPEG" in str(picture_fault(data, io.BytesIO(data), CAP))


def test_the_pages_of_a_tiff_behind_the_first_may_be_small_copies() -> None:
    assert (_array(_tiff(np.full((16, 16, 3), RED, np.uint8), t254=0))[0, 0] == RED).all()


@pytest.mark.parametrize(("depth", "key", "row", "grey"), [(2, 1, b"\x5a", 170), (4, 3, b"\x33\x77", 119)])
def test_greys_of_few_bits_have_their_transparent_one(depth: int, key: int, row: bytes, grey: int) -> None:
    data = _png(4, 4, depth, (b"\0" + row) * 4, tRNS=struct.pack(">H", key))
    values = _array(data)

    assert (values[:, :2] == 255).all()
    assert (values[:, 2:] == grey).all()


# --- the job's bounds are the only ones -----------------------------------------------------------------------------


@pytest.mark.fault("F26", "a PNG with texts that unpack to more than 1 MiB, before and behind its pixels", "its pixels")
@pytest.mark.parametrize("is_behind", [False, True])
def test_a_pngs_long_texts_do_no_harm(is_behind: bool) -> None:
    info = PngImagePlugin.PngInfo()
    info.add_itxt("workflow", "x" * (3 << 20), zip=True)
    info.add_text("prompt", "y" * (3 << 20), zip=True)
    data = _bytes(Image.new("RGB", (8, 8), RED), pnginfo=info)
    if is_behind:
        start, stop = data.index(b"iTXt") - 4, data.index(b"IDAT") - 4
        data = data[:start] + data[stop:-12] + data[start:stop] + data[-12:]

    with pytest.raises(ValueError, match="too large"):
        Image.open(io.BytesIO(data)).load()
    assert (_array(data) == RED).all()


@pytest.mark.fault("F26", "a PNG whose profile unpacks to more than 1 MiB", "its pixels, through the profile")
def test_a_pngs_long_profile_is_read() -> None:
    from support.icc import P3, rgb_profile

    profile = rgb_profile(P3, None)
    profile = struct.pack(">I", 3 << 20) + profile[4:] + b"\0" * ((3 << 20) - len(profile))
    data = _bytes(Image.new("RGB", (8, 8), (200, 120, 60)))
    body = b"iCCPp3\0\0" + zlib.compress(profile)
    data = data[:33] + struct.pack(">I", len(body) - 4) + body + struct.pack(">I", zlib.crc32(body)) + data[33:]

    assert np.abs(_array(data) - (213, 115, 42)).max() <= 3


def test_a_transparent_colour_of_16_bits_is_refused() -> None:
    line = b"\0" + struct.pack(">6H", 0x8000, 0x8001, 0x1234, 0xFFFF, 0, 0)
    assert (_array(_png(2, 1, 16, line, kind=2))[0, 1] == (255, 0, 0)).all()
    data = _png(2, 1, 16, line, kind=2, tRNS=struct.pack(">3H", 0x8000, 0x8001, 0x1234))

    with pytest.raises(SourceUnreadable, match=r"a: has 16 bits a channel and a transparent colour \(tRNS\)"):
        _array(data)
    assert "save it with alpha" in str(picture_fault(data, io.BytesIO(data), CAP))


def test_greys_that_are_multiplied_by_their_alpha_are_read() -> None:
    values_HWC = np.stack([np.full((16, 16), 60, np.uint8), np.full((16, 16), 128, np.uint8)], axis=-1)
    data = _bytes(Image.fromarray(values_HWC, "LA"), "TIFF")
    plain, multiplied = (struct.pack("<2H2I", 338, 3, 1, said) for said in (2, 1))
    assert plain in data
    data = data.replace(plain, multiplied)

    assert np.abs(_array(data).astype(int) - (60 + 127)).max() <= 1
    with pytest.raises(SourceUnreadable, match="a mask is black and white; this one has transparent parts"):
        decode_mask(data, "a", CAP)


def _white(width: int, height: int) -> bytes:
    """Return a PNG of one bit a pixel."""
    return _png(width, height, 1, (b"\0" + b"\xff" * (width // 8)) * height)


def _png(width: int, height: int, depth: int, lines: bytes, kind: int = 0, **more: bytes) -> bytes:
    """Return a PNG, grey where `kind` is 0, of so many bits a channel, with further chunks in front of its pixels."""
    head = struct.pack(">2I5B", width, height, depth, kind, 0, 0, 0)
    chunks = {"IHDR": head, **more, "IDAT": zlib.compress(lines, 1), "IEND": b""}
    data = b"\x89PNG\r\n\x1a\n"
    for name, body in chunks.items():
        part = name.encode() + body
        data += struct.pack(">I", len(body)) + part + struct.pack(">I", zlib.crc32(part))
    return data


@pytest.mark.fault("F26", "a panorama of 200 million pixels, the job allowing so many", "opened, and its pixels")
def test_a_panorama_within_the_jobs_bound_is_opened() -> None:
    data = _white(25_000, 8_000)

    with pytest.raises(Image.DecompressionBombError):
        Image.open(io.BytesIO(data))
    with pytest.raises(SourceTooLarge, match="25000 x 8000 pixels are over 199999999"):
        open_picture(data, "a", 199_999_999)
    assert open_picture(data, "a", 200_000_000).image.size == (25_000, 8_000)


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "AVIF", "BMP"])
def test_pillows_bound_on_pixels_does_not_hold(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    data = _bytes(Image.new("RGB", (40, 20), RED), kind)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)

    with pytest.raises(Image.DecompressionBombError):
        Image.open(io.BytesIO(data))
    assert np.abs(_array(data) - RED).max() <= 8


@pytest.mark.slow
def test_a_panorama_is_read_to_its_last_pixel() -> None:
    assert decode_image(_white(25_000, 8_000), "a", 200_000_000).getpixel((24_999, 7_999)) == (255, 255, 255)


# --- JPEGs without their end ----------------------------------------------------------------------------------------


def _photo(seed: int = 0, **options: Any) -> bytes:
    noise_HW = np.random.default_rng(seed).normal(128, 60, (304, 200)).clip(0, 255).astype(np.uint8)
    return _bytes(Image.fromarray(noise_HW).convert("RGB"), "JPEG", quality=80, **options)


@pytest.mark.fault("F36", "a JPEG without its last bytes", "its pixels, and a note")
@pytest.mark.parametrize("progressive", [False, True])
@pytest.mark.parametrize("missing", [1, 2, 3, 12])
def test_a_jpeg_without_its_last_bytes_is_read(missing: int, progressive: bool) -> None:
    whole = _photo(progressive=progressive)
    notes: list[str] = []
    values = _array(whole[:-missing], notes)

    assert (values[:-16] == _array(whole)[:-16]).all()
    if missing <= 2:
        assert (values == _array(whole)).all()
    assert len(notes) == 1
    assert notes[0].startswith("a: the file lacks its last bytes")


def test_every_jpeg_without_its_end_is_told() -> None:
    """A scan that ends on a whole byte is decoded to its last pixel without the end's marker."""
    for seed in range(60):
        notes: list[str] = []
        _array(_photo(seed)[:-2], notes)
        assert notes == ["a: the file lacks its last bytes"]


@pytest.mark.parametrize("behind", [b"\0\0", b"a maker's own data \xff\xda", bytes(4096)])
def test_a_whole_jpeg_with_bytes_behind_its_end_is_read_without_a_note(behind: bytes) -> None:
    notes: list[str] = []
    _array(_photo() + behind, notes)
    assert notes == []


@pytest.mark.fault("F36", "a JPEG that is cut in the middle", "refused by name")
@pytest.mark.parametrize("progressive", [False, True])
@pytest.mark.parametrize("restart", [0, 1])
@pytest.mark.parametrize("share", [0.3, 0.5, 0.8])
def test_a_jpeg_that_is_cut_in_the_middle_is_refused(share: float, restart: int, progressive: bool) -> None:
    whole = _photo(progressive=progressive, restart_marker_rows=restart)
    num_bytes = int(len(whole) * share)

    for zeros in (b"", bytes(len(whole) - num_bytes)):
        with pytest.raises(SourceUnreadable, match=r"a: not a whole picture of .*: the file is cut off"):
            _array(whole[:num_bytes] + zeros)


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "BMP", "GIF", "AVIF"])
def test_a_picture_that_is_cut_in_its_header_is_told_in_words(kind: str) -> None:
    file = io.BytesIO()
    Image.new("RGB", (64, 48)).save(file, kind)
    said = set()
    for num_bytes in range(12, 36):
        head = file.getvalue()[:num_bytes]
        with pytest.raises(SourceUnreadable) as refused:
            _array(head)
        said |= {str(refused.value), picture_fault(head, io.BytesIO(head), 10_000) or ""}

    assert not any("requires a buffer" in text or "index out of range" in text for text in said), said
    assert kind == "AVIF" or any(text.endswith("it ends too early") for text in said)


@pytest.mark.parametrize("progressive", [False, True])
def test_a_jpeg_that_is_cut_before_or_in_a_restart_marker_is_refused(progressive: bool) -> None:
    whole = _photo(restart_marker_rows=1, progressive=progressive)
    last_scan = whole.rindex(b"\xff\xda")
    markers = [found.start() for found in re.finditer(b"\xff[\xd0-\xd7]", whole) if found.start() > last_scan]

    assert len(markers) > 10
    for marker in markers[:-2]:
        for stop in (marker, marker + 1, marker + 2):
            with pytest.raises(SourceUnreadable, match="the file is cut off"):
                _array(whole[:stop])


@pytest.mark.parametrize("kind", [b"IHDR", b"PLTE", b"IDAT"])
def test_a_png_whose_parts_are_not_what_was_written_is_refused(kind: bytes) -> None:
    data = bytearray(_bytes(Image.effect_noise((64, 64), 60).convert("P")))
    place = data.index(kind) + 12
    data[place] ^= 1
    with pytest.raises(SourceUnreadable, match=f"its part {kind.decode()} at byte [0-9]+ is damaged"):
        _array(bytes(data))


@pytest.mark.parametrize("kind", ["WEBP", "AVIF", "HEIF"])
def test_a_picture_that_ends_in_zeros_is_refused(kind: str) -> None:
    if kind == "HEIF":
        pytest.importorskip("pillow_heif").register_heif_opener()
    noise_HWC = np.random.default_rng(0).integers(0, 256, (256, 256, 3), np.uint8)
    data = _bytes(Image.fromarray(noise_HWC), kind, quality=90)
    assert _array(data).shape == (256, 256, 3)

    with pytest.raises(SourceUnreadable, match=r"a: is cut off: the last 1037 bytes of its picture are zeros"):
        _array(data[:-2000] + bytes(2000))


def test_a_white_webp_may_end_in_zeros() -> None:
    data = _bytes(Image.new("RGB", (4000, 4000), (255, 255, 255)), "WEBP")

    assert data.endswith(bytes(1024))
    assert (_array(data, pixels_max=16_000_000) == 255).all()


def test_a_png_that_ends_in_zeros_is_refused() -> None:
    data = _bytes(Image.effect_noise((256, 256), 60))
    assert len(data) > 40_000
    with pytest.raises(SourceUnreadable, match=r"its part IDAT at byte [0-9]+ is damaged"):
        _array(data[:30_000] + bytes(len(data) - 30_000))


def test_a_progressive_jpeg_that_ends_with_a_scan_before_the_last_is_refused() -> None:
    whole = _photo(progressive=True)
    last_scan = whole.rindex(b"\xff\xda")

    for end in (b"", b"\xff\xd9"):
        cut = whole[:last_scan] + end
        if not end:
            with pytest.raises(SourceUnreadable, match="cut off before its last scan"):
                _array(cut)
        else:  # it says that it ends here, and who made it so may have meant it
            assert _array(cut).shape == (304, 200, 3)
