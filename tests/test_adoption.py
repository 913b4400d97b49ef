"""A stored asset that differs is taken for ours only where it shows what was rendered; anybody can write our key."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from sdbatch.encode.asset import encode_asset, is_alike, is_asset_of
from sdbatch.errors import AssetConflict
from sdbatch.job import Encode
from sdbatch.storage import LocalStore
from sdbatch.types import Request
from sdbatch.worker.copies import put_output

KEY = "0" * 64


def _frames(seed: int, is_clip: bool) -> NDArray[np.uint8]:
    chance = np.random.default_rng(seed)
    coarse = chance.integers(0, 256, (4 if is_clip else 1, 4, 4, 3)).astype(np.uint8)
    return np.kron(coarse, np.ones((1, 16, 16, 1), np.uint8))


def _file(frames_FHWC: NDArray[np.uint8], suffix: str, quality: int = 92) -> bytes:
    is_clip = suffix in {"mp4", "webm"}
    options = Encode.model_validate({"video" if is_clip else "image": suffix, "quality": quality})
    values: dict[str, Any] = {"request_key": KEY, "n": 0, "recipe": "{}", "sound": None}
    return encode_asset(frames_FHWC, options, fps=8.0 if is_clip else None, **values).data


def _request() -> Request:
    return Request(
        id="a", request_key=KEY, recipe="{}", outputs=(0,), sources=(), model="m", batch_key="b", cost_tflop=1.0
    )


@pytest.mark.fault("S2", "a planted asset with other pixels that carries our key", "AssetConflict: it is not adopted")
@pytest.mark.parametrize("suffix", ["png", "jpg", "webp", "mp4"])
def test_a_planted_asset_that_carries_our_key_is_not_adopted(tmp_path: Path, suffix: str) -> None:
    is_clip = suffix == "mp4"
    ours, planted = _file(_frames(1, is_clip), suffix), _file(_frames(2, is_clip), suffix)
    assert is_asset_of(planted, suffix, KEY, 0)
    store = LocalStore(str(tmp_path))
    store.put(f"assets/a-{KEY[:8]}-0.{suffix}", planted)

    with pytest.raises(AssetConflict, match="stored with other content"):
        put_output(store, _request(), "a", 0, ours, suffix, "image/x")


@pytest.mark.parametrize("suffix", ["png", "jpg", "mp4"])
def test_what_a_worker_on_another_device_made_is_adopted(tmp_path: Path, suffix: str) -> None:
    frames_FHWC = _frames(1, suffix == "mp4")
    chance = np.random.default_rng(5)
    moved = np.clip(frames_FHWC.astype(int) + chance.integers(-6, 7, frames_FHWC.shape), 0, 255).astype(np.uint8)
    ours, theirs = _file(frames_FHWC, suffix), _file(moved, suffix, quality=80)
    assert ours != theirs
    store = LocalStore(str(tmp_path))
    store.put(f"assets/a-{KEY[:8]}-0.{suffix}", theirs)
    stored = put_output(store, _request(), "a", 0, ours, suffix, "image/x")

    assert stored.adopted
    assert stored.asset_bytes == len(theirs)
    assert not is_alike(ours, theirs[: len(theirs) // 2], suffix)
