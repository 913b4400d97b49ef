"""Loads a JPEG, also one that lacks its last bytes, as cameras and downloads leave them.

    file --> load() --> pixels, and a note when the end is missing        or OSError when more is missing than that

Which rows the file still decides is found by decoding it with different ends: rows that differ were made up.
"""

from __future__ import annotations

import io
import re
import struct
from collections.abc import Iterator
from typing import Final

import numpy as np
from PIL import Image, ImageFile
from PIL.JpegImagePlugin import JpegImageFile

END: Final = b"\xff\xd9"
LOST_ROWS_MAX: Final = 18
"""Rows that may be missing at the bottom: one row of blocks of the usual 4:2:0, whose colours reach two rows up."""

_LACKS_END: Final = "the file lacks its last bytes"
_NOISE: Final = bytes((37 * place + 11) % 255 for place in range(256))
_ZEROS: Final = bytes(64)
"""What stands for the rest of a download that broke off; no picture's data ends so, but that of one colour."""
_NO_LENGTH: Final = frozenset({0x01, *range(0xD0, 0xDA)})
_PROGRESSIVE: Final = frozenset({0xC2, 0xC6, 0xCA, 0xCE})


class Jpeg(JpegImageFile):
    """A JPEG that goes on with other bytes where its file ends.

    Attributes:
        tail: Those bytes.
        xmp: Its XMP, which is taken from where Pillow would read an orientation from it.
    """

    tail: bytes = b""
    xmp: bytes = b""

    def _open(self) -> None:
        super()._open()
        self.xmp = self.info.pop("xmp", b"")

    def load_read(self, read_bytes: int) -> bytes:
        """Return the next bytes; Pillow asks for them while it decodes."""
        read = self.fp.read(read_bytes) if self.fp is not None else b""
        if not read:
            read, self.tail = self.tail, b""
        return read


def load(image: JpegImageFile, data: bytes) -> tuple[Image.Image, str | None]:
    """Load a picture's pixels.

    Args:
        image: The picture, opened.
        data: Its file.

    Returns:
        The picture, and a note when the file lacks its end.

    Raises:
        OSError: When it is broken, or more than its last rows is missing.
    """
    has_end = _has_end(data)
    if not has_end and data.endswith(_ZEROS):
        return _without_end(data.rstrip(b"\0"))
    try:
        image.load()
    except OSError as error:
        if "truncated" not in str(error):
            raise
        return _without_end(data)
    return image, None if has_end else _LACKS_END


def _has_end(data: bytes) -> bool:
    """Whether the end's marker stands after the first scan; the decoder need not reach it for the last pixel."""
    if data.endswith(END):
        return True
    first_scan = next((start for marker, start, _ in _segments(data) if marker == 0xDA), len(data))
    return data.find(END, first_scan) >= 0


def _without_end(data: bytes) -> tuple[Image.Image, str]:
    if not _has_every_scan(data):
        raise OSError("the file is cut off before its last scan")
    plain = _decoded(data, END)
    torn = b"\0" if data.endswith(b"\xff") else b""
    others = (_decoded(data, torn + restart + _NOISE + END) for restart in (b"", _next_restart(data)))
    decided = min(_rows_alike(plain, other) for other in others)
    height = plain.height
    if height - decided > LOST_ROWS_MAX:
        raise OSError(f"the file is cut off: of {height} rows the last {height - decided} are missing")
    lost = f"; its last {height - decided} rows may be grey" if decided < height else ""
    return plain, f"{_LACKS_END}{lost}"


def _decoded(data: bytes, tail: bytes) -> ImageFile.ImageFile:
    image = Jpeg(io.BytesIO(data))
    image.tail = tail
    image.load()
    return image


def _next_restart(data: bytes) -> bytes:
    """Return the marker that comes next where the last scan ends between two: only behind it is more data read."""
    scan = data.rfind(b"\xff\xda")
    places = [data.rfind(bytes((0xFF, 0xD0 + number)), scan) for number in range(8)]
    last = max(range(8), key=places.__getitem__) if max(places) >= 0 else -1
    return bytes((0xFF, 0xD0 + (last + 1) % 8))


def _rows_alike(one: Image.Image, other: Image.Image) -> int:
    """Return how many rows from the top are the same in two pictures."""
    one_HWC, other_HWC = np.asarray(one), np.asarray(other)
    differ_H = (one_HWC != other_HWC).reshape(one.height, -1).any(axis=1)
    return int(differ_H.argmax()) if differ_H.any() else one.height


def _has_every_scan(data: bytes) -> bool:
    """Whether every coefficient of every component is in some scan, down to its last bit.

    A file that was cut between two scans decodes to its last row, coarsely.
    """
    components: set[int] = set()
    is_progressive = False
    left: set[tuple[int, int]] = set()
    for marker, _, body in _segments(data):
        if 0xC0 <= marker <= 0xCF and marker not in {0xC4, 0xC8, 0xCC} and len(body) >= 6:
            is_progressive = marker in _PROGRESSIVE
            components = set(body[6 : 6 + 3 * body[5] : 3])
            left = {(component, place) for component in components for place in range(64)}
        elif marker == 0xDA and body and len(body) >= 4 + 2 * body[0]:
            first, last, bits = body[1 + 2 * body[0] :][:3]
            first, last, bits = (first, last, bits & 15) if is_progressive else (0, 63, 0)
            if bits == 0:
                named = body[1 : 1 + 2 * body[0] : 2]
                left -= {(component, place) for component in named for place in range(first, last + 1)}
    return bool(components) and not left


def _segments(data: bytes) -> Iterator[tuple[int, int, bytes]]:
    """Yield marker, place and body of each segment; between scans stands coded data, where 0xFF is followed by 0."""
    place = 2
    while place + 4 <= len(data):
        found = re.compile(rb"\xff[\x01-\xfe]").search(data, place)
        if found is None:
            break
        marker, place = data[found.start() + 1], found.end()
        if marker in _NO_LENGTH or place + 2 > len(data):
            continue
        length = struct.unpack_from(">H", data, place)[0]
        yield marker, place, data[place + 2 : place + length]
        place += length
