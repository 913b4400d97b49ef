"""Follows the tensors of a LoRA's file through diffusers' conversion.

file --> traced(): diffusers renames, splits, joins and scales --> Trace: which key went into which tensor
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Final

import torch
from diffusers.loaders import lora_pipeline
from torch.overrides import TorchFunctionMode

FETCH: Final = "_fetch_state_dict"
"""Function by which diffusers 0.42.1 reads every LoRA's file, whatever the pipeline."""

BUNDLED: Final = "bundle_emb."
"""Beginning of the keys of textual inversions that a LoRA's file brings along. They are no part of what is converted:
beside them diffusers takes kohya's names for none that it knows."""


class Trace(TorchFunctionMode):
    """Follows a file's tensors through a conversion: which of them went into which tensor.

    Attributes:
        leaves: The file's tensors by key.
        has_alphas: Whether some of them are alphas.
        read: Keys of tensors that were read as a plain number, as alphas are.
        changed: Identities of tensors that were written to in place.
    """

    def __init__(self) -> None:
        super().__init__()
        self.leaves: dict[str, torch.Tensor] = {}
        self.has_alphas = False
        self.read: set[str] = set()
        self.changed: set[int] = set()
        self._origins: dict[int, tuple[torch.Tensor, frozenset[str]]] = {}

    def begin(self, tensors: Mapping[str, Any]) -> None:
        """Take the tensors of a file."""
        self.leaves = {key: value for key, value in tensors.items() if isinstance(value, torch.Tensor)}
        self.has_alphas = any(key.endswith(".alpha") for key in self.leaves)
        # The tensors are held, so that no identity is given to another one while they are followed.
        self._origins = {id(value): (value, frozenset({key})) for key, value in self.leaves.items()}

    def keys_of(self, tensor: Any) -> frozenset[str]:
        """Return the file's keys that a tensor's values come from."""
        return self._origins[id(tensor)][1] if id(tensor) in self._origins else frozenset()

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        inputs = list(tensors_in((args, kwargs)))
        keys = frozenset().union(*(self.keys_of(tensor) for tensor in inputs))
        if keys:
            if func in _NUMBERS and len(keys) == 1 and (key := next(iter(keys))) in self.leaves:
                self.read.update({key} if inputs[0] is self.leaves[key] else ())
            for tensor in inputs[:1] if result is None else tensors_in(result):
                self.changed.update({id(tensor)} if any(tensor is one for one in inputs) else ())
                self._origins[id(tensor)] = (tensor, keys | self.keys_of(tensor))
        return result


_NUMBERS: Final = (torch.Tensor.item, torch.Tensor.tolist, torch.Tensor.__float__)


def tensors_in(value: Any) -> Iterator[torch.Tensor]:
    """Yield the tensors in a value, at any depth."""
    if isinstance(value, torch.Tensor):
        yield value
    elif isinstance(value, dict):
        yield from tensors_in(tuple(value.values()))
    elif isinstance(value, list | tuple):
        for member in value:
            yield from tensors_in(member)


@contextmanager
def traced(named: Callable[[Mapping[str, Any]], Mapping[str, Any]]) -> Iterator[Trace]:
    """Follow the tensors of the file that diffusers reads while the block runs.

    Args:
        named: Returns a file's tensors by the names that the conversion reads.
    """
    trace = Trace()
    fetch = getattr(lora_pipeline, FETCH)

    def fetch_and_follow(*args: Any, **kwargs: Any) -> Any:
        tensors, *others = fetch(*args, **kwargs)
        trace.begin(tensors)
        own = {key: value for key, value in tensors.items() if not key.startswith(BUNDLED)}
        return (dict(named(own)), *others)

    setattr(lora_pipeline, FETCH, fetch_and_follow)
    try:
        with trace:
            yield trace
    finally:
        setattr(lora_pipeline, FETCH, fetch)
