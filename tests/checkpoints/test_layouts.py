"""Single files are told by keys and shapes as diffusers tells them; the shipped configs have the published sizes."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

import diffusers
import pytest
import torch
import transformers
from diffusers.loaders.single_file_utils import convert_wan_transformer_to_diffusers, infer_diffusers_model_type
from support.original_layout import (
    aura_flow_transformer,
    flux2_transformer,
    flux_transformer,
    ldm_unet,
    wan_transformer,
)

from sdbatch.checkpoints.facts import facts_of
from sdbatch.checkpoints.layout_table import LAYOUTS
from sdbatch.checkpoints.layouts import PREFIX, Keys, Layout, alternatives, families_of, told
from sdbatch.checkpoints.single_files import CLIP_WORDS, CONFIGS
from sdbatch.errors import ModelError
from sdbatch.families import FAMILIES, find_family
from sdbatch.generate.load.file_tensors import READ_AS

# What diffusers calls each; where it tells fewer kinds apart than the table, the one it takes it for.
THEIRS = {
    "Stable Diffusion XL v-prediction": "xl_base",
    "Stable Diffusion XL": "xl_base",
    "Stable Diffusion 1.5": "v1",
    "Stable Diffusion 2.1": "v2",
    "Stable Diffusion 2 base": "v2",
    "Stable Diffusion 3 medium": "sd3",
    "Stable Diffusion 3.5 medium": "sd35_medium",
    "Stable Diffusion 3.5 large": "sd35_large",
    "Flux.1 dev": "flux-dev",
    "Flux.1 Kontext": "flux-dev",
    "Flux.1 schnell": "flux-schnell",
    "Flux.1 Fill": "flux-fill",
    "Flux.2 Klein 4B": "flux-2-dev",
    "Flux.2 Klein base 4B": "flux-2-dev",
    "Flux.2 Klein 9B": "flux-2-dev",
    "Flux.2 Klein base 9B": "flux-2-dev",
    "AuraFlow 0.3": "auraflow",
    "Z-Image Turbo": "z-image-turbo",
    "Z-Image base": "z-image-turbo",
    "Wan 2.1 VACE 1.3B": "wan-vace-1.3B",
    "Wan 2.1 VACE 14B": "wan-vace-14B",
    "Wan 2.1 FLF2V 14B": "wan-i2v-14B",
    "Wan 2.1 I2V 14B": "wan-i2v-14B",
    "Wan 2.1 T2V 1.3B": "wan-t2v-1.3B",
    "Wan 2.1 T2V 14B": "wan-t2v-14B",
    "Wan 2.2 T2V A14B": "wan-t2v-14B",
    "Wan 2.2 I2V A14B": "wan-i2v-14B",
    "LTX-Video 0.9.7 13B": "ltx-video-0.9.7",
    "LTX-Video 0.9.5": "ltx-video-0.9.5",
    "LTX-Video 0.9.1": "ltx-video-0.9.1",
    "LTX-Video 0.9.0": "ltx-video",
    "an inpainting model of Stable Diffusion XL": "xl_inpaint",
    "Stable Diffusion XL Refiner": "xl_refiner",
    "Playground 2.5": "playground-v2-5",
    "an inpainting model of Stable Diffusion": "inpainting",
    "InstructPix2Pix": "instruct-pix2pix",
    "Flux.1 Depth or Canny": "flux-depth",
    "Chroma": "chroma",
    "Flux.2 dev": "flux-2-dev",
    "Wan Animate": "wan-animate-14B",
    "HunyuanVideo": "hunyuan-video",
    "Mochi": "mochi-1-preview",
}
# diffusers takes these for Stable Diffusion 1, or for an earlier or smaller model of their makers.
UNKNOWN_THERE = {
    "CosXL",
    "InstructPix2Pix of Stable Diffusion XL",
    "Kolors",
    "LTX-2",
    "Qwen-Image",
    "Qwen-Image-Edit",
    "Qwen-Image-Edit-Plus",
    "Stable Diffusion 1.5 that predicts v",
    "Stable Diffusion 2.1 unCLIP",
    "Stable Diffusion XL that predicts v without zero SNR",
    "Stable Diffusion's upscaler",
    "Wan 2.2 TI2V 5B",
    "a depth model of Stable Diffusion",
    "a latent consistency model that is told its guidance",
}
V1 = "model.diffusion_model.input_blocks.2.1.transformer_blocks.0.attn2.to_k.weight"
XL = "conditioner.embedders.1.model.transformer.resblocks.9.mlp.c_proj.bias"
REFINER = "conditioner.embedders.0.model.transformer.resblocks.9.mlp.c_proj.bias"
BESIDE = {
    "Stable Diffusion 2.1": {V1: [320, 1024]},
    "Stable Diffusion 2 base": {V1: [320, 1024]},
    "Flux.1 Depth or Canny": {"guidance_in.in_layer.bias": [3072]},
    "Mochi": {},
    "AuraFlow 0.3": {"double_layers.0.attn.w1q.weight": [3072], "t_embedder.mlp.0.weight": [3072]},
    **{row.title: {XL: [1280]} for row in LAYOUTS if row.title.startswith("Stable Diffusion XL")},
    "Stable Diffusion XL Refiner": {REFINER: [1280]},
    "an inpainting model of Stable Diffusion XL": {XL: [1280]},
}
"""Keys by which diffusers tells a model and the table does not."""


def _toy(row: Layout) -> dict[str, list[int]]:
    """Return the shapes of the keys that tell a model, each with as many dimensions as are spoken of."""
    places: dict[str, dict[int, int]] = {key: {} for key in (*row.marks, *row.extra)}
    for (key, dimension), size in {**row.sizes, **row.kind}.items():
        places.setdefault(key, {})[dimension] = size
    shapes = {key: [sizes.get(place, 1) for place in range(max(sizes, default=0) + 1)] for key, sizes in places.items()}
    prefixed = row.marks[0].startswith("input_blocks") or row.extra
    return {
        f"{PREFIX}{key}" if prefixed and key not in row.extra and not key.startswith("vae.") else key: shape
        for key, shape in shapes.items()
    }


def _tensors(shapes: Mapping[str, list[int]]) -> dict[str, Any]:
    return {key: torch.empty(shape, device="meta") for key, shape in shapes.items()}


def _keys(shapes: Mapping[str, Any]) -> Keys:
    return Keys.of({key: {"shape": list(shape)} for key, shape in shapes.items()})


@pytest.mark.parametrize("row", LAYOUTS, ids=lambda row: f"{row.title} {row.assumed[:13]}")
def test_a_file_is_told_as_diffusers_tells_it(row: Layout) -> None:
    shapes = _toy(row)
    keys = _keys(shapes)
    if row.family:
        found = told(LAYOUTS, keys, row.title)
        assert found is not None
        assert (found.title, found.configs) == (row.title, row.configs)
        assert {row.family} <= families_of(LAYOUTS, keys)
    else:
        with pytest.raises(ModelError, match=f"is {row.title}, which is not served"):
            told(LAYOUTS, keys, None)
    if row.title in UNKNOWN_THERE:
        return
    if row.title.startswith("LTX-Video 0.9.") and not row.extra and row.title[-1] in "15":
        return  # diffusers needs the VAE to tell them, and the table the job's word
    if row.title.startswith("LTX-Video") and row.kind:
        shapes["vae.encoder.conv_in.conv.bias"] = [1]
    if row.title.startswith("Flux.1") and row.title != "Flux.1 schnell":
        shapes["guidance_in.in_layer.bias"] = [1]
    assert infer_diffusers_model_type(_tensors({**shapes, **BESIDE.get(row.title, {})})) == THEIRS[row.title]


def _component(folder: str, name: str) -> Any:
    config = json.loads((CONFIGS / folder / name / "config.json").read_text())
    library, class_name = json.loads((CONFIGS / folder / "model_index.json").read_text())[name]
    with torch.device("meta"):
        if library == "diffusers":
            return getattr(diffusers, class_name).from_config(config)
        cls = getattr(transformers, class_name)
        return cls(cls.config_class(**config))


_OF_UNETS = {row.configs for row in LAYOUTS if row.family.startswith("Stable Diffusion") and "3" not in row.family}


@pytest.mark.parametrize("row", [row for row in LAYOUTS if row.layers and row.configs], ids=lambda row: row.title)
def test_every_layer_of_a_published_model_is_one_of_its_layout(row: Layout) -> None:
    module = _component(row.configs, _denoiser_of(row.configs))
    weights = module.state_dict()
    if row.configs in _OF_UNETS:
        keys = ldm_unet(weights)
    elif row.title.startswith("Wan"):
        keys = wan_transformer(weights)
        read = {READ_AS.get(key, key): value for key, value in keys.items()}
        assert convert_wan_transformer_to_diffusers(read).keys() == weights.keys()
    else:
        keys = (flux2_transformer if "Klein" in row.title else flux_transformer)(weights)
    found = Keys.of({key: {"shape": list(value.shape)} for key, value in keys.items()})

    assert sum(value.numel() for value in keys.values()) == sum(value.numel() for value in weights.values())
    assert row.strange(found) == []
    assert row.strange(_keys({**found.shapes, "adapter.proj.weight": [4, 4], "adapter.norm.weight": [4]})) == [
        "adapter.proj.weight"
    ]


def _denoiser_of(folder: str) -> str:
    return "unet" if (CONFIGS / folder / "unet").is_dir() else "transformer"


@pytest.mark.parametrize("folder", sorted({row.configs for row in LAYOUTS if row.configs}))
def test_shipped_configs_are_of_their_family_and_complete(folder: str) -> None:
    index = json.loads((CONFIGS / folder / "model_index.json").read_text())
    fact = facts_of(index, lambda file: json.loads((CONFIGS / folder / file).read_text()))
    family = find_family(index["_class_name"], fact)
    assert family is not None
    assert {family.title} == {row.family for row in LAYOUTS if row.configs == folder}
    scheduler = json.loads((CONFIGS / folder / "scheduler" / "scheduler_config.json").read_text())
    known = getattr(diffusers, index["scheduler"][1])._get_init_keys(getattr(diffusers, index["scheduler"][1]))
    assert set(scheduler) - {"_class_name"} <= known
    for name in (_denoiser_of(folder), "vae"):
        config = json.loads((CONFIGS / folder / name / "config.json").read_text())
        assert config["_class_name"] == index[name][1]
        cls = getattr(diffusers, config["_class_name"])
        assert set(config) - {"_class_name"} <= cls._get_init_keys(cls)


@pytest.mark.parametrize(
    ("folder", "millions"),
    [
        ("sd15", 859.52),
        ("sd21", 865.91),
        ("sdxl", 2567.46),
        ("sdxl-refiner", 2259.53),
        ("sd3-medium", 2028.33),
        ("sd35-large", 8056.63),
        ("flux1-dev", 11901.41),
        ("flux2-klein-4b", 3875.54),
        ("qwen-image", 20430.40),
        ("z-image", 6154.91),
        ("aura-flow-0.3", 6858.61),
        ("wan21-t2v-1.3b", 1419.00),
        ("wan21-i2v-14b", 16394.88),
        ("wan22-ti2v-5b", 4999.79),
        ("ltx-0.9.0", 1923.39),
    ],
)
def test_a_shipped_denoiser_has_as_many_parameters_as_its_model_card_says(folder: str, millions: float) -> None:
    module = _component(folder, _denoiser_of(folder))

    assert sum(value.numel() for value in module.parameters()) / 1e6 == pytest.approx(millions, abs=0.01)


@pytest.mark.parametrize(
    ("folder", "convert"),
    [
        *((folder, ldm_unet) for folder in ("sd15", "sd21", "sdxl", "sdxl-refiner")),
        *((folder, flux_transformer) for folder in ("flux1-dev", "flux1-schnell", "flux1-fill")),
        ("flux2-klein-4b", flux2_transformer),
        ("aura-flow-0.3", aura_flow_transformer),
    ],
)
def test_the_published_architecture_in_its_authors_names_is_told(
    folder: str, convert: Callable[[Mapping[str, Any]], Mapping[str, Any]]
) -> None:
    weights = _component(folder, _denoiser_of(folder)).state_dict()
    shapes = {f"{PREFIX}{key}": list(value.shape) for key, value in convert(weights).items()}
    found = told(LAYOUTS, _keys(shapes), None)

    assert found is not None
    assert found.configs == folder
    assert sum(map(torch.Size.numel, map(torch.Size, shapes.values()))) == sum(v.numel() for v in weights.values())


def test_what_keys_do_not_tell_is_assumed_and_said() -> None:
    dev = next(row for row in LAYOUTS if row.title == "Flux.1 dev")
    keys = _keys(_toy(dev))

    assert told(LAYOUTS, keys, None) == dev
    assert "Kontext" in dev.assumed
    assert alternatives(LAYOUTS, dev, keys) == ["Flux.1 Kontext"]
    assert all(row.family in FAMILIES for row in LAYOUTS if row.family)


def test_clip_words_are_the_tokens_that_the_models_were_trained_with() -> None:
    tokenizer = transformers.CLIPTokenizer.from_pretrained(str(CLIP_WORDS), local_files_only=True)

    assert len(tokenizer) == 49_408
    # As printed in the documentation of OpenAI's CLIP and of diffusers.
    assert tokenizer("a photo of a cat").input_ids == [49406, 320, 1125, 539, 320, 2368, 49407]
    assert tokenizer("a diagram").input_ids == [49406, 320, 22697, 49407]
