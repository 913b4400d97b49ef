"""A delivered clip shows what its master shows, in its place."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.clips import read_by_zscale, stripe, stripe_shift

from sdbatch.deliver.clips import ClipShape, make_clip
from sdbatch.deliver.placing import Focus, placed
from sdbatch.encode.video import encode_video
from sdbatch.job import Encode
from sdbatch.named_formats import NamedFormat


@pytest.mark.parametrize("size", [(320, 192), (80, 48)])
def test_colours_stay_in_their_place_at_another_size(size: tuple[int, int], tmp_path: Path) -> None:
    master = tmp_path / "master"
    frames_FHWC = stripe(is_upright=True)
    master.write_bytes(encode_video(frames_FHWC, 24.0, Encode(), request_key="0" * 64, n=0, recipe="{}").data)
    shape = ClipShape(suffix="mp4", width=160, height=96, num_frames=4, fps=24.0)
    one = NamedFormat(name="a", width=size[0], height=size[1], type="webm")
    file = tmp_path / "a.webm"
    file.write_bytes(make_clip(master, shape, one, placed((160, 96), size, "cover", Focus(), 2), (0, 0, 0)))

    assert abs(stripe_shift(read_by_zscale(file, size[1], size[0])[0], is_upright=True)) < 0.15
