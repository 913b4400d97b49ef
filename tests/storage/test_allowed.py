"""Sources are opened beneath the places that the job allows, whatever links are turned to meanwhile."""

from __future__ import annotations

import hashlib
import os
import random
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from sdbatch.errors import SourceMissing
from sdbatch.fetch.sources import digest_sources, read_source
from sdbatch.storage import AllowList

SECRET = b"not yours"


@pytest.fixture
def brand(tmp_path: Path) -> Path:
    """A folder `brand` with a picture, beside `brand-secret` with another."""
    for name in ("brand/beach.png", "brand/deep/sea.png", "brand-secret/plan.png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"picture")
    return tmp_path / "brand"


@pytest.mark.parametrize("name", ["beach.png", "deep/sea.png", "not-there.png", "deep/../beach.png"])
@pytest.mark.parametrize("slash", ["", "/"])
def test_a_file_under_an_allowed_folder_is_taken(brand: Path, name: str, slash: str) -> None:
    assert AllowList([f"{brand}{slash}"]).problem(f"{brand}/{name}") is None


def test_an_allowed_file_is_taken_and_its_neighbour_is_not(brand: Path) -> None:
    allow = AllowList([str(brand / "beach.png")])
    assert allow.problem(str(brand / "beach.png")) is None
    assert allow.problem(str(brand / "deep" / "sea.png")) is not None


def test_relative_places_are_taken_from_the_working_directory(brand: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(brand.parent)
    allow = AllowList(["brand/"])
    assert allow.problem("brand/beach.png") is None
    assert allow.problem(str(brand / "beach.png")) is None
    assert allow.problem(f"file://{brand}/beach.png") is None
    assert allow.problem("brand-secret/plan.png") is not None


@pytest.mark.parametrize(
    "name",
    ["../brand-secret/plan.png", "deep/../../brand-secret/plan.png", "..", "../../../../../../../etc/passwd"],
)
def test_dots_do_not_leave_an_allowed_folder(brand: Path, name: str) -> None:
    assert "is outside sources.allow" in str(AllowList([str(brand)]).problem(f"{brand}/{name}"))


@pytest.mark.parametrize("slash", ["", "/"])
def test_a_folder_that_only_begins_like_an_allowed_one_is_refused(brand: Path, slash: str) -> None:
    fault = AllowList([f"{brand}{slash}"]).problem(f"{brand}-secret/plan.png")
    assert fault == f"is outside sources.allow ({brand}{slash})"


def test_a_symbolic_link_does_not_leave_an_allowed_folder(brand: Path) -> None:
    (brand / "link.png").symlink_to(brand.parent / "brand-secret" / "plan.png")
    (brand / "folder").symlink_to(brand.parent / "brand-secret")
    allow = AllowList([str(brand)])
    assert "is outside" in str(allow.problem(f"{brand}/link.png"))
    assert "is outside" in str(allow.problem(f"{brand}/folder/plan.png"))


def test_a_symbolic_link_inside_an_allowed_folder_is_taken(brand: Path) -> None:
    (brand / "link.png").symlink_to(brand / "beach.png")
    assert AllowList([str(brand)]).problem(f"{brand}/link.png") is None


def test_an_allowed_folder_may_itself_be_a_symbolic_link(brand: Path) -> None:
    (brand.parent / "alias").symlink_to(brand)
    allow = AllowList([str(brand.parent / "alias")])
    assert allow.problem(f"{brand.parent}/alias/beach.png") is None
    assert allow.problem(f"{brand}/beach.png") is None


@pytest.mark.parametrize(
    "url",
    [
        "simplecache::file:///etc/passwd",
        "filecache::s3://brand/a.png",
        "zip://a.png::s3://brand/b.zip",
        "http://host/a.png",
        "memory://a.png",
        "a\x00.png",
    ],
)
def test_chained_and_foreign_urls_are_refused_even_where_everything_is_allowed(url: str) -> None:
    assert str(AllowList(["/", "s3://brand/"]).problem(url)).startswith("is refused: ")


@pytest.mark.parametrize("prefix", ["s3://brand/2026", "s3://brand/2026/"])
@pytest.mark.parametrize(
    ("url", "is_taken"),
    [
        ("s3://brand/2026/a.png", True),
        ("s3://brand/2026/deep/a.png", True),
        ("s3://brand/2026", True),
        ("s3://brand/2026-secret/a.png", False),
        ("s3://brand/20260/a.png", False),
        ("s3://brand/a.png", False),
        ("s3://brand-secret/2026/a.png", False),
        ("gs://brand/2026/a.png", False),
        ("s3://brand/2026/../a.png", False),
        ("s3://brand/2026//../a.png", False),
        ("/brand/2026/a.png", False),
    ],
)
def test_a_remote_prefix_holds_whole_path_parts(prefix: str, url: str, is_taken: bool) -> None:
    assert (AllowList([prefix]).problem(url) is None) == is_taken


def test_a_bucket_is_a_prefix() -> None:
    allow = AllowList(["s3://brand"])
    assert allow.problem("s3://brand/a.png") is None
    assert allow.problem("s3://brand2/a.png") is not None


@pytest.mark.parametrize("url", ["/etc/passwd", "a.png", "s3://brand/a.png"])
def test_an_empty_list_allows_nothing(url: str) -> None:
    assert AllowList([]).problem(url) == "is outside sources.allow (which is empty)"


def test_a_local_prefix_allows_nothing_remote(brand: Path) -> None:
    assert AllowList([str(brand), "/"]).problem("s3://brand/beach.png") is not None


# --- files that are opened ------------------------------------------------------------------------------------------


def _content(allow: AllowList, path: Path) -> bytes:
    with allow.open(str(path)) as file:
        return file.read()


def test_a_file_is_opened_through_every_link_that_stays_inside(brand: Path) -> None:
    (brand / "link.png").symlink_to(brand / "beach.png")
    (brand / "relative.png").symlink_to("deep/../beach.png")
    (brand / "folder").symlink_to("deep")
    (brand.parent / "alias").symlink_to(brand)
    names = ["beach.png", "deep/sea.png", "link.png", "relative.png", "folder/sea.png"]

    assert {_content(AllowList([str(brand)]), brand / name) for name in names} == {b"picture"}
    assert _content(AllowList([str(brand.parent / "alias")]), brand.parent / "alias" / "deep" / "sea.png") == b"picture"
    assert _content(AllowList([str(brand / "beach.png")]), brand / "beach.png") == b"picture"
    assert _content(AllowList(["/"]), brand / "deep" / "sea.png") == b"picture"


@pytest.mark.parametrize("kind", ["pipe", "device", "folder", "absent", "outside"])
def test_nothing_but_a_file_inside_is_opened(brand: Path, kind: str) -> None:
    path = brand / "odd.png"
    make: dict[str, Callable[[Path], None]] = {
        "pipe": os.mkfifo,
        "device": lambda path: path.symlink_to("/dev/zero"),
        "folder": Path.mkdir,
        "absent": lambda _: None,
        "outside": lambda path: path.symlink_to(brand.parent / "brand-secret" / "plan.png"),
    }
    make[kind](path)

    with pytest.raises(FileNotFoundError):
        AllowList([str(brand)]).open(str(path))


@pytest.fixture
def turned(brand: Path) -> Iterator[Path]:
    """A path that is a file of ours and, turn about, a link to one outside, while somebody looks; so is its folder."""
    secret = brand.parent / "brand-secret" / "plan.png"
    secret.write_bytes(SECRET)
    (brand / "spot").mkdir()
    (brand / "spot" / "plan.png").write_bytes(b"picture")
    stop = threading.Event()
    chance = random.Random(1)

    def turn() -> None:
        while not stop.is_set():
            for name, target in (("plan.png", secret), ("spot", secret.parent)):
                (brand / "next").symlink_to(target)
                if name == "spot":
                    (brand / "spot").rename(brand / "aside")
                (brand / "next").rename(brand / name)
                stop.wait(chance.random() / 5000)  # so that a look finds the link on one core as well
                (brand / name).unlink()
                if name == "spot":
                    (brand / "aside").rename(brand / "spot")
                else:
                    (brand / name).write_bytes(b"picture")

    turner = threading.Thread(target=turn)
    turner.start()
    yield brand
    stop.set()
    turner.join()


@pytest.mark.fault("S8", "a link turned between the look at `sources.allow` and the opening", "nothing outside is read")
def test_a_link_that_is_turned_meanwhile_reads_nothing_outside(
    turned: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("SDBATCH_CACHE", str(tmp_path / "cache"))
    allow = AllowList([str(turned)])
    seen: set[bytes] = set()
    digests: set[str] = set()
    looks = 0
    for number in range(1500):
        url = str(turned / ("plan.png" if number % 2 else "spot/plan.png"))
        looks += allow.problem(url) is not None
        try:
            seen.add(read_source(url, {}, 100, allow)[0])
        except SourceMissing:
            seen.add(b"")
        if number % 10 == 0:
            digests.update(digest_sources([url], {}, allow).values())

    assert 0 < looks < 1500  # the link was seen in both places, so this test can fail
    assert b"picture" in seen
    assert SECRET not in seen
    assert f"sha256:{hashlib.sha256(SECRET).hexdigest()}" not in digests


@pytest.mark.parametrize("turned_part", ["deep/plan.png", "deep"])
@pytest.mark.parametrize("verb", ["read", "digest"])
@pytest.mark.fault("S8", "a link turned in the moment after a path was followed", "nothing outside is read")
def test_a_link_turned_in_the_very_moment_reads_nothing_outside(
    brand: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, turned_part: str, verb: str
) -> None:
    monkeypatch.setenv("SDBATCH_CACHE", str(tmp_path / "cache"))
    secret = brand.parent / "brand-secret"
    (secret / "plan.png").write_bytes(SECRET)
    path = brand / "deep" / "plan.png"
    path.write_bytes(b"picture")
    allow = AllowList([str(brand)])
    follow = os.path.realpath

    def followed_then_turned(name: str) -> str:
        real = follow(name)
        part = brand / turned_part
        if not part.is_symlink():
            part.rename(brand / "aside")
            part.symlink_to(secret if turned_part == "deep" else secret / "plan.png")
        return real

    monkeypatch.setattr(os.path, "realpath", followed_then_turned)
    if verb == "digest":
        assert digest_sources([str(path)], {}, allow) == {str(path): "missing"}
    else:
        with pytest.raises(FileNotFoundError):
            allow.open(str(path))


@pytest.mark.fault("S8", "a link turned outside after the plan", "the worker looks again and reads nothing")
def test_the_worker_looks_again(brand: Path) -> None:
    (brand / "link.png").symlink_to(brand / "beach.png")
    allow = AllowList([str(brand)])
    url = str(brand / "link.png")
    assert read_source(url, {}, 100, allow)[0] == b"picture"
    (brand / "link.png").unlink()
    (brand / "link.png").symlink_to(brand.parent / "brand-secret" / "plan.png")

    with pytest.raises(SourceMissing, match=r"link\.png: is outside sources\.allow"):
        read_source(url, {}, 100, allow)


@pytest.mark.parametrize("url", ["s3://other/a.png", "/etc/passwd"])
def test_what_the_job_does_not_allow_is_not_read(url: str) -> None:
    with pytest.raises(SourceMissing, match=r"is outside sources\.allow"):
        read_source(url, {}, 100, AllowList(["s3://brand/"]))
