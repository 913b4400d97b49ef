"""How long workers have held their slots: what a run takes of the machines, with idle time.

    place(shape), end(shape), advance(time) --> seconds by shape and day

The caller says what time it is, so that a run over midnight is tested in milliseconds.
"""

from __future__ import annotations

import threading
from collections import Counter, defaultdict
from collections.abc import Mapping
from datetime import UTC, datetime

from sdbatch.dispatch.executor import Shape

DAY_S = 86_400.0
SlotSeconds = Mapping[tuple[Shape, str], float]
"""Seconds of workers by the shape of their slot and the day (UTC, YYYY-MM-DD)."""


class SlotMeter:
    """Adds up the lives of workers. Two threads may use it: the driver's loop, and the lease that tells of it.

    Args:
        now_s: Seconds since 1970.
    """

    def __init__(self, now_s: float) -> None:
        self._lock = threading.Lock()
        self._live: Counter[Shape] = Counter()
        self._seconds: defaultdict[tuple[Shape, str], float] = defaultdict(float)
        self._until_s = now_s

    def place(self, shape: Shape, now_s: float) -> None:
        """Note that a worker holds a slot from now on."""
        with self._lock:
            self._advance(now_s)
            self._live[shape] += 1

    def end(self, shape: Shape, now_s: float) -> None:
        """Note that a worker has given its slot back."""
        with self._lock:
            self._advance(now_s)
            self._live[shape] -= 1

    def seconds(self, now_s: float) -> SlotSeconds:
        """Return the seconds up to now."""
        with self._lock:
            self._advance(now_s)
            return dict(self._seconds)

    def _advance(self, now_s: float) -> None:
        """Count the time since the last look, each day by itself; a clock that went back adds nothing."""
        while self._until_s < now_s:
            day_end_s = (self._until_s // DAY_S + 1) * DAY_S
            stop_s = min(day_end_s, now_s)
            day = day_of(self._until_s)
            for shape, number in self._live.items():
                if number:
                    self._seconds[shape, day] += number * (stop_s - self._until_s)
            self._until_s = stop_s


def day_of(now_s: float) -> str:
    """Return the day (UTC) of a time in seconds since 1970."""
    return datetime.fromtimestamp(now_s, UTC).date().isoformat()


def gpus_of(shape: Shape) -> float:
    """Return how many GPUs a second of a slot counts as: none, or a null, counts as one."""
    return shape.num_gpus or 1.0
