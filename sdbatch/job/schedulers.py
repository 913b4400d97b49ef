"""A model entry's own names of schedulers: a diffusers class and its options."""

from __future__ import annotations

from typing import Annotated, Any, Final

from pydantic import AfterValidator, Field

_Whole = Annotated[int, Field(ge=-1_000_000, le=1_000_000)]
_Number = Annotated[float, Field(ge=-1_000_000, le=1_000_000)]
OptionValue = bool | _Whole | _Number | str | list[_Whole]
PRESET_NAME: Final = r"^[A-Za-z0-9][A-Za-z0-9 ._+-]{0,63}$"


def _checked(presets: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Refuse a preset without a class; what the class takes is looked at where the model is (`checkpoints/entries`)."""
    for name, options in presets.items():
        if not str(options.get("class", "")):
            raise ValueError(f"{name} has no class; say a diffusers class, such as class: DPMSolverMultistepScheduler")
    return presets


Presets = Annotated[
    dict[Annotated[str, Field(pattern=PRESET_NAME)], dict[str, OptionValue]],
    AfterValidator(_checked),
]
"""Class and options of a scheduler, by the name that a row may say."""
