"""Headers of safetensors files: what tensors a file holds, and how long it must be; the weights are not read.

    files --> read_headers() --> path: Header | what is wrong with the file

A file begins with the length of its header (8 bytes, little-endian) and the header, a JSON object of tensors by name
(https://huggingface.co/docs/safetensors).
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, Final

from sdbatch.errors import ModelError
from sdbatch.storage import Entry, Store

HEADER_BYTES_MAX = 100_000_000
"""The bound that the safetensors package itself has."""

POINTER: Final = b"version https://git-lfs"
"""Beginning of the text that git-lfs leaves in the place of a file it has not fetched."""
POINTER_BYTES_MAX: Final = 200
"""Such a text has some 130 bytes, by the length of the size in it."""

_BITS: Final[Mapping[str, int]] = {
    **dict.fromkeys(("F4",), 4),
    **dict.fromkeys(("F6_E2M3", "F6_E3M2"), 6),
    **dict.fromkeys(("BOOL", "U8", "I8", "F8_E5M2", "F8_E4M3", "F8_E8M0", "F8_E4M3FNUZ", "F8_E5M2FNUZ"), 8),
    **dict.fromkeys(("I16", "U16", "F16", "BF16"), 16),
    **dict.fromkeys(("I32", "U32", "F32"), 32),
    **dict.fromkeys(("I64", "U64", "F64", "C64"), 64),
}
"""Bits of a number by its format's name (safetensors 0.8)."""

_OTHER_FILES: Final[Mapping[bytes, str]] = {
    b"<": "a web page, as a download leaves that was refused",
    b"{": "a text in JSON, as a download leaves that was refused",
    b"# xet": "a pointer of a hub and not the file",
    b"GGUF": "a GGUF file",
    b"PK": "a zip, as pickles of torch are",
    b"\x80": "a pickle",
}
"""What a file is that begins so, and has the name of a file of weights."""

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
        metadata: Texts by name that whoever wrote the file has left in it.
    """

    tensors: Mapping[str, Mapping[str, Any]]
    file_bytes: int
    metadata: Mapping[str, str] = field(default_factory=dict)

    @property
    def predicts(self) -> str:
        """What its model predicts by the file's own word, as a scheduler calls it; "" where it says nothing."""
        if _PREDICTS_V in self.tensors:
            return "v_prediction"
        return _PREDICTIONS.get(self.metadata.get(_PREDICTS, ""), "")


_PREDICTS: Final = "modelspec.prediction_type"
"""Name in a file's metadata under which trainers say what its model predicts."""
_PREDICTIONS: Final = {"epsilon": "epsilon", "v": "v_prediction"}
"""What they say, and what a scheduler calls it."""
_PREDICTS_V: Final = "v_pred"
"""An empty tensor that trainers leave in a file that predicts v."""
SAID_WHERE: Final = f"{_PREDICTS} of its metadata, or a tensor named {_PREDICTS_V}"


def is_taken_for_another(predicts: str, taken: Any) -> bool:
    """Whether a file says that it predicts otherwise than a scheduler takes it for; see `Header.predicts`."""
    return taken in _PREDICTIONS.values() and predicts not in {"", taken}


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
    if len(first) < 8:
        what = "it has no header" if first else "it is empty"
        raise ModelError(f"{name}: is not a safetensors file: {what}; copy the file again")
    if stop > HEADER_BYTES_MAX:
        what = but_another(first) or f": a header of {stop - 8} bytes is over {HEADER_BYTES_MAX}"
        raise ModelError(f"{name}: is not a safetensors file{what}; it begins with {first[:12]!r}; get the file again")
    if stop > entry.size_bytes:
        raise ModelError(
            f"{name}: was cut off: it has {entry.size_bytes} bytes and its header alone has {stop}; copy the file again"
        )
    data = first[8:stop] if stop <= len(first) else first[8:] + store.read_range(entry.path, len(first), stop)
    tensors, metadata = _parts(data, name)
    end = max((int(tensor["data_offsets"][1]) for tensor in tensors.values()), default=0)
    if stop + end != entry.size_bytes:
        kind = "was cut off" if stop + end > entry.size_bytes else "is longer than its weights"
        raise ModelError(
            f"{name}: {kind}: it has {entry.size_bytes} bytes and by its header {stop + end}; copy the file again"
        )
    _refuse_misplaced(tensors, name)
    return Header(tensors=tensors, file_bytes=stop + end, metadata=metadata)


def but_another(data: bytes) -> str:
    """Return " but " and the kind of a file by how it begins, "" for one of no kind that is known."""
    return next((f" but {what}" for start, what in _OTHER_FILES.items() if data.lstrip().startswith(start)), "")


POINTER_REMEDY: Final = (
    "is a git-lfs pointer and not the file; run `git lfs pull` where the repository was cloned, and copy the file again"
)


def _refuse_misplaced(tensors: Mapping[str, Mapping[str, Any]], name: str) -> None:
    """Refuse tensors that no reader finds: each begins where the one before it ends, and is as long as its shape."""
    place = 0
    for tensor, value in sorted(tensors.items(), key=lambda item: item[1]["data_offsets"]):
        start, stop = value["data_offsets"]
        if start != place or stop < start:
            raise ModelError(
                f"{name}: is damaged: its header puts {tensor!r} at bytes {start} to {stop}, and the tensor before it "
                f"ends at {place}; get the file again"
            )
        bits = _BITS.get(value["dtype"])
        if bits is None:
            raise ModelError(
                f"{name}: {tensor!r} is of {value['dtype']!r}, which is none of the formats {', '.join(_BITS)}"
            )
        if (stop - start) * 8 != math.prod(value["shape"]) * bits:
            raise ModelError(
                f"{name}: is damaged: {tensor!r} has {stop - start} bytes, and by its shape {value['shape']} of "
                f"{value['dtype']} {math.prod(value['shape']) * bits // 8}; get the file again"
            )
        place = stop


def _parts(data: bytes, name: str) -> tuple[dict[str, Mapping[str, Any]], dict[str, str]]:
    """Return the tensors and the metadata of a header."""
    try:
        header = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise ModelError(f"{name}: is not a safetensors file: {error}") from error
    metadata = header.get("__metadata__") if isinstance(header, dict) else None
    if not (metadata is None or (isinstance(metadata, dict) and all(map(_is_text, metadata.values())))):
        raise ModelError(
            f"{name}: is damaged: its __metadata__ must hold texts by name, and holds others; save the file again by "
            "the safetensors package"
        )
    tensors = {key: value for key, value in header.items() if key != "__metadata__"} if isinstance(header, dict) else {}
    if not isinstance(header, dict) or not all(map(_is_tensor, tensors.values())):
        raise ModelError(f"{name}: is not a safetensors file: its header names no tensors")
    return tensors, metadata or {}


def _is_tensor(description: Any) -> bool:
    if not isinstance(description, dict):
        return False
    shape, offsets = description.get("shape"), description.get("data_offsets")
    return (
        isinstance(description.get("dtype"), str)
        and isinstance(shape, list)
        and all(map(_is_count, shape))
        and isinstance(offsets, list)
        and len(offsets) == 2
        and all(map(_is_count, offsets))
    )


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _is_text(value: Any) -> bool:
    return isinstance(value, str)
