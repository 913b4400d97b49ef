r"""Compares a LoRA's file with the model: which of its keys fit a module, and which modules it was attached to.

    file's keys --> diffusers' conversion, traced --> converted keys --> what fits is handed to the loader
                                                                     \-> Misfits: keys left out, unknown, misshaped

diffusers and peft pass over what they do not know with a warning at most; a row would come out partly adapted.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

import torch
from diffusers.utils.state_dict_utils import (
    convert_state_dict_to_diffusers,
    convert_state_dict_to_peft,
    convert_unet_state_dict_to_peft,
)

from sdbatch.checkpoints import forms_of
from sdbatch.generate.faults import failure_kind
from sdbatch.generate.load.lora_names import named_for
from sdbatch.generate.load.lora_trace import Trace, tensors_in, traced

EXAMPLES: Final = 3
"""Keys that a message names."""

SAID_MAX: Final = 200
"""Letters of what a library says that a message holds."""

CONVERSION_ERRORS: Final = (ValueError, TypeError, KeyError, IndexError, AttributeError, RuntimeError, AssertionError)
"""What diffusers, peft and transformers raise on a file that is not what they know."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Misfits:
    """The keys of a LoRA that the model cannot take.

    Attributes:
        num_keys: Keys of the file.
        dropped: Keys of the file that diffusers' conversion leaves out.
        unknown: Converted keys that no module of the model answers to.
        misshaped: Converted keys whose tensor has not the module's shape, each with both shapes.
        unattached: Converted keys that were not in the model after it was loaded, and modules that got no weights.
        forms: Forms of adapters that the dropped keys speak of.
        said: What the conversion raised, where it could not go on.
        is_torn: Whether modules that would be attached lose a part by the dropped keys, and would be changed wrongly.
    """

    num_keys: int
    dropped: tuple[str, ...] = ()
    unknown: tuple[str, ...] = ()
    misshaped: tuple[str, ...] = ()
    unattached: tuple[str, ...] = ()
    forms: tuple[str, ...] = ()
    said: str = ""
    is_torn: bool = False

    def __bool__(self) -> bool:
        return bool(self.dropped or self.unknown or self.misshaped or self.unattached)

    def __str__(self) -> str:
        told = (
            ("{} cannot be applied", self.dropped),
            ("{} fit no module of the model", self.unknown),
            ("{} have another shape than the model's modules", self.misshaped),
            ("{} were not attached", self.unattached),
        )
        texts = [
            f"{text.format(len(keys))} ({', '.join(keys[:EXAMPLES])}{', ...' if len(keys) > EXAMPLES else ''})"
            for text, keys in told
            if keys
        ]
        form = f"a {' and '.join(self.forms)} file, which diffusers does not apply here: " if self.forms else ""
        said = f"; diffusers says: {self.said}" if self.said else ""
        return f"{form}of its {self.num_keys} keys {', '.join(texts)}{said}"


class LoraReader:
    """Stands in for a pipeline's `lora_state_dict` while a LoRA is loaded: converts as it does, and compares.

    Args:
        pipeline: Pipeline that loads the LoRA.
        is_partial_allowed: Whether keys that fit nothing are left out; otherwise they end the load.
        is_second: Whether the LoRA is for the second denoiser, whose keys bear the first one's name.

    Attributes:
        misfits: Keys that the model cannot take; None before the file is read.
        expected: Names, as peft has them, of the weights that are to be attached, by component.
        scales: Alpha and rank that the file states, by component and module, where they are not in the weights.
    """

    def __init__(self, pipeline: Any, *, is_partial_allowed: bool, is_second: bool = False) -> None:
        self.misfits: Misfits | None = None
        self.expected: dict[str, set[str]] = {}
        self.scales: dict[tuple[str, str], tuple[float, int]] = {}
        self._pipeline = pipeline
        self._components = _second_of(pipeline) if is_second else components_of(pipeline)
        self._is_partial_allowed = is_partial_allowed

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Convert a file.

        Raises:
            LoraMisfit: When keys fit nothing and that is not allowed.
        """
        with traced(self._named) as trace:
            converted, *others = self._converted(trace, *args, **kwargs)
        used = trace.read.union(*(trace.keys_of(tensor) for tensor in tensors_in((converted, others))))
        dropped = tuple(sorted(key for key in trace.leaves.keys() - used if not _changes_nothing(key, trace.leaves)))
        fitting, unknown, misshaped = self._fit(_with_every_bias(converted), trace)
        self.misfits = Misfits(
            num_keys=len(trace.leaves),
            dropped=dropped,
            unknown=tuple(unknown),
            misshaped=tuple(misshaped),
            forms=forms_of(dropped),
            is_torn=not {_stem(key) for key in dropped}.isdisjoint(_stem(key) for key in used),
        )
        can_be_partial = bool(fitting) and not self.misfits.is_torn
        if self.misfits and not (self._is_partial_allowed and can_be_partial):
            raise LoraMisfit(self.misfits, can_be_partial=can_be_partial)
        return (fitting, *others)

    def _converted(self, trace: Trace, *args: Any, **kwargs: Any) -> Any:
        """Return what diffusers' own conversion returns."""
        try:
            return type(self._pipeline).lora_state_dict(*args, **kwargs)
        except CONVERSION_ERRORS as error:
            if failure_kind(error) != "Raised" or not trace.leaves:
                raise
            keys = tuple(sorted(trace.leaves))
            said = said_in_a_line(error)
            misfits = Misfits(num_keys=len(keys), dropped=keys, forms=forms_of(keys), said=said)
        raise LoraMisfit(misfits, can_be_partial=False)

    def _named(self, tensors: Mapping[str, Any]) -> dict[str, Any]:
        """Return a file's tensors by names that the conversion reads."""
        denoiser, module = next(iter(self._components.items()))
        return named_for(self._pipeline, denoiser, {path for path, _ in module.named_modules()}, tensors)

    def _fit(self, converted: Mapping[str, Any], trace: Trace) -> tuple[dict[str, Any], list[str], list[str]]:
        """Return the converted keys that fit a module, those that fit none, and those of another shape."""
        components = self._components
        denoiser = next(iter(components))
        fitting = _with_component(converted, denoiser, dict(components[denoiser].named_modules()))
        unknown, misshaped = [], []
        alphas: set[str] = set()  # the loader knows not all of their names, and `set_scales` lays them on
        by_component: dict[str, dict[str, Any]] = {}
        for key in fitting:
            component = key.partition(".")[0]
            if component in components:
                by_component.setdefault(component, {})[key.partition(".")[2]] = key
            else:
                unknown.append(key)
        for component, keys in by_component.items():
            modules = dict(components[component].named_modules())
            peft_names = _peft_names(components[component], keys)
            for name, key in peft_names.items():
                module = modules.get(_module_of(name))
                if module is None:  # also one that diffusers would make for LoKr of joined projections, for all rows
                    unknown.append(key)
                elif fault := _shape_fault(module, name, fitting[key], can_pad=self._can_pad):
                    misshaped.append(f"{key}: {fault}")
                    fitting.pop(key)
                elif scale := _scale_of(fitting[key], trace):
                    self.scales[component, _module_of(name)] = scale
            alphas |= {key for name, key in peft_names.items() if (component, _before_alpha(name)) in self.scales}
            lost = {*unknown, *alphas}
            self.expected[component] = {name for name, key in peft_names.items() if key in fitting and key not in lost}
        for key in {*unknown, *alphas}:
            fitting.pop(key)
        return fitting, [key for key in unknown if key not in alphas], misshaped

    @property
    def _can_pad(self) -> bool:
        """Whether the pipeline fills up a LoRA of fewer inputs with zeros, as Flux does for Fill and Control."""
        return hasattr(self._pipeline, "_maybe_expand_lora_state_dict")

    def set_scales(self, adapter: str) -> None:
        """Give each module the scale that the file states, alpha over rank.

        diffusers 0.42.1 hands alphas that differ between modules on under names that peft does not know: all modules
        would get the most frequent alpha.
        """
        components = self._components
        for (component, path), (alpha, rank) in self.scales.items():
            module: Any = components[component].get_submodule(path)
            if abs(module.scaling[adapter] - alpha / rank) > 1e-6 * abs(alpha / rank):
                module.lora_alpha[adapter] = alpha
                module.scaling[adapter] = alpha / rank

    def unattached(self, adapter: str) -> tuple[str, ...]:
        """Return what is not in the model though it should be, and what is in it without a weight of the file.

        Args:
            adapter: Name that the LoRA was loaded under.
        """
        faults = []
        for component, module in self._components.items():
            expected = self.expected.get(component, set())
            attached = _attached(module, adapter)
            faults += [f"{component}.{name}" for name in sorted(expected - attached.keys())]
            without = {name: value for name, value in attached.items() if name not in expected}
            faults += [f"{component}.{name}" for name in sorted(without) if _is_felt(name, attached)]
        return tuple(faults)


def said_in_a_line(error: Exception) -> str:
    """Return what a library says of a file in one line, whose keys stand after its first one."""
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text if len(text) <= SAID_MAX else f'{text[:SAID_MAX]} ...'}"


def components_of(pipeline: Any) -> dict[str, torch.nn.Module]:
    """Return the components of a pipeline that take LoRAs, the denoiser first."""
    names = getattr(pipeline, "_lora_loadable_modules")  # noqa: B009 -- diffusers has no public name for it
    named = {name: getattr(pipeline, name, None) for name in names}
    return {name: module for name, module in named.items() if isinstance(module, torch.nn.Module)}


def _second_of(pipeline: Any) -> dict[str, torch.nn.Module]:
    """Return the second denoiser of a pipeline under the name of the first."""
    denoiser = next(iter(components_of(pipeline)))
    return {denoiser: getattr(pipeline, f"{denoiser}_2")}


class LoraMisfit(Exception):
    """Some of a LoRA's keys fit nothing in the model.

    Attributes:
        can_be_partial: Whether the rest of it can be applied.
    """

    def __init__(self, misfits: Misfits, *, can_be_partial: bool) -> None:
        super().__init__(str(misfits))
        self.can_be_partial = can_be_partial


_STEM: Final = re.compile(r"(.*?)\.(lora[_.]|alpha$|dora_scale$|hada_|lokr_|oft_)")


_FIRST: Final = re.compile(r"\.lora(_down|_A|\.down)\.")
"""What stands in the names of a module's first factor."""


def _stem(key: str) -> str:
    """Return the part of a file's key that names the module; a bias is a module of its own."""
    matched = _STEM.match(key)
    return matched[1] if matched else key


def _changes_nothing(key: str, tensors: Mapping[str, torch.Tensor]) -> bool:
    """Whether a key that was left out is not felt.

    Such keys are empty marks, differences that are zero, those of a module one of whose factors is zero, and an alpha
    that equals the rank.
    """
    stem = _stem(key)
    factors = {name: value for name, value in tensors.items() if name.startswith((f"{stem}.lora_", f"{stem}.lora."))}
    zero = [name for name, value in (*factors.items(), (key, tensors[key])) if not bool(value.count_nonzero())]
    if tensors[key].numel() == 0 or (zero and (".diff" in key or ".lora_" in key or key.endswith(".alpha"))):
        return True
    ranks = {value.shape[0] for name, value in factors.items() if _FIRST.search(name)}
    return key.endswith(".alpha") and ranks == {float(tensors[key])}


def _with_component(converted: Mapping[str, Any], component: str, modules: Iterable[str]) -> dict[str, Any]:
    """Return converted keys with the denoiser's name before those from which a conversion has left it out.

    diffusers 0.42.1 does so for layers of kohya's Flux LoRAs that lie outside the blocks, and then passes over them.
    """
    if not any(key.startswith(f"{component}.") for key in converted):
        return dict(converted)
    paths = set(modules)
    return {f"{component}.{key}" if _module_of(key) in paths else key: value for key, value in converted.items()}


def _with_every_bias(converted: Mapping[str, Any]) -> dict[str, Any]:
    """Return converted keys with biases of zeros where a component has some and not all of them.

    peft makes one for each of its modules then, and diffusers 0.42.1 leaves those that the file lacks without memory.
    """
    given = {key.removesuffix("bias") for key in converted if key.endswith(".lora_B.bias")}
    components = {stem.partition(".")[0] for stem in given}
    added = {
        key.removesuffix("weight") + "bias": torch.zeros(weight.shape[0], dtype=weight.dtype)
        for key, weight in converted.items()
        if key.endswith(".lora_B.weight")
        and key.partition(".")[0] in components
        and key.removesuffix("weight") not in given
    }
    return {**converted, **added}


def _scale_of(weight: torch.Tensor, trace: Trace) -> tuple[float, int] | None:
    """Return alpha and rank of a module by its first factor; None where no alpha is stated or it is in the weights.

    A conversion that multiplies with alpha makes a new tensor or writes to it; a factor as it was read is not scaled.
    Where other modules state an alpha, one without has its rank for it, as kohya's own scripts read such files.
    """
    for key in trace.keys_of(weight):
        first = _FIRST.search(key)
        if first and trace.leaves[key] is weight and id(weight) not in trace.changed:
            rank = weight.shape[0]
            return (float(trace.leaves.get(f"{key[: first.start()]}.alpha", rank)), rank) if trace.has_alphas else None
    return None


def _peft_names(component: torch.nn.Module, keys: Mapping[str, str]) -> dict[str, str]:
    """Return keys by the names that peft gives them, as diffusers' and transformers' loaders rename them."""
    from transformers import PreTrainedModel

    names: dict[str, str] = dict(keys)
    if isinstance(component, PreTrainedModel):
        names = convert_state_dict_to_peft(convert_state_dict_to_diffusers(names))
        if not hasattr(component, "text_model"):
            names = {name.removeprefix("text_model."): key for name, key in names.items()}
    elif not any(".lokr_" in name for name in names) and "lora_A" not in next(iter(names)):
        names = convert_unet_state_dict_to_peft(names)
    return {_plain(name): key for name, key in names.items()}


def _plain(name: str) -> str:
    """Return peft's name of a weight; a magnitude vector is written with and without `.weight`."""
    return name.removesuffix(".weight") if "lora_magnitude_vector" in name else name


def _module_of(name: str) -> str:
    return name.partition(".lora_")[0].partition(".lokr_")[0]


def _before_alpha(name: str) -> str:
    """Return the module whose alpha a key is; "" for any other key."""
    return name.removesuffix(".alpha") if name.endswith(".alpha") else ""


def _shape_fault(module: Any, name: str, weight: torch.Tensor, *, can_pad: bool) -> str:
    """Return in what a factor's shape differs from what a linear or convolutional module needs, "" for nothing."""
    base = module.get_base_layer() if module is not None and hasattr(module, "get_base_layer") else module
    sizes = _sizes(base)
    if sizes is None or weight.ndim < 2:
        return ""
    if ".lora_" in name and weight.ndim != base.weight.ndim:
        return f"{weight.ndim} dimensions, the module has {base.weight.ndim}"
    inputs, outputs = sizes
    if name.endswith("lora_A.weight") and weight.shape[1] != inputs:
        is_padded = can_pad and weight.shape[1] < inputs
        return "" if is_padded else f"{weight.shape[1]} inputs, the module has {inputs}"
    if name.endswith("lora_B.weight") and weight.shape[0] != outputs:
        return f"{weight.shape[0]} outputs, the module has {outputs}"
    return ""


def _sizes(module: Any) -> tuple[int, int] | None:
    """Return the inputs and outputs of a linear or convolutional module."""
    if isinstance(module, torch.nn.Linear):
        return module.in_features, module.out_features
    if isinstance(module, torch.nn.Conv1d | torch.nn.Conv2d | torch.nn.Conv3d):
        return module.in_channels // module.groups, module.out_channels
    return None


def _attached(module: torch.nn.Module, adapter: str) -> dict[str, torch.Tensor]:
    """Return the weights of one adapter in a component, by peft's names."""
    mark = f".{adapter}"
    return {
        _plain(name.replace(mark, "", 1)): value
        for name, value in (*module.named_parameters(), *module.named_buffers())
        if mark in name
    }


def _is_felt(name: str, attached: Mapping[str, torch.Tensor]) -> bool:
    """Whether a weight that did not come from the file changes the module's output."""
    other = attached.get(name.replace("lora_A", "lora_B"))
    weight = attached[name] if other is None else other
    return weight.is_meta or bool(weight.count_nonzero())
