"""What `status` and a resume ask of the store does not grow with the number of past runs."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow as pa
import pytest
from support.history import missing
from support.stores import CountingStore

from sdbatch.campaign import layout
from sdbatch.campaign.campaign import Campaign
from sdbatch.campaign.history import read_history
from sdbatch.campaign.index import RunIndex
from sdbatch.campaign.schema import to_parquet
from sdbatch.campaign.snapshot import is_due, write_snapshot
from sdbatch.campaign.write import put_commit
from sdbatch.driver.predicted.costs import measured_by_runs
from sdbatch.types import Request, Unit

NUM_RUNS = 200
NUM_ROWS = 4


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A season of nightly runs, each with rows of its own, in two units."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sdbatch.storage.local.os.fsync", lambda _: None)
        path = tmp_path_factory.mktemp("season") / "campaign"
        store = CountingStore(str(path))
        for epoch in range(1, NUM_RUNS + 1):
            _nightly_run(store, epoch)
    return path


STATUS = {
    "state": "done",
    "updated_at": "2026-01-01T00:00:00+00:00",
    "rows": 2,
    "rate_per_s": None,
    "eta_s": None,
    "counts": {"rows_ok": 2, "rows_failed": 0, "rows_reused": 0},
}


def _run(epoch: int) -> str:
    return layout.run_id(epoch, "20260101T000000Z")


def _key(epoch: int) -> str:
    return f"{epoch:064x}"


def _nightly_run(store: CountingStore, epoch: int) -> None:
    run = _run(epoch)
    store.put_new(layout.lease(epoch), json.dumps({"epoch": epoch, "host": "elsewhere", "pid": 1}).encode())
    store.put_new(layout.beat(epoch), json.dumps({"state": "released"}).encode())
    ids = [f"night-{epoch}-{number}" for number in range(NUM_ROWS)]
    store.put_new(layout.requests(run, 0), to_parquet(pa.table({"id": ids, "request_key": [_key(epoch)] * NUM_ROWS})))
    index = RunIndex(store, run)
    for number in range(2):
        requests = [_request(request_id, _key(epoch)) for request_id in ids[number::2]]
        rows = [{"id": r.id, "request_key": r.request_key, "n": 0, "status": "ok"} for r in requests]
        unit = Unit(id=f"{number:06d}", model="m", requests=tuple(requests), batch_size=1, cost_tflop=1.0)
        put_commit(store, run, unit.id, rows)
        index.add(unit, ())
    index.write_rest()
    history = read_history(store)
    if is_due(history):
        write_snapshot(store, run, history)
    store.put_new(layout.run_json(run), json.dumps({"state": "done", "rate_tflop_per_s": {"m": 1.0}}).encode())
    store.put(
        layout.status_json(run),
        json.dumps({**STATUS, "run_id": run}).encode(),
    )


def _request(request_id: str, key: str) -> Request:
    values = {"id": request_id, "request_key": key, "recipe": "{}", "outputs": (0,), "sources": (), "model": "m"}
    return Request(**values, batch_key="b", cost_tflop=1.0)  # type: ignore[arg-type]


def test_status_takes_a_listing_and_an_object(folder: Path) -> None:
    store = CountingStore(str(folder))

    assert Campaign(store).status()["run_id"] == _run(NUM_RUNS)
    assert (store.lists, store.gets, store.heads, store.puts) == (1, 1, 0, 0)


def test_status_of_a_run_that_goes_on_looks_at_its_lease_too(folder: Path) -> None:
    store = CountingStore(str(folder))
    path = layout.status_json(_run(NUM_RUNS))
    before = store.read(path)
    store.put(path, json.dumps({**json.loads(before), "state": "running"}).encode())
    store.set_fault(None)
    try:
        assert Campaign(store).status()["state"] == "running"
        assert (store.lists, store.gets, store.heads, store.puts) == (2, 2, 0, 0)
    finally:
        store.put(path, before)


def test_a_resume_reads_few_objects_and_knows_every_run(folder: Path) -> None:
    store = CountingStore(str(folder))
    history = read_history(store, follower=_run(NUM_RUNS + 1))

    assert len(history) == NUM_RUNS * NUM_ROWS
    assert (store.heads, store.puts) == (0, 0)
    assert store.gets <= 10
    assert store.lists <= 10
    for epoch in (1, NUM_RUNS // 2, NUM_RUNS):
        assert missing(store, [f"night-{epoch}-0"], [_key(epoch)], [2]) == [(1,)]


def test_a_plan_reads_few_records_for_its_rates(folder: Path) -> None:
    store = CountingStore(str(folder))

    _, rates = measured_by_runs(store, ["a model of today"])
    assert rates == {"m": 1.0}
    assert (store.lists, store.gets) == (1, 4)
    store.set_fault(None)
    pace = {"model": "known", "device": "CPU", "shape": "s", "tflop": 1.0, "at_s": 1.0, "samples": [[2.0, 9]]}
    newest = layout.run_json(_run(NUM_RUNS))
    before = store.read(newest)
    store.put(newest, json.dumps({"paces": [pace]}).encode())
    store.set_fault(None)
    try:
        paces, _ = measured_by_runs(store, ["known"])
        assert [measured.median_s for measured in paces.by_key.values()] == [2.0]
        assert (store.lists, store.gets) == (1, 1)
    finally:
        store.put(newest, before)


def test_snapshots_are_few_while_a_campaign_grows(folder: Path) -> None:
    assert len(list(folder.glob("runs/*/snapshot.parquet"))) < NUM_RUNS / 4


@pytest.mark.s3
def test_a_listing_of_folders_in_a_bucket_is_one_call(s3_endpoint: str, tmp_path: Path) -> None:
    from sdbatch.storage import open_store

    store = open_store(f"s3://campaigns/folders-{tmp_path.name}", {})
    for run in (_run(1), _run(2)):
        store.put_new(layout.commit(run, "000000"), b"x")
        store.put_new(layout.requests(run, 0), b"x")

    assert list(store.folders(layout.RUNS)) == [_run(1), _run(2)]
