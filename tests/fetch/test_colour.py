"""A picture's colours come out as its maker saw them, whatever profile or numbers its file states them by."""

from __future__ import annotations

import io
import struct
import zlib
from typing import Any

import numpy as np
import pytest
from PIL import Image
from support.icc import ADOBE_RGB, INKS, P3, PROPHOTO, SRGB, cmyk_profile, grey_profile, rgb_profile

from sdbatch.errors import SourceUnreadable
from sdbatch.fetch.pictures import decode_fitted, decode_image, decode_mask, fit_image

CAP = 1_000_000
BROWN = (200, 120, 60)
P3_PROFILE = rgb_profile(P3, None)


def _bytes(image: Image.Image, kind: str = "PNG", **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def _patch(colour: Any = BROWN, mode: str = "RGB") -> Image.Image:
    return Image.new(mode, (48, 32), colour)


def _middle(data: bytes, notes: list[str] | None = None) -> tuple[int, ...]:
    image = decode_image(data, "a", CAP, notes)
    return tuple(int(value) for value in np.asarray(image)[image.height // 2, image.width // 2])


def _near(colour: tuple[int, ...], right: tuple[int, ...]) -> bool:
    return max(abs(one - two) for one, two in zip(colour, right, strict=True)) <= 3


def _screen(light: float) -> int:
    """Return sRGB's value for light in 0..1."""
    return round(255 * (12.92 * light if light <= 0.0031308 else 1.055 * light ** (1 / 2.4) - 0.055))


def _srgb_of_lab(lightness: float, a: float, b: float) -> tuple[int, ...]:
    """Return sRGB's values for a colour of CIELAB with the white of print, by the formulas of CIE 15."""
    heights = ((lightness + 16) / 116 + a / 500, (lightness + 16) / 116, (lightness + 16) / 116 - b / 200)
    parts = [height**3 if height > 6 / 29 else 3 * (6 / 29) ** 2 * (height - 4 / 29) for height in heights]
    light = np.linalg.solve(np.array(SRGB).T, np.array(parts) * (0.9642, 1.0, 0.82491))
    return tuple(_screen(min(max(float(value), 0.0), 1.0)) for value in light)


# --- ICC profiles ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("profile", "right"),
    [
        pytest.param(
            P3_PROFILE,
            (213, 115, 42),
            marks=pytest.mark.fault("F1", "a Display P3 picture", "(213, 115, 42) within 3 of 255"),
        ),
        pytest.param(
            rgb_profile(ADOBE_RGB, 563 / 256),
            (224, 121, 54),
            marks=pytest.mark.fault("F1", "an Adobe RGB picture", "(224, 121, 54) within 3 of 255"),
        ),
        pytest.param(
            rgb_profile(PROPHOTO, 1.8),
            (255, 114, 57),
            marks=pytest.mark.fault("F1", "a ProPhoto picture", "(255, 114, 57) within 3 of 255"),
        ),
        (rgb_profile(SRGB, None), BROWN),
    ],
    ids=["p3", "adobe", "prophoto", "srgb"],
)
@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "AVIF", "TIFF"])
def test_a_profile_of_a_screen_is_honoured_in_every_format(kind: str, profile: bytes, right: tuple[int, ...]) -> None:
    options = {"lossless": True} if kind == "WEBP" else {"quality": 98} if kind in {"JPEG", "AVIF"} else {}

    assert _near(_middle(_bytes(_patch(), kind, icc_profile=profile, **options)), right)


@pytest.mark.fault("F1", "a CMYK JPEG and TIFF with a press's profile", "the ink's own CIELAB, within 3 of 255")
@pytest.mark.parametrize("kind", ["JPEG", "TIFF"])
def test_inks_come_out_as_their_profile_says(kind: str) -> None:
    options: dict[str, Any] = {"quality": 98} if kind == "JPEG" else {}
    plain = _bytes(_patch((255, 0, 255, 0), "CMYK"), kind, **options)
    colour = _middle(_bytes(_patch((255, 0, 255, 0), "CMYK"), kind, icc_profile=cmyk_profile(), **options))

    assert _near(_middle(plain), (0, 255, 0))
    assert _near(colour, _srgb_of_lab(*INKS[0b1010]))


@pytest.mark.fault("F1", "a grey picture with a grey profile", "the grey of its gamma, within 3 of 255")
@pytest.mark.parametrize("gamma", [1.0, 1.8, 2.6])
@pytest.mark.parametrize("bits", [8, 16])
def test_a_grey_profile_is_honoured(gamma: float, bits: int) -> None:
    image = _patch(128, "L") if bits == 8 else Image.fromarray(np.full((32, 48), 128 * 257, np.uint16))

    assert _near(_middle(_bytes(image, icc_profile=grey_profile(gamma))), (_screen((128 / 255) ** gamma),) * 3)


@pytest.mark.fault("F1", "a Display P3 PNG of 16 bits, with alpha, with a palette", "(213, 115, 42) within 3 of 255")
def test_a_profile_holds_for_every_mode() -> None:
    faint = _patch((*BROWN, 128), "RGBA")
    palette = _patch().convert("P", palette=Image.Palette.ADAPTIVE)

    assert _near(_middle(_bytes(palette, icc_profile=P3_PROFILE)), (213, 115, 42))
    assert _near(_middle(_bytes(faint, icc_profile=P3_PROFILE)), (234, 185, 148))
    assert _near(_middle(_png16(P3_PROFILE)), (213, 115, 42))


def test_a_grey_picture_with_a_profile_for_rgb_is_read_through_it() -> None:
    light = _screen((128 / 255) ** 1.8)

    assert _near(_middle(_bytes(_patch(128, "L"), "JPEG", icc_profile=rgb_profile(PROPHOTO, 1.8))), (light,) * 3)


@pytest.mark.fault("F1", "a picture whose profile is broken or another mode's", "raw pixels, and a note")
@pytest.mark.parametrize(
    ("profile", "message"),
    [
        (b"not a profile", "is broken"),
        (P3_PROFILE[:200], "is broken"),
        (cmyk_profile(), "is for CMYK and the picture is RGB"),
        (grey_profile(1.8), "is for L and the picture is RGB"),
    ],
    ids=["text", "cut", "cmyk", "grey"],
)
def test_a_profile_that_cannot_be_used_leaves_the_pixels_and_a_note(profile: bytes, message: str) -> None:
    notes: list[str] = []

    assert _middle(_bytes(_patch(), icc_profile=profile), notes) == BROWN
    assert len(notes) == 1
    assert notes[0].startswith(f"a: its colour profile {message}")


def test_a_profile_for_srgb_leaves_every_pixel_as_it_is() -> None:
    noise = Image.effect_noise((64, 64), 90).convert("RGB")

    assert decode_image(_bytes(noise, icc_profile=rgb_profile(SRGB, None)), "a", CAP).tobytes() == noise.tobytes()


def test_a_masks_profile_does_not_move_its_edge() -> None:
    grey = _bytes(_patch(120, "L"), icc_profile=grey_profile(1.0))  # 182 as light, over the middle

    assert np.unique(np.asarray(decode_mask(grey, "a", CAP))).tolist() == [120]


# --- numbers in the place of a profile ------------------------------------------------------------------------------


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def _png_with(*chunks: bytes, image: Image.Image | None = None) -> bytes:
    data = _bytes(image or _patch())
    return data[:33] + b"".join(chunks) + data[33:]


def _png16(profile: bytes) -> bytes:
    row = b"\0" + b"".join(struct.pack(">H", value * 257) for value in BROWN) * 48
    return (
        b"\x89PNG\r\n\x1a\n"
        + _chunk(b"IHDR", struct.pack(">2I5B", 48, 32, 16, 2, 0, 0, 0))
        + _chunk(b"iCCP", b"p3\0\0" + zlib.compress(profile))
        + _chunk(b"IDAT", zlib.compress(row * 32))
        + _chunk(b"IEND", b"")
    )


def _chrm(*points: float) -> bytes:
    return _chunk(b"cHRM", struct.pack(">8I", *(round(point * 100_000) for point in points)))


P3_POINTS = (0.3127, 0.3290, 0.680, 0.320, 0.265, 0.690, 0.150, 0.060)
SRGB_POINTS = (0.3127, 0.3290, 0.640, 0.330, 0.300, 0.600, 0.150, 0.060)


@pytest.mark.parametrize(
    ("chunks", "right"),
    [
        pytest.param(
            [_chunk(b"cICP", bytes((12, 13, 0, 1)))],
            (213, 115, 42),
            marks=pytest.mark.fault("F1", "a PNG that is P3 by its cICP chunk", "(213, 115, 42) within 3 of 255"),
        ),
        pytest.param(
            [_chrm(*P3_POINTS), _chunk(b"gAMA", struct.pack(">I", 45455))],
            (213, 115, 42),
            marks=pytest.mark.fault("F1", "a PNG that is P3 by its cHRM chunk", "(213, 115, 42) within 3 of 255"),
        ),
        pytest.param(
            [_chunk(b"gAMA", struct.pack(">I", 100_000))],
            tuple(_screen(value / 255) for value in BROWN),
            marks=pytest.mark.fault("F1", "a PNG of linear light by its gAMA chunk", "its light, within 3 of 255"),
        ),
        ([_chunk(b"cICP", bytes((1, 13, 0, 1)))], BROWN),
        ([_chrm(*SRGB_POINTS), _chunk(b"gAMA", struct.pack(">I", 45455))], BROWN),
        ([_chunk(b"gAMA", struct.pack(">I", 45455))], BROWN),
        ([_chunk(b"sRGB", b"\0"), _chrm(*P3_POINTS)], BROWN),
        ([_chunk(b"gAMA", b"\0\0\0\0"), _chrm(0, 0, 0, 0, 0, 0, 0, 0)], BROWN),
    ],
    ids=["cicp-p3", "chrm-p3", "linear", "cicp-srgb", "chrm-srgb", "gamma-srgb", "srgb-wins", "nonsense"],
)
def test_a_pngs_numbers_are_honoured(chunks: list[bytes], right: tuple[int, ...]) -> None:
    assert _near(_middle(_png_with(*chunks)), right)


@pytest.mark.fault("F1", "a PNG whose cICP chunk says PQ, HLG or a narrow range", "refused by name")
@pytest.mark.parametrize(
    ("numbers", "said"),
    [
        ((9, 16, 0, 1), "transfer PQ"),
        ((9, 18, 0, 1), "transfer HLG"),
        ((1, 13, 0, 0), "range 0"),
        ((77, 13, 0, 1), "77"),
    ],
)
def test_a_png_of_hdr_is_refused_by_name(numbers: tuple[int, ...], said: str) -> None:
    with pytest.raises(SourceUnreadable, match=f"a: its colours have .*{said}"):
        _middle(_png_with(_chunk(b"cICP", bytes(numbers))))


def _avif_with(primaries: int, transfer: int) -> bytes:
    """Return an AVIF that states its colours by numbers of ITU-T H.273."""
    data = _bytes(_patch(), "AVIF", quality=98)
    place = data.index(b"colrnclx") + 8
    return data[:place] + struct.pack(">2H", primaries, transfer) + data[place + 4 :]


@pytest.mark.fault("F1", "an AVIF that is P3, or PQ, by its nclx box", "(213, 115, 42) within 3 of 255; PQ is refused")
def test_an_avifs_numbers_are_honoured_or_refused() -> None:
    assert _near(_middle(_avif_with(1, 13)), BROWN)
    assert _near(_middle(_avif_with(12, 13)), (213, 115, 42))
    with pytest.raises(SourceUnreadable, match="a: its colours have the transfer PQ"):
        _middle(_avif_with(9, 16))


@pytest.mark.fault("F1", "a camera's JPEG in its mode Adobe RGB, without a profile", "(224, 121, 54) within 3 of 255")
def test_a_cameras_adobe_rgb_without_a_profile_is_honoured() -> None:
    exif = Image.Exif()
    exif.get_ifd(0x8769)[0xA001] = 65535
    exif.get_ifd(0x8769)[0xA005] = {1: "R03"}
    data = _bytes(_patch(), "JPEG", quality=98, exif=exif)
    assert b"R03" in data

    assert _near(_middle(data), (224, 121, 54))


@pytest.mark.fault("F1", "a BMP and a GIF with a profile inside", "(213, 115, 42) within 3 of 255")
def test_profiles_that_pillow_does_not_read_are_honoured_too() -> None:
    pixels = _bytes(_patch(), "BMP")[54:]
    head = struct.pack("<IiiHHIIiiII", 124, 48, 32, 1, 24, 0, len(pixels), 2835, 2835, 0, 0) + b"\0" * 16
    head += struct.pack("<I", 0x4D424544) + b"\0" * 48 + struct.pack("<IIII", 4, 124 + len(pixels), len(P3_PROFILE), 0)
    bmp = b"BM" + struct.pack("<IHHI", 138 + len(pixels) + len(P3_PROFILE), 0, 0, 138) + head + pixels + P3_PROFILE
    gif = _bytes(_patch().convert("P", palette=Image.Palette.ADAPTIVE), "GIF")
    blocks = b"".join(bytes((len(part),)) + part for part in _parts(P3_PROFILE, 255))
    place = gif.index(b"\x2c", 13 + 3 * 2 ** ((gif[10] & 7) + 1))
    gif = gif[:place] + b"\x21\xff\x0bICCRGBG1012" + blocks + b"\0" + gif[place:]

    assert _near(_middle(bmp), (213, 115, 42))
    assert _near(_middle(gif), (213, 115, 42))


def _parts(data: bytes, size: int) -> list[bytes]:
    return [data[start : start + size] for start in range(0, len(data), size)]


@pytest.mark.fault("F1", "a CIELAB TIFF", "(200, 120, 60) within 3 of 255")
def test_cielab_comes_out_as_it_looks() -> None:
    lightness, a, b = 58.6, 28, 46  # as TIFF stores them: 0 to 255, and two signed bytes
    image = Image.frombytes("LAB", (48, 32), bytes((round(lightness * 2.55), a, b)) * 48 * 32)
    data = _bytes(image, "TIFF")
    assert bytes((149, 28, 46)) * 48 in data

    assert _near(_srgb_of_lab(lightness, a, b), BROWN)
    assert _near(_middle(data), BROWN)


@pytest.mark.parametrize("fit", ["cover", "contain"])
@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK", "RGBA"])
@pytest.mark.parametrize("size", [(300, 200), (64, 48), (40, 30)])
def test_colours_are_the_same_whether_a_picture_is_shrunk_before_or_after(
    fit: str, mode: str, size: tuple[int, int]
) -> None:
    slope = Image.linear_gradient("L")
    turns = (slope, slope.transpose(Image.Transpose.ROTATE_90), slope.transpose(Image.Transpose.ROTATE_180))
    smooth = slope.resize(size)
    channels = [*(turn.resize(size) for turn in turns), Image.new("L", size, 40)]
    image = smooth if mode == "L" else Image.merge(mode, channels[: len(mode)])
    profile = {"L": grey_profile(1.8), "CMYK": cmyk_profile()}.get(mode, P3_PROFILE)
    data = _bytes(image, "TIFF", icc_profile=profile)
    shrunk_HWC, own_size = decode_fitted(data, "a", CAP, height=48, width=64, fit=fit)
    whole_HWC = fit_image(decode_image(data, "a", CAP), 48, 64, fit)

    assert own_size == size
    assert shrunk_HWC.shape == whole_HWC.shape == (48, 64, 3)
    apart_HWC = np.abs(shrunk_HWC.astype(int) - whole_HWC)
    assert np.percentile(apart_HWC, 99) <= 3
    assert apart_HWC.max() <= 10  # where colours leave the gamut of sRGB the order matters a little
