"""Damages that any file can have: each takes a source of chance, the file, and another file of its kind."""

from __future__ import annotations

import random


def cut(draw: random.Random, data: bytes, _: bytes) -> bytes:
    """Leave out the end."""
    return data[: draw.randrange(len(data))]


def hole(draw: random.Random, data: bytes, _: bytes) -> bytes:
    """Write over a part with zeros or ones."""
    start = draw.randrange(len(data))
    end = min(len(data), start + draw.choice((1, 16, 200, 4096)))
    return data[:start] + draw.choice((b"\0", b"\xff")) * (end - start) + data[end:]


def taken_out(draw: random.Random, data: bytes, _: bytes) -> bytes:
    """Leave out a part."""
    start = draw.randrange(len(data))
    return data[:start] + data[start + draw.choice((1, 7, 100)) :]


def put_in(draw: random.Random, data: bytes, other: bytes) -> bytes:
    """Put in a part of the other file."""
    place, start = draw.randrange(len(data)), draw.randrange(len(other))
    return data[:place] + other[start : start + draw.choice((1, 9, 300))] + data[place:]
