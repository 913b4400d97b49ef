"""The number of a denoiser's parameters, from the headers of its safetensors files.

A file begins with the length of its header (8 bytes, little-endian) and the header, a JSON object of tensors by name
(https://huggingface.co/docs/safetensors). The weights themselves are not read.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable
from typing import Any

from sdbatch.errors import ModelError
from sdbatch.storage import Entry, Store

HEADER_BYTES_MAX = 100_000_000
"""The bound that the safetensors package itself has."""

_FIRST_BYTES = 256 << 10
"""Read at once; most headers are shorter, and a bucket answers per request."""


def num_parameters(store: Store, entries: Iterable[Entry]) -> int:
    """Count the elements of every tensor in files; one that stands in several files, as variants do, counts once.

    Raises:
        ModelError: When a file is not safetensors.
    """
    elements: dict[str, int] = {}
    for entry in entries:
        if entry.path.endswith(".safetensors"):
            for tensor, description in _header(store, entry.path).items():
                if tensor != "__metadata__":
                    elements[tensor] = math.prod(description["shape"])
    return sum(elements.values())


def _header(store: Store, path: str) -> dict[str, Any]:
    first = store.read_range(path, 0, _FIRST_BYTES)
    stop = 8 + int.from_bytes(first[:8], "little")
    if len(first) < 8 or stop > HEADER_BYTES_MAX:
        what = f"a header of {stop - 8} bytes is over {HEADER_BYTES_MAX}" if len(first) >= 8 else "it has no header"
        raise ModelError(f"{store.url}/{path}: is not a safetensors file: {what}")
    data = first[8:stop] if stop <= len(first) else first[8:] + store.read_range(path, len(first), stop)
    try:
        header = json.loads(data)
        if isinstance(header, dict) and all(_is_tensor(*item) for item in header.items()):
            return header
    except ValueError as error:
        raise ModelError(f"{store.url}/{path}: is not a safetensors file: {error}") from error
    raise ModelError(f"{store.url}/{path}: is not a safetensors file: its header names no tensors")


def _is_tensor(name: str, description: Any) -> bool:
    if name == "__metadata__":
        return True
    shape = description.get("shape") if isinstance(description, dict) else None
    return isinstance(shape, list) and all(isinstance(size, int) and size >= 0 for size in shape)
