"""Arithmetic of `determinism: exact`: the same bits on every run of one kind of device and one set of versions."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import torch


@contextmanager
def exact_arithmetic(*, is_exact: bool, is_compiled: bool) -> Iterator[None]:
    """Choose algorithms by rule, and compute float32 in full, while the block runs; nothing is changed where not exact.

    By default cuDNN rounds float32 to TF32, and Inductor measures which way of a reduction is the fastest on this
    machine today, whose bits are others tomorrow (pytorch issue 163589). The processes that compile for it hear of that
    by the environment alone; a worker sets it when it starts (`sdbatch.worker.environment`).

    Args:
        is_exact: Whether the job asks for it.
        is_compiled: Whether the model is compiled.
    """
    if not is_exact:
        yield
        return
    matmul = torch.backends.cuda.matmul
    had_tf32 = matmul.allow_tf32
    with ExitStack() as stack:
        stack.enter_context(torch.backends.cudnn.flags(deterministic=True, benchmark=False, allow_tf32=False))
        if is_compiled:
            from torch._inductor import config

            stack.enter_context(config.patch(deterministic=True))
        matmul.allow_tf32 = False
        try:
            yield
        finally:
            matmul.allow_tf32 = had_tf32
