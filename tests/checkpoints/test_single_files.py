"""A single file is described from its header alone; what is no model, or lacks something, is refused by name."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support.weights import POINTER, REFINER, SDXL, sparse, weights

from sdbatch.checkpoints import describe, pins, refuse_shared_revisions
from sdbatch.checkpoints.layouts import PREFIXES
from sdbatch.checkpoints.module_weights import module_parameters
from sdbatch.checkpoints.single_files import CONFIGS, is_single_file
from sdbatch.checkpoints.token_counts import token_counter
from sdbatch.errors import ModelError, StoreRefused
from sdbatch.job import Component, Model, parse_job
from sdbatch.storage import open_store

Shapes = dict[str, list[int]]
UNET = "model.diffusion_model."
POSITIONS = "transformer.text_model.embeddings.position_embedding.weight"
SD15: Shapes = {
    f"{UNET}input_blocks.0.0.weight": [320, 4, 3, 3],
    f"{UNET}middle_block.1.transformer_blocks.0.attn2.to_k.weight": [1280, 768],
    f"{UNET}output_blocks.11.0.skip_connection.weight": [320, 640, 1, 1],
    f"{UNET}out.2.weight": [4, 320, 3, 3],
    f"cond_stage_model.{POSITIONS}": [77, 768],
    "first_stage_model.decoder.conv_in.weight": [512, 4, 3, 3],
}
SD2: Shapes = {
    **{key: shape for key, shape in SD15.items() if not key.startswith("cond_stage_model.")},
    f"{UNET}middle_block.1.transformer_blocks.0.attn2.to_k.weight": [1280, 1024],
    "cond_stage_model.model.token_embedding.weight": [49408, 1024],
}
FLUX: Shapes = {
    "img_in.weight": [3072, 64],
    "guidance_in.in_layer.weight": [3072, 256],
    "double_blocks.0.img_attn.norm.key_norm.scale": [128],
    "double_blocks.18.img_mod.lin.weight": [18432, 3072],
    "single_blocks.37.linear2.weight": [3072, 15360],
}

WAN: Shapes = {
    "head.modulation": [1, 2, 5120],
    "head.head.weight": [64, 5120],
    "patch_embedding.weight": [5120, 16, 1, 2, 2],
    "blocks.0.self_attn.q.weight": [5120, 8],
    "blocks.0.modulation": [1, 6, 5120],
    "blocks.39.ffn.2.weight": [5120, 8],
}
CONTEXT = f"{UNET}middle_block.1.transformer_blocks.0.attn2.to_k.weight"


def _described(
    tmp_path: Path, shapes: Shapes, stored: str = "F16", metadata: dict[str, str] | None = None, **options: Any
) -> Any:
    file = tmp_path / "model.safetensors"
    sparse(file, shapes, stored, metadata)
    return describe("m", Model(path=str(file), **options), {}, with_revision=False)


def _said(tmp_path: Path, shapes: Shapes, **options: Any) -> str:
    with pytest.raises(ModelError) as refused:
        _described(tmp_path, shapes, **options)
    said = str(refused.value)
    assert said.startswith(f"models.m: {tmp_path}/model.safetensors ")
    assert "\n" not in said
    return said


def test_a_file_tells_family_size_parameters_and_dtype(tmp_path: Path) -> None:
    found = _described(tmp_path, SD15, dtype="auto")
    wide = _described(tmp_path, SDXL, dtype="auto")

    assert found.family.title == "Stable Diffusion 1.x/2.x"
    assert (found.single_file.title, found.single_file.assumed) == ("Stable Diffusion 1.5", "")
    assert (found.height, found.width, found.options.dtype) == (512, 512, "float16")
    assert found.parameters == 320 * 36 * 2 + 1280 * 768 + 320 * 640, "the denoiser's tensors alone"
    assert module_parameters(found)["unet"] == found.parameters, (
        "memory is that of the file, not of the published model"
    )
    assert (wide.family.title, wide.height) == ("Stable Diffusion XL", 1024)
    assert _described(tmp_path, SD15, "F8_E4M3", dtype="auto").options.dtype == "bfloat16"


@pytest.mark.parametrize("prefix", PREFIXES)
def test_whatever_stands_before_a_denoisers_keys_is_taken_off(tmp_path: Path, prefix: str) -> None:
    behind = {key.replace(UNET, prefix): shape for key, shape in SD15.items()}
    assert _described(tmp_path, behind).family.title == "Stable Diffusion 1.x/2.x"
    assert _described(tmp_path, behind).parameters == _described(tmp_path, SD15).parameters
    assert "is Flux.1 dev and comes without" in _said(
        tmp_path, {f"{prefix}{key}": shape for key, shape in FLUX.items()}
    )


def test_a_refiner_is_told_with_and_without_its_text_encoder(tmp_path: Path) -> None:
    whole = _described(tmp_path, REFINER, dtype="auto")
    alone = {key: shape for key, shape in REFINER.items() if key.startswith(UNET)}

    assert (whole.family.title, whole.single_file.title) == ("Stable Diffusion XL Refiner",) * 2
    assert whole.single_file.configs.endswith("sdxl-refiner")
    assert (whole.height, whole.width, whole.single_file.assumed) == (1024, 1024, "")
    said = _said(tmp_path, alone)
    assert "is Stable Diffusion XL Refiner and comes without text_encoder_2 (CLIPTextModelWithProjection), vae" in said
    vae = tmp_path / "vae"
    vae.mkdir()
    (vae / "config.json").write_text(json.dumps({"_class_name": "AutoencoderKL", "scaling_factor": 0.13025}))
    (vae / "diffusion_pytorch_model.safetensors").write_bytes(weights({"a": [1]}))
    text = tmp_path / "text"
    text.mkdir()
    (text / "config.json").write_text(json.dumps({"architectures": ["CLIPTextModelWithProjection"]}))
    (text / "model.safetensors").write_bytes(weights({"a": [1]}))
    given = {"vae": Component(path=str(vae)), "text_encoder_2": Component(path=str(text))}
    assert _described(tmp_path, alone, components=given).family == whole.family
    with pytest.raises(ModelError, match="Refiner has no text_encoder and takes none"):
        _described(tmp_path, REFINER, components={"text_encoder": Component(path=str(text))})


def test_what_keys_do_not_tell_is_said_and_like_chooses(tmp_path: Path) -> None:
    assumed = _described(tmp_path, SD2)
    chosen = _described(tmp_path, SD2, like="Stable Diffusion 2 base")

    assert assumed.single_file.assumed == (
        "taken for Stable Diffusion 2.1: its keys do not tell whether it predicts v at 768 pixels or noise at 512; "
        "like: chooses (Stable Diffusion 2.1, Stable Diffusion 2 base)"
    )
    assert (assumed.height, chosen.height, chosen.single_file.assumed) == (768, 512, "")
    v_marked = _described(tmp_path, {**SDXL, "v_pred": [0], "ztsnr": [0]})
    assert v_marked.single_file.configs.endswith("sdxl-v")
    assert _described(tmp_path, SDXL, like="Stable Diffusion XL v-prediction").single_file.configs.endswith("sdxl-v")


def test_metadata_that_say_another_prediction_are_not_passed_over(tmp_path: Path) -> None:
    predicts_v, predicts_noise = ({"modelspec.prediction_type": said} for said in ("v", "epsilon"))
    wide, like = "Stable Diffusion XL", "Stable Diffusion XL v-prediction"

    said = _said(tmp_path, SDXL, metadata=predicts_v)
    assert (
        "has the keys of Stable Diffusion XL, which predicts epsilon, and says of itself that it predicts v_pr" in said
    )
    assert f"say like: {like!r}, or like: {wide!r} where" in said
    assert _described(tmp_path, SDXL, metadata=predicts_v, like=like).single_file.title == like
    assert _described(tmp_path, SDXL, metadata=predicts_v, like=wide).single_file.title == wide
    assert _described(tmp_path, SDXL, metadata=predicts_noise).single_file.title == wide
    assert "name its folder in diffusers' layout" in _said(tmp_path, SD15, metadata=predicts_v)
    assert "say like: 'Stable Diffusion 2 base', or" in _said(tmp_path, SD2, metadata=predicts_noise)
    assert _described(tmp_path, SD2, metadata=predicts_v).single_file.title == "Stable Diffusion 2.1"


def test_like_that_contradicts_the_keys_or_is_nobodys_is_refused(tmp_path: Path) -> None:
    said = _said(tmp_path, SD15, like="Flux.1")
    assert said.endswith("has the keys of Stable Diffusion 1.5, and the job says like: 'Flux.1'")
    said = _said(tmp_path, SD15, like="Stable Difusion XL")
    assert said.endswith(
        "like: 'Stable Difusion XL' is no single file that is known; did you mean 'Stable Diffusion XL'?"
    )


def test_what_a_file_lacks_is_named_and_components_give_it(tmp_path: Path) -> None:
    said = _said(tmp_path, FLUX)
    assert said.endswith(
        "is Flux.1 dev and comes without text_encoder (CLIPTextModel), text_encoder_2 (T5EncoderModel), "
        "tokenizer_2 (T5TokenizerFast), vae (AutoencoderKL); name each in components, such as "
        "components: {text_encoder: FOLDER/text_encoder}"
    )
    whole = {
        **{f"{UNET}{key}": shape for key, shape in FLUX.items()},
        f"text_encoders.clip_l.{POSITIONS}": [77, 768],
        "text_encoders.t5xxl.transformer.shared.weight": [32128, 8],
        "vae.decoder.conv_in.weight": [512, 16, 3, 3],
    }
    assert "comes without tokenizer_2 (T5TokenizerFast); name each" in _said(tmp_path, whole)
    headless = {key: shape for key, shape in SD15.items() if not key.startswith("cond_stage_model.")}
    assert "comes without text_encoder (CLIPTextModel); name each" in _said(tmp_path, headless)
    assert "holds no safety checker" in _said(tmp_path, SD15, safety_checker=True)
    vae = tmp_path / "vae"
    vae.mkdir()
    (vae / "config.json").write_text(json.dumps({"_class_name": "AutoencoderKL"}))
    (vae / "diffusion_pytorch_model.safetensors").write_bytes(weights({"a": [1]}))
    bare = {key: shape for key, shape in SD15.items() if not key.startswith("first_stage_model.")}
    assert "comes without vae (AutoencoderKL)" in _said(tmp_path, bare)
    assert _described(tmp_path, bare, components={"vae": Component(path=str(vae))}).family.denoiser == "unet"


@pytest.mark.parametrize(
    ("shapes", "said"),
    [
        ({"lora_unet_down_blocks_0.lora_up.weight": [320, 4]}, "is a LoRA; name it under the job's loras"),
        ({"diffusion_model.blocks.0.attn.lora_A.weight": [4, 320]}, "is a LoRA; name it under the job's loras"),
        ({"decoder.conv_in.weight": [4], "encoder.conv_in.weight": [4]}, "is a VAE; name it as components.vae"),
        ({"first_stage_model.decoder.conv_in.weight": [4]}, "is a VAE; name it as components.vae"),
        ({"text_model.final_layer_norm.weight": [4]}, "is a text encoder; name it as components.text_encoder"),
        ({"encoder.block.0.layer.0.layer_norm.weight": [4]}, "is a text encoder; name it as components.text_encoder"),
        ({"control_model.time_embed.0.weight": [4], **SD15}, "is a ControlNet; name it as the entry's controlnet"),
        ({"down_blocks.0.motion_modules.0.norm.weight": [4]}, "is a motion adapter; name it as the entry's"),
        ({"down_blocks.0.resnets.0.norm1.weight": [4]}, "is one module in diffusers' layout; name its whole folder"),
        ({"emb_params": [4, 768]}, "is a textual inversion"),
        ({"strange.weight": [4]}, "has the keys of no model that is known (strange.weight)"),
        ({}, "has the keys of no model that is known (none)"),
        ({**FLUX, "double_blocks.0.img_attn.qkv.scale_weight": []}, "holds weights with scales beside them"),
        ({**FLUX, "scaled_fp8": [0]}, "holds weights with scales beside them"),
        ({**FLUX, "single_blocks.0.linear1.weight.absmax": [4]}, "holds packed 4 or 8 bit weights"),
        ({**SD15, f"{UNET}input_blocks.0.0.weight": [320, 9, 3, 3]}, "is an inpainting model of Stable Diffusion, "),
        ({**SDXL, f"{UNET}input_blocks.0.0.weight": [320, 9, 3, 3]}, "is an inpainting model of Stable Diffusion XL"),
        (
            {**SDXL, "conditioner.embedders.0.model.text_projection": [4]},
            "is laid out as Stable Diffusion XL Refiner, but input_blocks.0.0.weight has the shape [320, 4, 3, 3]",
        ),
        ({**SDXL, "edm_mean": [4]}, "is Playground 2.5, which is not served"),
        ({**SDXL, "edm_vpred.sigma_max": []}, "is CosXL, which is not served from a single file"),
        (
            {**SDXL, f"{UNET}input_blocks.0.0.weight": [320, 8, 3, 3]},
            "is InstructPix2Pix of Stable Diffusion XL",
        ),
        ({**SDXL, f"{UNET}label_emb.0.0.weight": [1280, 5632]}, "is Kolors, which is not served"),
        ({**SDXL, CONTEXT: [1280, 1024]}, "is Stable Diffusion 2.1 unCLIP, which is not served"),
        ({**SD15, f"{UNET}input_blocks.0.0.weight": [320, 5, 3, 3]}, "is a depth model of Stable Diffusion, which"),
        ({**SD15, "v_pred": []}, "is Stable Diffusion 1.5 that predicts v, which is not served"),
        ({**SD15, f"{UNET}time_embed.cond_proj.weight": [320, 256]}, "is a latent consistency model that is told its"),
        ({**SDXL, f"{UNET}time_embed.cond_proj.weight": [320, 256]}, "is a latent consistency model that is told its"),
        (
            {**FLUX, "pulid_ca.0.to_q.weight": [2048, 3072], "pulid_ca.0.norm1.weight": [3072]},
            "has the keys of Flux.1 dev, and 1 layers that it does not have, such as pulid_ca.0.to_q.weight",
        ),
        (
            {**WAN, "blocks.0.cam_encoder.weight": [5120, 12]},
            "1 layers that it does not have, such as blocks.0.cam",
        ),
        (
            {**WAN, "audio_proj.proj1.weight": [512, 5]},
            "1 layers that it does not have, such as audio_proj.proj1",
        ),
        (
            {**SD15, f"{UNET}input_blocks.0.0.weight": [160, 4, 3, 3]},
            "but input_blocks.0.0.weight has the shape [160, 4, 3, 3], not 320 in place 0; name a folder of its own",
        ),
    ],
)
def test_a_file_that_is_no_model_is_refused_with_what_it_is(tmp_path: Path, shapes: Shapes, said: str) -> None:
    assert said in _said(tmp_path, shapes)


def test_a_file_in_whole_numbers_is_refused(tmp_path: Path) -> None:
    assert f"holds weights in whole numbers ({UNET}input_blocks.0.0.weight in U8)" in _said(tmp_path, SD15, stored="U8")


def test_damaged_files_and_other_forms_are_refused(tmp_path: Path) -> None:
    file = tmp_path / "m.safetensors"
    whole = weights({"a": [100]})
    for data, said in (
        (POINTER, "is a git-lfs pointer and not the file; run `git lfs pull`"),
        (whole[:-10], "was cut off"),
        (b"\0" * 4, "is not a safetensors file: it has no header"),
    ):
        file.write_bytes(data)
        with pytest.raises(ModelError, match=rf"models\.m: {file}.* {said}"):
            describe("m", Model(path=str(file)), {})
    for name, said in (
        ("m.ckpt", "is a pickle, which can run code and is never opened; take the .safetensors file"),
        ("m.gguf", r"holds the denoiser alone; .* this file as components\.transformer"),
        ("m.sft", r"is a safetensors file by another ending; call it \.safetensors"),
        ("m.safetensors.index.json", "is an index of shards; name the folder"),
        ("m-00001-of-00002.safetensors", "is one shard of several; name the folder that they lie in, or one file"),
        ("gone.safetensors", "is not there"),
    ):
        with pytest.raises(ModelError, match=rf"models\.m: {tmp_path}/{name} {said}"):
            describe("m", Model(path=str(tmp_path / name)), {})


def test_a_link_that_leads_back_to_itself_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "m.safetensors").symlink_to("m.safetensors")

    with pytest.raises(StoreRefused, match=r"m\.safetensors: is a link that leads back to itself; put the file itself"):
        describe("m", Model(path=str(tmp_path / "m.safetensors")), {})


def test_a_config_of_ones_own_counts_and_must_be_of_the_same_family(tmp_path: Path) -> None:
    own = tmp_path / "own"
    for file in (CONFIGS / "sd15").rglob("*.json"):
        (own / file.relative_to(CONFIGS / "sd15")).parent.mkdir(parents=True, exist_ok=True)
        (own / file.relative_to(CONFIGS / "sd15")).write_bytes(file.read_bytes())
    narrow = {**SD15, f"{UNET}input_blocks.0.0.weight": [160, 4, 3, 3]}

    assert _described(tmp_path, narrow, config=str(own)).single_file.configs == str(own)
    said = _said(tmp_path, FLUX, config=str(own))
    assert said.endswith(f"has the keys of Flux.1 dev, and its config {own} is of Stable Diffusion 1.x/2.x")
    assert "no model_index.json there" in _said(tmp_path, SD15, config=str(tmp_path / "nowhere"))
    index = json.loads((own / "model_index.json").read_text())
    (own / "model_index.json").write_text(json.dumps({**index, "unet": ["evil", "Evil"]}))
    assert "component 'unet' is of 'evil'" in _said(tmp_path, SD15, config=str(own))


def test_file_and_configs_are_one_identity(tmp_path: Path) -> None:
    def found(**options: Any) -> Any:
        return describe("m", Model(path=str(tmp_path / "model.safetensors"), **options), {})

    small = {**SD15, f"{UNET}output_blocks.11.0.skip_connection.weight": [320, 1, 1, 1]}
    sparse(tmp_path / "model.safetensors", small)
    plain = found()
    (pin,) = pins(parse_job({"manifest": ".", "output": ".", "models": {"m": {"path": plain.path}}}))
    own = tmp_path / "own"
    for file in (CONFIGS / "sd15").rglob("*.json"):
        (own / file.relative_to(CONFIGS / "sd15")).parent.mkdir(parents=True, exist_ok=True)
        (own / file.relative_to(CONFIGS / "sd15")).write_bytes(file.read_bytes())

    assert pin.revision == plain.single_file.revision != plain.revision
    assert found(revision=pin.revision).revision == plain.revision, "pinning moves no key"
    assert found(config=str(own)).revision == plain.revision, "equal configs are equal wherever they lie"
    scheduler = own / "scheduler" / "scheduler_config.json"
    scheduler.write_text(scheduler.read_text().replace("0.012", "0.013"))
    assert found(config=str(own)).revision != plain.revision
    sparse(tmp_path / "model.safetensors", {**small, "first_stage_model.more": [1]})
    assert found().revision != plain.revision
    commit = found(revision="5" * 40)
    assert commit.is_pinned
    other = tmp_path / "other.safetensors"
    other.write_bytes((tmp_path / "model.safetensors").read_bytes())
    second = describe("n", Model(path=str(other), revision="5" * 40), {})
    assert second.revision != commit.revision, "a commit holds files of many names"
    refuse_shared_revisions([commit, second], {})


def test_names_that_end_like_a_file_are_files_but_for_folders(tmp_path: Path) -> None:
    (tmp_path / "folder.safetensors").mkdir()

    assert not is_single_file(str(tmp_path / "folder.safetensors"))
    assert is_single_file("s3://models/Juggernaut.SafeTensors")
    assert not is_single_file("builtin:tiny-sd")
    with pytest.raises(ModelError, match=r"models\.m\.variant: .* is a single file and has no variants"):
        describe("m", Model(path="s3://m/a.safetensors", variant="fp16"), {})
    with pytest.raises(ModelError, match=r"models\.m\.family: .* say like: instead"):
        describe("m", Model(path="s3://m/a.safetensors", family="Stable Diffusion XL", revision="5" * 40), {})


def test_prompts_are_counted_with_the_words_of_clip(tmp_path: Path) -> None:
    counter = token_counter(_described(tmp_path, SD15))

    assert counter is not None
    assert counter._count("a photo of a cat") == 7


@pytest.mark.s3
def test_a_file_in_a_bucket_is_told_by_its_header(s3_endpoint: str, tmp_path: Path) -> None:
    small = {**SD15, f"{UNET}output_blocks.11.0.skip_connection.weight": [320, 1, 1, 1]}
    sparse(tmp_path / "model.safetensors", small)
    open_store("s3://campaigns/single", {}).put("m.safetensors", (tmp_path / "model.safetensors").read_bytes())
    found = describe("m", Model(path="s3://campaigns/single/m.safetensors"), {})

    assert (found.single_file.title if found.single_file else "", found.is_pinned) == ("Stable Diffusion 1.5", False)


def test_check_tells_the_family_without_torch_and_says_what_it_assumed(
    tmp_path: Path, write_manifest: Callable[..., str], job_of: Callable[..., dict[str, Any]]
) -> None:
    sparse(tmp_path / "two.safetensors", SD2)
    sparse(tmp_path / "sd.safetensors", SD15)
    models = {name: {"path": str(tmp_path / f"{name}.safetensors"), "batch_size": 1} for name in ("sd", "two")}
    rows = [{"id": name, "prompt": "a fox", "model": name} for name in models]
    script = (
        "import json, sys, sdbatch\n"
        "found = sdbatch.check(json.loads(sys.argv[1]))\n"
        "print(json.dumps([found.models, found.lines(), sorted({'torch', 'diffusers', 'ray'} & sys.modules.keys())]))"
    )
    job = json.dumps(job_of(write_manifest(rows), models=models))
    done = subprocess.run([sys.executable, "-c", script, job], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    families, warnings, heavy = json.loads(done.stdout)

    assert families == dict.fromkeys(models, "Stable Diffusion 1.x/2.x")
    assert heavy == []
    (warning,) = warnings
    assert warning.startswith(f"models.two: {tmp_path}/two.safetensors is taken for Stable Diffusion 2.1: its keys do")
