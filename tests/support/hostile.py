"""Files as strangers send them: small to send, dear to decode."""

from __future__ import annotations

import io
import random
import struct

from PIL import Image


def slow_jpeg(side: int = 3000, scans: int = 4000) -> bytes:
    """Return a progressive JPEG of some 100 kB that goes over the same coefficients again and again, for minutes."""
    buffer = io.BytesIO()
    Image.effect_noise((side, side), 2).convert("L").save(buffer, "JPEG", quality=1, progressive=True)
    data = buffer.getvalue()
    starts = [at for at in range(len(data) - 1) if data[at : at + 2] == b"\xff\xda"]
    last = data[starts[-1] : -2]
    empty = last[: 2 + struct.unpack(">H", last[2:4])[0]]
    return data[:-2] + empty * scans + b"\xff\xd9"


def damaged_avifs() -> list[bytes]:
    """Return damaged AVIF files, with which Pillow 12 raises RuntimeError, in several places."""
    buffer = io.BytesIO()
    Image.effect_noise((60, 50), 90).convert("RGB").save(buffer, "AVIF", speed=10)
    whole = buffer.getvalue()
    files = []
    for number in range(40):
        draw = random.Random(number)
        data = bytearray(whole)
        for _ in range(3):
            data[draw.randrange(len(data))] ^= 1 << draw.randrange(8)
        files.append(bytes(data))
    return files
