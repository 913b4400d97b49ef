"""What a model is predicted to take: its weights counted, the card named, without torch."""

from __future__ import annotations

import json
import os
import struct
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from support.revisions import PINNED

import sdbatch
from sdbatch.checkpoints import describe
from sdbatch.checkpoints.fits import Peak, decoded_rows, predicted_peak, weight_bytes
from sdbatch.checkpoints.info import ModelInfo
from sdbatch.checkpoints.module_weights import module_parameters
from sdbatch.errors import ModelLoadFailed
from sdbatch.families import FAMILIES
from sdbatch.families.peaks import OutputSize, peaks_of
from sdbatch.generate.load import load_model
from sdbatch.generate.random_weights import make_tiny_random
from sdbatch.job import Model, VaeOptions
from sdbatch.job.model import Defaults

SQUARE = OutputSize(1024, 1024)


def _info(title: str, **options: Any) -> ModelInfo:
    """Describe a model that lies elsewhere."""
    size = Defaults(height=1024, width=1024) if "height" not in FAMILIES[title].defaults else Defaults()
    return describe("m", Model(path="/elsewhere", family=title, revision=PINNED, defaults=size, **options), {})


def _peak(title: str, size: OutputSize | None = None, rows: int = 1, **options: Any) -> Peak:
    info = _info(title, dtype="bfloat16", **options)
    defaults = FAMILIES[title].defaults
    own = OutputSize(info.height, info.width, defaults.get("num_frames") or 1)
    peak = predicted_peak(info, module_parameters(info), size or own, rows)
    assert peak is not None
    return peak


def test_hunyuan_video_is_tiled_at_its_defaults_and_fits_where_it_could_not_whole() -> None:
    tiled = _peak("HunyuanVideo 1.5", offload="model")
    whole = _peak("HunyuanVideo 1.5", offload="model", vae={"tiling": False})

    assert whole.decoding > 80 * 2**30
    assert whole.card_gb in {141, None}
    assert tiled.card_gb is not None
    assert tiled.card_gb <= 48


def test_what_makes_a_model_smaller_makes_its_card_smaller() -> None:
    plain = _peak("Flux.1", SQUARE)
    assert 31 * 2**30 < plain.weights < 33 * 2**30
    assert plain.card_gb == 48
    int8 = {"backend": "torchao", "type": "int8wo"}
    assert _peak("Flux.1", SQUARE, quantize={"transformer": int8, "text_encoder_2": int8}).card_gb == 24
    assert _peak("Flux.1", SQUARE, layerwise_casting="float8_e4m3fn").weights < plain.weights * 0.75
    by_model, by_group = (_peak("Flux.1", SQUARE, offload=offload) for offload in ("model", "group"))
    assert plain.peak > by_model.peak > by_group.peak
    assert by_group.card_gb == 16
    texts = _peak("Flux.1", SQUARE, offload_text_encoder=True)
    assert plain.denoising > texts.denoising
    assert texts.encoding == plain.weights, "all of them visit before any leaves"


def test_rows_and_how_they_are_decoded_decide_the_decoder() -> None:
    one, four, eight = (_peak("Stable Diffusion XL", SQUARE, rows) for rows in (1, 4, 8))
    activations = [peak.decoding - peak.weights for peak in (one, four, eight)]
    assert [round(size / 2**30, 1) for size in activations] == [1.5, 6.0, 12.0]
    parts = _peak("Stable Diffusion XL", SQUARE, 8, vae={"decode_batch": 2})
    assert parts.decoding < four.decoding
    assert [decoded_rows(SQUARE, rows, VaeOptions()) for rows in (1, 8, 9, 16)] == [1, 8, 5, 8]
    wan = _peak("Wan 2.1 T2V", OutputSize(480, 832, 81))
    assert 7 * 2**30 < wan.decoding - wan.weights < 8.5 * 2**30, "its VAE is run in float32"


SDXL_ON_A_CARD = {"unet": 2_567_463_684, "vae": 83_653_863, "text_encoder": 85_100_000, "text_encoder_2": 632_300_000}
FLUX_ON_A_CARD = {
    "transformer": 2_556_180_000,
    "vae": 83_819_683,
    "text_encoder": 85_800_000,
    "text_encoder_2": 386_400_000,
}
NF4, INT8, FLOAT8 = (
    {"quantize": {"transformer": {"backend": backend, "type": kind}}}
    for backend, kind in (("bitsandbytes", "nf4"), ("torchao", "int8wo"), ("torchao", "float8dq"))
)


@pytest.mark.parametrize(
    ("title", "rows", "options", "measured_mib"),
    [
        ("Stable Diffusion XL", 1, {}, 8893),
        ("Stable Diffusion XL", 4, {}, 14660),
        ("Stable Diffusion XL", 8, {}, 22861),
        ("Stable Diffusion XL", 8, {"vae": {"decode_batch": 1}}, 9040),
        ("Stable Diffusion XL", 8, {"vae": {"decode_batch": 4}}, 14692),
        ("Stable Diffusion XL", 1, {"offload": "model"}, 5257),
        ("Stable Diffusion XL", 1, {"offload": "group"}, 2628),
        ("Stable Diffusion XL", 1, {"offload_text_encoder": True}, 7525),
        ("Flux.1", 1, {}, 8411),
        ("Flux.1", 1, {"offload": "model"}, 5381),
        ("Flux.1", 1, {"offload": "group"}, 2635),
        ("Flux.1", 1, {"layerwise_casting": "float8_e4m3fn"}, 6640),
        ("Flux.1", 1, NF4, 4907),
        ("Flux.1", 1, INT8, 5977),
        ("Flux.1", 1, FLOAT8, 5974),
    ],
    ids=str,
)
def test_a_peak_is_that_of_a_card(title: str, rows: int, options: dict[str, Any], measured_mib: int) -> None:
    """`torch.cuda.max_memory_allocated` of calls at 1024 px on an H200: SDXL, and Flux.1 with 4 + 8 of its blocks."""
    info = _info(title, dtype="bfloat16", num_gpus=1, **options)
    parameters = SDXL_ON_A_CARD if title == "Stable Diffusion XL" else FLUX_ON_A_CARD

    peak = predicted_peak(info, parameters, SQUARE, rows, peaks_of(title, 0))

    assert peak is not None
    most = max(peak.denoising, peak.decoding + peak.workspace, peak.encoding)
    assert most / 2**20 == pytest.approx(measured_mib, rel=0.02)
    assert peak.needed > measured_mib * 2**20, "the card must have it"


def test_the_nearest_published_model_stands_for_a_size() -> None:
    small, large = (peaks_of("Wan 2.1 T2V", count) for count in (1_400_000_000, 14_000_000_000))
    assert small is not None
    assert large is not None
    assert (small.name, large.name) == ("Wan 2.1 1.3B", "Wan 2.1 14B")
    toy = peaks_of("Wan 2.1 T2V", 100_000)
    assert toy is not None
    assert toy.denoiser.pixel_time < small.denoiser.pixel_time / 10
    assert peaks_of("no family", 0) is None


def test_a_family_without_figures_is_said_to_have_none() -> None:
    info = _info("Stable Video Diffusion")
    assert predicted_peak(info, {"unet": 1}, OutputSize(576, 1024, 25), 1) is None


def test_the_table_is_of_families_and_their_denoisers() -> None:
    for family in FAMILIES.values():
        peaks = peaks_of(family.title, 0)
        if peaks is not None:
            assert peaks.denoiser_name == family.denoiser, family.title
            assert (peaks.tiled is not None) is family.vae_tiles, family.title
            nearest = peaks_of(family.title, family.parameters_reference)
            assert nearest is not None
            if family.title != "CogVideoX I2V":  # it was published with 5 billion alone, and its work is that of 2
                assert 0.8 < nearest.parameters / family.parameters_reference < 1.25, family.title


def test_weights_are_counted_by_module_from_the_headers(tmp_path: Path) -> None:
    make_tiny_random(tmp_path)
    info = describe("m", Model(path=str(tmp_path), revision=PINNED), {})
    files = {"unet": "diffusion_pytorch_model", "vae": "diffusion_pytorch_model", "text_encoder": "model"}
    parameters = module_parameters(info)

    assert parameters.keys() == files.keys()
    for name, file in files.items():
        size = (tmp_path / name / f"{file}.safetensors").stat().st_size
        assert 0.8 * size < weight_bytes(info, parameters)[name] <= size
    half = replace(info, options=info.options.model_copy(update={"dtype": "float16"}))
    assert sum(weight_bytes(half, parameters).values()) * 2 == sum(weight_bytes(info, parameters).values())


def test_a_model_over_all_of_a_machines_memory_is_refused_with_the_figures_before_it_is_read(tmp_path: Path) -> None:
    make_tiny_random(tmp_path)
    file = tmp_path / "unet" / "diffusion_pytorch_model.safetensors"
    tensor = {"conv_in.weight": {"dtype": "F32", "shape": [1 << 38], "data_offsets": [0, 1 << 40]}}
    header = json.dumps(tensor).encode()
    file.write_bytes(struct.pack("<Q", len(header)) + header)
    os.truncate(file, 8 + len(header) + (1 << 40))  # a hole: it takes no room on the disk

    text = (
        r"its weights take 1024\.00 GiB, of which 1024\.00 GiB must lie in host memory, and this machine has [\d.]+ GiB"
    )
    with pytest.raises(ModelLoadFailed, match=text) as caught:
        load_model("m", Model(path=str(tmp_path), revision=PINNED, num_gpus=0), PINNED, {})
    assert "\n" not in str(caught.value)


def test_cards_are_named_by_what_they_hold() -> None:
    def of(peak_gib: float) -> int | None:
        return Peak(weights=0, denoising=int(peak_gib * 2**30), decoding=0, encoding=0).card_gb

    assert [of(gib) for gib in (1, 14, 14.2, 21, 40, 70, 130, 140)] == [16, 16, 24, 24, 48, 80, 141, None]


def test_models_list_and_plan_say_it_without_torch(tmp_path: Path, job_of: Any, write_manifest: Any) -> None:
    code = (
        "import sys; from sdbatch.api import list_models; "
        "print([str(model.memory) for model in list_models()]); print('torch' in sys.modules)"
    )
    printed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert "weights" in printed
    assert "a card of 16 GB" in printed
    assert "in no table" not in printed
    assert printed.endswith("False\n")

    rows = [
        {"id": "small", "prompt": "a", "height": 32, "width": 32},
        {"id": "large", "prompt": "a", "height": 128, "width": 64},
    ]
    (memory,) = sdbatch.plan(sdbatch.load_job(job_of(write_manifest(rows)))).memory
    assert (memory.model, memory.height, memory.width, memory.rows) == ("tiny", 128, 64, 4)
    assert memory.peak_bytes is not None
    assert memory.peak_bytes > memory.weights_bytes > 0
    assert memory.weights_bytes < 10 << 20, "a builtin is taken for the published model of its family"
    assert "64 x 128 at batch 4 peaks at" in str(memory)
