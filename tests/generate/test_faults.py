"""Errors of a device, as torch, cuDNN, cuBLAS, Triton and the drivers word them, and what each of them is."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from sdbatch.errors import DeadlineExceeded, GpuUnusable, LoraRefused, SourceMissing
from sdbatch.generate.faults import failure_kind
from sdbatch.outcomes import OUTCOMES

E = RuntimeError
A = torch.AcceleratorError
SAID: list[tuple[type[Exception], str, str]] = [
    (torch.OutOfMemoryError, "CUDA out of memory. Tried to allocate 20.00 MiB. GPU 0 has a total ...", "OutOfMemory"),
    (A, "CUDA error: out of memory\nCUDA kernel errors might be asynchronously reported", "OutOfMemory"),
    (E, "CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`", "OutOfMemory"),
    (E, "CUDA error: CUBLAS_STATUS_NOT_INITIALIZED when calling `cublasCreate(handle)`", "OutOfMemory"),
    (E, "cuDNN error: CUDNN_STATUS_ALLOC_FAILED", "OutOfMemory"),
    (E, "GET was unable to find an engine to execute this computation", "OutOfMemory"),
    (E, "FIND was unable to find an engine to execute this computation", "OutOfMemory"),
    (E, "CUDA driver error: out of memory", "OutOfMemory"),
    (E, "Triton Error [CUDA]: out of memory", "OutOfMemory"),
    (E, "HIP out of memory. Tried to allocate 2.00 GiB", "OutOfMemory"),
    (E, "[enforce fail at alloc_cpu.cpp:128] err == 0. DefaultCPUAllocator: can't allocate memory", "OutOfMemory"),
    (MemoryError, "Unable to allocate 3.20 GiB for an array with shape (4, 1024)", "OutOfMemory"),
    (A, "CUDA error: an illegal memory access was encountered", "DeviceLost"),
    (E, "Triton Error [CUDA]: an illegal memory access was encountered", "DeviceLost"),
    (A, "CUDA error: device-side assert triggered", "DeviceLost"),
    (A, "CUDA error: unspecified launch failure", "DeviceLost"),
    (A, "CUDA error: misaligned address", "DeviceLost"),
    (A, "CUDA error: the launch timed out and was terminated", "DeviceLost"),
    (E, "NVML_SUCCESS == r INTERNAL ASSERT FAILED at CUDACachingAllocator.cpp:963", "DeviceLost"),
    (E, "cuDNN error: CUDNN_STATUS_EXECUTION_FAILED", "DeviceLost"),
    (E, "cuDNN error: CUDNN_STATUS_INTERNAL_ERROR", "DeviceLost"),
    (A, "an error that nobody has a word for", "DeviceLost"),
    (A, "CUDA error: no kernel image is available for execution on the device", "GpuUnusable"),
    (A, "CUDA error: uncorrectable ECC error encountered", "GpuUnusable"),
    (A, "CUDA error: uncorrectable NVLink error detected during the execution", "GpuUnusable"),
    (E, "The NVIDIA driver on your system is too old (found version 12080)", "GpuUnusable"),
    (E, "Found no NVIDIA driver on your system.", "GpuUnusable"),
    (E, "CUDA error: CUDA-capable device(s) is/are busy or unavailable", "GpuUnusable"),
    (E, "No CUDA GPUs are available", "GpuUnusable"),
    (E, "Unable to determine the device handle for GPU0000:01:00.0: GPU is lost.", "GpuUnusable"),
    (AssertionError, "Torch not compiled with CUDA enabled", "GpuUnusable"),
    (E, "the provided PTX was compiled with an unsupported toolchain.", "GpuUnusable"),
    (E, "out of resource: shared memory, Required: 147456, Hardware limit: 101376", "Raised"),
    (E, "mat1 and mat2 shapes cannot be multiplied (77x32 and 64x32)", "Raised"),
    (ValueError, "`prompt` has to be of type `str` or `list`", "Raised"),
    (ZeroDivisionError, "division by zero", "Raised"),
    (DeadlineExceeded, "a pipeline call of 4 took longer than 60 s", "DeadlineExceeded"),
    (LoraRefused, "LoRA ink is not applied: of its 4 keys 2 fit no module", "RowError"),
    (SourceMissing, "out of memory.png is not there", "RowError"),
    (GpuUnusable, "a GPU is asked for", "GpuUnusable"),
]


@pytest.mark.parametrize(
    ("cls", "text", "kind"),
    [pytest.param(*row, marks=pytest.mark.fault("A12", row[1].partition("\n")[0], row[2])) for row in SAID],
)
def test_an_error_is_of_the_kind_that_says_what_to_do(cls: Any, text: str, kind: str) -> None:
    assert failure_kind(cls(text)) == kind
    assert kind in OUTCOMES


def test_a_fault_of_the_card_blames_no_row_and_leaves_the_node() -> None:
    outcome = OUTCOMES["GpuUnusable"]
    assert (outcome.then, outcome.records, outcome.replace_worker, outcome.leave_node) == ("again", None, True, True)
