"""Seeds that follow from names are the same whether they are made together or alone."""

from __future__ import annotations

import hashlib

import pytest

from sdbatch.plan.seeds import derived_seeds, row_seeds


def _alone(root: int, name: str) -> int:
    return int.from_bytes(hashlib.sha256(f"{root}:{name}".encode()).digest()[:8]) >> 11


@pytest.mark.parametrize("names", [[], ["one"], ["one", "two"], ["a line\nbreak", "two"], ["\n", "ö"]])
def test_seeds_that_are_made_together_are_those_of_each(names: list[str]) -> None:
    assert derived_seeds(7, names) == [_alone(7, name) for name in names]


def test_a_rows_own_seed_and_its_group_come_before_its_id() -> None:
    ids = ["one", "two", "three"]

    assert row_seeds(7, ids, [None, 5, None], ["g", None, None]) == [_alone(7, "g"), 5, _alone(7, "three")]
    assert row_seeds(7, ids, [None] * 3, [None] * 3) == [_alone(7, name) for name in ids]
