"""Safetensors files made of their header alone: true ones, whose tensors are zeros, and ones that are damaged."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

POINTER: Final = f"version https://git-lfs.github.com/spec/v1\noid sha256:{'a' * 64}\nsize 3438167536\n".encode()
"""What git-lfs leaves in the place of a file it has not fetched."""

_BYTES: Final = {"F32": 4, "F16": 2, "BF16": 2, "F8_E4M3": 1, "U8": 1}

SDXL: dict[str, list[int]] = {
    "model.diffusion_model.input_blocks.0.0.weight": [320, 4, 3, 3],
    "model.diffusion_model.label_emb.0.0.weight": [1280, 2816],
    "model.diffusion_model.middle_block.1.transformer_blocks.0.attn2.to_k.weight": [1280, 2048],
    "model.diffusion_model.output_blocks.8.0.skip_connection.weight": [320, 640, 1, 1],
    "model.diffusion_model.out.2.weight": [4, 320, 3, 3],
    "conditioner.embedders.0.transformer.text_model.embeddings.position_embedding.weight": [77, 768],
    "conditioner.embedders.1.model.positional_embedding": [77, 1280],
    "first_stage_model.decoder.conv_in.weight": [512, 4, 3, 3],
}
"""The tensors by which a single file of SDXL is told, in its authors' names."""

REFINER: dict[str, list[int]] = {
    "model.diffusion_model.input_blocks.0.0.weight": [384, 4, 3, 3],
    "model.diffusion_model.label_emb.0.0.weight": [1536, 2560],
    "model.diffusion_model.middle_block.1.transformer_blocks.0.attn2.to_k.weight": [1536, 1280],
    "model.diffusion_model.output_blocks.11.0.skip_connection.weight": [384, 768, 1, 1],
    "model.diffusion_model.out.2.weight": [4, 384, 3, 3],
    "conditioner.embedders.0.model.positional_embedding": [77, 1280],
    "conditioner.embedders.0.model.text_projection": [1280, 1280],
    "first_stage_model.decoder.conv_in.weight": [512, 4, 3, 3],
}
"""The same of SDXL's refiner."""


def with_length(header: bytes, size: int | None = None) -> bytes:
    """Return a header behind its length, or behind another one."""
    return (len(header) if size is None else size).to_bytes(8, "little") + header


def weights(shapes: Mapping[str, list[int]], dtype: str = "F16", *, spaces: int = 0) -> bytes:
    """Return a file with tensors of zeros; spaces make its header longer."""
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    end = 0
    for name, shape in shapes.items():
        start, end = end, end + math.prod(shape) * _BYTES[dtype]
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [start, end]}
    return with_length(json.dumps(header).encode() + b" " * spaces) + bytes(end)


def sparse(
    file: Path, shapes: Mapping[str, list[int]], dtype: str = "F16", metadata: Mapping[str, str] | None = None
) -> None:
    """Write such a file whose zeros take no room on the disk, so that its tensors may be as large as a real model's."""
    header: dict[str, Any] = {"__metadata__": metadata} if metadata else {}
    end = 0
    for name, shape in shapes.items():
        start, end = end, end + math.prod(shape) * _BYTES[dtype]
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [start, end]}
    data = with_length(json.dumps(header).encode())
    with file.open("wb") as handle:
        handle.write(data)
        handle.truncate(len(data) + end)
