"""The folder on this machine for things that can be made again."""

from __future__ import annotations

import os
from pathlib import Path


def cache_folder() -> Path:
    """Return the folder for things that can be made again: SDBATCH_CACHE, else the user's cache."""
    chosen = os.environ.get("SDBATCH_CACHE")
    base = Path(chosen) if chosen else Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "sdbatch"
    base.mkdir(parents=True, exist_ok=True)
    return base
