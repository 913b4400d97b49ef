"""Kandinsky 5, real classes at toy size: traps of its pipelines in diffusers 0.42.1, seen to be avoided."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from support.toy_newer import make_tiny_kandinsky
from support.toy_parts import loaded, pixels_of

from sdbatch.families import FAMILIES, Family

OF_PICTURES = [family for family in FAMILIES.values() if family.class_name.startswith("Kandinsky5") and family.sizes]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("kandinsky")
    make_tiny_kandinsky(folder)
    return folder


@pytest.mark.parametrize("family", OF_PICTURES, ids=lambda family: family.title)
def test_the_sizes_of_a_family_are_those_that_its_pipeline_has(family: Family) -> None:
    import diffusers

    modules = dict.fromkeys(("transformer", "vae", "text_encoder", "tokenizer", "text_encoder_2", "tokenizer_2"))
    pipeline = getattr(diffusers, family.class_name)(**modules, scheduler=None)

    assert {(height, width) for width, height in pipeline.resolutions} == set(family.sizes)


def test_a_longer_prompt_beside_it_would_move_a_row(folder: Path) -> None:
    """Hence its rows run one by one: what fills up the shorter text is read."""
    family = FAMILIES["Kandinsky 5 T2I"]
    (route,) = family.tasks["text-to-image"]
    pipeline = loaded({"path": str(folder)}).pipeline(route, "")
    size = {"height": 1024, "width": 1024, "num_inference_steps": 1, "guidance_scale": 1.0}

    def first(*prompts: str) -> Any:
        generators = [torch.Generator().manual_seed(seed) for seed in range(len(prompts))]
        return pipeline(list(prompts), **size, generator=generators, output_type="latent").image[0]

    alone, beside = first("a beach"), first("a beach", "a forest at night, in the rain")
    assert (alone - beside).abs().max() > 0.1, "the trap is gone"
    assert route.rows == "single"


def test_a_row_in_16_bits_is_the_row_in_32_but_for_rounding(folder: Path) -> None:
    row = {"route": "Kandinsky5T2IPipeline", "height": 1024, "width": 1024, "num_inference_steps": 1}
    wide, narrow = (
        pixels_of(loaded({"path": str(folder), "dtype": dtype}), **row, guidance_scale=3.5)
        for dtype in ("float32", "bfloat16")
    )

    assert np.abs(wide - narrow).mean() < 0.02 < np.abs(wide - wide.mean()).mean()
