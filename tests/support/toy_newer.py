"""Tiny models of the newer picture families, of real classes, as `toy_models` makes; a processor wants torchvision."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any, Final

from support.toy_models import kl_vae, qwen_tokenizer, save_pipeline, t5_tokenizer, tiny_qwen2_vl, tiny_t5, tiny_umt5

_SMALL: Final[dict[str, Any]] = {
    "vocab_size": 128,
    "hidden_size": 16,
    "intermediate_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
    "head_dim": 8,
}


def make_tiny_qwen_2(folder: Path) -> None:
    """Write a Qwen-Image 2.1 folder: a factor of 16 in each direction, and an alpha channel."""
    import torch
    from diffusers import (
        AutoencoderKLQwenImage21,
        FlowMatchEulerDiscreteScheduler,
        QwenImage21Pipeline,
        QwenImage21Transformer2DModel,
    )
    from transformers import Qwen3VLConfig, Qwen3VLForConditionalGeneration

    torch.manual_seed(0)
    processor = qwen3_processor()
    config = Qwen3VLConfig(
        text_config={**_SMALL, "rope_parameters": {"rope_type": "default", "mrope_section": [2, 1, 1]}},
        vision_config={
            "depth": 1,
            "hidden_size": 16,
            "intermediate_size": 16,
            "num_heads": 2,
            "out_hidden_size": 16,
            "num_position_embeddings": 16,
            "deepstack_visual_indexes": [0],
        },
        **_marks_of_pictures(processor.tokenizer),
    )
    save_pipeline(
        QwenImage21Pipeline(
            transformer=QwenImage21Transformer2DModel(
                in_channels=4,
                out_channels=4,
                num_layers=2,
                attention_head_dim=16,
                num_attention_heads=2,
                context_in_dim=16,
                mlp_ratio=2,
                axes_dims_rope=(4, 6, 6),
            ),
            scheduler=FlowMatchEulerDiscreteScheduler(),
            vae=AutoencoderKLQwenImage21(
                base_dim=8,
                decoder_base_dim=8,
                z_dim=4,
                dim_mult=[1, 1, 1, 1, 1],
                num_res_blocks=1,
                latents_mean=[0.0] * 4,
                latents_std=[1.0] * 4,
            ),
            text_encoder=Qwen3VLForConditionalGeneration(config),
            processor=processor,
        ),
        folder,
    )


def _tokenizer_of_pictures() -> Any:
    """Return a tokenizer of single bytes that knows the marks of pictures and clips."""
    tokenizer = qwen_tokenizer()
    marks = ["im_start", "im_end", "vision_start", "vision_end", "image_pad", "video_pad"]
    tokenizer.add_special_tokens({"additional_special_tokens": [f"<|{mark}|>" for mark in marks]})
    return tokenizer


def _marks_of_pictures(tokenizer: Any) -> dict[str, int]:
    """Return the numbers of those marks by the names that an encoder's configuration has for them."""
    names = {"vision_start": "vision_start", "vision_end": "vision_end", "image": "image_pad", "video": "video_pad"}
    return {f"{name}_token_id": tokenizer.convert_tokens_to_ids(f"<|{mark}|>") for name, mark in names.items()}


def qwen3_processor() -> Any:
    """Return Qwen3-VL's processor, whose words are single bytes."""
    from transformers import Qwen2VLImageProcessorPil, Qwen3VLProcessor, Qwen3VLVideoProcessor

    tokenizer = _tokenizer_of_pictures()
    template = (
        "{% for m in messages %}<|im_start|>{{ m.role }}\n"
        "{% for part in m.content %}{{ part.text }}{% endfor %}<|im_end|>\n{% endfor %}"
    )
    images = Qwen2VLImageProcessorPil(
        patch_size=16, merge_size=2, temporal_patch_size=2, size={"shortest_edge": 32 * 32, "longest_edge": 1 << 22}
    )
    return Qwen3VLProcessor(
        image_processor=images, tokenizer=tokenizer, video_processor=Qwen3VLVideoProcessor(), chat_template=template
    )


def make_tiny_hunyuan_image(folder: Path, *, is_distilled: bool = False) -> None:
    """Write a HunyuanImage 2.1 folder: a factor of 32 in each direction, and two guiders unless it is distilled."""
    import torch
    from diffusers import (
        AutoencoderKLHunyuanImage,
        FlowMatchEulerDiscreteScheduler,
        HunyuanImagePipeline,
        HunyuanImageTransformer2DModel,
    )
    from diffusers.guiders import AdaptiveProjectedMixGuidance
    from transformers import ByT5Tokenizer

    torch.manual_seed(0)
    guiders = {} if is_distilled else {"guider": 1, "ocr_guider": 3}
    save_pipeline(
        HunyuanImagePipeline(
            transformer=HunyuanImageTransformer2DModel(
                in_channels=4,
                out_channels=4,
                num_attention_heads=2,
                attention_head_dim=16,
                num_layers=1,
                num_single_layers=1,
                num_refiner_layers=1,
                mlp_ratio=2.0,
                guidance_embeds=is_distilled,
                use_meanflow=is_distilled,
                text_embed_dim=16,
                text_embed_2_dim=32,
                rope_axes_dim=(8, 8),
            ),
            scheduler=FlowMatchEulerDiscreteScheduler(),
            vae=AutoencoderKLHunyuanImage(
                in_channels=3,
                out_channels=3,
                latent_channels=4,
                block_out_channels=(32, 32, 32, 32, 32, 32),
                layers_per_block=1,
                spatial_compression_ratio=32,
                sample_size=64,
                scaling_factor=0.75,
            ),
            text_encoder=tiny_qwen2_vl(),
            tokenizer=qwen_tokenizer(),
            text_encoder_2=tiny_t5(vocab_size=384),
            tokenizer_2=ByT5Tokenizer(),
            **{
                name: AdaptiveProjectedMixGuidance(adaptive_projected_guidance_start_step=step)
                for name, step in guiders.items()
            },
        ),
        folder,
    )


def make_tiny_kandinsky(folder: Path, pipeline: str = "Kandinsky5T2IPipeline") -> None:
    """Write a Kandinsky 5 folder that makes pictures, from text or from a picture, by its pipeline's class.

    Where torchvision is not installed, a tokenizer stands for the Qwen2VLProcessor around it; it reads no pictures.
    """
    import diffusers
    import torch
    from diffusers import FlowMatchEulerDiscreteScheduler

    torch.manual_seed(0)
    save_pipeline(
        getattr(diffusers, pipeline)(
            transformer=_kandinsky_transformer(visual_cond="I2I" in pipeline),
            vae=_quick_vae(),
            **_kandinsky_texts(),
            scheduler=FlowMatchEulerDiscreteScheduler(),
        ),
        folder,
    )


def make_tiny_kandinsky_clips(folder: Path, pipeline: str) -> None:
    """Write a Kandinsky 5 folder that makes clips, from text or from an image, by its pipeline's class."""
    import diffusers
    import torch
    from diffusers import AutoencoderKLHunyuanVideo, FlowMatchEulerDiscreteScheduler

    torch.manual_seed(0)
    save_pipeline(
        getattr(diffusers, pipeline)(
            transformer=_kandinsky_transformer(visual_cond=True),
            vae=AutoencoderKLHunyuanVideo(
                latent_channels=4, block_out_channels=(8, 8, 8, 8), layers_per_block=1, norm_num_groups=4
            ),
            **_kandinsky_texts(),
            scheduler=FlowMatchEulerDiscreteScheduler(shift=5.0),
        ),
        folder,
    )


def _quick_vae() -> Any:
    """Return an autoencoder that is quick at the sizes of published models."""
    return kl_vae(block_out_channels=(4, 4, 4, 4), norm_num_groups=2, mid_block_add_attention=False)


def _kandinsky_transformer(**changes: Any) -> Any:
    from diffusers import Kandinsky5Transformer3DModel

    shape = {"model_dim": 16, "ff_dim": 16, "time_dim": 16, "num_text_blocks": 1, "num_visual_blocks": 1}
    return Kandinsky5Transformer3DModel(axes_dims=(4, 6, 6), in_text_dim=16, in_text_dim2=32, **shape, **changes)


def _kandinsky_texts() -> dict[str, Any]:
    """Return both text encoders with their tokenizers; the pipelines hand the first one's beside pictures."""
    from transformers import CLIPTextModel

    from sdbatch.generate.random_weights import byte_tokenizer, tiny_text_config

    encoder, tokenizer = tiny_qwen2_vl(), qwen_tokenizer()
    if importlib.util.find_spec("torchvision"):
        tokenizer = qwen2_vl_processor()
        encoder = tiny_qwen2_vl(**_marks_of_pictures(tokenizer.tokenizer))
    return {
        "text_encoder": encoder,
        "tokenizer": tokenizer,
        "text_encoder_2": CLIPTextModel(tiny_text_config()),
        "tokenizer_2": byte_tokenizer(),
    }


def qwen2_vl_processor() -> Any:
    """Return Qwen2-VL's processor, whose words are single bytes; it wants torchvision."""
    from transformers import Qwen2VLImageProcessorPil, Qwen2VLProcessor, Qwen2VLVideoProcessor

    tokenizer = _tokenizer_of_pictures()
    return Qwen2VLProcessor(
        image_processor=Qwen2VLImageProcessorPil(), tokenizer=tokenizer, video_processor=Qwen2VLVideoProcessor()
    )


def make_tiny_aura_flow(folder: Path, *, positions: int = 96) -> None:
    """Write an AuraFlow folder: a factor of 8 in each direction, and as many learned positions as published ones have.

    Args:
        folder: Where to.
        positions: Tokens of a side of the largest picture; 64 before 0.3.
    """
    import torch
    from diffusers import AuraFlowPipeline, AuraFlowTransformer2DModel, FlowMatchEulerDiscreteScheduler

    torch.manual_seed(0)
    save_pipeline(
        AuraFlowPipeline(
            tokenizer=t5_tokenizer(),
            text_encoder=tiny_umt5(),
            vae=kl_vae(),
            transformer=AuraFlowTransformer2DModel(
                sample_size=8,
                num_mmdit_layers=1,
                num_single_dit_layers=1,
                attention_head_dim=16,
                num_attention_heads=2,
                joint_attention_dim=32,
                caption_projection_dim=32,
                pos_embed_max_size=positions**2,
            ),
            scheduler=FlowMatchEulerDiscreteScheduler(shift=1.73),
        ),
        folder,
    )


def make_tiny_hidream(folder: Path) -> None:
    """Write a HiDream-I1 folder: four text encoders, and experts of which two in four see a token."""
    import torch
    from diffusers import FlowMatchEulerDiscreteScheduler, HiDreamImagePipeline, HiDreamImageTransformer2DModel
    from transformers import CLIPTextModelWithProjection, LlamaConfig, LlamaForCausalLM

    from sdbatch.generate.random_weights import byte_tokenizer, tiny_text_config

    torch.manual_seed(0)
    long_text = tiny_text_config()
    long_text.max_position_embeddings = 248
    llama = LlamaConfig(**{**_SMALL, "hidden_size": 32, "head_dim": 16}, bos_token_id=0, eos_token_id=2)
    save_pipeline(
        HiDreamImagePipeline(
            scheduler=FlowMatchEulerDiscreteScheduler(),
            vae=kl_vae(),
            text_encoder=CLIPTextModelWithProjection(long_text),
            tokenizer=byte_tokenizer(),
            text_encoder_2=CLIPTextModelWithProjection(long_text),
            tokenizer_2=byte_tokenizer(),
            text_encoder_3=tiny_t5(),
            tokenizer_3=t5_tokenizer(),
            text_encoder_4=LlamaForCausalLM(llama),
            tokenizer_4=qwen_tokenizer(),
            transformer=HiDreamImageTransformer2DModel(
                patch_size=2,
                in_channels=4,
                out_channels=4,
                num_layers=1,
                num_single_layers=1,
                attention_head_dim=16,
                num_attention_heads=2,
                caption_channels=[32, 32],
                text_emb_dim=2 * long_text.projection_dim,
                axes_dims_rope=(8, 4, 4),
                max_resolution=(16, 16),
                llama_layers=[0, 1],
            ),
        ),
        folder,
    )
