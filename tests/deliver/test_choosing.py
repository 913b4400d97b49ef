"""What a delivery takes by what people decided: rejected never, a pick alone, approved ones when asked."""

from __future__ import annotations

import re
from typing import Any

import pyarrow as pa
import pytest

from sdbatch.deliver.matching import matched
from sdbatch.deliver.names import Template
from sdbatch.deliver.settings import parse_delivery
from sdbatch.driver.delivery.rows import chosen_rows
from sdbatch.driver.picking import Selection
from sdbatch.errors import JobError
from sdbatch.named_formats import formats_of

VERDICTS: dict[str, list[str | None]] = {
    "free": [None],
    "good": ["approved", None],
    "best": ["approved", "picked", None],
    "bad": ["rejected"],
    "torn": ["picked", "picked", "approved"],
}
ROWS = [{"id": name, "n": n, "verdict": v} for name, verdicts in VERDICTS.items() for n, v in enumerate(verdicts)]


def _parts(rows: list[dict[str, Any]]) -> pa.Table:
    made = {"status": "ok", "request_key": "0" * 64, "sha256": "1", "media_type": "image/png", "task": "text-to-image"}
    size = {"width": 64, "height": 64}
    return pa.Table.from_pylist([{**made, **size, "asset": f"assets/{row['id']}-{row['n']}", **row} for row in rows])


def _chosen(rows: list[dict[str, Any]], selection: Selection | None = None, **changes: Any) -> Any:
    formats = [{"name": "square", "width": 32, "height": 32, "type": "png"}]
    delivery = parse_delivery({"delivery": "d", "campaign": "c", "to": "t", "formats": formats, **changes})
    return chosen_rows(delivery, [_parts(rows)], Template("{id}-{n}.{ext}"), selection or Selection())


def test_what_was_left_out_is_counted_by_its_reason_and_two_picks_are_listed() -> None:
    chosen = _chosen(ROWS, only="approved", where="verdict != 'rejected'")

    assert [master.asset for master in chosen.masters if master.asset] == ["assets/good-0", "assets/best-1"]
    assert chosen.left_out == {
        "where": 1,
        "not approved": 2,
        "another is picked": 2,
        "two picks": 3,
    }
    assert chosen.warnings == ["torn: outputs 0, 1 are all picked; one of a row can be, so none of it is taken"]


def test_a_pick_that_where_leaves_out_keeps_its_siblings_back() -> None:
    chosen = _chosen(ROWS, where="n != 1 and id == 'best'")

    assert [master.asset for master in chosen.masters if master.asset] == []
    assert chosen.left_out == {"where": 8, "another is picked": 2}


def test_a_re_roll_is_chosen_with_what_it_stands_for() -> None:
    tall, wide = {"id": "a", "n": 1, "replaces": 0, "x_shape": "9:16"}, {"id": "b", "n": 0, "x_shape": "2:1"}
    both = {"verdict": None, "x_product": "mug"}
    masters = _chosen([{"replaces": None, **both, **row} for row in (tall, wide)]).masters
    matches, _ = matched(masters, formats_of([{"name": "square", "width": 32, "height": 32, "type": "png"}]))

    assert len(matches) == 1


def test_a_selection_keeps_the_masters_that_feed_other_files() -> None:
    chosen = _chosen(ROWS, Selection(only=frozenset({"good"})))

    assert len([master for master in chosen.masters if master.asset]) == 4
    assert chosen.unpicked >= {"assets/free-0", "assets/best-1"}
    assert chosen.left_out["selection"] == 2


def test_no_other_shape_stands_in_for_one_that_is_not_approved() -> None:
    from sdbatch.deliver.matching import matched
    from sdbatch.named_formats import formats_of

    shapes = [
        {"id": "mug-tall", "n": 0, "verdict": None, "x_product": "mug", "x_shape": "9x16", "width": 36, "height": 64},
        {"id": "mug-square", "n": 0, "verdict": "approved", "x_product": "mug", "x_shape": "1x1"},
    ]
    chosen = _chosen(shapes, only="approved")
    story = formats_of([{"name": "story", "width": 36, "height": 64, "type": "png"}])

    matches, warnings = matched(chosen.masters, story)
    assert matches == []
    assert warnings == ["story: 1 not made, because the row that would feed it is not approved: mug-tall"]


def test_a_place_that_nothing_fills_in_is_refused() -> None:
    for to in ("~/files", "files/{x_locale}", "s3:/bucket/files"):
        with pytest.raises(JobError, match=f"delivery: to: '{re.escape(to)}': "):
            parse_delivery({"delivery": "d", "campaign": "c", "to": to, "formats": ["x-post"]})
