"""A campaign on a file system may come from a stranger: no link in it is followed, and only regular files are read."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from conftest import prompts

import sdbatch
from sdbatch.campaign import layout
from sdbatch.campaign.campaign import Campaign
from sdbatch.campaign.schema import COMMIT, from_parquet, table, to_parquet
from sdbatch.campaign.write import put_commit
from sdbatch.errors import StoreRefused
from sdbatch.storage import LocalStore, open_campaign, open_store, store

RUN = "r000001-20260101T000000Z"
KEY = "0" * 64


@pytest.fixture(autouse=True)
def _nothing_hangs() -> Iterator[None]:
    """A pipe that is read, or /dev/zero, ends the test instead of the machine."""
    before = signal.signal(signal.SIGALRM, lambda *_: pytest.fail("hangs"))
    signal.alarm(60)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


@pytest.fixture
def victim(tmp_path: Path) -> Path:
    folder = tmp_path / "victim"
    folder.mkdir()
    (folder / "document.txt").write_text("not yours")
    (folder / "index.html").write_text("not yours")
    return folder


@pytest.fixture
def campaign(tmp_path: Path) -> Path:
    """A campaign of one run with one asset, made without a model."""
    folder = tmp_path / "campaign"
    found = open_campaign(str(folder), {})
    asset = layout.asset("a", KEY, 0, "png")
    found.put_new(asset, b"picture")
    row = {"id": "a", "request_key": KEY, "n": 0, "status": "ok", "asset": asset, "asset_bytes": 7}
    requests = {"id": ["a"], "request_key": [KEY], "num_outputs": [1]}
    sha256 = "d0b0d0b0"
    put_commit(found, RUN, "000000", [{**row, "sha256": sha256}])
    import pyarrow as pa

    found.put_new(layout.requests(RUN, 0), to_parquet(pa.table(requests)))
    return folder


def _swap(folder: Path, name: str, target: Path) -> None:
    """Put a link in the place of a folder of the campaign."""
    place = folder / name
    if place.exists():
        place.rename(folder / f"{name}-before")
    place.parent.mkdir(parents=True, exist_ok=True)
    place.symlink_to(target)


def _all(victim: Path) -> dict[str, str]:
    return {path.name: path.read_text() for path in victim.iterdir()}


@pytest.mark.fault("S2", ".tmp linked to a victim, gc --delete", "refused; the victim's files stay")
def test_gc_removes_nothing_behind_a_link(campaign: Path, victim: Path) -> None:
    _swap(campaign, ".tmp", victim)
    before = _all(victim)

    with pytest.raises(StoreRefused, match=r"/\.tmp: is a link"):
        sdbatch.gc(campaign, delete=True, older_than_s=0)
    assert _all(victim) == before


@pytest.mark.fault("S2", "`assets` linked to a victim, gc --delete and a put", "refused; nothing is removed or written")
@pytest.mark.parametrize("name", ["assets", "runs", "lease", "metadata", "report", f"runs/{RUN}/commits"])
def test_a_linked_folder_is_refused_whatever_is_asked(campaign: Path, victim: Path, name: str) -> None:
    (victim / "a-00000000-0.png").write_text("not yours")
    _swap(campaign, name, victim)
    before = _all(victim)
    found = open_campaign(str(campaign), {})
    calls: list[Callable[[], object]] = [
        lambda: found.list(name),
        lambda: found.read(f"{name}/document.txt"),
        lambda: list(found.read_each([f"{name}/document.txt"])),
        lambda: found.stat(f"{name}/document.txt"),
        lambda: found.open(f"{name}/document.txt"),
        lambda: found.put_new(f"{name}/new", b"x"),
        lambda: found.put(f"{name}/document.txt", b"x"),
        lambda: found.delete(f"{name}/document.txt"),
    ]

    for call in calls:
        with pytest.raises(StoreRefused, match="is a link, and no link is followed"):
            call()
    assert _all(victim) == before


@pytest.mark.fault("S2", "report/index.html linked to a foreign page, `report`", "the link goes, the page stays")
def test_report_overwrites_no_foreign_page(campaign: Path, victim: Path) -> None:
    (campaign / "report").mkdir()
    (campaign / "report" / "index.html").symlink_to(victim / "index.html")
    sdbatch.report(campaign)

    assert (victim / "index.html").read_text() == "not yours"
    assert not (campaign / "report" / "index.html").is_symlink()


@pytest.mark.fault(
    "S2", "an asset that is a link to a file outside, `verify`", "missing, and one line; it is not hashed"
)
def test_verify_hashes_nothing_outside(campaign: Path, victim: Path, capsys: pytest.CaptureFixture[str]) -> None:
    asset = campaign / layout.asset("a", KEY, 0, "png")
    asset.unlink()
    (victim / "seven").write_bytes(b"picture")
    asset.symlink_to(victim / "seven")
    (finding,) = [found for found in sdbatch.verify(campaign).findings if found.kind in {"missing", "damaged"}]

    assert (finding.kind, finding.id) == ("missing", "a")
    store, path = open_campaign(str(campaign), {}), layout.asset("a", KEY, 0, "png")
    with pytest.raises(StoreRefused, match="is a link"):
        store.read(path)
    with pytest.raises(StoreRefused, match=f"{path}: is a link"):
        list(store.read_each([layout.asset("b", KEY, 0, "png"), path]))


@pytest.mark.fault(
    "S2", "a pipe, a socket or a device in an asset's or a commit's place", "refused or left out; nothing hangs"
)
@pytest.mark.parametrize("kind", ["pipe", "socket", "device"])
@pytest.mark.parametrize("place", [layout.asset("a", KEY, 0, "png"), layout.commit(RUN, "000000"), layout.lease(1)])
def test_what_is_no_regular_file_is_never_read(campaign: Path, kind: str, place: str) -> None:
    file = campaign / place
    file.unlink(missing_ok=True)
    file.parent.mkdir(exist_ok=True)
    if kind == "pipe":
        os.mkfifo(file)
    elif kind == "socket":
        # A socket's name has 107 characters at most.
        with socket.socket(socket.AF_UNIX) as bound, contextlib.chdir(file.parent):
            bound.bind(file.name)
    else:
        try:
            os.mknod(file, 0o600 | 0o020000, os.makedev(1, 5))
        except PermissionError:
            pytest.skip("only root makes a device")
    found = open_campaign(str(campaign), {})

    for call in (found.read, lambda path: list(found.read_each([path])), found.stat, found.open):
        with pytest.raises(StoreRefused, match=rf"is a {kind}, not a regular file"):
            call(place)
    assert place not in [entry.path for entry in found.list()]
    sdbatch.gc(campaign)
    sdbatch.verify(campaign)


@pytest.mark.fault(
    "S2", "files behind links in a folder of models, sources or shards", "read: a person laid those links"
)
def test_links_that_a_person_laid_are_followed_but_not_to_a_device(tmp_path: Path, victim: Path) -> None:
    folder = tmp_path / "models"
    folder.mkdir()
    (folder / "linked.txt").symlink_to(victim / "document.txt")
    (folder / "inner").symlink_to(victim)
    (folder / "zero").symlink_to("/dev/zero")
    found = open_store(str(folder), {})

    assert found.read("linked.txt") == found.read("inner/document.txt") == b"not yours"
    assert [entry.path for entry in found.list()] == ["linked.txt"]
    with pytest.raises(StoreRefused, match="is a device"):
        found.read("zero")


@pytest.mark.fault("S2", "a JSON file of a campaign without end", "refused with its length and the bound")
def test_every_read_has_a_bound(campaign: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store, "JSON_BYTES_MAX", 1000)
    monkeypatch.setattr(store, "READ_BYTES_MAX", 5000)
    found = open_campaign(str(campaign), {})
    for path, size_bytes, bound in (("runs/x.json", 1001, 1000), ("runs/x.parquet", 5001, 5000)):
        (campaign / path).write_bytes(b" " * size_bytes)
        with pytest.raises(StoreRefused, match=rf"has {size_bytes} bytes, and {bound} are read"):
            found.read(path)


@pytest.mark.fault(
    "S2", "a row whose `asset` is none of ours", "no link out of the campaign in the gallery, none in the metadata"
)
@pytest.mark.parametrize(
    "asset", ["../victim/document.txt", "/etc/passwd", "javascript:alert(1)", "https://evil/x.png", "runs/x"]
)
def test_a_crafted_asset_is_no_link_out_of_the_campaign(campaign: Path, asset: str) -> None:
    found = open_campaign(str(campaign), {})
    path = layout.commit(RUN, "000000")
    rows = [{**row, "asset": asset} for row in from_parquet(found.read(path)).to_pylist()]
    found.put(path, to_parquet(table(rows, COMMIT)))
    sdbatch.report(campaign)
    shown = [file.read_text() for file in (campaign / "report").rglob("*.*")]

    assert len(shown) >= 3
    assert not [text for text in shown if asset in text]
    assert sdbatch.metadata(campaign).column("asset").to_pylist() == [None]
    assert [finding.kind for finding in Campaign(found).verify().findings if finding.id == "a"][:1] == ["missing"]


@pytest.mark.fault("S2", "`redo` where a commit names, and a link leads to, a document", "the document stays")
def test_redo_removes_no_document(
    tmp_path: Path, victim: Path, write_manifest: Callable[..., str], job_of: Callable[..., dict[str, object]]
) -> None:
    job = job_of(write_manifest(prompts(1)))
    sdbatch.run(job, in_process=True)
    output = Path(str(job["output"]))
    (asset,) = (output / "assets").iterdir()
    asset.unlink()
    asset.symlink_to(victim / "document.txt")
    sdbatch.redo(job, in_process=True)

    assert (victim / "document.txt").read_text() == "not yours"
    assert not asset.is_symlink()
    assert sdbatch.verify(output).is_good


def test_a_campaign_may_itself_be_reached_through_a_link(campaign: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(campaign)

    assert LocalStore(str(tmp_path / "link")).read(layout.asset("a", KEY, 0, "png")) == b"picture"
