"""Kandinsky 5, real classes at toy size: traps of its pipelines in diffusers 0.42.1, seen to be avoided."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from support.studio import KANDINSKY_TEXT, Case, Studio, base_row, resolve
from support.toy_newer import make_tiny_kandinsky, make_tiny_kandinsky_clips
from support.toy_parts import loaded, pixels_of

from sdbatch.checkpoints import describe
from sdbatch.errors import ModelError, PromptTooLong
from sdbatch.families import FAMILIES, Family
from sdbatch.generate.batch import make_batch
from sdbatch.generate.item import BatchResult, Item
from sdbatch.job import Model
from sdbatch.recipe import parse_recipe, recipe_from

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


FROM_IMAGE = Case(model="kandinsky-i2v", task="image-to-video", images=1, row={"parameters": KANDINSKY_TEXT})


def test_a_clip_from_an_image_that_is_too_short_is_refused(studio: Callable[[str], Studio]) -> None:
    """The pipeline brings its first four latents to those after them, and gives no numbers where there are none."""
    made = studio("kandinsky-i2v")
    item = made.item({**base_row(FROM_IMAGE), "num_frames": 17})
    pipeline = made.loaded.pipeline(made.info.family.route_of(item.recipe), "")
    image = Image.fromarray(item.images[0])
    size = {"height": 64, "width": 64, "num_frames": 13, "num_inference_steps": 1}
    with pytest.warns(UserWarning, match="degrees of freedom"):
        short = pipeline(image, "a fox", **size, output_type="latent").frames
    assert not short.isfinite().all(), "the trap is gone"

    _, (fault,) = resolve(made.info, {**base_row(FROM_IMAGE), "num_frames": 13})
    assert (fault.column, fault.message) == ("num_frames", "is not in 17..509")
    (brief,), _ = resolve(made.info, {**base_row(FROM_IMAGE), "num_frames": None, "duration_s": 0.25, "fps": 24.0})
    recipe = parse_recipe(brief.recipe)
    assert (recipe.num_frames, recipe.num_frames_kept) == (17, 6)


def test_a_side_is_no_longer_than_the_denoiser_has_places(studio: Callable[[str], Studio]) -> None:
    made = studio("kandinsky")
    places = made.loaded.pipeline(made.info.family.tasks["text-to-video"][0], "").transformer.visual_rope_embeddings
    family = made.info.family

    assert family.size_max == 16 * min(places.max_pos)
    assert family.frames_max == family.frame_multiple * (places.max_pos[0] - 1) + 1


def test_sparse_attention_is_refused_by_name(tmp_path: Path) -> None:
    make_tiny_kandinsky_clips(tmp_path, "Kandinsky5T2VPipeline")
    assert describe("m", Model(path=str(tmp_path)), {}).family is FAMILIES["Kandinsky 5 T2V"]
    config = tmp_path / "transformer" / "config.json"
    config.write_text(json.dumps({**json.loads(config.read_text()), "attention_type": "nabla"}))

    with pytest.raises(ModelError, match=r"transformer/config.json attention_type 'nabla', which is not served$"):
        describe("m", Model(path=str(tmp_path)), {})


def test_a_prompt_that_does_not_fit_beside_its_picture_is_refused(tmp_path: Path) -> None:
    """The pipeline cuts a text at its end, where the picture's place is."""
    pytest.importorskip("torchvision", reason="transformers gives Qwen2-VL's processor out beside torchvision alone")
    make_tiny_kandinsky(tmp_path, "Kandinsky5I2IPipeline")
    model = loaded({"path": str(tmp_path)})
    image = np.zeros((1024, 1024, 3), np.uint8)

    def made(prompt: str) -> BatchResult:
        values = {"task": "image-to-image", "route": "Kandinsky5I2IPipeline", "prompt": prompt, "images": ["sha256:00"]}
        recipe = recipe_from({**values, "height": 1024, "width": 1024, "num_inference_steps": 1, "guidance_scale": 2.0})
        return make_batch(model, [Item(recipe=recipe, seed=1, images=(image,))], None)

    assert made("a" * 400).outputs[0].is_finite
    with pytest.raises(
        PromptTooLong, match=r"^prompt and picture take 1\d\d\d tokens, and 1078 are read; shorten the prompt$"
    ):
        made("a" * 800)
