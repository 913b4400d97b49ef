"""What both stores promise, and what a URL may be."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from sdbatch.errors import SourceMissing, SourceTooLarge, StoreRefused, UserError
from sdbatch.fetch.sources import digest_sources, read_source
from sdbatch.job import STORAGE_OPTIONS, Storage, options_for
from sdbatch.storage import AllowList, open_store, parse_url
from sdbatch.storage.digests import sha256_files
from sdbatch.storage.locations import PACKAGES
from sdbatch.storage.objects import _ARGUMENTS


def test_of_many_writers_of_one_path_exactly_one_wins(campaign_url: str) -> None:
    stores = [open_store(campaign_url, {}) for _ in range(4)]
    barrier = threading.Barrier(4)

    def race(number: int) -> list[bool]:
        barrier.wait()
        return [stores[number].put_new(f"assets/{key}", f"{number}".encode() * 1000) for key in range(25)]

    with ThreadPoolExecutor(4) as pool:
        wins = list(pool.map(race, range(4)))

    assert [sum(won[key] for won in wins) for key in range(25)] == [1] * 25
    for key in range(25):
        winner = next(number for number in range(4) if wins[number][key])
        assert stores[0].read(f"assets/{key}") == f"{winner}".encode() * 1000


def test_put_new_leaves_what_is_there(campaign_url: str) -> None:
    store = open_store(campaign_url, {})

    assert store.put_new("a/b.txt", b"first")
    assert not store.put_new("a/b.txt", b"second")
    assert store.read("a/b.txt") == b"first"


def test_put_replaces(campaign_url: str) -> None:
    store = open_store(campaign_url, {})
    store.put("status.json", b"1")
    store.put("status.json", b"22")

    assert store.read("status.json") == b"22"


def test_list_gives_every_file_below_a_folder_and_nothing_beside_it(campaign_url: str) -> None:
    store = open_store(campaign_url, {})
    for path in ("runs/b/1", "runs/a/2", "runs/3", "runs-not/4", "other"):
        store.put(path, b"xy")

    assert [entry.path for entry in store.list("runs")] == ["runs/3", "runs/a/2", "runs/b/1"]
    assert [entry.path for entry in store.list("runs", deep=False)] == ["runs/3"]
    assert list(store.folders("runs")) == ["a", "b"]
    assert list(store.folders("nowhere")) == list(store.folders("runs/a")) == []
    assert {entry.size_bytes for entry in store.list("runs")} == {2}
    assert store.list("absent") == []


def test_reading_what_is_not_there_says_so(campaign_url: str) -> None:
    store = open_store(campaign_url, {})

    with pytest.raises(FileNotFoundError):
        store.read("nothing")
    with pytest.raises(FileNotFoundError):
        store.stat("nothing")
    store.delete("nothing")


def test_files_are_read_one_after_the_other_and_what_is_not_there_is_none(campaign_url: str) -> None:
    store = open_store(campaign_url, {})
    for path in ("assets/a.png", "assets/deep/b.png", "assets/c.png", "one"):
        store.put(path, path.encode())

    paths = ["assets/c.png", "assets/a.png", "assets/gone.png", "one", "none/x", "assets/deep/b.png", "assets/c.png"]

    expected = [b"assets/c.png", b"assets/a.png", None, b"one", None, b"assets/deep/b.png", b"assets/c.png"]
    assert list(store.read_each(paths)) == expected
    assert list(store.read_each([])) == []
    with pytest.raises(StoreRefused, match="leads out of it"):
        list(store.read_each(["assets/a.png", "assets/../../c.png"]))


def test_an_opened_file_can_be_read_at_random_places(campaign_url: str) -> None:
    store = open_store(campaign_url, {})
    store.put("data", bytes(range(100)))

    with store.open("data") as handle:
        handle.seek(50)
        assert handle.read(3) == bytes([50, 51, 52])


def test_a_killed_writer_leaves_nothing_that_can_be_listed(tmp_path: Path) -> None:
    script = (
        "import os, sdbatch.storage as s; os.link = lambda *a, **k: os._exit(9);"
        f"s.open_store({str(tmp_path / 'c')!r}, {{}}).put_new('assets/x', b'0' * 10_000_000)"
    )

    assert subprocess.run([sys.executable, "-c", script]).returncode == 9
    assert open_store(str(tmp_path / "c"), {}).list() == []


@pytest.mark.s3
def test_wrong_credentials_are_refused_in_one_line(s3_endpoint: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong")

    with pytest.raises(StoreRefused, match="credentials") as caught:
        open_store("s3://campaigns/x", {}).list("runs")
    assert "\n" not in str(caught.value)


@pytest.mark.s3
def test_a_bucket_we_have_no_rights_in_is_named(s3_endpoint: str) -> None:
    with pytest.raises(StoreRefused, match="s3://no-such-bucket"):
        open_store("s3://no-such-bucket/x", {}).put_new("a", b"1")


@pytest.mark.s3
def test_storage_options_follow_the_longest_prefix(s3_endpoint: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AWS_ENDPOINT_URL")
    storage = {
        "s3://campaigns/": Storage(endpoint_url="http://127.0.0.1:9"),
        "s3://campaigns/longest/": Storage(endpoint_url=s3_endpoint),
    }
    store = open_store("s3://campaigns/longest/x", storage)

    assert store.put_new("a", b"1")


@pytest.mark.fault("F15", "a storage prefix s3://out beside s3://outputs/", "prefixes match at / alone")
def test_a_prefix_ends_at_a_slash() -> None:
    storage = {
        "s3://brand-assets": Storage(profile="brand"),
        "s3://brand-assets/raw/": Storage(profile="raw"),
        "s3://other": Storage(profile="other"),
    }
    profiles = {
        "s3://brand-assets": "brand",
        "s3://brand-assets/a.png": "brand",
        "s3://brand-assets/raw": "raw",
        "s3://brand-assets/raw/a.png": "raw",
        "s3://brand-assets/rawer/a.png": "brand",
        "s3://brand-assets-private/a.png": None,
        "s3://othe": None,
    }

    assert {url: options_for(url, storage).profile for url in profiles} == profiles


@pytest.mark.parametrize(
    ("url", "options", "fault"),
    [
        ("gs://b/x", {"profile": "p"}, "gs:// takes no profile; it takes endpoint_url, anon"),
        ("gcs://b/x", {"region": "r"}, "gcs:// takes no region"),
        ("az://b/x", {"endpoint_url": "http://127.0.0.1:1"}, "az:// takes no endpoint_url; it takes anon"),
        ("abfss://b/x", {"profile": "p"}, "abfss:// takes no profile"),
    ],
)
def test_an_option_that_a_scheme_does_not_take_is_refused_where_its_store_is_opened(
    url: str, options: dict[str, Any], fault: str
) -> None:
    with pytest.raises(StoreRefused, match=fault):
        open_store(url, {url: Storage(**options)})


def test_every_object_store_has_options_and_a_package_that_takes_them() -> None:
    assert STORAGE_OPTIONS.keys() == PACKAGES.keys()
    assert _ARGUMENTS.keys() == set(PACKAGES.values())
    every = Storage(profile="p", endpoint_url="http://e", region="r", anon=True)
    assert _ARGUMENTS["gcsfs"](every) == {"token": "anon", "endpoint_url": "http://e"}
    assert _ARGUMENTS["gcsfs"](Storage(anon=False)) == {}
    assert _ARGUMENTS["adlfs"](Storage(anon=False)) == {"anon": False}
    assert _ARGUMENTS["adlfs"](Storage()) == {}


def test_a_range_of_a_file_is_read_alone(campaign_url: str) -> None:
    store = open_store(campaign_url, {})
    store.put("data", bytes(range(100)))

    assert store.read_range("data", 10, 13) == bytes([10, 11, 12])
    assert store.read_range("data", 98, 200) == bytes([98, 99])
    with pytest.raises(FileNotFoundError):
        store.read_range("absent", 0, 1)


@pytest.mark.parametrize(
    "url",
    [
        "simplecache::file:///etc/passwd",
        "http://example.org/a.png",
        "data:,x::file://y",
        "s3://bucket/../other/key",
        "s3://bucket//key",
        "s3:///key",
        "file:///a\0b",
    ],
)
def test_a_url_that_could_reach_elsewhere_is_refused(url: str) -> None:
    with pytest.raises(UserError):
        parse_url(url)


def test_relative_paths_are_taken_from_the_working_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)

    assert parse_url("out/demo").url == str(tmp_path / "out/demo")
    assert parse_url("file:///a/b").url == "/a/b"
    assert parse_url("s3://bucket/key/").url == "s3://bucket/key"


def test_a_file_that_changed_gets_another_digest(tmp_path: Path) -> None:
    file = tmp_path / "a.png"
    file.write_bytes(b"one")
    before = sha256_files([str(file)])
    assert sha256_files([str(file)]) == before
    file.write_bytes(b"two")
    os.utime(file, ns=(1, 1))

    assert sha256_files([str(file)]) != before


def test_sources_digest_as_what_is_read_later(campaign_url: str) -> None:
    store = open_store(campaign_url, {})
    for number in range(10):  # enough for one listing instead of ten questions
        store.put(f"images/{number}.png", f"content {number}".encode())
    urls = [f"{store.url}/images/{number}.png" for number in range(10)]
    digests = digest_sources(
        [*urls, f"{store.url}/images/absent.png", f"{store.url}/lonely/absent.png"], {}, AllowList([store.url])
    )

    assert len({digests[url] for url in urls}) == 10
    assert digests[f"{store.url}/images/absent.png"] == digests[f"{store.url}/lonely/absent.png"] == "missing"
    for url in urls:
        data, digest = read_source(url, {}, 100, AllowList([store.url]))
        assert digest == digests[url]
        assert data.startswith(b"content")


def test_a_source_over_the_cap_or_absent_is_named(tmp_path: Path) -> None:
    file = tmp_path / "a.png"
    file.write_bytes(b"x" * 101)

    with pytest.raises(SourceTooLarge, match="101 bytes are over 100"):
        read_source(str(file), {}, 100, AllowList([str(tmp_path)]))
    with pytest.raises(SourceMissing, match="there is no such file"):
        read_source(str(tmp_path / "b.png"), {}, 100, AllowList([str(tmp_path)]))
