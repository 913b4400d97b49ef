"""Damaged pictures and clips: whether decoding one ever costs more than the row that names it.

    real files --> damaged(number, seed) --> BoundedDecoder, as a worker has it --> pixels, or a refusal of that file

Damage is what disks, copies and strangers do: bits turned, ends cut off, parts put in, taken out or swapped, and
headers that lie. Between the damaged files stand sound ones, whose pixels must come out as they always do. Each file
that is damaged follows from the seed and its number. `fuzz_pictures` and `fuzz_clips` are what `run_fuzz.py` and the
tests call.
"""

from __future__ import annotations

import functools
import io
import random
import struct
import subprocess
import tempfile
import traceback
import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import imageio_ffmpeg
import numpy as np
from damage import cut, hole, put_in, taken_out
from PIL import Image, ImageCms

from sdbatch.errors import RowError
from sdbatch.fetch.bounded.decoder import BoundedDecoder
from sdbatch.fetch.settings import PixelSettings
from sdbatch.types import Source

SOUND_EVERY = 10
"""One file in so many is sound."""

CHILDREN = 2
THREADS = 4
PIXELS_MAX = 4_000_000
_PICTURE = PixelSettings(height=48, width=48)
_CLIP = PixelSettings(height=48, width=48, num_frames=6, fps=6.0)
_CLIPS = {
    "mp4": ["-c:v", "libx264", "-g", "3"],
    "mov": ["-c:v", "prores_ks"],
    "webm": ["-c:v", "libvpx-vp9", "-deadline", "realtime"],
    "mkv": ["-c:v", "libx264"],
    "avi": ["-c:v", "mjpeg"],
    "ts": ["-c:v", "mpeg2video"],
    "gif": [],
}
Damage = Callable[[random.Random, bytes, bytes], bytes]


@dataclass(kw_only=True)
class Found:
    """What came of some files.

    Attributes:
        answers: How often each answer came.
        faults: What should never happen, with the number of the file.
        children: How many decoding processes ended and were replaced.
    """

    answers: Counter[str] = field(default_factory=Counter)
    faults: list[str] = field(default_factory=list)
    children: int = 0


def fuzz_pictures(count: int, seed: int = 1, tell: Callable[[str], None] = lambda _: None) -> Found:
    """Decode so many pictures, nine in ten of them damaged."""
    return _fuzz(whole_pictures(), count, seed, _PICTURE, tell)


def fuzz_clips(count: int, seed: int = 1, tell: Callable[[str], None] = lambda _: None) -> Found:
    """Decode so many clips, nine in ten of them damaged."""
    return _fuzz(whole_clips(), count, seed, _CLIP, tell)


def _fuzz(whole: list[bytes], count: int, seed: int, settings: PixelSettings, tell: Callable[[str], None]) -> Found:
    found = Found()
    decoder = BoundedDecoder(
        pixels_max=PIXELS_MAX, file_bytes_max=16 << 20, num_children=CHILDREN, picture_processor_s=20.0
    )
    sound = [_answer(decoder, data, "sound", settings, "images") for data in whole]
    # A format that is not taken is refused by its class; anything else is no answer to a sound file.
    found.faults += [answer for answer in sound if isinstance(answer, str) and not answer.endswith("Unreadable")]
    if all(isinstance(answer, str) for answer in sound):
        found.faults.append("no sound file is decoded")

    def one(number: int) -> None:
        draw = random.Random(f"{seed}:{number}")
        place = draw.randrange(len(whole))
        is_sound = number % SOUND_EVERY == 0
        role = "images" if is_sound or number % 7 else "mask"
        data = whole[place] if is_sound else damaged(draw, whole[place], draw.choice(whole))
        answer = _answer(decoder, data, f"file-{number:06d}", settings, role)
        if is_sound and not _is_same(answer, sound[place]):
            found.faults.append(f"{number}: a sound file gave {answer!r:.300}")
        kind = answer.split("\n")[0] if isinstance(answer, str) else "decoded"
        found.answers[kind] += 1
        if kind.startswith("fault"):
            found.faults.append(f"{number}: {answer}")
        if number % 1000 == 999:
            tell(f"{number + 1} of {count}: {dict(found.answers)}, {len(found.faults)} faults")

    with ThreadPoolExecutor(THREADS) as threads:
        list(threads.map(one, range(count)))
    found.children = decoder.num_replaced
    decoder.close()
    return found


def _answer(decoder: BoundedDecoder, data: bytes, name: str, settings: PixelSettings, role: str) -> Any:
    """Return the pixels of a file, or the kind of its refusal; what begins with "fault" should never happen."""
    role = "video" if settings.num_frames else role
    try:
        pixels = decoder.decode([Source(role=role, url=name, digest="")], settings, lambda _: data)
        array = pixels[role][0] if role == "images" else pixels[role]
    except RowError as error:
        text = str(error)
        if not text.startswith(f"{name}: "):
            return f"fault: another file is named\n{text}"
        ended = [words for words in ("took over", "ended with", "was killed", "takes more than") if words in text]
        return f"refused: {ended[0]}" if ended else f"refused: {type(error).__name__}"
    except Exception:  # noqa: BLE001 -- this is what is looked for
        return f"fault: {traceback.format_exc()}"
    expected = {"images": (48, 48, 3), "mask": (48, 48), "video": (6, 48, 48, 3)}[role]
    return array if array.shape == expected else f"fault: pixels of {array.shape}"


def _is_same(one: Any, other: Any) -> bool:
    if isinstance(one, str) or isinstance(other, str):
        return isinstance(one, str) and isinstance(other, str) and one == other
    return bool(np.array_equal(one, other))


# --- whole files ----------------------------------------------------------------------------------------------------


@functools.cache
def whole_pictures() -> list[bytes]:
    """Return small pictures in every format and form that people bring."""
    draw = np.random.default_rng(1)
    small = Image.fromarray(draw.integers(0, 255, (10, 12, 3), dtype=np.uint8))
    picture = small.resize((60, 50), Image.Resampling.BICUBIC)
    layered = picture.convert("RGBA").rotate(20)
    deep = Image.fromarray(draw.integers(0, 65535, (50, 60)).astype(np.uint16))
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    exif = Image.Exif()
    exif[0x0112] = 6
    many = {"save_all": True, "append_images": [picture.rotate(90), picture.rotate(180)]}
    forms: list[tuple[Image.Image, str, dict[str, Any]]] = [
        (picture, "PNG", {"icc_profile": profile}),
        (layered, "PNG", {}),
        (deep, "PNG", {}),
        (picture.quantize(16), "PNG", {"transparency": 3}),
        (picture.convert("1"), "PNG", {}),
        (picture, "JPEG", {"exif": exif, "icc_profile": profile}),
        (picture, "JPEG", {"progressive": True, "subsampling": 0}),
        (picture.convert("CMYK"), "JPEG", {}),
        (picture.convert("L"), "JPEG", {"progressive": True}),
        (picture, "WEBP", {"icc_profile": profile}),
        (layered, "WEBP", {"lossless": True}),
        (picture, "WEBP", many),
        (picture, "AVIF", {"speed": 10}),
        (layered, "AVIF", {"speed": 10, "exif": exif}),
        (picture, "GIF", many),
        (picture.quantize(8), "GIF", {"transparency": 2}),
        (picture, "BMP", {}),
        (picture.convert("L"), "BMP", {}),
        (picture, "TIFF", {"icc_profile": profile}),
        (picture, "TIFF", {"compression": "tiff_lzw"}),
        (picture, "TIFF", {"compression": "tiff_deflate"}),
        (picture, "TIFF", {"compression": "jpeg"}),
        (deep, "TIFF", {}),
        (picture, "JPEG2000", {}),
    ]
    return [_saved(image, kind, options) for image, kind, options in forms]


def _saved(image: Image.Image, kind: str, options: dict[str, Any]) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


@functools.cache
def whole_clips() -> list[bytes]:
    """Return clips of a second in every container that people bring."""
    clips = []
    with tempfile.TemporaryDirectory(prefix="sdbatch-fuzz-") as folder:
        for suffix, codec in _CLIPS.items():
            file = Path(folder) / f"clip.{suffix}"
            pattern = ["-f", "lavfi", "-i", "testsrc2=size=64x48:rate=6:duration=1.5"]
            command = [imageio_ffmpeg.get_ffmpeg_exe(), "-v", "error", "-y", *pattern, *codec, str(file)]
            subprocess.run(command, check=True, stdin=subprocess.DEVNULL)
            clips.append(file.read_bytes())
    return clips


# --- damage ---------------------------------------------------------------------------------------------------------


def damaged(draw: random.Random, data: bytes, other: bytes) -> bytes:
    """Return a file with one kind of damage, now and then two."""
    for _ in range(draw.choice((1, 1, 1, 2))):
        data = draw.choice(_DAMAGES)(draw, data or b"\0", other)
    return _with_checksums(data) if draw.random() < 0.5 else data


def _bits_turned(draw: random.Random, data: bytes, _: bytes) -> bytes:
    changed = bytearray(data)
    for _bit in range(draw.choice((1, 1, 2, 8, 64))):
        changed[draw.randrange(len(changed))] ^= 1 << draw.randrange(8)
    return bytes(changed)


def _head_bits_turned(draw: random.Random, data: bytes, _: bytes) -> bytes:
    """Turn bits where they hurt most: the head says how large everything is."""
    changed = bytearray(data)
    for _bit in range(draw.choice((1, 2, 4))):
        changed[draw.randrange(min(len(changed), 200))] ^= 1 << draw.randrange(8)
    return bytes(changed)


def _head_lies(draw: random.Random, data: bytes, _: bytes) -> bytes:
    """Write a number that is far too large, too small or negative over one in the head."""
    value = draw.choice((0, 1, 0x7FFF, 0xFFFF, 0x7FFFFFFF, 0xFFFFFFFF, 0x80000000, draw.getrandbits(32)))
    form = draw.choice(("<I", ">I", "<H", ">H"))
    text = struct.pack(form, value & (0xFFFFFFFF if "I" in form else 0xFFFF))
    start = draw.randrange(min(len(data), 300))
    return data[:start] + text + data[start + len(text) :]


def _repeated(draw: random.Random, data: bytes, _: bytes) -> bytes:
    """Repeat a part many times, as a bomb does."""
    start = draw.randrange(len(data))
    end = min(len(data), start + draw.choice((2, 20, 200)))
    return data[:end] + data[start:end] * draw.choice((2, 50, 2000)) + data[end:]


def _tail_of_another(draw: random.Random, data: bytes, other: bytes) -> bytes:
    return data[: draw.randrange(len(data))] + other[draw.randrange(len(other)) :]


def _anything(draw: random.Random, data: bytes, _: bytes) -> bytes:
    keep = draw.choice((4, 12, 30, 64))
    return data[:keep] + draw.randbytes(draw.choice((10, 500, 5000)))


_DAMAGES: tuple[Damage, ...] = (
    _bits_turned,
    _head_bits_turned,
    _head_bits_turned,
    _head_lies,
    _head_lies,
    cut,
    hole,
    taken_out,
    put_in,
    _repeated,
    _tail_of_another,
    _anything,
)


def _with_checksums(data: bytes) -> bytes:
    """Return a PNG with its checksums right again, so that a decoder does not stop at them; other files as they are."""
    if not data.startswith(b"\x89PNG\r\n\x1a\n"):
        return data
    return data[:8] + b"".join(_chunks(data[8:]))


def _chunks(data: bytes) -> Iterator[bytes]:
    while len(data) >= 12:
        (length,) = struct.unpack(">I", data[:4])
        if length > len(data) - 12:
            break
        body = data[4 : 8 + length]
        yield data[:4] + body + struct.pack(">I", zlib.crc32(body))
        data = data[12 + length :]
    yield data
