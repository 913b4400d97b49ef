"""How much memory a process has held."""

from __future__ import annotations

import re
from pathlib import Path


def peak_mib() -> float:
    """Return the most memory that this program has held since it was started.

    Not getrusage's ru_maxrss: Linux hands that on through exec, so a child of a large parent reads the parent's peak.
    """
    (kib,) = re.findall(r"^VmHWM:\s+(\d+) kB$", Path("/proc/self/status").read_text(), re.MULTILINE)
    return int(kib) / 1024
