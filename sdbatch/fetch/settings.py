"""What decoding is told of a request: plain values, since they cross to another process."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

REFERENCE_SIDE: Final = 512
"""Pixels of each side of a reference picture, cut to a square from its middle: what image encoders do with one as they
make it smaller still (to 224 pixels, most of them)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PixelSettings:
    """The pixels that a request's sources are brought to.

    Attributes:
        height: Pixels.
        width: Pixels.
        fit: How a source meets the size, `cover` or `contain`.
        num_frames: Frames of a source clip that are needed; None where there is none.
        fps: Rate of these frames, per second.
    """

    height: int
    width: int
    fit: str = "cover"
    num_frames: int | None = None
    fps: float | None = None

    def result_bytes(self, roles: list[str]) -> int:
        """Return the bytes of the pixels that sources of these roles become."""
        of_picture = self.height * self.width * 3
        others = {"video": of_picture * (self.num_frames or 1), "ip_adapter_images": REFERENCE_SIDE * REFERENCE_SIDE * 3}
        return sum(others.get(role, of_picture) for role in roles)
