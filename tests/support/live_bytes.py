"""The bytes of tensors that are alive."""

from __future__ import annotations

import contextlib
import gc

import torch


def live_bytes(weights: frozenset[int]) -> int:
    """Return the bytes of all tensors that Python holds, weights left out, each storage once."""
    storages = {}
    for one in gc.get_objects():
        # Not subclasses: what the compiler traced with in other tests of this process has no storage.
        if type(one) in {torch.Tensor, torch.nn.Parameter}:
            with contextlib.suppress(RuntimeError):  # nor have sparse and functional ones
                storage = one.untyped_storage()
                if one.device.type == "cpu" and storage.data_ptr() not in weights:
                    storages[storage.data_ptr()] = storage.nbytes()
    return sum(storages.values())
