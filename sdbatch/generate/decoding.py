"""Lets the VAE decode a few rows of a call at a time, in tiles where the recipe says so.

    denoised latents --> TimedDecode --> the VAE's own decode, some rows at a time --> joined rows
                              ^------------ fewer rows, where memory ran out ------------/

Memory of the decoder must not bound the batch, and a decoder that ran out of it must not cost the denoised latents:
they are kept, and decoded in smaller parts.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

import torch

from sdbatch.checkpoints.fits import DECODED_PIXELS_MAX
from sdbatch.generate.faults import is_out_of_memory
from sdbatch.generate.memory import release_memory
from sdbatch.job import VaeOptions
from sdbatch.recipe import Recipe

LOG = logging.getLogger("sdbatch.generate")


@dataclass(frozen=True, slots=True, kw_only=True)
class DecodePlan:
    """How the VAE decodes the rows of a call.

    Attributes:
        rows_at_once: Most rows that it is given.
        is_bound: Whether no decode goes over that; a plan of our own leaves alone what a pipeline has cut by itself.
        is_tiled: Whether it decodes, and encodes, in tiles.
        is_sliced: Whether it takes its rows one by one.
        is_exact: Whether the size of a part is promised, so that memory that runs out is an error.
    """

    rows_at_once: int
    is_bound: bool = False
    is_tiled: bool = False
    is_sliced: bool = False
    is_exact: bool = False


def is_tiled(recipe: Recipe) -> bool:
    """Return whether a recipe's outputs are decoded in tiles."""
    return bool(recipe.accelerators.get("vae", {}).get("tiling"))


def plan_decoding(
    recipe: Recipe, rows: int, options: VaeOptions, *, is_exact: bool, known_max: int | None = None
) -> DecodePlan:
    """Return how the rows of a call are decoded; all at once would take more memory than denoising.

    In `exact` all parts have one size, because the size changes the last bits of a row.

    Args:
        recipe: A recipe of the call; what is read of it is equal in all rows.
        rows: Rows of the call.
        options: The job's `vae` of the model.
        is_exact: Whether the job asks for equal bits.
        known_max: Most rows that this process could decode at once, where a decode has run out of memory.
    """
    pixels = recipe.height * recipe.width * (recipe.num_frames or 1) or DECODED_PIXELS_MAX  # 0: as its source
    most = 1 if options.slicing else options.decode_batch or max(1, DECODED_PIXELS_MAX // pixels)
    if is_exact:
        size = next(size for size in range(min(most, rows), 0, -1) if rows % size == 0)
    else:
        most = min(most, known_max or most)
        size = math.ceil(rows / math.ceil(rows / most))
    return DecodePlan(
        rows_at_once=size,
        is_bound=options.decode_batch is not None or options.slicing or known_max is not None,
        is_tiled=is_tiled(recipe),
        is_sliced=options.slicing,
        is_exact=is_exact,
    )


@contextmanager
def decoding(vae: Any, plan: DecodePlan) -> Iterator[TimedDecode]:
    """Let a VAE decode as planned while the block runs, and measure how long it takes."""
    before = {name: getattr(vae, name) for name in ("use_tiling", "use_slicing") if hasattr(vae, name)}
    if plan.is_tiled:
        vae.enable_tiling()
    elif "use_tiling" in before:
        vae.use_tiling = False
    if plan.is_sliced and "use_slicing" in before:
        vae.use_slicing = True
    vae.decode = decode = TimedDecode(vae, vae.decode, plan)
    try:
        yield decode
    finally:
        del vae.decode
        for name, value in before.items():
            setattr(vae, name, value)


class TimedDecode:
    """Takes the place of a VAE's `decode`.

    Attributes:
        spent_s: Wall seconds spent in it.
        retries: Times that it ran out of memory and went on in smaller parts.
        rows_at_once: Most rows that it gives the VAE by now.
    """

    def __init__(self, vae: Any, decode: Callable[..., Any], plan: DecodePlan) -> None:
        self.spent_s = 0.0
        self.retries = 0
        self.rows_at_once = plan.rows_at_once
        self._vae = vae
        self._decode = decode
        self._is_bound = plan.is_bound
        self._is_exact = plan.is_exact

    def __call__(self, latents: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
        """Decode latents, some rows at a time; fewer, where memory runs out.

        Raises:
            RuntimeError: When a single row does not fit, or any in `exact`.
        """
        started_s = _now_s(latents)
        try:
            # The error is gone before the next try: it holds every tensor that was alive when it was raised.
            while (decoded := self._tried(latents, args, kwargs)) is None:
                self._forget_failed()
            return decoded
        finally:
            self.spent_s += _now_s(latents) - started_s

    def _tried(self, latents: torch.Tensor, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
        """Return what the VAE decodes; None where memory ran out and smaller parts are left to try."""
        can_part = "num_frames" not in kwargs  # else rows are frames of clips, which belong together
        try:
            if can_part and len(latents) > self.rows_at_once and (self._is_bound or kwargs.get("return_dict") is False):
                return self._in_parts(latents, args, kwargs)
            return self._decode(latents, *args, **kwargs)
        except (RuntimeError, MemoryError) as error:
            rows = min(self.rows_at_once, len(latents))
            if self._is_exact or not can_part or rows == 1 or not is_out_of_memory(error):
                raise
        self.rows_at_once = (rows + 1) // 2
        self._is_bound = True
        self.retries += 1
        LOG.warning("decoder out of memory", extra={"rows": rows, "next_rows": self.rows_at_once})
        return None

    def _in_parts(self, latents: torch.Tensor, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
        decoded = []
        for start in range(0, len(latents), self.rows_at_once):
            part = slice(start, start + self.rows_at_once)
            first, *others = (_slice_rows(value, part, len(latents)) for value in (latents, *args))
            named = {name: _slice_rows(value, part, len(latents)) for name, value in kwargs.items()}
            decoded.append(self._decode(first, *others, **named))
        joined = torch.cat([one[0] for one in decoded])
        return (joined,) if isinstance(decoded[0], tuple) else type(decoded[0])(sample=joined)

    def _forget_failed(self) -> None:
        """Free what a failed decode has left: some decoders keep the frames before on themselves."""
        if hasattr(self._vae, "clear_cache"):
            self._vae.clear_cache()
        release_memory()


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
