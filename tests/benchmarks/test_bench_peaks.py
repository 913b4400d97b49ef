"""The table of memory: computed figures against the live bytes of real runs, and the table against a new count."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import support.toy_clips
import support.toy_models
import torch
from conftest import long_but
from support.revisions import PINNED

from benchmarks.live_bytes import LiveBytes
from benchmarks.peaks import computed, decoder_activations, denoiser_activations, module
from benchmarks.published import PUBLISHED
from sdbatch.checkpoints import describe
from sdbatch.checkpoints.fits import predicted_peak
from sdbatch.checkpoints.module_weights import module_parameters
from sdbatch.families.peaks import OutputSize, Peaks, peaks_of
from sdbatch.generate.batch import make_batch, set_threads
from sdbatch.generate.item import Item
from sdbatch.generate.load import LoadedModel, load_model
from sdbatch.generate.random_weights import make_tiny_random
from sdbatch.job import Model
from sdbatch.recipe import recipe_from

MAKERS: dict[str, Callable[[Path], None]] = {
    "sd": make_tiny_random,
    "flux": support.toy_models.make_tiny_flux,
    "qwen": support.toy_models.make_tiny_qwen,
    "wan": support.toy_clips.MAKERS["wan-t2v"],
    "ltx": support.toy_clips.MAKERS["ltx"],
    "cogvideox": support.toy_clips.MAKERS["cogvideox"],
}
CLIPS = ("wan", "ltx", "cogvideox")
ROWS = 2


@pytest.mark.parametrize("name", long_but({"sd", "ltx"}, MAKERS))
def test_a_predicted_peak_is_within_a_tenth_of_the_live_bytes_of_a_real_run(name: str, tmp_path: Path) -> None:
    set_threads(1)
    MAKERS[name](tmp_path)
    model = Model(path=str(tmp_path), revision=PINNED)
    info = describe(name, model, {})
    loaded = load_model(name, model, PINNED, {})
    size = OutputSize(128, 128, 17) if name in CLIPS else OutputSize(256, 256)
    with LiveBytes() as live:
        make_batch(loaded, [_item(seed, size) for seed in range(ROWS)], None)
    modules = [one for one in loaded._base.components.values() if isinstance(one, torch.nn.Module)]
    weights = sum(weight.nbytes for one in modules for weight in (*one.parameters(), *one.buffers()))

    predicted = predicted_peak(info, module_parameters(info), size, ROWS, _peaks(loaded, name))

    assert predicted is not None
    assert live.peak > 10 * weights, "the activations are what is compared"
    assert predicted.peak == pytest.approx(live.peak + weights, rel=0.1)
    fewer = predicted_peak(info, module_parameters(info), size, 1, _peaks(loaded, name))
    assert fewer is not None
    assert abs(fewer.peak / (live.peak + weights) - 1) > 0.1, "a peak of other rows would pass as well"


def _item(seed: int, size: OutputSize) -> Item:
    clip = {"num_frames": size.num_frames, "fps": 8.0} if size.num_frames > 1 else {}
    recipe = {
        "task": "text-to-video" if clip else "text-to-image",
        "prompt": "a beach",
        "height": size.height,
        "width": size.width,
        "num_inference_steps": 1,
        "guidance_scale": 4.0,
        **clip,
    }
    return Item(recipe=recipe_from(recipe), seed=seed)


def _peaks(loaded: LoadedModel, name: str) -> Peaks:
    """Count the activations of a toy's architecture, as those of the published ones are."""
    base: Any = loaded._base
    denoiser, vae = (
        module(type(one).__name__, {key: value for key, value in one.config.items() if not key.startswith("_")})
        for one in (getattr(base, loaded.family.denoiser), base.vae)
    )
    sizes = [(64, 64, 17), (128, 128, 9), (128, 128, 17)] if name in CLIPS else [(128, 128, 1), (256, 256, 1)]
    return Peaks(
        name=name,
        titles=(loaded.family.title,),
        denoiser_name=loaded.family.denoiser,
        modules={},
        leaf=0,
        cast_bytes=1.0,
        guided_rows=2 if loaded.family.cfg_layout == "halves" else 1,
        vae_bytes=4 if name == "wan" else 0,
        denoiser=denoiser_activations(denoiser, vae, sizes),
        decoder=decoder_activations(vae, sizes),
        tiled=None,
    )


def test_the_table_is_what_the_command_writes() -> None:
    (published,) = (one for one in PUBLISHED if one.name == "Flux.1 dev")
    counted = computed(published)

    assert counted == peaks_of(published.titles[0], counted.parameters)
