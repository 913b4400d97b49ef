"""What people read of a family, beside its name; the documentation's table of families is made of it."""

from __future__ import annotations

from sdbatch.families import Family


def frame_rule(family: Family) -> str:
    """Return the numbers of frames a clip of a family may have, as text; "" where it makes no clips."""
    if not family.frame_multiple:
        return ""
    form = "any number" if family.frame_multiple == 1 else f"{family.frame_multiple} k + 1"
    return f"{form} up to {family.frames_max}"
