"""The shape of a request: what decides, with the model and the device, how long one output takes.

task, size, steps, batch size --> shape_text() --> "text-to-image 1024x768 20 steps guided, batch 8"
"""

from __future__ import annotations

from typing import Literal

from sdbatch.families.peaks import OutputSize
from sdbatch.plan.window import auto_batch_size


def shape_text(task: str, size: OutputSize, *, steps: int, batch_size: int | Literal["auto"]) -> str:
    """Return a shape as people read it; rates are remembered by it.

    Args:
        task: By its Hugging Face name; it stands first.
        size: Of the output.
        steps: Denoising steps that are really made.
        batch_size: Outputs of a call, as the job says.
    """
    rows = auto_batch_size(size.height, size.width, size.num_frames) if batch_size == "auto" else batch_size
    frames = f"x{size.num_frames}" if size.num_frames > 1 else ""
    guided = " guided" if size.is_guided else ""
    return f"{task} {size.width}x{size.height}{frames} {steps} steps{guided}, batch {rows}"


def task_of(shape: str) -> str:
    """Return the task of a shape."""
    return shape.partition(" ")[0]


def batch_size_of(shape: str) -> int:
    """Return the outputs of a call of a shape."""
    return int(shape.rpartition(" ")[2])
