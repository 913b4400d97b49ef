"""What a worker and its decoding child say to each other: short JSON messages, and pixels in shared memory.

    message: 4 bytes of length, JSON          pixels: arrays of uint8, one behind the other, and a tree that places them

The worker trusts nothing that comes from the child: lengths, places and shapes are checked, and no pickle is read.
"""

from __future__ import annotations

import json
import math
import os
import socket
import struct
import tempfile
from collections.abc import Callable
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from sdbatch.types import Source

MESSAGE_BYTES_MAX: Final = 4 << 20
_LENGTH: Final = struct.Struct(">I")


class Nonsense(ValueError):
    """The other side said what it never says when it is sound."""


def kind_of(source: Source) -> str:
    """Return what a source is, `picture` or `clip`: the two have bounds of their own."""
    return "clip" if source.role == "video" else "picture"


class Line:
    """Messages over a socket.

    Args:
        connection: One end of a socket pair.
    """

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection

    def send(self, message: dict[str, Any]) -> None:
        """Send a message."""
        data = json.dumps(message).encode()
        self._connection.sendall(_LENGTH.pack(len(data)) + data)

    def receive(self, timeout_s: float | None = None) -> dict[str, Any]:
        """Return the next message.

        Raises:
            EOFError: When the other side has ended.
            TimeoutError: When no whole message came within `timeout_s` of silence.
            Nonsense: When it is not a message.
        """
        self._connection.settimeout(timeout_s)
        (length,) = _LENGTH.unpack(self._exactly(_LENGTH.size))
        if length > MESSAGE_BYTES_MAX:
            raise Nonsense(f"a message of {length} bytes is over {MESSAGE_BYTES_MAX}")
        try:
            message = json.loads(self._exactly(length))
        except (ValueError, RecursionError) as error:
            raise Nonsense(f"a message is not JSON: {error}") from error
        if not isinstance(message, dict):
            raise Nonsense("a message is not an object")
        return message

    def close(self) -> None:
        """Close this end."""
        self._connection.close()

    def _exactly(self, num_bytes: int) -> bytes:
        data = b""
        while len(data) < num_bytes:
            try:
                part = self._connection.recv(num_bytes - len(data))
            except ConnectionError as error:
                raise EOFError from error
            if not part:
                raise EOFError
            data += part
        return data


def shared_file() -> int:
    """Return the descriptor of a file in memory that has no name, so that nothing of it is left behind.

    Linux has such files; elsewhere it is a file that was removed at once.
    """
    if hasattr(os, "memfd_create"):
        return os.memfd_create("sdbatch-pixels", os.MFD_CLOEXEC)
    with tempfile.TemporaryFile() as file:
        return os.dup(file.fileno())


def write_all(descriptor: int, data: bytes | memoryview, offset: int) -> None:
    """Write bytes at a place of a file."""
    view = memoryview(data)
    while view:
        written = os.pwrite(descriptor, view, offset)
        view, offset = view[written:], offset + written


def laid_out(value: Any, arrays: list[NDArray[np.uint8]], offset: int = 0) -> tuple[Any, int]:
    """Return a tree of plain values that stands for pixels by role, and where the next array begins.

    Args:
        value: Mappings, tuples, plain values, and arrays of uint8.
        arrays: Collects the arrays, in the order in which they lie in memory.
        offset: Where the next array begins.
    """
    if isinstance(value, np.ndarray):
        if value.dtype != np.uint8:
            raise TypeError(f"pixels are uint8, not {value.dtype}")
        arrays.append(np.ascontiguousarray(value))
        return {"shape": list(value.shape), "offset": offset}, offset + value.nbytes
    if isinstance(value, dict):
        pairs = []
        for name, item in value.items():
            tree, offset = laid_out(item, arrays, offset)
            pairs.append([name, tree])
        return {"pairs": pairs}, offset
    if isinstance(value, tuple | list):
        items = []
        for item in value:
            tree, offset = laid_out(item, arrays, offset)
            items.append(tree)
        return {"items": items}, offset
    return {"plain": value}, offset


def taken_up(tree: Any, read: Callable[[int, int], NDArray[np.uint8]], *, depth: int = 8) -> Any:
    """Return the pixels by role that a tree stands for.

    Args:
        tree: As `laid_out` returns it, from the other side.
        read: Returns an array of so many bytes from an offset.
        depth: How deep it may be nested.

    Raises:
        Nonsense: When it is no such tree.
    """
    match tree:
        case _ if not depth:
            raise Nonsense("pixels are nested too deep")
        case {"shape": [*shape], "offset": int(offset)} if all(type(side) is int and side >= 0 for side in shape):
            return read(offset, math.prod(shape)).reshape(shape)
        case {"pairs": [*pairs]} if all(isinstance(pair, list) and len(pair) == 2 for pair in pairs):
            return {str(name): taken_up(item, read, depth=depth - 1) for name, item in pairs}
        case {"items": [*items]}:
            return tuple(taken_up(item, read, depth=depth - 1) for item in items)
        case {"plain": None | bool() | int() | float() | str() as value}:
            return value
    raise Nonsense("pixels are not laid out as they should be")
