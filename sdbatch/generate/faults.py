"""Tells the errors of a pipeline call apart, and keeps of them what holds no tensor.

error --> failure_kind() --> key of the table of outcomes      CallFailure --> kind, text, digest of the traceback
"""

from __future__ import annotations

import torch

from sdbatch.errors import DeadlineExceeded, MachineError, RowError
from sdbatch.outcomes import device_fault


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether an error says that memory ran out, the device's or the host's."""
    return failure_kind(error) == "OutOfMemory"


def failure_kind(error: BaseException) -> str:
    """Return the key in the table of outcomes for an error of a pipeline call."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return "OutOfMemory"
    if isinstance(error, DeadlineExceeded):
        return "DeadlineExceeded"
    if isinstance(error, MachineError):
        return type(error).__name__
    if isinstance(error, RowError):
        return "RowError"
    kind = device_fault(f"{type(error).__name__}: {error}")
    # After such a "sticky" error CUDA fails every further call of the process (CUDA programming guide, error checking).
    return kind or ("DeviceLost" if isinstance(error, torch.AcceleratorError) else "Raised")
