"""The small world: what is drawn, what is said of it, and how its words are cut."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import numpy as np
import pytest

from tiny.captions import HELD_OUT, ORDERS, ORDERS_HELD_OUT, caption, is_held_out, words
from tiny.world import PAN_MAX, SCENES, STYLES, TIMES, Landscape, draw, random_landscape


def _landscapes(count: int, **fixed: str) -> list[Landscape]:
    generator = np.random.default_rng(0)
    return [random_landscape(generator, **fixed) for _ in range(count)]


def test_a_landscape_is_drawn_the_same_each_time_and_another_seed_draws_another() -> None:
    one, other = _landscapes(2, scene="city", time="day", weather="clear", style="photo")

    assert np.array_equal(draw(one), draw(one))
    assert not np.array_equal(draw(one), draw(other))


@pytest.mark.parametrize("scene", SCENES)
def test_a_camera_that_pans_sees_the_same_land_shifted(scene: str) -> None:
    (landscape,) = _landscapes(1, scene=scene, style="photo")
    middle, right = draw(landscape), draw(landscape, pan=10)

    assert np.array_equal(middle[:, 10:], right[:, :-10])
    assert not np.array_equal(middle, right)
    with pytest.raises(ValueError, match=r"pan 33 is out of -32\.\.32 pixels"):
        draw(landscape, pan=PAN_MAX + 1)


def test_the_sun_sets_without_a_jump_and_clouds_drift_without_the_land() -> None:
    (landscape,) = _landscapes(1, scene="desert", time="day", weather="cloudy", style="photo")
    hours = [draw(landscape, dusk=dusk).astype(int) for dusk in np.linspace(0, 2, 33)]
    still, drifted = draw(landscape), draw(landscape, drift=6)

    assert max(np.abs(after - before).mean() for before, after in pairwise(hours)) < 12
    assert hours[0].mean() > 2 * hours[-1].mean()
    assert np.array_equal(still[48:], drifted[48:])
    assert not np.array_equal(still[:24], drifted[:24])


def test_what_is_not_of_this_world_is_refused() -> None:
    with pytest.raises(ValueError, match="'moonbase' is not of this world; there are beach"):
        _landscapes(1, scene="moonbase")


def test_a_caption_says_what_is_no_matter_of_course_and_nothing_else() -> None:
    generator = np.random.default_rng(1)
    night = ("night", "dark", "midnight", "moon", "moonlight")
    for landscape in _landscapes(400):
        said = caption(landscape, generator).replace(",", "").split()
        assert any(word in said for word in night) == (landscape.time == "night")
        assert any(word in said for word in ("sketch", "drawing", "drawn")) == (landscape.style == "sketch")


def test_held_out_word_orders_are_not_those_of_training() -> None:
    (landscape,) = _landscapes(1, scene="beach", time="night", weather="winter", style="sketch")
    assert not set(ORDERS) & set(ORDERS_HELD_OUT)

    def said(orders: tuple[str, ...]) -> set[str]:
        return {caption(landscape, np.random.default_rng(seed), orders=orders, is_full=True) for seed in range(300)}

    assert not said(ORDERS) & said(ORDERS_HELD_OUT)


def test_every_part_of_a_held_out_combination_is_trained_in_others() -> None:
    trained = [
        (scene, time, style)
        for scene in SCENES
        for time in TIMES
        for style in STYLES
        if (scene, time, style) not in HELD_OUT
    ]
    for scene, time, style in HELD_OUT:
        assert {(scene, time), (scene, style), (time, style)} <= {
            pair for a, b, c in trained for pair in ((a, b), (a, c), (b, c))
        }
    assert any(is_held_out(landscape) for landscape in _landscapes(100))


@pytest.fixture(scope="module")
def tokens_of() -> Callable[[str], list[str]]:
    from tiny.shapes import tokenizer

    cut: Callable[[str], list[str]] = tokenizer().tokenize
    return cut


def test_a_word_of_the_captions_is_one_token(tokens_of: Callable[[str], list[str]]) -> None:
    assert [word for word in words() if len(tokens_of(word)) != 1] == ["4k"]  # CLIP cuts before and after digits


@pytest.mark.parametrize("text", ["ein Strand bei Nacht", "海辺の夕焼け", "🏖️", "a b c " * 500, "\x00", ""])
def test_any_text_is_cut_without_unknown_tokens(tokens_of: Callable[[str], list[str]], text: str) -> None:
    assert "<|endoftext|>" not in tokens_of(text)
