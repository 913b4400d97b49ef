"""Gives every row of one call a guidance of its own, as an object that a pipeline takes for a number.

PerRow((3.0, 7.5)) * noise_BCHW --> row 0 times 3.0, row 1 times 7.5
"""

# B rows of a call.

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch


class PerRow:
    """One number for each row. Products are taken in float32, as torch does with a number, so that the bits are equal.

    A comparison holds for all rows or for none: the batch key keeps all guidances of a call on one side of 1.

    Args:
        values: B numbers, one for each row.
    """

    def __init__(self, values: Sequence[float]) -> None:
        self.values = tuple(values)
        self._factors: dict[tuple[torch.dtype, torch.device], torch.Tensor] = {}

    def __mul__(self, other: Any) -> Any:
        if not isinstance(other, torch.Tensor):
            return PerRow([value * other for value in self.values])
        shape = (-1, *[1] * (other.ndim - 1))
        wide = torch.promote_types(other.dtype, torch.float32)
        return (other.to(wide) * self._on(other.device, wide).reshape(shape)).to(other.dtype)

    __rmul__ = __mul__

    def _on(self, device: torch.device, dtype: torch.dtype) -> torch.Tensor:
        """Return the numbers on a device; they are copied there once, since a copy in every step waits for the GPU."""
        if (dtype, device) not in self._factors:
            self._factors[dtype, device] = torch.tensor(self.values, dtype=dtype, device=device)
        return self._factors[dtype, device]

    def __add__(self, other: float) -> PerRow:
        return PerRow([value + other for value in self.values])

    __radd__ = __add__

    def __gt__(self, other: float) -> bool:
        return self._all(lambda value: value > other)

    def __ge__(self, other: float) -> bool:
        return self._all(lambda value: value >= other)

    def __lt__(self, other: float) -> bool:
        return self._all(lambda value: value < other)

    def __le__(self, other: float) -> bool:
        return self._all(lambda value: value <= other)

    def _all(self, compare: Callable[[float], bool]) -> bool:
        answers = {compare(value) for value in self.values}
        assert len(answers) == 1, f"rows on both sides of a bound share a call: {self.values}"
        return answers.pop()
