"""Gives back the memory of what is no longer used: a call that failed, a model that was replaced."""

from __future__ import annotations

import gc
import sys

import torch


def release_memory(*, with_compiled: bool = False) -> None:
    """Free what nothing refers to any longer, cycles too, and return a GPU's unused blocks to its driver.

    Modules of diffusers and peft refer to themselves (hooks, adapters), and live on until cycles are looked for.

    Args:
        with_compiled: Whether compiled code is dropped as well; torch keeps it, and the modules it was made for.
    """
    if with_compiled and "torch._dynamo" in sys.modules:
        torch.compiler.reset()
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
