"""What the environment says of the device, read without torch: SDBATCH_DEVICE is `cpu`, or not set.

    SDBATCH_DEVICE --> runs_on_cpu() --> True | False | UserError

The driver asks before any worker starts; a worker asks again, as its node may have another environment.
"""

from __future__ import annotations

import os
from typing import Final

from sdbatch.errors import UserError

VARIABLE: Final = "SDBATCH_DEVICE"
"""`cpu` lets every model run on the CPU, whatever was reserved: for clusters whose GPUs are numbers alone."""


def runs_on_cpu() -> bool:
    """Return whether every model is to run on the CPU.

    Raises:
        UserError: When SDBATCH_DEVICE says something else than `cpu`.
    """
    chosen = os.environ.get(VARIABLE, "")
    if chosen not in {"", "cpu"}:
        raise UserError(f"{VARIABLE} is {chosen!r}; it is cpu, or not set")
    return chosen == "cpu"
