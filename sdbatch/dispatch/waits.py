"""What workers that are not ready wait for."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Wait:
    """One cause for which workers are not ready.

    Attributes:
        text: In words.
        count: Number of workers that wait for it, from 1.
    """

    text: str
    count: int
