"""Several ControlNets of a model as the one module that a pipeline takes.

ControlNet x N --> joined_controlnets() --> diffusers' class of several of that kind
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

import diffusers

_CLASSES_OF_SEVERAL: Final[Mapping[str, str]] = {
    "ControlNetModel": "MultiControlNetModel",
    "FluxControlNetModel": "FluxMultiControlNetModel",
    "QwenImageControlNetModel": "QwenImageMultiControlNetModel",
    "SD3ControlNetModel": "SD3MultiControlNetModel",
}
"""diffusers' class for several, by that of each."""

ABLE_OF_SEVERAL: Final = frozenset(_CLASSES_OF_SEVERAL)


def joined_controlnets(nets: Sequence[Any]) -> Any:
    """Return several ControlNets of one class as one module."""
    cls = getattr(diffusers, _CLASSES_OF_SEVERAL[type(nets[0]).__name__])
    return cls(list(nets))
