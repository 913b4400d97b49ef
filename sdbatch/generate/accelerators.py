"""What a job may ask for beyond diffusers' own way of running a model; all of it is off by default.

accelerate()   once, when the model is loaded: memory format, storage type, compiled blocks
accelerated()  around a call: attention backend, cache of steps, steps without guidance
"""

# B rows of a call; a pass sees 2B where rows are guided.

from __future__ import annotations

import os
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
from sdbatch.storage.cache import cache_folder

COMPILED_FOLDER: Final = "compiled"
"""In the cache folder: kernels, shared by a node's workers and by runs."""


def keep_compiled() -> None:
    """Let torch keep compiled kernels in the cache folder. It reads the environment: for a worker's own process."""
    os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", str(cache_folder() / COMPILED_FOLDER))


def denoisers_of(pipeline: Any, family: Family) -> list[Any]:
    """Return a pipeline's denoiser, and the second one of models that have two."""
    found = [getattr(pipeline, name, None) for name in (family.denoiser, f"{family.denoiser}_2")]
    return [denoiser for denoiser in found if denoiser is not None]


def accelerate(pipeline: Any, family: Family, options: Model, device: str) -> None:
    """Set up a model that was just loaded.

    Raises:
        ModelLoadFailed: When this machine cannot compile.
    """
    for denoiser in denoisers_of(pipeline, family):
        if options.channels_last:
            denoiser.to(memory_format=torch.channels_last)
            pipeline.vae.to(memory_format=torch.channels_last)
        if options.layerwise_casting:
            stored = getattr(torch, options.layerwise_casting)
            denoiser.enable_layerwise_casting(storage_dtype=stored, compute_dtype=denoiser.dtype)
        if options.compile:
            _check_compiler(device)
            denoiser.compile_repeated_blocks()


def _check_compiler(device: str) -> None:
    from torch._inductor.cpp_builder import get_cpp_compiler
    from torch._inductor.exc import InvalidCxxCompiler

    try:
        get_cpp_compiler()
    except InvalidCxxCompiler as error:
        raise ModelLoadFailed(
            f"compile: true needs a C++ compiler on every worker ({device}); none of g++ and clang++ is installed"
        ) from error


def compile_counts() -> dict[str, int]:
    """Return how many graphs this process compiled anew, and how many it found compiled on disk."""
    from torch._dynamo.utils import counters

    inductor = counters["inductor"]
    return {"compiled": inductor["fxgraph_cache_miss"], "found": inductor["fxgraph_cache_hit"]}


@contextmanager
def accelerated(pipeline: Any, family: Family, options: Model, recipe: Recipe) -> Iterator[None]:
    """Let a pipeline run with a job's accelerators while the block runs.

    Args:
        pipeline: To be called.
        family: Its family.
        options: The job's entry of the model.
        recipe: That the rows of the call have in common.
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
                stack.enter_context(_forward(denoiser, partly))
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
def _forward(denoiser: Any, forward: Callable[..., Any]) -> Iterator[None]:
    before = vars(denoiser).get("forward")
    denoiser.forward = forward
    try:
        yield
    finally:
        if before is None:
            del denoiser.forward
        else:  # a hook of diffusers, such as a storage type's, stands there too
            denoiser.forward = before


class _PartlyGuided:
    """Stands in for a denoiser's `forward`, and leaves guidance out of steps outside an interval.

    There the pipeline is given the prompt's prediction for both, which guidance of any strength leaves as it is.

    Args:
        forward: The denoiser's own.
        pipeline: Whose scheduler has the steps.
        interval: First and last guided part of them, 0..1.
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
    """Rows stand twice in a pass, without the prompt first: the latter half alone is computed."""

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        sample = args[0] if args else kwargs["hidden_states"]
        timestep = kwargs["timestep"] if "timestep" in kwargs else args[1]
        if not self._pipeline.guidance_scale > 1 or self._is_guided(timestep):
            return self._forward(*args, **kwargs)
        rows = len(sample)
        named = {name: _latter(value, rows, name) for name, value in kwargs.items()}
        made = self._forward(*(_latter(value, rows) for value in args), **named)
        if isinstance(made, tuple):
            return (torch.cat([made[0], made[0]]),)
        return type(made)(sample=torch.cat([made.sample, made.sample]))


class _Passes(_PartlyGuided):
    """A pass with the prompt and one without it a step: the second one is not made."""

    def __init__(self, forward: Callable[..., Any], pipeline: Any, interval: tuple[float, float]) -> None:
        super().__init__(forward, pipeline, interval)
        self._made: tuple[float, Any] | None = None

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        time = float(kwargs["timestep"].max())
        if self._made is not None and self._made[0] == time and not self._is_guided(kwargs["timestep"]):
            return self._made[1]
        made = self._forward(*args, **kwargs)
        self._made = (time, made)
        return made


def _latter(value: Any, rows: int, name: str = "") -> Any:
    """Return the latter half of what has an entry for each row of the pass, at any depth; of texts, for each frame."""
    if isinstance(value, torch.Tensor):
        entries = len(value) if value.ndim else 0
        is_by_row = entries == rows or (name == "encoder_hidden_states" and entries % rows == 0)
        return value[entries // 2 :] if is_by_row else value
    if isinstance(value, dict):
        return {key: _latter(member, rows) for key, member in value.items()}
    if isinstance(value, list | tuple) and name != "image_rotary_emb":  # that one has an entry a token
        return type(value)(_latter(member, rows) for member in value)
    return value


_PARTLY_GUIDED: Final[Mapping[str, type[_Halves | _Passes]]] = {"halves": _Halves, "passes": _Passes}
"""By `Family.cfg_layout`."""
