"""Named points that a run passes, where a test may look or strike.

    reached(NAME) --> nothing, or the hook that was installed

The product installs no hook; a call of `reached` then costs a comparison.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Final

Hook = Callable[[str], None]

POINTS: Final[Mapping[str, str]] = MappingProxyType(
    {
        "after-taking-the-lease": "The driver holds the campaign.",
        "before-writing-the-plan": "The driver is about to write a part of the resolved manifest into the campaign.",
        "before-load": "A worker is about to load a model.",
        "after-load": "A worker has loaded a model.",
        "after-fetch": "A worker has read the sources of a unit.",
        "mid-denoise": "A worker is about to make a denoising step.",
        "after-generate": "A worker has the pixels of a batch.",
        "after-encode": "A worker has the bytes of a picture.",
        "between-two-assets": "A worker has put an asset.",
        "amid-a-file": "A local store has written a temporary file and not yet linked it.",
        "before-the-commit": "A worker, or the driver for a request that is set aside, is about to put a commit.",
        "after-the-commit": "It has put the commit, or found another one in its place.",
        "lease-renewal": "The driver is about to write a beat.",
        "writing-status": "The driver is about to replace status.json.",
        "writing-an-index": "The driver is about to write an index file.",
        "amid-compaction": "The metadata's parts are written, and latest.json does not name them yet.",
        "before-run-json": "The driver is about to write run.json.",
    }
)
"""Each point by its name, with what is the case there."""

_hook: Hook | None = None


def install(hook: Hook | None) -> None:
    """Call `hook` with the name of every point that this process passes from now on; None removes it."""
    global _hook  # noqa: PLW0603 -- one hook a process
    _hook = hook


def reached(name: str) -> None:
    """Say that this process passes a point of `POINTS`."""
    if _hook is not None:
        _hook(name)
