"""Changes what a scheduler does while a call runs and no longer: where it begins, and whose noise it draws."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import wraps
from inspect import signature
from typing import Any

import torch

from sdbatch.families import Route
from sdbatch.recipe import Recipe


@contextmanager
def begun_at_first_step(pipeline: Any, route: Route, recipe: Recipe) -> Iterator[None]:
    """Tell a scheduler with options that a call begins at its first step, whenever its steps are set.

    It would look its first step up by timestep. Karras noise levels over a cosine schedule give two steps one timestep,
    the second one is taken, and the last step is one too many (diffusers 0.42.1). Image-to-image says itself where it
    begins.
    """
    scheduler = pipeline.scheduler
    is_whole = "strength" not in route.arguments and hasattr(scheduler, "set_begin_index")
    if not is_whole or not recipe.more.get("scheduler_options"):
        yield
        return
    own = type(scheduler).set_timesteps

    @wraps(own)
    def set_timesteps(self: Any, *args: Any, **kwargs: Any) -> None:
        own(self, *args, **kwargs)
        self.set_begin_index(0)

    with _with_method(scheduler, set_timesteps):
        yield


@contextmanager
def noise_of_rows(pipeline: Any, generator: torch.Generator | Sequence[torch.Generator]) -> Iterator[None]:
    """Let a scheduler that draws noise in its steps draw each row's from that row's generator.

    Most pipelines of flow models hand none to `step` (diffusers 0.42.1), so that a scheduler with `stochastic_sampling`
    or of consistency models would draw one noise for the whole call, and a row would depend on its neighbours.
    """
    own = type(pipeline.scheduler).step
    if "generator" not in signature(own).parameters:
        yield
        return

    @wraps(own)
    def step(self: Any, *args: Any, **kwargs: Any) -> Any:
        if kwargs.get("generator") is None:
            kwargs["generator"] = generator
        return own(self, *args, **kwargs)

    with _with_method(pipeline.scheduler, step):
        yield


@contextmanager
def _with_method(scheduler: Any, method: Callable[..., Any]) -> Iterator[None]:
    """Put a method in place of the class's own of that name.

    It stands in a class, not in the object: a pipeline of clips with sound copies its scheduler for the sound, and
    a copy's own attribute would still change the first one.
    """
    plain = type(scheduler)
    scheduler.__class__ = type(plain.__name__, (plain,), {"__module__": plain.__module__, method.__name__: method})
    try:
        yield
    finally:
        scheduler.__class__ = plain
