"""Tiny models of real diffusers classes, built by the tests in a second and kept nowhere."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    import pytest


def folders_of(makers: Mapping[str, Callable[[Path], None]], factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Return what gives the folder of a model by its name; each is made once, when it is first asked for."""
    made: dict[str, Path] = {}

    def folder(name: str) -> Path:
        if name not in made:
            made[name] = factory.mktemp(name)
            makers[name](made[name])
        return made[name]

    return folder


def make_tiny_sdxl(folder: Path, *, width_2: int = 32) -> None:
    """Write an SDXL folder: 64 px native, two text encoders, seeded random weights.

    Args:
        folder: Where it is written.
        width_2: Width of the second text encoder; the first one's is 32.
    """
    import torch
    from diffusers import EulerDiscreteScheduler, StableDiffusionXLPipeline, UNet2DConditionModel
    from transformers import CLIPTextModel, CLIPTextModelWithProjection

    from sdbatch.generate.random_weights import byte_tokenizer, tiny_text_config, tiny_vae

    torch.manual_seed(0)
    config_2 = tiny_text_config()
    config_2.hidden_size = config_2.projection_dim = width_2
    unet = UNet2DConditionModel(
        sample_size=32,
        in_channels=4,
        out_channels=4,
        layers_per_block=1,
        block_out_channels=(16, 32),
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        cross_attention_dim=32 + width_2,
        attention_head_dim=(2, 4),
        addition_embed_type="text_time",
        addition_time_embed_dim=8,
        projection_class_embeddings_input_dim=8 * 6 + width_2,
        use_linear_projection=True,
        norm_num_groups=8,
    )
    pipeline = StableDiffusionXLPipeline(
        vae=tiny_vae(),
        text_encoder=CLIPTextModel(tiny_text_config()),
        text_encoder_2=CLIPTextModelWithProjection(config_2),
        tokenizer=byte_tokenizer(),
        tokenizer_2=byte_tokenizer(),
        unet=unet,
        scheduler=EulerDiscreteScheduler(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear"),
        add_watermarker=False,
    )
    pipeline.save_pretrained(folder, safe_serialization=True)


def make_tiny_xl_refiner(folder: Path) -> None:
    """Write a folder of SDXL's refiner: 64 px native, one text encoder, and scores among what its denoiser reads.

    It has the published one's four levels, with attention in the middle two; its latents are those of `make_tiny_sdxl`.
    """
    import torch
    from diffusers import EulerDiscreteScheduler, StableDiffusionXLImg2ImgPipeline, UNet2DConditionModel
    from transformers import CLIPTextModelWithProjection

    from sdbatch.generate.random_weights import byte_tokenizer, tiny_text_config, tiny_vae

    torch.manual_seed(0)
    unet = UNet2DConditionModel(
        sample_size=32,
        in_channels=4,
        out_channels=4,
        layers_per_block=1,
        block_out_channels=(16, 16, 32, 32),
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        cross_attention_dim=32,
        attention_head_dim=(2, 2, 4, 4),
        transformer_layers_per_block=2,
        addition_embed_type="text_time",
        addition_time_embed_dim=8,
        projection_class_embeddings_input_dim=8 * 5 + 32,
        use_linear_projection=True,
        norm_num_groups=8,
    )
    enliven(unet)
    StableDiffusionXLImg2ImgPipeline(
        vae=tiny_vae(),
        text_encoder=None,
        text_encoder_2=CLIPTextModelWithProjection(tiny_text_config()),
        tokenizer=None,
        tokenizer_2=byte_tokenizer(),
        unet=unet,
        scheduler=EulerDiscreteScheduler(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear"),
        requires_aesthetics_score=True,
        force_zeros_for_empty_prompt=False,
        add_watermarker=False,
    ).save_pretrained(folder, safe_serialization=True)


def make_tiny_lora(folder: Path, seed: int, rank: int = 2) -> None:
    """Write a LoRA for the UNet of the builtin tiny-random."""
    import torch
    from diffusers import StableDiffusionPipeline
    from diffusers.utils import convert_state_dict_to_diffusers
    from peft import LoraConfig, get_peft_model_state_dict

    from sdbatch.generate.random_weights import tiny_unet

    torch.manual_seed(seed)
    unet = tiny_unet()
    unet.add_adapter(LoraConfig(r=rank, lora_alpha=2, target_modules=["to_q", "to_k", "to_v", "to_out.0"]))
    for name, parameter in unet.named_parameters():
        if "lora_" in name:
            torch.nn.init.normal_(parameter, std=0.5)
    layers = convert_state_dict_to_diffusers(get_peft_model_state_dict(unet))
    StableDiffusionPipeline.save_lora_weights(folder, unet_lora_layers=layers, safe_serialization=True)


_CONTROLNET: Final[Mapping[str, Any]] = {
    "in_channels": 4,
    "layers_per_block": 1,
    "block_out_channels": (16, 32),
    "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D"),
    "cross_attention_dim": 32,
    "attention_head_dim": 4,
    "norm_num_groups": 8,
    "conditioning_embedding_out_channels": (8, 16),
}
XL_CONTROLNET: Final[Mapping[str, Any]] = {
    **_CONTROLNET,
    "cross_attention_dim": 64,
    "attention_head_dim": (2, 4),
    "addition_embed_type": "text_time",
    "addition_time_embed_dim": 8,
    "projection_class_embeddings_input_dim": 8 * 6 + 32,
    "use_linear_projection": True,
}
"""Arguments of a ControlNet beside `make_tiny_sdxl`'s model."""


def make_tiny_controlnet(folder: Path) -> None:
    """Write a ControlNet for the builtin tiny-random."""
    import torch
    from diffusers import ControlNetModel

    torch.manual_seed(1)
    save_controlnet(ControlNetModel(**_CONTROLNET), folder)


def make_tiny_xl_controlnet(folder: Path) -> None:
    """Write a ControlNet for `make_tiny_sdxl`'s model."""
    import torch
    from diffusers import ControlNetModel

    torch.manual_seed(1)
    save_controlnet(ControlNetModel(**XL_CONTROLNET), folder)


def make_tiny_sd3(folder: Path) -> None:
    """Write a Stable Diffusion 3 folder: 64 px native, three text encoders."""
    import torch
    from diffusers import (
        FlowMatchEulerDiscreteScheduler,
        SD3Transformer2DModel,
        StableDiffusion3Pipeline,
    )
    from transformers import CLIPTextModelWithProjection

    from sdbatch.generate.random_weights import byte_tokenizer, tiny_text_config

    torch.manual_seed(0)
    transformer = SD3Transformer2DModel(
        sample_size=8,
        patch_size=2,
        in_channels=16,  # inpainting takes no other number
        num_layers=2,
        attention_head_dim=8,
        num_attention_heads=4,
        joint_attention_dim=32,
        caption_projection_dim=32,
        pooled_projection_dim=64,
        out_channels=16,
        pos_embed_max_size=16,
    )
    save_pipeline(
        StableDiffusion3Pipeline(
            transformer=transformer,
            scheduler=FlowMatchEulerDiscreteScheduler(),
            vae=kl_vae(latent_channels=16),
            text_encoder=CLIPTextModelWithProjection(tiny_text_config()),
            tokenizer=byte_tokenizer(),
            text_encoder_2=CLIPTextModelWithProjection(tiny_text_config()),
            tokenizer_2=byte_tokenizer(),
            text_encoder_3=tiny_t5(),
            tokenizer_3=t5_tokenizer(),
        ),
        folder,
    )


def make_tiny_flux(folder: Path) -> None:
    """Write a Flux.1 folder."""
    import diffusers

    save_pipeline(diffusers.FluxPipeline(**_flux_parts(in_channels=16)), folder)


def make_tiny_kontext(folder: Path) -> None:
    """Write a Flux.1 Kontext folder."""
    import diffusers

    save_pipeline(diffusers.FluxKontextPipeline(**_flux_parts(in_channels=16)), folder)


def make_tiny_fill(folder: Path) -> None:
    """Write a Flux.1 Fill folder: its transformer reads latents, masked latents and the mask of every pixel."""
    import diffusers

    save_pipeline(diffusers.FluxFillPipeline(**_flux_parts(in_channels=16 + 16 + 256, out_channels=16)), folder)


def _flux_parts(in_channels: int, out_channels: int | None = None) -> dict[str, Any]:
    import torch
    from diffusers import FlowMatchEulerDiscreteScheduler, FluxTransformer2DModel
    from transformers import CLIPTextModel

    from sdbatch.generate.random_weights import byte_tokenizer, tiny_text_config

    torch.manual_seed(0)
    return {
        "transformer": FluxTransformer2DModel(
            patch_size=1,
            in_channels=in_channels,
            out_channels=out_channels,
            num_layers=1,
            num_single_layers=1,
            attention_head_dim=16,
            num_attention_heads=2,
            joint_attention_dim=32,
            pooled_projection_dim=32,
            guidance_embeds=True,
            axes_dims_rope=(4, 6, 6),
        ),
        "scheduler": FlowMatchEulerDiscreteScheduler(),
        "vae": kl_vae(),
        "text_encoder": CLIPTextModel(tiny_text_config()),
        "tokenizer": byte_tokenizer(),
        "text_encoder_2": tiny_t5(),
        "tokenizer_2": t5_tokenizer(),
    }


def make_tiny_chroma(folder: Path) -> None:
    """Write a Chroma folder."""
    import torch
    from diffusers import ChromaPipeline, ChromaTransformer2DModel, FlowMatchEulerDiscreteScheduler

    torch.manual_seed(0)
    save_pipeline(
        ChromaPipeline(
            transformer=ChromaTransformer2DModel(
                patch_size=1,
                in_channels=16,
                num_layers=1,
                num_single_layers=1,
                attention_head_dim=16,
                num_attention_heads=2,
                joint_attention_dim=32,
                axes_dims_rope=(4, 6, 6),
                approximator_hidden_dim=32,
                approximator_layers=1,
                approximator_num_channels=16,
            ),
            scheduler=FlowMatchEulerDiscreteScheduler(),
            vae=kl_vae(),
            text_encoder=tiny_t5(),
            tokenizer=t5_tokenizer(),
        ),
        folder,
    )


FLUX2: Final[Mapping[str, Any]] = {
    "patch_size": 1,
    "in_channels": 16,
    "num_layers": 1,
    "num_single_layers": 1,
    "attention_head_dim": 16,
    "num_attention_heads": 2,
    "joint_attention_dim": 3 * 16,
    "timestep_guidance_channels": 32,
    "axes_dims_rope": (4, 4, 4, 4),
}
"""Arguments of a denoiser of Flux.2."""


def make_tiny_klein(folder: Path) -> None:
    """Write a Flux.2 Klein folder; its text encoder has as many layers as the pipeline picks from."""
    import torch
    from diffusers import (
        AutoencoderKLFlux2,
        FlowMatchEulerDiscreteScheduler,
        Flux2KleinPipeline,
        Flux2Transformer2DModel,
    )
    from transformers import Qwen3ForCausalLM

    torch.manual_seed(0)
    save_pipeline(
        Flux2KleinPipeline(
            transformer=Flux2Transformer2DModel(**FLUX2, guidance_embeds=False),
            scheduler=FlowMatchEulerDiscreteScheduler(),
            vae=AutoencoderKLFlux2(**_DEEP_VAE),
            text_encoder=Qwen3ForCausalLM(_qwen3_config(layers=28)),
            tokenizer=qwen_tokenizer(),
        ),
        folder,
    )


def make_tiny_flux2(folder: Path) -> None:
    """Write a Flux.2 dev folder; its text encoder has as many layers as the pipeline picks from.

    Where torchvision is not installed, a tokenizer with a chat template stands for the PixtralProcessor around it.
    """
    import torch
    from diffusers import AutoencoderKLFlux2, FlowMatchEulerDiscreteScheduler, Flux2Pipeline, Flux2Transformer2DModel
    from transformers import Mistral3Config, Mistral3ForConditionalGeneration

    torch.manual_seed(0)
    text = {**_SMALL, "num_hidden_layers": 30, "num_key_value_heads": 2, "head_dim": 8, "model_type": "mistral"}
    vision = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    config = Mistral3Config(
        text_config=text, vision_config={**vision, "head_dim": 8, "model_type": "pixtral"}, image_token_index=3
    )
    save_pipeline(
        Flux2Pipeline(
            transformer=Flux2Transformer2DModel(**FLUX2, guidance_embeds=True),
            scheduler=FlowMatchEulerDiscreteScheduler(),
            vae=AutoencoderKLFlux2(**_DEEP_VAE),
            text_encoder=Mistral3ForConditionalGeneration(config),
            tokenizer=pixtral_processor() if importlib.util.find_spec("torchvision") else mistral_tokenizer(),
        ),
        folder,
    )


def make_tiny_qwen(folder: Path) -> None:
    """Write a Qwen-Image folder."""
    import torch
    from diffusers import (
        AutoencoderKLQwenImage,
        FlowMatchEulerDiscreteScheduler,
        QwenImagePipeline,
        QwenImageTransformer2DModel,
    )

    torch.manual_seed(0)
    save_pipeline(
        QwenImagePipeline(
            transformer=QwenImageTransformer2DModel(
                patch_size=2,
                in_channels=16,
                out_channels=4,
                num_layers=2,
                attention_head_dim=16,
                num_attention_heads=3,
                joint_attention_dim=16,
                axes_dims_rope=(8, 4, 4),
            ),
            scheduler=FlowMatchEulerDiscreteScheduler(),
            vae=AutoencoderKLQwenImage(
                base_dim=8,
                z_dim=4,
                dim_mult=[1, 1, 1, 1],
                num_res_blocks=1,
                temperal_downsample=[False, True, True],
                latents_mean=[0.0] * 4,
                latents_std=[1.0] * 4,
            ),
            text_encoder=tiny_qwen2_vl(),
            tokenizer=qwen_tokenizer(),
        ),
        folder,
    )


def make_tiny_zimage(folder: Path) -> None:
    """Write a Z-Image folder."""
    import torch
    from diffusers import FlowMatchEulerDiscreteScheduler, ZImagePipeline, ZImageTransformer2DModel
    from transformers import Qwen3Model

    torch.manual_seed(0)
    save_pipeline(
        ZImagePipeline(
            transformer=ZImageTransformer2DModel(
                in_channels=4,
                dim=32,
                n_layers=2,
                n_refiner_layers=1,
                n_heads=2,
                n_kv_heads=2,
                cap_feat_dim=16,
                axes_dims=[8, 4, 4],
                axes_lens=[1024, 32, 32],
            ),
            scheduler=FlowMatchEulerDiscreteScheduler(),
            vae=kl_vae(),
            text_encoder=Qwen3Model(_qwen3_config(layers=2)),
            tokenizer=qwen_tokenizer(),
        ),
        folder,
    )


def make_tiny_sana(folder: Path) -> None:
    """Write a Sana folder: a factor of 32 in each direction, 64 px native."""
    import torch
    from diffusers import AutoencoderDC, FlowMatchEulerDiscreteScheduler, SanaPipeline, SanaTransformer2DModel
    from transformers import Gemma2Config, Gemma2Model

    torch.manual_seed(0)
    save_pipeline(
        SanaPipeline(
            transformer=SanaTransformer2DModel(
                patch_size=1,
                in_channels=4,
                out_channels=4,
                num_layers=1,
                num_attention_heads=2,
                attention_head_dim=4,
                num_cross_attention_heads=2,
                cross_attention_head_dim=4,
                cross_attention_dim=8,
                caption_channels=16,
                sample_size=2,
            ),
            scheduler=FlowMatchEulerDiscreteScheduler(shift=3.0),
            vae=AutoencoderDC(
                in_channels=3,
                latent_channels=4,
                attention_head_dim=2,
                encoder_block_types=("ResBlock",) * 6,
                decoder_block_types=("ResBlock",) * 6,
                encoder_block_out_channels=(8, 8, 8, 8, 8, 8),
                decoder_block_out_channels=(8, 8, 8, 8, 8, 8),
                encoder_qkv_multiscales=((),) * 6,
                decoder_qkv_multiscales=((),) * 6,
                encoder_layers_per_block=(1,) * 6,
                decoder_layers_per_block=(1,) * 6,
                scaling_factor=0.41407,
            ),
            text_encoder=Gemma2Model(Gemma2Config(**_SMALL, num_key_value_heads=2, head_dim=8)),
            tokenizer=gemma_tokenizer(),
        ),
        folder,
    )


def t5_tokenizer() -> Any:
    """Return a T5 tokenizer whose words are single letters."""
    from transformers import T5Tokenizer

    words = ["<pad>", "</s>", "<unk>", "\u2581", *_LETTERS[1:]]
    return T5Tokenizer(vocab=[(word, -1.0) for word in words], extra_ids=0, model_max_length=512)


def qwen_tokenizer() -> Any:
    """Return a Qwen tokenizer whose words are single bytes: a space is \u0120, a line feed \u010a."""
    from transformers import Qwen2Tokenizer

    words = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "\u0120", "\u010a", *_LETTERS]
    tokenizer = Qwen2Tokenizer(vocab={word: index for index, word in enumerate(words)}, merges=[])
    tokenizer.add_special_tokens({"additional_special_tokens": ["<|im_start|>", "<|im_end|>"]})
    tokenizer.chat_template = (
        "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
        "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
    )
    return tokenizer


def mistral_tokenizer() -> Any:
    """Return a tokenizer whose words are single bytes, with a chat template that takes parts of a message."""
    tokenizer = qwen_tokenizer()
    tokenizer.chat_template = (
        "{% for m in messages %}<|im_start|>"
        "{% for part in m.content %}{{ part.text }}{% endfor %}<|im_end|>{% endfor %}"
    )
    return tokenizer


def pixtral_processor() -> Any:
    """Return Pixtral's processor around that tokenizer; it wants torchvision."""
    from transformers import PixtralImageProcessor, PixtralProcessor

    tokenizer = mistral_tokenizer()
    tokenizer.add_special_tokens({"additional_special_tokens": ["[IMG]", "[IMG_BREAK]", "[IMG_END]"]})
    return PixtralProcessor(
        image_processor=PixtralImageProcessor(), tokenizer=tokenizer, chat_template=tokenizer.chat_template
    )


def gemma_tokenizer() -> Any:
    """Return a Gemma tokenizer whose words are single letters."""
    from transformers import GemmaTokenizer

    words = ["<pad>", "<eos>", "<bos>", "<unk>", "<mask>", "\u2581", *_LETTERS]
    return GemmaTokenizer(vocab={word: index for index, word in enumerate(words)}, merges=[], model_max_length=2048)


_LETTERS = [chr(code) for code in range(32, 127)]
_SMALL: dict[str, Any] = {
    "vocab_size": 128,
    "hidden_size": 16,
    "intermediate_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
}
_DEEP_VAE: dict[str, Any] = {
    "in_channels": 3,
    "out_channels": 3,
    "block_out_channels": (8, 8, 8, 8),
    "down_block_types": ("DownEncoderBlock2D",) * 4,
    "up_block_types": ("UpDecoderBlock2D",) * 4,
    "layers_per_block": 1,
    "norm_num_groups": 4,
    "sample_size": 64,
    "latent_channels": 4,
    "use_quant_conv": False,
    "use_post_quant_conv": False,
}
"""An autoencoder of factor 8 in each direction, as the published ones are."""


def kl_vae(latent_channels: int = 4, **changes: Any) -> Any:
    """Return Stable Diffusion's autoencoder, small."""
    from diffusers import AutoencoderKL

    shape = {**_DEEP_VAE, "latent_channels": latent_channels, **changes}
    return AutoencoderKL(**shape, shift_factor=0.1, scaling_factor=1.0)


def tiny_qwen2_vl(**marks: int) -> Any:
    """Return a Qwen2.5-VL of two layers; the marks are the numbers of a processor's own words."""
    from transformers import Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration

    config = Qwen2_5_VLConfig(
        text_config={
            **_SMALL,
            "num_key_value_heads": 2,
            "rope_scaling": {"mrope_section": [1, 1, 2], "rope_type": "default", "type": "default"},
        },
        vision_config={
            "depth": 1,
            "hidden_size": 16,
            "intermediate_size": 16,
            "num_heads": 2,
            "out_hidden_size": 16,
            "fullatt_block_indexes": [0],
        },
        **{"vision_start_token_id": 1, "vision_end_token_id": 2, "image_token_id": 3, "video_token_id": 4, **marks},
    )
    return Qwen2_5_VLForConditionalGeneration(config)


def tiny_t5(vocab_size: int = 128) -> Any:
    """Return a T5 encoder of two layers."""
    from transformers import T5Config, T5EncoderModel

    shape = {"d_model": 32, "d_kv": 8, "d_ff": 64, "num_layers": 2, "num_heads": 4}
    return T5EncoderModel(T5Config(vocab_size=vocab_size, feed_forward_proj="gated-gelu", **shape)).eval()


def tiny_umt5() -> Any:
    """Return a UMT5 encoder of two layers."""
    from transformers import UMT5Config, UMT5EncoderModel

    shape = {"d_model": 32, "d_kv": 8, "d_ff": 64, "num_layers": 2, "num_heads": 4}
    return UMT5EncoderModel(UMT5Config(vocab_size=128, **shape)).eval()


def _qwen3_config(layers: int) -> Any:
    from transformers import Qwen3Config

    shape = {**_SMALL, "num_hidden_layers": layers}
    return Qwen3Config(**shape, head_dim=8, num_key_value_heads=2)


def save_pipeline(pipeline: Any, folder: Path) -> None:
    """Write a pipeline's folder with weights that let its inputs be felt."""
    import torch

    for component in pipeline.components.values():
        if isinstance(component, torch.nn.Module):
            enliven(component)
    pipeline.save_pretrained(folder, safe_serialization=True)


def save_controlnet(module: Any, folder: Path) -> None:
    """Write a ControlNet, made to be felt."""
    import torch

    enliven(module)
    with torch.no_grad():  # else its picture drowns beside the latents
        module.controlnet_cond_embedding.conv_out.weight.mul_(30)
    module.save_pretrained(folder, safe_serialization=True)


def enliven(module: Any) -> None:
    """Scale weights so that signals neither fade nor drown: with the classes' own start a prompt moves nothing."""
    import torch

    for parameter in module.parameters():
        if parameter.ndim > 1:
            torch.nn.init.normal_(parameter, std=parameter[0].numel() ** -0.5)
    for name, parameter in module.named_parameters():
        if name.endswith("bias"):
            torch.nn.init.zeros_(parameter)
