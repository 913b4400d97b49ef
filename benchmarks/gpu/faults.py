"""Real errors of a device, provoked: what they say, and what the product's table makes of them.

A sticky error ends every use of the device in its process, so each is provoked in a process of its own.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch

from benchmarks.gpu.bench import Bench, Figures

TIMEOUT_S = 25.0

_KERNELS = r"""
extern "C" __global__ void wild(int* p) { *(volatile int*)(16ull + (unsigned long long)p[0]) = 1; }
extern "C" __global__ void crooked(int* p) { *(volatile int*)((char*)p + 1) = 1; }
extern "C" __global__ void trapped(int* p) { asm("trap;"); }
"""


def measure(bench: Bench) -> None:
    """Provoke every error; those that need a card are left out on a CPU."""
    sticky = {name: one for name, one in PROVOKED.items() if one[1] and (bench.device == "cuda" or name in _ON_CPU)}
    bench.step("at_once", lambda: _in_processes(bench, sticky, together=True))
    alone = {name: one for name, one in PROVOKED.items() if not one[1] and bench.device == "cuda"}
    bench.step("one_by_one", lambda: _in_processes(bench, alone, together=False))


def _in_processes(bench: Bench, provoked: Mapping[str, Any], *, together: bool) -> Figures:
    """Provoke errors in children, side by side or one after another; a child that hangs is killed."""
    found: Figures = {}
    children: dict[int, str] = {}
    folder = bench.folder / "faults"
    folder.mkdir(exist_ok=True)
    for name in provoked:
        child = os.fork()
        if not child:
            _provoke(name, folder / f"{name}.json")
        children[child] = name
        if not together:
            _wait(children, found, folder)
    _wait(children, found, folder)
    wrong = {name: one for name, one in found.items() if provoked[name][0] != one.get("kind")}
    return {"wrong": sorted(wrong), **found}


def _wait(children: dict[int, str], found: Figures, folder: Path) -> None:
    deadline_s = time.monotonic() + TIMEOUT_S
    while children:
        for child in list(children):
            done, status = os.waitpid(child, os.WNOHANG)
            if not done and time.monotonic() > deadline_s:
                os.kill(child, signal.SIGKILL)
                done, status = os.waitpid(child, 0)
            if done:
                name = children.pop(child)
                file = folder / f"{name}.json"
                said = json.loads(file.read_text()) if file.is_file() else {"said": "nothing"}
                found[name] = {**said, "exit": os.waitstatus_to_exitcode(status), "right": PROVOKED[name][0]}
        time.sleep(0.02)


def _provoke(name: str, file: Path) -> None:
    """Provoke one error, write what it was taken for, and end the process without cleaning up: the device is gone."""
    from sdbatch.generate.faults import failure_kind

    said: Figures = {"said": "no error"}
    try:
        PROVOKED[name][2]()
    except Exception as error:  # noqa: BLE001 -- this is what was asked for
        said = {"kind": failure_kind(error), "class": type(error).__name__, "said": str(error)[:500]}
        try:
            torch.cuda.synchronize()
            said["then"] = "the device goes on"
        except Exception as later:  # noqa: BLE001
            said["then"] = f"{failure_kind(later)}: {type(later).__name__}: {str(later)[:200]}"
    file.write_text(json.dumps(said))
    sys.stdout.flush()
    os._exit(0)


def _too_large() -> None:
    torch.empty(1 << 50, dtype=torch.uint8, device="cuda")


def _too_large_on_host() -> None:
    torch.empty(1 << 55, dtype=torch.uint8)


def _index_outside() -> None:
    table = torch.randn(8, 8, device="cuda")
    torch.nn.functional.embedding(torch.tensor([99], device="cuda"), table).cpu()


def _kernel(name: str) -> Callable[[], None]:
    def run() -> None:
        compiled = torch.cuda._compile_kernel(_KERNELS, name)  # noqa: SLF001 -- torch's only way to a kernel of one's own without nvcc
        compiled(grid=(1, 1, 1), block=(1, 1, 1), args=[torch.zeros(8, dtype=torch.int32, device="cuda")])
        torch.cuda.synchronize()

    return run


def _another_card() -> None:
    torch.cuda.set_device(99)


def _filled(use: Callable[[], Any]) -> Callable[[], None]:
    """Use the device's libraries for the first time when nothing of its memory is left for their workspace."""

    def run() -> None:
        size = 1 << 30
        held = [torch.randn(2, 64, 64, 64, device="cuda"), torch.randn(64, 64, 3, 3, device="cuda")]
        while size >= 1 << 20:
            try:
                held.append(torch.empty(size, dtype=torch.uint8, device="cuda"))
            except torch.OutOfMemoryError:
                size //= 2
        use()
        torch.cuda.synchronize()

    return run


def _product() -> None:
    side = torch.ones(1, 1, device="cuda")
    (side @ side).item()


def _convolution() -> None:
    torch.nn.functional.conv2d(torch.ones(1, 64, 256, 256, device="cuda"), torch.ones(64, 64, 3, 3, device="cuda"))


_ON_CPU = ("host_out_of_memory",)

PROVOKED: Mapping[str, tuple[str, bool, Callable[[], None]]] = {
    "host_out_of_memory": ("OutOfMemory", True, _too_large_on_host),
    "out_of_memory": ("OutOfMemory", True, _too_large),
    "index_outside": ("DeviceLost", True, _index_outside),
    "illegal_address": ("DeviceLost", True, _kernel("wild")),
    "misaligned": ("DeviceLost", True, _kernel("crooked")),
    "trap": ("DeviceLost", True, _kernel("trapped")),
    "no_such_card": ("GpuUnusable", True, _another_card),
    "full_for_cublas": ("OutOfMemory", False, _filled(_product)),
    "full_for_cudnn": ("OutOfMemory", False, _filled(_convolution)),
}
"""By name: the right kind, whether it may be provoked beside others, and how."""
