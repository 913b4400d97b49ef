"""Whether what a job lays over a model fits it, as configurations and headers say; without torch.

    configuration of a component + that of the model's own module --> refuse_misfit(): the sizes that others rely on
    header of one file + its configuration                        --> file_fault(): that the file is such a module

A class alone does not tell: an AutoencoderKL has 4 channels or 16, and any file may stand where a transformer is named.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any, Final

from sdbatch.checkpoints.bounds import WITH_MOTION
from sdbatch.checkpoints.headers import SAID_WHERE, is_taken_for_another
from sdbatch.checkpoints.layout_table import LAYOUTS
from sdbatch.checkpoints.layouts import OF_ENCODERS, Keys, Shapes, named_after
from sdbatch.checkpoints.strangers import beside_a_model, module_of_a_model
from sdbatch.errors import ModelError
from sdbatch.families import Family
from sdbatch.job import base_of

Config = Mapping[str, Any]

_LATENTS: Final = ("latent_channels", "z_dim")
_SCALES: Final = {"scaling_factor": 0.18215, "shift_factor": 0.0}
"""Numbers that tell the latents of one AutoencoderKL from those of another, and what they are where none are said."""
_SCALED: Final = "AutoencoderKL"
"""Class whose latents are scaled by them."""
_SCALED_BY_CHANNEL: Final = ("AutoencoderKLQwenImage", "AutoencoderKLWan")
_BY_CHANNEL: Final = ("latents_mean", "latents_std")
"""Numbers by which their latents are scaled instead, one for each of their channels."""
_CHANNELS: Final = 16
"""Channels of such a class where its configuration says none, for which it has numbers of its own."""
_TEXTS: Final = ("cross_attention_dim", "joint_attention_dim", "text_dim", "caption_channels", "cap_feat_dim")
_AS_THE_DENOISER: Final[Mapping[str, tuple[str, ...]]] = {
    "controlnet": ("block_out_channels", "cross_attention_dim", "joint_attention_dim"),
    "motion_adapter": ("block_out_channels",),
}
"""Entries in which a module that works inside a denoiser is equal to it."""


def refuse_misfit(
    place: str,
    module: str,
    class_name: str,
    config: Config,
    family: Family,
    own: Callable[[str], Config | None],
    laid_over: Collection[str],
) -> None:
    """Refuse a component whose sizes are not those that the other modules were made for.

    Args:
        place: Key in the job and the component, for messages.
        module: Name of the module.
        class_name: Its class.
        config: The component's configuration.
        family: The model's.
        own: Returns the configuration that the model has of a module by its name, None where it is not at hand.
        laid_over: Names of all modules that are laid over the model: what comes with its counterpart may differ.

    Raises:
        ModelError: Naming the entry, both values, and what to do.
    """
    denoiser = family.denoiser
    base = base_of(module)
    if base in _AS_THE_DENOISER:
        _refuse_other_inside(place, base, class_name, config, family, own(denoiser) or {})
        return
    others = own(module) or {}
    texts = [name for name in laid_over if name.startswith("text_encoder")]
    if module.endswith("vae"):
        is_own = denoiser not in laid_over
        if is_own:
            _refuse_other(place, "block_out_channels", _steps(config), _steps(others), "the model's own vae", " stages")
        refuse_unscaled(place, class_name, config, family)
        for key, found, expected in _latents(class_name, config, others) if is_own else ():
            _refuse_other(place, key, found, expected, f"the vae that the {denoiser} was made for")
    elif module.startswith(("text_encoder", "image_encoder")) and denoiser not in laid_over:
        for key, found, expected in _widths(config, others):
            _refuse_other(place, key, found, expected, f"the {base} that the {denoiser} was made for")
    elif module.removesuffix("_2") == denoiser.removesuffix("_2"):
        if "vae" not in laid_over:
            _refuse_other(
                place, "in_channels", config.get("in_channels"), others.get("in_channels"), f"the model's own {module}"
            )
        for key in _TEXTS if not texts else ():
            _refuse_other(place, key, config.get(key), others.get(key), f"the model's own {module}")


def _refuse_other_inside(
    place: str, base: str, class_name: str, config: Config, family: Family, others: Config
) -> None:
    """Refuse a module that works inside a denoiser and is not made for it; `others` is the denoiser's configuration."""
    takes = _classes_of(base, family)
    if takes and class_name not in takes:
        raise ModelError(f"{place}: is a {class_name}; as {base} {family.title} takes {' or '.join(sorted(takes))}")
    if base == "motion_adapter" and others.get("_class_name") == WITH_MOTION:
        raise ModelError(
            f"{place}: would not be read: the {family.denoiser} of {family.title} has motion modules of its own "
            f"({WITH_MOTION}); name a folder whose {family.denoiser} is a UNet2DConditionModel as path, such as "
            "Stable Diffusion 1.5's"
        )
    for key in _AS_THE_DENOISER[base]:
        _refuse_other(place, key, config.get(key), others.get(key), f"the {family.denoiser} that it works in")


def refuse_other_prediction(place: str, predicts: str, scheduler: Config) -> None:
    """Refuse a denoiser that says of itself that it predicts otherwise than its scheduler takes it for.

    Args:
        place: Key in the job and the component, for messages.
        predicts: What its file says; "" for nothing.
        scheduler: Configuration of the scheduler.

    Raises:
        ModelError: Naming both.
    """
    taken = scheduler.get("prediction_type", "epsilon")
    if is_taken_for_another(predicts, taken):
        raise ModelError(
            f"{place}: says of itself that it predicts {predicts} ({SAID_WHERE}), and the scheduler takes that for "
            f"{taken}; name a scheduler's folder with prediction_type: {predicts} among the components"
        )


def refuse_unscaled(place: str, class_name: str | None, config: Config, family: Family) -> None:
    """Refuse a VAE whose configuration states numbers that its latents cannot be scaled and shifted by.

    Raises:
        ModelError: Naming the value.
    """
    scale = config.get("scaling_factor", _SCALES["scaling_factor"])
    if not (_is_number(scale) and scale > 0):
        raise ModelError(
            f"{place}: scaling_factor is {json.dumps(scale)} in its config.json, which is to be a number over 0; copy "
            "the file from its model again"
        )
    for key in _BY_CHANNEL if class_name in _SCALED_BY_CHANNEL else ():
        numbers, channels = config.get(key, []), config.get("z_dim", _CHANNELS)
        count = len(numbers) if isinstance(numbers, list) and all(map(_is_number, numbers)) else 0
        if count != channels and (key in config or channels != _CHANNELS):
            raise ModelError(
                f"{place}: {key} in its config.json is no list of {channels} numbers, one for each channel (z_dim); "
                "copy the file from its model again"
            )
    if class_name != _SCALED:
        return
    shift = config.get("shift_factor")
    if family.vae_is_shifted and not _is_number(shift):
        raise ModelError(
            f"{place}: shift_factor is {json.dumps(shift)} in its config.json, and {family.title} adds it to latents; "
            "copy the file from its model again"
        )


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _classes_of(component: str, family: Family) -> set[str]:
    """Return the classes that a family's routes read as a component."""
    return {route.every_component[component] for route in family.routes if component in route.every_component}


def _refuse_other(place: str, key: str, found: Any, expected: Any, whose: str, what: str = "") -> None:
    if found is not None and expected is not None and found != expected:
        if key in _BY_CHANNEL:
            found, expected = next(pair for pair in zip(found, expected, strict=False) if pair[0] != pair[1])
            what = " for a channel"
        raise ModelError(
            f"{place}: does not fit: its {key} is {found}{what}, and that of {whose} is {expected}{what}; name one "
            "made for this model"
        )


def _latents(class_name: str, config: Config, others: Config) -> list[tuple[str, Any, Any]]:
    usual: Mapping[str, float] = _SCALES if class_name == _SCALED and others else {}
    scales = [(key, _scale(config, key, value), _scale(others, key, value)) for key, value in usual.items()]
    stated = () if usual else (*_SCALES, *_BY_CHANNEL)
    return [*((key, config.get(key), others.get(key)) for key in (*_LATENTS, *stated)), *scales]


def _scale(config: Config, key: str, usual: float) -> Any:
    """Return one of the scales; null is none."""
    value = config.get(key)
    return usual if value is None else value


def _steps(config: Config) -> int | None:
    """Return how often a VAE halves a side, plus one."""
    channels = config.get("block_out_channels")
    return len(channels) if isinstance(channels, list) else None


def _widths(config: Config, others: Config) -> list[tuple[str, Any, Any]]:
    keys = ["hidden_size", "d_model", *(["projection_dim"] if _is_projected(others) else [])]
    return [(key, _of_text(config, key), _of_text(others, key)) for key in keys]


def _of_text(config: Config, key: str) -> Any:
    inside = config.get("text_config")
    return config.get(key, inside.get(key) if isinstance(inside, dict) else None)


def _is_projected(config: Config) -> bool:
    return any("WithProjection" in str(name) for name in config.get("architectures") or ())


@dataclass(frozen=True, slots=True)
class _Mark:
    """A weight that files of a class have.

    Attributes:
        names: Its name as diffusers or transformers has it, and as the authors have it.
        place: Dimension whose size the configuration states; None where it states none.
        key: Entry of the configuration that states it; where `place` is None, whether the weight is there at all. A
            mark without either has to be there.
    """

    names: tuple[str, ...]
    place: int | None = None
    key: str = ""


_BLOCKS: Final = "single_transformer_blocks.0.norm.linear.weight", "single_blocks.0.modulation.lin.weight"
_GUIDED: Final = "guidance_in.in_layer.weight"
_GUIDED_1: Final = "time_text_embed.guidance_embedder.linear_1.weight"
_GUIDED_2: Final = "time_guidance_embed.guidance_embedder.linear_1.weight"
_PATCHES: Final = _Mark(("x_embedder.weight", "img_in.weight"), 1, "in_channels")
_CONTEXT: Final = _Mark(("context_embedder.weight", "txt_in.weight"), 1, "joint_attention_dim")
_CROSS: Final = (
    "mid_block.attentions.0.transformer_blocks.0.attn2.to_k.weight",
    "middle_block.1.transformer_blocks.0.attn2.to_k.weight",
)
_JOINT: Final = (
    "transformer_blocks.0.norm1_context.linear.weight",
    "joint_blocks.0.context_block.adaLN_modulation.1.weight",
)
_T5: Final = "shared.weight", "encoder.embed_tokens.weight"
_ENCODES: Final = _Mark(("encoder.conv_in.weight", "encoder.conv1.weight"))
_WORDS: Final = "text_model.embeddings.token_embedding.weight", "embeddings.token_embedding.weight"
_PLACES: Final = _Mark(
    ("text_model.embeddings.position_embedding.weight", "embeddings.position_embedding.weight"),
    0,
    "max_position_embeddings",
)
_OF_QWEN: Final = "model.embed_tokens.weight", "embed_tokens.weight", "model.language_model.embed_tokens.weight"
_WAN: Final = (
    _Mark(("condition_embedder.time_proj.weight", "time_projection.1.weight")),
    _Mark(("patch_embedding.weight",), 1, "in_channels"),
    _Mark(("condition_embedder.text_embedder.linear_1.weight", "text_embedding.0.weight"), 1, "text_dim"),
)

_MARKS: Final[Mapping[str, tuple[_Mark, ...]]] = {
    "AutoencoderKL": (_Mark(("decoder.conv_in.weight",), 1, "latent_channels"), _ENCODES),
    "AutoencoderKLFlux2": (_Mark(("decoder.conv_in.weight",), 1, "latent_channels"), _ENCODES),
    "AutoencoderKLWan": (_Mark(("decoder.conv_in.weight", "decoder.conv1.weight"), 1, "z_dim"), _ENCODES),
    "AutoencoderKLQwenImage": (_Mark(("decoder.conv_in.weight", "decoder.conv1.weight"), 1, "z_dim"), _ENCODES),
    "CLIPTextModel": (_Mark(_WORDS, 1, "hidden_size"), _PLACES),
    "CLIPTextModelWithProjection": (_Mark(_WORDS, 1, "hidden_size"), _PLACES, _Mark(("text_projection.weight",))),
    "ChromaTransformer2DModel": (_Mark(("distilled_guidance_layer.in_proj.weight",)), _PATCHES, _CONTEXT),
    "ControlNetModel": (_Mark(("controlnet_cond_embedding.conv_in.weight", "input_hint_block.0.weight")),),
    "ControlNetUnionModel": (_Mark(("task_embedding",)),),
    "Flux2Transformer2DModel": (
        _Mark(("single_stream_modulation.linear.weight", "single_stream_modulation.lin.weight")),
        _PATCHES,
        _CONTEXT,
        _Mark((_GUIDED_2, _GUIDED), None, "guidance_embeds"),
    ),
    "FluxControlNetModel": (_Mark(("controlnet_x_embedder.weight",)),),
    "FluxTransformer2DModel": (
        _Mark(_BLOCKS),
        _PATCHES,
        _CONTEXT,
        _Mark((_GUIDED_1, _GUIDED), None, "guidance_embeds"),
    ),
    "LTXVideoTransformer3DModel": (_Mark(("proj_in.weight", "patchify_proj.weight"), 1, "in_channels"),),
    "QwenImageControlNetModel": (_Mark(("controlnet_x_embedder.weight",)),),
    "QwenImageTransformer2DModel": (_Mark(("txt_norm.weight",), 0, "joint_attention_dim"),),
    "Qwen2_5_VLForConditionalGeneration": (
        _Mark(_OF_QWEN),
        _Mark(("visual.patch_embed.proj.weight", "model.visual.patch_embed.proj.weight")),
    ),
    "Qwen3ForCausalLM": (_Mark(_OF_QWEN, 1, "hidden_size"),),
    "Qwen3Model": (_Mark(_OF_QWEN, 1, "hidden_size"),),
    "SD3ControlNetModel": (_Mark(("controlnet_blocks.0.weight",)),),
    "SD3Transformer2DModel": (
        _Mark(_JOINT),
        _Mark(("context_embedder.weight",), 1, "joint_attention_dim"),
    ),
    "T5EncoderModel": (_Mark(_T5, 1, "d_model"), _Mark(_T5, 0, "vocab_size")),
    "UMT5EncoderModel": (_Mark(_T5, 1, "d_model"), _Mark(_T5, 0, "vocab_size")),
    "UNet2DConditionModel": (
        _Mark(("conv_in.weight", "input_blocks.0.0.weight"), 1, "in_channels"),
        _Mark(_CROSS, 1, "cross_attention_dim"),
    ),
    "WanTransformer3DModel": _WAN,
    "WanVACETransformer3DModel": (*_WAN, _Mark(("vace_blocks.0.proj_out.weight", "vace_blocks.0.after_proj.weight"))),
    "ZImageControlNetModel": (_Mark(("control_layers.0.before_proj.weight",)),),
    "ZImageTransformer2DModel": (_Mark(("cap_embedder.0.weight",), 0, "cap_feat_dim"),),
}
"""Weights of files of a class, of which each has the first; of classes that are not here nothing is asked."""

_BEFORE: Final = ("", "first_stage_model.", "vae.", "control_model.", *OF_ENCODERS)
"""What stands before the names of a module's weights in a file that holds others beside it."""


def file_fault(class_name: str, config: Config, shapes: Shapes, sizes: Collection[str] | None = None) -> str:
    """Return why one file is no module of a class and of its configuration, with what it is; "" where it may be.

    Args:
        class_name: Class that it is to be loaded as.
        config: The configuration that it is loaded by.
        shapes: Of its tensors, by name; of a denoiser's without what stands before its names.
        sizes: Names of those whose shapes are certain; None for all of them.
    """
    for number, mark in enumerate(_MARKS.get(class_name, ())):
        names = [f"{before}{name}" for before in _BEFORE for name in mark.names]
        found = next((name for name in names if name in shapes), None)
        stated = config.get(mark.key)
        if mark.place is None and mark.key:
            if isinstance(stated, bool) and stated != (found is not None):
                has = f"has {found}" if found else f"has no {mark.names[0]}"
                return f"{has}, and {mark.key} is {str(stated).lower()} in its config.json; name that of its model"
        elif found is None:
            if number == 0:
                what = _what(shapes)
                return f"is no {class_name}: it has no {' or '.join(mark.names)}{f'; it {what}' if what else ''}"
            if mark.place is None:
                return f"is a part of one: it has no {' or '.join(mark.names)}, as {class_name} has; name a whole one"
        elif mark.place is not None and isinstance(stated, int) and (sizes is None or found in sizes):
            shape = list(shapes[found])
            if len(shape) <= mark.place or shape[mark.place] != stated:
                return (
                    f"does not fit: its {found} has the shape {shape}, and {mark.key} is {stated} in its config.json; "
                    "name the file, or the config, of the same model"
                )
    return ""


def _what(shapes: Shapes) -> str:
    """Return what a file is instead, "" where nobody knows."""
    keys = Keys.of({name: {"shape": shape} for name, shape in shapes.items()})
    title = named_after(LAYOUTS, keys)
    inside = module_of_a_model(shapes)
    known = f"has the keys of {title}" if title else "" if inside.startswith("is one module") else inside
    return beside_a_model(shapes) or known
