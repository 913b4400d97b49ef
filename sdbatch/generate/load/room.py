"""Refuses a model that cannot fit this machine, before any of its weights are read.

ModelInfo + parameters from the files' headers --> bytes on the device, bytes in host memory --> what there is
"""

from __future__ import annotations

from sdbatch.checkpoints import ModelInfo
from sdbatch.checkpoints.fits import CONTEXT_BYTES, kept_on_host, resident_bytes, weight_bytes
from sdbatch.checkpoints.module_weights import module_parameters
from sdbatch.errors import ModelLoadFailed
from sdbatch.generate.memory import device_total, host_total


def refuse_without_room(model: ModelInfo, device: str) -> None:
    """Refuse a model whose weights alone are more than the device, or host memory, can hold.

    What rows will ask for is not known yet, and a neighbour may leave: so weights are compared with what the machine
    has in all. A model that fits barely is found out by its first call.

    Raises:
        ModelLoadFailed: With what it needs and what there is.
    """
    parameters = module_parameters(model)
    weights = weight_bytes(model, parameters)
    needed = resident_bytes(model, parameters)
    on_host = kept_on_host(model, weights)
    said = f"{model.path}: its weights take {_gib(sum(weights.values()))}"
    if device == "cuda":
        total, name = device_total()
        if needed + CONTEXT_BYTES > total:
            raise ModelLoadFailed(
                f"{said}, of which {_gib(needed)} must lie on the GPU at a time, and {name} has {_gib(total)}; "
                "offload: group, quantize or layerwise_casting make it smaller there"
            )
    else:
        on_host = sum(weights.values())
    if on_host > host_total():
        raise ModelLoadFailed(
            f"{said}, of which {_gib(on_host)} must lie in host memory, and this machine has {_gib(host_total())}; "
            "quantize, or a dtype of 16 bits, make it smaller"
        )


def weights_in_words(model: ModelInfo) -> str:
    """Return what a model's weights take."""
    return f"its weights of {_gib(sum(weight_bytes(model, module_parameters(model)).values()))}"


def _gib(num_bytes: float) -> str:
    return f"{num_bytes / 2**30:.2f} GiB"
