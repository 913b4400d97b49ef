"""Lets the VAE decode a few rows of a call at a time, so that its memory does not bound the batch."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any, Final

import torch

from sdbatch.recipe import Recipe

DECODED_PIXELS_MAX: Final = 8 * 1024 * 1024
"""Pixels that the VAE decodes at a time: 8 pictures of 1024 px, as the fastest SDXL of MLPerf Inference 5.1 does."""


def rows_decoded_at_once(recipe: Recipe, rows: int, *, is_exact: bool) -> int:
    """Return how many rows of a call the VAE decodes at a time; all at once would take more memory than denoising.

    In `exact` all parts have one size, because the size changes the last bits of a row.
    """
    pixels = recipe.height * recipe.width * (recipe.num_frames or 1)
    most = max(1, DECODED_PIXELS_MAX // pixels)
    if is_exact:
        return next(size for size in range(min(most, rows), 0, -1) if rows % size == 0)
    return math.ceil(rows / math.ceil(rows / most))


@contextmanager
def decoding(vae: Any, rows_at_once: int) -> Iterator[TimedDecode]:
    """Let a VAE decode at most `rows_at_once` rows at a time while the block runs, and measure how long it takes."""
    vae.decode = decode = TimedDecode(vae.decode, rows_at_once)
    try:
        yield decode
    finally:
        del vae.decode


class TimedDecode:
    """Takes the place of a VAE's `decode`.

    Attributes:
        spent_s: Wall seconds spent in it.
    """

    def __init__(self, decode: Callable[..., Any], rows_at_once: int) -> None:
        self.spent_s = 0.0
        self._decode = decode
        self._rows_at_once = rows_at_once

    def __call__(self, latents: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
        """Decode latents, some rows at a time."""
        started_s = _now_s(latents)
        try:
            if len(latents) <= self._rows_at_once or kwargs.get("return_dict", True):
                return self._decode(latents, *args, **kwargs)
            decoded = []
            for start in range(0, len(latents), self._rows_at_once):
                part = slice(start, start + self._rows_at_once)
                first, *others = (_slice_rows(value, part, len(latents)) for value in (latents, *args))
                named = {name: _slice_rows(value, part, len(latents)) for name, value in kwargs.items()}
                decoded.append(self._decode(first, *others, **named)[0])
            return (torch.cat(decoded),)
        finally:
            self.spent_s += _now_s(latents) - started_s


def _now_s(tensor: torch.Tensor) -> float:
    """Return the time once a GPU has done what it was given: its calls return before their work is done."""
    if tensor.is_cuda:
        with suppress(RuntimeError):  # an error of the work itself is raised where its result is read
            torch.cuda.synchronize(tensor.device)
    return time.perf_counter()


def _slice_rows(value: Any, part: slice, rows: int) -> Any:
    """Return those rows of a value that has one entry per row; any other value as it is."""
    is_by_row = isinstance(value, list) or (isinstance(value, torch.Tensor) and value.ndim > 0)
    return value[part] if is_by_row and len(value) == rows else value
