"""The shape of a request: what decides, with the model and the device, how long one output takes.

task, size, steps, what is read beside, scheduler, batch size --> shape_text()
    --> "text-to-image 1024x768 20 steps guided 2 controls HeunDiscreteScheduler, batch 8"
"""

from __future__ import annotations

import math
from typing import Literal

from sdbatch.families.peaks import OutputSize
from sdbatch.plan.window import auto_batch_size


def shape_text(
    task: str,
    size: OutputSize,
    *,
    steps: int,
    batch_size: int | Literal["auto"],
    num_controls: int = 0,
    num_references: int = 0,
    scheduler: str = "",
) -> str:
    """Return a shape as people read it; rates are remembered by it.

    Args:
        task: By its Hugging Face name; it stands first.
        size: Of the output.
        steps: Denoising steps that are really made.
        batch_size: Outputs of a call, as the job says.
        num_controls: Pictures that ControlNets read.
        num_references: Pictures that an IP-Adapter reads.
        scheduler: diffusers class, since some call the denoiser twice a step; "" for the model's own.
    """
    rows = auto_batch_size(size.height, size.width, size.num_frames) if batch_size == "auto" else batch_size
    frames = f"x{size.num_frames}" if size.num_frames > 1 else ""
    more = [
        "guided" if size.is_guided else "",
        f"{num_controls} controls" if num_controls else "",
        f"{num_references} references" if num_references else "",
        scheduler,
    ]
    words = " ".join([task, f"{size.width}x{size.height}{frames}", f"{steps} steps", *filter(None, more)])
    return f"{words}, batch {rows}"


def enlarged(shape: str, cost_tflop: float, source: tuple[int, int], times: int) -> tuple[str, float]:
    """Return shape and predicted work of a picture whose size follows from its source's, once that is known.

    Args:
        shape: With the size that was assumed.
        cost_tflop: Predicted work at that size; it is linear in pixels.
        source: Width and height of the source.
        times: How many times as large the output is.
    """
    task, assumed, *words = shape.split(" ")
    width, height = (side * times for side in source)
    pixels = math.prod(map(int, assumed.split("x")))
    return " ".join([task, f"{width}x{height}", *words]), cost_tflop * width * height / pixels


def task_of(shape: str) -> str:
    """Return the task of a shape."""
    return shape.partition(" ")[0]


def batch_size_of(shape: str) -> int:
    """Return the outputs of a call of a shape."""
    return int(shape.rpartition(" ")[2])
