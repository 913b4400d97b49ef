"""Whether a run may still hand out a unit: what it may spend, less what is in flight, against what the unit takes.

    left (money or hours, as GPU seconds) - predictions in flight --> Allowance --> hand out | not yet | reached

Pure: the driver says what is left and how long work takes.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from sdbatch.dispatch.slots import SlotSeconds


@dataclass(frozen=True, slots=True, kw_only=True)
class Pace:
    """How long a model is predicted to take on one worker.

    Attributes:
        s_per_tflop: Seconds for 10^12 floating point operations.
        start_s: Seconds from a worker's slot to its readiness; 0 where nothing is known.
        load_s: Seconds of the model's load; 0 where nothing is known.
        is_measured: Whether it was measured, in this run or before, and not assumed.
    """

    s_per_tflop: float
    start_s: float = 0.0
    load_s: float = 0.0
    is_measured: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Allowance:
    """The most that a run may spend, and the predictions it is compared with.

    Attributes:
        left_gpu_s: Returns what is left of it, in seconds of workers times their GPUs, from how long workers have held
            their slots; infinite where nothing bounds it, negative where it is passed.
        pace_of: Returns a model's pace before this run has measured it.
    """

    left_gpu_s: Callable[[SlotSeconds], float] = lambda _: math.inf
    pace_of: Callable[[str], Pace] = lambda _: Pace(s_per_tflop=0.0)

    def pace(self, model: str, rate_tflop_per_s: float | None) -> Pace:
        """Return a model's pace: by the rate that this run has measured, where there is one."""
        known = self.pace_of(model)
        if not rate_tflop_per_s:
            return known
        return Pace(s_per_tflop=1 / rate_tflop_per_s, start_s=known.start_s, load_s=known.load_s, is_measured=True)


def num_affordable(left_gpu_s: float, start_gpu_s: float, unit_gpu_s: float) -> int:
    """Return how many workers may be asked for: each is to make a unit at least for what its start takes."""
    each_gpu_s = start_gpu_s + unit_gpu_s
    return max(1, int(left_gpu_s / each_gpu_s)) if each_gpu_s > 0 and left_gpu_s < math.inf else 1_000_000
