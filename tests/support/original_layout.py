"""Writes a folder of diffusers' as the single file that its authors would have written: their names for every tensor.

    folder --> sd_file(), sdxl_file(), refiner_file(), klein_file() --> one .safetensors

The reverse of what diffusers' `from_single_file` does, written from the authors' own modules.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

Tensors = Mapping[str, torch.Tensor]

_RESNET = {
    "norm1": "in_layers.0",
    "conv1": "in_layers.2",
    "norm2": "out_layers.0",
    "conv2": "out_layers.3",
    "time_emb_proj": "emb_layers.1",
    "conv_shortcut": "skip_connection",
}
_UNET = {
    "time_embedding.linear_1": "time_embed.0",
    "time_embedding.linear_2": "time_embed.2",
    "add_embedding.linear_1": "label_emb.0.0",
    "add_embedding.linear_2": "label_emb.0.2",
    "conv_in": "input_blocks.0.0",
    "conv_norm_out": "out.0",
    "conv_out": "out.2",
    "mid_block.resnets.0": "middle_block.0",
    "mid_block.attentions.0": "middle_block.1",
    "mid_block.resnets.1": "middle_block.2",
}


def sd_file(folder: Path, file: Path) -> None:
    """Write Stable Diffusion 1.x: UNet, VAE and CLIP."""
    save_file({**_sd_shared(folder), **_clip(folder, "cond_stage_model.transformer.")}, file)


def sdxl_file(folder: Path, file: Path) -> None:
    """Write Stable Diffusion XL: UNet, VAE, CLIP and OpenCLIP."""
    clip = _clip(folder, "conditioner.embedders.0.transformer.")
    open_clip = _open_clip(_weights(folder / "text_encoder_2"), "conditioner.embedders.1.model.")
    save_file({**_sd_shared(folder), **clip, **open_clip}, file)


def refiner_file(folder: Path, file: Path) -> None:
    """Write SDXL's refiner: UNet, VAE and OpenCLIP, which stands first there."""
    open_clip = _open_clip(_weights(folder / "text_encoder_2"), "conditioner.embedders.0.model.")
    save_file({**_sd_shared(folder), **open_clip}, file)


def all_in_one(folder: Path, encoders: Mapping[str, str]) -> dict[str, torch.Tensor]:
    """Return VAE and text encoders as ComfyUI names them.

    Args:
        folder: The model's.
        encoders: Name of each component there --> its name in the file, such as `clip_l`.
    """
    found = dict(_vae(_weights(folder / "vae"), "vae."))
    for component, name in encoders.items():
        found |= _clip(folder, f"text_encoders.{name}.transformer.", component)
    return found


def klein_file(folder: Path, file: Path) -> None:
    """Write the transformer of Flux.2 Klein alone."""
    save_file(dict(_flux2(_weights(folder / "transformer"))), file)


def flux_transformer(weights: Tensors) -> dict[str, torch.Tensor]:
    """Return Flux.1's transformer."""
    return dict(_flux(weights))


def flux2_transformer(weights: Tensors) -> dict[str, torch.Tensor]:
    """Return Flux.2's transformer."""
    return dict(_flux2(weights))


def aura_flow_file(folder: Path, file: Path) -> None:
    """Write the transformer of AuraFlow alone, without a prefix."""
    save_file(dict(_aura_flow(_weights(folder / "transformer"))), file)


def aura_flow_transformer(weights: Tensors) -> dict[str, torch.Tensor]:
    """Return AuraFlow's transformer."""
    return dict(_aura_flow(weights))


def _weights(folder: Path) -> dict[str, torch.Tensor]:
    (file,) = folder.glob("*.safetensors")
    return load_file(file)


def _sd_shared(folder: Path) -> dict[str, torch.Tensor]:
    unet = ldm_unet(_weights(folder / "unet"))
    vae = dict(_vae(_weights(folder / "vae"), "first_stage_model."))
    return {**{f"model.diffusion_model.{key}": value for key, value in unet.items()}, **vae}


def ldm_unet(weights: Tensors) -> dict[str, torch.Tensor]:
    """Return a UNet; its blocks are numbered one after the other in both directions."""
    names = {**_UNET, **_numbered(weights, "down"), **_numbered(weights, "up")}
    found = {}
    for key, value in weights.items():
        module = max((name for name in names if key.startswith(f"{name}.")), key=len)
        rest = key.removeprefix(f"{module}.")
        for name, other in _RESNET.items():
            if "resnets" in module:
                rest = re.sub(rf"^{name}\.", f"{other}.", rest)
        found[f"{names[module]}.{rest}"] = value
    return found


def ldm_controlnet(weights: Tensors, prefix: str = "") -> dict[str, torch.Tensor]:
    """Return a ControlNet."""
    own = {key: value for key, value in weights.items() if not key.startswith("controlnet_")}
    found = ldm_unet(own)
    for key, value in weights.items():
        zero = re.sub(r"^controlnet_down_blocks\.(\d+)\.", r"zero_convs.\1.0.", key)
        zero = re.sub(r"^controlnet_mid_block\.", "middle_block_out.0.", zero)
        part = re.match(r"controlnet_cond_embedding\.(conv_in|conv_out|blocks\.(\d+))\.(.*)", zero)
        if part:
            place = {"conv_in": 0, "conv_out": 14}.get(part[1])
            found[f"input_hint_block.{2 * int(part[2]) + 2 if place is None else place}.{part[3]}"] = value
        elif zero != key:
            found[zero] = value
    return {f"{prefix}{key}": value for key, value in found.items()}


def _numbered(weights: Tensors, direction: str) -> dict[str, str]:
    """Return the place of each module in input_blocks or output_blocks."""
    found = {}
    number = 1 if direction == "down" else 0
    kind = "input_blocks" if direction == "down" else "output_blocks"
    levels = 1 + max((int(key.split(".")[1]) for key in weights if key.startswith(f"{direction}_blocks.")), default=-1)
    for level in range(levels):
        block = f"{direction}_blocks.{level}"
        layer = 0
        while any(key.startswith(f"{block}.resnets.{layer}.") for key in weights):
            found[f"{block}.resnets.{layer}"] = f"{kind}.{number}.0"
            found[f"{block}.attentions.{layer}"] = f"{kind}.{number}.1"
            layer, number = layer + 1, number + 1
        if direction == "down":
            found[f"{block}.downsamplers.0.conv"] = f"{kind}.{number}.0.op"
            number += 1
        else:
            has_attention = any(key.startswith(f"{block}.attentions.") for key in weights)
            found[f"{block}.upsamplers.0.conv"] = f"{kind}.{number - 1}.{2 if has_attention else 1}.conv"
    return found


def vae_weights(weights: Tensors, prefix: str) -> dict[str, torch.Tensor]:
    """Return a VAE."""
    return dict(_vae(weights, prefix))


def _vae(weights: Tensors, prefix: str) -> Iterator[tuple[str, torch.Tensor]]:
    last = max(int(key.split(".")[2]) for key in weights if key.startswith("encoder.down_blocks."))
    names = {"group_norm": "norm", "to_q": "q", "to_k": "k", "to_v": "v", "to_out.0": "proj_out"}
    for key, value in weights.items():
        new = re.sub(r"down_blocks\.(\d+)\.resnets\.(\d+)", r"down.\1.block.\2", key)
        new = re.sub(r"down_blocks\.(\d+)\.downsamplers\.0", r"down.\1.downsample", new)
        new = re.sub(r"up_blocks\.(\d+)\.resnets\.(\d+)", lambda at: f"up.{last - int(at[1])}.block.{at[2]}", new)
        new = re.sub(r"up_blocks\.(\d+)\.upsamplers\.0", lambda at: f"up.{last - int(at[1])}.upsample", new)
        new = re.sub(r"mid_block\.resnets\.(\d)", lambda at: f"mid.block_{int(at[1]) + 1}", new)
        new = new.replace("conv_norm_out", "norm_out").replace("conv_shortcut", "nin_shortcut")
        attention = re.fullmatch(r"(.*)mid_block\.attentions\.0\.(.+)\.(weight|bias)", new)
        if attention:
            new = f"{attention[1]}mid.attn_1.{names[attention[2]]}.{attention[3]}"
            value = value[..., None, None] if value.ndim == 2 else value  # noqa: PLW2901 -- a convolution of one pixel
        yield f"{prefix}{new}", value.contiguous()


def _clip(folder: Path, prefix: str, component: str = "text_encoder") -> dict[str, torch.Tensor]:
    weights = _weights(folder / component)
    is_clip = any("position_embedding" in key for key in weights)
    return {
        f"{prefix}{key if key.startswith('text_model.') or not is_clip else f'text_model.{key}'}": value
        for key, value in weights.items()
    }


def _open_clip(weights: Tensors, prefix: str) -> dict[str, torch.Tensor]:
    names = {
        "text_model.embeddings.position_embedding.weight": "positional_embedding",
        "text_model.embeddings.token_embedding.weight": "token_embedding.weight",
        "text_model.final_layer_norm.weight": "ln_final.weight",
        "text_model.final_layer_norm.bias": "ln_final.bias",
    }
    layer_names = {
        "layer_norm1": "ln_1",
        "layer_norm2": "ln_2",
        "mlp.fc1": "mlp.c_fc",
        "mlp.fc2": "mlp.c_proj",
        "self_attn.out_proj": "attn.out_proj",
    }
    found = {f"{prefix}{names[key]}": value for key, value in weights.items() if key in names}
    found[f"{prefix}text_projection"] = weights["text_projection.weight"].T.contiguous()
    for key, value in weights.items():
        layer = re.fullmatch(r"text_model\.encoder\.layers\.(\d+)\.(.+)\.(weight|bias)", key)
        if layer and layer[2] in layer_names:
            found[f"{prefix}transformer.resblocks.{layer[1]}.{layer_names[layer[2]]}.{layer[3]}"] = value
        elif layer and layer[2] == "self_attn.q_proj":
            of_layer = f"text_model.encoder.layers.{layer[1]}.self_attn"
            joined = torch.cat([weights[f"{of_layer}.{name}_proj.{layer[3]}"] for name in "qkv"])
            found[f"{prefix}transformer.resblocks.{layer[1]}.attn.in_proj_{layer[3]}"] = joined
    return found


_FLUX_DOUBLE = {
    "norm1.linear": "img_mod.lin",
    "norm1_context.linear": "txt_mod.lin",
    "attn.to_out.0": "img_attn.proj",
    "attn.to_add_out": "txt_attn.proj",
    "ff.net.0.proj": "img_mlp.0",
    "ff.net.2": "img_mlp.2",
    "ff_context.net.0.proj": "txt_mlp.0",
    "ff_context.net.2": "txt_mlp.2",
    "ff.linear_in": "img_mlp.0",
    "ff.linear_out": "img_mlp.2",
    "ff_context.linear_in": "txt_mlp.0",
    "ff_context.linear_out": "txt_mlp.2",
}
_FLUX_NORMS = {
    "attn.norm_q": "img_attn.norm.query_norm",
    "attn.norm_k": "img_attn.norm.key_norm",
    "attn.norm_added_q": "txt_attn.norm.query_norm",
    "attn.norm_added_k": "txt_attn.norm.key_norm",
}
_FLUX_TOP = {
    "x_embedder": "img_in",
    "context_embedder": "txt_in",
    "proj_out": "final_layer.linear",
    "time_text_embed.timestep_embedder.linear_1": "time_in.in_layer",
    "time_text_embed.timestep_embedder.linear_2": "time_in.out_layer",
    "time_text_embed.text_embedder.linear_1": "vector_in.in_layer",
    "time_text_embed.text_embedder.linear_2": "vector_in.out_layer",
    "time_text_embed.guidance_embedder.linear_1": "guidance_in.in_layer",
    "time_text_embed.guidance_embedder.linear_2": "guidance_in.out_layer",
    "time_guidance_embed.timestep_embedder.linear_1": "time_in.in_layer",
    "time_guidance_embed.timestep_embedder.linear_2": "time_in.out_layer",
    "double_stream_modulation_img.linear": "double_stream_modulation_img.lin",
    "double_stream_modulation_txt.linear": "double_stream_modulation_txt.lin",
    "single_stream_modulation.linear": "single_stream_modulation.lin",
}


def _flux_shared(weights: Tensors) -> Iterator[tuple[str, torch.Tensor]]:
    """Yield what Flux.1 and Flux.2 name alike."""
    for key, value in weights.items():
        module, _, kind = key.rpartition(".")
        double = re.fullmatch(r"transformer_blocks\.(\d+)\.(.+)", module)
        if module in _FLUX_TOP:
            yield f"{_FLUX_TOP[module]}.{kind}", value
        elif module == "norm_out.linear":  # the authors' shift stands before the scale
            yield f"final_layer.adaLN_modulation.1.{kind}", torch.cat(list(reversed(value.chunk(2))))
        elif double and double[2] in _FLUX_DOUBLE:
            yield f"double_blocks.{double[1]}.{_FLUX_DOUBLE[double[2]]}.{kind}", value
        elif double and double[2] in _FLUX_NORMS:
            yield f"double_blocks.{double[1]}.{_FLUX_NORMS[double[2]]}.scale", value
        elif double and double[2] in {"attn.to_q", "attn.add_q_proj"}:
            side = "img" if double[2] == "attn.to_q" else "txt"
            parts = [module.replace("q", name) for name in "qkv"] if side == "txt" else []
            parts = parts or [f"{module[:-1]}{name}" for name in "qkv"]
            yield (
                f"double_blocks.{double[1]}.{side}_attn.qkv.{kind}",
                torch.cat([weights[f"{part}.{kind}"] for part in parts]),
            )


def _flux(weights: Tensors) -> Iterator[tuple[str, torch.Tensor]]:
    yield from _flux_shared(weights)
    for key, value in weights.items():
        single = re.fullmatch(r"single_transformer_blocks\.(\d+)\.(.+)\.(weight|bias)", key)
        if not single:
            continue
        own, block = f"single_transformer_blocks.{single[1]}", f"single_blocks.{single[1]}"
        if single[2] == "norm.linear":
            yield f"{block}.modulation.lin.{single[3]}", value
        elif single[2] == "proj_out":
            yield f"{block}.linear2.{single[3]}", value
        elif single[2] in {"attn.norm_q", "attn.norm_k"}:
            yield f"{block}.norm.{'query' if single[2][-1] == 'q' else 'key'}_norm.scale", value
        elif single[2] == "attn.to_q":
            parts = [f"{own}.{name}.{single[3]}" for name in ("attn.to_q", "attn.to_k", "attn.to_v", "proj_mlp")]
            yield f"{block}.linear1.{single[3]}", torch.cat([weights[part] for part in parts])


def _flux2(weights: Tensors) -> Iterator[tuple[str, torch.Tensor]]:
    names: dict[str, Any] = {
        "attn.to_qkv_mlp_proj.weight": "linear1.weight",
        "attn.to_out.weight": "linear2.weight",
        "attn.norm_q.weight": "norm.query_norm.scale",
        "attn.norm_k.weight": "norm.key_norm.scale",
    }
    yield from _flux_shared(weights)
    for key, value in weights.items():
        single = re.fullmatch(r"single_transformer_blocks\.(\d+)\.(.+)", key)
        if single:
            yield f"single_blocks.{single[1]}.{names[single[2]]}", value


_AURA_FLOW_TOP = {
    "context_embedder.weight": "cond_seq_linear.weight",
    "pos_embed.pos_embed": "positional_encoding",
    "proj_out.weight": "final_linear.weight",
    "register_tokens": "register_tokens",
}
_AURA_FLOW_MODULES = {"time_step_proj.linear_1": "t_embedder.mlp.0", "time_step_proj.linear_2": "t_embedder.mlp.2"}
_AURA_FLOW_PARTS = {"linear_1": "c_fc1", "linear_2": "c_fc2", "out_projection": "c_proj"}
_AURA_FLOW_ATTENTION = {
    **{f"attn.{name}": f"attn.w2{name[-1]}" for name in ("to_q", "to_k", "to_v")},
    **{f"attn.add_{name}_proj": f"attn.w1{name}" for name in "qkv"},
    "attn.to_out.0": "attn.w2o",
    "attn.to_add_out": "attn.w1o",
}


def _aura_flow(weights: Tensors) -> Iterator[tuple[str, torch.Tensor]]:
    """Yield its tensors; a single block has one stream, whose attention is named as a joint block's first."""
    for key, value in weights.items():
        module, _, kind = key.rpartition(".")
        block = re.fullmatch(r"(joint|single)_transformer_blocks\.(\d+)\.(.+)", module)
        if key in _AURA_FLOW_TOP:
            yield _AURA_FLOW_TOP[key], value
        elif module in _AURA_FLOW_MODULES:
            yield f"{_AURA_FLOW_MODULES[module]}.{kind}", value
        elif module == "pos_embed.proj":
            yield f"init_x_linear.{kind}", value
        elif module == "norm_out.linear":  # the authors' shift stands before the scale
            yield f"modF.1.{kind}", torch.cat(list(reversed(value.chunk(2))))
        elif block:
            yield f"{_aura_flow_module(block[1] == 'joint', block[2], block[3])}.{kind}", value


def _aura_flow_module(is_joint: bool, number: str, name: str) -> str:
    own = f"{'double' if is_joint else 'single'}_layers.{number}"
    if name in _AURA_FLOW_ATTENTION:
        attention = _AURA_FLOW_ATTENTION[name]
        return f"{own}.{attention if is_joint else attention.replace('w2', 'w1')}"
    if name.startswith("norm1"):
        return f"{own}.{('modC' if 'context' in name else 'modX') if is_joint else 'modCX'}.1"
    stream, _, part = name.partition(".")
    mlp = ("mlpC" if "context" in stream else "mlpX") if is_joint else "mlp"
    return f"{own}.{mlp}.{_AURA_FLOW_PARTS[part]}"


_WAN = (
    ("condition_embedder.time_embedder.linear_1", "time_embedding.0"),
    ("condition_embedder.time_embedder.linear_2", "time_embedding.2"),
    ("condition_embedder.text_embedder.linear_1", "text_embedding.0"),
    ("condition_embedder.text_embedder.linear_2", "text_embedding.2"),
    ("condition_embedder.time_proj", "time_projection.1"),
    ("condition_embedder.image_embedder.norm1", "img_emb.proj.0"),
    ("condition_embedder.image_embedder.ff.net.0.proj", "img_emb.proj.1"),
    ("condition_embedder.image_embedder.ff.net.2", "img_emb.proj.3"),
    ("condition_embedder.image_embedder.norm2", "img_emb.proj.4"),
    ("condition_embedder.image_embedder.pos_embed", "img_emb.emb_pos"),
    ("attn2.add_k_proj", "cross_attn.k_img"),
    ("attn2.add_v_proj", "cross_attn.v_img"),
    ("attn2.norm_added_k", "cross_attn.norm_k_img"),
    ("attn1.to_out.0", "self_attn.o"),
    ("attn2.to_out.0", "cross_attn.o"),
    ("attn1.to_", "self_attn."),
    ("attn2.to_", "cross_attn."),
    ("attn1.", "self_attn."),
    ("attn2.", "cross_attn."),
    ("ffn.net.0.proj", "ffn.0"),
    ("ffn.net.2", "ffn.2"),
    (".norm2.", ".norm3."),
)
"""Names of Wan's tensors in diffusers, and as its authors have them; the first that fits counts before later ones."""


def _of_wan(key: str) -> str:
    for ours, theirs in _WAN:
        key = key.replace(ours, theirs)
    if key.startswith("vace_blocks."):
        key = key.replace(".proj_in.", ".before_proj.").replace(".proj_out.", ".after_proj.")
    key = f"head.head.{key.removeprefix('proj_out.')}" if key.startswith("proj_out.") else key
    return "head.modulation" if key == "scale_shift_table" else key.replace("scale_shift_table", "modulation")


def wan_transformer(weights: Tensors) -> dict[str, torch.Tensor]:
    """Return a transformer of Wan."""
    return {_of_wan(key): value for key, value in weights.items()}
