"""What a run says while it has no worker: each cause once, and the end of the wait once.

    number of workers, causes --> WaitingLines.look() --> a line to say, or nothing

Pure. While memory is short workers come and die within seconds: that is one wait, and not one for each of them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from sdbatch.dispatch.waits import Wait
from sdbatch.report.progress import duration

SAID_AFTER_S = 15.0
"""A wait of so long is said, and its causes are looked at so often; a start on an idle machine takes less.

A wait is over once workers have been there for as long.
"""
GROWTH = 2
"""A cause is said again when its count has grown, or shrunk, so many times."""


class WaitingLines:
    """The wait for workers of one run.

    Args:
        now_s: The time on a clock that only grows.

    Attributes:
        causes: What is waited for now, in words, as of the last look at it; nothing while there are workers.
    """

    def __init__(self, now_s: float) -> None:
        self._is_alone = True
        self._there_since_s = now_s
        self._began_s = now_s
        self._looked_s = now_s
        self._said: dict[str, int] = {}
        self.causes: tuple[str, ...] = ()

    def look(self, now_s: float, num_workers: int, causes: Callable[[], Mapping[str, Wait]]) -> str | None:
        """Return what is to be said now.

        Args:
            now_s: The time.
            num_workers: Workers that are ready.
            causes: Returns what workers that are not ready wait for, by cause; asking may take a cluster's answer.
        """
        if num_workers:
            return self._with_workers(now_s, num_workers)
        if not self._is_alone:
            self._is_alone, self._looked_s = True, now_s
            if not self._said:
                self._began_s = now_s
        if now_s - self._looked_s < SAID_AFTER_S:
            return None
        self._looked_s = now_s
        waits = causes()
        self.causes = tuple(wait.text for wait in waits.values())
        fresh = [cause for cause, wait in waits.items() if self._is_fresh(cause, wait.count)]
        if not fresh:
            return None
        self._said.update((cause, waits[cause].count) for cause in fresh)
        return "waiting for a worker: " + "; ".join(waits[cause].text for cause in fresh)

    def _with_workers(self, now_s: float, num_workers: int) -> str | None:
        self.causes = ()
        if self._is_alone:
            self._is_alone, self._there_since_s = False, now_s
        if not self._said or now_s - self._there_since_s < SAID_AFTER_S:
            return None
        self._said.clear()
        waited_s = self._there_since_s - self._began_s
        ready = "1 worker is ready" if num_workers == 1 else f"{num_workers} workers are ready"
        return f"the wait for a worker is over after {duration(waited_s)}: {ready}"

    def _is_fresh(self, cause: str, count: int) -> bool:
        before = self._said.get(cause)
        return before is None or count >= GROWTH * before or GROWTH * count <= before
