"""One pipeline call: recipes and sources in, pixels and sound out.

    Item (recipe, seed, source pixels) x B --> make_batch() --> Generated x B

Every row has its own CPU generator, so its noise depends on its seed alone; every call gets fresh lists, because some
pipelines write into them. In `exact` the batch is padded to its full size with copies of its last row: at a fixed batch
size a row is bitwise independent of its neighbours, at another size it is not.
"""

# B rows in the batch, F frames (1 for a picture), C = 3 channels, H and W pixels, T samples of sound.

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import torch
from numpy.typing import NDArray

from sdbatch.errors import DeadlineExceeded
from sdbatch.generate.accelerators import accelerated, denoisers_of
from sdbatch.generate.memo import TEXTS_AT_ONCE, remembered
from sdbatch.generate.tasks import CALLS
from sdbatch.generate.tasks.adapters import adapt
from sdbatch.points import reached
from sdbatch.recipe import Recipe
from sdbatch.types import Sound

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sdbatch.families import Route
    from sdbatch.generate.load import LoadedModel


Pixels = NDArray[np.uint8]

DECODED_PIXELS_MAX: Final = 8 * 1024 * 1024
"""Pixels the VAE decodes at a time: 8 pictures of 1024 px, as the fastest SDXL of MLPerf Inference 5.1 does."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Item:
    """One output to make.

    Attributes:
        recipe: The request's recipe.
        seed: Of this output.
        images: Source pixels, each image_HWC at the recipe's size.
        mask: mask_HW at the recipe's size, 255 where the source is made anew.
        video: video_FHWC at the recipe's size and number of frames.
        control_image: image_HWC at the recipe's size.
    """

    recipe: Recipe
    seed: int
    images: tuple[Pixels, ...] = ()
    mask: Pixels | None = None
    video: Pixels | None = None
    control_image: Pixels | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Generated:
    """One output that was made.

    Attributes:
        frames_FHWC: uint8; one frame for a picture.
        sound: What the model made to it, None where it makes none.
        is_finite: Whether the model's floats held neither NaN nor infinity.
        is_blocked: Whether the model's own safety checker blanked it.
    """

    frames_FHWC: Pixels
    sound: Sound | None = None
    is_finite: bool
    is_blocked: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Memory:
    """A device's memory around a call, in bytes.

    Attributes:
        before: This process had taken.
        peak: Most it had taken within.
        at_hand: It could have taken.
    """

    before: int
    peak: int
    at_hand: int

    def holds_twice(self, part_max: float) -> bool:
        """Whether a call of twice the rows would stay within a part of what is at hand."""
        return self.before + 2 * (self.peak - self.before) <= part_max * self.at_hand


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchResult:
    """What one pipeline call gave.

    Attributes:
        outputs: One per item, padding dropped.
        generate_s: Wall seconds of the whole call, or of all calls whose clips were joined.
        decode_s: Of these, in the VAE's decoder.
        pipeline_class: diffusers class that ran.
        scheduler: diffusers class that ran.
        device: `cuda` or `cpu`.
        memory: Of a GPU; None on a CPU.
    """

    outputs: list[Generated]
    generate_s: float
    decode_s: float
    pipeline_class: str
    scheduler: str
    device: str
    memory: Memory | None = None


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that the device's memory ran out (torch's CPU allocator raises RuntimeError)."""
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or "DefaultCPUAllocator" in str(error)


def set_threads(num_threads: int) -> None:
    """Set torch's threads for the calling thread; their number decides the last bits of a float."""
    torch.set_num_threads(num_threads)


def failure_kind(error: Exception) -> str:
    """Return the key of the table of outcomes for what a pipeline call raised."""
    if is_out_of_memory(error):
        return "OutOfMemory"
    if isinstance(error, DeadlineExceeded):
        return "DeadlineExceeded"
    # After these the driver fails every call of the process: "sticky" errors, CUDA programming guide, error checking.
    if isinstance(error, torch.AcceleratorError) or "CUDA error" in str(error):
        return "DeviceLost"
    return "Raised"


def make_batch(
    model: LoadedModel, items: Sequence[Item], pad_to: int | None, on_step: Callable[[], None] = lambda: None
) -> BatchResult:
    """Run one pipeline call for items that share a batch key.

    Args:
        model: Loaded model.
        items: At least one; all of one task, size, steps, guidance, strength and scheduler.
        pad_to: Batch size to fill up with copies of the last item, None for no padding.
        on_step: Called before every pass of the denoiser; what it raises ends the call, and the model stays usable.

    Raises:
        RuntimeError: When the pipeline gave another number of frames than the recipe asks for.
    """
    recipe = items[0].recipe
    rows = [*items, *[items[-1]] * ((pad_to or len(items)) - len(items))]
    route = model.family.route_of(recipe)
    pipeline = model.pipeline(route, recipe.scheduler, recipe.loras)
    started_s = time.perf_counter()
    before = _begin_measuring(model.device)
    made: list[_CallOutput] = []
    denoisers = denoisers_of(pipeline, model.family)
    generators = [torch.Generator("cpu").manual_seed(row.seed) for row in rows]  # joined clips draw on: no noise twice
    generator = generators[0] if route.rows == "single" else generators
    with (
        _on_each_step(denoisers, on_step),
        torch.inference_mode(),
        _seeded(rows[0].seed, model.device),
        accelerated(pipeline, model.family, model.options, recipe),
        remembered(
            pipeline,
            model.memo,
            repr(recipe.loras),
            _texts_at_once(route),
            model.device if model.options.offload_text_encoder else None,
        ),
        _decoding(pipeline.vae, _rows_decoded_at_once(recipe, len(rows), is_exact=pad_to is not None)) as decode,
    ):
        for arguments in CALLS[recipe.task](route, rows):
            adapted = adapt(route.adapter, pipeline, arguments, recipe)
            made.append(_made(pipeline(**adapted, generator=generator, output_type="pt"), pipeline))
    video_BFHWC = _joined(made, recipe)
    generate_s = time.perf_counter() - started_s
    return BatchResult(
        outputs=[
            Generated(
                frames_FHWC=video_BFHWC[index],
                sound=_kept_sound(made[0].sounds[index], recipe) if made[0].sounds else None,
                is_finite=all(part.finite[index] for part in made),
                is_blocked=any(part.blocked[index] for part in made),
            )
            for index in range(len(items))
        ],
        generate_s=generate_s,
        decode_s=decode.spent_s,
        pipeline_class=route.pipeline,
        scheduler=model.scheduler_name(recipe.scheduler),
        device=model.device,
        memory=None if before is None else _memory(before),
    )


def _begin_measuring(device: str) -> int | None:
    """Return the bytes taken on a GPU, and count its peak from here; None on a CPU."""
    if device != "cuda":
        return None
    torch.cuda.reset_peak_memory_stats()
    return torch.cuda.memory_allocated()


def _memory(before: int) -> Memory:
    free, _ = torch.cuda.mem_get_info()
    at_hand = free + torch.cuda.memory_reserved()
    return Memory(before=before, peak=torch.cuda.max_memory_allocated(), at_hand=at_hand)


def _texts_at_once(route: Route) -> int:
    """Return how many texts are encoded at a time: by the way alone, as a row's last bits depend on it."""
    # Beside the work of a clip even the largest text encoder is nothing.
    return 1 if "num_frames" in route.arguments or route.rows == "single" else TEXTS_AT_ONCE


@dataclass(frozen=True, slots=True, kw_only=True)
class _CallOutput:
    """What one call gave, in one shape for all pipelines; lists have an entry a row."""

    video_BFHWC: Pixels
    sounds: list[Sound]
    finite: list[bool]
    blocked: list[bool]


def _made(output: Any, pipeline: Any) -> _CallOutput:
    """Read a pipeline's output: pictures in `images`, clips in `frames`, sound in `audio`."""
    floats = output.frames if hasattr(output, "frames") else output.images[:, None]
    video_BFHWC, finite = _to_uint8(floats)
    audio = getattr(output, "audio", None)
    sounds = []
    if audio is not None:
        rate_hz = int(pipeline.vocoder.config.output_sampling_rate)
        sounds = [Sound(samples_CT=samples.float().cpu().numpy(), rate_hz=rate_hz) for samples in audio]
    blocked = getattr(output, "nsfw_content_detected", None) or [False] * len(finite)
    return _CallOutput(
        video_BFHWC=video_BFHWC, sounds=sounds, finite=finite, blocked=[bool(value) for value in blocked]
    )


def _joined(made: Sequence[_CallOutput], recipe: Recipe) -> Pixels:
    """Return the frames that are kept of a call's clips, or of several that share their boundary frames."""
    parts = [part.video_BFHWC[:, (1 if index else 0) :] for index, part in enumerate(made)]
    video_BFHWC = np.concatenate(parts, axis=1) if len(parts) > 1 else parts[0]
    asked = recipe.num_frames or 1
    if video_BFHWC.shape[1] != asked:  # pipelines round silently
        raise RuntimeError(f"the pipeline made {video_BFHWC.shape[1]} frames where {asked} were asked for")
    return video_BFHWC[:, : recipe.num_frames_kept or asked]


def _kept_sound(sound: Sound, recipe: Recipe) -> Sound:
    """Cut the sound where the frames that are kept end."""
    if recipe.num_frames_kept is None or recipe.fps is None:
        return sound
    num_samples = round(recipe.num_frames_kept / recipe.fps * sound.rate_hz)
    return replace(sound, samples_CT=sound.samples_CT[:, :num_samples])


def _to_uint8(video_BFCHW: torch.Tensor) -> tuple[Pixels, list[bool]]:
    """Scale floats in 0..1 to 0..255 on their device, rounding to nearest, channels last; NaN becomes 0."""
    finite_B = torch.isfinite(video_BFCHW).flatten(1).all(dim=1).tolist()
    scaled = video_BFCHW.float().nan_to_num(0.0).clamp(0, 1).mul(255).round().to(torch.uint8)
    return scaled.permute(0, 1, 3, 4, 2).contiguous().cpu().numpy(), finite_B


@contextmanager
def _on_each_step(denoisers: Sequence[torch.nn.Module], on_step: Callable[[], None]) -> Iterator[None]:
    """Call `on_step` before every pass of a denoiser. A hook works for every pipeline; some know no callback."""

    def before_step(*_: object) -> None:
        reached("mid-denoise")
        on_step()

    hooks = [denoiser.register_forward_pre_hook(before_step) for denoiser in denoisers]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


@contextmanager
def _seeded(seed: int, device: str) -> Iterator[None]:
    """Seed torch's own generator for the block: SparseCtrl samples its key frames' latents with it (0.42.1)."""
    with torch.random.fork_rng(devices=[torch.cuda.current_device()] if device == "cuda" else []):
        torch.manual_seed(seed)
        yield


def _rows_decoded_at_once(recipe: Recipe, rows: int, *, is_exact: bool) -> int:
    """Return how many rows of a call the VAE decodes at a time: its memory, not the denoiser's, would bound the batch.

    In `exact` all parts are of one size, as a row's last bits depend on it.
    """
    pixels = recipe.height * recipe.width * (recipe.num_frames or 1)
    most = max(1, DECODED_PIXELS_MAX // pixels)
    if is_exact:
        return next(size for size in range(min(most, rows), 0, -1) if rows % size == 0)
    return math.ceil(rows / math.ceil(rows / most))


@contextmanager
def _decoding(vae: Any, rows_at_once: int) -> Iterator[_Decode]:
    """Let a VAE decode some rows at a time while the block runs."""
    vae.decode = decode = _Decode(vae.decode, rows_at_once)
    try:
        yield decode
    finally:
        del vae.decode


class _Decode:
    """Stands in for a VAE's `decode`.

    Attributes:
        spent_s: Seconds spent in it.
    """

    def __init__(self, decode: Callable[..., Any], rows_at_once: int) -> None:
        self.spent_s = 0.0
        self._decode = decode
        self._rows_at_once = rows_at_once

    def __call__(self, latents: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
        started_s = time.perf_counter()
        try:
            if len(latents) <= self._rows_at_once or kwargs.get("return_dict", True):
                return self._decode(latents, *args, **kwargs)
            made = []
            for start in range(0, len(latents), self._rows_at_once):
                part = slice(start, start + self._rows_at_once)
                first, *others = (_slice_rows(value, part, len(latents)) for value in (latents, *args))
                named = {name: _slice_rows(value, part, len(latents)) for name, value in kwargs.items()}
                made.append(self._decode(first, *others, **named)[0])
            return (torch.cat(made),)
        finally:
            self.spent_s += time.perf_counter() - started_s


def _slice_rows(value: Any, part: slice, rows: int) -> Any:
    """Return some rows of what has one entry a row, anything else as it is."""
    is_by_row = isinstance(value, list) or (isinstance(value, torch.Tensor) and value.ndim > 0)
    return value[part] if is_by_row and len(value) == rows else value
