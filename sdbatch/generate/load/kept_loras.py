"""Keeps the LoRAs of a model attached, within a bound of bytes; the one that was unused for longest goes first.

a recipe's loras --> attached where they are not --> switched on, all others off --> those over the bound detached
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from sdbatch.errors import LoraRefused, ModelLoadFailed
from sdbatch.generate.load.loras import LoraFile, adapter_bytes, attach_lora, detach_lora

LORA_BYTES_MAX: Final = 1 << 30
"""Bytes of attached LoRAs beside a model: five of SDXL, or two of Flux. Those of one row stay, however large."""


class KeptLoras:
    """The LoRAs that a model can be given. They are never fused with its weights, which stay as they were read.

    Attributes:
        bytes_max: Bytes of LoRAs that stay attached.

    Args:
        pipeline: Pipeline whose components take them.
        files: By identity, the LoRAs that were made for the model's family.
        before_attach: Called before one is attached.
    """

    def __init__(self, pipeline: Any, files: Mapping[str, LoraFile], before_attach: Callable[[], None]) -> None:
        self.bytes_max = LORA_BYTES_MAX
        self._pipeline = pipeline
        self._files = files
        self._before_attach = before_attach
        self._attached: OrderedDict[str, int] = OrderedDict()
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
        for revision, _ in loras:
            if revision not in self._attached:
                self._attach(revision)
            self._attached.move_to_end(revision)
        self._drop(num_used=len(loras))
        if loras:
            self._pipeline.enable_lora()
            self._pipeline.set_adapters([revision for revision, _ in loras], [weight for _, weight in loras])
            self._is_on = True
        elif self._is_on:
            self._pipeline.disable_lora()
            self._is_on = False

    def _attach(self, revision: str) -> None:
        """Attach a LoRA, once; one that was refused stays refused as long as the model is in memory."""
        if revision in self._refused:
            raise LoraRefused(self._refused[revision])
        lora = self._files.get(revision)
        if lora is None:
            raise ModelLoadFailed(f"none of the job's loras is what was planned: revision {revision}")
        self._before_attach()
        self._is_on = self._was_attached  # a load that fails in the middle may leave an older one switched on
        try:
            attach_lora(self._pipeline, lora, revision)
        except LoraRefused as error:
            self._refused[revision] = str(error)
            raise
        self._attached[revision] = adapter_bytes(self._pipeline, revision)
        self._is_on = self._was_attached = True

    def _drop(self, num_used: int) -> None:
        """Detach what is over the bound; the last `num_used` are asked for."""
        while self.num_bytes > self.bytes_max and len(self._attached) > num_used:
            revision, _ = self._attached.popitem(last=False)
            detach_lora(self._pipeline, revision)
