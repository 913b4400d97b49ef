"""The contract of a stage after the model: what it is, what it is given, and what it says."""

# F frames, H and W pixels, C = 3 channels.

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

Opinion = Literal["ok", "failed", "blocked"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    """The description of a stage. Each stage's file holds one as `STAGE`.

    Attributes:
        where: `device`: with the model, a whole batch at a time. `cpu`: on the threads that encode, one output at a
            time.
        columns: Metadata columns it adds to.
        changes_pixels: Whether the pixels that are stored are other than the model's, so that it is in the recipe.
        blocks: Whether its verdict may be `blocked`, so that its settings have a digest.
        failure: Class of RowError that a verdict of `failed` is recorded with.
    """

    where: Literal["device", "cpu"]
    columns: tuple[str, ...] = ("stages",)
    changes_pixels: bool = False
    blocks: bool = False
    failure: str = ""


class Output(Protocol):
    """The part of an output that a stage reads.

    Attributes:
        frames_FHWC: uint8, RGB; one frame for a picture.
        is_finite: Whether the model's floats held neither NaN nor infinity.
    """

    @property
    def frames_FHWC(self) -> NDArray[np.uint8]:
        """Return the pixels."""

    @property
    def is_finite(self) -> bool:
        """Return whether the model's floats were finite."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """The verdict of a stage on one output.

    Attributes:
        name: Name of the stage.
        verdict: `ok`; `failed` when the output is of no use; `blocked` when nobody is to see it.
        label: What it was taken for, None where the stage knows no labels.
        score: How surely, 0..1.
        message: Why it is not ok, for people.
    """

    name: str
    verdict: Opinion
    label: str | None = None
    score: float | None = None
    message: str = ""

    def as_struct(self) -> dict[str, Any]:
        """Return the entry of the metadata column `stages`."""
        return {"name": self.name, "verdict": self.verdict, "label": self.label, "score": self.score}


Judge = Callable[[Sequence[Output]], list[Verdict]]
"""A loaded stage: gives one verdict per output."""


class StageSettings(BaseModel):
    """Settings of a stage in the job."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    def check(self) -> None:
        """Look, without torch, whether the files that the settings name are what they should be.

        Raises:
            UserError: Naming the setting and its value.
        """

    def content(self) -> str:
        """Return the digest of the files that the settings name; "" where they name none."""
        return ""
