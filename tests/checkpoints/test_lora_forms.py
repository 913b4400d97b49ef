"""A file is told by its keys to be no LoRA, or one of another family, where a job is checked."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import Any

import pytest
import torch
from support.toy_loras import write_lora
from support.weights import weights

from sdbatch.checkpoints import LoraInfo, describe_lora
from sdbatch.checkpoints.lora_modules import MODULES, strange_keys
from sdbatch.errors import ModelError
from sdbatch.families import FAMILIES
from sdbatch.job import Lora

SD, SDXL, FLUX, WAN = "Stable Diffusion 1.x/2.x", "Stable Diffusion XL", "Flux.1", "Wan 2.2 T2V A14B"
OF_UNET = "lora_unet_down_blocks_1_attentions_0_transformer_blocks_0_attn2_to_k.lora_down.weight"
OF_UNET_TOO = "unet.down_blocks.1.attentions.0.transformer_blocks.0.attn2.to_k.lora_A.weight"
OF_FLUX = "lora_unet_double_blocks_0_img_attn_proj.lora_down.weight"
OF_PEFT = "base_model.model.transformer_blocks.0.attn.to_k.lora_A.weight"
OF_WAN = "diffusion_model.blocks.0.cross_attn.k.lora_A.weight"


def _described(tmp_path: Path, shapes: dict[str, list[int]], base: str) -> LoraInfo:
    (tmp_path / "a.safetensors").write_bytes(weights(shapes))
    return describe_lora("l", Lora(path=str(tmp_path), weight_name="a.safetensors", base=base), {})


@pytest.mark.parametrize(
    ("shapes", "base", "says"),
    [
        ({"conv_in.weight": [4, 4]}, SD, "holds no LoRA: of its 1 keys none names one, such as conv_in.weight"),
        ({"emb_params": [2, 768]}, SD, "holds no LoRA: of its 1 keys none names one, such as emb_params"),
        ({}, SD, "holds no LoRA: of its 0 keys none names one"),
        (
            {OF_UNET: [4, 768]},
            FLUX,
            f"of another denoiser: Flux.1 has a transformer, and its keys are such as {OF_UNET}",
        ),
        ({OF_FLUX: [4, 64]}, SDXL, f"of another denoiser: {SDXL} has a unet, and its keys are such as {OF_FLUX}"),
        ({OF_WAN: [4, 64]}, SD, "is a LoRA of another denoiser: "),
        ({OF_UNET: [4, 2048]}, SD, f"is a LoRA of {SDXL}, whose texts are 2048 wide ({OF_UNET}), and base says {SD}"),
        ({OF_PEFT: [4, 64]}, WAN, f"is as peft itself writes it ({OF_PEFT}): lora_alpha, which scales it, stands in"),
        ({OF_PEFT: [4, 64]}, FLUX, "is as peft itself writes it"),
        ({OF_UNET_TOO: [4, 768]}, SDXL, f"is a LoRA of {SD}, whose texts are 768 wide ({OF_UNET_TOO}), and base says"),
    ],
)
def test_what_is_no_lora_of_its_base_is_refused(
    shapes: dict[str, list[int]], base: str, says: str, tmp_path: Path
) -> None:
    with pytest.raises(ModelError) as refused:
        _described(tmp_path, shapes, base)
    assert str(refused.value).startswith(f"loras.l: {tmp_path}/a.safetensors ")
    assert says in str(refused.value)


@pytest.mark.parametrize(
    ("shapes", "base"),
    [
        ({OF_UNET: [4, 768]}, SD),
        ({OF_UNET: [4, 1024]}, SD),
        ({OF_UNET_TOO: [4, 2048]}, SDXL),
        ({OF_FLUX: [4, 64]}, FLUX),
        ({OF_WAN: [4, 64]}, WAN),
        ({"base_model.model.double_blocks.0.img_attn.proj.lora_A.weight": [4, 64]}, FLUX),
        ({OF_PEFT: [4, 64]}, "Flux.2 Klein"),
        ({"double_blocks.0.processor.proj_lora1.down.weight": [4, 64]}, FLUX),
        ({"lora_te_text_model_encoder_layers_0_mlp_fc1.lora_up.weight": [4, 4]}, SD),
        ({"lora_unet_mid_block_attentions_0_proj_in.lokr_w1": [4, 4]}, SDXL),
        ({"diffusion_model.blocks.0.norm3.diff_b": [4]}, WAN),
    ],
)
def test_what_may_be_a_lora_of_its_base_is_taken(shapes: dict[str, list[int]], base: str, tmp_path: Path) -> None:
    assert not _described(tmp_path, shapes, base).left_out


FACTORS = {OF_WAN: [4, 64], OF_WAN.replace("lora_A", "lora_B"): [64, 4]}
OF_JOINT = "lora_unet_joint_blocks_0_x_block_attn_proj.lora_down.weight"
NORM = "diffusion_model.blocks.0.norm3.diff"
TIME = "diffusion_model.time_projection.1.diff_b"


def _left_out(tmp_path: Path, keys: Collection[str], zeros: Collection[str], base: str, **how: Any) -> str:
    tensors = {key: torch.zeros(4, 4) if key in zeros else torch.ones(4, 4) for key in keys}
    file = write_lora(tmp_path / "a.safetensors", tensors)
    return describe_lora("l", Lora(path=str(tmp_path), weight_name=file.name, base=base, **how), {}).left_out


@pytest.mark.parametrize(
    ("keys", "base", "says"),
    [
        (
            [OF_FLUX],
            WAN,
            f"is no whole LoRA of {WAN}: of its 1 keys 1 fit no module ({OF_FLUX}); name one that was mad",
        ),
        ([OF_WAN], FLUX, f"is no whole LoRA of Flux.1: of its 1 keys 1 fit no module ({OF_WAN})"),
        ([OF_JOINT], "Stable Diffusion 3/3.5", "of its 1 keys 1 fit no module"),
        ([*FACTORS, NORM], WAN, f"of its 3 keys 1 would be left out by diffusers ({NORM}); partial: allow applies the"),
        ([*FACTORS, TIME], WAN, f"of its 3 keys 1 would be left out by diffusers ({TIME})"),
    ],
)
def test_a_lora_whose_keys_no_pipeline_of_its_base_applies_is_refused_unless_they_change_nothing(
    keys: list[str], base: str, says: str, tmp_path: Path
) -> None:
    assert says in _left_out(tmp_path, keys, (), base)
    assert not _left_out(tmp_path, keys, keys, base)


def test_a_part_of_a_lora_is_enough_where_the_job_says_so(tmp_path: Path) -> None:
    assert not _left_out(tmp_path, [*FACTORS, NORM], (), WAN, partial="allow")
    assert not _left_out(tmp_path, [*FACTORS, OF_FLUX], (), WAN, partial="allow")
    assert "fit no module" in _left_out(tmp_path, [OF_FLUX], (), WAN, partial="allow")


def test_the_change_of_a_time_projection_with_factors_is_applied(tmp_path: Path) -> None:
    factors = [TIME.replace("diff_b", f"{name}.weight") for name in ("lora_A", "lora_B")]
    assert not _left_out(tmp_path, [*FACTORS, TIME, *factors], (), WAN)


def test_the_table_of_modules_knows_every_family_of_a_transformer_that_takes_loras() -> None:
    of_transformers = [
        title
        for title, family in FAMILIES.items()
        if family.denoiser == "transformer" and any("loras" in route.arguments for route in family.routes)
    ]
    assert of_transformers
    for title in of_transformers:
        assert strange_keys(["lora_unet_down_blocks_0.alpha"], title), title
    assert all(any(title.startswith(start) for title in FAMILIES) for start in MODULES)
