"""Runs one pipeline call: recipes and sources go in, pixels and sound come out.

    Item (recipe, seed, source pixels) x B --> make_batch() --> Generated x B

Every row has its own CPU generator, so its noise depends on its seed alone; every call gets fresh lists, because some
pipelines write into them. In `exact` the batch is padded to its full size with copies of its last row: at a fixed batch
size a row is bitwise independent of its neighbours, at another size it is not.
"""

# B rows in the batch, F frames (1 for a picture), C = 3 channels, H and W pixels, T samples of sound.

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from sdbatch.generate.accelerators import accelerated, denoisers_of, recompile_limits
from sdbatch.generate.decoding import decoding
from sdbatch.generate.enlarging import cut, filled_up, in_tiles, is_large, samples_per_pixel
from sdbatch.generate.exact import exact_arithmetic
from sdbatch.generate.inversions import inverted
from sdbatch.generate.item import BatchResult, Generated, Item, Memory, Pixels, joined_results
from sdbatch.generate.load.placing import offloading
from sdbatch.generate.memo import TEXTS_AT_ONCE, remembered
from sdbatch.generate.prompts import PromptEncoder, is_encoded, with_tokens
from sdbatch.generate.scheduling import begun_at_first_step, noise_of_rows
from sdbatch.generate.tasks import CALLS
from sdbatch.generate.tasks.adapters import adapt
from sdbatch.generate.tasks.controls import kinds_of_rows, with_controls
from sdbatch.generate.text_model import text_model_named
from sdbatch.generate.visiting import visiting
from sdbatch.points import reached
from sdbatch.recipe import Recipe
from sdbatch.types import Sound

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sdbatch.families import Route
    from sdbatch.generate.load import LoadedModel


def set_threads(num_threads: int) -> None:
    """Set how many threads torch uses for calls from this thread; the number decides the last bits of a float."""
    torch.set_num_threads(num_threads)


def make_batch(
    model: LoadedModel, items: Sequence[Item], pad_to: int | None, on_step: Callable[[], None] = lambda: None
) -> BatchResult:
    """Run one pipeline call for items that share a batch key.

    Args:
        model: Loaded model.
        items: At least one; all of one batch key.
        pad_to: Batch size to fill up with copies of the last item, None for no padding.
        on_step: Called before every pass of the denoiser; an error it raises ends the call, and the model stays usable.

    Raises:
        RuntimeError: When the pipeline gave another number of frames than the recipe asks for.
    """
    apart = _what_keeps_apart(model, items)
    groups = [[place for place, one in enumerate(apart) if one == value] for value in sorted(set(apart))]
    if len(groups) == 1:
        return _made(model, items, pad_to, on_step)
    results = [_made(model, [items[place] for place in group], pad_to, on_step) for group in groups]
    return joined_results(results, groups)


def _what_keeps_apart(model: LoadedModel, items: Sequence[Item]) -> list[tuple[int, float]]:
    """Return, for each item, what the rows of one call of the pipeline are alike in and a batch key does not say."""
    lengths = _prompt_lengths(model, items) if is_encoded(items[0].recipe) else [0] * len(items)
    # A denoiser that reads guidance is given that of the call (diffusers 0.42.1: get_guidance_scale_embedding).
    guidances = [(item.recipe.guidance_scale or 0.0) * model.reads_guidance for item in items]
    return list(zip(lengths, guidances, strict=True))


def _prompt_lengths(model: LoadedModel, items: Sequence[Item]) -> list[int]:
    """Return the length of each item's encoded texts; rows of unlike lengths do not share a call of the pipeline."""
    recipe = items[0].recipe
    pipeline = model.pipeline(model.family.route_of(recipe), recipe.scheduler, recipe.loras)
    inversion = model.inversion(recipe)
    with inverted(pipeline, inversion):
        return PromptEncoder(pipeline, recipe, inversion.tokens if inversion else {}).lengths(items)


def _made(model: LoadedModel, items: Sequence[Item], pad_to: int | None, on_step: Callable[[], None]) -> BatchResult:
    """Run one pipeline call. See `make_batch`."""
    recipe = items[0].recipe
    rows = [*items, *[items[-1]] * ((pad_to or len(items)) - len(items))]
    route = model.family.route_of(recipe)
    pipeline = model.pipeline(route, recipe.scheduler, recipe.loras, recipe.more.get("scheduler_options"))
    started_s = time.perf_counter()
    before, limits_before = _begin_measuring(model.device), recompile_limits()
    parts: list[_CallOutput] = []
    plan = model.decode_plan(recipe, len(rows), is_exact=pad_to is not None)
    enlarged = route.enlarges > 1
    if enlarged and is_large(route, rows[0], samples_per_pixel(pipeline, route)):
        plan = replace(plan, is_tiled=True)
    denoisers = denoisers_of(pipeline, model.family)
    generators = [
        torch.Generator("cpu").manual_seed(row.seed) for row in rows
    ]  # joined clips draw on from one generator: no noise appears twice
    generator = generators[0] if route.rows == "single" else generators
    inversion = model.inversion(recipe)
    context = repr(recipe.loras) + (repr(recipe.more["embeddings"]) if inversion else "")
    tokens = inversion.tokens if inversion else {}
    with (
        _forgotten(model),
        inverted(pipeline, inversion),
        offloading(pipeline, model.options),
        _on_each_step(denoisers, on_step),
        torch.inference_mode(),
        _seeded(rows[0].seed, model.device),
        exact_arithmetic(is_exact=pad_to is not None, is_compiled=bool(model.options.compile)),
        in_tiles(pipeline, model.family, route, rows[0]) if enlarged else nullcontext(),
        accelerated(pipeline, model.family, model.options, recipe),
        text_model_named(pipeline, recipe),
        begun_at_first_step(pipeline, route, recipe),
        noise_of_rows(pipeline, generator),
        kinds_of_rows(pipeline),
        visiting(denoisers, model.device if model.options.offload_text_encoder else None) as visits,
        remembered(
            pipeline,
            model.memo,
            context,
            1 if is_encoded(recipe) else _texts_at_once(route),
            pads=pad_to is not None,
            visits=visits,
        ),
        decoding(pipeline.vae, plan) as decode,
        model.references.reading(pipeline, recipe) if model.references is not None else nullcontext(),
    ):
        for arguments in CALLS[recipe.task](route, rows):
            if is_encoded(recipe):
                encoded = PromptEncoder(pipeline, recipe, tokens).with_encoded(arguments, route, rows)
            else:
                encoded = with_tokens(arguments, route, tokens)
            formed = with_controls(route, pipeline, encoded, rows)
            adapted = adapt(route.adapter, pipeline, filled_up(route, formed) if enlarged else formed, recipe)
            parts.append(_read_output(pipeline(**adapted, generator=generator, output_type="pt"), pipeline))
    if decode.retries:
        model.learn_decoding(recipe, decode.rows_at_once)
    video_BFHWC = _join(parts, recipe)
    if enlarged:
        video_BFHWC = cut(video_BFHWC, route, rows[0])
    generate_s = time.perf_counter() - started_s
    return BatchResult(
        outputs=[
            Generated(
                frames_FHWC=video_BFHWC[index],
                sound=_kept_sound(parts[0].sounds[index], recipe) if parts[0].sounds else None,
                is_finite=all(part.finite[index] for part in parts),
                is_blocked=any(part.blocked[index] for part in parts),
            )
            for index in range(len(items))
        ],
        generate_s=generate_s,
        decode_s=decode.spent_s,
        decode_retries=decode.retries,
        recompile_limits=max(0, recompile_limits() - limits_before),
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
    """Return how many texts are encoded at most at a time; the number changes the last bits, so the route decides."""
    # The time of even the largest text encoder does not show beside that of a clip.
    return 1 if "num_frames" in route.arguments or route.rows == "single" else TEXTS_AT_ONCE


@dataclass(frozen=True, slots=True, kw_only=True)
class _CallOutput:
    """The output of one call in one form for all pipelines; lists have one entry per row."""

    video_BFHWC: Pixels
    sounds: list[Sound]
    finite: list[bool]
    blocked: list[bool]


def _read_output(output: Any, pipeline: Any) -> _CallOutput:
    """Read a pipeline's output: pictures stand in `images`, or in `image`, clips in `frames`, sound in `audio`."""
    floats = output.frames if hasattr(output, "frames") else output.get("images", output.get("image"))[:, None]
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


def _join(parts: Sequence[_CallOutput], recipe: Recipe) -> Pixels:
    """Return the frames that are kept of one call's clips, or of several calls whose clips share boundary frames."""
    videos = [part.video_BFHWC[:, (1 if index else 0) :] for index, part in enumerate(parts)]
    video_BFHWC = np.concatenate(videos, axis=1) if len(videos) > 1 else videos[0]
    num_frames = recipe.num_frames or 1
    if video_BFHWC.shape[1] != num_frames:  # pipelines round silently
        raise RuntimeError(f"the pipeline made {video_BFHWC.shape[1]} frames; the recipe asks for {num_frames}")
    return video_BFHWC[:, : recipe.num_frames_kept or num_frames]


def _kept_sound(sound: Sound, recipe: Recipe) -> Sound:
    """Cut the sound where the kept frames end."""
    if recipe.num_frames_kept is None or recipe.fps is None:
        return sound
    num_samples = round(recipe.num_frames_kept / recipe.fps * sound.rate_hz)
    return replace(sound, samples_CT=sound.samples_CT[:, :num_samples])


def _on_white(video_BFCHW: torch.Tensor) -> torch.Tensor:
    """Return floats in 0..1 without alpha."""
    if video_BFCHW.shape[2] != 4:
        return video_BFCHW
    alpha = video_BFCHW[:, :, 3:]
    return video_BFCHW[:, :, :3] * alpha + (1 - alpha)


def _to_uint8(video_BFCHW: torch.Tensor) -> tuple[Pixels, list[bool]]:
    """Scale floats in 0..1 to 0..255 on their device, rounding to nearest, channels last; NaN becomes 0.

    Alpha, where a pipeline gives it, is laid on white: outputs have three channels.
    """
    finite_B = torch.isfinite(video_BFCHW).flatten(1).all(dim=1).tolist()
    # No name holds a float copy on the way: of a long clip each is many times the clip.
    scaled = _on_white(video_BFCHW.float().nan_to_num(0.0).clamp(0, 1)).mul(255).round().to(torch.uint8)
    return scaled.permute(0, 1, 3, 4, 2).contiguous().cpu().numpy(), finite_B


@contextmanager
def _forgotten(model: LoadedModel) -> Iterator[None]:
    """Drop what the call of the block has left in the model's pipelines, however it ends."""
    try:
        yield
    finally:
        model.forget_call()


@contextmanager
def _on_each_step(denoisers: Sequence[torch.nn.Module], on_step: Callable[[], None]) -> Iterator[None]:
    """Call `on_step` before every pass of a denoiser: a hook works for all pipelines, and some take no callback."""

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
    """Seed torch's own generators for the block: SparseCtrl samples its key frames' latents with one (0.42.1)."""
    is_cuda = device == "cuda"
    with torch.random.fork_rng(devices=[torch.cuda.current_device()] if is_cuda else []):
        # `torch.manual_seed` asks every kind of accelerator, and formats the stack for each that is not there.
        torch.default_generator.manual_seed(seed)
        if is_cuda:
            torch.cuda.manual_seed(seed)
        yield
