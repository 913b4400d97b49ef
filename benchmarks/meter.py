"""CPU seconds of a process and all its descendants over time, Ray's own processes included.

Meter(process) samples five times a second --> cpu_s(time), also between samples
"""

from __future__ import annotations

import threading
import time
from bisect import bisect_left
from types import TracebackType
from typing import Self

import psutil

EVERY_S = 0.2
CHILDREN_EVERY = 5


class Meter:
    """Samples from a thread of the parent, while its block runs."""

    def __init__(self, process_id: int) -> None:
        self._root = psutil.Process(process_id)
        self._known: dict[int, psutil.Process] = {process_id: self._root}
        self._seconds: dict[int, float] = {}
        self._samples: list[tuple[float, float]] = [(time.time(), 0.0)]
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._sample, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        self._ended.set()
        self._thread.join()

    @property
    def total_s(self) -> float:
        """Return what was used in all, up to the last sample before each process ended."""
        return self._samples[-1][1]

    def cpu_s(self, at_s: float) -> float:
        """Return the CPU seconds used until a moment of the wall clock."""
        index = bisect_left(self._samples, (at_s, 0.0))
        if index == 0:
            return 0.0
        if index == len(self._samples):
            return self.total_s
        (before_s, low), (after_s, high) = self._samples[index - 1], self._samples[index]
        return low + (high - low) * (at_s - before_s) / (after_s - before_s)

    def _sample(self) -> None:
        count = 0
        while not self._ended.wait(EVERY_S):
            if count % CHILDREN_EVERY == 0:
                self._look_for_children()
            count += 1
            for number, process in self._known.items():
                try:
                    times = process.cpu_times()
                except psutil.Error:
                    continue  # ended; what it had used stays counted
                self._seconds[number] = times.user + times.system
            self._samples.append((time.time(), sum(self._seconds.values())))

    def _look_for_children(self) -> None:
        try:
            for child in self._root.children(recursive=True):
                self._known.setdefault(child.pid, child)
        except psutil.Error:
            return
