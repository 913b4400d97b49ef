"""A store behind a bad line: what is lost on the way is asked for again, within bounds, and never counted twice."""

from __future__ import annotations

import random
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fsspec
import pytest
from conftest import prompts
from support.proxy import HANG_S, Fault, FaultyProxy, faulty_proxy, first

import sdbatch
from sdbatch.campaign import lease
from sdbatch.campaign.history import read_outcomes
from sdbatch.campaign.lease import acquire
from sdbatch.campaign.write import put_commit
from sdbatch.errors import StoreRefused, StoreUnavailable
from sdbatch.extras import lacking
from sdbatch.job import Storage
from sdbatch.storage import Location, ObjectStore, Store, objects, open_store, retries

RUN = "r000001-20260101T000000Z"
pytestmark = pytest.mark.s3


@pytest.fixture(autouse=True)
def _short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retries, "BACKOFF_FIRST_S", 0.01)
    monkeypatch.setattr(retries, "BACKOFF_MAX_S", 0.05)


@pytest.fixture
def proxy(s3_endpoint: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[FaultyProxy]:
    with faulty_proxy(s3_endpoint) as found:
        monkeypatch.setenv("AWS_ENDPOINT_URL", found.endpoint)
        yield found


@pytest.fixture
def store(proxy: FaultyProxy, tmp_path: Path) -> Store:
    return open_store(f"s3://campaigns/{tmp_path.parent.name}-{tmp_path.name}", {})


@pytest.mark.parametrize("fault", ["drop", "lose reply", 429, 500, 503])
def test_a_write_arrives_whatever_the_first_tries_met(proxy: FaultyProxy, store: Store, fault: Fault) -> None:
    proxy.rule = first(3, fault, "PUT", "/a")
    store.put("a", b"whole")

    assert proxy.faults() == [fault] * 3
    assert store.read("a") == b"whole"


@pytest.mark.parametrize("fault", ["drop", "half a body", 503])
def test_a_read_is_whole_whatever_the_first_tries_met(proxy: FaultyProxy, store: Store, fault: Fault) -> None:
    data = bytes(range(256)) * 1000
    store.put("a", data)
    proxy.rule = first(3, fault, "GET", "/a")

    assert store.read("a") == data
    assert proxy.faults() == [fault] * 3
    proxy.rule = first(1, fault, "GET", "/a")
    with store.open("a") as handle:
        handle.seek(1000)
        assert handle.read(3) == data[1000:1003]


def test_a_listing_is_whole_though_it_was_throttled(proxy: FaultyProxy, store: Store) -> None:
    store.put("runs/a", b"1")
    proxy.rule = first(4, 503, "GET", "list-type=2")

    assert [entry.path for entry in store.list("runs")] == ["runs/a"]
    assert len(proxy.faults()) == 4


def test_a_commit_whose_reply_was_lost_is_ours_and_one_that_came_late_is_not(proxy: FaultyProxy, store: Store) -> None:
    row = {"id": "a", "request_key": "k", "n": 0, "status": "ok"}
    proxy.rule = first(1, "lose reply", "PUT", "/commits/000000")

    assert put_commit(store, RUN, "000000", [row])
    assert proxy.faults() == ["lose reply"]
    assert not put_commit(store, RUN, "000000", [row])
    proxy.rule = first(1, "lose reply", "PUT", "/commits/000000")
    assert not put_commit(store, RUN, "000000", [row])
    assert read_outcomes(store).num_rows == 1


def test_a_lease_whose_replies_were_lost_is_held(proxy: FaultyProxy, store: Store) -> None:
    proxy.rule = first(lease.RACERS, "lose reply", "PUT", "/lease/000001.json")
    held = acquire(store)
    held.release()

    assert held.holder.epoch == 1


def test_a_store_that_stays_away_is_given_up_within_its_bound(
    proxy: FaultyProxy, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retries, "ATTEMPTS_MAX", 3)
    proxy.rule = lambda *_: "drop"

    with pytest.raises(StoreUnavailable, match=rf"{store.url}/a: 3 tries in \d+ s failed, the last with \w+"):
        store.put("a", b"1")


def test_a_store_that_answers_nothing_is_given_up_within_its_bound(
    proxy: FaultyProxy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(objects, "READ_TIMEOUT_S", 0.2)
    monkeypatch.setattr(retries, "WAIT_MAX_S", 0.1)
    store = open_store(f"s3://campaigns/{tmp_path.name}", {})
    proxy.rule = lambda *_: "hang"
    started_s = time.monotonic()

    with pytest.raises(StoreUnavailable, match="1 tries"):
        store.put("a", b"1")
    assert time.monotonic() - started_s < HANG_S


def test_a_store_without_conditional_writes_is_refused_plainly(proxy: FaultyProxy, store: Store) -> None:
    proxy.rule = first(1, 501, "PUT", "/lease/")

    with pytest.raises(StoreRefused, match=r"s3://.*: the store has no put-if-absent, .* answers NotImplemented"):
        acquire(store)


def test_a_store_that_ignores_the_condition_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = fsspec.filesystem("file", auto_mkdir=True)
    write = files.pipe_file
    monkeypatch.setattr(files, "pipe_file", lambda path, data, **_: write(path, data))
    monkeypatch.setattr(objects, "filesystem", lambda *_: files)

    with pytest.raises(StoreRefused, match="several writers of one new file won"):
        acquire(ObjectStore(Location(scheme="file", path=str(tmp_path)), Storage()))


def test_a_store_that_looks_first_and_writes_then_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = fsspec.filesystem("file", auto_mkdir=True)  # its mode="create" is os.path.exists, then open
    exists = files.exists

    def slowly(path: str) -> Any:
        found = exists(path)
        time.sleep(0.05)  # what a network adds between the two
        return found

    monkeypatch.setattr(files, "exists", slowly)
    monkeypatch.setattr(objects, "filesystem", lambda *_: files)

    with pytest.raises(StoreRefused, match="several writers of one new file won"):
        acquire(ObjectStore(Location(scheme="file", path=str(tmp_path)), Storage()))


@pytest.mark.parametrize(("url", "said"), [("gs://bucket/x", "gcs"), ("az://bucket/x", "azure")])
def test_a_store_whose_package_is_not_there_names_it(url: str, said: str) -> None:
    if missing := lacking(said):
        with pytest.raises(StoreRefused, match=rf"{url}: .* a package that is missing: .*'sdbatch\[{said}\]'"):
            open_store(url, {})
        assert "not installed here" in missing


def test_a_campaign_on_a_bad_line_is_whole_and_nothing_is_made_twice(
    proxy: FaultyProxy, store: Store, write_manifest: Any, job_of: Any
) -> None:
    chance = random.Random(7)

    def rule(method: str, path: str) -> Fault | None:
        kinds: tuple[Fault, ...] = ("drop", "lose reply", 503)
        return None if "/lease/" in path or chance.random() > 0.15 else chance.choice(kinds)

    job = job_of(write_manifest(prompts(4)), store.url)
    proxy.rule = rule
    result = sdbatch.run(job, in_process=True)
    met = set(proxy.faults())
    proxy.rule = lambda *_: None
    rows = sdbatch.metadata(store.url).to_pylist()

    assert met == {"drop", "lose reply", 503}
    assert (result.state, result.counts["rows_generated"], len(rows)) == ("done", 4, 4)
    assert sdbatch.verify(store.url).is_good
    assert sdbatch.verify(store.url).orphans == ()
    assert sdbatch.run(job, in_process=True).counts["model_calls"] == 0
