"""What every arm renders with. No torch here: the process that hands out work needs none."""

from __future__ import annotations

SEED = 20261121
SIZE_PX = 64
STEPS = 2
GUIDANCE = 7.5
BATCH_SIZE = 16


def arguments() -> dict[str, float]:
    """Return what every arm passes to the pipeline beside prompts and generators."""
    return {"height": SIZE_PX, "width": SIZE_PX, "num_inference_steps": STEPS, "guidance_scale": GUIDANCE}
