"""Several control pictures of a row, in the one form that the pipelines of all families take.

    pictures of each row, a scale --> a tensor of all rows for each ControlNet, a scale for each

Pipelines differ in what they make of lists within lists (0.42.1): some refuse them, one reads them by row, others by
ControlNet. All of them read a tensor for each ControlNet alike, but those whose VAE encodes it take its numbers as they
are; so it is made by the pipeline's own processor.
"""

# B rows of a call.

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from PIL import Image

from sdbatch.families.arguments import NO_MODE

if TYPE_CHECKING:
    from sdbatch.families import Route
    from sdbatch.generate.item import Item


def with_controls(route: Route, pipeline: Any, arguments: dict[str, Any], items: Sequence[Item]) -> dict[str, Any]:
    """Return a call's arguments, those for control pictures by ControlNet where a row may have several.

    Args:
        route: The family's route.
        pipeline: Pipeline that will be called; its own defaults hold for what a row does not say.
        arguments: Arguments under diffusers' names.
        items: The batch; all rows have as many control pictures.
    """
    count = len(items[0].control_image)
    if not count or (count == 1 and route.nets != "union"):
        return arguments
    by_net = {
        route.arguments["control_image"]: [
            _tensor(pipeline, [item.control_image[number] for item in items]) for number in range(count)
        ]
    }
    defaults = inspect.signature(type(pipeline).__call__).parameters
    for name in ("controlnet_conditioning_scale", "control_guidance_start", "control_guidance_end"):
        if name in defaults:
            value = arguments.get(name, defaults[name].default)
            by_net[name] = list(value) if isinstance(value, list) else [value] * count
    if "control_mode" in defaults:
        mode = arguments.get("control_mode", NO_MODE)
        by_net["control_mode"] = list(mode) if isinstance(mode, list) else [mode] * count
    return {**arguments, **by_net}


@contextmanager
def kinds_of_rows(pipeline: Any) -> Iterator[None]:
    """Give Flux's ControlNets the kind of control picture once for each row of a call, while the block runs.

    The pipelines that begin with a picture give it once for all of them, which fits a call of one row (0.42.1).
    """
    net = getattr(pipeline, "controlnet", None)
    nets = [one for one in getattr(net, "nets", [net]) if type(one).__name__ == "FluxControlNetModel"]
    hooks = [one.register_forward_pre_hook(_with_kind_of_each, with_kwargs=True) for one in nets]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def _with_kind_of_each(
    _: Any, args: tuple[Any, ...], named: Mapping[str, Any]
) -> tuple[tuple[Any, ...], Mapping[str, Any]]:
    kind_B1 = named.get("controlnet_mode")
    if kind_B1 is None or len(kind_B1) != 1:
        return args, named
    return args, {**named, "controlnet_mode": kind_B1.expand(len(named["hidden_states"]), 1)}


def _tensor(pipeline: Any, pictures: Sequence[Any]) -> Any:
    """Return pictures of one size as the pipeline makes a tensor of a list of pictures.

    That is in 0..1 where the ControlNet reads the picture itself, and in -1..1 where it reads what the VAE makes of it.
    """
    processor = getattr(pipeline, "control_image_processor", None) or pipeline.image_processor
    return processor.preprocess([Image.fromarray(pixels) for pixels in pictures])
