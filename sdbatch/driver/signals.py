"""SIGINT and SIGTERM: the first signal lets a run finish what is in flight, the second one ends it at once."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import FrameType

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Interrupt:
    """A signal handler that counts.

    Attributes:
        count: Signals that came; from the first on nothing more is handed out, the second raises KeyboardInterrupt.
    """

    def __init__(self) -> None:
        self.count = 0

    def __call__(self, signum: int, frame: FrameType | None) -> None:
        """Count a signal."""
        self.count += 1
        if self.count > 1:
            raise KeyboardInterrupt
        with suppress(OSError):  # a pipe's reader has got the same Ctrl-C
            os.write(2, b"sdbatch: finishing what is in flight; a second signal stops at once\n")

    @contextmanager
    def installed(self) -> Iterator[None]:
        """Handle the signals while the block runs; only a main thread can."""
        if not _is_main_thread():
            yield
            return
        before = {number: signal.getsignal(number) for number in SIGNALS}
        for number in before:
            signal.signal(number, self)
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


def _is_main_thread() -> bool:
    return threading.current_thread() is threading.main_thread()
