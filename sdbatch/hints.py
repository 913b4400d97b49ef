"""Finds the name that somebody meant who wrote another one.

name + known names --> nearest() --> the one that is most alike; did_you_mean(), near() --> the words for it
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from typing import Final

COMPARED_CHARS_MAX: Final = 128
"""Most characters of a name; of a longer one no more are compared with those that are known."""


def nearest(name: object, known: Iterable[str], nearness: float = 0.6) -> str | None:
    """Return the known name that is most like another one, None where none is.

    Args:
        name: That is not known.
        known: Names that may be meant.
        nearness: How alike two names must be, from 0 to 1.
    """
    near = difflib.get_close_matches(str(name)[:COMPARED_CHARS_MAX], list(known), n=1, cutoff=nearness)
    return near[0] if near else None


def did_you_mean(name: object, known: Iterable[str]) -> str:
    """Return `did you mean X?` with the known name that is nearest; empty where none is."""
    near = nearest(name, known)
    return f"did you mean {near}?" if near else ""


def near(name: object, known: Iterable[str]) -> str:
    """Return what goes on after a message: the known name that is nearest, else all of them."""
    names = list(known)
    hint = did_you_mean(name, names)
    return f"; {hint}" if hint else f" ({', '.join(names) or 'there are none'})"
