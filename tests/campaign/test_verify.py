"""Damage one thing in a campaign, and verify names it."""

from __future__ import annotations

import io
import json
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from sdbatch.campaign import layout
from sdbatch.campaign.committed import read_committed
from sdbatch.campaign.history import read_outcomes
from sdbatch.campaign.read import read_part
from sdbatch.campaign.schema import COMMIT, INDEX, VOID, from_parquet, table, to_parquet
from sdbatch.campaign.tombstones import put_tombstone, read_tombstones
from sdbatch.campaign.verify import SMALL_BYTES, verify_campaign
from sdbatch.campaign.write import put_asset, put_commit
from sdbatch.driver.compact import write_metadata
from sdbatch.errors import UserError
from sdbatch.storage import Store, open_store

RUN_1, RUN_2 = "r000001-20260101T000000Z", "r000002-20260101T000000Z"
KEYS = {name: name * 64 for name in "abcd"}


def _ok(store: Store, request_id: str, n: int = 0, data: bytes = b"") -> dict[str, Any]:
    key = KEYS[request_id]
    path = layout.asset(request_id, key, n, "png")
    stored = put_asset(store, path, data or f"{request_id}{n}".encode(), "image/png", lambda _: True)
    row = {"id": request_id, "request_key": key, "n": n, "status": "ok", "recipe": "{}", "task": "text-to-image"}
    return {**row, "asset": stored.path, "sha256": stored.sha256, "asset_bytes": stored.asset_bytes}


def _failed(request_id: str, n: int | None = None, error_type: str = "SourceMissing") -> dict[str, Any]:
    return {
        "id": request_id,
        "request_key": KEYS[request_id],
        "n": n,
        "status": "failed",
        "error_type": error_type,
        "error_retryable": False,
    }


def _publish(store: Store, run: str, **num_outputs: int) -> None:
    rows = [{"id": name, "request_key": KEYS[name], "num_outputs": count} for name, count in num_outputs.items()]
    schema = [("id", "string"), ("request_key", "string"), ("num_outputs", "int32")]
    store.put_new(layout.requests(run, 0), to_parquet(table(rows, pa.schema(schema))))


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """A campaign of one run: a and b made, c with two outputs, d failed; an index over the first of two commits."""
    found = open_store(str(tmp_path / "campaign"), {})
    _publish(found, RUN_1, a=1, b=1, c=2, d=1)
    put_commit(found, RUN_1, "000000", [_ok(found, "a"), _ok(found, "b")])
    covered = from_parquet(found.read(layout.commit(RUN_1, "000000"))).to_pylist()
    index = [{**row, "commit": layout.commit(RUN_1, "000000")} for row in covered]
    found.put_new(layout.index(RUN_1, 0), to_parquet(table(index, INDEX)))
    put_commit(found, RUN_1, "000001", [_ok(found, "c"), _ok(found, "c", 1), _failed("d")])
    write_metadata(found, RUN_1)
    found.put(layout.run_json(RUN_1), json.dumps({"state": "failed"}).encode())
    return found


def _kinds(store: Store) -> list[str]:
    return [finding.kind for finding in verify_campaign(store).findings]


def test_a_whole_campaign_agrees(store: Store) -> None:
    found = verify_campaign(store)

    assert (found.is_good, found.rows_ok, found.assets_hashed, found.metadata_rows) == (True, 4, 4, 5)
    assert found.orphans == ()


@pytest.mark.parametrize("path", [layout.commit(RUN_1, "000001"), layout.requests(RUN_1, 0), layout.part(RUN_1, 0)])
def test_one_damaged_bit_in_the_pages_of_a_file_is_found(store: Store, path: str) -> None:
    data = store.read(path)
    pages = len(data) - 8 - int.from_bytes(data[-8:-4], "little")
    whole = read_part(store, path)
    unseen = []
    for place in range(4, pages):
        store.put(path, bytes([*data[:place], data[place] ^ 1 << place % 8, *data[place + 1 :]]))
        with suppress(pa.ArrowException):
            if not read_part(store, path).equals(whole):
                unseen.append(place)

    assert unseen == []


def test_damage_in_a_column_that_nothing_is_compared_with_is_found(store: Store) -> None:
    path = layout.commit(RUN_1, "000001")
    data = store.read(path)
    chunk = pq.ParquetFile(io.BytesIO(data)).metadata.row_group(0).column(COMMIT.get_field_index("recipe"))
    end = chunk.data_page_offset + chunk.total_compressed_size
    store.put(path, bytes([*data[: end - 2], data[end - 2] ^ 1, *data[end - 1 :]]))

    assert "commit" in _kinds(store)


@pytest.mark.parametrize("path", [layout.commit(RUN_1, "000000"), layout.requests(RUN_1, 0)])
def test_one_damaged_bit_in_the_footer_of_a_file_is_refused(store: Store, path: str) -> None:
    data = store.read(path)
    start = len(data) - 8 - int.from_bytes(data[-8:-4], "little")
    for place in range(start, len(data), 23):
        store.put(path, bytes([*data[:place], data[place] ^ 1 << place % 8, *data[place + 1 :]]))
        with pytest.raises((pa.ArrowException, UserError)):
            read_part(store, path)


def test_a_damaged_name_of_a_column_is_not_a_column_that_is_not_there(store: Store) -> None:
    path = layout.commit(RUN_1, "000000")
    data = store.read(path)
    start = len(data) - 8 - int.from_bytes(data[-8:-4], "little")
    store.put(path, data[:start] + data[start:].replace(b"negative_prompt", b"negativf_prompt"))

    assert _kinds(store)[0] == "commit"


def test_rows_that_a_damaged_footer_leaves_out_of_a_takedown_are_not_forgotten(store: Store) -> None:
    put_tombstone(store, RUN_1, [{"id": "a", "request_key": KEYS["a"], "n": n, "asset": ASSET_A} for n in range(3)])
    data = store.read(layout.takedown(RUN_1))
    metadata = pq.ParquetFile(io.BytesIO(data)).metadata
    assert metadata.num_rows == 3
    for place in range(len(data) - metadata.serialized_size - 8, len(data) - 8):
        if data[place] == 6:  # how Parquet writes a 3
            store.put(layout.takedown(RUN_1), bytes([*data[:place], 2, *data[place + 1 :]]))
            with pytest.raises(UserError, match="not a readable record of a takedown"):
                read_tombstones(store)


def test_a_record_that_cannot_be_read_is_found(store: Store) -> None:
    store.put(layout.run_json(RUN_1), b"{")

    assert _kinds(store) == ["record"]


def test_the_status_of_a_killed_run_that_cannot_be_read_is_found(store: Store) -> None:
    store.delete(layout.run_json(RUN_1))
    assert _kinds(store) == []
    store.put(layout.status_json(RUN_1), b'{"run_id": "')

    assert [(one.kind, one.asset) for one in verify_campaign(store).findings] == [("record", layout.status_json(RUN_1))]
    store.put(layout.run_json(RUN_1), json.dumps({"state": "failed"}).encode())
    assert _kinds(store) == []


def _rewrite(store: Store, path: str, change: Callable[[list[dict[str, Any]]], list[dict[str, Any]]]) -> None:
    """Read a Parquet file's rows, change them, and put them back."""
    old = from_parquet(store.read(path))
    store.put(path, to_parquet(table(change(old.to_pylist()), old.schema)))


PART = layout.part(RUN_1, 0)
INDEX_0 = layout.index(RUN_1, 0)
ASSET_A = layout.asset("a", KEYS["a"], 0, "png")
Rows = list[dict[str, Any]]


def _set(column: str, value: Any) -> Callable[[Rows], Rows]:
    return lambda rows: [{**rows[0], column: value}, *rows[1:]]


def _stand_in_the_way(store: Store) -> None:
    put_commit(store, RUN_2, "000000", [_failed("d", 0, "AssetConflict")])
    store.put(layout.asset("d", KEYS["d"], 0, "webp"), b"a stranger's")


DAMAGES: dict[str, tuple[Callable[[Store], object], str, str]] = {
    "a missing asset": (lambda s: s.delete(ASSET_A), "missing", "is not in the store"),
    "a shorter asset": (lambda s: s.put(ASSET_A, b"a"), "damaged", "has 1 bytes, committed were 2"),
    "other bytes": (lambda s: s.put(ASSET_A, b"xx"), "damaged", "has sha256 "),
    "a torn commit": (lambda s: s.put(layout.commit(RUN_1, "000001"), b"PAR1"), "commit", "is not readable"),
    "a torn index": (lambda s: s.put(INDEX_0, b"PAR1"), "index", "is not readable"),
    "an index that forgot a row": (lambda s: _rewrite(s, INDEX_0, lambda rows: rows[1:]), "index", "differ"),
    "an index that made a row up": (
        lambda s: _rewrite(s, INDEX_0, lambda rows: [*rows, {**rows[0], "id": "d"}]),
        "index",
        "differ",
    ),
    "an index with another status": (lambda s: _rewrite(s, INDEX_0, _set("status", "failed")), "index", "differ"),
    "torn metadata": (lambda s: s.put(PART, b"PAR1"), "metadata", "is not readable"),
    "metadata that lost a row": (lambda s: _rewrite(s, PART, lambda rows: rows[1:]), "metadata", "not in metadata/"),
    "metadata with a row twice": (lambda s: _rewrite(s, PART, lambda rows: [*rows, rows[0]]), "metadata", "twice"),
    "metadata with a row made up": (
        lambda s: _rewrite(s, PART, lambda rows: [*rows, {**rows[0], "n": 7}]),
        "metadata",
        "that no commit has",
    ),
    "metadata with another digest": (lambda s: _rewrite(s, PART, _set("sha256", "0" * 64)), "metadata", "in sha256"),
    "metadata with another asset": (lambda s: _rewrite(s, PART, _set("asset", "x.png")), "metadata", "in asset"),
    "metadata with another status": (lambda s: _rewrite(s, PART, _set("status", "failed")), "metadata", "in status"),
    "no latest.json": (lambda s: s.delete(layout.LATEST), "metadata", "is not there, though"),
    "a torn latest.json": (lambda s: s.put(layout.LATEST, b"{"), "metadata", "is not readable"),
    "a latest.json without a run": (lambda s: s.put(layout.LATEST, b"{}"), "metadata", "is not readable"),
    "torn requests": (lambda s: s.put(layout.requests(RUN_1, 0), b"PAR1"), "requests", "is not readable"),
    "a file in an asset's way": (_stand_in_the_way, "damaged", "stands where"),
}


@pytest.mark.parametrize("name", DAMAGES)
def test_one_damage_is_named(store: Store, name: str) -> None:
    damage, kind, detail = DAMAGES[name]
    damage(store)
    findings = verify_campaign(store).findings

    assert any(finding.kind == kind and detail in finding.detail for finding in findings), findings


def test_an_asset_no_commit_names_is_an_orphan_and_harmless(store: Store) -> None:
    store.put("assets/d-dddddddd-0.png", b"left by a killed worker")
    found = verify_campaign(store)

    assert found.is_good
    assert found.orphans == ("assets/d-dddddddd-0.png",)


@pytest.mark.parametrize(("sample", "count"), [(1, 1), (3, 3), (99, 4), (0.5, 2), (0.01, 1), (1.0, 4), (None, 4)])
def test_a_sample_is_so_many_or_that_share(store: Store, sample: float | None, count: int) -> None:
    assert verify_campaign(store, sample).assets_hashed == count


def test_a_sample_finds_what_it_looks_at(store: Store) -> None:
    store.put(ASSET_A, b"xx")
    found = [verify_campaign(store, 1, seed).is_good for seed in range(20)]

    assert set(found) == {True, False}


def test_a_run_that_was_killed_before_its_metadata_agrees(store: Store) -> None:
    _publish(store, RUN_2, a=1, b=1, c=3, d=1)
    put_commit(store, RUN_2, "000000", [_ok(store, "c", 2), _ok(store, "d")])

    assert _kinds(store) == []
    write_metadata(store, RUN_2)
    assert verify_campaign(store).metadata_rows == 6


def test_a_commit_that_was_removed_is_made_again_though_an_index_tells_of_it(store: Store) -> None:
    assert read_outcomes(store).num_rows == 5
    store.delete(layout.commit(RUN_1, "000000"))

    assert read_outcomes(store).column("id").to_pylist() == ["c", "c", "d"]
    assert "index" not in _kinds(store)


def test_a_void_key_may_be_its_first_digits_and_reaches_no_later_run(store: Store) -> None:
    store.put_new(layout.redo(RUN_2), to_parquet(table([{"id": "a", "request_key": "a" * 8, "n": 0}], VOID)))
    assert "a" not in read_outcomes(store).column("id").to_pylist()
    put_commit(store, RUN_2, "000000", [_ok(store, "a")])

    assert (read_outcomes(store).num_rows, read_committed(store, INDEX).every_row.num_rows) == (5, 6)


def test_an_index_that_cannot_be_read_hides_nothing(store: Store) -> None:
    before = read_outcomes(store)
    store.put(INDEX_0, b"PAR1")

    assert read_outcomes(store).column("id").to_pylist() == before.column("id").to_pylist()


@pytest.mark.parametrize(("asset_bytes", "is_here"), [(SMALL_BYTES - 1, True), (SMALL_BYTES, False)])
def test_small_assets_of_a_disk_are_read_by_one_thread(tmp_path: Path, asset_bytes: int, is_here: bool) -> None:
    store = open_store(str(tmp_path), {})
    put_commit(store, RUN_1, "000000", [_ok(store, name, data=name.encode() * asset_bytes) for name in "ab"])
    damaged = layout.asset("b", KEYS["b"], 0, "png")
    store.put(damaged, b"x" * asset_bytes)
    readers: set[threading.Thread] = set()
    read_each = store.read_each

    def seen(paths: Sequence[str]) -> Iterator[bytes | None]:
        readers.add(threading.current_thread())
        return read_each(paths)

    store.read_each = seen  # type: ignore[method-assign]
    report = verify_campaign(store)

    assert (threading.current_thread() in readers) is is_here
    assert [finding.kind for finding in report.findings if finding.asset == damaged] == ["damaged"]
