"""The bytes of a signed file without its credentials: as if nobody had signed it."""

from __future__ import annotations

import struct

C2PA_BOX = bytes.fromhex("d8fec3d61b0e483c92975828877ec481")


def unsigned(data: bytes, suffix: str) -> bytes:
    """Take the C2PA block out of a PNG, JPEG, WebP, AVIF or MP4; what points behind it is moved back."""
    if suffix == "webm":
        return data
    without = {"png": _png, "jpg": _jpeg, "webp": _webp, "avif": _boxes, "mp4": _boxes}[suffix]
    return without(data)


def _png(data: bytes) -> bytes:
    place = 8
    while place < len(data):
        (length,) = struct.unpack_from(">I", data, place)
        if data[place + 4 : place + 8] == b"caBX":
            return data[:place] + data[place + 12 + length :]
        place += 12 + length
    raise AssertionError("no block")


def _jpeg(data: bytes) -> bytes:
    kept, place = data[:2], 2
    while data[place + 1] != 0xDA:
        (length,) = struct.unpack_from(">H", data, place + 2)
        segment = data[place : place + 2 + length]
        kept += b"" if segment[1] == 0xEB and segment[4:6] == b"JP" else segment
        place += 2 + length
    return kept + data[place:]


def _webp(data: bytes) -> bytes:
    kept, place = b"", 12
    while place < len(data):
        (length,) = struct.unpack_from("<I", data, place + 4)
        whole = 8 + length + length % 2
        kept += b"" if data[place : place + 4] == b"C2PA" else data[place : place + whole]
        place += whole
    return data[:4] + struct.pack("<I", 4 + len(kept)) + data[8:12] + kept


def _boxes(data: bytes) -> bytes:
    place = 0
    while place < len(data):
        length, kind = struct.unpack_from(">I4s", data, place)
        if kind == b"uuid" and data[place + 8 : place + 24] == C2PA_BOX:
            return _moved(bytearray(data[:place] + data[place + length :]), place, length)
        place += length
    raise AssertionError("no block")


def _moved(data: bytearray, behind: int, by: int) -> bytes:
    """Lower the offsets in stco (MP4) and iloc version 0 (AVIF) that point behind a place."""
    for name in (b"stco", b"iloc"):
        begin = data.find(name)
        if begin < 0:
            continue
        if name == b"stco":
            (count,) = struct.unpack_from(">I", data, begin + 8)
            places = [begin + 12 + 4 * number for number in range(count)]
        else:
            (count,) = struct.unpack_from(">H", data, begin + 10)
            assert data[begin + 8] == 0x44, "offsets and lengths of 4 bytes"
            places, place = [], begin + 12
            for _ in range(count):
                (extents,) = struct.unpack_from(">H", data, place + 4)
                places += [place + 6 + 8 * number for number in range(extents)]
                place += 6 + 8 * extents
        for place in places:
            (value,) = struct.unpack_from(">I", data, place)
            assert value > behind
            struct.pack_into(">I", data, place, value - by)
    return bytes(data)
