"""Counts the bytes of tensors that are alive while a block runs, on any device, the meta device too.

every operation --> storages of its outputs, each once, until nothing refers to them --> most bytes at a time
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class LiveBytes(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts the storages that operations of the block make; what was there before it counts nothing.

    What an operation takes and gives back inside itself is not seen: workspaces of a convolution or an attention.

    Attributes:
        live: Bytes that are alive, as of the last operation.
        peak: Most bytes that were alive at a time.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.live = 0
        self.peak = 0
        self._storages: dict[int, tuple[StorageWeakRef, int]] = {}
        self._inputs: dict[int, StorageWeakRef] = {}

    def __torch_dispatch__(
        self, func: Any, types: Sequence[type], args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        for tensor in tree_leaves((args, kwargs)):
            if isinstance(tensor, torch.Tensor):
                self._note_input(tensor)
        output = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(output):
            if isinstance(tensor, torch.Tensor):
                self._add(tensor.untyped_storage())
        if self.live > self.peak:  # what is gone is looked for where it matters alone
            self._forget()
            self.peak = max(self.peak, self.live)
        return output

    def _note_input(self, tensor: torch.Tensor) -> None:
        """Remember a storage that was there before the block, so that a view of it does not count as made by it."""
        reference = StorageWeakRef(tensor.untyped_storage())  # type: ignore[no-untyped-call]
        if reference.cdata not in self._storages:
            self._inputs[reference.cdata] = reference

    def _add(self, storage: Any) -> None:
        # A reference keeps the place of its storage, so that no later one is taken for it.
        reference = StorageWeakRef(storage)  # type: ignore[no-untyped-call]
        if reference.cdata not in self._storages and reference.cdata not in self._inputs:
            self._storages[reference.cdata] = (reference, storage.nbytes())
            self.live += storage.nbytes()

    def _forget(self) -> None:
        for place, (reference, num_bytes) in list(self._storages.items()):
            if reference.expired():  # type: ignore[no-untyped-call]
                del self._storages[place]
                self.live -= num_bytes
