"""Named formats: the shipped list, a user's own, and what is said of a wrong one."""

from __future__ import annotations

import re
from datetime import date
from typing import Any

import pytest

from sdbatch.errors import JobError
from sdbatch.named_formats import KINDS, LOOKED_UP, SHIPPED, NamedFormat, format_of, formats_of


def test_the_shipped_list_has_each_kind_and_a_date() -> None:
    assert {one.kind for one in SHIPPED.values()} == set(KINDS) - {"own"}
    assert all(one.is_clip == (one.kind == "video") for one in SHIPPED.values())
    assert date.fromisoformat(LOOKED_UP) <= date(2026, 11, 27)


def test_a_format_named_after_its_size_has_it() -> None:
    sized = {name: size for name in SHIPPED if (size := re.search(r"(\d+)x(\d+)$", name))}

    assert len(sized) > 10
    assert all(
        (SHIPPED[name].width, SHIPPED[name].height) == tuple(map(int, size.groups())) for name, size in sized.items()
    )


def test_a_name_stands_for_the_shipped_format() -> None:
    story = format_of("instagram-story")

    assert (story.width, story.height, story.type) == (1080, 1920, "jpg")


def test_a_mapping_is_a_format_of_ones_own() -> None:
    mail = format_of({"name": "mail", "width": 600, "height": 400, "type": "jpg", "bytes_max": 80_000})

    assert mail == NamedFormat(name="mail", width=600, height=400, type="jpg", bytes_max=80_000)
    assert mail.aspect == 1.5


def test_a_mapping_takes_from_the_shipped_format_what_it_leaves_out() -> None:
    story, renamed = (
        format_of(entry)
        for entry in ({"name": "instagram-story", "type": "webp"}, {"name": "tall", "like": "instagram-story"})
    )

    assert (story.width, story.type) == (1080, "webp")
    assert (renamed.name, renamed.height) == ("tall", 1920)


def test_what_is_for_print_has_its_pixels_an_inch_in_the_types_that_say_them() -> None:
    as_jpg, as_webp = (format_of({"name": "a4-300dpi", "type": suffix}) for suffix in ("jpg", "webp"))

    assert all(one.dpi == (300 if one.kind == "print" else None) for one in SHIPPED.values())
    assert (as_jpg.dpi, as_webp.dpi) == (300, None)


@pytest.mark.parametrize(
    ("entry", "said"),
    [
        ("instagram-stroy", "did you mean instagram-story?"),
        ("zzzz", "known are instagram-post"),
        ({"name": "a", "width": 0, "height": 10, "type": "jpg"}, "width 0 is not a whole number from 1 to 16383"),
        ({"name": "a", "like": "x-post", "dpi": 0}, "dpi 0 is not a whole number from 1 to 10000"),
        ({"name": "a", "like": "x-post", "type": "webp", "dpi": 300}, "type webp does not say it; png and jpg do"),
        ({"name": "a", "width": True, "height": 10, "type": "jpg"}, "width True"),
        ({"name": "a", "width": 10, "height": 10, "type": "gif"}, "type 'gif' is not one of png, jpg"),
        ({"name": "a", "width": 11, "height": 10, "type": "mp4"}, "11 x 10: a clip has an even width"),
        ({"name": "a", "width": 10, "height": 10, "type": "jpg", "bytes_max": 5}, "bytes_max 5"),
        ({"name": "a", "width": 10, "height": 10, "type": "jpg", "fit": "stretch"}, "fit 'stretch' is not one"),
        ({"name": "../a", "width": 10, "height": 10, "type": "jpg"}, "a name has 1 to 64"),
        ({"name": "a", "widht": 10}, "formats: 'a': unknown key 'widht'; did you mean width?"),
        ({"name": "a", "bars": "#00ff00"}, "formats: 'a': bars is not of one format; write it beside `formats`"),
        ({"name": "a", "width": 10}, "needs height, type"),
        ({"width": 10, "height": 10, "type": "jpg"}, "needs name"),
        ({"like": "instagram-story"}, "needs name"),
        (7, "neither the name of a format nor a mapping"),
    ],
)  # fmt: skip
def test_a_wrong_format_is_named_with_the_remedy(entry: Any, said: str) -> None:
    with pytest.raises(JobError, match=re.escape(said)):
        format_of(entry)


@pytest.mark.parametrize("entries", [[], "instagram-story", {"name": "a"}, None])
def test_a_list_is_needed(entries: Any) -> None:
    with pytest.raises(JobError, match="a list of formats is needed"):
        formats_of(entries)


def test_names_that_differ_in_capitals_alone_are_refused() -> None:
    own = {"width": 10, "height": 10, "type": "jpg"}
    with pytest.raises(JobError, match="the name Mail appears more than once"):
        formats_of([{"name": "Mail", **own}, {"name": "mail", **own}])
