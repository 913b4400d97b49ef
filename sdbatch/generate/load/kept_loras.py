"""Keeps the LoRAs of a model attached, within a bound of bytes; the one that was unused for longest goes first.

a recipe's loras --> attached where they are not --> switched on, all others off --> those over the bound detached

A compiled model would be compiled anew for every name, rank and weight of a LoRA. There they are swapped instead: each
takes the place of the one before under one name, padded to the largest rank so far, and weights are tensors.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import torch

from sdbatch.errors import LoraRefused, ModelLoadFailed
from sdbatch.generate.load.loras import LoraFile, adapter_bytes, attach_lora, detach_lora

LORA_BYTES_MAX: Final = 1 << 30
"""Bytes of attached LoRAs beside a model: five of SDXL, or two of Flux. Those of one row stay, however large."""


class KeptLoras:
    """The LoRAs that a model can be given. They are never fused with its weights, which stay as they were read.

    Attributes:
        bytes_max: Bytes of LoRAs that stay attached. A compiled model keeps as many as its row with the most has.

    Args:
        pipeline: Pipeline whose components take them.
        files: By identity, the LoRAs that were made for the model's family.
        before_attach: Called before one is attached.
        compiled: Modules of the pipeline that are compiled.
    """

    def __init__(
        self,
        pipeline: Any,
        files: Mapping[str, LoraFile],
        before_attach: Callable[[], None],
        compiled: Sequence[torch.nn.Module] = (),
    ) -> None:
        self.bytes_max = LORA_BYTES_MAX
        self._pipeline = pipeline
        self._files = files
        self._before_attach = before_attach
        self._compiled = compiled
        self._attached: OrderedDict[str, int] = OrderedDict()
        self._held: dict[str, str] = {}
        self._rank_max = 0
        self._refused: dict[str, str] = {}
        self._is_on = False
        self._was_attached = False

    @property
    def num_bytes(self) -> int:
        """Bytes of all that are attached."""
        return sum(self._attached.values())

    def switch(self, loras: Sequence[Sequence[Any]]) -> None:
        """Switch on the LoRAs of a recipe, as (identity, weight), and every other one off.

        Raises:
            ModelLoadFailed: When one is no longer what was planned.
            LoraRefused: When some of one fits nothing in the model.
        """
        names = [self._place(revision, number) for number, (revision, _) in enumerate(loras)]
        self._drop(num_used=len(loras))
        if loras:
            self._pipeline.enable_lora()
            self._pipeline.set_adapters(names, [weight for _, weight in loras])
            self._is_on = True
            for module in self._compiled:
                self._make_swappable(module)
        elif self._is_on:
            self._pipeline.disable_lora()
            self._is_on = False

    def _place(self, revision: str, number: int) -> str:
        """Attach a LoRA where it is not, and return the name it is attached under."""
        name = f"lora_{number}" if self._compiled else revision
        if self._held.get(name, revision) != revision:
            del self._held[name], self._attached[name]
            detach_lora(self._pipeline, name)
        if name not in self._attached:
            self._attach(revision, name)
            self._held[name] = revision
        self._attached.move_to_end(name)
        return name

    def _make_swappable(self, module: torch.nn.Module) -> None:
        """Give all LoRAs of a module one rank and order, and weights that a graph reads instead of holding them."""
        from peft.tuners.lora import LoraLayer
        from peft.utils.hotswap import prepare_model_for_compiled_hotswap

        layers = [one for one in module.modules() if isinstance(one, LoraLayer)]
        if layers:
            ranks = [rank for one in layers for rank in one.r.values()]
            self._rank_max = max(self._rank_max, *ranks)
            prepare_model_for_compiled_hotswap(module, target_rank=self._rank_max, check_compiled="ignore")
        for layer in layers:
            for named in (layer.lora_A, layer.lora_B, layer.lora_dropout, layer.scaling):
                in_order = dict(sorted(named.items()))
                named.clear()
                named.update(in_order)
        module.requires_grad_(requires_grad=False)  # peft asks for gradients of those that are switched on

    def _attach(self, revision: str, name: str) -> None:
        """Attach a LoRA, once; one that was refused stays refused as long as the model is in memory."""
        if revision in self._refused:
            raise LoraRefused(self._refused[revision])
        lora = self._files.get(revision)
        if lora is None:
            raise ModelLoadFailed(f"none of the job's loras is what was planned: revision {revision}")
        self._before_attach()
        self._is_on = self._was_attached  # a load that fails in the middle may leave an older one switched on
        try:
            attach_lora(self._pipeline, lora, name)
        except LoraRefused as error:
            self._refused[revision] = str(error)
            raise
        self._attached[name] = adapter_bytes(self._pipeline, name)
        self._is_on = self._was_attached = True

    def _drop(self, num_used: int) -> None:
        """Detach what is over the bound; the last `num_used` are asked for."""
        while self.num_bytes > self.bytes_max and len(self._attached) > num_used:
            name, _ = self._attached.popitem(last=False)
            del self._held[name]
            detach_lora(self._pipeline, name)
