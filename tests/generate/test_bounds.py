"""What a model's own places bound is refused where a row is checked, and fails in the model itself."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import diffusers
import pytest
import torch
from support.toy_clips import _cogvideox_parts, make_animatediff, make_sparsectrl
from support.toy_models import make_tiny_sd3, save_pipeline
from support.toy_parts import loaded, pixels_of

from sdbatch.checkpoints import describe
from sdbatch.errors import ModelError
from sdbatch.job import Model
from sdbatch.plan.checks import check_family


def _said(entry: Any, **values: Any) -> list[str]:
    family = describe("m", Model.model_validate(entry), {}).family
    return [str(problem.message) for problem in check_family(values, family)]


def _with(folder: Path, **changes: Any) -> None:
    config = folder / "config.json"
    config.write_text(json.dumps({**json.loads(config.read_text()), **changes}))


@pytest.fixture
def animated(tmp_path: Path) -> Path:
    """AnimateDiff's folder, whose UNet has motion modules of its own with places for 6 frames, and a longer adapter."""
    make_animatediff(tmp_path)
    config = json.loads((tmp_path / "unet" / "config.json").read_text())
    diffusers.UNetMotionModel.from_config({**config, "motion_max_seq_length": 6}).save_pretrained(tmp_path / "unet")
    return tmp_path


def test_motion_modules_bound_the_frames_of_a_clip(animated: Path) -> None:
    entry = {"path": str(animated)}

    assert _said(entry, num_frames=7) == ["is not in 1..6"]
    assert _said(entry, num_frames=6) == []
    model = loaded(entry)
    assert pixels_of(model, height=32, width=32, num_frames=6).shape[0] == 6
    with pytest.raises(RuntimeError, match="must match the size"):
        pixels_of(model, height=32, width=32, num_frames=7)


def test_an_adapter_s_motion_modules_bound_the_frames_of_a_clip(animated: Path) -> None:
    adapter = animated / "motion_adapter"
    entry = {"path": "builtin:tiny-random", "motion_adapter": str(adapter)}

    assert _said(entry, num_frames=33) == ["is not in 1..32"]
    _with(adapter, motion_max_seq_length=24)
    assert _said(entry, num_frames=25) == ["is not in 1..24"]
    assert _said(entry, num_frames=24) == []


def test_an_adapter_beside_a_unet_with_motion_modules_of_its_own_is_refused(animated: Path) -> None:
    entry = {"path": str(animated), "motion_adapter": str(animated / "motion_adapter")}

    with pytest.raises(ModelError, match=r"motion_adapter: \S+: would not be read: the unet of AnimateDiff has motion"):
        _said(entry, num_frames=4)


def test_a_net_for_key_frames_bounds_them_too(tmp_path: Path) -> None:
    make_sparsectrl(tmp_path)
    _with(tmp_path / "controlnet", motion_max_seq_length=24)

    assert _said({"path": str(tmp_path)}, num_frames=25) == ["is not in 1..24"]


def test_learned_places_bound_the_size_of_a_clip(tmp_path: Path) -> None:
    torch.manual_seed(0)
    parts = _cogvideox_parts(8, rotary=True, use_learned_positional_embeddings=True)
    save_pipeline(diffusers.CogVideoXImageToVideoPipeline(**parts), tmp_path)
    entry = {"path": str(tmp_path)}

    assert _said(entry, height=64, width=64, num_frames=9) == []
    assert _said(entry, height=64, width=80, num_frames=9) == [
        "x width 80 is no size that CogVideoX I2V makes (64 x 64); the nearest in shape is 64 x 64"
    ]
    _with(tmp_path / "transformer", use_learned_positional_embeddings=False)
    assert _said(entry, height=64, width=80, num_frames=9) == []


def test_the_places_of_stable_diffusion_3_bound_a_side(tmp_path: Path) -> None:
    make_tiny_sd3(tmp_path)
    entry = {"path": str(tmp_path)}
    model, most = loaded(entry), 16 * 2 * 8

    assert _said(entry, height=64, width=most + 16) == [f"is not in 8..{most}"]
    assert _said(entry, height=64, width=most) == []
    assert pixels_of(model, height=64, width=most).shape[2] == most
    with pytest.raises(ValueError, match="cannot be greater than `pos_embed_max_size`"):
        pixels_of(model, height=64, width=most + 16)
