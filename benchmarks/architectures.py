"""True architectures with random weights, as diffusers' folders: what a GPU is measured with.

    ARCHITECTURES[name] --> make(architecture, folder, device) --> a folder that the worker loads like any other

Numbers are those of the public config.json files (stable-diffusion-v1-5, stable-diffusion-xl-base-1.0, FLUX.1-dev,
Wan2.1-T2V-1.3B-Diffusers). T5 encoders have their true width and 2 of 24 layers, and all tokenizers a toy vocabulary:
text counts for nothing in these figures. `toy` is the same wiring small enough for a CPU and a test.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import diffusers
import torch
import transformers

from benchmarks.model import letter_tokenizer

SEED = 20261121

_DEEP_DOWN = ("CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D")
_DEEP_UP = ("UpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D")
_SCALED = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Architecture:
    """One model, and the job it is measured with.

    Attributes:
        pipeline: diffusers class.
        parts: Component --> (module path of the class, its configuration).
        toy: Component --> what is smaller in a toy.
        arguments: Columns of the job: size, steps, guidance, frames.
        toy_arguments: What is smaller in a toy.
        task: Of the manifest.
        batch_sizes: The curve; the job runs with the best.
        parameters: Of the denoiser, in millions, by its model card; compared at birth.
        target: Row of the table, and what is judged: `rate` or `share` of the matrix rate.
        options: Further ones of the pipeline's constructor.
        memory_gib: Of the GPU that it needs.
        model: Further keys of the job's model on a GPU; nothing lossy.
    """

    pipeline: str
    parts: Mapping[str, tuple[str, Mapping[str, Any]]]
    toy: Mapping[str, Mapping[str, Any]]
    arguments: Mapping[str, Any]
    toy_arguments: Mapping[str, Any]
    task: str = "text-to-image"
    batch_sizes: tuple[int, ...]
    parameters: float
    target: tuple[str, str] | None = None
    options: Mapping[str, Any] = field(default_factory=dict)
    memory_gib: float = 24.0
    model: Mapping[str, Any] = field(default_factory=lambda: {"compile": "whole"})


def _clip(**changes: Any) -> dict[str, Any]:
    """Return CLIP ViT-L's text tower, its vocabulary cut to the toy tokenizer's."""
    return {
        "vocab_size": 514,
        "hidden_size": 768,
        "intermediate_size": 3072,
        "num_hidden_layers": 12,
        "num_attention_heads": 12,
        "max_position_embeddings": 77,
        "projection_dim": 768,
        "hidden_act": "quick_gelu",
        "bos_token_id": 512,
        "eos_token_id": 513,
        "pad_token_id": 513,
        **changes,
    }


_BIG_G = _clip(
    hidden_size=1280,
    intermediate_size=5120,
    num_hidden_layers=32,
    num_attention_heads=20,
    projection_dim=1280,
    hidden_act="gelu",
)
_TOY_CLIP = {"hidden_size": 32, "intermediate_size": 37, "num_hidden_layers": 2, "num_attention_heads": 4}
_TOY_CLIP_PROJECTED = {**_TOY_CLIP, "projection_dim": 32}
_T5 = {
    "vocab_size": 128,
    "d_model": 4096,
    "d_ff": 10240,
    "d_kv": 64,
    "num_layers": 2,
    "num_heads": 64,
    "feed_forward_proj": "gated-gelu",
}
_TOY_T5 = {"d_model": 32, "d_ff": 64, "d_kv": 8, "num_heads": 4}


def _kl_vae(**changes: Any) -> dict[str, Any]:
    """Return Stable Diffusion's autoencoder."""
    return {
        "in_channels": 3,
        "out_channels": 3,
        "latent_channels": 4,
        "layers_per_block": 2,
        "block_out_channels": (128, 256, 512, 512),
        "down_block_types": ("DownEncoderBlock2D",) * 4,
        "up_block_types": ("UpDecoderBlock2D",) * 4,
        "norm_num_groups": 32,
        "sample_size": 512,
        "scaling_factor": 0.18215,
        **changes,
    }


_TOY_KL = {"block_out_channels": (8, 8, 8, 8), "layers_per_block": 1, "norm_num_groups": 4, "sample_size": 64}

_SDXL_PARTS: dict[str, tuple[str, Mapping[str, Any]]] = {
    "unet": (
        "diffusers.UNet2DConditionModel",
        {
            "sample_size": 128,
            "in_channels": 4,
            "out_channels": 4,
            "layers_per_block": 2,
            "block_out_channels": (320, 640, 1280),
            "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
            "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
            "attention_head_dim": (5, 10, 20),
            "transformer_layers_per_block": (1, 2, 10),
            "cross_attention_dim": 2048,
            "use_linear_projection": True,
            "addition_embed_type": "text_time",
            "addition_time_embed_dim": 256,
            "projection_class_embeddings_input_dim": 2816,
        },
    ),
    "vae": ("diffusers.AutoencoderKL", _kl_vae(sample_size=1024, scaling_factor=0.13025)),
    "text_encoder": ("transformers.CLIPTextModel", _clip()),
    "text_encoder_2": ("transformers.CLIPTextModelWithProjection", _BIG_G),
    "tokenizer": ("", {}),
    "tokenizer_2": ("", {}),
    "scheduler": ("diffusers.EulerDiscreteScheduler", {**_SCALED, "steps_offset": 1, "timestep_spacing": "leading"}),
}
_SDXL_TOY: dict[str, Mapping[str, Any]] = {
    "unet": {
        "sample_size": 8,
        "layers_per_block": 1,
        "block_out_channels": (8, 16, 16),
        "attention_head_dim": (2, 2, 2),
        "transformer_layers_per_block": (1, 1, 2),
        "cross_attention_dim": 64,
        "norm_num_groups": 4,
        "addition_time_embed_dim": 8,
        "projection_class_embeddings_input_dim": 6 * 8 + 32,
    },
    "vae": _TOY_KL,
    "text_encoder": _TOY_CLIP,
    "text_encoder_2": _TOY_CLIP_PROJECTED,
}
_TOY_PICTURE = {"height": 64, "width": 64, "num_inference_steps": 2}

ARCHITECTURES: Mapping[str, Architecture] = {
    "sdxl": Architecture(
        pipeline="StableDiffusionXLPipeline",
        parts=_SDXL_PARTS,
        toy=_SDXL_TOY,
        arguments={"height": 1024, "width": 1024, "num_inference_steps": 20, "guidance_scale": 8.0},
        toy_arguments=_TOY_PICTURE,
        batch_sizes=(1, 2, 4, 8, 16, 32),
        parameters=2567.46,
        target=("gpu_sdxl", "rate"),
        options={"force_zeros_for_empty_prompt": True, "add_watermarker": False},
    ),
    "sdxl-4-steps": Architecture(
        pipeline="StableDiffusionXLPipeline",
        parts=_SDXL_PARTS,
        toy=_SDXL_TOY,
        arguments={"height": 1024, "width": 1024, "num_inference_steps": 4, "guidance_scale": 0.0},
        toy_arguments=_TOY_PICTURE,
        batch_sizes=(1, 4, 8, 16, 32),
        parameters=2567.46,
        target=("gpu_sdxl_4_steps", "rate"),
        options={"force_zeros_for_empty_prompt": True, "add_watermarker": False},
    ),
    "sd15": Architecture(
        pipeline="StableDiffusionPipeline",
        parts={
            "unet": (
                "diffusers.UNet2DConditionModel",
                {
                    "sample_size": 64,
                    "layers_per_block": 2,
                    "block_out_channels": (320, 640, 1280, 1280),
                    "down_block_types": _DEEP_DOWN,
                    "up_block_types": _DEEP_UP,
                    "attention_head_dim": 8,
                    "cross_attention_dim": 768,
                },
            ),
            "vae": ("diffusers.AutoencoderKL", _kl_vae()),
            "text_encoder": ("transformers.CLIPTextModel", _clip()),
            "tokenizer": ("", {}),
            "scheduler": (
                "diffusers.PNDMScheduler",
                {**_SCALED, "skip_prk_steps": True, "set_alpha_to_one": False, "steps_offset": 1},
            ),
            "safety_checker": ("", {}),
            "feature_extractor": ("", {}),
        },
        toy={
            "unet": {
                "sample_size": 8,
                "layers_per_block": 1,
                "block_out_channels": (8, 8, 16, 16),
                "attention_head_dim": 2,
                "cross_attention_dim": 32,
                "norm_num_groups": 4,
            },
            "vae": _TOY_KL,
            "text_encoder": _TOY_CLIP,
        },
        arguments={
            "height": 512,
            "width": 512,
            "num_inference_steps": 20,
            "guidance_scale": 7.5,
            "scheduler": "DDIMScheduler",
        },
        toy_arguments=_TOY_PICTURE,
        batch_sizes=(1, 2, 4, 8, 16, 32, 64),
        parameters=859.52,
        target=("gpu_sd15", "rate"),
        options={"requires_safety_checker": False},
    ),
    "flux": Architecture(
        pipeline="FluxPipeline",
        parts={
            "transformer": (
                "diffusers.FluxTransformer2DModel",
                {
                    "patch_size": 1,
                    "in_channels": 64,
                    "num_layers": 19,
                    "num_single_layers": 38,
                    "attention_head_dim": 128,
                    "num_attention_heads": 24,
                    "joint_attention_dim": 4096,
                    "pooled_projection_dim": 768,
                    "guidance_embeds": True,
                    "axes_dims_rope": (16, 56, 56),
                },
            ),
            "vae": (
                "diffusers.AutoencoderKL",
                _kl_vae(
                    latent_channels=16,
                    sample_size=1024,
                    scaling_factor=0.3611,
                    shift_factor=0.1159,
                    use_quant_conv=False,
                    use_post_quant_conv=False,
                ),
            ),
            "text_encoder": ("transformers.CLIPTextModel", _clip()),
            "text_encoder_2": ("transformers.T5EncoderModel", _T5),
            "tokenizer": ("", {}),
            "tokenizer_2": ("", {}),
            "scheduler": ("diffusers.FlowMatchEulerDiscreteScheduler", {"shift": 3.0, "use_dynamic_shifting": True}),
        },
        toy={
            "transformer": {
                "num_layers": 1,
                "num_single_layers": 1,
                "attention_head_dim": 16,
                "num_attention_heads": 2,
                "joint_attention_dim": 32,
                "pooled_projection_dim": 32,
                "axes_dims_rope": (4, 6, 6),
            },
            "vae": _TOY_KL,
            "text_encoder": _TOY_CLIP,
            "text_encoder_2": _TOY_T5,
        },
        arguments={"height": 1024, "width": 1024, "num_inference_steps": 28, "guidance_scale": 3.5},
        toy_arguments=_TOY_PICTURE,
        batch_sizes=(1, 2, 4),
        parameters=11901.41,
        memory_gib=60.0,
        model={"compile": True},
    ),
    "wan": Architecture(
        pipeline="WanPipeline",
        parts={
            "transformer": (
                "diffusers.WanTransformer3DModel",
                {
                    "patch_size": (1, 2, 2),
                    "num_attention_heads": 12,
                    "attention_head_dim": 128,
                    "in_channels": 16,
                    "out_channels": 16,
                    "text_dim": 4096,
                    "freq_dim": 256,
                    "ffn_dim": 8960,
                    "num_layers": 30,
                    "cross_attn_norm": True,
                    "qk_norm": "rms_norm_across_heads",
                },
            ),
            "vae": ("diffusers.AutoencoderKLWan", {"base_dim": 96, "z_dim": 16, "dim_mult": [1, 2, 4, 4]}),
            "text_encoder": ("transformers.UMT5EncoderModel", _T5),
            "tokenizer": ("", {}),
            "scheduler": (
                "diffusers.UniPCMultistepScheduler",
                {"prediction_type": "flow_prediction", "use_flow_sigmas": True, "flow_shift": 3.0},
            ),
        },
        toy={
            "transformer": {
                "num_attention_heads": 2,
                "attention_head_dim": 12,
                "text_dim": 32,
                "ffn_dim": 32,
                "num_layers": 2,
            },
            "vae": {"base_dim": 4, "dim_mult": [1, 1, 1, 1], "num_res_blocks": 1},
            "text_encoder": _TOY_T5,
        },
        arguments={
            "height": 480,
            "width": 832,
            "num_frames": 81,
            "fps": 16.0,
            "num_inference_steps": 8,
            "guidance_scale": 5.0,
        },
        toy_arguments={"height": 32, "width": 32, "num_frames": 5, "num_inference_steps": 2},
        task="text-to-video",
        batch_sizes=(1,),
        parameters=1418.99,
        target=("gpu_wan", "share"),
        memory_gib=40.0,
        model={"compile": True},
    ),
}

FEW_BLOCKS: Mapping[str, Any] = {"num_layers": 4, "num_single_layers": 8}
"""Of Flux's 19 and 38: its true width, in a fifth of the memory and of the time."""


def _flux_few() -> Architecture:
    """Return Flux with fewer blocks."""
    flux = ARCHITECTURES["flux"]
    path, values = flux.parts["transformer"]
    return replace(
        flux,
        parts={**flux.parts, "transformer": (path, {**values, **FEW_BLOCKS})},
        parameters=2556.18,
        target=None,
        memory_gib=24.0,
    )


PARTIAL: Mapping[str, Architecture] = {"flux-few": _flux_few()}
"""Architectures of which only a part is measured; no rate of theirs is a model's."""


def component(architecture: Architecture, name: str, *, is_toy: bool) -> Any:
    """Build one component with random weights on torch's current default device."""
    path, values = architecture.parts[name]
    if name.startswith("tokenizer"):
        return _TOKENIZERS["T5" in _encoder_of(architecture, name)]()
    if not path:
        return None
    library, _, class_name = path.rpartition(".")
    cls = getattr({"diffusers": diffusers, "transformers": transformers}[library], class_name)
    values = {**values, **(architecture.toy.get(name, {}) if is_toy else {})}
    if library == "transformers":
        return cls(cls.config_class(**values))
    return cls(**values)


def denoiser(architecture: Architecture) -> str:
    """Return the name of the component that denoises."""
    return "unet" if "unet" in architecture.parts else "transformer"


def make(architecture: Architecture, folder: Path, *, device: str, dtype: torch.dtype, is_toy: bool) -> None:
    """Write a folder; weights are drawn on the device, as a CPU would take minutes.

    Raises:
        ValueError: When the denoiser has not as many parameters as the model card says.
    """
    diffusers.utils.logging.set_verbosity_error()
    torch.manual_seed(SEED)
    with torch.device(device):
        parts = {name: component(architecture, name, is_toy=is_toy) for name in architecture.parts}
    millions = sum(value.numel() for value in parts[denoiser(architecture)].parameters()) / 1e6
    if not is_toy and abs(millions - architecture.parameters) > 0.01:
        raise ValueError(f"the denoiser has {millions:.2f} million parameters, not {architecture.parameters}")
    for part in parts.values():
        if isinstance(part, torch.nn.Module):
            part.to(dtype)
    pipeline = getattr(diffusers, architecture.pipeline)(**parts, **architecture.options)
    pipeline.save_pretrained(folder, safe_serialization=True)


def _encoder_of(architecture: Architecture, tokenizer: str) -> str:
    return architecture.parts[tokenizer.replace("tokenizer", "text_encoder")][0]


def _t5_tokenizer() -> Any:
    """Return a T5 tokenizer whose words are single letters."""
    letters = [chr(code) for code in range(33, 127)]
    words = ["<pad>", "</s>", "<unk>", "\u2581", *letters]
    return transformers.T5Tokenizer(vocab=[(word, -1.0) for word in words], extra_ids=0, model_max_length=512)


_TOKENIZERS: Mapping[bool, Callable[[], Any]] = {True: _t5_tokenizer, False: letter_tokenizer}
