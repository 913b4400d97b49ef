"""Tiny video models of real diffusers classes, built by the tests in a second each and kept nowhere.

    MAKERS[name](folder) --> a folder in diffusers' layout, 64 x 64 pixels, seeded random weights

Size factors and frame rules are those of the published models, so a size or a count that these refuse, they refuse too.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, Final

import torch
from diffusers import (
    AnimateDiffPipeline,
    AnimateDiffSparseControlNetPipeline,
    AutoencoderKLCogVideoX,
    AutoencoderKLHunyuanVideo15,
    AutoencoderKLLTX2Audio,
    AutoencoderKLLTX2Video,
    AutoencoderKLLTXVideo,
    AutoencoderKLTemporalDecoder,
    AutoencoderKLWan,
    CogVideoXDDIMScheduler,
    CogVideoXImageToVideoPipeline,
    CogVideoXPipeline,
    CogVideoXTransformer3DModel,
    DDIMScheduler,
    EulerDiscreteScheduler,
    FlowMatchEulerDiscreteScheduler,
    HunyuanVideo15ImageToVideoPipeline,
    HunyuanVideo15Pipeline,
    HunyuanVideo15Transformer3DModel,
    LTX2Pipeline,
    LTX2VideoTransformer3DModel,
    LTXConditionPipeline,
    LTXPipeline,
    LTXVideoTransformer3DModel,
    MotionAdapter,
    SparseControlNetModel,
    StableVideoDiffusionPipeline,
    UNetSpatioTemporalConditionModel,
    UniPCMultistepScheduler,
    WanImageToVideoPipeline,
    WanPipeline,
    WanTransformer3DModel,
    WanVACEPipeline,
    WanVACETransformer3DModel,
)
from diffusers.guiders import ClassifierFreeGuidance
from diffusers.pipelines.ltx2 import LTX2TextConnectors
from diffusers.pipelines.ltx2.vocoder import LTX2Vocoder
from transformers import (
    ByT5Tokenizer,
    CLIPImageProcessor,
    CLIPTextModel,
    CLIPVisionConfig,
    CLIPVisionModel,
    CLIPVisionModelWithProjection,
    Gemma3Config,
    Gemma3ForConditionalGeneration,
    Gemma3TextConfig,
    GemmaTokenizer,
    Qwen2_5_VLTextConfig,
    Qwen2_5_VLTextModel,
    Qwen2Tokenizer,
    SiglipImageProcessor,
    SiglipVisionConfig,
    SiglipVisionModel,
    T5Config,
    T5EncoderModel,
)

from sdbatch.generate.random_weights import byte_tokenizer, tiny_text_config, tiny_unet, tiny_vae
from support.toy_models import enliven, save_pipeline, t5_tokenizer, tiny_t5, tiny_umt5
from support.toy_newer import make_tiny_kandinsky_clips

_LETTERS = [chr(code) for code in range(32, 127)]


def _save_module(module: Any, folder: Path) -> None:
    enliven(module)
    module.save_pretrained(folder, safe_serialization=True)


def _letters(*special: str) -> dict[str, int]:
    """Return a vocabulary of special words, then single letters."""
    return {word: index for index, word in enumerate([*special, *_LETTERS])}


# --- AnimateDiff -----------------------------------------------------------------------------------------------------


def _motion_adapter() -> MotionAdapter:
    return MotionAdapter(
        block_out_channels=(16, 32),
        motion_layers_per_block=1,
        motion_num_attention_heads=2,
        motion_norm_num_groups=8,
        use_motion_mid_block=False,
    )


def _sparse_controlnet() -> SparseControlNetModel:
    return SparseControlNetModel(
        block_out_channels=(16, 32),
        down_block_types=("DownBlockMotion", "CrossAttnDownBlockMotion"),
        layers_per_block=1,
        cross_attention_dim=32,
        attention_head_dim=4,
        norm_num_groups=8,
        motion_num_attention_heads=2,
    )


def _animatediff_parts() -> dict[str, Any]:
    return {
        "vae": tiny_vae(),
        "text_encoder": CLIPTextModel(tiny_text_config()),
        "tokenizer": byte_tokenizer(),
        "unet": tiny_unet(),
        "motion_adapter": _motion_adapter(),
        "scheduler": DDIMScheduler(
            beta_start=0.00085, beta_end=0.012, beta_schedule="linear", clip_sample=False, steps_offset=1
        ),
    }


def make_animatediff(folder: Path) -> None:
    """Write Stable Diffusion 1.5 with a motion adapter."""
    torch.manual_seed(0)
    save_pipeline(AnimateDiffPipeline(**_animatediff_parts()), folder)


def make_sparsectrl(folder: Path) -> None:
    """Write AnimateDiff with SparseCtrl on RGB key frames."""
    torch.manual_seed(0)
    save_pipeline(AnimateDiffSparseControlNetPipeline(controlnet=_sparse_controlnet(), **_animatediff_parts()), folder)


def make_motion_adapter(folder: Path) -> None:
    """Write a motion adapter alone, for `builtin:tiny-random`."""
    torch.manual_seed(0)
    _save_module(_motion_adapter(), folder)


def make_sparse_controlnet(folder: Path) -> None:
    """Write a SparseCtrl model alone, for `builtin:tiny-random`."""
    torch.manual_seed(0)
    _save_module(_sparse_controlnet(), folder)


# --- SVD -------------------------------------------------------------------------------------------------------------


def make_svd(folder: Path) -> None:
    """Write Stable Video Diffusion; its pipeline shows CLIP pictures of 224 pixels, whatever the processor says."""
    torch.manual_seed(0)
    vae = AutoencoderKLTemporalDecoder(
        block_out_channels=(32, 32, 32, 32),
        down_block_types=("DownEncoderBlock2D",) * 4,
        layers_per_block=1,
        latent_channels=4,
        sample_size=64,
    )
    unet = UNetSpatioTemporalConditionModel(
        sample_size=8,
        in_channels=8,
        out_channels=4,
        block_out_channels=(32, 64),
        down_block_types=("CrossAttnDownBlockSpatioTemporal", "DownBlockSpatioTemporal"),
        up_block_types=("UpBlockSpatioTemporal", "CrossAttnUpBlockSpatioTemporal"),
        layers_per_block=1,
        cross_attention_dim=32,
        num_attention_heads=4,
        addition_time_embed_dim=32,
        projection_class_embeddings_input_dim=96,
        num_frames=9,
    )
    save_pipeline(
        StableVideoDiffusionPipeline(
            vae=vae,
            image_encoder=CLIPVisionModelWithProjection(_clip_vision(224, 56)),
            unet=unet,
            scheduler=EulerDiscreteScheduler(
                beta_start=0.00085,
                beta_end=0.012,
                beta_schedule="scaled_linear",
                prediction_type="v_prediction",
                timestep_type="continuous",
                interpolation_type="linear",
                use_karras_sigmas=True,
                sigma_min=0.002,
                sigma_max=700.0,
                steps_offset=1,
                timestep_spacing="leading",
            ),
            feature_extractor=CLIPImageProcessor(crop_size=224, size=224),
        ),
        folder,
    )


def _clip_vision(image_size: int, patch_size: int) -> CLIPVisionConfig:
    return CLIPVisionConfig(
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        image_size=image_size,
        patch_size=patch_size,
        projection_dim=32,
    )


# --- Wan -------------------------------------------------------------------------------------------------------------

_WAN: Final[Mapping[str, Any]] = {
    "patch_size": (1, 2, 2),
    "num_attention_heads": 2,
    "attention_head_dim": 12,
    "text_dim": 32,
    "freq_dim": 64,
    "ffn_dim": 32,
    "num_layers": 2,
    "rope_max_seq_len": 64,
}


def _wan_parts(transformer: Any, *, vae: AutoencoderKLWan | None = None) -> dict[str, Any]:
    return {
        "tokenizer": t5_tokenizer(),
        "text_encoder": tiny_umt5(),
        "vae": vae or _wan_vae(),
        "scheduler": UniPCMultistepScheduler(
            prediction_type="flow_prediction", use_flow_sigmas=True, num_train_timesteps=1000, flow_shift=3.0
        ),
        "transformer": transformer,
    }


def _wan_vae() -> AutoencoderKLWan:
    return AutoencoderKLWan(base_dim=4, z_dim=16, dim_mult=[1, 1, 1, 1], num_res_blocks=1)


def _wan_vae_22() -> AutoencoderKLWan:
    """Return the autoencoder of factor 16 that came with TI2V."""
    return AutoencoderKLWan(
        base_dim=4,
        z_dim=16,
        dim_mult=[1, 1, 1, 1],
        num_res_blocks=1,
        is_residual=True,
        in_channels=12,
        out_channels=12,
        patch_size=2,
        scale_factor_spatial=16,
    )


def make_wan_t2v(folder: Path) -> None:
    """Write Wan 2.1 T2V."""
    torch.manual_seed(0)
    save_pipeline(WanPipeline(**_wan_parts(WanTransformer3DModel(**_WAN))), folder)


def make_wan_t2v_a14b(folder: Path) -> None:
    """Write Wan 2.2 T2V A14B: a second denoiser for the low-noise steps."""
    torch.manual_seed(0)
    parts = _wan_parts(WanTransformer3DModel(**_WAN))
    save_pipeline(WanPipeline(**parts, transformer_2=WanTransformer3DModel(**_WAN), boundary_ratio=0.875), folder)


def make_wan_ti2v(folder: Path) -> None:
    """Write Wan 2.2 TI2V: text or one image, a time step per token."""
    torch.manual_seed(0)
    parts = _wan_parts(WanTransformer3DModel(**_WAN), vae=_wan_vae_22())
    save_pipeline(WanPipeline(**parts, expand_timesteps=True), folder)


def make_wan_i2v(folder: Path) -> None:
    """Write Wan 2.1 I2V: one image, seen by CLIP too."""
    torch.manual_seed(0)
    transformer = WanTransformer3DModel(**_WAN, in_channels=36, image_dim=32, added_kv_proj_dim=24)
    save_pipeline(_wan_i2v(transformer), folder)


def make_wan_flf2v(folder: Path) -> None:
    """Write Wan 2.1 FLF2V: first and last image, both seen by CLIP."""
    torch.manual_seed(0)
    tokens = (32 // 8) ** 2 + 1
    transformer = WanTransformer3DModel(
        **_WAN, in_channels=36, image_dim=32, added_kv_proj_dim=24, pos_embed_seq_len=2 * tokens
    )
    save_pipeline(_wan_i2v(transformer), folder)


def _wan_i2v(transformer: WanTransformer3DModel) -> WanImageToVideoPipeline:
    return WanImageToVideoPipeline(
        **_wan_parts(transformer),
        image_encoder=CLIPVisionModel(_clip_vision(32, 8)),
        image_processor=CLIPImageProcessor(crop_size=32, size=32),
    )


def make_wan_i2v_a14b(folder: Path) -> None:
    """Write Wan 2.2 I2V A14B: first, or first and last image, two denoisers and no CLIP."""
    torch.manual_seed(0)
    first, second = (WanTransformer3DModel(**_WAN, in_channels=36) for _ in range(2))
    save_pipeline(WanImageToVideoPipeline(**_wan_parts(first), transformer_2=second, boundary_ratio=0.9), folder)


def make_wan_vace(folder: Path) -> None:
    """Write Wan VACE: key frames and clips by a mask."""
    torch.manual_seed(0)
    transformer = WanVACETransformer3DModel(**_WAN, vace_layers=[0, 1], vace_in_channels=96)
    save_pipeline(WanVACEPipeline(**_wan_parts(transformer)), folder)


# --- LTX -------------------------------------------------------------------------------------------------------------


def make_ltx(folder: Path) -> None:
    """Write LTX: one folder for text, image and key frames."""
    torch.manual_seed(0)
    save_pipeline(LTXPipeline(scheduler=FlowMatchEulerDiscreteScheduler(), **_ltx_parts()), folder)


def make_ltx_told_time(folder: Path) -> None:
    """Write LTX 0.9.5 or later: noise is laid on what the VAE decodes, and it is told how much."""
    torch.manual_seed(0)
    parts = _ltx_parts(
        timestep_conditioning=True,
        decoder_inject_noise=(False,) * 5,
        upsample_residual=(False,) * 4,
        upsample_factor=(1,) * 4,
    )
    save_pipeline(LTXConditionPipeline(scheduler=FlowMatchEulerDiscreteScheduler(), **parts), folder)


def _ltx_parts(**of_vae: Any) -> dict[str, Any]:
    vae = AutoencoderKLLTXVideo(
        latent_channels=8,
        block_out_channels=(8, 8, 8, 8),
        decoder_block_out_channels=(8, 8, 8, 8),
        layers_per_block=(1, 1, 1, 1, 1),
        decoder_layers_per_block=(1, 1, 1, 1, 1),
        patch_size=4,
        patch_size_t=1,
        **of_vae,
    )
    transformer = LTXVideoTransformer3DModel(
        in_channels=8,
        out_channels=8,
        num_attention_heads=4,
        attention_head_dim=8,
        cross_attention_dim=32,
        num_layers=2,
        caption_channels=32,
    )
    return {"vae": vae, "text_encoder": tiny_t5(), "tokenizer": t5_tokenizer(), "transformer": transformer}


def make_ltx2(folder: Path) -> None:
    """Write LTX2: clips with their sound."""
    torch.manual_seed(0)
    audio_vae = AutoencoderKLLTX2Audio(
        base_channels=4,
        output_channels=2,
        ch_mult=(1,),
        num_res_blocks=1,
        in_channels=2,
        resolution=32,
        latent_channels=2,
        mel_bins=8,
    )
    text_encoder = _gemma3()
    save_pipeline(
        LTX2Pipeline(
            scheduler=FlowMatchEulerDiscreteScheduler(),
            vae=_ltx2_vae(),
            audio_vae=audio_vae,
            text_encoder=text_encoder,
            tokenizer=_gemma_tokenizer(),
            connectors=_ltx2_connectors(text_encoder.config.text_config),
            transformer=_ltx2_transformer(),
            vocoder=LTX2Vocoder(
                in_channels=16,
                hidden_channels=16,
                upsample_kernel_sizes=[16, 20],
                upsample_factors=[8, 10],
                resnet_kernel_sizes=[3],
                resnet_dilations=[[1, 3, 5]],
                output_sampling_rate=8000,
            ),
        ),
        folder,
    )


def _ltx2_vae() -> AutoencoderKLLTX2Video:
    return AutoencoderKLLTX2Video(
        latent_channels=8,
        block_out_channels=(8, 8, 8, 8),
        decoder_block_out_channels=(8, 16, 32),
        layers_per_block=(1, 1, 1, 1, 1),
        decoder_layers_per_block=(1, 1, 1, 1),
        spatial_compression_ratio=32,
        temporal_compression_ratio=8,
    )


def _ltx2_transformer() -> LTX2VideoTransformer3DModel:
    return LTX2VideoTransformer3DModel(
        in_channels=8,
        out_channels=8,
        num_attention_heads=2,
        attention_head_dim=16,
        cross_attention_dim=32,
        audio_in_channels=4,
        audio_out_channels=4,
        audio_num_attention_heads=2,
        audio_attention_head_dim=8,
        audio_cross_attention_dim=16,
        num_layers=2,
        caption_channels=32,
        rope_double_precision=False,
        rope_type="split",
    )


def _ltx2_connectors(text: Gemma3TextConfig) -> LTX2TextConnectors:
    return LTX2TextConnectors(
        caption_channels=text.hidden_size,
        text_proj_in_factor=text.num_hidden_layers + 1,
        video_connector_num_attention_heads=4,
        video_connector_attention_head_dim=8,
        video_connector_num_layers=1,
        video_connector_num_learnable_registers=None,
        audio_connector_num_attention_heads=4,
        audio_connector_attention_head_dim=8,
        audio_connector_num_layers=1,
        audio_connector_num_learnable_registers=None,
        connector_rope_base_seq_len=32,
        rope_double_precision=False,
        rope_type="split",
    )


def _gemma_tokenizer() -> GemmaTokenizer:
    return GemmaTokenizer(
        vocab=_letters("<pad>", "<eos>", "<bos>", "<unk>", "<mask>", "\u2581"), merges=[], model_max_length=64
    )


def _gemma3() -> Gemma3ForConditionalGeneration:
    shape = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
    text = Gemma3TextConfig(vocab_size=128, num_key_value_heads=4, head_dim=8, **shape)
    vision = SiglipVisionConfig(image_size=16, patch_size=8, **shape)
    return Gemma3ForConditionalGeneration(
        Gemma3Config(text_config=text, vision_config=vision, mm_tokens_per_image=4, image_token_index=127)
    ).eval()


# --- CogVideoX -------------------------------------------------------------------------------------------------------


def _cogvideox_parts(in_channels: int, *, rotary: bool, **of_transformer: Any) -> dict[str, Any]:
    return {
        "tokenizer": t5_tokenizer(),
        "text_encoder": tiny_t5(),
        "vae": AutoencoderKLCogVideoX(
            block_out_channels=(8, 8, 8, 8), latent_channels=4, layers_per_block=1, norm_num_groups=2
        ),
        "transformer": CogVideoXTransformer3DModel(
            num_attention_heads=2,
            attention_head_dim=16,
            in_channels=in_channels,
            out_channels=4,
            time_embed_dim=8,
            text_embed_dim=32,
            num_layers=2,
            sample_width=8,
            sample_height=8,
            sample_frames=17,
            use_rotary_positional_embeddings=rotary,
            **of_transformer,
        ),
        "scheduler": CogVideoXDDIMScheduler(),
    }


def make_cogvideox(folder: Path) -> None:
    """Write CogVideoX for text and clips."""
    torch.manual_seed(0)
    save_pipeline(CogVideoXPipeline(**_cogvideox_parts(4, rotary=True)), folder)


def make_cogvideox_15(folder: Path) -> None:
    """Write CogVideoX 1.5, which takes latent frames in pairs."""
    torch.manual_seed(0)
    parts = _cogvideox_parts(4, rotary=True, patch_size_t=2, patch_bias=False)
    save_pipeline(CogVideoXPipeline(**parts), folder)


def make_cogvideox_i2v(folder: Path) -> None:
    """Write CogVideoX I2V."""
    torch.manual_seed(0)
    save_pipeline(CogVideoXImageToVideoPipeline(**_cogvideox_parts(8, rotary=True)), folder)


# --- HunyuanVideo 1.5 ------------------------------------------------------------------------------------------------

_CHAT = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def _qwen_tokenizer() -> Qwen2Tokenizer:
    # Qwen's letters are bytes: a space is \u0120, a line feed \u010a.
    words = _letters("<|endoftext|>", "<|im_start|>", "<|im_end|>", "\u0120", "\u010a")
    tokenizer = Qwen2Tokenizer(vocab=words, merges=[], model_max_length=2048)
    tokenizer.add_special_tokens({"additional_special_tokens": ["<|im_start|>", "<|im_end|>"]})
    tokenizer.chat_template = _CHAT
    return tokenizer


def _hunyuan_parts(task_type: str, guidance_scale: float = 6.0) -> dict[str, Any]:
    text = Qwen2_5_VLTextConfig(
        vocab_size=128,
        hidden_size=16,
        intermediate_size=16,
        num_hidden_layers=3,
        num_attention_heads=2,
        num_key_value_heads=2,
        rope_scaling={"mrope_section": [1, 1, 2], "rope_type": "default", "type": "default"},
        rope_theta=1e6,
        bos_token_id=0,
        eos_token_id=2,
        pad_token_id=0,
    )
    glyph = T5Config(vocab_size=384, d_model=32, d_kv=8, d_ff=32, num_layers=1, num_heads=4)
    return {
        "text_encoder": Qwen2_5_VLTextModel(text).eval(),
        "tokenizer": _qwen_tokenizer(),
        "text_encoder_2": T5EncoderModel(glyph).eval(),
        "tokenizer_2": ByT5Tokenizer(),
        "transformer": HunyuanVideo15Transformer3DModel(
            in_channels=9,
            out_channels=4,
            num_attention_heads=2,
            attention_head_dim=8,
            num_layers=1,
            num_refiner_layers=1,
            mlp_ratio=2.0,
            text_embed_dim=16,
            text_embed_2_dim=32,
            image_embed_dim=12,
            rope_axes_dim=(2, 2, 4),
            target_size=64,
            task_type=task_type,
        ),
        "vae": AutoencoderKLHunyuanVideo15(
            latent_channels=4,
            block_out_channels=(16, 16, 16, 16, 16),
            layers_per_block=1,
            downsample_match_channel=False,
            upsample_match_channel=False,
        ),
        "scheduler": FlowMatchEulerDiscreteScheduler(shift=7.0),
        "guider": ClassifierFreeGuidance(guidance_scale=guidance_scale),
    }


def make_hunyuan(folder: Path) -> None:
    """Write HunyuanVideo 1.5 T2V."""
    torch.manual_seed(0)
    save_pipeline(HunyuanVideo15Pipeline(**_hunyuan_parts("t2v")), folder)


def make_hunyuan_distilled(folder: Path) -> None:
    """Write HunyuanVideo 1.5 T2V with its guidance distilled into it, which its guider says."""
    torch.manual_seed(0)
    save_pipeline(HunyuanVideo15Pipeline(**_hunyuan_parts("t2v", guidance_scale=1.0)), folder)


def make_hunyuan_i2v(folder: Path) -> None:
    """Write HunyuanVideo 1.5 I2V; SigLIP gives 729 tokens, as its pipeline's mask expects."""
    torch.manual_seed(0)
    vision = SiglipVisionConfig(
        hidden_size=12,
        intermediate_size=24,
        num_hidden_layers=1,
        num_attention_heads=2,
        image_size=54,
        patch_size=2,
    )
    save_pipeline(
        HunyuanVideo15ImageToVideoPipeline(
            **_hunyuan_parts("i2v"),
            image_encoder=SiglipVisionModel(vision),
            feature_extractor=SiglipImageProcessor(size={"height": 54, "width": 54}),
        ),
        folder,
    )


MAKERS: Final[Mapping[str, Callable[[Path], None]]] = {
    "animatediff": make_animatediff,
    "sparsectrl": make_sparsectrl,
    "svd": make_svd,
    "wan-t2v": make_wan_t2v,
    "wan-t2v-a14b": make_wan_t2v_a14b,
    "wan-ti2v": make_wan_ti2v,
    "wan-i2v": make_wan_i2v,
    "wan-flf2v": make_wan_flf2v,
    "wan-i2v-a14b": make_wan_i2v_a14b,
    "wan-vace": make_wan_vace,
    "ltx": make_ltx,
    "ltx-told-time": make_ltx_told_time,
    "ltx2": make_ltx2,
    "cogvideox": make_cogvideox,
    "cogvideox-1.5": make_cogvideox_15,
    "cogvideox-i2v": make_cogvideox_i2v,
    "hunyuan": make_hunyuan,
    "hunyuan-distilled": make_hunyuan_distilled,
    "hunyuan-i2v": make_hunyuan_i2v,
    "kandinsky": partial(make_tiny_kandinsky_clips, pipeline="Kandinsky5T2VPipeline"),
    "kandinsky-i2v": partial(make_tiny_kandinsky_clips, pipeline="Kandinsky5I2VPipeline"),
}
"""Name of a tiny model to the function that writes its folder."""
