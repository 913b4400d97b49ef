"""Enlarges a source of any size: filled up to what the model takes, denoised in tiles where it is large, cut back.

    source --> filled_up() --> pipeline, whose denoiser sees tiles of one sample --> cut() --> source x enlarges
                                  tile | tile
                                  -----+-----   weights fall off over a quarter of a tile, where two of them overlap
                                  tile | tile

All tiles share the noise, the scheduler and the sample of one call: a tiled step is a whole one whose denoiser sees no
further than its tile. Tiles that were enlarged by a call each would not fit each other.
"""

# B rows of a pass, C channels, H and W of the denoiser's sample.

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any, Final

import numpy as np
import torch
from PIL import Image

from sdbatch.families import Family, Route
from sdbatch.generate.accelerators import denoisers_of, forward_replaced
from sdbatch.generate.item import Item, Pixels

OVERLAP_PARTS: Final = 4
"""Tiles overlap by one of so many parts of their side."""


def is_large(route: Route, item: Item, samples_per_pixel: float) -> bool:
    """Return whether a source is denoised in tiles, and decoded in tiles.

    Args:
        route: A route that enlarges.
        item: The row; its source decides, and nothing of the machine, so that a picture is the same everywhere.
        samples_per_pixel: Side of the denoiser's sample for each pixel of the source's.
    """
    return bool(route.tile) and max(item.images[0].shape[:2]) * samples_per_pixel > route.tile


def filled_up(route: Route, arguments: dict[str, Any]) -> dict[str, Any]:
    """Return a call's arguments, its source filled up to multiples by the pixels of its right and lower edge.

    The pipeline would make it smaller instead.
    """
    name = route.arguments["images"]
    pixels = np.asarray(arguments[name])
    below, right = (-side % route.padded_to for side in pixels.shape[:2])
    if not (below or right):
        return arguments
    return {**arguments, name: Image.fromarray(np.pad(pixels, ((0, below), (0, right), (0, 0)), mode="edge"))}


def cut(frames_BFHWC: Pixels, route: Route, item: Item) -> Pixels:
    """Return an output without what its source was filled up by."""
    height, width = (side * route.enlarges for side in item.images[0].shape[:2])
    return frames_BFHWC[:, :, :height, :width]


@contextmanager
def in_tiles(pipeline: Any, family: Family, route: Route, item: Item) -> Iterator[None]:
    """Let a pipeline's denoiser see tiles while the block runs, where the source is large."""
    with ExitStack() as stack:
        if is_large(route, item, samples_per_pixel(pipeline, route)):
            for denoiser in denoisers_of(pipeline, family):
                tiled = _Tiled(denoiser.forward, route.tile, max(1, route.tile // OVERLAP_PARTS))
                stack.enter_context(forward_replaced(denoiser, tiled))
        yield


def samples_per_pixel(pipeline: Any, route: Route) -> float:
    """Return the side of the denoiser's sample for each pixel of the source's: the VAE brings it to the output."""
    return float(route.enlarges / pipeline.vae_scale_factor)


class _Tiled:
    """Takes the place of a denoiser's `forward`.

    Args:
        forward: The denoiser's own `forward`.
        tile: Side of a tile.
        overlap: By how much neighbouring tiles overlap at least.
    """

    def __init__(self, forward: Callable[..., Any], tile: int, overlap: int) -> None:
        self._forward = forward
        self._tile = tile
        self._overlap = overlap

    def __call__(self, sample: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
        height, width = sample.shape[-2:]
        total: torch.Tensor | None = None
        weights = torch.zeros(height, width, device=sample.device)
        output: Any = None
        for top in _starts(height, self._tile, self._overlap):
            for left in _starts(width, self._tile, self._overlap):
                rows, columns = slice(top, top + self._tile), slice(left, left + self._tile)
                output = self._forward(sample[..., rows, columns], *args, **kwargs)
                part = (output[0] if isinstance(output, tuple) else output.sample).float()
                weight = self._weight(part, top=top, left=left, height=height, width=width)
                if total is None:
                    total = part.new_zeros(*part.shape[:-2], height, width)
                total[..., rows, columns] += part * weight
                weights[rows, columns] += weight
        assert total is not None
        joined = (total / weights).to(sample.dtype)
        return (joined,) if isinstance(output, tuple) else type(output)(sample=joined)

    def _weight(self, part: torch.Tensor, *, top: int, left: int, height: int, width: int) -> torch.Tensor:
        """Return how much each place of a tile counts: less towards an edge that another tile lies over."""
        tall, wide = part.shape[-2:]
        down = _ramp(tall, self._overlap, begins=top > 0, ends=top + tall < height)
        across = _ramp(wide, self._overlap, begins=left > 0, ends=left + wide < width)
        return (down[:, None] * across[None, :]).to(part.device)


def _starts(length: int, tile: int, overlap: int) -> list[int]:
    """Return where tiles begin along a side; the last one ends with it, and none is smaller than a tile."""
    if length <= tile:
        return [0]
    starts = list(range(0, length - tile, tile - overlap))
    return [*starts, length - tile]


def _ramp(length: int, overlap: int, *, begins: bool, ends: bool) -> torch.Tensor:
    rise = (torch.arange(length) + 0.5).clamp(max=overlap) / overlap
    ones = torch.ones(length)
    return (rise if begins else ones) * (rise.flip(0) if ends else ones)
