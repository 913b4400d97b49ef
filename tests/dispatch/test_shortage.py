"""What a worker waits for, in words."""

from __future__ import annotations

import pytest

from sdbatch.dispatch.executor import Shape
from sdbatch.dispatch.shortage import shortage_text

GPU = Shape(num_gpus=1, num_cpus=4, memory_gib=None)
HELD = "CPUs and GPUs that another job holds"


@pytest.mark.fault("F38", HELD, "what is asked for, what there is, what is free, and that it waits for other jobs")
def test_what_other_jobs_hold_is_named() -> None:
    said = shortage_text(GPU, {"GPU": 2.0, "CPU": 16.0}, {"CPU": 12.0})

    assert said == (
        "each asks for 1 GPU and 4 CPU; the cluster has 2 GPU (0 free) and 16 CPU (12 free): "
        "other jobs, or workers of this run that still start, hold GPU"
    )


@pytest.mark.parametrize(
    ("shape", "total", "free", "said"),
    [
        (GPU, {"CPU": 16.0}, {"CPU": 16.0}, "0 GPU (0 free) and 16 CPU (16 free): too few GPU for one worker"),
        (GPU, {"GPU": 2.0, "CPU": 8.0}, {"GPU": 2.0, "CPU": 8.0}, "no single node has that much free, or the worker"),
        (
            Shape(num_gpus=0, num_cpus=1, memory_gib=64),
            {"CPU": 8.0, "memory": 32 * 2.0**30},
            {"CPU": 8.0, "memory": 2.0**30},
            "the cluster has 8 CPU (8 free) and 32 GiB of memory (1 free): too few GiB of memory for one worker",
        ),
    ],
)
def test_the_reason_is_the_one_that_holds(
    shape: Shape, total: dict[str, float], free: dict[str, float], said: str
) -> None:
    assert said in shortage_text(shape, total, free)
