"""Forms of adapters, told by the names of a file's keys; without torch.

keys of a LoRA's header --> forms_of() --> DoRA, LoHa, ... ; left_out() --> why a worker would refuse it
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
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
            return f"is a {form} file: of its {len(names)} keys diffusers applies none of the {number} with {part}"
    return ""
