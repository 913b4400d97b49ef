"""Why a row is made or left: what columns say is what a plain reading of the commits says."""

from __future__ import annotations

import hashlib
import random
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest

from sdbatch.campaign import layout
from sdbatch.campaign.campaign import Campaign
from sdbatch.campaign.history import read_history
from sdbatch.campaign.schema import VOID, table, to_parquet
from sdbatch.campaign.snapshot import write_snapshot
from sdbatch.campaign.write import put_commit
from sdbatch.driver.one_run.select import ClassifiedRows, classify
from sdbatch.driver.picking import Selection
from sdbatch.driver.rows.parts import with_digests
from sdbatch.driver.rows.scan import IS_PICKED
from sdbatch.storage import Store, open_store

IDS = tuple(f"row-{number}" for number in range(12))
KEYS = tuple(hashlib.sha256(str(number).encode()).hexdigest() for number in range(2))
ERRORS = (("SourceMissing", False), ("WorkerCrash", True), ("OutOfMemory", None))
SELECTIONS = (
    Selection(),
    Selection(limit=3),
    Selection(only=frozenset(IDS[3:7])),
    Selection(retry_failed=""),
    Selection(retry_failed="SourceMissing", limit=5),
)
Row = dict[str, Any]


def _committed(chance: random.Random, store: Store) -> list[tuple[str, Row]]:
    """Commit what chance says in four runs, the third with a snapshot; return the rows that count, in order."""
    rows: list[tuple[str, Row]] = []
    for epoch in range(1, 5):
        run = layout.run_id(epoch, "20260101T000000Z")
        void = {(chance.choice(IDS), chance.choice(KEYS), chance.choice((None, 0, 1))) for _ in range(2)}
        store.put_new(layout.redo(run), to_parquet(table([dict(zip(VOID.names, v, strict=True)) for v in void], VOID)))
        rows = [(own, row) for own, row in rows if (row["id"], row["request_key"], row["n"]) not in void]
        for unit in range(3):
            made = [_row(chance) for _ in range(3)]
            places = {(row["id"], row["request_key"], row["n"]): row for row in made}
            put_commit(store, run, f"{unit:06d}", places.values())
            rows += [(run, row) for row in places.values()]
        if epoch == 3:
            write_snapshot(store, run, read_history(store))
    return rows


def _row(chance: random.Random) -> Row:
    row: Row = {"id": chance.choice(IDS), "request_key": chance.choice(KEYS)}
    if chance.random() < 0.6:
        return {**row, "n": chance.choice((0, 1, 2, 63, 64, 70)), "status": "ok"}
    error_type, is_retryable = chance.choice(ERRORS)
    failed = {"n": chance.choice((None, 0, 1)), "status": "failed", "error_type": error_type}
    return {**row, **failed, "error_retryable": is_retryable}


def _plainly(rows: list[Row], asked: list[Row], selection: Selection) -> list[tuple[str, tuple[int, ...]]]:
    """Say the same in Python's own words, a row at a time."""
    said = []
    num_made = 0
    for row in asked:
        mine = [r for r in rows if (r["id"], r["request_key"]) == (row["id"], row["request_key"])]
        ok = {r["n"] for r in mine if r["status"] == "ok"}
        failures = [r for r in mine if r["status"] != "ok"]
        outputs = tuple(n for n in range(row["num_outputs"]) if n not in ok)
        reason = "changed" if any(r["id"] == row["id"] for r in rows) else "new"
        if selection.only and row["id"] not in selection.only:
            reason = "unselected"
        elif not outputs:
            reason = "reused"
        elif failures:
            newest = failures[-1]
            retry = selection.retry_failed
            is_wanted = newest["error_retryable"] if retry is None else retry in {"", newest["error_type"]}
            reason = "retry" if is_wanted else "failed"
        elif ok:
            reason = "outputs"
        if reason not in {"unselected", "reused", "failed"}:
            num_made += 1
            if selection.limit is not None and num_made > selection.limit:
                reason = "unselected"
        said.append((reason, () if reason in {"unselected", "reused", "failed"} else outputs))
    return said


def _marked(part: pa.Table, selection: Selection) -> pa.Table:
    """Return a part as a resolved manifest gives it: where rows are left out, it says which are meant."""
    if selection.is_of_all:
        return part
    return part.append_column(IS_PICKED, pc.is_in(part.column("id"), pa.array(sorted(selection.only))))


@pytest.mark.parametrize("seed", range(12))
def test_columns_say_what_a_plain_reading_says(seed: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sdbatch.storage.local.os.fsync", lambda _: None)
    chance = random.Random(seed)
    store = open_store(str(tmp_path / "campaign"), {})
    rows = [row for _, row in _committed(chance, store)]
    asked = [
        {"id": request_id, "request_key": chance.choice(KEYS), "num_outputs": chance.choice((1, 2, 3, 64, 65, 72))}
        for request_id in (*IDS, "never seen")
    ]
    done = Campaign(store).done()
    reasons = set()
    for selection in SELECTIONS:
        parts = [_marked(with_digests(pa.Table.from_pylist(rows)), selection) for rows in (asked[:5], asked[5:])]
        said = [
            pair for part in classify(parts, done, selection) for pair in zip(part.reasons, part.outputs, strict=True)
        ]
        assert said == _plainly(rows, asked, selection)
        pending = [part.pending() for part in classify(parts, done, selection)]
        assert [
            pair for part in pending for pair in zip(part.rows.column("id").to_pylist(), part.outputs, strict=True)
        ] == [(row["id"], outputs) for row, (_, outputs) in zip(asked, said, strict=True) if outputs]
        reasons |= {reason for reason, _ in said}
    assert len(reasons) >= 4


def test_a_replaced_output_stays_with_its_row_among_those_that_are_made() -> None:
    part = ClassifiedRows(
        rows=pa.table({"id": ["a", "b", "c"]}),
        codes=np.zeros(3, np.int8),
        outputs=[(), (1, 2), (3,)],
        is_pending=np.array([False, True, True]),
        failures=Counter(),
        replaces={1: {2: 0}, 2: {3: 1}},
    )
    pending = part.pending()
    assert pending.rows.column("id").to_pylist() == ["b", "c"]
    assert (pending.outputs, pending.replaces) == ([(1, 2), (3,)], {0: {2: 0}, 1: {3: 1}})
