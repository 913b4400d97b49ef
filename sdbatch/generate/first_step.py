"""Lets a scheduler with noise levels of its own begin at its first step, while a call runs and no longer."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import wraps
from typing import Any

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
    own = scheduler.set_timesteps

    @wraps(own)
    def set_timesteps(*args: Any, **kwargs: Any) -> None:
        own(*args, **kwargs)
        scheduler.set_begin_index(0)

    scheduler.set_timesteps = set_timesteps
    try:
        yield
    finally:
        del scheduler.set_timesteps
