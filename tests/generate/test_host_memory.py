"""Freed memory stays: pages are faulted in once, in whichever thread they are used."""

from __future__ import annotations

import platform
import subprocess
import sys

import pytest

_SCRIPT = """
import resource, sys, threading
from sdbatch.generate.host_memory import keep_freed_memory

def use():
    pieces = [b"1" * (20 << 20) for _ in range(4)]

def rounds():
    use(), use()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    use()
    faults.append(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)

faults = []
if sys.argv[1] == "kept":
    keep_freed_memory()
rounds()
thread = threading.Thread(target=rounds)
thread.start()
thread.join()
print(*faults)
"""


def _faults(route: str) -> list[int]:
    """Return the faults of one more round of 20,480 pages, in the main thread and in another."""
    done = subprocess.run([sys.executable, "-c", _SCRIPT, route], capture_output=True, text=True, check=True)
    return [int(count) for count in done.stdout.split()]


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="mallopt is glibc's")
def test_memory_that_was_freed_is_not_faulted_in_again() -> None:
    assert min(_faults("given back")) > 5_000
    assert max(_faults("kept")) < 1_000
