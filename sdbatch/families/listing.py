"""What people read of a family, beside its name; the documentation's table of families is made of it."""

from __future__ import annotations

from sdbatch.families import Family


def size_rule(family: Family) -> str:
    """Return of what number sizes are multiples, or the few that a family makes, width first, as text."""
    if not family.sizes:
        return f"multiples of {family.size_multiple}"
    return "only " + ", ".join(f"{width} x {height}" for height, width in family.sizes)


def frame_rule(family: Family) -> str:
    """Return the numbers of frames a clip of a family may have, as text; "" where it makes no clips."""
    if not family.frame_multiple:
        return ""
    form = "any number" if family.frame_multiple == 1 else f"{family.frame_multiple} k + 1"
    least = f"from {family.frames_min} " if family.frames_min > 1 else ""
    return f"{form} {least}up to {family.frames_max}"
