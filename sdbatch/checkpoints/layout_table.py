"""Published models as single files, by the names and shapes of their tensors; see `sdbatch.checkpoints.layouts`.

The first row that a file fits counts, so the more particular ones stand first; of those that equal keys tell, the first
whose sizes fit is assumed unless the job says `like`. The keys are those of the models' authors, as diffusers'
`infer_diffusers_model_type` knows them; a test compares the two.
"""

from __future__ import annotations

import re
from typing import Any, Final

from sdbatch.checkpoints.layouts import Layout

_UNET_LAYERS: Final = re.compile(
    r"time_embed\.[02]\.weight|label_emb\.0\.[02]\.weight|(input_blocks|output_blocks)\.\d+\.\d+\..+|middle_block\.\d\..+|"
    r"out\.[02]\.weight"
)
_FLUX_LAYERS: Final = re.compile(
    r"(img_in|txt_in|(time_in|vector_in|guidance_in)\.(in|out)_layer|final_layer\.(linear|adaLN_modulation\.1)|"
    r"(double_stream_modulation_(img|txt)|single_stream_modulation)\.lin|"
    r"double_blocks\.\d+\.(img|txt)_(mod\.lin|attn\.(qkv|proj)|mlp\.[02])|"
    r"single_blocks\.\d+\.(modulation\.lin|linear[12]))\.weight"
)
_WAN_LAYERS: Final = re.compile(
    r"(patch_embedding|vace_patch_embedding|(text|time)_embedding\.[02]|time_projection\.1|img_emb\.proj\.[0134]|head\.head|"
    r"(blocks|vace_blocks)\.\d+\.((self|cross)_attn\.([qkvo]|[kv]_img)|ffn\.[02]|before_proj|after_proj))\.weight|"
    r"img_emb\.emb_pos|head\.modulation|(blocks|vace_blocks)\.\d+\.modulation"
)

_SD: Final = "Stable Diffusion 1.x/2.x"
_SDXL: Final = "Stable Diffusion XL"
_REFINER: Final = "Stable Diffusion XL Refiner"
_SD3: Final = "Stable Diffusion 3/3.5"

_IN: Final = "input_blocks.0.0.weight"
_OUT: Final = "out.2.weight"
_CONTEXT: Final = "middle_block.1.transformer_blocks.0.attn2.to_k.weight"
_UNET: Final = (_IN, _OUT)
_CLASSES: Final = "label_emb.0.0.weight"
_LAYERS_SD: Final = {(_IN, 0): 320, (_IN, 1): 4, ("output_blocks.11.0.skip_connection.weight", 0): 320}
_POSITIONS: Final = "transformer.text_model.embeddings.position_embedding.weight"
_T5: Final = ("text_encoders.t5xxl.transformer.shared.weight",)
_CLIP: Final = {"text_encoder": (f"cond_stage_model.{_POSITIONS}", "cond_stage_model.model.token_embedding.weight")}
_CLIP_XL: Final = {
    "text_encoder": (f"conditioner.embedders.0.{_POSITIONS}",),
    "text_encoder_2": ("conditioner.embedders.1.model.positional_embedding",),
}
_CLIP_3: Final = {
    "text_encoder": (f"text_encoders.clip_l.{_POSITIONS}",),
    "text_encoder_2": (f"text_encoders.clip_g.{_POSITIONS}",),
    "text_encoder_3": _T5,
}
_CLIP_FLUX: Final = {"text_encoder": (f"text_encoders.clip_l.{_POSITIONS}",), "text_encoder_2": _T5}


def _sd(title: str, configs: str, context: int, *, family: str = _SD, **changes: Any) -> Layout:
    """Return a row of Stable Diffusion 1 or 2; the length of a text token's vector tells which."""
    sizes = {
        (_IN, 0): 320,
        (_IN, 1): 4,
        (_CONTEXT, 1): context,
        ("output_blocks.11.0.skip_connection.weight", 0): 320,
    }
    row = {"marks": _UNET, "absent": (_CLASSES,), "encoders": _CLIP, "sizes": sizes, "layers": _UNET_LAYERS}
    return Layout(title=title, family=family, configs=configs, **{**row, **changes})


def _xl(title: str, configs: str, **changes: Any) -> Layout:
    sizes = {
        (_IN, 0): 320,
        (_IN, 1): 4,
        (_CONTEXT, 1): 2048,
        (_CLASSES, 1): 2816,
        ("output_blocks.8.0.skip_connection.weight", 0): 320,
    }
    row = {
        "family": _SDXL,
        "marks": (*_UNET, _CLASSES),
        "encoders": _CLIP_XL,
        "sizes": sizes,
        "layers": _UNET_LAYERS,
    }
    return Layout(title=title, configs=configs, **{**row, **changes})


def _refiner(**tells: Any) -> Layout:
    """Return a row of SDXL's refiner, whose only text encoder is the larger one of SDXL's two."""
    sizes = {
        (_IN, 0): 384,
        (_IN, 1): 4,
        (_CONTEXT, 1): 1280,
        (_CLASSES, 1): 2560,
        ("output_blocks.11.0.skip_connection.weight", 0): 384,
    }
    encoders = {"text_encoder_2": ("conditioner.embedders.0.model.positional_embedding",)}
    return _xl(_REFINER, "sdxl-refiner", family=_REFINER, encoders=encoders, sizes=sizes, **tells)


_XL_V: Final = "Stable Diffusion XL v-prediction"

_LCM: Final = "time_embed.cond_proj.weight"

_UNETS: Final = (
    _xl("a latent consistency model that is told its guidance", "", family="", marks=(*_UNET, _CLASSES, _LCM)),
    _sd("a latent consistency model that is told its guidance", "", 0, family="", marks=(*_UNET, _LCM)),
    _xl("CosXL", "", family="", extra=("edm_vpred.sigma_max",)),
    _xl("InstructPix2Pix of Stable Diffusion XL", "", family="", kind={(_IN, 1): 8}),
    _xl("Kolors", "", family="", kind={(_CLASSES, 1): 5632}),
    _xl("Stable Diffusion 2.1 unCLIP", "", family="", kind={(_CONTEXT, 1): 1024}),
    _xl("an inpainting model of Stable Diffusion XL", "", family="", kind={(_IN, 1): 9}),
    _refiner(extra=("conditioner.embedders.0.model.text_projection",)),
    _refiner(kind={(_CONTEXT, 1): 1280}),  # a file of its denoiser alone
    _xl("Playground 2.5", "", family="", extra=("edm_mean",)),
    # Trainers leave empty tensors of these names in files that predict v.
    _xl(_XL_V, "sdxl-v", extra=("v_pred", "ztsnr")),
    _xl("Stable Diffusion XL that predicts v without zero SNR", "", family="", extra=("v_pred",)),
    _xl("Stable Diffusion XL", "sdxl"),
    _xl(_XL_V, "sdxl-v"),
    _sd("an inpainting model of Stable Diffusion", "", 0, family="", kind={(_IN, 1): 9}),
    _sd("InstructPix2Pix", "", 0, family="", kind={(_IN, 1): 8}),
    _sd("a depth model of Stable Diffusion", "", 0, family="", kind={(_IN, 1): 5}),
    _sd("Stable Diffusion's upscaler", "", 0, family="", kind={(_IN, 1): 7}),
    _sd("Stable Diffusion 1.5 that predicts v", "", 0, family="", extra=("v_pred",), kind={(_CONTEXT, 1): 768}),
    _sd("Stable Diffusion 1.5", "sd15", 768),
    _sd(
        "Stable Diffusion 2.1",
        "sd21",
        1024,
        assumed="its keys do not tell whether it predicts v at 768 pixels or noise at 512",
    ),
    _sd("Stable Diffusion 2 base", "sd2-base", 1024),
)

_JOINT: Final = "joint_blocks.0.context_block.adaLN_modulation.1.bias"


def _sd3(title: str, configs: str, width: int, positions: int, last: int) -> Layout:
    return Layout(
        title=title,
        family=_SD3,
        configs=configs,
        marks=(_JOINT,),
        sizes={
            (_JOINT, 0): 6 * width,
            ("pos_embed", 1): positions,
            (f"joint_blocks.{last}.x_block.mlp.fc1.weight", 1): width,
        },
        encoders=_CLIP_3,
    )


_FLUX: Final = "double_blocks.0.img_attn.norm.key_norm.scale"
_GUIDED: Final = "guidance_in.in_layer.weight"
_FLUX_SIZES: Final = {
    ("img_in.weight", 0): 3072,
    ("double_blocks.18.img_mod.lin.weight", 1): 3072,
    ("single_blocks.37.linear2.weight", 0): 3072,
}


def _flux(title: str, family: str, configs: str, **changes: Any) -> Layout:
    sizes = {**_FLUX_SIZES, ("img_in.weight", 1): 64}
    row = {"marks": (_FLUX, _GUIDED), "sizes": sizes, "encoders": _CLIP_FLUX, "layers": _FLUX_LAYERS}
    return Layout(title=title, family=family, configs=configs, **{**row, **changes})


_FLUX2: Final = "single_stream_modulation.lin.weight"


def _klein(title: str, configs: str, width: int, last: int, assumed: str = "") -> Layout:
    return Layout(
        title=title,
        family="Flux.2 Klein",
        configs=configs,
        marks=(_FLUX2,),
        absent=(_GUIDED,),
        sizes={("img_in.weight", 0): width, (f"single_blocks.{last}.linear2.weight", 0): width},
        layers=_FLUX_LAYERS,
        assumed=assumed,
    )


_DISTILLED: Final = "its keys do not tell whether it is distilled (4 steps, unguided) or the base"

_PICTURES: Final = (
    _sd3("Stable Diffusion 3 medium", "sd3-medium", 1536, 36864, 23),
    _sd3("Stable Diffusion 3.5 medium", "sd35-medium", 1536, 147456, 23),
    _sd3("Stable Diffusion 3.5 large", "sd35-large", 2432, 36864, 37),
    # Flux.2's files have the keys that tell Flux.1's as well.
    Layout(title="Flux.2 dev", family="", marks=(_FLUX2, _GUIDED)),
    _klein("Flux.2 Klein 4B", "flux2-klein-4b", 3072, 19, _DISTILLED),
    _klein("Flux.2 Klein base 4B", "flux2-klein-base-4b", 3072, 19),
    _klein("Flux.2 Klein 9B", "flux2-klein-9b", 4096, 23, _DISTILLED),
    _klein("Flux.2 Klein base 9B", "flux2-klein-base-9b", 4096, 23),
    Layout(title="Chroma", family="", marks=(_FLUX, "distilled_guidance_layer.in_proj.bias")),
    Layout(title="Flux.1 Depth or Canny", family="", marks=(_FLUX, _GUIDED), kind={("img_in.weight", 1): 128}),
    _flux("Flux.1 Fill", "Flux.1 Fill", "flux1-fill", kind={("img_in.weight", 1): 384}, sizes=_FLUX_SIZES),
    _flux(
        "Flux.1 dev",
        "Flux.1",
        "flux1-dev",
        assumed="its keys do not tell whether it is Kontext, the editor",
    ),
    _flux("Flux.1 Kontext", "Flux.1 Kontext", "flux1-kontext"),
    _flux("Flux.1 schnell", "Flux.1", "flux1-schnell", marks=(_FLUX,), absent=(_GUIDED,)),
    *(
        Layout(
            title=title,
            family=title,
            configs=configs,
            marks=("txt_norm.weight", "transformer_blocks.0.attn.add_k_proj.weight", "img_in.weight"),
            sizes={
                ("img_in.weight", 0): 3072,
                ("img_in.weight", 1): 64,
                ("transformer_blocks.59.attn.to_q.weight", 0): 3072,
            },
            assumed=assumed,
        )
        for title, configs, assumed in (
            ("Qwen-Image", "qwen-image", "its keys do not tell whether it is an editor"),
            ("Qwen-Image-Edit", "qwen-image-edit", ""),
            ("Qwen-Image-Edit-Plus", "qwen-image-edit-plus", ""),
        )
    ),
    Layout(
        title="AuraFlow 0.3",
        family="AuraFlow 0.3",
        configs="aura-flow-0.3",
        marks=("double_layers.0.attn.w2q.weight", "cond_seq_linear.weight"),
        sizes={
            ("positional_encoding", 1): 9216,
            ("cond_seq_linear.weight", 0): 3072,
            ("single_layers.31.modCX.1.weight", 1): 3072,
        },
    ),
    *(
        Layout(
            title=title,
            family="Z-Image",
            configs=configs,
            marks=("layers.0.adaLN_modulation.0.weight", "cap_embedder.0.weight"),
            sizes={("layers.29.adaLN_modulation.0.weight", 0): 4 * 3840, ("cap_embedder.0.weight", 0): 2560},
            assumed=assumed,
        )
        for title, configs, assumed in (
            (
                "Z-Image Turbo",
                "z-image-turbo",
                "its keys do not tell whether it is Turbo (shift 3) or the base (shift 6)",
            ),
            ("Z-Image base", "z-image", ""),
        )
    ),
)

_HEAD: Final = "head.modulation"
_PATCH: Final = "patch_embedding.weight"
_IMAGE: Final = "img_emb.proj.0.weight"
_ENDS: Final = "img_emb.emb_pos"
_VACE: Final = "vace_blocks.0.after_proj.bias"


def _wan(title: str, family: str, configs: str, channels: int, width: int, last: int, **changes: Any) -> Layout:
    row = {
        "marks": (_HEAD,),
        "absent": (_IMAGE, _VACE),
        "kind": {(_PATCH, 1): channels},
        "sizes": {(_PATCH, 0): width, (f"blocks.{last}.ffn.2.weight", 0): width},
        "layers": _WAN_LAYERS,
    }
    return Layout(title=title, family=family, configs=configs, **{**row, **changes})


_EXPERT: Final = (
    "its keys do not tell it from Wan 2.2 T2V A14B, whose two experts are two files: the one of the high noise as "
    "path, the other as components.transformer_2"
)
_VACE_ROW: Final = {"marks": (_HEAD, _VACE), "absent": (_IMAGE,)}

_PATCHES: Final = "patchify_proj.weight"
_LTX_BLOCK: Final = "transformer_blocks.{}.scale_shift_table"
_LTX_AUDIO: Final = "av_ca_a2v_gate_adaln_single.emb.timestep_embedder.linear_1.weight"


def _ltx(title: str, family: str, configs: str, last: int, width: int, **changes: Any) -> Layout:
    row = {
        "marks": (_PATCHES, _LTX_BLOCK.format(0)),
        "absent": (_LTX_AUDIO,),
        "sizes": {(_LTX_BLOCK.format(last), 1): width, (_PATCHES, 0): width},
    }
    return Layout(title=title, family=family, configs=configs, **{**row, **changes})


_LTX_LATER: Final = "LTX-Video 0.9.5 and later"

_LTX_VAE: Final = {
    "extra": ("vae.decoder.last_time_embedder.timestep_embedder.linear_1.weight",),
    "kind": {("vae.encoder.conv_out.conv.weight", 1): 2048},
}

_CLIPS: Final = (
    Layout(title="Wan Animate", family="", marks=(_HEAD, "motion_encoder.dec.direction.weight")),
    _wan("Wan 2.1 VACE 1.3B", "Wan 2.1 VACE", "wan21-vace-1.3b", 16, 1536, 29, **_VACE_ROW),
    _wan("Wan 2.1 VACE 14B", "Wan 2.1 VACE", "wan21-vace-14b", 16, 5120, 39, **_VACE_ROW),
    _wan(
        "Wan 2.1 FLF2V 14B", "Wan 2.1 FLF2V", "wan21-flf2v-14b", 36, 5120, 39, marks=(_HEAD, _IMAGE, _ENDS), absent=()
    ),
    _wan("Wan 2.1 I2V 14B", "Wan 2.1 I2V", "wan21-i2v-14b", 36, 5120, 39, marks=(_HEAD, _IMAGE), absent=()),
    _wan("Wan 2.1 T2V 1.3B", "Wan 2.1 T2V", "wan21-t2v-1.3b", 16, 1536, 29),
    _wan("Wan 2.1 T2V 14B", "Wan 2.1 T2V", "wan21-t2v-14b", 16, 5120, 39, assumed=_EXPERT),
    _wan("Wan 2.2 T2V A14B", "Wan 2.2 T2V A14B", "wan22-t2v-a14b", 16, 5120, 39),
    _wan("Wan 2.2 I2V A14B", "Wan 2.2 I2V A14B", "wan22-i2v-a14b", 36, 5120, 39),
    _wan("Wan 2.2 TI2V 5B", "Wan 2.2 TI2V", "wan22-ti2v-5b", 48, 3072, 29),
    Layout(title="LTX-2", family="", marks=(_PATCHES, _LTX_AUDIO)),
    _ltx("LTX-Video 0.9.7 13B", _LTX_LATER, "ltx-0.9.7", 47, 4096, marks=(_PATCHES, _LTX_BLOCK.format(47))),
    _ltx("LTX-Video 0.9.5", _LTX_LATER, "ltx-0.9.5", 27, 2048, **_LTX_VAE),
    _ltx("LTX-Video 0.9.1", "LTX-Video", "ltx-0.9.1", 27, 2048, extra=_LTX_VAE["extra"]),
    # A file without its VAE tells no version.
    _ltx(
        "LTX-Video 0.9.0", "LTX-Video", "ltx-0.9.0", 27, 2048, assumed="without a VAE its keys do not tell the version"
    ),
    _ltx("LTX-Video 0.9.1", "LTX-Video", "ltx-0.9.1", 27, 2048),
    _ltx("LTX-Video 0.9.5", _LTX_LATER, "ltx-0.9.5", 27, 2048),
    Layout(
        title="HunyuanVideo", family="", marks=("txt_in.individual_token_refiner.blocks.0.adaLN_modulation.1.bias",)
    ),
    Layout(title="Mochi", family="", marks=("blocks.0.attn.qkv_x.weight",)),
)

LAYOUTS: Final = (*_UNETS, *_PICTURES, *_CLIPS)
"""Every layout that is told from others."""
