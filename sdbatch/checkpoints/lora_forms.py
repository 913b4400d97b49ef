"""Forms of adapters, told by the names of a file's keys; without torch.

keys of a LoRA's header --> forms_of() --> DoRA, LoHa, ... ; left_out() --> why a worker would refuse it
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Final

FORMS: Final[Mapping[str, str]] = {
    "dora_scale": "DoRA",
    "lora_magnitude_vector": "DoRA",
    "hada_w": "LoHa",
    "lokr_w": "LoKr",
    "oft_": "OFT",
    "on_input": "(IA)^3",
    "ia3_": "(IA)^3",
    "a1.weight": "GLoRA",
}
"""Forms of adapters by what stands in the names of their keys."""


def forms_of(keys: Iterable[str]) -> tuple[str, ...]:
    """Return the forms of adapters that a file's keys speak of, plain LoRA left out."""
    names = tuple(keys)
    return tuple(dict.fromkeys(form for part, form in FORMS.items() if any(part in name for name in names)))


_ADAPTER: Final = re.compile(r"lora|hada_|lokr_|oft_|dora_|ia3|on_input|a1\.weight|\.diff(_b)?$|\.(w|b)_norm$")
"""Parts of the names of an adapter's keys, of which every file of adapters has one."""

_OF_UNETS: Final = re.compile(r"unet\.|lora_unet_((down|up|input|output)_blocks|mid_block|middle_block)_")
_OF_TRANSFORMERS: Final = re.compile(
    r"transformer(_2)?\.|lora_transformer_|lora_unet_(double|single|joint)_blocks_|"
    r"diffusion_model\.(double_|single_|joint_)?blocks\."
)
_READS_TEXT: Final = re.compile(r".*attn2[._]to_[kv].*(lora_down|lora_A|lora\.down).*")
_TEXT_WIDTHS: Final[Mapping[int, str]] = {
    768: "Stable Diffusion 1.x/2.x",
    1024: "Stable Diffusion 1.x/2.x",
    2048: "Stable Diffusion XL",
}
"""Families by the length of a text token's vector, of the models that have been published."""


def misplaced(shapes: Mapping[str, Sequence[int]], title: str, denoiser: str) -> str:
    """Return why a file is no LoRA of a family, as its keys and shapes tell; "" where it may be one.

    Args:
        shapes: Of its tensors, by name.
        title: Of the family that the job says.
        denoiser: Name of that family's denoiser.
    """
    if not any(_ADAPTER.search(name) for name in shapes):
        example = min(shapes, default="none")
        return f"holds no LoRA: of its {len(shapes)} keys none names one, such as {example}"
    other = {"unet": _OF_TRANSFORMERS, "transformer": _OF_UNETS}[denoiser]
    found = next((name for name in sorted(shapes) if other.match(name)), None)
    if found is not None:
        return f"is a LoRA of another denoiser: {title} has a {denoiser}, and its keys are such as {found}"
    for name, shape in shapes.items():
        family = _TEXT_WIDTHS.get(shape[-1]) if len(shape) == 2 and _READS_TEXT.fullmatch(name) else None
        if family is not None and title in _TEXT_WIDTHS.values() and family != title:
            return f"is a LoRA of {family}, whose texts are {shape[-1]} wide ({name}), and base says {title}"
    return ""


_OF_PEFT: Final = "base_model.model."
_READS_PEFT: Final[Mapping[str, re.Pattern[str]]] = {
    "Flux.1": re.compile(r"base_model\.model\.(double|single)_blocks\."),
    "Flux.2": re.compile(""),
}
"""Beginnings of the titles of families whose files of peft's diffusers converts (0.42.1), with the names in them."""


def unscaled(keys: Iterable[str], title: str) -> str:
    """Return why a file as peft itself writes it is refused, "" for any other.

    No pipeline reads such names, nor the number that the change is multiplied with, which stands in another file.

    Args:
        keys: Names of its tensors.
        title: Of the family that the job says.
    """
    read = next((names for start, names in _READS_PEFT.items() if title.startswith(start)), None)
    found = min((key for key in keys if key.startswith(_OF_PEFT) and not (read and read.match(key))), default="")
    if not found:
        return ""
    return (
        f"is as peft itself writes it ({found}): lora_alpha, which scales it, stands in adapter_config.json and not in "
        "this file; write it with the pipeline's save_lora_weights, and peft's LoraConfig as its "
        "..._lora_adapter_metadata"
    )


LEFT_OUT: Final = ("dora_scale", "hada_w")
"""Forms of which diffusers applies nothing (0.42.1), by what stands in the names of their keys: it filters the scales
of a DoRA file out, and knows no LoHa. Of the other forms it reads some for some families, which a worker finds out."""


def left_out(keys: Iterable[str], *, partial: bool) -> str:
    """Return why a file is refused, as its keys tell; "" where that is not certain.

    Args:
        keys: Names of its tensors.
        partial: Whether a part of them is enough. Of a DoRA it never is: without its scales it is another adapter.
    """
    names = tuple(keys)
    for part in LEFT_OUT:
        form, number = FORMS[part], sum(part in name for name in names)
        if number and not (partial and form != "DoRA" and number < len(names)):
            applied = f"of its {len(names)} keys diffusers applies none of the {number} with {part}"
            return f"is a {form} file: {applied}; take a plain LoRA"
    return ""
