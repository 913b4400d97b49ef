"""Which master feeds which format, what is cropped, and what is said of it."""

from __future__ import annotations

from typing import Any

import pytest

from sdbatch.deliver.matching import Master, master_of, matched, out_of_bounds
from sdbatch.deliver.placing import Focus, placed
from sdbatch.errors import JobError
from sdbatch.named_formats import SHIPPED, NamedFormat

STORY, POST, REEL = (SHIPPED[name] for name in ("instagram-story", "x-post", "instagram-reel"))


def _master(request_id: str, width: int = 1024, height: int = 1024, **columns: Any) -> Master:
    row = {"id": request_id, "n": 0, "status": "ok", "asset": f"assets/{request_id}.png", "sha256": "0" * 64}
    row |= {"width": width, "height": height, "media_type": "image/png", "task": "text-to-image", **columns}
    found = master_of(row, Focus())
    assert found is not None
    return found


def _fed(masters: list[Master], *formats: NamedFormat) -> dict[str, str]:
    return {match.format.name: match.master.id for match in matched(masters, formats)[0]}


def test_the_nearest_shape_of_one_subject_feeds_a_format() -> None:
    tall = _master("tall", 768, 1344, x_product="mug", x_shape="9:16")
    wide = _master("wide", 1344, 768, x_product="mug", x_shape="16:9")

    assert _fed([tall, wide], STORY, POST) == {STORY.name: "tall", POST.name: "wide"}


@pytest.mark.parametrize(("n", "replaces"), [(1, 0), (2, 1)])
def test_a_re_roll_feeds_what_the_output_fed_that_it_replaces(n: int, replaces: int) -> None:
    tall = _master("tall", 768, 1344, x_product="mug", x_shape="9:16", n=n, replaces=replaces)
    wide = _master("wide", 1344, 768, x_product="mug", x_shape="16:9")
    matches, _ = matched([tall, wide], [STORY, POST])

    assert [(match.format.name, match.master.id) for match in matches] == [(STORY.name, "tall"), (POST.name, "wide")]


def test_of_several_outputs_the_others_keep_their_place_beside_a_re_roll() -> None:
    tall = [
        _master("tall", 768, 1344, x_product="mug", x_shape="9:16", n=n, replaces=r) for n, r in ((1, None), (3, 0))
    ]
    wide = [_master("wide", 1344, 768, x_product="mug", x_shape="16:9", n=n) for n in (0, 1)]
    matches, _ = matched([*tall, *wide], [STORY, POST])

    assert sorted((match.format.name, match.master.n) for match in matches) == [
        *((STORY.name, n) for n in (1, 3)),
        *((POST.name, n) for n in (0, 1)),
    ]


def test_rows_without_a_shape_each_feed_every_format() -> None:
    matches, _ = matched([_master("a"), _master("b")], [STORY, POST])

    assert {(match.master.id, match.format.name) for match in matches} == {
        (request_id, one.name) for request_id in "ab" for one in (STORY, POST)
    }


def test_subjects_are_told_apart_by_their_own_columns() -> None:
    masters = [_master(name, x_product=name, x_shape="1:1") for name in "ab"]

    assert len(matched(masters, [STORY])[0]) == 2


def test_two_rows_that_could_both_feed_a_format_are_refused() -> None:
    with pytest.raises(JobError, match="a and b are equal in all x_ columns"):
        matched([_master(name, x_product="mug", x_shape="1:1") for name in "ab"], [STORY])


def test_another_shape_does_not_stand_in_for_a_row_that_failed() -> None:
    failed = _master("tall", 768, 1344, n=None, status="failed", asset=None, x_product="mug", x_shape="9:16")
    wide = _master("wide", 1344, 768, x_product="mug", x_shape="16:9")
    matches, missing = matched([failed, wide], [STORY, POST])

    assert [match.format.name for match in matches] == [POST.name]
    assert missing == ["instagram-story: 1 not made, because the row that would feed it is not made: tall"]


def test_clips_feed_clips_and_pictures_feed_pictures() -> None:
    clip = _master("clip", media_type="video/mp4", num_frames=8, fps=8.0)

    assert _fed([clip], STORY, REEL) == {REEL.name: "clip"}
    assert matched([clip], [STORY])[1] == [
        "instagram-story: nothing to deliver; it takes pictures, and the campaign has none"
    ]


@pytest.mark.parametrize(("value", "share"), [(None, 0.5), ("0.25", 0.25), (0, 0.0), (1.0, 1.0)])
def test_a_row_says_its_own_focus(value: Any, share: float) -> None:
    assert _master("a", x_focus_y=value).focus == Focus(x=0.5, y=share)


@pytest.mark.parametrize("value", ["left", 1.2, -0.1, float("nan")])
def test_a_focus_that_is_no_share_is_refused(value: Any) -> None:
    with pytest.raises(JobError, match=r"a: x_focus_x .* is not a share from 0 to 1"):
        _master("a", x_focus_x=value)


def test_a_cover_shows_the_focus_and_says_what_it_crops() -> None:
    top = placed((100, 200), (100, 100), "cover", Focus(x=0.5, y=0.0))
    low = placed((100, 200), (100, 100), "cover", Focus(x=0.5, y=0.6))

    assert (top.box, top.crop, top.enlargement) == ((0, 0, 100, 100), 0.5, 1.0)
    assert low.box == (0, 70, 100, 170)


def test_a_letterbox_shows_all_of_it_in_the_middle() -> None:
    shown = placed((100, 200), (300, 300), "letterbox", Focus(), 2)

    assert (shown.width, shown.height, shown.left, shown.top) == (150, 300, 74, 0)
    assert (shown.crop, shown.enlargement) == (0.0, 1.5)


def test_bounds_name_the_file_and_the_bound() -> None:
    matches, _ = matched([_master("a")], [STORY])

    assert out_of_bounds(matches, None, None) == []
    crop, enlarged = out_of_bounds(matches, 0.15, 1.5)
    assert "a (output 0, instagram-story): 43.8% of the master would be cropped, over crop_max: 0.15" in crop
    assert "enlarged 1.88 times, over enlarge_max: 1.5" in enlarged
