"""Whether the keys of a LoRA's file can name modules of its family, as their first words tell; without torch.

    keys of a file + title of a family --> strange_keys(), left_out_keys() --> those that its pipelines cannot apply
    header + their values              --> misfit()                        --> why a worker would refuse the file

What a conversion makes of the rest of a name is found out where the LoRA is loaded (`sdbatch.generate.load`).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from itertools import islice
from typing import Final

from sdbatch.checkpoints.headers import Header
from sdbatch.storage import Store

_OF_FLUX: Final = "transformer_blocks single_transformer_blocks context_embedder x_embedder norm_out proj_out"
_BY_FLUX: Final = "double_blocks single_blocks img_in txt_in time_in guidance_in final_layer"

MODULES: Final[Mapping[str, str]] = {
    "AuraFlow": "joint_transformer_blocks single_transformer_blocks context_embedder norm_out pos_embed proj_out "
    "time_step_proj",
    "Chroma": f"{_OF_FLUX} {_BY_FLUX} distilled_guidance_layer",
    "CogVideoX": "transformer_blocks norm_out ofs_embedding patch_embed proj_out time_embedding",
    "Flux.1": f"{_OF_FLUX} {_BY_FLUX} time_text_embed vector_in",
    "Flux.2": f"{_OF_FLUX} {_BY_FLUX} time_guidance_embed double_stream_modulation single_stream_modulation "
    "sformer_blocks",
    "HiDream-I1": "double_stream_blocks single_stream_blocks caption_projection final_layer p_embedder t_embedder "
    "x_embedder",
    "Kandinsky 5": "text_transformer_blocks visual_transformer_blocks text_embeddings pooled_text_embeddings "
    "time_embeddings visual_embeddings out_layer",
    "LTX-2": "transformer_blocks caption_projection proj_in proj_out time_embed audio av_cross_attn "
    "text_embedding_projection connectors",
    "LTX-Video": "transformer_blocks caption_projection proj_in proj_out time_embed",
    "Qwen-Image": "transformer_blocks img_in modulation norm_out proj_out time_text_embed txt_in txt_norm",
    "Sana": "transformer_blocks caption_projection patch_embed proj_out time_embed",
    "Stable Diffusion 3/3.5": "transformer_blocks context_embedder norm_out pos_embed proj_out time_text_embed",
    "Wan": "blocks condition_embedder patch_embedding proj_out vace_blocks vace_patch_embedding head img_emb "
    "text_embedding time_embedding time_projection",
    "Z-Image": "layers noise_refiner context_refiner all_final_layer all_x_embedder cap_embedder t_embedder siglip",
}
"""How names of a denoiser's modules begin, diffusers' own and those of its authors that a conversion reads (0.42.1), by
the beginning of the families' titles. Those of UNets have too many forms."""

_BEFORE: Final = (
    r"(?:(?:model\.)?diffusion_model[._]|base_model\.model\.|transformer(?:_2)?\.|"
    r"lora_unet_|lora_transformer_|lycoris_)?"
)
_OTHERS: Final = re.compile(r"text_encoder|lora_te|bundle_emb\.")
"""How keys begin that are no denoiser's."""

_LEFT_OUT_OF_WAN: Final = re.compile(r".*(norm[^.]*|modulation|patch_embedding|img_emb\.proj\.[04])\.diff(_b)?")
"""Changes of Wan's weights that stand beside a LoRA's factors, and that diffusers leaves out."""
_TIME_OF_WAN: Final = re.compile(r".*time_projection\.(.*)")
"""Changes of the same kind where the file has no factors for that module."""

_EXAMPLES: Final = 3
"""Keys that a message names."""
_STEM: Final = re.compile(r"(.*?)\.(lora_|hada_|lokr_|oft_)")
_BYTES_MAX: Final = 1 << 20
"""Bytes of a tensor that are looked at: its first ones."""
_LOOKED_AT_MAX: Final = 16
"""Modules whose values are looked at; a bucket answers each by a request."""


def misfit(header: Header, store: Store, path: str, title: str, *, partial: bool) -> str:
    """Return why a file of a LoRA would be refused where it is loaded, "" where that is not certain.

    Args:
        header: Of the file.
        store: Where it lies.
        path: The file in it.
        title: Of the family that the job says.
        partial: Whether a part of it is enough.
    """
    strange, left_out = strange_keys(header.tensors, title), left_out_keys(header.tensors, title)
    if len(strange) < len(header.tensors) and partial:
        return ""
    for keys, what, remedy in (
        (strange, "fit no module", "name one that was made for it"),
        (left_out, "would be left out by diffusers", "partial: allow applies the rest"),
    ):
        if _is_felt(keys, header, store, path):
            examples = f"{', '.join(keys[:_EXAMPLES])}{', ...' if len(keys) > _EXAMPLES else ''}"
            number = f"of its {len(header.tensors)} keys {len(keys)} {what}"
            return f"is no whole LoRA of {title}: {number} ({examples}); {remedy}"
    return ""


def strange_keys(keys: Iterable[str], title: str) -> list[str]:
    """Return the keys of a file that begin like no module of a family; [] where the table does not know it."""
    words = next((words for start, words in MODULES.items() if title.startswith(start)), None)
    if words is None:
        return []
    known = re.compile(rf"{_BEFORE}({'|'.join(words.split())})")
    return [key for key in sorted(keys) if not (known.match(key) or _OTHERS.match(key))]


def left_out_keys(keys: Iterable[str], title: str) -> list[str]:
    """Return the keys of a file of which a conversion says itself that it leaves them out."""
    if not title.startswith("Wan"):
        return []
    names = sorted(keys)
    times = [name for name in names if _TIME_OF_WAN.fullmatch(name)]
    has_factors = any(name.endswith(".weight") for name in times)
    return [name for name in names if _LEFT_OUT_OF_WAN.fullmatch(name) or (name in times and not has_factors)]


def _is_felt(keys: Sequence[str], header: Header, store: Store, path: str) -> bool:
    """Whether some keys change anything: trainers leave zeros where nothing was trained."""
    modules: dict[str, list[str]] = {}
    for key in keys:
        if not key.endswith(".alpha"):
            stem = _STEM.match(key)
            modules.setdefault(stem[1] if stem else key, []).append(key)
    start = header.file_bytes - max((tensor["data_offsets"][1] for tensor in header.tensors.values()), default=0)

    def is_zero(key: str) -> bool:
        first, stop = header.tensors[key]["data_offsets"]
        data = store.read_range(path, start + first, start + min(stop, first + _BYTES_MAX))
        return not data.translate(None, b"\x00\x80")  # -0.0 is a zero as well

    return any(not any(map(is_zero, of_module)) for of_module in islice(modules.values(), _LOOKED_AT_MAX))
