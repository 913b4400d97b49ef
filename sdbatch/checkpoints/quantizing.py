"""What a job may ask of quantised weights: which module, by which backend, on which device; without torch.

entry + modules + what is quantised already --> refuse_quantize() --> ModelError: the reason, and the nearest that fits
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, distribution
from typing import Final

from sdbatch.checkpoints.components import Modules, has_weights, is_file
from sdbatch.checkpoints.fits import GROUPED
from sdbatch.errors import ModelError
from sdbatch.families import Family
from sdbatch.hints import nearest
from sdbatch.job import Model
from sdbatch.job.weights import Quantize

CPU_NEAREST: Final = "the nearest that a CPU computes with is {backend: torchao, type: int8wo}"
GPU_ALONE: Final[Mapping[tuple[str, str], str]] = {
    ("bitsandbytes", "nf4"): "bitsandbytes computes on GPUs alone",
    ("bitsandbytes", "fp4"): "bitsandbytes computes on GPUs alone",
    ("bitsandbytes", "int8"): "bitsandbytes computes on GPUs alone",
    ("torchao", "int4wo"): "torchao packs weights of 4 bits on GPUs alone",
    ("torchao", "float8dq"): "torchao computes with activations of 8 bits on GPUs of compute capability 8.9 alone",
}
"""Types that no CPU computes with, and why; by backend and type."""


@dataclass(frozen=True, slots=True)
class _Package:
    name: str
    extra: str


PACKAGES: Final[Mapping[str, _Package]] = {
    "bitsandbytes": _Package("bitsandbytes", "bitsandbytes"),
    "gguf": _Package("gguf", "gguf"),
    "quanto": _Package("optimum-quanto", "quanto"),
    "torchao": _Package("torchao", "torchao"),
}
"""Python package of each backend, and the project's extra that brings it."""


def missing_package(backend: str) -> str:
    """Return, in words, the Python package that a backend needs and this machine lacks; "" where it has it."""
    package = PACKAGES.get(backend)
    if package is None:
        return ""
    try:
        distribution(package.name)
    except PackageNotFoundError:
        return f"the Python package {package.name}, which is not installed: pip install 'sdbatch[{package.extra}]'"
    return ""


def loras_problem(family: Family, quantized_by: Mapping[str, str]) -> str:
    """Return why LoRAs are not laid over a family's quantised denoiser; "" where they are.

    diffusers looks for each weight of a Flux.1 transformer by its name (0.42.1), and quanto keeps them by others.
    """
    if family.title.startswith("Flux.1") and quantized_by.get(family.denoiser) == "quanto":
        return (
            "are not laid over a transformer of Flux.1 that quanto quantised; the nearest is "
            "{backend: torchao, type: int8wo}"
        )
    return ""


def refuse_quantize(
    name: str, model: Model, family: Family, modules: Modules, already: Mapping[str, str], classes: Mapping[str, str]
) -> None:
    """Refuse what cannot be quantised as an entry asks.

    Args:
        name: Name in the job's `models`.
        model: The job's entry; its dtype is no longer `auto`.
        family: Its family.
        modules: Those of its model_index.json; empty where they are not known.
        already: By module, the backend that its weights were quantised with before.
        classes: By component that is laid over, its class.

    Raises:
        ModelError: Naming the key, the reason and the nearest that fits.
    """
    for module, quantize in model.quantized.items():
        component = model.components.get(module)
        of_component = component is not None and component.quantize is not None
        place = f"models.{name}.components.{module}.quantize" if of_component else f"models.{name}.quantize.{module}"
        known = {key: of_index for key, (_, of_index) in modules.items() if of_index is not None} | dict(classes)
        _refuse_module(place, module, family, known, is_known=bool(modules))
        if module in already:
            raise ModelError(
                f"{place}: its weights were quantised already ({already[module]}); leave quantize out, or name weights "
                "in 16 bits"
            )
        if component is not None and is_file(component) and quantize.backend == "bitsandbytes":
            raise ModelError(
                f"{place}: bitsandbytes quantises what is read from a folder; name its folder as "
                f"models.{name}.components.{module}.path, or backend: torchao"
            )
        if module == "unet" and "motion_adapter" in known:
            raise ModelError(f"{place}: AnimateDiff makes a UNet of its own from the weights; leave quantize out")
        _refuse_device(place, quantize, model)
    _refuse_single_layers(name, model, already)
    denoiser = family.denoiser
    if model.layerwise_casting is not None and denoiser in already:
        raise ModelError(
            f"models.{name}.layerwise_casting: the weights of {denoiser} are quantised already ({already[denoiser]}), "
            "which cannot be cast; leave it out"
        )


def _refuse_single_layers(name: str, model: Model, already: Mapping[str, str]) -> None:
    """Refuse to offload layers by group whose weights are tensors within tensors.

    Torchao's failed so on an H200 (diffusers 0.42.1, its issues 13281 and 14433), and quanto's do (12610). GGUF's are
    plain bytes, which visit a GPU well (14691).
    """
    if model.offload != "group" or model.num_gpus == 0:
        return
    backends = {**already, **{module: quantize.backend for module, quantize in model.quantized.items()}}
    for module, backend in backends.items():
        if backend in _NESTED and module.startswith(GROUPED):
            raise ModelError(
                f"models.{name}.offload: group brings single layers to the GPU, which fails for those of {module}, "
                f"quantised by {backend}; the nearest are offload: model, a GGUF file as "
                f"models.{name}.components.{module}, or layerwise_casting: float8_e4m3fn without quantize"
            )


_NESTED: Final = ("torchao", "quanto")


def _refuse_module(place: str, module: str, family: Family, known: Mapping[str, str], *, is_known: bool) -> None:
    """Refuse a module that is not there, or of which quantising would change little or nothing."""
    able = sorted(key for key, class_name in known.items() if _can_be_quantised(key, class_name)) or [family.denoiser]
    if is_known and module not in known:
        near = nearest(module, able) or family.denoiser
        raise ModelError(f"{place}: the model has no {module}; the nearest is {near}")
    if not _can_be_quantised(module, known.get(module, "")):
        why = "has no weights" if not has_weights(module) else _WHY_NOT.get(module, "is made of convolutions")
        raise ModelError(f"{place}: a {known.get(module, module)} {why}; what can be quantised is {', '.join(able)}")


_WHY_NOT: Final = {"motion_adapter": "is laid into another UNet", "safety_checker": "judges alone"}


def _can_be_quantised(module: str, class_name: str) -> bool:
    is_vae = module.endswith("vae") or class_name.startswith("Autoencoder")
    return has_weights(module) and not is_vae and module not in _WHY_NOT


def _refuse_device(place: str, quantize: Quantize, model: Model) -> None:
    why = GPU_ALONE.get((quantize.backend, quantize.type))
    if why is not None and model.num_gpus == 0:
        raise ModelError(f"{place}: {why}, and num_gpus is 0; {CPU_NEAREST}")
    if (quantize.backend, quantize.type) == ("torchao", "int4wo"):
        if model.dtype != "bfloat16":
            raise ModelError(f"{place}: int4wo computes in bfloat16 alone, and dtype is {model.dtype}; say bfloat16")
        if model.offload != "none":
            raise ModelError(
                f"{place}: int4wo is packed on the GPU, and offload: {model.offload} keeps weights off it; the nearest "
                "is {backend: torchao, type: int8wo}"
            )
