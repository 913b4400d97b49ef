"""Orphans go when they are old, never beside a driver, and no late commit brings one back."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any

import pytest
from support.history import missing

from sdbatch.campaign import layout
from sdbatch.campaign.gc import collect_garbage
from sdbatch.campaign.lease import acquire
from sdbatch.campaign.verify import verify_campaign
from sdbatch.campaign.write import put_asset, put_commit
from sdbatch.errors import CampaignHeld, UserError
from sdbatch.storage import Store, open_store

KEY = "0123456789abcdef" * 4
DAY_S = 24 * 3600.0


def _run(epoch: int) -> str:
    return layout.run_id(epoch, "20260101T000000Z")


def _asset(store: Store, request_id: str, n: int = 0, data: bytes = b"pixels") -> dict[str, Any]:
    stored = put_asset(store, layout.asset(request_id, KEY, n, "png"), data, "image/png", lambda _: True)
    row = {"id": request_id, "request_key": KEY, "n": n, "status": "ok", "asset": stored.path}
    return {**row, "sha256": stored.sha256, "asset_bytes": stored.asset_bytes}


def _age(store: Store, *paths: str, days: float = 2.0) -> None:
    """Let files of a local campaign be older than they are."""
    then_s = time.time() - days * DAY_S
    for path in paths:
        os.utime(Path(store.url) / path, (then_s, then_s))


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """A campaign where `made` is committed, and `old` and `young` were left by a killed worker."""
    found = open_store(str(tmp_path / "campaign"), {})
    acquire(found).release()
    put_commit(found, _run(1), "000000", [_asset(found, "made")])
    old = _asset(found, "old")["asset"]
    _asset(found, "young")
    _age(found, old, layout.asset("made", KEY, 0, "png"))
    return found


OLD = layout.asset("old", KEY, 0, "png")


def _assets(store: Store) -> set[str]:
    return {layout.asset_parts(entry.path)[0] for entry in store.list("assets")}  # type: ignore[index]


def test_without_delete_nothing_changes(store: Store) -> None:
    before = {entry.path: store.read(entry.path) for entry in store.list()}
    found = collect_garbage(store)

    assert (found.orphans, found.num_younger, found.is_deleted) == ((OLD,), 1, False)
    assert found.freed_bytes == len(b"pixels")
    assert {entry.path: store.read(entry.path) for entry in store.list()} == before


def test_delete_removes_old_orphans_and_nothing_else(store: Store) -> None:
    found = collect_garbage(store, delete=True)

    assert (found.orphans, found.is_deleted) == ((OLD,), True)
    assert _assets(store) == {"made", "young"}
    assert collect_garbage(store, delete=True).orphans == ()
    assert collect_garbage(store, delete=True, older_than_s=0).num_younger == 0
    assert _assets(store) == {"made"}
    assert verify_campaign(store).is_good


def test_a_commit_that_comes_late_names_nothing_that_is_gone(store: Store) -> None:
    zombie = _asset(store, "old")
    collect_garbage(store, delete=True)
    assert put_commit(store, _run(1), "000001", [zombie])

    assert missing(store, ["old"], [KEY], [1]) == [(0,)]
    assert verify_campaign(store).is_good
    put_commit(store, _run(9), "000000", [_asset(store, "old")])
    assert missing(store, ["old"], [KEY], [1]) == [()]
    assert verify_campaign(store).is_good


def test_a_kill_between_void_and_removal_costs_nothing(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    def killed(path: str) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(store, "delete", killed)
        with pytest.raises(KeyboardInterrupt):
            collect_garbage(store, delete=True)
    assert "old" in _assets(store)
    assert collect_garbage(store, delete=True).orphans == (OLD,)
    assert verify_campaign(store).is_good


def test_a_resume_may_adopt_what_was_made_void_and_not_removed_yet(store: Store) -> None:
    from sdbatch.campaign.gc import _find, _make_void

    lease = acquire(store)
    _make_void(store, lease, _find(store, time.time()).orphans)
    lease.release()
    adopted = _asset(store, "old")
    put_commit(store, _run(lease.holder.epoch + 1), "000000", [adopted])

    assert "old" not in {path.split("/")[1].split("-")[0] for path in collect_garbage(store, delete=True).orphans}
    assert verify_campaign(store).is_good


def test_beside_a_driver_nothing_is_removed_and_its_name_is_said(store: Store) -> None:
    held = acquire(store)
    try:
        with pytest.raises(CampaignHeld, match=f"held by process {os.getpid()}"):
            collect_garbage(store, delete=True, older_than_s=0)
        assert collect_garbage(store).orphans == (OLD,)
    finally:
        held.release()
    assert _assets(store) == {"made", "old", "young"}


def test_an_unreadable_commit_stops_it(store: Store) -> None:
    store.put(layout.commit(_run(1), "000001"), b"PAR1")

    with pytest.raises(UserError, match="not a readable commit"):
        collect_garbage(store, delete=True)
    assert _assets(store) == {"made", "old", "young"}


def test_an_output_that_is_made_under_another_name_is_not_undone(store: Store) -> None:
    other = layout.asset("made", KEY, 0, "webp")
    store.put_new(other, b"left when the job said webp")
    _age(store, other)

    assert other not in collect_garbage(store, delete=True).orphans
    assert missing(store, ["made"], [KEY], [1]) == [()]


def test_a_file_that_is_none_of_ours_stays(store: Store) -> None:
    store.put("assets/notes.txt", b"somebody's")
    _age(store, "assets/notes.txt")

    assert collect_garbage(store, delete=True).orphans == (OLD,)
    assert store.read("assets/notes.txt") == b"somebody's"


def test_halves_of_files_and_old_beats_go_and_the_newest_beat_stays(store: Store) -> None:
    half = Path(store.url) / ".tmp" / "half"
    half.write_bytes(b"of a file")
    acquire(store).release()
    store.put(layout.cancel(1), b"{}")
    _age(store, ".tmp/half", layout.beat(1), layout.cancel(1), layout.beat(2))
    found = collect_garbage(store, delete=True)

    assert found.temporary == (".tmp/half",)
    assert set(found.beats) == {layout.beat(1), layout.cancel(1), layout.beat(2)}
    assert not half.exists()
    assert [json.loads(store.read(layout.lease(epoch)))["epoch"] for epoch in (1, 2, 3)] == [1, 2, 3]
    assert json.loads(store.read(layout.beat(3)))["state"] == "released"


@pytest.mark.s3
def test_in_a_bucket_age_is_told_by_its_own_clock(
    s3_endpoint: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = open_store(f"s3://campaigns/gc-{tmp_path.name}", {})
    put_commit(store, _run(1), "000000", [_asset(store, "made")])
    orphan = _asset(store, "left")["asset"]
    real_s = time.time
    monkeypatch.setattr(time, "time", lambda: real_s() + 30 * DAY_S)

    assert collect_garbage(store, delete=True).orphans == ()
    assert collect_garbage(store, delete=True, older_than_s=0).orphans == (orphan,)
    assert _assets(store) == {"made"}


@pytest.fixture(autouse=True)
def _short_term(monkeypatch: pytest.MonkeyPatch) -> None:
    from sdbatch.campaign import lease

    monkeypatch.setattr(lease, "BEAT_EVERY_S", 0.1)
    monkeypatch.setattr(lease, "TERM_S", 60.0)
