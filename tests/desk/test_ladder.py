"""The shapes that formats are made from."""

from __future__ import annotations

from typing import Any

import pytest

from sdbatch.desk.form import BriefRefused, Form, parse_form
from sdbatch.desk.ladder import RUNGS, Sizes, feeds, shape_axis, size_of
from sdbatch.families import FAMILIES
from sdbatch.named_formats import SHIPPED

SDXL = Sizes(
    family=next(one for one in FAMILIES.values() if one.title == "Stable Diffusion XL"), width=1024, height=1024
)


def _form(formats: list[Any], **more: Any) -> Form:
    axes, rows = {"a": {"values": ["x"]}}, [{"for": ["a"]}]
    return parse_form({"brief": "b", "axes": axes, "rows": rows, "columns": {}, "formats": formats, **more})


def test_every_rung_has_one_legal_size_near_its_shape() -> None:
    sizes = {rung: size_of(rung, SDXL) for rung in RUNGS}

    assert sizes[1, 1] == (1024, 1024)
    for (wide, high), (width, height) in sizes.items():
        assert width % 8 == height % 8 == 0
        assert abs(width / height / (wide / high) - 1) < 0.005
        assert abs(width * height / 1024**2 - 1) < 0.03
    assert len(set(sizes.values())) == len(RUNGS)


def test_a_family_of_few_sizes_gives_a_rung_the_one_nearest_in_shape() -> None:
    family = FAMILIES["Kandinsky 5 T2I"]
    sizes = {rung: size_of(rung, Sizes(family=family, width=1024, height=1024)) for rung in RUNGS}

    assert {(height, width) for width, height in sizes.values()} == set(family.sizes)
    assert sizes[1, 1] == (1024, 1024)
    assert sizes[9, 16] == (768, 1280)
    assert sizes[2, 1] == (1408, 640)


def test_a_format_more_moves_no_other() -> None:
    names = [name for name, one in SHIPPED.items() if one.kind == "social"]
    alone = {name: feeds(_form([name]), SDXL, "brief")[0] for name in names}

    assert feeds(_form(names), SDXL, "brief") == list(alone.values())
    axis = shape_axis(list(alone.values()))
    assert axis is not None
    assert axis.keys == [key for key in (f"{w}x{h}" for w, h in RUNGS) if key in {one.shape for one in alone.values()}]
    assert axis.columns["width"][axis.keys.index("9x16")] == alone["instagram-story"].width


@pytest.mark.parametrize(
    ("formats", "more", "said"),
    [
        (["display-160x600"], {}, "display-160x600 (160 x 600): 47% of the 1x2 master would be cut off, over crop_max"),
        (["a4-300dpi"], {}, "would be enlarged 2.98 times, over enlarge_max = 1.5"),
        (["instagram-stroy"], {}, "did you mean instagram-story?"),
        ([{"name": "mail", "width": 600}], {}, "needs height, type"),
        (["instagram-story"], {"enlarge_max": 1.2}, "over enlarge_max = 1.2; raise the bound, or take a larger model"),
    ],
)
def test_a_format_out_of_bounds_is_refused(formats: list[Any], more: dict[str, Any], said: str) -> None:
    with pytest.raises(Exception, match="formats") as caught:
        feeds(_form(formats, **more), SDXL, "brief")

    assert said in str(caught.value)


def test_bars_cut_nothing_off() -> None:
    (fed,) = feeds(_form([{"name": "display-728x90", "fit": "letterbox"}]), SDXL, "brief")

    assert (fed.shape, fed.crop) == ("2x1", 0.0)
    with pytest.raises(BriefRefused, match="cut off"):
        feeds(_form(["display-728x90"]), SDXL, "brief")
    (fed,) = feeds(_form(["display-728x90"], crop_max=0.9), None, "brief")
    assert (fed.width, fed.enlarged) == (0, None)
