"""The table of outcomes: for every way in which a pipeline call or a unit can fail, what follows from it.

    error in a pipeline call --> worker     \
                                             OUTCOMES[kind].then --> a handler of the worker or of the dispatcher
    fault, death, silence    --> dispatcher /

Pure, and a noun: the worker settles what concerns rows of one call, the dispatcher what concerns processes and runs.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Literal

Next = Literal["alone", "halve", "again", "bisect", "end model", "stop"]
"""The next step for the work.

In the worker: `alone` makes each row in a call of its own, `halve` makes two calls of half the rows. In the dispatcher:
`again` puts the unit back and blames no row; `bisect` suspects its rows, which then run alone; `end model` leaves the
rows of a model that does not load to a later run; `stop` ends the run.
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """The consequences of one way to fail.

    Attributes:
        then: What happens to the work.
        records: Class that a row is recorded with once it is to blame alone; None where rows are never blamed, "" for
            the error's own class.
        replace_worker: Whether the worker's process is ended and a new one takes its slot.
        leave_node: Whether the worker's node is given no further worker.
        solo_failures_max: For `bisect`: how often a request may fail in this way while it runs alone, before it is set
            aside.
        in_a_row_max: For `again`: how often in a row, without one unit done by any worker, before the run stops; None
            for the bound that all machine faults share.
    """

    then: Next
    records: str | None = None
    replace_worker: bool = False
    leave_node: bool = False
    solo_failures_max: int = 0
    in_a_row_max: int | None = None


LOCAL_FAULTS_MAX: Final = 3
"""A disk that is full is full at the next try too, but on another machine."""

_CRASH: Final = Outcome(then="bisect", records="WorkerCrash", replace_worker=True, solo_failures_max=2)
# One alone is enough: the first deadline it missed was in company.
_TOO_LONG: Final = Outcome(then="bisect", records="DeadlineExceeded", replace_worker=True, solo_failures_max=1)
# Each source has bounds of its own, far closer: a fetch that is overdue all the same is looked at alone.
_UNDECODED: Final = Outcome(then="bisect", records="SourceUnreadable", replace_worker=True, solo_failures_max=1)
_LOST: Final = Outcome(then="again", replace_worker=True)

OUTCOMES: Final[Mapping[str, Outcome]] = {
    # A pipeline call failed
    "RowError": Outcome(then="alone", records=""),
    "Raised": Outcome(then="alone", records="GenerationFailed"),
    "OutOfMemory": Outcome(then="halve", records="OutOfMemory"),
    "DeadlineExceeded": Outcome(then="alone", records="DeadlineExceeded"),
    # A worker that lives on reports it
    "ModelLoadFailed": Outcome(then="end model"),
    "StoreUnavailable": Outcome(then="again"),
    "LocalFault": Outcome(then="again", in_a_row_max=LOCAL_FAULTS_MAX),
    "DecoderUnavailable": Outcome(then="again"),
    "StoreRefused": Outcome(then="stop"),
    "LeaseLost": Outcome(then="stop"),
    "Bug": Outcome(then="stop"),
    # The process ended, or must
    "DeviceLost": _CRASH,
    "GpuUnusable": Outcome(then="again", replace_worker=True, leave_node=True),
    "Died": _CRASH,
    "Overdue": _TOO_LONG,
    "Silent": _TOO_LONG,
    "Undecoded": _UNDECODED,
    "Stuck": _LOST,
    "Unavailable": _LOST,
    "NodeLost": _LOST,
    "Preempted": _LOST,
}
"""A kind that is not here is a bug and stops the run.

`Overdue`: a pipeline call went on beyond its deadline and did not heed it between two denoising steps. `Silent`: the
process answers no ping. `Undecoded`: sources of known rows are being decoded beyond the
bound of a fetch. `Stuck`: a unit stays in a stage that is not the model's (fetch, finish) beyond its bound, and no row
is known to be the cause.
`DeviceLost`: the device refuses every further call (a "sticky" CUDA error). `GpuUnusable`: the card, its driver or the
build of torch is at fault, so that no process on this node would do better.
"""

DEVICE_FAULTS: Final[tuple[tuple[str, str], ...]] = (
    # Memory ran out. First, because some of these texts begin with "CUDA error" as well.
    ("out of memory", "OutOfMemory"),
    ("_status_alloc_failed", "OutOfMemory"),  # cuBLAS, cuDNN, cuSOLVER, cuSPARSE, hipBLAS
    ("_status_not_initialized", "OutOfMemory"),  # a library's handle finds no memory for its own workspace
    ("unable to find an engine", "OutOfMemory"),  # cuDNN, when no engine's workspace fits
    ("defaultcpuallocator", "OutOfMemory"),
    ("not enough memory: you tried to allocate", "OutOfMemory"),
    ("unable to allocate", "OutOfMemory"),  # NumPy
    # The card, the driver or the build of torch: every process on this node meets it.
    ("no kernel image is available", "GpuUnusable"),
    ("device kernel image is invalid", "GpuUnusable"),
    ("unsupported toolchain", "GpuUnusable"),
    ("uncorrectable ecc", "GpuUnusable"),
    ("uncorrectable nvlink", "GpuUnusable"),
    ("fallen off the bus", "GpuUnusable"),
    ("gpu is lost", "GpuUnusable"),
    ("no cuda-capable device", "GpuUnusable"),
    ("device(s) is/are busy or unavailable", "GpuUnusable"),
    ("driver version is insufficient", "GpuUnusable"),
    ("driver on your system is too old", "GpuUnusable"),
    ("found no nvidia driver", "GpuUnusable"),
    ("not compiled with cuda enabled", "GpuUnusable"),
    ("forward compatibility was attempted", "GpuUnusable"),
    ("system not yet initialized", "GpuUnusable"),
    ("system has unsupported display driver", "GpuUnusable"),
    ("invalid device ordinal", "GpuUnusable"),
    ("cuda unknown error", "GpuUnusable"),
    ("no hip gpus are available", "GpuUnusable"),
    ("no cuda gpus are available", "GpuUnusable"),
    # The process can use its device no more; another process may.
    ("illegal memory access", "DeviceLost"),
    ("illegal address", "DeviceLost"),
    ("illegal instruction", "DeviceLost"),
    ("misaligned address", "DeviceLost"),
    ("device-side assert", "DeviceLost"),
    ("unspecified launch failure", "DeviceLost"),
    ("launch timed out", "DeviceLost"),
    ("hardware stack error", "DeviceLost"),
    ("nvml_success", "DeviceLost"),  # an assert of torch's allocator, when the driver answers no more
    ("_status_execution_failed", "DeviceLost"),
    ("_status_internal_error", "DeviceLost"),
    ("_status_mapping_error", "DeviceLost"),
    ("triton error [cuda]", "DeviceLost"),
    ("cuda driver error", "DeviceLost"),
    ("cuda error", "DeviceLost"),
    ("hip error", "DeviceLost"),
)
"""What an error of a device says, in lower case, and the kind that it is; the first one that fits holds.

From the sources and the issues of torch 2.13, Triton 3.5, cuDNN 9 and CUDA 13's list of error texts.
"""


def device_fault(text: str) -> str | None:
    """Return the kind of an error of a device by its text; None where it does not sound like one."""
    said = text.lower()
    return next((kind for part, kind in DEVICE_FAULTS if part in said), None)


def outcome_of(kind: str) -> Outcome:
    """Return what follows from a failure of this kind."""
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
