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


def joined_controlnets(nets: Sequence[Any]) -> Any:
    """Return ControlNets of one class as one module; a single one that reads several pictures by itself as it is."""
    name = type(nets[0]).__name__
    if len(nets) == 1 and name not in _CLASSES_OF_SEVERAL:
        return nets[0]
    return getattr(diffusers, _CLASSES_OF_SEVERAL[name])(list(nets))
