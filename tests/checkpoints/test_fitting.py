"""What is laid over a model fits it by its sizes, and one file is the module that it stands for; without torch."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import gguf
import pytest
import torch
from safetensors.torch import load_file, save_file
from support.original_layout import flux_transformer, klein_file, ldm_unet, sd_file
from support.toy_clips import make_cogvideox, make_ltx, make_motion_adapter, make_wan_t2v_a14b, make_wan_vace
from support.toy_controlnets import (
    make_tiny_flux_controlnet,
    make_tiny_qwen_controlnet,
    make_tiny_sd3_controlnet,
    make_tiny_union_controlnet,
    make_tiny_zimage_controlnet,
)
from support.toy_models import (
    make_tiny_chroma,
    make_tiny_controlnet,
    make_tiny_flux,
    make_tiny_klein,
    make_tiny_qwen,
    make_tiny_sana,
    make_tiny_sd3,
    make_tiny_sdxl,
    make_tiny_zimage,
)
from support.toy_parts import make_gguf

from sdbatch.checkpoints import describe
from sdbatch.checkpoints.fitting import _MARKS, file_fault
from sdbatch.checkpoints.gguf import TYPES, read_gguf
from sdbatch.checkpoints.headers import read_header
from sdbatch.errors import ModelError
from sdbatch.generate.random_weights import make_tiny_random
from sdbatch.job import Model
from sdbatch.storage import open_store

WEIGHTS = "diffusion_pytorch_model.safetensors"
MAKERS: dict[str, Callable[[Path], object]] = {
    "sd": make_tiny_random,
    "sdxl": partial(make_tiny_sdxl, width_2=48),
    "flux": make_tiny_flux,
    "klein": make_tiny_klein,
    "control": make_tiny_controlnet,
    "motion": make_motion_adapter,
}
MORE: dict[str, Callable[[Path], object]] = {
    "sd3": make_tiny_sd3,
    "chroma": make_tiny_chroma,
    "qwen": make_tiny_qwen,
    "zimage": make_tiny_zimage,
    "wan": make_wan_t2v_a14b,
    "vace": make_wan_vace,
    "ltx": make_ltx,
    "union of controls": make_tiny_union_controlnet,
    "flux' control": make_tiny_flux_controlnet,
    "sd3's control": make_tiny_sd3_controlnet,
    "qwen's control": make_tiny_qwen_controlnet,
    "zimage's control": make_tiny_zimage_controlnet,
}


@pytest.fixture(scope="module")
def toys(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("toys")
    for name, make in MAKERS.items():
        make(root / name)
    sd_file(root / "sd", root / "sd.safetensors")
    klein_file(root / "klein", root / "klein.safetensors")
    make_gguf(root / "sd" / "unet" / WEIGHTS, root / "sd.gguf")
    return root


def _refusal(toys: Path, model: str, **entry: Any) -> str:
    with pytest.raises(ModelError) as refused:
        describe("m", Model.model_validate({"path": str(toys / model), **entry}), {}, with_revision=False)
    said = str(refused.value)
    assert "\n" not in said
    assert said.startswith("models.m.")
    return said


@pytest.mark.parametrize(
    ("model", "components", "says"),
    [
        ("flux", {"vae": "sd/vae"}, "its block_out_channels is 2 stages, and that of the model's own vae is 4 stages"),
        (
            "sd",
            {"text_encoder": "sdxl/text_encoder_2"},
            "its hidden_size is 48, and that of the text_encoder that the unet was made for is 32; name one made for",
        ),
        ("sdxl", {"unet": "sd/unet"}, "its cross_attention_dim is 32, and that of the model's own unet is "),
        ("sdxl", {"controlnet": "control"}, "its cross_attention_dim is 32, and that of the unet that it works in is "),
        (
            "sd",
            {"controlnet": "sd/unet"},
            "is a UNet2DConditionModel; as controlnet Stable Diffusion 1.x/2.x takes Cont",
        ),
        (
            "sd",
            {"motion_adapter": "control"},
            "is a ControlNetModel; as motion_adapter Stable Diffusion 1.x/2.x takes M",
        ),
    ],
)
def test_a_component_of_other_sizes_is_refused_with_both(
    model: str, components: dict[str, str], says: str, toys: Path
) -> None:
    assert says in _refusal(toys, model, components={name: str(toys / path) for name, path in components.items()})


def test_a_vae_whose_latents_are_scaled_otherwise_is_refused_and_one_that_says_nothing_has_the_usual_scale(
    toys: Path, tmp_path: Path
) -> None:
    vae = Path(shutil.copytree(toys / "sd" / "vae", tmp_path / "vae"))
    config = json.loads((vae / "config.json").read_text())
    silent = {key: value for key, value in config.items() if key != "scaling_factor"}
    assert config["scaling_factor"] == 0.18215
    for stated in (config, silent):
        (vae / "config.json").write_text(json.dumps(stated))
        assert describe("m", Model.model_validate({"path": str(toys / "sd"), "components": {"vae": str(vae)}}), {})

    (vae / "config.json").write_text(json.dumps({**config, "scaling_factor": 0.13025}))
    said = _refusal(toys, "sd", components={"vae": str(vae)})
    assert "its scaling_factor is 0.13025, and that of the vae that the unet was made for is 0.18215; name one" in said
    (vae / "config.json").write_text(json.dumps({**config, "scaling_factor": 0.13025}))
    both = {"vae": str(vae), "unet": str(toys / "sd" / "unet")}
    assert describe("m", Model.model_validate({"path": str(toys / "sd"), "components": both}), {})


@pytest.mark.parametrize("value", [None, 0, "0.18215", True], ids=json.dumps)
@pytest.mark.parametrize("is_laid_over", [False, True])
def test_a_vae_whose_latents_cannot_be_scaled_is_refused(
    is_laid_over: bool, value: Any, toys: Path, tmp_path: Path
) -> None:
    model = Path(shutil.copytree(toys / "sd", tmp_path / "sd"))
    config = json.loads((model / "vae" / "config.json").read_text())
    (model / "vae" / "config.json").write_text(json.dumps({**config, "scaling_factor": value}))

    said = _refusal(toys, "sd", components={"vae": str(model / "vae")}) if is_laid_over else _refusal(tmp_path, "sd")
    assert f"scaling_factor is {json.dumps(value)} in its config.json, which is to be a number over 0" in said


@pytest.mark.parametrize(
    ("make", "change", "own", "over"),
    [
        (make_tiny_sana, {"scaling_factor": None}, "scaling_factor is null in its", "scaling_factor is null in its"),
        (make_tiny_sana, {"scaling_factor": 0.3189}, "", "its scaling_factor is 0.3189, and that of the vae that the"),
        (make_cogvideox, {"scaling_factor": 0.7}, "", "its scaling_factor is 0.7, and that of the vae that the"),
        (
            make_tiny_qwen,
            {"latents_mean": [0.0] * 3},
            "latents_mean in its config.json is no list of 4 numbers, one for each channel",
            "latents_mean in its config.json is no list of 4 numbers",
        ),
        (make_tiny_qwen, {"latents_std": None}, "latents_std in its config.json is no l", "latents_std in its config."),
        (
            make_tiny_qwen,
            {"latents_mean": [0.0, 0.5, 0.0, 0.0]},
            "",
            "its latents_mean is 0.5 for a channel, and that of the vae that the transformer was made for is 0.0 for a",
        ),
    ],
)
def test_a_vae_of_another_class_that_scales_otherwise_is_refused(
    make: Callable[[Path], object], change: dict[str, Any], own: str, over: str, tmp_path: Path
) -> None:
    make(tmp_path / "model")
    vae = Path(shutil.copytree(tmp_path / "model" / "vae", tmp_path / "vae"))
    assert describe("m", Model.model_validate({"path": str(tmp_path / "model"), "components": {"vae": str(vae)}}), {})
    config = json.loads((vae / "config.json").read_text())
    (vae / "config.json").write_text(json.dumps({**config, **change}))

    assert over in _refusal(tmp_path, "model", components={"vae": str(vae)})
    shutil.copy(vae / "config.json", tmp_path / "model" / "vae" / "config.json")
    if own:
        assert own in _refusal(tmp_path, "model")
    else:
        assert describe("m", Model(path=str(tmp_path / "model")), {})


def test_a_shift_of_null_is_none_beside_one(toys: Path, tmp_path: Path) -> None:
    vae = Path(shutil.copytree(toys / "sd" / "vae", tmp_path / "vae"))
    model = Path(shutil.copytree(toys / "sd", tmp_path / "sd"))
    config = json.loads((vae / "config.json").read_text())
    (model / "vae" / "config.json").write_text(json.dumps({**config, "shift_factor": 0.1159}))
    (vae / "config.json").write_text(json.dumps({**config, "shift_factor": None}))

    said = _refusal(tmp_path, "sd", components={"vae": str(vae)})
    assert "its shift_factor is 0.0, and that of the vae that the unet was made for is 0.1159" in said


def test_a_denoiser_that_predicts_otherwise_than_the_scheduler_takes_it_for_is_refused(
    toys: Path, tmp_path: Path
) -> None:
    weights, marked = load_file(toys / "sd" / "unet" / WEIGHTS), tmp_path / "marked.safetensors"
    save_file({**weights, "v_pred": torch.zeros(0)}, marked)
    save_file(weights, tmp_path / "told.safetensors", metadata={"modelspec.prediction_type": "v"})
    scheduler = Path(shutil.copytree(toys / "sd" / "scheduler", tmp_path / "scheduler"))
    config = json.loads((scheduler / "scheduler_config.json").read_text())
    (scheduler / "scheduler_config.json").write_text(json.dumps({**config, "prediction_type": "v_prediction"}))
    preset = {"v": {"class": "DDIMScheduler", "prediction_type": "v_prediction"}}

    for file in (marked, tmp_path / "told.safetensors"):
        said = _refusal(toys, "sd", components={"unet": str(file)})
        assert f"unet: {file}: says of itself that it predicts v_prediction (modelspec" in said
        alone, both = {"unet": str(file)}, {"unet": str(file), "scheduler": str(scheduler)}
        for entry in ({"components": alone, "schedulers": preset}, {"components": both}):
            assert describe("m", Model.model_validate({"path": str(toys / "sd"), **entry}), {}, with_revision=False)


@pytest.mark.parametrize("value", [None, "0.1", ...], ids=str)
def test_a_vae_without_the_shift_that_its_model_adds_is_refused(value: Any, toys: Path, tmp_path: Path) -> None:
    model = Path(shutil.copytree(toys / "flux", tmp_path / "flux"))
    config = json.loads((model / "vae" / "config.json").read_text())
    stated = {**config, "shift_factor": value}
    (model / "vae" / "config.json").write_text(json.dumps({k: v for k, v in stated.items() if v is not ...}))

    said = f"vae: shift_factor is {json.dumps(value if value is not ... else None)} in its config.json, and Flux.1 adds"
    assert said in _refusal(tmp_path, "flux")
    both = {"vae": str(model / "vae"), "transformer": str(model / "transformer")}
    assert "shift_factor is" in _refusal(toys, "flux", components=both)


def test_a_component_may_differ_where_its_counterpart_comes_with_it(toys: Path, tmp_path: Path) -> None:
    both = {"unet": str(toys / "sdxl" / "unet"), "text_encoder": str(toys / "sdxl" / "text_encoder")}

    info = describe("m", Model(path=str(toys / "sd"), components=both), {}, with_revision=False)  # type: ignore[arg-type]
    assert info.components.keys() == both.keys()
    fitting = {"controlnet": str(toys / "control"), "motion_adapter": str(toys / "motion")}
    assert describe("m", Model(path=str(toys / "sd"), components=fitting), {}).components  # type: ignore[arg-type]
    motion = Path(shutil.copytree(toys / "motion", tmp_path / "motion"))
    config = json.loads((motion / "config.json").read_text())
    (motion / "config.json").write_text(json.dumps({**config, "block_out_channels": [32]}))
    said = _refusal(toys, "sd", motion_adapter=str(motion))
    assert "its block_out_channels is [32], and that of the unet that it works in is [" in said


@pytest.mark.parametrize(
    ("model", "components", "says"),
    [
        ("flux", {"transformer": "sd.safetensors"}, "; it has the keys of Stable Diffusion 1.5"),
        ("flux", {"transformer": "klein.safetensors"}, "; it has the keys of Flux.2 Klein 4B"),
        ("flux", {"transformer": "flux/text_encoder_2/model.safetensors"}, "is no FluxTransformer2DModel: it has no "),
        ("flux", {"transformer": "sd.gguf"}, "is no FluxTransformer2DModel: it has no single_transformer_blocks.0."),
        ("flux", {"vae": f"flux/transformer/{WEIGHTS}"}, "is no AutoencoderKL: it has no decoder.conv_in.weight"),
        (
            "flux",
            {"text_encoder": "flux/text_encoder_2/model.safetensors"},
            "is no CLIPTextModel: it has no text_model.",
        ),
        (
            "sd",
            {"vae": f"wide/{WEIGHTS}"},
            "its decoder.conv_in.weight has the shape [16, 7, 3, 3], and latent_channels",
        ),
    ],
)
def test_a_file_that_is_another_module_is_told_by_its_header(
    model: str, components: dict[str, str], says: str, toys: Path
) -> None:
    if "wide" in str(components):
        (toys / "wide").mkdir()
        weights = load_file(toys / "sd" / "vae" / WEIGHTS)
        first = weights["decoder.conv_in.weight"]
        wider = first.new_zeros((16, 7, 3, 3))
        save_file({**weights, "decoder.conv_in.weight": wider}, toys / "wide" / WEIGHTS)
    assert says in _refusal(toys, model, components={name: str(toys / path) for name, path in components.items()})


def test_a_guided_file_over_an_unguided_folder_is_refused_and_the_other_way_round(toys: Path, tmp_path: Path) -> None:
    config = json.loads((toys / "flux" / "transformer" / "config.json").read_text())
    weights = load_file(toys / "flux" / "transformer" / WEIGHTS)
    save_file(flux_transformer(weights), tmp_path / "dev.safetensors")
    store = open_store(str(tmp_path), {})
    shapes = {key: one["shape"] for key, one in read_header(store, store.stat("dev.safetensors")).tensors.items()}
    unguided = {key: shape for key, shape in shapes.items() if "guidance" not in key}

    assert config["guidance_embeds"]
    assert file_fault("FluxTransformer2DModel", config, shapes) == ""
    assert file_fault("FluxTransformer2DModel", {**config, "guidance_embeds": False}, shapes) == (
        "has guidance_in.in_layer.weight, and guidance_embeds is false in its config.json; name that of its model"
    )
    assert file_fault("FluxTransformer2DModel", config, unguided).startswith(
        "has no time_text_embed.guidance_embedder."
    )


@pytest.mark.parametrize(
    ("class_name", "shapes", "lacks"),
    [
        ("AutoencoderKL", {"decoder.conv_in.weight": [16, 4, 3, 3]}, "encoder.conv_in.weight"),
        ("AutoencoderKLWan", {"decoder.conv1.weight": [16, 4, 3, 3, 3]}, "encoder.conv1.weight"),
        ("CLIPTextModelWithProjection", {"text_model.embeddings.token_embedding.weight": [9, 8]}, "text_projection."),
        ("Qwen2_5_VLForConditionalGeneration", {"model.embed_tokens.weight": [9, 8]}, "visual.patch_embed."),
        ("WanVACETransformer3DModel", {"time_projection.1.weight": [9, 8]}, "vace_blocks.0.after_proj.weight"),
    ],
)
def test_a_file_with_a_part_of_a_module_is_refused(class_name: str, shapes: dict[str, list[int]], lacks: str) -> None:
    fault = file_fault(class_name, {}, shapes)

    assert fault.startswith("is a part of one: it has no ")
    assert lacks in fault
    assert file_fault(class_name, {}, {**shapes, **{name: [1] for name in fault.replace(",", "").split()}}) == ""


def test_a_controlnet_s_file_of_another_program_is_refused(tmp_path: Path) -> None:
    """XLabs' names of Flux' ControlNets, whose config.json is that of diffusers' beside it."""
    make_tiny_flux_controlnet(tmp_path / "net")
    save_file({"controlnet_blocks.0.weight": torch.ones(4, 4)}, tmp_path / "flux-canny.safetensors")
    make_tiny_flux(tmp_path / "flux")

    said = _refusal(
        tmp_path, "flux", controlnet={"path": str(tmp_path / "flux-canny.safetensors"), "config": str(tmp_path / "net")}
    )

    assert "is no FluxControlNetModel: it has no controlnet_x_embedder.weight" in said


def test_a_text_encoder_that_reads_longer_texts_and_one_shard_are_refused(toys: Path, tmp_path: Path) -> None:
    weights = load_file(toys / "sd" / "text_encoder" / "model.safetensors")
    (name,) = (key for key in weights if key.endswith("position_embedding.weight"))
    longer = {**weights, name: torch.cat([weights[name]] * 2)}
    for file, tensors in (("long.safetensors", longer), ("model-00001-of-00002.safetensors", weights)):
        save_file(tensors, tmp_path / file)

    long, shard = (
        _refusal(toys, "sd", components={"text_encoder": str(tmp_path / file)})
        for file in ("long.safetensors", "model-00001-of-00002.safetensors")
    )
    assert (
        f"{name} has the shape {list(longer[name].shape)}, and max_position_embeddings is {len(weights[name])}" in long
    )
    assert "is one shard of several; name one file with all weights, or the folder" in shard


def _every_module(root: Path) -> dict[str, tuple[str, dict[str, Any], dict[str, Any]]]:
    found = {}
    for path in sorted(root.rglob("*.safetensors")):
        config_file = path.parent / "config.json"
        if not config_file.is_file():
            continue
        config = json.loads(config_file.read_text())
        class_name = config.get("_class_name") or config["architectures"][0]
        store = open_store(str(path.parent), {})
        tensors = read_header(store, store.stat(path.name)).tensors
        found[str(path)] = (class_name, config, {key: one["shape"] for key, one in tensors.items()})
    return found


def test_every_class_that_is_asked_for_marks_has_them(toys: Path, tmp_path: Path) -> None:
    for name, make in MORE.items():
        make(tmp_path / name)
    modules = {**_every_module(toys), **_every_module(tmp_path)}

    for path, (class_name, config, shapes) in modules.items():
        assert file_fault(class_name, config, shapes) == "", path
    seen = {class_name for class_name, _, _ in modules.values()}
    assert seen >= _MARKS.keys() - {"CLIPTextModelWithProjection", "Qwen3Model", "Qwen3ForCausalLM"}
    unet = {key: [1] for key in ldm_unet(load_file(toys / "sd" / "unet" / WEIGHTS))}
    assert "is no UNet2DConditionModel" not in file_fault("UNet2DConditionModel", {}, unet)


def test_the_bytes_of_gguf_types_are_those_of_the_package(toys: Path) -> None:
    theirs = {kind.name: size for kind, size in gguf.GGML_QUANT_SIZES.items()}

    assert all(theirs[name] == tuple(size) for name, *size in TYPES.values())
    header = read_gguf(open_store(str(toys), {}), "sd.gguf")
    tensors = gguf.GGUFReader(str(toys / "sd.gguf")).tensors
    assert {name: list(shape) for name, shape in header.shapes.items()} == {
        one.name: list(reversed(one.shape.tolist())) for one in tensors
    }
    assert header.file_bytes <= (toys / "sd.gguf").stat().st_size < header.file_bytes + 32
