"""Text encoders that lie in host memory visit the device, once a pipeline call.

    first text of a call --> weights copied --> all its texts --> first pass of the denoiser --> device memory is free

Weights are copied from pinned memory, so that the copies overlap; a call whose texts are all known copies nothing.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch

LOG = logging.getLogger("sdbatch.generate")


class Visits:
    """The text encoders that are on the device for the running call.

    Attributes:
        copies: Times that an encoder's weights were copied to the device.

    Args:
        device: Device that computes.
    """

    def __init__(self, device: str) -> None:
        self.copies = 0
        self._device = device
        self._hosts: dict[torch.nn.Module, list[torch.Tensor]] = {}

    def forward(self, encoder: torch.nn.Module) -> Callable[..., Any]:
        """Return an encoder's `forward` that brings its weights, and what it is given, to the device first.

        Pipelines such as SDXL's send tokens to where the encoder lies when they ask for it, which is host memory.
        """
        forward = encoder.forward

        def visit(*args: Any, **kwargs: Any) -> Any:
            self._bring(encoder)
            return forward(
                *(self._on_device(value) for value in args),
                **{name: self._on_device(value) for name, value in kwargs.items()},
            )

        return visit

    def end(self) -> None:
        """Let all weights lie in host memory again, and free the device's."""
        with torch.inference_mode(False):
            for encoder, hosts in self._hosts.items():
                for weight, host in zip(_weights(encoder), hosts, strict=True):
                    weight.data = host
        self._hosts.clear()

    def _bring(self, encoder: torch.nn.Module) -> None:
        if encoder in self._hosts:
            return
        weights = _weights(encoder)
        with torch.inference_mode(False):
            hosts = [self._pinned(weight.data) for weight in weights]
            self._hosts[encoder] = hosts  # before any is copied: memory may run out on the way
            for weight, host in zip(weights, hosts, strict=True):
                weight.data = host.to(self._device, non_blocking=True, copy=True)
        self.copies += 1

    def _on_device(self, value: Any) -> Any:
        return value.to(self._device) if isinstance(value, torch.Tensor) else value

    def _pinned(self, host: torch.Tensor) -> torch.Tensor:
        """Return a weight in pinned memory, where it stays; as it is where the machine pins no more."""
        if not self._device.startswith("cuda") or host.is_pinned():
            return host
        try:
            return host.pin_memory()
        except RuntimeError as error:
            LOG.warning("not pinned", extra={"bytes": host.nbytes, "error": str(error).splitlines()[0]})
            return host


@contextmanager
def visiting(denoisers: Sequence[torch.nn.Module], device: str | None) -> Iterator[Visits | None]:
    """Let text encoders visit a device while the block runs; they leave before a denoiser runs.

    Args:
        denoisers: Those of the pipeline.
        device: The device; None where the text encoders lie on it anyway.
    """
    if device is None:
        yield None
        return
    visits = Visits(device)
    hooks = [denoiser.register_forward_pre_hook(lambda *_: visits.end()) for denoiser in denoisers]
    try:
        yield visits
    finally:
        for hook in hooks:
            hook.remove()
        visits.end()


def _weights(encoder: torch.nn.Module) -> list[torch.Tensor]:
    return [*encoder.parameters(), *encoder.buffers()]
