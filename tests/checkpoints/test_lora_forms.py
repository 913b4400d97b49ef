"""A file is told by its keys to be no LoRA, or one of another family, where a job is checked."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.weights import weights

from sdbatch.checkpoints import describe_lora
from sdbatch.errors import ModelError
from sdbatch.job import Lora

SD, SDXL, FLUX, WAN = "Stable Diffusion 1.x/2.x", "Stable Diffusion XL", "Flux.1", "Wan 2.2 T2V A14B"
OF_UNET = "lora_unet_down_blocks_1_attentions_0_transformer_blocks_0_attn2_to_k.lora_down.weight"
OF_UNET_TOO = "unet.down_blocks.1.attentions.0.transformer_blocks.0.attn2.to_k.lora_A.weight"
OF_FLUX = "lora_unet_double_blocks_0_img_attn_proj.lora_down.weight"
OF_PEFT = "base_model.model.transformer_blocks.0.attn.to_k.lora_A.weight"
OF_WAN = "diffusion_model.blocks.0.cross_attn.k.lora_A.weight"


def _described(tmp_path: Path, shapes: dict[str, list[int]], base: str) -> object:
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
    assert _described(tmp_path, shapes, base)
