"""SDXL's refiner: its scores, its one text encoder, and which folders of its class are it."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from safetensors.torch import save_file
from support.studio import Studio, picture, resolve
from support.toy_loras import CLIP, kohya, layers_of, write_lora
from support.toy_models import make_tiny_sdxl, make_tiny_xl_refiner

from sdbatch.checkpoints import describe, describe_lora
from sdbatch.checkpoints.token_counts import token_counter
from sdbatch.errors import LoraRefused, ModelError
from sdbatch.generate.batch import make_batch, set_threads
from sdbatch.generate.load import load_model
from sdbatch.job import Component, Lora, Model
from sdbatch.recipe import parse_recipe

ROW = {"id": "a", "task": "image-to-image", "prompt": "a red fox", "images": ["1"], "num_inference_steps": 4, "seed": 1}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    set_threads(1)
    place = tmp_path_factory.mktemp("refiner")
    make_tiny_xl_refiner(place / "model")
    torch.manual_seed(3)
    save_file({"clip_l": torch.randn(2, 48), "clip_g": torch.randn(2, 32)}, place / "toy.safetensors")
    return place


@pytest.fixture(scope="module")
def refiner(folder: Path) -> Studio:
    return _studio(folder / "model")


def _studio(path: Path, **options: Any) -> Studio:
    model = Model(path=str(path), **options)
    info = describe("m", model, {})
    return Studio(info, load_model("m", model, info.revision, {}))


def _pixels(studio: Studio, **row: Any) -> NDArray[np.uint8]:
    frame: NDArray[np.uint8] = studio.one({**ROW, **row}).frames_FHWC[0]
    return frame


def _scored(**scores: float) -> dict[str, Any]:
    return {"parameters": json.dumps(scores)}


def _with_index(folder: Path, place: Path, **changes: Any) -> Path:
    """Return a copy of the model whose model_index.json says something else."""
    shutil.copytree(folder / "model", place)
    index = json.loads((place / "model_index.json").read_text())
    (place / "model_index.json").write_text(json.dumps({**index, **changes}))
    return place


def test_a_row_of_defaults_is_what_diffusers_makes_of_a_source(folder: Path, refiner: Studio) -> None:
    from diffusers import DiffusionPipeline

    pipeline = DiffusionPipeline.from_pretrained(str(folder / "model"), local_files_only=True)
    pipeline.set_progress_bar_config(disable=True)
    source = Image.fromarray(picture(1, (64, 64)))
    generator = torch.Generator("cpu").manual_seed(1)
    (expected,) = pipeline("a red fox", image=source, num_inference_steps=4, generator=generator).images

    assert type(pipeline).__name__ == refiner.loaded.class_name
    assert np.abs(_pixels(refiner).astype(int) - np.asarray(expected)).max() <= 1
    assert np.abs(_pixels(refiner, strength=0.8).astype(int) - np.asarray(expected)).max() > 2


def test_both_scores_move_pixels_and_are_six_and_two_and_a_half_where_a_row_says_none(refiner: Studio) -> None:
    plain = _pixels(refiner)

    assert np.array_equal(plain, _pixels(refiner, **_scored(aesthetic_score=6.0, negative_aesthetic_score=2.5)))
    assert not np.array_equal(plain, _pixels(refiner, **_scored(aesthetic_score=9.0)))
    assert not np.array_equal(plain, _pixels(refiner, **_scored(negative_aesthetic_score=7.0)))
    (one, two, alike), faults = resolve(refiner.info, ROW, {**ROW, **_scored(aesthetic_score=9.0)}, {**ROW, "seed": 2})
    assert faults == []
    assert one.batch_key != two.batch_key, "a call has one score for all of its rows"
    assert one.batch_key == alike.batch_key
    _, (fault,) = resolve(refiner.info, {**ROW, **_scored(esthetic_score=9.0)})
    assert "did you mean aesthetic_score?" in fault.message


def test_no_negative_prompt_is_what_the_folder_says_it_is(folder: Path, refiner: Studio, tmp_path: Path) -> None:
    zeros = _studio(_with_index(folder, tmp_path / "zeros", force_zeros_for_empty_prompt=True))

    assert not np.array_equal(_pixels(refiner), _pixels(zeros))
    assert np.array_equal(_pixels(refiner, negative_prompt="snow"), _pixels(zeros, negative_prompt="snow"))


def test_weights_and_words_reach_its_one_text_encoder(folder: Path, refiner: Studio) -> None:
    words = {"<toy>": {"path": str(folder / "toy.safetensors")}}
    options = {"embeddings": words, "prompt_weights": "compel", "long_prompt": "chunk"}
    able = _studio(folder / "model", **options)
    plain = _pixels(able, prompt="a beach")

    assert np.abs(plain.astype(int) - _pixels(refiner, prompt="a beach")).max() <= 1
    for prompt in ("a (beach:1.4)", "a <toy> beach"):
        assert not np.array_equal(plain, _pixels(able, prompt=prompt)), prompt
    one, other = (_pixels(able, prompt="a wide beach " * 12 + end) for end in ("x", "y"))
    assert not np.array_equal(one, other), "what is past 77 tokens is not read"


def test_its_second_tokenizer_counts_before_a_run(refiner: Studio) -> None:
    (short, long), _ = resolve(refiner.info, ROW, {**ROW, "prompt": "a wide beach " * 12})
    counter = token_counter(refiner.info)

    assert counter is not None
    assert counter.excess(short.recipe) is None
    assert counter.excess(long.recipe) == (refiner.loaded.tokens.count(parse_recipe(long.recipe))[0], 77)


def test_a_lora_of_its_own_is_laid_over_it_and_one_of_sdxl_is_refused(folder: Path, tmp_path: Path) -> None:
    from diffusers import UNet2DConditionModel
    from transformers import CLIPTextModelWithProjection

    make_tiny_sdxl(tmp_path / "sdxl")
    unets = (
        UNet2DConditionModel.from_pretrained(one, subfolder="unet") for one in (folder / "model", tmp_path / "sdxl")
    )
    own, of_base = (kohya(layers_of(unet), "lora_unet") for unet in unets)
    text = layers_of(CLIPTextModelWithProjection.from_pretrained(folder / "model" / "text_encoder_2"), CLIP)
    files = {
        "unet": own,
        "text": kohya(text, "lora_te2", strength=1.0),
        "first": {**own, **kohya(text, "lora_te1")},
        "sdxl": of_base,
    }
    loras = {}
    for name, tensors in files.items():
        path = write_lora(tmp_path / f"{name}.safetensors", tensors)
        loras[name] = Lora(path=str(tmp_path), weight_name=path.name, base="Stable Diffusion XL Refiner")
    model = Model(path=str(folder / "model"))
    info = describe("m", model, {})
    studio = Studio(info, load_model("m", model, info.revision, {}, loras))

    def pixels(*names: str) -> NDArray[np.uint8]:
        item = studio.item(ROW)
        laid = tuple((describe_lora(name, loras[name], {}).revision, 0.8) for name in names)
        changed = replace(item, recipe=replace(item.recipe, loras=laid))
        frame: NDArray[np.uint8] = make_batch(studio.loaded, [changed], None).outputs[0].frames_FHWC[0]
        return frame

    plain = pixels()
    for name in ("unet", "text"):
        assert not np.array_equal(plain, pixels(name)), name
    for name in ("first", "sdxl"):
        with pytest.raises(LoraRefused, match=f"LoRA {name} .* is not applied: .*(fit no module|have another shape)"):
            pixels(name)
    assert np.array_equal(plain, pixels()), "a row without one is changed"


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"text_encoder": ["transformers", "CLIPTextModel"]}, r"with model_index.json text_encoder \['transformers'"),
        ({"requires_aesthetics_score": False}, "with model_index.json requires_aesthetics_score False"),
        ({"requires_aesthetics_score": None}, "with no model_index.json requires_aesthetics_score"),
    ],
)
def test_another_model_in_its_class_is_refused_with_what_tells_it(
    folder: Path, tmp_path: Path, changes: dict[str, Any], said: str
) -> None:
    other = _with_index(folder, tmp_path / "other", **changes)

    with pytest.raises(ModelError, match=f"is a StableDiffusionXLImg2ImgPipeline {said}.*, which is not served"):
        describe("m", Model(path=str(other)), {})


@pytest.mark.parametrize(("module", "own"), [("text_encoder", "text_encoder_2"), ("tokenizer", "tokenizer_2")])
def test_a_first_text_encoder_or_tokenizer_is_refused(folder: Path, module: str, own: str) -> None:
    """diffusers would read prompts with it, and the denoiser was trained with neither."""
    component = Component(path=str(folder / "model" / own))

    with pytest.raises(ModelError, match=f"components.{module}: Stable Diffusion XL Refiner has no {module} and takes"):
        describe("m", Model(path=str(folder / "model"), components={module: component}), {})
    assert describe("m", Model(path=str(folder / "model"), components={own: component}), {}).components
