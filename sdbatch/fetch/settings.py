"""What decoding is told of a request: plain values, since they cross to another process."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

REFERENCE_SIDE: Final = 512
"""Pixels of each side of a reference picture, cut to a square from its middle: what image encoders do with one as they
make it smaller still (to 224 pixels, most of them)."""


ENLARGED_PIXELS_MAX: Final = 1 << 24
"""Most pixels of a picture that was enlarged, such as 4096 x 4096."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PixelSettings:
    """The pixels that a request's sources are brought to.

    Attributes:
        height: Pixels; of an enlarged output, 0 where its source may have any size.
        width: As `height`.
        fit: How a source meets the size, `cover` or `contain`.
        num_frames: Frames of a source clip that are needed; None where there is none.
        fps: Rate of these frames, per second.
        enlarges: How many times as large as its source the output is; the source keeps its own size where it is over 1.
    """

    height: int
    width: int
    fit: str = "cover"
    num_frames: int | None = None
    fps: float | None = None
    enlarges: int = 1

    def result_bytes(self, roles: list[str]) -> int:
        """Return the bytes of the pixels that sources of these roles become."""
        of_picture = self.height * self.width * 3
        if self.enlarges > 1:
            of_picture = ENLARGED_PIXELS_MAX // self.enlarges**2 * 3
        others = {
            "video": of_picture * (self.num_frames or 1),
            "ip_adapter_images": REFERENCE_SIDE * REFERENCE_SIDE * 3,
        }
        return sum(others.get(role, of_picture) for role in roles)
