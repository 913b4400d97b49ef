"""A measure in a process of its own, so that its CPU and its peak of memory are its own.

measured("benchmarks.scale_assets", "verify", folder) --> python -m ... --> JSON on the last line of its output
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

CHILD_MAX_S = 1500.0


def measured(module: str, what: str, *arguments: object) -> dict[str, Any]:
    """Run one measure of a module and return what it printed, with `cpu_s`, `ready_cpu_s` and `peak_mib`."""
    done = subprocess.run(
        [sys.executable, "-m", module, what, *map(str, arguments)],
        env=dict(os.environ),
        stdout=subprocess.PIPE,
        timeout=CHILD_MAX_S,
        check=True,
    )
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    print(f"  {module.rpartition('.')[2]} {what}: {found}", flush=True)
    return found


def answer(measures: Mapping[str, Callable[..., dict[str, Any]]]) -> None:
    """Run the measure that the command line names, and print what it found; its CPU is without the imports before."""
    ready_s = time.process_time()
    result = measures[sys.argv[1]](*sys.argv[2:])
    result |= {
        "cpu_s": round(time.process_time() - ready_s, 2),
        "ready_cpu_s": round(ready_s, 2),
        "peak_mib": round(peak_mib()),
    }
    print(json.dumps(result))


def peak_mib() -> float:
    """Return the most memory that this program has held since it was started.

    Not getrusage's ru_maxrss: Linux hands that on through exec, so a child of a large parent reads the parent's peak.
    """
    (kib,) = re.findall(r"^VmHWM:\s+(\d+) kB$", Path("/proc/self/status").read_text(), re.MULTILINE)
    return int(kib) / 1024
