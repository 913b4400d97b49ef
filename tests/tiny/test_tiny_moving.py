"""The small world in motion."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from tiny.moving import PAN_PER_FRAME, Scenario, clip_caption, draw_clip, ending, random_scenario
from tiny.world import draw, random_landscape


def _scenario(**changes: object) -> Scenario:
    landscape = random_landscape(
        np.random.default_rng(2), scene="mountains", time="sunset", style="photo", weather="clear"
    )
    plain = Scenario(landscape=landscape, pan="still", is_setting=False, is_drifting=False)
    return replace(plain, **changes)  # type: ignore[arg-type]


def test_a_pan_to_the_right_shifts_the_land_to_the_left() -> None:
    shift = int(PAN_PER_FRAME)
    right, left = (draw_clip(_scenario(pan=pan), num_frames=3) for pan in ("right", "left"))

    assert np.array_equal(right[0][:, shift:], right[1][:, :-shift])
    assert np.array_equal(left[0][:, :-shift], left[1][:, shift:])
    assert not np.array_equal(right[0], right[1])


def test_a_still_clip_does_not_move_and_a_setting_sun_ends_in_the_next_hour() -> None:
    still, setting = draw_clip(_scenario(), num_frames=3), draw_clip(_scenario(is_setting=True), num_frames=3)

    assert np.array_equal(still[0], still[2])
    assert np.array_equal(setting[0], still[0])
    assert ending(_scenario(is_setting=True)).time == "night"
    assert np.array_equal(setting[2], draw(_scenario().landscape, dusk=2.0))


def test_a_caption_says_how_the_camera_pans() -> None:
    generator = np.random.default_rng(3)
    for _ in range(200):
        scenario = random_scenario(generator)
        said = clip_caption(scenario, generator).replace(",", "").split()
        assert ("left" in said, "right" in said) == (scenario.pan == "left", scenario.pan == "right")


def test_the_sun_does_not_set_by_night() -> None:
    night = replace(_scenario().landscape, time="night")
    with pytest.raises(ValueError, match="the sun cannot set by night; only by day and sunset"):
        _scenario(landscape=night, is_setting=True)


def test_a_word_of_motion_is_one_token() -> None:
    from tiny.moving import words
    from tiny.video_shapes import tokenizer

    cut = tokenizer().tokenize
    assert [word for word in words() if len(cut(word)) != 1] == []
