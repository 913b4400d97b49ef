"""Every way a unit can end: who is blamed, what happens next, what is recorded.

    error in a pipeline call --> worker     \
                                             OUTCOMES[kind]
    fault, death, silence    --> dispatcher /

Pure, and a noun: the worker settles what concerns rows of one call, the dispatcher what concerns processes and runs.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Literal

Blame = Literal["nobody", "rows", "suspects", "model", "run"]
"""`rows`: those of the pipeline call. `suspects`: those that were in the process when it ended."""

Next = Literal["go on", "halve", "alone", "again", "bisect", "release", "end model", "stop", "resume"]
"""What happens to the work.

`go on`: nothing is left to do. `halve`: two calls of half the rows. `alone`: each row in a call, or a unit, of its
own. `again`: the same rows anew, on any worker. `bisect`: suspects run alone, as a whole, then in halves. `release`:
the worker ends what it has and is let go. `end model`: its rows are left for a later run. `stop`: the run ends.
`resume`: the next run makes what is missing.
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What follows from one way a unit can end.

    Attributes:
        blame: Who is to blame.
        then: What happens to the work.
        records: Class a row is recorded with once it is to blame alone; None where rows are never blamed, "" for the
            error's own.
        replace_worker: Whether the worker's process is ended and a new one takes its slot.
    """

    blame: Blame
    then: Next
    records: str | None = None
    replace_worker: bool = False


OUTCOMES: Final[Mapping[str, Outcome]] = {
    # Within the worker
    "Receipt": Outcome(blame="nobody", then="go on"),
    "RowError": Outcome(blame="rows", then="go on", records=""),
    "Raised": Outcome(blame="rows", then="alone", records="GenerationFailed"),
    "OutOfMemory": Outcome(blame="rows", then="halve", records="OutOfMemory"),
    "DeadlineExceeded": Outcome(blame="rows", then="alone", records="DeadlineExceeded"),
    # Told by a worker that lives on
    "ModelLoadFailed": Outcome(blame="model", then="end model"),
    "StoreUnavailable": Outcome(blame="nobody", then="again"),
    "StoreRefused": Outcome(blame="run", then="stop"),
    "LeaseLost": Outcome(blame="run", then="stop"),
    "Bug": Outcome(blame="run", then="stop"),
    # The process ended, or must
    "DeviceLost": Outcome(blame="suspects", then="bisect", records="WorkerCrash", replace_worker=True),
    "Died": Outcome(blame="suspects", then="bisect", records="WorkerCrash", replace_worker=True),
    "Overdue": Outcome(blame="suspects", then="alone", records="DeadlineExceeded", replace_worker=True),
    "Silent": Outcome(blame="suspects", then="alone", records="DeadlineExceeded", replace_worker=True),
    "Stuck": Outcome(blame="nobody", then="again", replace_worker=True),
    "Unavailable": Outcome(blame="nobody", then="again", replace_worker=True),
    "NodeLost": Outcome(blame="nobody", then="again", replace_worker=True),
    "Preempted": Outcome(blame="nobody", then="again", replace_worker=True),
    # Around it
    "Draining": Outcome(blame="nobody", then="release", replace_worker=True),
    "DriverGone": Outcome(blame="nobody", then="resume"),
}
"""What is not here is a bug and stops the run.

`Overdue`: a pipeline call went on beyond its deadline and did not heed it between two denoising steps. `Silent`: the
process answers no ping. `Stuck`: a unit stays in a stage that is not the model's (fetch, finish) beyond its bound.
`DeviceLost`: the device refuses every further call (a "sticky" CUDA error). `DriverGone`: seen by the next run alone.
"""


def outcome_of(kind: str) -> Outcome:
    """Return what follows from an end of this kind."""
    return OUTCOMES.get(kind, OUTCOMES["Bug"])


def call_deadline_s(cost_tflop: float, rate_tflop_per_s: float | None, least_s: float, first_s: float) -> float:
    """Return the seconds a pipeline call may take.

    Args:
        cost_tflop: Predicted work of the call.
        rate_tflop_per_s: What this worker did before on this model; None for its first call, which may compile.
        least_s: Bound from below: `limits.deadline_min_s`.
        first_s: Bound for a first call: `limits.start_timeout_s`.
    """
    if rate_tflop_per_s is None:
        return max(first_s, least_s)
    return max(DEADLINE_FACTOR * cost_tflop / rate_tflop_per_s, least_s)


DEADLINE_FACTOR: Final = 10.0
"""A call may take ten times what its predicted work takes at the rate seen so far: predictions are good to two."""
