"""Fails outputs of no use to anybody: values that are not finite, a blank picture, a clip that stands still."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np

from sdbatch.after.stage import Judge, Output, Stage, StageSettings, Verdict

STAGE: Final = Stage(where="cpu", failure="BlankOutput")


class Settings(StageSettings):
    """There is nothing to set."""


def load(_settings: StageSettings, _device: str) -> Judge:
    """Return the judge; it needs no device."""
    return _judge


def _judge(outputs: Sequence[Output]) -> list[Verdict]:
    return [
        Verdict(name="quality", verdict="failed", label=label, message=message)
        if label
        else Verdict(name="quality", verdict="ok")
        for label, message in map(_fault, outputs)
    ]


def _fault(output: Output) -> tuple[str | None, str]:
    """Return what is wrong with an output, in a word and in a sentence; None when it is well."""
    if not output.is_finite:
        return "not finite", "the model gave NaN or infinite values"
    first_HWC, *others = output.frames_FHWC
    if first_HWC.min() == first_HWC.max() and not others:
        return "blank", f"every value of the picture is {first_HWC.flat[0]}"
    if others and all(np.array_equal(first_HWC, frame_HWC) for frame_HWC in others):
        return "still", f"all {len(others) + 1} frames of the clip are the same"
    return None, ""
