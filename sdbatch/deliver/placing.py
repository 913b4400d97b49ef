"""How a master meets a size: what is cropped, how far it is enlarged, where it comes to lie.

    width, height of the master + size + fit + focus --> placed() --> Placement

Pure geometry, shared by pictures and clips.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

CENTRE_SHARE: Final = 0.5


@dataclass(frozen=True, slots=True, kw_only=True)
class Focus:
    """A point of the master that a crop keeps as near to its middle as it can.

    Attributes:
        x: Share of the width from the left, 0..1.
        y: Share of the height from the top, 0..1.
    """

    x: float = CENTRE_SHARE
    y: float = CENTRE_SHARE


@dataclass(frozen=True, slots=True, kw_only=True)
class Placement:
    """The way from a master to a size.

    Attributes:
        box: Left, top, right and bottom of the part of the master that is shown, in its pixels.
        width: Pixels of that part in the file.
        height: Pixels of that part in the file.
        left: Pixels before it, the rest of the size is ground.
        top: Pixels above it.
        crop: Share of the master that is not shown, 0..1.
        enlargement: Factor by which the master is enlarged; under 1 it is made smaller.
    """

    box: tuple[float, float, float, float]
    width: int
    height: int
    left: int
    top: int
    crop: float
    enlargement: float


def placed(own: tuple[int, int], size: tuple[int, int], fit: str, focus: Focus, multiple: int = 1) -> Placement:
    """Place a master in a size.

    Args:
        own: Width and height of the master.
        size: Width and height of the file.
        fit: `cover` crops; `contain` and `letterbox` show all of it.
        focus: What a crop keeps.
        multiple: Sizes and margins inside the file are multiples of this; a clip needs 2.
    """
    own_width, own_height = own
    width, height = size
    if fit == "cover":
        enlargement = max(width / own_width, height / own_height)
        shown = (min(width / enlargement, own_width), min(height / enlargement, own_height))
        left = _begin(own_width, shown[0], focus.x)
        top = _begin(own_height, shown[1], focus.y)
        crop = 1 - shown[0] * shown[1] / (own_width * own_height)
        box = (left, top, left + shown[0], top + shown[1])
        return Placement(
            box=box, width=width, height=height, left=0, top=0, crop=max(crop, 0.0), enlargement=enlargement
        )
    enlargement = min(width / own_width, height / own_height)
    inner_width = _rounded(own_width * enlargement, width, multiple)
    inner_height = _rounded(own_height * enlargement, height, multiple)
    return Placement(
        box=(0.0, 0.0, float(own_width), float(own_height)),
        width=inner_width,
        height=inner_height,
        left=(width - inner_width) // 2 // multiple * multiple,
        top=(height - inner_height) // 2 // multiple * multiple,
        crop=0.0,
        enlargement=enlargement,
    )


def _begin(whole: float, shown: float, focus: float) -> float:
    return min(max(whole * focus - shown / 2, 0.0), whole - shown)


def _rounded(pixels: float, most: int, multiple: int) -> int:
    return min(max(round(pixels / multiple) * multiple, multiple), most)
