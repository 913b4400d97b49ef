"""Makes a scheduler from a model's own: another class, or options laid over the folder's configuration.

model's scheduler + class + options --> scheduler_from()
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import diffusers

from sdbatch.families.scheduler_options import EXCLUSIVE
from sdbatch.families.schedulers import OF_FLOW


def scheduler_from(own: Any, class_name: str, options: Mapping[str, Any]) -> Any:
    """Return a scheduler of a class with the configuration of a model's own, less what the options say.

    Args:
        own: The model's own scheduler.
        class_name: diffusers class.
        options: By name, as a recipe has them.
    """
    laid_over = {**_as_flow(own), **options}
    if any(options.get(name) for name in EXCLUSIVE):
        # Only one of them can be met, and the folder may say another one.
        laid_over = {**dict.fromkeys(EXCLUSIVE, False), **laid_over}
    if "shift" in options:
        # A shift that follows from the size would take its place in silence.
        laid_over["use_dynamic_shifting"] = False
    cls = getattr(diffusers, class_name)
    taken = laid_over.keys() & set(cls._get_init_keys(cls))
    return cls.from_config(own.config, **{name: laid_over[name] for name in sorted(taken)})


def _as_flow(own: Any) -> dict[str, Any]:
    """Return what a scheduler of a flow says by its class alone, or by another name, in the words of both kinds.

    Some are of a flow whatever their configuration says, and have a `shift`; UniPC and DPM-Solver are told
    so, and have a `flow_shift`.
    """
    if type(own).__name__.startswith(OF_FLOW):
        shift = own.config.get("shift", 1.0)
        return {"use_flow_sigmas": True, "prediction_type": "flow_prediction", "flow_shift": shift}
    return {"shift": own.config.flow_shift} if own.config.get("use_flow_sigmas") else {}
