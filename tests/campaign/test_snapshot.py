"""A snapshot stands for every run up to its own: commits that came late count nowhere, and nothing is lost by it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from support.history import missing

from sdbatch.campaign import layout
from sdbatch.campaign.campaign import Campaign
from sdbatch.campaign.gc import collect_garbage
from sdbatch.campaign.history import read_history, read_outcomes
from sdbatch.campaign.lease import acquire
from sdbatch.campaign.schema import VOID, from_parquet, table, to_parquet
from sdbatch.campaign.snapshot import OBJECTS_MAX, RUNS_MAX, is_due, write_snapshot
from sdbatch.campaign.verify import verify_campaign
from sdbatch.campaign.write import put_asset, put_commit
from sdbatch.errors import UserError
from sdbatch.storage import Store, open_store

KEY = "0123456789abcdef" * 4


def _run(epoch: int) -> str:
    return layout.run_id(epoch, "20260101T000000Z")


def _ok(store: Store, request_id: str, n: int = 0) -> dict[str, Any]:
    stored = put_asset(store, layout.asset(request_id, KEY, n, "png"), b"pixels", "image/png", lambda _: True)
    row = {"id": request_id, "request_key": KEY, "n": n, "status": "ok", "asset": stored.path}
    return {**row, "sha256": stored.sha256, "asset_bytes": stored.asset_bytes}


def _failed(request_id: str) -> dict[str, Any]:
    row = {"id": request_id, "request_key": KEY, "n": None, "status": "failed"}
    return {**row, "error_type": "SourceMissing", "error_retryable": False}


def _is_made(store: Store, request_id: str) -> bool:
    return missing(store, [request_id], [KEY], [1]) == [()]


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """Two runs: a is made and b failed, then c is made and all of it told by a snapshot."""
    opened = open_store(str(tmp_path / "campaign"), {})
    put_commit(opened, _run(1), "000000", [_ok(opened, "a"), _failed("b")])
    put_commit(opened, _run(2), "000000", [_ok(opened, "c")])
    write_snapshot(opened, _run(2), read_history(opened))
    return opened


def test_a_snapshot_tells_what_the_commits_told(store: Store) -> None:
    told = read_outcomes(store)
    store.delete(layout.snapshot(_run(2)))

    assert read_outcomes(store) == told
    assert told.num_rows == 3
    assert verify_campaign(store).is_good


def test_a_late_commit_counts_nowhere_and_is_listed(store: Store) -> None:
    put_commit(store, _run(1), "000001", [_ok(store, "late")])
    found = verify_campaign(store)

    assert not _is_made(store, "late")
    assert (found.is_good, found.late) == (True, (layout.commit(_run(1), "000001"),))
    assert found.orphans == (layout.asset("late", KEY, 0, "png"),)
    put_commit(store, _run(3), "000000", [_ok(store, "late")])
    assert _is_made(store, "late")
    assert verify_campaign(store).orphans == ()


def test_what_only_a_late_commit_names_is_collected(store: Store) -> None:
    put_commit(store, _run(1), "000001", [_ok(store, "late")])
    for epoch in (1, 2):
        store.put_new(layout.lease(epoch), b'{"host": "elsewhere"}')
        store.put(layout.beat(epoch), b'{"state": "released"}')
    found = collect_garbage(store, older_than_s=-1.0, delete=True)

    assert found.orphans == (layout.asset("late", KEY, 0, "png"),)
    assert _is_made(store, "a")
    assert verify_campaign(store).is_good


def test_a_redo_after_a_snapshot_voids_what_it_tells(store: Store) -> None:
    store.put_new(layout.redo(_run(3)), to_parquet(table([{"id": "a", "request_key": KEY, "n": 0}], VOID)))
    assert not _is_made(store, "a")
    put_commit(store, _run(3), "000000", [_ok(store, "a")])
    write_snapshot(store, _run(3), read_history(store))

    assert _is_made(store, "a")
    assert read_outcomes(store).num_rows == 3
    assert verify_campaign(store).late == ()  # void is not late


def test_a_commit_that_was_removed_although_a_snapshot_tells_of_it_is_named_for_redo(store: Store) -> None:
    path = layout.commit(_run(1), "000000")
    store.delete(path)
    findings = verify_campaign(store).findings

    assert {(f.kind, f.asset, f.id, f.n) for f in findings} == {("missing", path, "a", 0), ("missing", path, "b", None)}
    assert _is_made(store, "a")  # a resume lists no run that the snapshot tells of
    with pytest.raises(UserError, match="a snapshot tells"):
        collect_garbage(store)


@pytest.mark.parametrize("data", [b"PAR1", b"PAR1 torn PAR1"])
def test_a_torn_snapshot_is_named_and_the_commits_take_its_place(store: Store, data: bytes) -> None:
    told = read_outcomes(store)
    store.put(layout.snapshot(_run(2)), data)

    assert read_outcomes(store) == told
    assert len(read_history(store)) == 3
    assert [(f.kind, f.asset) for f in verify_campaign(store).findings] == [("snapshot", layout.snapshot(_run(2)))]


def test_an_older_snapshot_takes_the_place_of_a_torn_one(store: Store) -> None:
    put_commit(store, _run(3), "000000", [_ok(store, "d")])
    write_snapshot(store, _run(3), read_history(store))
    put_commit(store, _run(1), "000001", [_ok(store, "late")])
    store.put(layout.snapshot(_run(3)), b"torn")

    assert read_history(store).files.snapshot == _run(2)
    assert _is_made(store, "d")
    assert not _is_made(store, "late")


def test_a_snapshot_that_lost_a_row_is_named(store: Store) -> None:
    path = layout.snapshot(_run(2))
    store.put(path, to_parquet(from_parquet(store.read(path)).filter([False, True, True])))

    assert [(f.kind, f.asset) for f in verify_campaign(store).findings if f.kind != "metadata"] == [("snapshot", path)]


def test_who_follows_a_run_keeps_its_snapshot_from_coming_late(store: Store) -> None:
    put_commit(store, _run(3), "000000", [_ok(store, "d")])
    seen_by_3 = read_history(store)
    put_commit(store, _run(3), "000001", [_ok(store, "e")])
    lease = acquire(store)
    lease.release()
    seen_by_4 = read_history(store, follower=_run(4))
    write_snapshot(store, _run(3), seen_by_3)

    assert len(seen_by_4) == len(read_history(store)) == 5
    assert _is_made(store, "e")
    assert verify_campaign(store).is_good
    write_snapshot(store, _run(4), read_history(store))
    assert read_history(store).files.snapshot == _run(4)


def test_a_snapshot_that_was_faster_than_the_follower_is_read_by_it(store: Store) -> None:
    put_commit(store, _run(3), "000000", [_ok(store, "d")])
    seen_by_3 = read_history(store)
    put_new = store.put_new

    def slow(path: str, data: bytes, content_type: str = "", *, syncs: bool = True) -> bool:
        if not data:
            store.put_new = put_new  # type: ignore[method-assign]
            write_snapshot(store, _run(3), seen_by_3)
        return put_new(path, data, content_type)

    store.put_new = slow  # type: ignore[method-assign]

    assert read_history(store, follower=_run(4)).files.snapshot == _run(3)


def test_an_ended_run_is_not_forestalled(store: Store) -> None:
    put_commit(store, _run(3), "000000", [_ok(store, "d")])
    store.put_new(layout.run_json(_run(3)), b"{}")
    read_history(store, follower=_run(4))

    assert layout.snapshot(_run(3)) not in {entry.path for entry in store.list(layout.RUNS)}


def test_a_snapshot_is_due_when_a_tenth_is_new_or_a_resume_reads_much(store: Store) -> None:
    assert not is_due(read_history(store))
    put_commit(store, _run(3), "000000", [_ok(store, f"many-{n}") for n in range(30)])
    assert is_due(read_history(store))
    write_snapshot(store, _run(3), read_history(store))
    assert not is_due(read_history(store))
    put_commit(store, _run(4), "000000", [_ok(store, "one")])
    assert not is_due(read_history(store))
    for unit in range(1, OBJECTS_MAX):
        put_commit(store, _run(4), f"{unit:06d}", [_failed("one")])
    assert is_due(read_history(store))


def test_a_snapshot_is_due_after_many_runs_that_made_nothing(store: Store) -> None:
    for epoch in range(3, 3 + RUNS_MAX):
        assert not is_due(read_history(store))
        store.put_new(layout.run_json(_run(epoch)), b"{}")
    assert is_due(read_history(store))


def test_an_empty_campaign_has_no_snapshot(tmp_path: Path) -> None:
    assert not is_due(read_history(open_store(str(tmp_path), {})))


def test_many_outputs_of_one_request_are_told_apart(store: Store) -> None:
    put_commit(store, _run(3), "000000", [{**_failed("many"), "n": n, "status": "ok"} for n in range(0, 200, 2)])

    assert missing(store, ["many"], [KEY], [200]) == [tuple(range(1, 200, 2))]
    assert missing(store, ["many"], [KEY], [64]) == [tuple(range(1, 64, 2))]
    assert Campaign(store).done().is_empty is False
