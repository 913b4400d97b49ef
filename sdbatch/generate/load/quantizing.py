"""Quantises the weights of a module as it is read, through diffusers' and transformers' own configurations.

job's quantize + device --> refuse_device() --> config_of() --> from_pretrained
                                                            --> refuse_unquantised(): something was quantised
"""

from __future__ import annotations

from typing import Any, Final

import diffusers
import torch
import transformers

from sdbatch.checkpoints import CPU_NEAREST, GPU_ALONE, missing_package
from sdbatch.errors import ModelLoadFailed
from sdbatch.hints import nearest
from sdbatch.job.weights import Quantize

FLOAT8_CAPABILITY: Final = (8, 9)
"""Least compute capability that multiplies 8-bit floats."""


def refuse_device(place: str, quantize: Quantize, device: str) -> None:
    """Refuse a type that this machine does not compute with.

    Raises:
        ModelLoadFailed: With the reason and the nearest that it does.
    """
    why = GPU_ALONE.get((quantize.backend, quantize.type))
    if why is not None and device == "cpu":
        raise ModelLoadFailed(f"{place}: {why}, and this worker computes on a CPU; {CPU_NEAREST}")
    if (quantize.backend, quantize.type) == ("torchao", "float8dq"):
        capability = torch.cuda.get_device_capability()
        if capability < FLOAT8_CAPABILITY:
            card = f"{torch.cuda.get_device_name()} (compute capability {capability[0]}.{capability[1]})"
            raise ModelLoadFailed(f"{place}: {why}; this is a {card}; the nearest is type: float8wo, or int8dq")
    refuse_missing(place, quantize.backend)


def refuse_missing(place: str, backend: str) -> None:
    """Refuse a backend whose Python package this machine lacks.

    Raises:
        ModelLoadFailed: With the command that installs it.
    """
    if package := missing_package(backend):
        raise ModelLoadFailed(f"{place}: needs {package}")


def config_of(quantize: Quantize, dtype: torch.dtype, *, is_diffusers: bool) -> Any:
    """Return the configuration by which a library quantises a module that it reads.

    Args:
        quantize: The job's.
        dtype: Numbers that the module is run in.
        is_diffusers: Whether diffusers reads it, and not transformers.
    """
    library = diffusers if is_diffusers else transformers
    skipped = list(quantize.skip_modules) or None
    if quantize.backend == "torchao":
        return library.TorchAoConfig(_torchao_type(quantize.type), modules_to_not_convert=skipped)
    if quantize.backend == "quanto":
        key = "weights_dtype" if is_diffusers else "weights"
        return library.QuantoConfig(**{key: quantize.type}, modules_to_not_convert=skipped)
    if quantize.type == "int8":
        return library.BitsAndBytesConfig(load_in_8bit=True, llm_int8_skip_modules=skipped)
    return library.BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type=quantize.type,
        bnb_4bit_compute_dtype=dtype,
        llm_int8_skip_modules=skipped,
    )


def quantise(module: torch.nn.Module, quantize: Quantize) -> None:
    """Quantise a module in place, as `config_of` would have it.

    diffusers' `from_single_file` takes weights that it is to quantise for quantised ones, and leaves them as they are
    (0.42.1); `transformers` reads no file alone.
    """
    skipped = [*quantize.skip_modules, *(getattr(module, "_keep_in_fp32_modules", None) or ())]
    chosen = {
        name: layer
        for name, layer in module.named_modules()
        if isinstance(layer, torch.nn.Linear) and not any(f"{part}." in f"{name}." for part in skipped)
    }
    if quantize.backend == "torchao":
        from torchao.quantization import quantize_

        quantize_(module, _torchao_type(quantize.type), filter_fn=lambda _, name: name in chosen)
        return
    from optimum import quanto

    quanto.quantize(module, weights=getattr(quanto, f"q{quantize.type}"), include=list(chosen) or ["-"])
    quanto.freeze(module)


def _torchao_type(name: str) -> Any:
    from torchao import quantization

    if name == "int4wo":  # the one packing that torch's own kernels compute with
        return quantization.Int4WeightOnlyConfig(group_size=128, int4_packing_format="tile_packed_to_4d")
    return getattr(quantization, _TORCHAO_CLASSES[name])()


_TORCHAO_CLASSES: Final = {
    "int8wo": "Int8WeightOnlyConfig",
    "int8dq": "Int8DynamicActivationInt8WeightConfig",
    "float8wo": "Float8WeightOnlyConfig",
    "float8dq": "Float8DynamicActivationFloat8WeightConfig",
}


def refuse_unquantised(place: str, module: torch.nn.Module, quantize: Quantize) -> None:
    """Refuse a module of which nothing was quantised, and names to be skipped that it does not have.

    A library that cannot quantise a module says so in a log alone, or not at all.

    Raises:
        ModelLoadFailed: Naming the module, or the name and the nearest.
    """
    names = {part for name, _ in module.named_modules() for part in (name, *name.split("."))} - {""}
    for skipped in quantize.skip_modules:
        if skipped not in names:
            near = nearest(skipped, names)
            hint = f"; the nearest is {near}" if near else ""
            raise ModelLoadFailed(f"{place}.skip_modules: {type(module).__name__} has no {skipped!r}{hint}")
    if not any(is_quantised(weight) for weight in module.parameters()):
        raise ModelLoadFailed(f"{place}: {type(module).__name__} has no layer that {quantize.backend} quantises")


def is_quantised(weight: torch.Tensor) -> bool:
    """Whether a weight is kept in fewer bits than it is computed in."""
    return bool(_parts(weight)) or not weight.is_floating_point() or type(weight).__name__ in _PACKED


_PACKED: Final = ("GGUFParameter", "Params4bit", "Int8Params")


def _parts(weight: torch.Tensor) -> list[str]:
    """Return the names of the tensors that a tensor of torchao's or quanto's is made of."""
    flatten = getattr(weight, "__tensor_flatten__", None)
    return [] if flatten is None else list(flatten()[0])
