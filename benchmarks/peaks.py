"""Computes the memory that models take on torch's meta device, and writes the table that plans read.

python -m benchmarks.peaks            writes sdbatch/families/peaks.json and the table of cards in docs/models/cards.md

published architecture --> denoiser and decoder on the meta device --> LiveBytes at a few sizes --> a linear form
"""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from functools import cache
from pathlib import Path
from typing import Any, Final

import diffusers
import numpy as np
import torch

from benchmarks.live_bytes import LiveBytes
from benchmarks.passes import pass_of
from benchmarks.published import PUBLISHED, Published
from sdbatch.api import load_job
from sdbatch.checkpoints import ModelInfo
from sdbatch.driver.predicted.memory import memory_with
from sdbatch.families import FAMILIES, Family
from sdbatch.families.peaks import TABLE, Activations, OutputSize, Peaks, peaks_of
from sdbatch.job import Model

ROOT = Path(__file__).parent.parent


def module(cls: str, options: Mapping[str, Any]) -> Any:
    """Return a module of diffusers in 16 bits on the meta device."""
    with torch.device("meta"):
        return getattr(diffusers, cls)(**options).to(torch.bfloat16).eval()


Sizes = Sequence[tuple[int, int, int]]
"""Height, width and frames of each."""


def denoiser_activations(denoiser: Any, vae: Any, sizes: Sizes) -> Activations:
    """Return the activations of a denoiser from passes on the meta device; its latents are those of a VAE."""
    return _fitted(lambda *size: _denoiser_bytes(denoiser, vae, *size), sizes, ("row", "pixel", "pixel_time"))


def decoder_activations(vae: Any, sizes: Sizes) -> Activations:
    """Return the activations of a decoder that decodes whole outputs."""
    return _fitted(lambda *size: _decoder_bytes(vae, *size), sizes, ("row", "pixel", "pixel_time"))


def tiled_activations(vae: Any, sizes: Sizes) -> Activations:
    """Return the activations of a decoder in tiles: those of a tile do not grow with the output."""
    vae.enable_tiling()
    tiled = _fitted(lambda *size: _decoder_bytes(vae, *size), sizes, ("row", "time", "pixel_time"))
    vae.disable_tiling()
    return tiled


def _fitted(
    measure: Callable[[int, int, int], int], sizes: Sequence[tuple[int, int, int]], names: tuple[str, ...]
) -> Activations:
    """Return the linear form through measurements; of pictures, whose frames are one, no term holds frames."""
    if all(frames == 1 for _, _, frames in sizes):
        names = tuple(name for name in names if name in {"row", "pixel" if "pixel" in names else "pixel_time"})
    rows = [_terms(height * width, frames, names) for height, width, frames in sizes]
    solved = np.linalg.lstsq(np.array(rows), np.array([measure(*size) for size in sizes]), rcond=None)[0]
    return Activations(**{name: _rounded(value) for name, value in zip(names, solved, strict=True)})


def _rounded(value: float) -> float:
    """Return six digits; what is left of a term that is none becomes 0."""
    return float(f"{value:.6g}") if abs(value) > 1e-3 else 0.0


def _terms(pixels: int, frames: int, names: tuple[str, ...]) -> list[float]:
    terms = {"row": 1.0, "pixel": float(pixels), "time": float(frames), "pixel_time": float(pixels * frames)}
    return [terms[name] for name in names]


def _denoiser_bytes(denoiser: Any, vae: Any, height: int, width: int, frames: int) -> int:
    latents = latent_shape(vae, height, width, frames)
    arguments = pass_of(denoiser, latents)
    return _peak(lambda: denoiser(**arguments, return_dict=False))


def _decoder_bytes(vae: Any, height: int, width: int, frames: int) -> int:
    channels, *sides = latent_shape(vae, height, width, frames)
    weights = next(vae.parameters())
    latents = torch.empty(1, channels, *sides, dtype=weights.dtype, device=weights.device)
    more: dict[str, Any] = {"num_frames": frames} if type(vae).__name__ == "AutoencoderKLTemporalDecoder" else {}
    if getattr(vae.config, "timestep_conditioning", False):
        more["temb"] = torch.empty(1, dtype=weights.dtype, device=weights.device)
    return _peak(lambda: vae.decode(latents, **more, return_dict=False))


def _peak(call: Callable[[], Any]) -> int:
    live = LiveBytes()
    with torch.inference_mode(), live:
        call()
    return live.peak


def latent_shape(vae: Any, height: int, width: int, frames: int) -> tuple[int, ...]:
    """Return channels, frames (of a clip's VAE) and sides of the latents of one output."""
    name = type(vae).__name__
    config = vae.config
    channels = config.get("latent_channels") or config.get("z_dim")
    if name in _CLIP_SCALES:
        space, time = _CLIP_SCALES[name](vae)
        return channels, (frames - 1) // time + 1, height // space, width // space
    if name == "AutoencoderDC":
        space = 2 ** (len(config["encoder_block_out_channels"]) - 1)
    else:
        space = 2 ** (len(config["block_out_channels"]) - 1)
    return channels, height // space, width // space


def _wan_scale(vae: Any) -> tuple[int, int]:
    steps = vae.config["temperal_downsample"]
    return 2 ** len(steps) * (vae.config.get("patch_size") or 1), 2 ** sum(steps)


_CLIP_SCALES: Mapping[str, Callable[[Any], tuple[int, int]]] = {
    "AutoencoderKLWan": _wan_scale,
    "AutoencoderKLQwenImage": _wan_scale,
    "AutoencoderKLQwenImage21": lambda vae: (vae.spatial_compression_ratio, vae.config["scale_factor_temporal"]),
    "AutoencoderKLLTXVideo": lambda vae: (vae.spatial_compression_ratio, vae.temporal_compression_ratio),
    "AutoencoderKLCogVideoX": lambda vae: (8, vae.config["temporal_compression_ratio"]),
    "AutoencoderKLHunyuanVideo": lambda vae: (vae.spatial_compression_ratio, vae.temporal_compression_ratio),
    "AutoencoderKLHunyuanVideo15": lambda vae: (vae.spatial_compression_ratio, vae.temporal_compression_ratio),
}
"""Pixels a latent stands for in each direction, and frames, by the class of a VAE that takes frames."""


def computed(published: Published) -> Peaks:
    """Compute the row of one published model."""
    denoiser, vae = module(*published.denoiser), module(*published.vae)
    family = FAMILIES[published.titles[0]]
    parameters = _parameters(denoiser)
    names = [family.denoiser, *[f"{family.denoiser}_2"] * (published.copies - 1)]
    leaves = [one for one in denoiser.modules() if not list(one.children())]
    leaf = max(map(_parameters, leaves))
    sizes = _sizes(published.size, family)
    decoder, tiled = _vae_activations(json.dumps(published.vae), published.size, published.titles[0])
    return Peaks(
        name=published.name,
        titles=published.titles,
        denoiser_name=family.denoiser,
        modules={**dict.fromkeys(names, parameters), "vae": _parameters(vae), **published.encoders},
        leaf=leaf,
        cast_bytes=cast_bytes(module(*published.denoiser)),
        guided_rows=published.guided_rows,
        vae_bytes=4 if published.is_vae_wide else 0,
        denoiser=_by_width(published, vae)
        if published.width
        else denoiser_activations(_shortened(denoiser), vae, sizes),
        decoder=decoder,
        tiled=tiled,
    )


def cast_bytes(denoiser: Any) -> float:
    """Return the bytes of a weight on average once a denoiser's layers are stored in 8 bits; it is changed by this."""
    denoiser.enable_layerwise_casting(storage_dtype=torch.float8_e4m3fn, compute_dtype=torch.bfloat16)
    num_bytes = sum(weight.nbytes for weight in denoiser.parameters())
    return float(round(num_bytes / _parameters(denoiser), 4))


NUMBERS_PER_CHANNEL: Final = 17
"""Numbers that a block of Flux.1 holds for every token and channel, as counted on the meta device."""


def _by_width(published: Published, vae: Any) -> Activations:
    """Return the activations of a denoiser whose masks would need values, by the width of its tokens."""
    frames = 1 + FAMILIES[published.titles[0]].frame_multiple
    _, *sides = latent_shape(vae, 1024, 1024, frames)
    per_frame = math.prod(sides[-2:]) / published.patch**2 / 1024**2
    number = NUMBERS_PER_CHANNEL * published.width * 2
    if frames == 1:
        return Activations(pixel=number * per_frame)
    step = frames - 1
    return Activations(pixel=number * per_frame * (step - 1) / step, pixel_time=number * per_frame / step)


@cache
def _vae_activations(described: str, size: tuple[int, int, int], title: str) -> tuple[Activations, Activations | None]:
    vae, family = module(*json.loads(described)), FAMILIES[title]
    whole = decoder_activations(vae, _sizes(size, family))
    return whole, tiled_activations(vae, _tiled_sizes(vae, family)) if family.vae_tiles else None


def _shortened(denoiser: Any) -> Any:
    """Keep the first and the last of a transformer's equal blocks: each frees what it has computed."""
    if "Transformer" in type(denoiser).__name__:
        for name, blocks in list(denoiser.named_children()):
            if isinstance(blocks, torch.nn.ModuleList) and len(blocks) > 2:
                setattr(denoiser, name, torch.nn.ModuleList([blocks[0], blocks[-1]]))
    return denoiser


def _sizes(size: tuple[int, int, int], family: Family) -> Sizes:
    """Return sizes around a model's own: half and all of its sides and frames."""
    height, width, frames = size
    step = family.frame_multiple
    shorter = (frames - 1) // 2 // step * step + 1 if frames > 1 else 1
    multiple = family.size_multiple
    return [
        (round(height * share) // multiple * multiple, round(width * share) // multiple * multiple, count)
        for share in (0.5, 1.0)
        for count in dict.fromkeys((shorter, frames))
    ]


def _tiled_sizes(vae: Any, family: Family) -> Sizes:
    """Return short clips, or pictures, of a few tiles: a tile takes the same in any of them.

    They are longer than a tile where the VAE cuts time into tiles as well.
    """
    side = getattr(vae, "tile_sample_min_size", 0) or max(vae.tile_sample_min_height, vae.tile_sample_min_width)
    takes_frames = type(vae).__name__ in _CLIP_SCALES and family.frame_multiple > 0
    lengths = (6, 12) if getattr(vae, "use_framewise_decoding", False) else (1, 3)
    counts = [family.frame_multiple * steps + 1 for steps in lengths] if takes_frames else [1]
    return [(side * times, side * 2, count) for times in (1, 2) for count in counts]


_PAGE: Final = ROOT / "docs/models/cards.md"
_MARKS: Final = ("<!-- cards: written by python -m benchmarks.peaks -->\n", "<!-- cards end -->\n")
_TITLES: Final = {
    "flux-16gb": "Flux.1",
    "flux-24gb": "Flux.1",
    "wan-a14b": "Wan 2.2 T2V A14B",
    "qwen-edit": "Qwen-Image-Edit",
}
"""Families of ready jobs whose model entry does not say it, as its folder does."""


def card_table() -> str:
    """Return the table of cards: each ready job of published models, what it takes, and the card that holds it."""
    lines = ["| job | family | an output | weights | at the peak | card |", "|---|---|---|---|---|---|"]
    for file in sorted((ROOT / "jobs").glob("*.yaml")):
        for name, model in load_job(file).models.items():
            title = model.family or model.like or _TITLES.get(file.stem)
            if title is not None:
                lines.append(_card_row(file, name, model.model_copy(update={"family": title}), title))
    return "\n".join(lines) + "\n"


def _card_row(file: Path, name: str, model: Model, title: str) -> str:
    published = peaks_of(title, FAMILIES[title].parameters_reference)
    assert published is not None, title
    defaults = {**FAMILIES[title].defaults, **{key: value for key, value in model.defaults if value is not None}}
    info = ModelInfo(
        name=name,
        path=model.path,
        family=FAMILIES[title],
        revision="",
        height=defaults["height"],
        width=defaults["width"],
        parameters=published.parameters,
        options=model,
    )
    size = OutputSize(info.height, info.width, defaults.get("num_frames") or 1)
    memory = memory_with(info, [size], published.modules)
    assert memory.peak_bytes is not None
    frames = f" x {size.num_frames}" if size.num_frames > 1 else ""
    shown = f"{size.width} x {size.height}{frames}" + (f", batch {memory.rows}" if memory.rows > 1 else "")
    figures = " | ".join(f"{num_bytes / 1e9:.1f} GB" for num_bytes in (memory.weights_bytes, memory.peak_bytes))
    return f"| `jobs/{file.name}` | {title} | {shown} | {figures} | {memory.card_gb} GB |"


def write_card_table() -> None:
    """Put the table into its page."""
    begin, end = _MARKS
    text = _PAGE.read_text(encoding="utf-8")
    before, after = text.partition(begin)[0], text.partition(end)[2]
    _PAGE.write_text(f"{before}{begin}{card_table()}{end}{after}", encoding="utf-8")


def _parameters(one: Any) -> int:
    return sum(weight.numel() for weight in one.parameters())


def main(names: Sequence[str]) -> None:
    """Write the table; only some of its rows anew where they are named."""
    kept = {row["name"]: row for row in json.loads(TABLE.read_text(encoding="utf-8"))} if names else {}
    rows: list[Any] = []
    for published in PUBLISHED:
        if published.name in kept.keys() - set(names):
            rows.append(kept[published.name])
            continue
        peaks = computed(published)
        rows.append(asdict(peaks))
        height, width, frames = published.size
        gib = {
            name: activations.num_bytes(height * width, frames) / 2**30
            for name in ("denoiser", "decoder", "tiled")
            if (activations := getattr(peaks, name)) is not None
        }
        print(published.name, {name: f"{value:.2f} GiB" for name, value in gib.items()}, file=sys.stderr)
    TABLE.write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")
    write_card_table()


if __name__ == "__main__":
    main(sys.argv[1:])
