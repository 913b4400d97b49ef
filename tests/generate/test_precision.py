"""What a model is computed in: full float32 and algorithms by rule in `exact`, Wan's autoencoder in float32 always."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from support.original_layout import sd_file
from support.revisions import PINNED
from support.toy_clips import make_wan_t2v
from support.toy_models import make_tiny_sdxl
from support.toy_parts import loaded

from sdbatch.errors import ModelError
from sdbatch.generate.batch import make_batch, set_threads
from sdbatch.generate.item import Item
from sdbatch.generate.load import LoadedModel, load_model
from sdbatch.generate.random_weights import make_tiny_random
from sdbatch.job import Model
from sdbatch.recipe import recipe_from


def _load(folder: Path, **options: Any) -> LoadedModel:
    set_threads(1)
    return load_model("m", Model(path=str(folder), revision=PINNED, **options), PINNED, {})


def _item(**changes: Any) -> Item:
    recipe = {"task": "text-to-image", "prompt": "a", "height": 64, "width": 64, "num_inference_steps": 1, **changes}
    return Item(recipe=recipe_from(recipe), seed=1)


def _arithmetic() -> tuple[bool, ...]:
    cudnn = torch.backends.cudnn
    return (cudnn.deterministic, cudnn.benchmark, cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32)


@pytest.mark.fault("A11", "determinism: exact on a GPU", "no TF32, algorithms by rule; the process is left as it was")
def test_exact_computes_in_full_and_by_rule_and_leaves_the_process_as_it_was(tmp_path: Path) -> None:
    make_tiny_random(tmp_path)
    model = _load(tmp_path)
    seen: list[tuple[bool, ...]] = []
    before = _arithmetic()
    torch.backends.cuda.matmul.allow_tf32 = True
    try:
        outside = _arithmetic()
        make_batch(model, [_item()], 2, lambda: seen.append(_arithmetic()))
        make_batch(model, [_item()], None, lambda: seen.append(_arithmetic()))
        assert _arithmetic() == outside
    finally:
        torch.backends.cuda.matmul.allow_tf32 = before[3]

    assert seen == [(True, False, False, False), outside]


@pytest.mark.fault("A11", "compile: true in exact", "Inductor chooses by rule, not by measuring")
def test_exact_compiles_by_rule() -> None:
    from torch._inductor import config

    from sdbatch.generate.exact import exact_arithmetic

    seen = [config.deterministic]
    with exact_arithmetic(is_exact=True, is_compiled=True):
        seen.append(config.deterministic)
    seen.append(config.deterministic)
    assert seen == [False, True, False]


@pytest.mark.fault("A13", "Wan with dtype: bfloat16", "its autoencoder in float32, the rest in bfloat16")
def test_the_autoencoder_of_wan_stays_in_float32(tmp_path: Path) -> None:
    make_wan_t2v(tmp_path)
    model = _load(tmp_path, dtype="bfloat16")

    assert model._base.vae.dtype == torch.float32
    assert model._base.transformer.dtype == torch.bfloat16
    item = _item(task="text-to-video", num_frames=5, fps=8.0, guidance_scale=1.0)
    assert make_batch(model, [item], None).outputs[0].is_finite


def _make_checker(folder: Path) -> dict[str, str]:
    """Write a safety checker that blanks everything, and what prepares its pictures; return both as components."""
    from diffusers.pipelines.stable_diffusion import StableDiffusionSafetyChecker
    from transformers import CLIPConfig, CLIPImageProcessorPil, CLIPTextConfig, CLIPVisionConfig

    small = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    vision = CLIPVisionConfig(**small, image_size=32, patch_size=16, projection_dim=16)
    config = CLIPConfig(
        text_config=CLIPTextConfig(**small, vocab_size=64).to_dict(),
        vision_config=vision.to_dict(),
        projection_dim=16,
    )
    checker = StableDiffusionSafetyChecker(config)
    checker.concept_embeds_weights.data.fill_(-2.0)
    checker.save_pretrained(folder / "safety_checker")
    processor = CLIPImageProcessorPil(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32})
    processor.save_pretrained(folder / "feature_extractor")
    return {name: str(folder / name) for name in ("safety_checker", "feature_extractor")}


def _is_blocked(model: Any) -> bool:
    return make_batch(model, [_item()], None).outputs[0].is_blocked


@pytest.mark.fault("A13", "Stable Diffusion 1.x with a safety checker", "not loaded unless the job asks for it")
def test_a_folders_own_checker_is_loaded_where_the_job_asks_for_it(tmp_path: Path) -> None:
    make_tiny_random(tmp_path)
    _make_checker(tmp_path)
    index = json.loads((tmp_path / "model_index.json").read_text())
    index["safety_checker"] = ["stable_diffusion", "StableDiffusionSafetyChecker"]
    index["feature_extractor"] = ["transformers", "CLIPImageProcessorPil"]
    (tmp_path / "model_index.json").write_text(json.dumps({**index, "requires_safety_checker": True}))

    assert not _is_blocked(_load(tmp_path))
    assert _is_blocked(_load(tmp_path, safety_checker=True))


@pytest.mark.parametrize("is_file", [False, True])
def test_a_checker_that_a_model_lacks_is_named_among_its_components(is_file: bool, tmp_path: Path) -> None:
    make_tiny_random(tmp_path / "sd")
    sd_file(tmp_path / "sd", tmp_path / "sd.safetensors")
    path = tmp_path / ("sd.safetensors" if is_file else "sd")
    entry = {"path": str(path), "safety_checker": True, **({"config": str(tmp_path / "sd")} if is_file else {})}
    components = _make_checker(tmp_path)
    checker = {"safety_checker": components["safety_checker"]}

    with pytest.raises(ModelError, match=r"no safety.checker"):
        loaded(entry)
    with pytest.raises(
        ModelError, match=r"has no feature_extractor, so that nothing would be blanked; name a folder as"
    ):
        loaded({**entry, "components": checker})
    assert _is_blocked(loaded({**entry, "components": components}))


def test_a_checker_of_a_model_that_takes_none_is_refused(tmp_path: Path) -> None:
    make_tiny_sdxl(tmp_path)

    with pytest.raises(ModelError, match=r"models\.m\.safety_checker: .* let the stage `safety` of `after` judge"):
        loaded({"path": str(tmp_path), "safety_checker": True})
