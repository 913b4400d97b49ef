"""Rows of one key: which keys are shared, and who takes whose output."""

from __future__ import annotations

import hashlib

import numpy as np
import pyarrow as pa

from sdbatch.driver.shared_keys import SharedKeys, Takers, leading_words
from sdbatch.types import Request


def _key(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _keys(names: str) -> pa.Array:
    return pa.array([_key(name) for name in names])


def test_a_key_is_shared_when_two_rows_have_it_in_whichever_part() -> None:
    shared = SharedKeys(leading_words(_keys("abca")))

    assert shared.places(_keys("abca")) == [0, 3]
    assert SharedKeys(leading_words(_keys("abc"))).places(_keys("abc")) == []
    assert SharedKeys(np.empty(0, np.uint64)).places(_keys("a")) == []


def test_the_first_pending_row_of_a_key_leads_and_every_output_has_its_takers() -> None:
    takers = Takers()

    assert takers.add("k", "one", (1,)) == (1,)
    assert takers.add("k", "two", (0, 1, 2)) == (0, 2)
    assert takers.add("other", "three", (0,)) == (0,)

    assert takers.leads("k", "one")
    assert not takers.leads("k", "two")
    assert takers.outputs("k") == (0, 1, 2)
    assert takers.takers("k") == (("two",), ("one", "two"), ("two",))
    assert takers.takers("other") == ()


def test_a_request_knows_its_ids_and_counts_its_assets() -> None:
    request = Request("one", "k", "{}", (0, 1, 2), (), "m", "b", 1.0, 0, (("two",), ("one", "two"), ("two",)))
    alone = Request("one", "k", "{}", (0, 1), (), "m", "b", 1.0)

    assert request.ids == ("two", "one")
    assert request.num_assets == 4
    assert (request.takers_of(1), request.outputs_of("one")) == (("one", "two"), (1,))
    assert (alone.ids, alone.num_assets, alone.takers_of(1)) == (("one",), 2, ("one",))
