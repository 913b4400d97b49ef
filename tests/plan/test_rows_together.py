"""Rows that are resolved together come out as each does alone: short cuts for whole batches change no recipe or key."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.resolved import Row, rows_of

from sdbatch.campaign.digests import id_digests
from sdbatch.canonical import are_plain_texts, canonical
from sdbatch.checkpoints import describe
from sdbatch.driver.rows.parts import PART, part_table, with_digests
from sdbatch.job import parse_job
from sdbatch.plan.resolve import ResolvedRows, Resolver
from sdbatch.types import SEED_MAX

TEXTS = [
    "a red fox", "", 'a "quoted" fox', "C:\\fox", "two\nlines\tand a tab", "\x00", "\x1f", "\x7f", "ä fox", "日本語 🦊",
    "100 %s %d %%", '","seed":1,"x":"', "\\u0000", "{}", "a\u2028b",
]  # fmt: skip
SEEDS = [None, 0, 7, 2**53 - 1, 2**53, SEED_MAX, None]
SETTINGS: list[dict[str, Any]] = [
    {},
    {"guidance_scale": 4.5},
    {"height": 64, "width": 128, "num_outputs": 3},
    {"task": "image-to-image", "images": ["in/fox.png"], "strength": 0.5},
    {"seed_group": "g", "scheduler": "DDIMScheduler"},
]
MODELS = {"tiny": {"path": "builtin:tiny-random", "batch_size": 4}}
DEFAULTS = {"task": "text-to-image", "num_inference_steps": 2, "negative_prompt": "blurry"}


def _resolver() -> Resolver:
    job = parse_job({"manifest": "m", "output": "o", "models": MODELS, "defaults": DEFAULTS, "seed": 3})
    models = {name: describe(name, model, {}) for name, model in job.models.items()}
    return Resolver(job, models, lambda _: None, lambda url: url)


def _together(rows: Sequence[Mapping[str, Any]]) -> ResolvedRows:
    names = dict.fromkeys(name for row in rows for name in row)
    columns = {name: [row.get(name) for row in rows] for name in names}
    resolved, problems = _resolver().resolve(columns, len(rows), {"in/fox.png": "sha256:aa"})
    assert problems == []
    return resolved


def _listed(resolved: ResolvedRows) -> list[Row | None]:
    return rows_of(resolved, [], len(resolved.id))


def _mixed() -> list[dict[str, Any]]:
    rows = [
        {
            "prompt": text,
            "negative_prompt": TEXTS[-number % len(TEXTS)] if number % 3 else None,
            **SETTINGS[number % len(SETTINGS)],
        }
        for number, text in enumerate([*TEXTS, *TEXTS])
    ]
    return [{"id": f"row-{n}", "seed": SEEDS[n % len(SEEDS)], **row} for n, row in enumerate(rows)]


def test_the_rows_of_a_mixed_table_have_the_recipes_and_keys_of_each_alone() -> None:
    rows = _mixed()

    together = _listed(_together(rows))

    assert together == [row for one in rows for row in _listed(_together([one]))]
    assert len({row.request_key for row in together if row}) == len(rows)


def test_a_recipe_is_canonical_json_of_what_was_asked_and_its_key_is_its_sha256() -> None:
    rows = _mixed()

    for row, found in zip(rows, _listed(_together(rows)), strict=True):
        assert found is not None
        values = json.loads(found.recipe)
        assert canonical(values) == found.recipe
        assert values["prompt"] == row["prompt"]
        assert row["seed"] is None or int(values["seed"]) == row["seed"]
        assert found.request_key == hashlib.sha256(found.recipe.encode()).hexdigest()


def test_a_part_on_the_disk_holds_what_was_resolved() -> None:
    resolved = _together(_mixed())

    part = part_table(resolved, pa.table({}), id_digests(pa.array(resolved.id)))

    assert part.schema == PART
    assert with_digests(part).equals(part)
    assert part.column("request_key").to_pylist() == [row.request_key for row in _listed(resolved) if row]
    for name, values in resolved._asdict().items():
        if name != "sources":
            assert part.column(name).to_pylist() == values
    told = [[source["url"] for source in of_row] for of_row in part.column("sources").to_pylist()]
    assert told == [[source.url for source in of_row] for of_row in resolved.sources]
    assert any(told)


@given(st.lists(st.text(), max_size=4))
def test_texts_are_plain_exactly_where_json_writes_them_as_they_stand(texts: list[str]) -> None:
    assert are_plain_texts(texts) == all(canonical(text) == f'"{text}"' for text in texts)


@pytest.mark.parametrize("text", ['"', "\\", "\x00", "\x1f", "\n"])
def test_a_text_that_json_escapes_is_not_plain(text: str) -> None:
    assert not are_plain_texts(["a", f"b{text}"])
    assert are_plain_texts(["a", "ä\x7f🦊"])
