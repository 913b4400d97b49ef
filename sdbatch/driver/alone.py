"""What one run at a time may do in a process.

Torch, transformers and Ray keep what they are set to for a whole process: a run beside another one would find its
models half read, or its cluster ended by the other.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from sdbatch.errors import JobError

_HELD = threading.Lock()


@contextmanager
def alone_in_process(*, in_process: bool) -> Iterator[None]:
    """Hold the process while the block runs. Runs on a Ray that their caller has joined may share it.

    Args:
        in_process: Whether models are loaded in this process.

    Raises:
        JobError: When another run holds it.
    """
    is_sharing = not in_process and _is_joined() and not _HELD.locked()
    if is_sharing:
        yield
        return
    if not _HELD.acquire(blocking=False):
        raise JobError(
            "another run goes on in this process, which has room for one: wait for it, or give each its own process"
        )
    try:
        yield
    finally:
        _HELD.release()


def _is_joined() -> bool:
    ray = sys.modules.get("ray")
    return ray is not None and ray.is_initialized()
