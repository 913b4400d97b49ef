"""Headers of safetensors files: what tensors a file holds, and how long it must be; the weights are not read.

    files --> read_headers() --> path: Header | what is wrong with the file

A file begins with the length of its header (8 bytes, little-endian) and the header, a JSON object of tensors by name
(https://huggingface.co/docs/safetensors).
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Final

from sdbatch.errors import ModelError
from sdbatch.storage import Entry, Store

HEADER_BYTES_MAX = 100_000_000
"""The bound that the safetensors package itself has."""

POINTER: Final = b"version https://git-lfs"
"""Beginning of the text that git-lfs leaves in the place of a file it has not fetched."""
POINTER_BYTES_MAX: Final = 200
"""Such a text has some 130 bytes, by the length of the size in it."""

_FIRST_BYTES = 256 << 10
"""Read at once; most headers are shorter, and a bucket answers per request."""
_AT_ONCE: Final = 16
"""Files of a bucket whose headers are asked for at once."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Header:
    """What a file of weights says of itself.

    Attributes:
        tensors: By name `dtype`, `shape` and `data_offsets`, as the format has them.
        file_bytes: Length of the whole file by its header.
    """

    tensors: Mapping[str, Mapping[str, Any]]
    file_bytes: int


def read_headers(store: Store, entries: Iterable[Entry]) -> dict[str, Header | ModelError]:
    """Read the header of every safetensors file among some, several at once where each is a request.

    Returns:
        By path the header, or what is wrong with the file.
    """
    files = [entry for entry in entries if entry.path.endswith(".safetensors")]

    def read(entry: Entry) -> Header | ModelError:
        try:
            return read_header(store, entry)
        except ModelError as error:
            return error

    if store.is_local or len(files) < 2:
        return {entry.path: read(entry) for entry in files}
    with ThreadPoolExecutor(min(_AT_ONCE, len(files))) as pool:
        return dict(zip((entry.path for entry in files), pool.map(read, files), strict=True))


def read_header(store: Store, entry: Entry) -> Header:
    """Return the header of one file.

    Raises:
        ModelError: When it is no safetensors file, or not as long as its header says.
    """
    name = f"{store.url}/{entry.path}"
    first = store.read_range(entry.path, 0, _FIRST_BYTES)
    if first.startswith(POINTER):
        raise ModelError(f"{name}: {POINTER_REMEDY}")
    stop = 8 + int.from_bytes(first[:8], "little")
    if len(first) < 8 or stop > HEADER_BYTES_MAX:
        what = f"a header of {stop - 8} bytes is over {HEADER_BYTES_MAX}" if len(first) >= 8 else "it has no header"
        raise ModelError(f"{name}: is not a safetensors file: {what}")
    if stop > entry.size_bytes:
        raise ModelError(
            f"{name}: was cut off: it has {entry.size_bytes} bytes and its header alone has {stop}; copy the file again"
        )
    data = first[8:stop] if stop <= len(first) else first[8:] + store.read_range(entry.path, len(first), stop)
    tensors = _tensors(data, name)
    end = max((int(tensor["data_offsets"][1]) for tensor in tensors.values()), default=0)
    if stop + end != entry.size_bytes:
        kind = "was cut off" if stop + end > entry.size_bytes else "is longer than its weights"
        raise ModelError(
            f"{name}: {kind}: it has {entry.size_bytes} bytes and by its header {stop + end}; copy the file again"
        )
    return Header(tensors=tensors, file_bytes=stop + end)


POINTER_REMEDY: Final = (
    "is a git-lfs pointer and not the file; run `git lfs pull` where the repository was cloned, and copy the file again"
)


def _tensors(data: bytes, name: str) -> dict[str, Mapping[str, Any]]:
    try:
        header = json.loads(data)
    except ValueError as error:
        raise ModelError(f"{name}: is not a safetensors file: {error}") from error
    tensors = {key: value for key, value in header.items() if key != "__metadata__"} if isinstance(header, dict) else {}
    if not isinstance(header, dict) or not all(map(_is_tensor, tensors.values())):
        raise ModelError(f"{name}: is not a safetensors file: its header names no tensors")
    return tensors


def _is_tensor(description: Any) -> bool:
    if not isinstance(description, dict):
        return False
    shape, offsets = description.get("shape"), description.get("data_offsets")
    return (
        isinstance(description.get("dtype"), str)
        and isinstance(shape, list)
        and all(isinstance(size, int) and size >= 0 for size in shape)
        and isinstance(offsets, list)
        and len(offsets) == 2
        and all(isinstance(place, int) and place >= 0 for place in offsets)
    )
