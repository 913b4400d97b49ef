"""How long a run waits after a fault that blames no row: 1 s at first, twice as long each time, a minute at most.

    fault --> Backoff.add() --> does it begin a new wait?    a unit that ended well --> Backoff.clear()

A neighbour that takes a node's memory for a minute ends every worker as often as it is replaced. Faults that come while
a wait goes on have its cause and count with it, so a run gives up after a time without success and not after a number
of deaths.

Pure: the time is handed in.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

from sdbatch.dispatch.executor import Shape

FIRST_WAIT_S: Final = 1.0
MOST_WAIT_S: Final = 60.0


@dataclass(slots=True)
class Backoff:
    """The present wait, and the slots that are filled again after it.

    Attributes:
        until_s: When the wait ends, on the clock that is handed in; in the past when nothing is waited for.
        waiting: Shapes of the lost workers that are replaced then.
    """

    until_s: float = float("-inf")
    waiting: list[Shape] = field(default_factory=list)
    _wait_s: float = 0.0

    def add(self, now_s: float) -> bool:
        """Take in a fault; return whether it begins a new wait instead of belonging to the present one."""
        if now_s < self.until_s:
            return False
        self._wait_s = min(2 * self._wait_s, MOST_WAIT_S) if self._wait_s else FIRST_WAIT_S
        self.until_s = now_s + self._wait_s
        return True

    def clear(self) -> None:
        """Begin anew with the shortest wait: a unit ended well. What waits already waits no longer."""
        self._wait_s = 0.0
        self.until_s = float("-inf")

    def due(self, now_s: float) -> list[Shape]:
        """Return the shapes of the workers to be started now."""
        if now_s < self.until_s:
            return []
        due, self.waiting = self.waiting, []
        return due
