"""Puts a model that was read on its device: all of it, or what is called while it is called.

    modules in host memory --> stored in 8 bits? --> none: each on the device
                                                     model: hooks that bring a whole module and take it back
                                                     group: hooks that bring and take back single layers

Offloaded modules are moved by their hooks alone. Nothing else may move them: neither `to` nor the memo.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Literal

import torch
from diffusers.hooks import apply_group_offloading
from diffusers.hooks.group_offloading import _is_group_offload_enabled

from sdbatch.checkpoints.fits import GROUPED
from sdbatch.families import Family
from sdbatch.generate.accelerators import accelerate, denoisers_of
from sdbatch.job import Model

Device = Literal["cuda", "cpu"]


def reads_to_device(options: Model) -> bool:
    """Return whether each module can be put on the device as it is read, so that host memory holds one at a time."""
    is_changed_on_host = options.layerwise_casting is not None or bool(options.quantized)
    return options.offload == "none" and not options.offload_text_encoder and not is_changed_on_host


def place(pipeline: Any, components: Mapping[str, Any], family: Family, options: Model, device: Device) -> None:
    """Put a model on its device and set up its accelerators.

    Args:
        pipeline: Pipeline in host memory, or on the device already.
        components: Further modules, by name.
        family: Family of the model.
        options: The job's entry.
        device: Device that computes.

    Raises:
        ModelLoadFailed: When this machine cannot compile.
    """
    cast_layers(pipeline, family, options)
    for name, module in (*pipeline.components.items(), *components.items()):
        if isinstance(module, torch.nn.Module) and not _is_kept_on_host(name, options):
            module.to(device)
    if options.offload == "group":
        offload_groups({**pipeline.components, **components}, device)
    accelerate(pipeline, family, options, device)


def cast_layers(pipeline: Any, family: Family, options: Model) -> None:
    """Store a denoiser's weights in 8 bits, before they are placed: a model that fits in 8 bits alone must fit then."""
    if options.layerwise_casting is None:
        return
    stored = getattr(torch, options.layerwise_casting)
    for denoiser in denoisers_of(pipeline, family):
        denoiser.enable_layerwise_casting(storage_dtype=stored, compute_dtype=denoiser.dtype)


def _is_kept_on_host(name: str, options: Model) -> bool:
    """Whether a module stays in host memory when a model is placed."""
    if options.offload == "group":
        return name.startswith(GROUPED)
    return options.offload == "model" or (options.offload_text_encoder and name.startswith("text_encoder"))


def offload_groups(modules: Mapping[str, Any], device: Device) -> None:
    """Let the layers of modules visit the device when they are called; modules that do so already are left alone.

    On a GPU the next layer is copied while one computes.
    """
    for name, module in modules.items():
        if not name.startswith(GROUPED) or not isinstance(module, torch.nn.Module) or _is_group_offload_enabled(module):
            continue
        # A text encoder runs once a call, and its layers share weights, of which a stream would keep two copies.
        is_streamed = device == "cuda" and not name.startswith("text_encoder")
        apply_group_offloading(
            module, torch.device(device), offload_type="leaf_level", use_stream=is_streamed, non_blocking=is_streamed
        )


class ModelOffload:
    """Brings whole modules of a model to the device while they are called, for one of its pipelines at a time.

    Args:
        device: Device that computes.
    """

    def __init__(self, device: Device) -> None:
        self._device = device
        self._hooked: Any = None

    def hook(self, pipeline: Any) -> None:
        """Let a pipeline's modules be brought and taken back in its order; they may have been another one's."""
        if self._hooked is not pipeline:
            self.unhook()
            pipeline.enable_model_cpu_offload(device=self._device)
            self._hooked = pipeline

    def unhook(self) -> None:
        """Leave all modules in host memory, without hooks."""
        if self._hooked is not None:
            take_back(self._hooked)
            self._hooked.remove_all_hooks()
            self._hooked = None


@contextmanager
def offloading(pipeline: Any, options: Model) -> Iterator[None]:
    """Take back what a call has brought to the device, however it ends, once nothing replaces a method any longer.

    A pipeline does so itself at the end of a call that went well, by new hooks: they would drop what stands in the
    place of a `forward`.
    """
    if options.offload != "model":
        yield
        return
    pipeline.maybe_free_model_hooks = _later
    try:
        yield
    finally:
        del pipeline.maybe_free_model_hooks
        take_back(pipeline)


def take_back(pipeline: Any) -> None:
    """Take every offloaded module of a pipeline back to host memory."""
    for hook in getattr(pipeline, "_all_hooks", []):
        hook.offload()


def _later() -> None:
    """Stand in the place of `maybe_free_model_hooks` while a call runs."""
