"""Decides which device a model runs on, and proves a GPU before anything is put on it.

    num_gpus, what Ray reserved, SDBATCH_DEVICE, gpu_fault() --> device_of() --> Device, or GpuUnusable

A GPU that was reserved and cannot be used is a fault of the machine: on the CPU the rows would take a hundred times as
long, and nobody would know why.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Final, Literal

import torch

from sdbatch.device_choice import VARIABLE, runs_on_cpu
from sdbatch.errors import GpuUnusable
from sdbatch.outcomes import device_fault

PROOF_SIZE: Final = 64
"""Rows and columns of the product that a GPU has to compute rightly."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Device:
    """The device that a model runs on.

    Attributes:
        name: As torch calls it.
        note: What a person should know of the choice; "" where it is the plain one.
    """

    name: Literal["cuda", "cpu"]
    note: str = ""


def device_of(num_gpus: float | None, *, is_reserved: bool) -> Device:
    """Return the device of a model.

    Args:
        num_gpus: The job's `num_gpus` of the model; null asks for a GPU where there is one.
        is_reserved: Whether Ray reserved a GPU for this process.

    Raises:
        GpuUnusable: When a GPU was asked for, or is there and was reserved, and torch cannot use it.
        UserError: When SDBATCH_DEVICE says something else than `cpu`.
    """
    if runs_on_cpu() or num_gpus == 0:
        return Device(name="cpu")
    fault = gpu_fault()
    if not fault:
        return Device(name="cuda")
    if num_gpus or (is_reserved and has_card()):
        raise GpuUnusable(
            f"a GPU is asked for and torch {torch.__version__} cannot use it: {fault}; "
            f"to run on the CPU say num_gpus: 0, or set {VARIABLE}=cpu"
        )
    note = "a GPU was reserved and this machine has none: it runs on the CPU" if is_reserved else ""
    return Device(name="cpu", note=note)


@cache
def gpu_fault() -> str:
    """Return why torch cannot use the GPU of this process, "" where it can: it computes a small product there."""
    if torch.version.cuda is None and torch.version.hip is None:
        return "this build of torch is for CPUs alone"
    try:
        torch.cuda.current_device()  # begins with the driver, and raises what it says
        capability = torch.cuda.get_device_capability()
        if torch.version.cuda and not is_built_for(torch.cuda.get_arch_list(), capability):
            return (
                f"it is built for {', '.join(torch.cuda.get_arch_list())}, and {torch.cuda.get_device_name()} is "
                f"sm_{capability[0]}{capability[1]}"
            )
        dtype = torch.bfloat16 if capability >= (8, 0) else torch.float16
        ones = torch.ones(PROOF_SIZE, PROOF_SIZE, dtype=dtype, device="cuda")
        product = float((ones @ ones).float().sum())
    except (RuntimeError, AssertionError) as error:
        if device_fault(str(error)) == "OutOfMemory":
            return ""  # the card works, and others fill it: the model's load will say what it lacks
        return f"{_first_line(error)} (built for CUDA {torch.version.cuda}; driver {driver_version() or 'not there'})"
    return "" if product == PROOF_SIZE**3 else f"a product of ones gave {product:g} in the place of {PROOF_SIZE**3}"


def is_built_for(architectures: Iterable[str], capability: tuple[int, int]) -> bool:
    """Return whether a build of torch has code for a card.

    Args:
        architectures: `sm_80` is machine code for cards of the same first number and at least the second one,
            `compute_90` is code that the driver compiles for any later card.
        capability: The card's.
    """
    major, minor = capability
    found = [re.fullmatch(r"(sm|compute)_(\d+)(\d)[af]?", architecture) for architecture in architectures]
    codes = [(match[1], int(match[2]), int(match[3])) for match in found if match]
    return not codes or any(
        (kind == "sm" and major == of_major and minor >= of_minor)
        or (kind == "compute" and (major, minor) >= (of_major, of_minor))
        for kind, of_major, of_minor in codes
    )


def has_card() -> bool:
    """Return whether this machine has a GPU, whatever torch makes of it; Ray's count may be a number alone."""
    if any(Path(path).exists() for path in ("/proc/driver/nvidia/version", "/dev/nvidiactl", "/dev/kfd", "/dev/dxg")):
        return True
    return any(_is_card(device) for device in Path("/sys/bus/pci/devices").glob("*"))


def _is_card(device: Path) -> bool:
    """Whether a PCI device is a card of NVIDIA; AMD's are told by their driver, as every AMD processor may draw too."""
    try:
        vendor, kind = ((device / name).read_text().strip() for name in ("vendor", "class"))
    except OSError:
        return False
    return vendor == "0x10de" and kind.startswith("0x03")


def driver_version() -> str:
    """Return the version of NVIDIA's driver, "" without one."""
    try:
        text = Path("/proc/driver/nvidia/version").read_text()
    except OSError:
        return ""
    found = re.search(r"Kernel Module.*?(\d+\.\d+(?:\.\d+)?)", text)
    return found[1] if found else ""


def _first_line(error: BaseException) -> str:
    return str(error).strip().partition("\n")[0]
