"""What the headers of a module's files say of its weights: how many there are, and in which numbers."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any, Final

from sdbatch.checkpoints.headers import Header
from sdbatch.job.weights import Dtype

_DTYPES: Final[Mapping[str, Dtype]] = {"F64": "float32", "F32": "float32", "F16": "float16", "BF16": "bfloat16"}
"""Number formats of safetensors that a module can be run in; what is stored in others is run in bfloat16."""


def num_parameters(headers: Iterable[Header]) -> int:
    """Count the elements of every tensor in files; one that stands in several of them counts once."""
    return sum(math.prod(tensor["shape"]) for tensor in _tensors(headers).values())


def stored_dtype(headers: Iterable[Header]) -> Dtype:
    """Return the numbers that most bytes of a module's weights are stored in; bfloat16 for those no module is run in.

    Quantised weights (float8, int8, packed 4 bit) are among the latter.
    """
    num_bytes: Counter[Dtype] = Counter()
    for tensor in _tensors(headers).values():
        start, stop = tensor["data_offsets"]
        num_bytes[_DTYPES.get(tensor["dtype"], "bfloat16")] += stop - start
    return max(num_bytes, key=lambda dtype: num_bytes[dtype], default="bfloat16")


def _tensors(headers: Iterable[Header]) -> dict[str, Mapping[str, Any]]:
    return {name: tensor for header in headers for name, tensor in header.tensors.items()}
