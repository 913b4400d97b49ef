"""Published models by architecture, for the table of memory; what diffusers' classes have by default is left out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from benchmarks.architectures import ARCHITECTURES


@dataclass(frozen=True, slots=True, kw_only=True)
class Published:
    """One published model.

    Attributes:
        name: Name for people.
        titles: Families it is of.
        denoiser: diffusers class, and where it differs from the class's own defaults.
        vae: The same.
        encoders: Parameters of the other modules, by their model cards.
        copies: Denoisers of this kind.
        guided_rows: See `Peaks`.
        is_vae_wide: Whether the VAE is run in float32.
        size: Height, width and frames that it was made for.
        width: Channels of a token of the denoiser, where a pass cannot be made on the meta device; else 0.
        patch: Sides of a token in latents, for such a denoiser.
    """

    name: str
    titles: tuple[str, ...]
    denoiser: tuple[str, Mapping[str, Any]]
    vae: tuple[str, Mapping[str, Any]]
    encoders: Mapping[str, int]
    copies: int = 1
    guided_rows: int = 1
    is_vae_wide: bool = False
    size: tuple[int, int, int] = (1024, 1024, 1)
    width: int = 0
    patch: int = 2


_CLIP_L, _CLIP_G = 123_060_480, 694_659_840
_T5_XXL, _UMT5_XXL = 4_762_310_656, 5_680_910_336
_SD15, _SDXL, _FLUX = (ARCHITECTURES[name].parts for name in ("sd15", "sdxl", "flux"))
_WAN_VAE: Final[tuple[str, Mapping[str, Any]]] = ("AutoencoderKLWan", {})
_WAN_TEXT = {"text_encoder": _UMT5_XXL}
_QWEN2_5_VL = 8_292_166_656
_KANDINSKY_LITE: Final[Mapping[str, Any]] = {
    "in_visual_dim": 16,
    "out_visual_dim": 16,
    "model_dim": 2560,
    "ff_dim": 10240,
    "num_visual_blocks": 50,
    "axes_dims": (32, 48, 48),
}
_VIDEO_480 = (480, 832, 81)
_X4 = {
    "sample_size": 128,
    "in_channels": 7,
    "attention_head_dim": 8,
    "block_out_channels": (256, 512, 512, 1024),
    "cross_attention_dim": 1024,
    "down_block_types": ("DownBlock2D", *("CrossAttnDownBlock2D",) * 3),
    "up_block_types": (*("CrossAttnUpBlock2D",) * 3, "UpBlock2D"),
    "num_class_embeds": 1000,
    "only_cross_attention": (True, True, True, False),
    "use_linear_projection": True,
}
_REFINER = {
    **_SDXL["unet"][1],
    "block_out_channels": (384, 768, 1536, 1536),
    "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"),
    "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
    "attention_head_dim": (6, 12, 24, 24),
    "transformer_layers_per_block": 4,
    "cross_attention_dim": 1280,
    "projection_class_embeddings_input_dim": 2560,
}
_SD3_VAE = ("AutoencoderKL", {**_FLUX["vae"][1]})


def _sd3(width: int, layers: int) -> tuple[str, dict[str, object]]:
    return "SD3Transformer2DModel", {
        "num_layers": layers,
        "num_attention_heads": width // 64,
        "caption_projection_dim": width,
        "pos_embed_max_size": 192,
        "pooled_projection_dim": 2048,
        "joint_attention_dim": 4096,
        "sample_size": 128,
        "qk_norm": "rms_norm" if layers > 24 else None,
    }


_SD3_TEXT = {"text_encoder": _CLIP_L, "text_encoder_2": _CLIP_G, "text_encoder_3": _T5_XXL}

PUBLISHED: Final = (
    Published(
        name="SD 1.5",
        titles=("Stable Diffusion 1.x/2.x",),
        denoiser=("UNet2DConditionModel", _SD15["unet"][1]),
        vae=("AutoencoderKL", _SD15["vae"][1]),
        encoders={"text_encoder": _CLIP_L},
        guided_rows=2,
        size=(512, 512, 1),
    ),
    Published(
        name="SDXL",
        titles=("Stable Diffusion XL",),
        denoiser=("UNet2DConditionModel", _SDXL["unet"][1]),
        vae=("AutoencoderKL", _SDXL["vae"][1]),
        encoders={"text_encoder": _CLIP_L, "text_encoder_2": _CLIP_G},
        guided_rows=2,
    ),
    Published(
        name="SDXL refiner",
        titles=("Stable Diffusion XL Refiner",),
        denoiser=("UNet2DConditionModel", _REFINER),
        vae=("AutoencoderKL", _SDXL["vae"][1]),
        encoders={"text_encoder_2": _CLIP_G},
        guided_rows=2,
    ),
    Published(
        name="SD 3.5 medium",
        titles=("Stable Diffusion 3/3.5",),
        denoiser=_sd3(1536, 24),
        vae=_SD3_VAE,
        encoders=_SD3_TEXT,
        guided_rows=2,
    ),
    Published(
        name="SD 3.5 large",
        titles=("Stable Diffusion 3/3.5",),
        denoiser=_sd3(2432, 38),
        vae=_SD3_VAE,
        encoders=_SD3_TEXT,
        guided_rows=2,
    ),
    Published(
        name="Flux.1 dev",
        titles=("Flux.1", "Flux.1 Fill", "Flux.1 Kontext"),
        denoiser=("FluxTransformer2DModel", _FLUX["transformer"][1]),
        vae=("AutoencoderKL", _FLUX["vae"][1]),
        encoders={"text_encoder": _CLIP_L, "text_encoder_2": _T5_XXL},
    ),
    Published(
        name="Chroma1",
        titles=("Chroma",),
        denoiser=("ChromaTransformer2DModel", {}),
        vae=("AutoencoderKL", _FLUX["vae"][1]),
        encoders={"text_encoder": _T5_XXL},
    ),
    Published(
        name="Stable Diffusion x4 Upscaler",
        titles=("Stable Diffusion x4 Upscaler",),
        denoiser=("UNet2DConditionModel", _X4),
        vae=(
            "AutoencoderKL",
            {
                "block_out_channels": (128, 256, 512),
                "down_block_types": ("DownEncoderBlock2D",) * 3,
                "up_block_types": ("UpDecoderBlock2D",) * 3,
                "layers_per_block": 2,
                "sample_size": 256,
            },
        ),
        encoders={"text_encoder": 340_387_840},
        guided_rows=2,
        size=(512, 512, 1),
    ),
    Published(
        name="Flux.2 dev",
        titles=("Flux.2 dev",),
        denoiser=("Flux2Transformer2DModel", {}),
        vae=("AutoencoderKLFlux2", {}),
        encoders={"text_encoder": 23_340_272_640},
    ),
    Published(
        name="Flux.2 Klein 4B",
        titles=("Flux.2 Klein",),
        denoiser=(
            "Flux2Transformer2DModel",
            {
                "num_layers": 5,
                "num_single_layers": 20,
                "num_attention_heads": 24,
                "joint_attention_dim": 7680,
                "guidance_embeds": False,
            },
        ),
        vae=("AutoencoderKLFlux2", {}),
        encoders={"text_encoder": 4_022_468_096},
    ),
    Published(
        name="Qwen-Image",
        titles=("Qwen-Image", "Qwen-Image-Edit", "Qwen-Image-Edit-Plus"),
        denoiser=("QwenImageTransformer2DModel", {}),
        vae=("AutoencoderKLQwenImage", {}),
        encoders={"text_encoder": _QWEN2_5_VL},
    ),
    Published(
        name="Qwen-Image 2.1",
        titles=("Qwen-Image 2.1",),
        denoiser=("QwenImage21Transformer2DModel", {}),
        vae=("AutoencoderKLQwenImage21", {}),
        encoders={"text_encoder": 8_767_123_696},
        width=4096,
        patch=1,
    ),
    Published(
        name="Z-Image",
        titles=("Z-Image",),
        denoiser=("ZImageTransformer2DModel", {}),
        vae=("AutoencoderKL", _FLUX["vae"][1]),
        encoders={"text_encoder": 4_022_468_096},
        width=3840,
    ),
    Published(
        name="HunyuanImage 2.1",
        titles=("HunyuanImage 2.1", "HunyuanImage 2.1 distilled"),
        denoiser=("HunyuanImageTransformer2DModel", {"text_embed_2_dim": 1472}),
        vae=(
            "AutoencoderKLHunyuanImage",
            {
                "in_channels": 3,
                "out_channels": 3,
                "latent_channels": 64,
                "block_out_channels": (128, 256, 512, 512, 1024, 1024),
                "layers_per_block": 2,
                "spatial_compression_ratio": 32,
                "sample_size": 384,
            },
        ),
        encoders={"text_encoder": _QWEN2_5_VL, "text_encoder_2": 219_314_944},
        size=(2048, 2048, 1),
        width=3584,
        patch=1,
    ),
    Published(
        name="Kandinsky 5 T2I Lite",
        titles=("Kandinsky 5 T2I",),
        denoiser=("Kandinsky5Transformer3DModel", _KANDINSKY_LITE),
        vae=("AutoencoderKL", _FLUX["vae"][1]),
        encoders={"text_encoder": _QWEN2_5_VL, "text_encoder_2": _CLIP_L},
    ),
    Published(
        name="HiDream-I1",
        titles=("HiDream-I1",),
        denoiser=(
            "HiDreamImageTransformer2DModel",
            {
                "patch_size": 2,
                "in_channels": 16,
                "caption_channels": [4096, 4096],
                "axes_dims_rope": (64, 32, 32),
                "llama_layers": [*range(32), *[31] * 16],
            },
        ),
        vae=("AutoencoderKL", _FLUX["vae"][1]),
        encoders={
            "text_encoder": _CLIP_L,
            "text_encoder_2": _CLIP_G,
            "text_encoder_3": _T5_XXL,
            "text_encoder_4": 8_030_261_248,
        },
        guided_rows=2,
        width=2560,
    ),
    Published(
        name="Sana 1.6B",
        titles=("Sana",),
        denoiser=("SanaTransformer2DModel", {}),
        vae=(
            "AutoencoderDC",
            {
                "encoder_block_types": ("ResBlock",) * 3 + ("EfficientViTBlock",) * 3,
                "decoder_block_types": ("ResBlock",) * 3 + ("EfficientViTBlock",) * 3,
            },
        ),
        encoders={"text_encoder": 2_614_341_888},
        guided_rows=2,
    ),
    Published(
        name="AuraFlow 0.3",
        titles=("AuraFlow", "AuraFlow 0.3"),
        denoiser=("AuraFlowTransformer2DModel", {"pos_embed_max_size": 9216}),
        vae=("AutoencoderKL", _SDXL["vae"][1]),
        encoders={"text_encoder": 1_223_550_976},
        guided_rows=2,
    ),
    Published(
        name="Wan 2.1 1.3B",
        titles=("Wan 2.1 T2V",),
        denoiser=("WanTransformer3DModel", {"num_attention_heads": 12, "ffn_dim": 8960, "num_layers": 30}),
        vae=_WAN_VAE,
        encoders=_WAN_TEXT,
        is_vae_wide=True,
        size=_VIDEO_480,
    ),
    Published(
        name="Wan 2.1 14B",
        titles=("Wan 2.1 T2V",),
        denoiser=("WanTransformer3DModel", {}),
        vae=_WAN_VAE,
        encoders=_WAN_TEXT,
        is_vae_wide=True,
        size=_VIDEO_480,
    ),
    Published(
        name="Wan 2.1 I2V 14B",
        titles=("Wan 2.1 I2V", "Wan 2.1 FLF2V"),
        denoiser=("WanTransformer3DModel", {"in_channels": 36, "image_dim": 1280, "added_kv_proj_dim": 5120}),
        vae=_WAN_VAE,
        encoders={**_WAN_TEXT, "image_encoder": 632_076_800},
        is_vae_wide=True,
        size=_VIDEO_480,
    ),
    Published(
        name="Wan 2.2 A14B",
        titles=("Wan 2.2 T2V A14B", "Wan 2.2 I2V A14B"),
        denoiser=("WanTransformer3DModel", {}),
        vae=_WAN_VAE,
        encoders=_WAN_TEXT,
        copies=2,
        is_vae_wide=True,
        size=_VIDEO_480,
    ),
    Published(
        name="Wan 2.2 TI2V 5B",
        titles=("Wan 2.2 TI2V",),
        denoiser=(
            "WanTransformer3DModel",
            {"num_attention_heads": 24, "ffn_dim": 14336, "num_layers": 30, "in_channels": 48, "out_channels": 48},
        ),
        vae=(
            "AutoencoderKLWan",
            {
                "base_dim": 160,
                "decoder_base_dim": 256,
                "z_dim": 48,
                "in_channels": 12,
                "out_channels": 12,
                "is_residual": True,
                "patch_size": 2,
                "scale_factor_spatial": 16,
                "latents_mean": [0.0] * 48,
                "latents_std": [1.0] * 48,
            },
        ),
        encoders=_WAN_TEXT,
        is_vae_wide=True,
        size=(704, 1280, 121),
    ),
    Published(
        name="Kandinsky 5 I2I Lite",
        titles=("Kandinsky 5 I2I",),
        denoiser=("Kandinsky5Transformer3DModel", {**_KANDINSKY_LITE, "visual_cond": True}),
        vae=("AutoencoderKL", _FLUX["vae"][1]),
        encoders={"text_encoder": _QWEN2_5_VL, "text_encoder_2": _CLIP_L},
    ),
    Published(
        name="Kandinsky 5 T2V Lite",
        titles=("Kandinsky 5 T2V", "Kandinsky 5 I2V"),
        denoiser=(
            "Kandinsky5Transformer3DModel",
            {"in_visual_dim": 16, "out_visual_dim": 16, "model_dim": 1792, "ff_dim": 7168, "visual_cond": True},
        ),
        vae=("AutoencoderKLHunyuanVideo", {}),
        encoders={"text_encoder": _QWEN2_5_VL, "text_encoder_2": _CLIP_L},
        size=(512, 768, 121),
    ),
    Published(
        name="HunyuanVideo 1.5",
        titles=("HunyuanVideo 1.5", "HunyuanVideo 1.5 I2V"),
        denoiser=("HunyuanVideo15Transformer3DModel", {}),
        vae=("AutoencoderKLHunyuanVideo15", {}),
        encoders={"text_encoder": 7_615_616_512, "text_encoder_2": 219_314_944},
        size=(480, 848, 121),
        width=2048,
        patch=1,
    ),
    Published(
        name="LTX-Video 2B",
        titles=("LTX-Video", "LTX-Video 0.9.5 and later"),
        denoiser=("LTXVideoTransformer3DModel", {}),
        vae=("AutoencoderKLLTXVideo", {}),
        encoders={"text_encoder": _T5_XXL},
        guided_rows=2,
        size=(512, 704, 97),
    ),
    Published(
        name="CogVideoX 2B",
        titles=("CogVideoX",),
        denoiser=("CogVideoXTransformer3DModel", {}),
        vae=("AutoencoderKLCogVideoX", {}),
        encoders={"text_encoder": _T5_XXL},
        guided_rows=2,
        size=(480, 720, 49),
    ),
    Published(
        name="CogVideoX 5B",
        titles=("CogVideoX", "CogVideoX I2V"),
        denoiser=(
            "CogVideoXTransformer3DModel",
            {"num_attention_heads": 48, "num_layers": 42, "use_rotary_positional_embeddings": True},
        ),
        vae=("AutoencoderKLCogVideoX", {}),
        encoders={"text_encoder": _T5_XXL},
        guided_rows=2,
        size=(480, 720, 49),
    ),
)
"""Several of one family differ in the size of the denoiser; the first one stands for a model of unknown size."""
