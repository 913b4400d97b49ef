"""Rows of one key: which keys are shared, and who takes whose output."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pyarrow as pa

from sdbatch.campaign import layout
from sdbatch.campaign.campaign import Campaign
from sdbatch.campaign.origins import Origins
from sdbatch.campaign.schema import INDEX, table, to_parquet
from sdbatch.driver.rows.shared_keys import SharedKeys, Sharing, Takers, leading_words
from sdbatch.storage import open_campaign
from sdbatch.types import Origin, Request


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


class _Counted(Origins):
    """Origins that count the keys they are asked for."""

    num_asked = 0

    def of(self, keys: pa.Array | pa.ChunkedArray) -> dict[int, tuple[Origin, ...]]:
        """See `Origins`."""
        self.num_asked += len(keys)
        return super().of(keys)


def test_what_an_earlier_run_made_is_asked_for_pending_rows_alone(tmp_path: Path) -> None:
    store, run = open_campaign(str(tmp_path), {}), layout.run_id(1, "20260101T000000Z")
    keys = [_key(str(number)) for number in range(100)]
    made = [{"id": f"row-{n}", "request_key": key, "n": 0, "status": "ok", "commit": layout.commit(run, "000000")}
            for n, key in enumerate(keys)]  # fmt: skip
    store.put_new(layout.snapshot(run), to_parquet(table(made, INDEX)))
    store.put_new(layout.run_json(run), b'{"state": "done"}')
    origins = _Counted(Campaign(store).history())
    ids = [f"row-{n}" for n in range(97)] + ["renamed", "new", "more"]
    rows = pa.table({"id": ids, "request_key": [*keys[:97], keys[98], _key("new"), keys[99]]})
    outputs: list[tuple[int, ...]] = [*[()] * 97, (0,), (0,), (0, 1)]

    rendered = Sharing(SharedKeys(np.empty(0, np.uint64)), origins).rendered(rows, outputs)

    assert rendered == [*[()] * 98, (0,), (1,)]
    assert origins.num_asked == 3
