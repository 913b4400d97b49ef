"""Accelerators that a job may ask for; diffusers runs a model without them, and all are off by default.

accelerate()   once, when the model is loaded: memory format, what is compiled
accelerated()  around a call: attention backend, cache of steps, steps without guidance
"""

# B rows of a call; a pass of the denoiser has 2B rows where they are guided.

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any, Final

import diffusers
import torch
from diffusers.models.attention_dispatch import attention_backend

from sdbatch.errors import ModelLoadFailed
from sdbatch.families import Family
from sdbatch.job import Model
from sdbatch.recipe import Recipe

RECOMPILES_MAX: Final = 64
"""Graphs of one block: for each of its widths, of each shape of a batch, with each number of LoRAs; torch has 8."""

_LIMIT_EXCEEDED: Final = "Dynamo recompile limit exceeded"
"""What torch 2.13 counts where a block has met as many shapes, or sets of LoRAs, as it compiles it for."""


def denoisers_of(pipeline: Any, family: Family) -> list[Any]:
    """Return a pipeline's denoiser, and the second one of models that have two."""
    denoisers = [getattr(pipeline, name, None) for name in (family.denoiser, f"{family.denoiser}_2")]
    return [denoiser for denoiser in denoisers if denoiser is not None]


def accelerate(pipeline: Any, family: Family, options: Model, device: str) -> None:
    """Set up a model that was just loaded.

    Raises:
        ModelLoadFailed: When this machine cannot compile, or lacks the package of the attention's backend.
    """
    if options.attention_backend:
        _check_backend(options.attention_backend)
    if options.compile:
        from torch._dynamo import config

        config.recompile_limit = max(config.recompile_limit, RECOMPILES_MAX)
    for denoiser in denoisers_of(pipeline, family):
        if options.channels_last:
            denoiser.to(memory_format=torch.channels_last)
            pipeline.vae.to(memory_format=torch.channels_last)
        if options.compile:
            denoiser.requires_grad_(requires_grad=False)  # a LoRA does so: what was compiled before it still fits
            _check_compiler(device, str(options.compile).lower())
        if options.compile == "whole":
            denoiser.forward = torch.compile(denoiser.forward)
        elif options.compile:
            denoiser.compile_repeated_blocks()
    if options.compile == "whole" and hasattr(pipeline.vae, "decoder"):
        pipeline.vae.decoder.forward = torch.compile(pipeline.vae.decoder.forward)


def _check_backend(name: str) -> None:
    """Refuse a backend whose package is not here when the model is loaded, not when each row is made."""
    try:
        with attention_backend(name):
            pass
    except (RuntimeError, ImportError, ValueError) as error:
        raise ModelLoadFailed(f"attention_backend: {name} cannot be used on this machine: {error}") from error


def _check_compiler(device: str, asked: str) -> None:
    from torch._inductor.cpp_builder import get_cpp_compiler
    from torch._inductor.exc import InvalidCxxCompiler

    try:
        get_cpp_compiler()
    except InvalidCxxCompiler as error:
        raise ModelLoadFailed(
            f"compile: {asked} needs a C++ compiler on every worker ({device}); none of g++ and clang++ is installed"
        ) from error


def compile_counts() -> dict[str, int]:
    """Return how many graphs this process compiled anew, and how many it found compiled on disk."""
    from torch._dynamo.utils import counters

    inductor = counters["inductor"]
    return {"compiled": inductor["fxgraph_cache_miss"], "found": inductor["fxgraph_cache_hit"]}


def recompile_limits() -> int:
    """Return how often torch gave up compiling a block anew in this process; such a block runs as it is, slowly."""
    if "torch._dynamo" not in sys.modules:
        return 0
    from torch._dynamo.utils import counters

    return sum(count for text, count in counters["unimplemented"].items() if text.startswith(_LIMIT_EXCEEDED))


@contextmanager
def accelerated(pipeline: Any, family: Family, options: Model, recipe: Recipe) -> Iterator[None]:
    """Let a pipeline run with a job's accelerators while the block runs.

    Args:
        pipeline: Pipeline that will be called.
        family: Family of the model.
        options: The job's entry of the model.
        recipe: A recipe of the call; what is read of it is equal in all rows.
    """
    with ExitStack() as stack:
        if options.attention_backend:
            stack.enter_context(attention_backend(options.attention_backend))
        for denoiser in denoisers_of(pipeline, family):
            if options.step_cache:
                stack.enter_context(_step_cache(denoiser, options, _steps(recipe)))
            if options.guidance_interval:
                route = _PARTLY_GUIDED[family.cfg_layout]
                partly = route(denoiser.forward, pipeline, options.guidance_interval)
                stack.enter_context(forward_replaced(denoiser, partly))
        yield


def _steps(recipe: Recipe) -> int:
    return max(1, int(recipe.num_inference_steps * (1.0 if recipe.strength is None else recipe.strength)))


@contextmanager
def _step_cache(denoiser: Any, options: Model, steps: int) -> Iterator[None]:
    cache = options.step_cache
    assert cache is not None
    more = {"num_inference_steps": steps} if cache.kind == "MagCache" else {}
    denoiser.enable_cache(getattr(diffusers, f"{cache.kind}Config")(**cache.options(), **more))
    try:
        yield
    finally:
        denoiser.disable_cache()


@contextmanager
def forward_replaced(denoiser: Any, forward: Callable[..., Any]) -> Iterator[None]:
    """Let a denoiser run by another `forward` while the block runs."""
    before = vars(denoiser).get("forward")
    denoiser.forward = forward
    try:
        yield
    finally:
        if before is None:
            del denoiser.forward
        else:  # diffusers had put a hook there, such as that of a storage type
            denoiser.forward = before


class _PartlyGuided:
    """Replaces a denoiser's `forward`, and leaves guidance out of steps outside an interval.

    In these steps the pipeline gets the prompt's prediction twice, which guidance of any strength does not change.

    Args:
        forward: The denoiser's own `forward`.
        pipeline: Pipeline whose scheduler has the steps.
        interval: First and last guided share of the steps, 0..1.
    """

    def __init__(self, forward: Callable[..., Any], pipeline: Any, interval: tuple[float, float]) -> None:
        self._forward = forward
        self._pipeline = pipeline
        self._interval = interval

    def _is_guided(self, timestep: torch.Tensor) -> bool:
        timesteps = self._pipeline.scheduler.timesteps
        step = int((timesteps - timestep.max().to(timesteps.device)).abs().argmin())
        first, last = self._interval
        return first * len(timesteps) <= step < last * len(timesteps)


class _Halves(_PartlyGuided):
    """For denoisers whose pass has every row twice, first without the prompt: only the second half is computed.

    A UNet that reads guidance as an input (LCM) has every row once, however strong guidance is.
    """

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        sample = args[0] if args else kwargs["hidden_states"]
        timestep = kwargs["timestep"] if "timestep" in kwargs else args[1]
        is_doubled = self._pipeline.guidance_scale > 1 and getattr(self._pipeline, "do_classifier_free_guidance", True)
        if not is_doubled or self._is_guided(timestep):
            return self._forward(*args, **kwargs)
        rows = len(sample)
        named = {name: _latter(value, rows, name) for name, value in kwargs.items()}
        output = self._forward(*(_latter(value, rows) for value in args), **named)
        if isinstance(output, tuple):
            return (torch.cat([output[0], output[0]]),)
        return type(output)(sample=torch.cat([output.sample, output.sample]))


class _Passes(_PartlyGuided):
    """For denoisers with one pass with the prompt and one without it per step: the second pass is left out."""

    def __init__(self, forward: Callable[..., Any], pipeline: Any, interval: tuple[float, float]) -> None:
        super().__init__(forward, pipeline, interval)
        self._last: tuple[float, Any] | None = None

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        time = float(kwargs["timestep"].max())
        if self._last is not None and self._last[0] == time and not self._is_guided(kwargs["timestep"]):
            return self._last[1]
        output = self._forward(*args, **kwargs)
        self._last = (time, output)
        return output


def _latter(value: Any, rows: int, name: str = "") -> Any:
    """Return the second half of every value, at any depth, that has an entry per row of the pass (texts: per frame)."""
    if isinstance(value, torch.Tensor):
        entries = len(value) if value.ndim else 0
        is_by_row = entries == rows or (name == "encoder_hidden_states" and entries % rows == 0)
        return value[entries // 2 :] if is_by_row else value
    if isinstance(value, dict):
        return {key: _latter(member, rows) for key, member in value.items()}
    if isinstance(value, list | tuple) and name != "image_rotary_emb":  # that one has an entry per token
        return type(value)(_latter(member, rows) for member in value)
    return value


_PARTLY_GUIDED: Final[Mapping[str, type[_Halves | _Passes]]] = {"halves": _Halves, "passes": _Passes}
"""Classes by `Family.cfg_layout`."""
