"""Attaches a LoRA to a model in memory, whole or not at all.

LoraFile --> diffusers' loader, its keys compared before and after --> attached, or LoraRefused with the LoRA's name
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError

from sdbatch.errors import LoraRefused, ModelLoadFailed
from sdbatch.generate.faults import failure_kind
from sdbatch.generate.load.lora_keys import (
    CONVERSION_ERRORS,
    LoraMisfit,
    LoraReader,
    Misfits,
    components_of,
    said_in_a_line,
)

LOG = logging.getLogger("sdbatch.generate")


@dataclass(frozen=True, slots=True, kw_only=True)
class LoraFile:
    """A LoRA of the job that fits a model's family.

    Attributes:
        name: Name in the job.
        path: File of weights on this machine.
        is_partial_allowed: Whether it is applied though some of its keys fit nothing.
        is_second: Whether it is for the second denoiser.
    """

    name: str
    path: Path
    is_partial_allowed: bool = False
    is_second: bool = False


def attach_lora(pipeline: Any, lora: LoraFile, adapter: str) -> None:
    """Attach a LoRA to a pipeline's denoiser and text encoders, switched on.

    Args:
        pipeline: Pipeline whose components take it.
        lora: What to attach.
        adapter: Name that it is switched by.

    Raises:
        LoraRefused: When some of it fits nothing, unless the job allows that; the model is as it was before.
        ModelLoadFailed: When its file cannot be read.
    """
    hint = ""
    reader = LoraReader(pipeline, is_partial_allowed=lora.is_partial_allowed, is_second=lora.is_second)
    into_second = {"load_into_transformer_2": True} if lora.is_second else {}
    pipeline.lora_state_dict = reader
    try:
        pipeline.load_lora_weights(
            str(lora.path.parent),
            weight_name=lora.path.name,
            adapter_name=adapter,
            use_safetensors=True,
            **into_second,
        )
        reason = _fault_after(reader, adapter)
    except LoraMisfit as error:
        reason = str(error)
        if error.can_be_partial:
            hint = f"; loras.{lora.name}.partial: allow applies the rest"
    except OSError as error:
        raise ModelLoadFailed(f"LoRA {lora.name} ({lora.path.name}) cannot be read: {error}") from error
    except (*CONVERSION_ERRORS, SafetensorError) as error:
        if failure_kind(error) != "Raised":  # the device's matter, not the file's
            raise
        reason = said_in_a_line(error)
    finally:
        del pipeline.lora_state_dict
    if reason:
        detach_lora(pipeline, adapter)
        raise LoraRefused(f"LoRA {lora.name} ({lora.path.name}) is not applied: {reason}{hint}")
    reader.set_scales(adapter)
    if reader.misfits:
        LOG.warning("lora applied in part", extra={"lora": lora.name, "left_out": str(reader.misfits)})


def _fault_after(reader: LoraReader, adapter: str) -> str:
    """Return what is wrong with a LoRA that was loaded, "" for nothing."""
    if reader.misfits is None:
        return "diffusers' loader did not read its keys"
    unattached = reader.unattached(adapter)
    return str(Misfits(num_keys=reader.misfits.num_keys, unattached=unattached)) if unattached else ""


def detach_lora(pipeline: Any, adapter: str) -> None:
    """Remove a LoRA, or what a load that failed has left of one, from the components; their weights stay as they are.

    `delete_adapters` would leave the configuration of a text encoder behind, by whose name the next load is refused.
    """
    from diffusers.hooks.group_offloading import _maybe_remove_and_reapply_group_offloading
    from diffusers.utils.peft_utils import delete_adapter_layers
    from peft.tuners.tuners_utils import BaseTunerLayer

    for module in components_of(pipeline).values():
        for layer in module.modules():
            if isinstance(layer, BaseTunerLayer):  # peft would switch on another one in its place
                layer.set_adapter([name for name in layer.active_adapters if name != adapter])
        delete_adapter_layers(module, adapter)
        getattr(module, "peft_config", {}).pop(adapter, None)
        _maybe_remove_and_reapply_group_offloading(module)  # its hooks hold the layers that were removed


def adapter_bytes(pipeline: Any, adapter: str) -> int:
    """Return the bytes of a LoRA's weights in the components of a pipeline."""
    return sum(
        weight.nbytes
        for module in components_of(pipeline).values()
        for name, weight in (*module.named_parameters(), *module.named_buffers())
        if f".{adapter}" in name
    )
