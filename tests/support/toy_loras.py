"""LoRA files in the dialects that people bring, for the tiny models: seeded, strong enough to be seen."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

Tensors = dict[str, Any]

ATTENTION = ("to_q", "to_k", "to_v", "to_out.0")
CLIP = ("q_proj", "k_proj", "v_proj", "out_proj", "fc1", "fc2")


def write_lora(path: Path, tensors: Mapping[str, Any], metadata: Mapping[str, str] | None = None) -> Path:
    """Write tensors as a file of safetensors."""
    from safetensors.torch import save_file

    path.parent.mkdir(parents=True, exist_ok=True)
    save_file({key: value.contiguous() for key, value in tensors.items()}, path, metadata=dict(metadata or {}))
    return path


def layers_of(module: Any, endings: Iterable[str] = ATTENTION) -> dict[str, tuple[int, int]]:
    """Return inputs and outputs of a module's linear layers whose name ends so, by path."""
    import torch

    return {
        name: (layer.in_features, layer.out_features)
        for name, layer in module.named_modules()
        if isinstance(layer, torch.nn.Linear) and name.endswith(tuple(endings))
    }


def factors(shape: tuple[int, int], rank: int, strength: float = 0.4) -> tuple[Any, Any]:
    """Return the two factors of a layer's change."""
    import torch

    inputs, outputs = shape
    return torch.randn(rank, inputs) * inputs**-0.5, torch.randn(outputs, rank) * strength


def kohya(
    layers: Mapping[str, tuple[int, int]],
    prefix: str,
    *,
    seed: int = 0,
    rank: Callable[[str], int] = lambda _: 4,
    alpha: Callable[[str], float | None] = lambda _: 2.0,
    strength: float = 0.4,
) -> Tensors:
    """Return a LoRA as kohya's scripts write it: `lora_unet_down_blocks_1_....lora_down.weight` and an alpha each."""
    import torch

    torch.manual_seed(seed)
    tensors: Tensors = {}
    for name, shape in layers.items():
        stem = f"{prefix}_{name.replace('.', '_')}"
        down, up = factors(shape, rank(name), strength)
        tensors |= {f"{stem}.lora_down.weight": down, f"{stem}.lora_up.weight": up}
        if (value := alpha(name)) is not None:
            tensors[f"{stem}.alpha"] = torch.tensor(float(value))
    return tensors


def dotted(
    layers: Mapping[str, tuple[int, int]],
    prefix: str,
    *,
    names: tuple[str, str] = ("lora_A", "lora_B"),
    seed: int = 0,
    rank: int = 4,
    strength: float = 0.4,
) -> Tensors:
    """Return a LoRA with dotted paths: peft's and diffusers' dialect, and that of trainers of transformers."""
    import torch

    torch.manual_seed(seed)
    tensors: Tensors = {}
    for name, shape in layers.items():
        down, up = factors(shape, rank, strength)
        tensors |= {f"{prefix}{name}.{names[0]}.weight": down, f"{prefix}{name}.{names[1]}.weight": up}
    return tensors
