"""Headers of GGUF files, read without torch and without the gguf package.

    header --> read_gguf() --> tensors by name: type, number of elements

A file begins with `GGUF`, a version and two counts; values by name and a description of each tensor follow
(https://github.com/ggml-org/ggml/blob/master/docs/gguf.md). The weights themselves are not read.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from sdbatch.checkpoints.headers import POINTER, POINTER_REMEDY, but_another
from sdbatch.errors import ModelError
from sdbatch.storage import Store

MAGIC: Final = b"GGUF"
HEADER_BYTES_MAX: Final = 64 << 20
"""The header of the largest published transformers has under 1 MiB."""
TENSORS_MAX: Final = 100_000
_VERSIONS: Final = (2, 3)
_FIRST_BYTES: Final = 1 << 20

TYPES: Final[Mapping[int, tuple[str, int, int]]] = {
    0: ("F32", 1, 4),
    1: ("F16", 1, 2),
    2: ("Q4_0", 32, 18),
    3: ("Q4_1", 32, 20),
    6: ("Q5_0", 32, 22),
    7: ("Q5_1", 32, 24),
    8: ("Q8_0", 32, 34),
    10: ("Q2_K", 256, 84),
    11: ("Q3_K", 256, 110),
    12: ("Q4_K", 256, 144),
    13: ("Q5_K", 256, 176),
    14: ("Q6_K", 256, 210),
    20: ("IQ4_NL", 32, 18),
    23: ("IQ4_XS", 256, 136),
    30: ("BF16", 1, 2),
}
"""Types of tensors that diffusers reads (0.42.1), by their number in a file: name, numbers in a block, its bytes."""

_ALIGNMENT: Final = 32
"""Tensors begin at multiples of it where a file says no other."""

_PLAIN: Final[Mapping[int, str]] = {
    0: "<B",
    1: "<b",
    2: "<H",
    3: "<h",
    4: "<I",
    5: "<i",
    6: "<f",
    7: "<?",
    10: "<Q",
    11: "<q",
    12: "<d",
}
"""Forms of values by their type's number; 8 is a text, 9 a list."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GgufHeader:
    """What a GGUF file says of itself.

    Attributes:
        architecture: Its maker's name of the network; "" where it says none.
        tensors: By name, the type and the number of elements.
        shapes: By name, the shape as torch has it.
        reshaped: Names of tensors that are kept in another shape, and the one that they have in their network.
        file_bytes: Least length of the whole file.
    """

    architecture: str
    tensors: Mapping[str, tuple[str, int]]
    shapes: Mapping[str, Sequence[int]]
    reshaped: Mapping[str, Sequence[int]]
    file_bytes: int

    @property
    def parameters(self) -> int:
        """Number of elements of all tensors."""
        return sum(count for _, count in self.tensors.values())


def read_gguf(store: Store, path: str) -> GgufHeader:
    """Return the header of a file.

    Raises:
        ModelError: When it is no GGUF file, is cut off, or holds a type of tensors that diffusers does not read.
    """
    name = f"{store.url}/{path}"
    size_bytes = store.stat(path).size_bytes
    stop = min(_FIRST_BYTES, size_bytes)
    while True:
        try:
            header = _parsed(store.read_range(path, 0, stop), name)
        except (struct.error, IndexError) as error:
            if stop >= min(size_bytes, HEADER_BYTES_MAX):
                what = "is cut off within its header" if stop == size_bytes else f"has a header over {stop} bytes"
                raise ModelError(f"{name}: {what}; copy the file again") from error
        else:
            if size_bytes < header.file_bytes:
                raise ModelError(
                    f"{name}: was cut off: it has {size_bytes} bytes and by its header {header.file_bytes}; copy the "
                    "file again"
                )
            return header
        stop = min(stop * 4, size_bytes, HEADER_BYTES_MAX)


def _parsed(data: bytes, name: str) -> GgufHeader:
    if data.startswith(POINTER):
        raise ModelError(f"{name}: {POINTER_REMEDY}")
    if data[:4] != MAGIC:
        begins = f"it begins with {data[:12]!r}" if data else "it is empty"
        raise ModelError(f"{name}: is not a GGUF file{but_another(data)}: {begins}; get the file again")
    version, num_tensors, num_values = struct.unpack_from("<IQQ", data, 4)
    if version not in _VERSIONS:
        raise ModelError(f"{name}: is GGUF of version {version}; read are {', '.join(map(str, _VERSIONS))}")
    if max(num_tensors, num_values) > TENSORS_MAX:
        raise ModelError(f"{name}: its header counts over {TENSORS_MAX} tensors or values")
    reader = _Reader(data, 24)
    values = {reader.text(): reader.value() for _ in range(num_values)}
    tensors, shapes, ends = {}, {}, [0]
    for _ in range(num_tensors):
        tensor, (num_sides,) = reader.text(), reader.numbers("<I")
        sides = reader.numbers(f"<{num_sides}Q") if num_sides <= 8 else ()
        kind, offset = reader.numbers("<IQ")
        if kind not in TYPES:
            raise ModelError(
                f"{name}: tensor {tensor!r} is of GGUF type {kind}, which diffusers does not read; "
                f"it reads {', '.join(title for title, _, _ in TYPES.values())}"
            )
        title, numbers, num_bytes = TYPES[kind]
        tensors[tensor] = (title, math.prod(sides))
        shapes[tensor] = tuple(reversed(sides))
        ends.append(offset + -(-math.prod(sides) // numbers) * num_bytes)
    reshaped = {key.removeprefix(_RESHAPED): value for key, value in values.items() if key.startswith(_RESHAPED)}
    for tensor, shape in reshaped.items():
        count = tensors.get(tensor, ("", 0))[1]
        if not isinstance(shape, list) or math.prod(shape) != count:
            raise ModelError(f"{name}: is damaged: tensor {tensor!r} has {count} numbers, and its shape is {shape}")
    stated = values.get("general.alignment")
    alignment = stated if isinstance(stated, int) and stated > 0 else _ALIGNMENT
    start = -(-reader.place // alignment) * alignment
    return GgufHeader(
        architecture=str(values.get("general.architecture", "")),
        tensors=tensors,
        shapes=shapes,
        reshaped=reshaped,
        file_bytes=start + max(ends) if tensors else reader.place,
    )


_RESHAPED: Final = "comfy.gguf.orig_shape."
"""Beginning of the names of values that state a tensor's own shape."""


class _Reader:
    """Reads one value after another; raises struct.error or IndexError where the bytes end."""

    def __init__(self, data: bytes, place: int) -> None:
        self._data = data
        self.place = place

    def numbers(self, form: str) -> tuple[Any, ...]:
        found = struct.unpack_from(form, self._data, self.place)
        self.place += struct.calcsize(form)
        return found

    def text(self) -> str:
        (length,) = self.numbers("<Q")
        if self.place + length > len(self._data):
            raise IndexError(length)
        start, self.place = self.place, self.place + length
        return self._data[start : self.place].decode("utf-8", "replace")

    def value(self) -> Any:
        (kind,) = self.numbers("<I")
        return self._value_of(kind, depth=0)

    def _value_of(self, kind: int, depth: int) -> Any:
        if kind == 8:
            return self.text()
        if kind == 9 and depth < 4:
            inner, count = self.numbers("<IQ")
            if count > len(self._data):
                raise IndexError(count)
            return [self._value_of(inner, depth + 1) for _ in range(count)]
        if kind not in _PLAIN:
            raise ModelError(f"a GGUF header holds a value of type {kind}, which no version knows")
        return self.numbers(_PLAIN[kind])[0]
