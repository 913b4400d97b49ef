"""What is known of a model and of a LoRA before anything is loaded."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from sdbatch.families import Family
from sdbatch.job import Model


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelInfo:
    """One entry of the job's `models`, looked into.

    Attributes:
        name: Name in the job.
        path: As in the job, made absolute; `builtin:NAME` stays.
        family: Row of the family table.
        revision: Identity of the folder and of every further folder the entry names, in one digest; "" when it was not
            asked for.
        base_revision: Identity of the model folder alone.
        height: Native height in pixels.
        width: Native width in pixels.
        parameters: Of the denoiser, from its files' size; 0 when unknown.
        options: The job's entry.
        components: diffusers class of each further folder the entry names: `controlnet`, `motion_adapter`.
        component_revisions: Identity of the content of each of those folders.
        defaults: Settings of its own, over its family's.
    """

    name: str
    path: str
    family: Family
    revision: str
    height: int
    width: int
    parameters: int
    options: Model
    base_revision: str = ""
    components: Mapping[str, str] = field(default_factory=dict)
    component_revisions: Mapping[str, str] = field(default_factory=dict)
    defaults: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class LoraInfo:
    """One entry of the job's `loras`, looked into.

    Attributes:
        name: Name in the job.
        base: Title or class name of the family it fits.
        revision: Digest of its weights; "" when it was not asked for.
    """

    name: str
    base: str
    revision: str

    def fits(self, family: Family) -> bool:
        """Whether it was trained for a family."""
        return self.base in {family.title, family.class_name}
