"""Assets, then one conditional write."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from support.history import missing

from sdbatch.campaign import layout
from sdbatch.campaign.effective import winners
from sdbatch.campaign.history import read_history, read_outcomes
from sdbatch.campaign.schema import VOID, from_parquet, table, to_parquet
from sdbatch.campaign.write import put_asset, put_commit
from sdbatch.errors import AssetConflict
from sdbatch.storage import open_store

RUN_1, RUN_2 = "r000001-20260101T000000Z", "r000002-20260101T000000Z"


def _row(request_id: str, key: str = "k", n: int | None = 0, status: str = "ok", **more: Any) -> dict[str, Any]:
    return {"id": request_id, "request_key": key, "n": n, "status": status, **more}


def test_an_asset_is_never_overwritten_and_the_stored_one_is_recorded(campaign_url: str) -> None:
    store = open_store(campaign_url, {})
    first = put_asset(store, "assets/a.png", b"from here", "image/png", lambda _: True)
    second = put_asset(store, "assets/a.png", b"from a zombie", "image/png", lambda _: True)

    assert (first.adopted, second.adopted) == (False, True)
    assert first.sha256 == second.sha256
    assert second.asset_bytes == len(b"from here")


def test_a_stored_asset_of_another_request_is_not_adopted(campaign_url: str) -> None:
    store = open_store(campaign_url, {})
    store.put_new("assets/a.png", b"half")

    with pytest.raises(AssetConflict, match="sdbatch redo"):
        put_asset(store, "assets/a.png", b"whole", "image/png", lambda _: False)


def test_of_two_commits_of_a_unit_the_first_stands(campaign_url: str) -> None:
    store = open_store(campaign_url, {})

    assert put_commit(store, RUN_1, "000000", [_row("a", worker="w0")])
    assert not put_commit(store, RUN_1, "000000", [_row("a", worker="w1")])
    assert from_parquet(store.read(layout.commit(RUN_1, "000000"))).column("worker").to_pylist() == ["w0"]


def test_a_commit_appears_when_its_assets_survive_a_power_cut(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Told by the order of the system's own calls: every file before its name, the names before the commit's."""
    done: list[tuple[str, int]] = []
    fsync, link = os.fsync, os.link

    def seen_fsync(file: int) -> None:
        fsync(file)
        done.append(("on the disk", os.fstat(file).st_ino))

    def seen_link(source: str, name: str, *, src_dir_fd: int, **more: Any) -> None:
        done.append((f"named {name}", os.stat(source, dir_fd=src_dir_fd).st_ino))
        link(source, name, src_dir_fd=src_dir_fd, **more)

    monkeypatch.setattr(os, "fsync", seen_fsync)
    monkeypatch.setattr(os, "link", seen_link)
    store = open_store(str(tmp_path), {})
    paths = [layout.asset(row_id, "0" * 64, 0, "png") for row_id in "ab"]
    for path in paths:
        put_asset(store, path, path.encode(), "image/png", lambda _: False)
    named = len(done)
    put_commit(store, RUN_1, "000000", [_row("a", asset=paths[0]), _row("b", asset=paths[1])])

    files = [(tmp_path / path).stat().st_ino for path in paths]
    folder = (tmp_path / layout.ASSETS).stat().st_ino
    commit = (tmp_path / layout.commit(RUN_1, "000000")).stat().st_ino
    per_file = [
        [("on the disk", file), (f"named {Path(path).name}", file)] for path, file in zip(paths, files, strict=True)
    ]
    assert done[:named] == [step for steps in per_file for step in steps]
    assert done[named:-1] == [("on the disk", folder), ("on the disk", commit), ("named 000000.parquet", commit)]


def test_a_commit_without_assets_waits_for_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = open_store(str(tmp_path), {})
    synced: list[str] = []
    monkeypatch.setattr(store, "sync", synced.append)

    put_commit(store, RUN_1, "000000", [_row("a", status="failed", error_type="X")])
    assert not synced
    put_commit(store, RUN_1, "000001", [_row("b", asset=layout.asset("b", "0" * 64, 0, "png"))])
    assert synced == [layout.ASSETS]


def test_a_lost_reply_is_not_a_lost_race(campaign_url: str) -> None:
    store = open_store(campaign_url, {})
    put_new = store.put_new

    def reply_lost(path: str, data: bytes, content_type: str = "", *, syncs: bool = True) -> bool:
        put_new(path, data, content_type)
        return put_new(path, data, content_type)  # what a client's own retry sees

    store.put_new = reply_lost  # type: ignore[method-assign]

    assert put_commit(store, RUN_1, "000000", [_row("a")])


def test_what_is_done_follows_from_commits_and_indexes_alike(campaign_url: str) -> None:
    store = open_store(campaign_url, {})
    put_commit(store, RUN_1, "000000", [_row("a"), _row("a", n=1), _row("b", status="failed", error_type="X")])
    put_commit(store, RUN_2, "000000", [_row("c"), _row("a", key="other", error_retryable=None)])
    loose = read_outcomes(store)
    indexed_rows = [
        {**row, "commit": layout.commit(RUN_1, "000000")}
        for row in from_parquet(store.read(layout.commit(RUN_1, "000000"))).to_pylist()
    ]
    from sdbatch.campaign.schema import INDEX

    store.put_new(layout.index(RUN_1, 0), to_parquet(table(indexed_rows, INDEX)))

    assert read_outcomes(store) == loose
    assert missing(store, ["a"], ["k"], [3]) == [(2,)]
    assert missing(store, ["a"], ["other"], [1]) == [()]
    assert missing(store, ["b"], ["k"], [1]) == [(0,)]
    assert [failure.error_type for failure in read_history(store).failures] == ["X"]


def test_ok_counts_over_failed_and_then_the_earliest_commit(campaign_url: str) -> None:
    store = open_store(campaign_url, {})
    put_commit(store, RUN_1, "000000", [_row("a", status="failed"), _row("b"), _row("c", n=None, status="failed")])
    put_commit(store, RUN_2, "000000", [_row("a"), _row("b"), _row("c")])
    winning = winners(read_outcomes(store))
    won = dict(zip(winning.column("id").to_pylist(), winning.column("commit").to_pylist(), strict=True))

    assert won == {
        "a": layout.commit(RUN_2, "000000"),
        "b": layout.commit(RUN_1, "000000"),
        "c": layout.commit(RUN_2, "000000"),
    }


def test_a_redo_makes_earlier_commits_void_and_no_others(campaign_url: str) -> None:
    store = open_store(campaign_url, {})
    put_commit(store, RUN_1, "000000", [_row("a"), _row("a", n=1), _row("b")])
    store.put_new(layout.redo(RUN_2), to_parquet(table([_row("a", n=1)], VOID)))
    assert missing(store, ["a"], ["k"], [2]) == [(1,)]
    put_commit(store, RUN_2, "000000", [_row("a", n=1)])

    assert missing(store, ["a"], ["k"], [2]) == [()]
