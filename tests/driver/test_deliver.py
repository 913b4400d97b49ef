"""Deliveries from drawn masters: sizes, colours, caps, names, and what a second one, a kill and a neighbour change."""

from __future__ import annotations

import hashlib
import io
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
import uuid
import zipfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import av
import numpy as np
import psutil
import pyarrow.parquet as pq
import pytest
from numpy.typing import NDArray
from support.clips import PATCHES, ffmpeg, middles
from support.exiftool import exiftool
from support.masters import draw_campaign, key_of, noise, patches
from support.servers import BUCKET
from support.stores import FaultyStore, Killed
from typer.testing import CliRunner

import sdbatch
from sdbatch.cli import app
from sdbatch.deliver import ledger
from sdbatch.deliver.making import Task
from sdbatch.deliver.settings import parse_delivery
from sdbatch.deliver.targets import FolderTarget, ZipTarget
from sdbatch.driver import deliver
from sdbatch.driver.delivery import process as deliver_process
from sdbatch.driver.delivery.plan import DeliverReport
from sdbatch.driver.delivery.process import Place, makers
from sdbatch.driver.picking import Selection
from sdbatch.errors import JobError, SdbatchError, StoreRefused, UserError, WorkersUnavailable
from sdbatch.storage import LocalStore, Store, open_campaign, open_store
from sdbatch.types import Sound

STILLS = ("mug", "lamp", "chair")
PICTURE_FORMATS: list[Any] = [
    {"name": "square", "width": 160, "height": 160, "type": "jpg"},
    {"name": "wide", "width": 256, "height": 96, "type": "webp", "fit": "contain"},
    {"name": "tall", "width": 96, "height": 192, "type": "avif", "fit": "letterbox"},
    {"name": "whole", "width": 192, "height": 144, "type": "png"},
]
CLIP_FORMATS: list[Any] = [
    {"name": "reel", "width": 96, "height": 160, "type": "mp4", "fit": "letterbox"},
    {"name": "loop", "width": 96, "height": 96, "type": "webm"},
]
ROWS = [{"id": name, "x_product": name.title()} for name in (*STILLS, "clip")]


def _pixels() -> dict[str, NDArray[np.uint8]]:
    pictures = {name: patches(256, 192, number) for number, name in enumerate(STILLS)}
    return {**pictures, "clip": np.stack([patches(128, 96, number) for number in range(6)])}


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A campaign of three pictures and a clip."""
    folder = tmp_path_factory.mktemp("drawn") / "campaign"
    draw_campaign(folder, ROWS, _pixels())
    return folder


@pytest.fixture
def campaign(drawn: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("SDBATCH_CACHE", str(tmp_path / "cache"))
    return Path(shutil.copytree(drawn, tmp_path / "campaign"))


def _delivery(campaign: Path, **changes: Any) -> dict[str, Any]:
    values = {"delivery": "spring", "campaign": str(campaign), "to": str(campaign.parent / "out"), "processes": 1}
    return {**values, "formats": [*PICTURE_FORMATS, *CLIP_FORMATS], **changes}


def _deliver(
    campaign: Path,
    *,
    prune: bool = False,
    dry_run: bool = False,
    selection: Selection | None = None,
    **changes: Any,
) -> DeliverReport:
    return sdbatch.deliver(_delivery(campaign, **changes), selection=selection, prune=prune, dry_run=dry_run)


def _files(folder: Path) -> dict[str, str]:
    """Return the digest of every delivered file."""
    own = ("delivered.", "deliveries")
    found = {str(path.relative_to(folder)): path for path in folder.rglob("*") if path.is_file()}
    return {n: hashlib.sha256(p.read_bytes()).hexdigest() for n, p in found.items() if not n.startswith(own)}


def _read_by_ffmpeg(file: Path, folder: Path) -> NDArray[np.uint8]:
    """Return image_HWC of a picture as ffmpeg, which did not write it, reads it."""
    raw = folder / "raw"
    said = ffmpeg("-i", str(file), "-f", "rawvideo", "-pix_fmt", "rgb24", str(raw)).decode()
    line = next(line for line in said.splitlines() if "Video: rawvideo" in line)
    width, height = (int(side) for side in re.findall(r", (\d+)x(\d+)", line)[0])
    return np.asarray(np.frombuffer(raw.read_bytes(), np.uint8).reshape(-1, height, width, 3)[0])


def _read_by_av(file: Path) -> list[NDArray[np.uint8]]:
    """Return the frames of a clip as PyAV's own libraries read them."""
    with av.open(str(file)) as opened:
        return [np.asarray(frame.to_ndarray(format="rgb24"), np.uint8) for frame in opened.decode(video=0)]


def _near(found: tuple[int, ...], colour: tuple[int, ...], most: int = 2) -> bool:
    return max(abs(one - two) for one, two in zip(found, colour, strict=True)) <= most


def test_what_somebody_rejected_is_not_delivered(campaign: Path) -> None:
    made = sdbatch.metadata(str(campaign)).to_pylist()
    first = next(row for row in made if row["status"] == "ok")
    whole = _deliver(campaign, dry_run=True)
    sdbatch.review(str(campaign), reject=[f"{first['id']}/{first['n']}"], by="jane")
    report = _deliver(campaign, dry_run=True)

    assert report.files < whole.files
    assert report.left_out == {"rejected": 1}
    sdbatch.review(str(campaign), clear=[f"{first['id']}/{first['n']}"], by="jane")
    assert _deliver(campaign, dry_run=True).files == whole.files


def test_each_format_has_its_size_and_its_colours_for_another_program(campaign: Path, tmp_path: Path) -> None:
    report = _deliver(campaign)
    out = tmp_path / "out"

    assert (report.state, report.made, report.exit_code) == ("done", 3 * 4 + 2, 0)
    for one in PICTURE_FORMATS:
        image_HWC = _read_by_ffmpeg(out / f"{one['name']}/mug_{one['name']}_0.{one['type']}", tmp_path)
        assert image_HWC.shape == (one["height"], one["width"], 3)
        inner = {"wide": image_HWC[:, 64:192], "tall": image_HWC[60:132]}.get(one["name"], image_HWC)
        assert all(map(_near, middles(inner), PATCHES)), one["name"]
    tall = _read_by_ffmpeg(out / "tall/mug_tall_0.avif", tmp_path)
    wide = _read_by_ffmpeg(out / "wide/mug_wide_0.webp", tmp_path)
    mean = tuple(round(float(value)) for value in patches(256, 192).mean(axis=(0, 1)))
    assert _near(tuple(map(int, tall[20, 48])), (0, 0, 0))
    assert _near(tuple(map(int, wide[48, 20])), mean)


@pytest.mark.parametrize("suffix", ["png", "jpg"])
def test_a_file_for_print_says_how_many_pixels_an_inch_has(campaign: Path, tmp_path: Path, suffix: str) -> None:
    small = {"name": "card", "width": 96, "height": 64, "type": suffix}
    _deliver(campaign, formats=[small])
    file = tmp_path / f"out/card/mug_card_0.{suffix}"
    plain = exiftool(file)
    again = _deliver(campaign, formats=[{**small, "dpi": 300}])
    said = exiftool(file)
    names, per_inch = {
        "png": (("PNG-pHYs:PixelsPerUnitX", "PNG-pHYs:PixelsPerUnitY"), 0.0254),
        "jpg": (("JFIF:XResolution", "JFIF:YResolution"), 1.0),
    }[suffix]

    assert [plain.get(name, 1) for name in names] == [1, 1]
    assert again.made == 3
    assert [round(said[name] * per_inch) for name in names] == [300, 300]


def test_a_clip_has_its_size_its_frames_and_its_colours_for_another_program(campaign: Path, tmp_path: Path) -> None:
    _deliver(campaign, formats=[*CLIP_FORMATS, {**CLIP_FORMATS[0], "name": "mean", "fit": "contain"}])
    out = tmp_path / "out"
    reel, loop, mean = (
        _read_by_av(out / f"{n}/clip_{n}_0.{s}") for n, s in (("reel", "mp4"), ("loop", "webm"), ("mean", "mp4"))
    )

    assert [frames[0].shape for frames in (reel, loop, mean)] == [(160, 96, 3), (96, 96, 3), (160, 96, 3)]
    assert [len(frames) for frames in (reel, loop, mean)] == [6, 6, 6]
    assert all(_near(one, two, 4) for one, two in zip(middles(reel[3][44:116]), PATCHES, strict=True))
    assert all(_near(one, two, 4) for one, two in zip(middles(loop[3]), PATCHES, strict=True))
    assert _near(tuple(map(int, reel[3][10, 48])), (0, 0, 0), 4)
    colour = tuple(round(float(value)) for value in patches(128, 96).mean(axis=(0, 1)))
    assert _near(tuple(map(int, mean[3][10, 48])), colour, 4)
    assert b"request_key" not in (out / "reel/clip_reel_0.mp4").read_bytes()


def test_a_second_delivery_makes_nothing_and_a_new_master_its_own_files(campaign: Path, tmp_path: Path) -> None:
    _deliver(campaign)
    before, table = _files(tmp_path / "out"), (tmp_path / "out/delivered.parquet").read_bytes()
    again = _deliver(campaign)

    assert (again.made, again.current) == (0, 14)
    assert (tmp_path / "out/delivered.parquet").read_bytes() == table
    assert len(list((tmp_path / "out/deliveries").glob("*.jsonl"))) == 1

    pixels = {"lamp": patches(256, 192, 9)[::-1].copy()}
    draw_campaign(campaign, ROWS[1:2], pixels, keys={"lamp": key_of("another lamp")})
    newer = sdbatch.deliver(_delivery(campaign))
    after = _files(tmp_path / "out")

    assert (newer.made, newer.current, len(newer.stale)) == (4, 0, 10)
    assert {name for name in before if after[name] != before[name]} == {n for n in before if "/lamp_" in n}


def test_the_ledger_names_its_predecessor(campaign: Path, tmp_path: Path) -> None:
    _deliver(campaign, formats=PICTURE_FORMATS[:1])
    time.sleep(1.1)  # the names of ledger files begin with the second
    _deliver(campaign, formats=PICTURE_FORMATS[:2])
    first, second = sorted((tmp_path / "out/deliveries").glob("*.jsonl"))
    lines = [json.loads(line) for line in second.read_text().splitlines()]

    assert lines[0]["previous"] == hashlib.sha256(first.read_bytes()).hexdigest()
    assert {line["made"]["name"] for line in lines[1:]} == {f"wide/{name}_wide_0.webp" for name in STILLS}
    assert first.name.endswith(f"-{hashlib.sha256(first.read_bytes()).hexdigest()[:8]}.jsonl")


def test_a_dry_run_writes_nothing(campaign: Path, tmp_path: Path) -> None:
    report = _deliver(campaign, dry_run=True)

    assert (report.state, report.made, report.files) == ("dry-run", 14, 14)
    assert report.formats[0].crop_max == 0.25
    assert not (tmp_path / "out").exists()


def test_what_is_not_asked_for_any_more_goes_by_prune_alone(campaign: Path, tmp_path: Path) -> None:
    _deliver(campaign, formats=PICTURE_FORMATS[:2])
    listed = _deliver(campaign, formats=PICTURE_FORMATS[:1])
    assert (len(listed.stale), len(_files(tmp_path / "out"))) == (3, 6)
    (tmp_path / "out/wide/own.webp").write_bytes(b"somebody's own")
    pruned = _deliver(campaign, formats=PICTURE_FORMATS[:1], prune=True)

    assert (len(pruned.removed), pruned.stale) == (3, [])
    assert set(_files(tmp_path / "out")) == {*(f"square/{n}_square_0.jpg" for n in STILLS), "wide/own.webp"}


def test_a_name_that_changed_its_capitals_stays_on_a_disk_that_does_not_tell_them_apart(
    campaign: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    delete = LocalStore.delete

    def delete_both(store: LocalStore, path: str) -> None:
        for entry in list(store.list()):
            if entry.path.casefold() == path.casefold():
                delete(store, entry.path)

    _deliver(campaign, formats=PICTURE_FORMATS[:1], name="de-de/{id}.{ext}")
    _deliver(campaign, formats=PICTURE_FORMATS[:1], name="de-DE/{id}.{ext}")
    monkeypatch.setattr(LocalStore, "delete", delete_both)
    pruned = _deliver(campaign, formats=PICTURE_FORMATS[:1], name="de-DE/{id}.{ext}", prune=True)

    assert (pruned.made, len(pruned.removed), pruned.state) == (3, 3, "done")
    assert set(_files(tmp_path / "out")) == {f"de-DE/{name}.jpg" for name in STILLS}
    assert sdbatch.verify_delivery(str(tmp_path / "out")).is_good


@pytest.mark.parametrize("to", ["out", "out.zip"])
def test_a_file_stays_with_its_row_where_the_one_in_its_place_cannot_be_made(
    noisy: Path, tmp_path: Path, to: str
) -> None:
    one = {"name": "a", "width": 192, "height": 192, "type": "jpg"}
    place, name = tmp_path / to, "a/still_a_0.jpg"
    _deliver(noisy, formats=[one], to=str(place))
    before = _at_target(place)[name]
    capped = _deliver(noisy, formats=[{**one, "bytes_max": 2000}], to=str(place))

    assert (list(capped.failed), capped.stale, capped.removed) == ([name], [name], [])
    assert hashlib.sha256(_at_target(place)[name]["data"]).hexdigest() == before["sha256"]
    assert _at_target(place)[name]["status"] == "ok"
    assert "over 2000" in _at_target(place)[name]["error_message"]
    assert sdbatch.verify_delivery(str(place)).is_good

    pruned = _deliver(noisy, formats=[{**one, "bytes_max": 2000}], to=str(place), prune=True)
    assert (list(pruned.failed), pruned.stale, pruned.removed) == ([name], [], [name])
    assert (_at_target(place)[name]["status"], _at_target(place)[name]["data"]) == ("failed", None)
    found = sdbatch.verify_delivery(str(place))
    assert (found.findings, found.files) == ([], 0)
    assert _deliver(noisy, formats=[one], to=str(place)).made == 1
    assert _at_target(place)[name] == before


def _at_target(place: Path) -> dict[str, dict[str, Any]]:
    """Return the rows of a target, each with the bytes that lie there; their ledger differs from time to time."""
    is_zip = place.suffix == ".zip"
    table = pq.read_table(place.with_name("out.delivered.parquet") if is_zip else place / "delivered.parquet")

    def data_of(name: str) -> bytes | None:
        file = place if is_zip else place / name
        if not is_zip or not file.exists():
            return file.read_bytes() if file.exists() else None
        with zipfile.ZipFile(place) as archive:
            return archive.read(name) if name in archive.namelist() else None

    return {row["name"]: {**row, "ledger": None, "data": data_of(row["name"])} for row in table.to_pylist()}


def test_a_prune_that_is_killed_at_any_call_ends_as_one_that_is_not(
    campaign: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _deliver(campaign, formats=PICTURE_FORMATS[:2])
    shutil.copytree(tmp_path / "out", tmp_path / "before")
    changes: dict[str, Any] = {"formats": [PICTURE_FORMATS[0], PICTURE_FORMATS[3]], "quality": {"most": 60}}
    store = FaultyStore(str(tmp_path / "out"))
    opened = open_campaign
    for module in (deliver, deliver_process):
        monkeypatch.setattr(module, "open_campaign", lambda url, to: store if url == store.url else opened(url, to))
    whole = _deliver(campaign, prune=True, **changes)
    wanted = _at_target(tmp_path / "out")
    assert (whole.made, len(whole.removed)) == (6, 3)
    writes = [place for place, (name, _) in enumerate(store.calls) if name in {"put", "put_new", "delete"}]
    assert len(writes) > 12

    for place in writes:
        shutil.rmtree(tmp_path / "out")
        shutil.copytree(tmp_path / "before", tmp_path / "out")
        store.set_fault(place, "die after")
        with pytest.raises(Killed):
            _deliver(campaign, prune=True, **changes)
        store.set_fault(None)
        assert _deliver(campaign, prune=True, **changes).state == "done"
        assert _at_target(tmp_path / "out") == wanted
        assert sdbatch.verify_delivery(str(tmp_path / "out")).findings == []
        assert _deliver(campaign, **changes).made == 0


@pytest.mark.parametrize("to", ["out", "out.zip"])
def test_a_prune_alone_that_is_killed_at_any_call_ends_as_one_that_is_not(
    campaign: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, to: str
) -> None:
    def all_of_it() -> dict[str, bytes]:
        found = {str(path.relative_to(folder)): path for path in folder.rglob("*") if path.is_file()}
        return {name: path.read_bytes() for name, path in found.items() if path.suffix not in {".jsonl", ".json"}}

    folder = tmp_path / "target"
    changes: dict[str, Any] = {"to": str(folder if to == "out" else folder / to)}
    _deliver(campaign, formats=PICTURE_FORMATS[:2], **changes)
    shutil.copytree(folder, tmp_path / "before")
    store = FaultyStore(str(folder))
    opened = open_campaign
    for module in (deliver, deliver_process):
        monkeypatch.setattr(module, "open_campaign", lambda url, to: store if url == store.url else opened(url, to))
    monkeypatch.setattr(ledger, "stamp_now", lambda: "20260101T000000Z")
    _deliver(campaign, prune=True, formats=PICTURE_FORMATS[:1], **changes)
    wanted = all_of_it()
    writes = [place for place, (name, _) in enumerate(store.calls) if name in {"put", "put_new", "delete"}]
    assert len(writes) > 5

    for place in writes:
        shutil.rmtree(folder)
        shutil.copytree(tmp_path / "before", folder)
        store.set_fault(place, "die after")
        with pytest.raises(Killed):
            _deliver(campaign, prune=True, formats=PICTURE_FORMATS[:1], **changes)
        store.set_fault(None)
        assert _deliver(campaign, prune=True, formats=PICTURE_FORMATS[:1], **changes).state == "done"
        assert {**all_of_it(), TABLE_OF[to]: b""} == {**wanted, TABLE_OF[to]: b""}
        assert sdbatch.verify_delivery(changes["to"]).findings == []
        assert not list((tmp_path / "cache/deliveries").glob("*")), "no copy of an archive stays behind"


TABLE_OF = {"out": "delivered.parquet", "out.zip": "out.delivered.parquet"}
"""Tables, in which the name of a ledger file stands that holds the digest of the one before it."""


@pytest.mark.parametrize("is_elsewhere", [False, True])
def test_a_kill_between_the_archives_of_one_delivery_loses_nothing_that_this_machine_has(
    noisy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_elsewhere: bool
) -> None:
    class SmallTarget(ZipTarget):
        def __init__(self, store: Store, file_name: str, bytes_max: int) -> None:
            super().__init__(store, file_name, bytes_max // 100)

    def killed_at(store: LocalStore, path: str, data: bytes, content_type: str = "") -> None:
        put(store, path, data, content_type)
        if path == "out-002.zip":
            raise Killed

    put = LocalStore.put
    one: dict[str, Any] = {"width": 96, "height": 96, "type": "png"}
    place = str(tmp_path / "out.zip")
    monkeypatch.setattr(deliver, "ZipTarget", SmallTarget)
    _deliver(noisy, formats=[{"name": "a", **one}, {"name": "c", **one}], to=place, zip_bytes_max=1_000_000)
    assert len(list(tmp_path.glob("out-*.zip"))) == 2, "one file each"
    newer: dict[str, Any] = {"formats": [{"name": "a", **one}, {"name": "b", **one}], "zip_bytes_max": 1_000_000}
    with monkeypatch.context() as patch:
        patch.setattr(LocalStore, "put", killed_at)
        with pytest.raises(Killed):
            _deliver(noisy, to=place, **newer)
    assert len(list(tmp_path.glob("out-*.zip"))) == 2, "what was in the second one is in none"
    if is_elsewhere:
        monkeypatch.setenv("SDBATCH_CACHE", str(tmp_path / "another"))
    found = _deliver(noisy, to=place, **newer)

    assert found.state == "done"
    assert [name[:1] for name in [*found.removed, *found.stale]] == ["c"]
    assert bool(found.removed) == is_elsewhere
    assert ("are gone" in "".join(found.warnings)) == is_elsewhere
    assert sdbatch.verify_delivery(place).findings == []


@pytest.mark.parametrize("verb", [sdbatch.status, sdbatch.metadata, sdbatch.cost, sdbatch.failures])
def test_who_asks_a_target_for_its_campaign_is_told_which_one_it_is(
    campaign: Path, tmp_path: Path, verb: Callable[[Path], object]
) -> None:
    _deliver(campaign, formats=PICTURE_FORMATS[:1])
    with pytest.raises(JobError, match=rf"out: no run there: it holds what was delivered, from {campaign}; name that"):
        verb(tmp_path / "out")
    (tmp_path / "out/delivered.parquet").write_bytes(b"PAR1")
    with pytest.raises(JobError, match="it holds what was delivered; name the campaign"):
        verb(tmp_path / "out")


def test_what_lies_damaged_beside_delivered_files_is_named_and_made_anew(campaign: Path, tmp_path: Path) -> None:
    def found() -> list[str]:
        return sdbatch.verify_delivery(out).findings

    out = tmp_path / "out"
    _deliver(campaign, formats=PICTURE_FORMATS[:1])
    table = out / "delivered.csv"
    whole = table.read_bytes()
    table.write_bytes(whole[:-3])
    assert found() == ["delivered.csv: does not say what its delivery wrote; deliver again, which writes it anew"]
    assert (_deliver(campaign, formats=PICTURE_FORMATS[:1]).made, found(), table.read_bytes()) == (0, [], whole)
    latest = out / "deliveries/latest.json"
    data = latest.read_bytes()
    for damaged in (b"", data[:-9], data.replace(b".jsonl", b".jsonm"), data.replace(b'"sha256"', b'"sha257"')):
        latest.write_bytes(damaged)
        assert len(found()) == 1
        assert found()[0].startswith("deliveries/latest.json: is damaged; remove it")
    latest.unlink()
    assert found() == []


def test_what_a_killed_delivery_left_unfinished_is_named_and_goes_when_it_is_old(
    campaign: Path, tmp_path: Path
) -> None:
    _deliver(campaign, formats=PICTURE_FORMATS[:1])
    (tmp_path / "out/.tmp").mkdir()
    names = (uuid.uuid4().hex, uuid.uuid4().hex, "somebodys-own")
    for name in names:
        (tmp_path / "out/.tmp" / name).write_bytes(b"half")
    for name in names[1:]:
        os.utime(tmp_path / "out/.tmp" / name, (time.time() - 700, time.time() - 700))
    found = sdbatch.verify_delivery(tmp_path / "out").findings
    _deliver(campaign, formats=PICTURE_FORMATS[:1])

    assert sorted(line.partition(": is an unfinished file")[0] for line in found) == sorted(
        f".tmp/{name}" for name in names[:2]
    )
    assert {path.name for path in (tmp_path / "out/.tmp").iterdir()} == {names[0], names[2]}


@pytest.mark.parametrize("other", ["spring-2.zip", "spring-002.zip"])
def test_an_archive_whose_name_goes_on_with_a_number_is_another_delivery_s(
    noisy: Path, tmp_path: Path, other: str
) -> None:
    one: dict[str, Any] = {"name": "a", "width": 96, "height": 96, "type": "png"}
    _deliver(noisy, formats=[one], to=str(tmp_path / other), delivery="second")
    before = (tmp_path / other).read_bytes()
    for width in (96, 64):
        assert _deliver(noisy, formats=[{**one, "width": width}], to=str(tmp_path / "spring.zip")).made == 1

    assert (tmp_path / other).read_bytes() == before
    assert sdbatch.verify_delivery(tmp_path / other).is_good
    assert sdbatch.verify_delivery(tmp_path / "spring.zip").is_good


def test_an_archive_that_would_take_another_delivery_s_name_is_refused(
    noisy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one: dict[str, Any] = {"width": 96, "height": 96, "type": "png"}
    _deliver(noisy, formats=[{"name": "a", **one}], to=str(tmp_path / "spring-001.zip"), delivery="second")
    before = (tmp_path / "spring-001.zip").read_bytes()
    monkeypatch.setattr(ZipTarget, "_parts", lambda *_: {"spring-001.zip": [], "spring-002.zip": []})
    with pytest.raises(JobError, match=r"spring-001\.zip: is another delivery's; name another `to` for one of them"):
        _deliver(noisy, formats=[{"name": name, **one} for name in "ab"], to=str(tmp_path / "spring.zip"))

    assert (tmp_path / "spring-001.zip").read_bytes() == before


@pytest.mark.parametrize("place", [-300, 200])
def test_an_archive_that_is_damaged_is_told_with_what_to_do(noisy: Path, tmp_path: Path, place: int) -> None:
    one: dict[str, Any] = {"width": 96, "height": 96, "type": "png"}
    file = tmp_path / "out.zip"
    _deliver(noisy, formats=[{"name": "a", **one}, {"name": "b", **one}], to=str(file))
    whole = file.read_bytes()
    file.write_bytes(whole[:place] if place < 0 else bytes([*whole[:place], whole[place] ^ 1, *whole[place + 1 :]]))
    more: dict[str, Any] = {"formats": [{"name": "a", **one}, {"name": "c", **one}], "to": str(file)}
    if place > 0:
        with pytest.raises(UserError, match=r"out\.zip: is damaged \(Bad CRC-32 .*\); restore it, or remove it"):
            _deliver(noisy, **more)
        file.unlink()
    found = _deliver(noisy, **more)

    assert (found.state, [name[:1] for name in [*found.removed, *found.stale]]) == ("done", ["b"])
    assert sdbatch.verify_delivery(file).findings == []


def test_what_a_killed_delivery_wrote_over_is_made_again_where_the_older_one_is_wanted(
    campaign: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed(*_: Any) -> None:
        raise Killed

    def changes(year: int) -> dict[str, Any]:
        return {"formats": PICTURE_FORMATS[:1], "metadata": {"rights": f"(c) {year} ACME"}}

    _deliver(campaign, **changes(2025))
    before = _files(tmp_path / "out")
    with monkeypatch.context() as patch:
        patch.setattr(deliver, "_write_down", killed)
        with pytest.raises(Killed):
            _deliver(campaign, **changes(2026))
    name = next(name for name, digest in _files(tmp_path / "out").items() if digest != before[name])
    lengths = {one: (tmp_path / "out" / one).stat().st_size for one in before}
    _deliver(campaign, **changes(2025))

    assert (tmp_path / "out" / name).stat().st_size == lengths[name], "its length does not tell"
    assert _files(tmp_path / "out") == before


def test_the_table_has_the_columns_of_the_newest_manifest_where_no_file_is_made_anew(
    campaign: Path, tmp_path: Path
) -> None:
    _deliver(campaign, formats=PICTURE_FORMATS[:1])
    before = _files(tmp_path / "out")
    rows = [{**row, "x_price": "25" if row["id"] == "mug" else "30"} for row in ROWS]
    draw_campaign(campaign, rows, {})
    sdbatch.review(str(campaign), approve=["mug"], by="jane")
    again = _deliver(campaign, formats=PICTURE_FORMATS[:1])
    mug = _at_target(tmp_path / "out")["square/mug_square_0.jpg"]

    assert (again.made, again.current, _files(tmp_path / "out")) == (0, 3, before)
    assert (mug["x_price"], mug["verdict"], mug["reviewed_by"]) == ("25", "approved", "jane")
    assert ",25,Mug\n" in (tmp_path / "out/delivered.csv").read_text()
    assert sdbatch.verify_delivery(str(tmp_path / "out")).is_good


def test_verify_says_what_a_killed_delivery_has_not_made(
    campaign: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed(*_: Any) -> None:
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(deliver, "_write_down", killed)
        with pytest.raises(Killed):
            _deliver(campaign, formats=PICTURE_FORMATS[:1])
    said = CliRunner().invoke(app, ["verify", str(tmp_path / "out")])

    assert said.exit_code == 5
    assert "square/mug_square_0.jpg: is not made, because its delivery was cut off; deliver again" in said.stdout
    assert "delivered.csv: is missing; deliver again" in said.stdout
    assert "4 mismatches: 0 files" in said.stdout


def test_two_deliveries_share_a_target_and_no_name(campaign: Path, tmp_path: Path) -> None:
    _deliver(campaign, formats=PICTURE_FORMATS[:1])
    _deliver(campaign, delivery="other", formats=PICTURE_FORMATS[1:2])
    before = _files(tmp_path / "out")

    with pytest.raises(JobError, match=r"square/mug_square_0.jpg: mug of third, and mug of delivery spring"):
        _deliver(campaign, delivery="third", formats=PICTURE_FORMATS[:1])
    assert _files(tmp_path / "out") == before
    assert _deliver(campaign, formats=PICTURE_FORMATS[:1]).stale == []
    assert set(pq.read_table(tmp_path / "out/delivered.parquet").column("delivery").to_pylist()) == {"spring", "other"}


@pytest.mark.parametrize("to", ["out", "out.zip"])
def test_two_campaigns_whose_deliveries_have_one_name_keep_their_files(campaign: Path, tmp_path: Path, to: str) -> None:
    place = str(tmp_path / to)
    other = tmp_path / "other"
    draw_campaign(other, ROWS[:1], {"mug": noise(256, 192)}, keys={"mug": key_of("another mug")})
    _deliver(campaign, formats=PICTURE_FORMATS[:1], to=place)
    before = _at_target(Path(place))

    said = f"of delivery spring of campaign {campaign}"
    with pytest.raises(JobError, match=f"square/mug_square_0.jpg: mug of spring, and mug {said}|is the archive {said}"):
        _deliver(other, formats=PICTURE_FORMATS[:1], to=place)
    assert _at_target(Path(place)) == before
    if to == "out":
        pruned = _deliver(other, formats=PICTURE_FORMATS[1:2], to=place, prune=True)
        assert (pruned.made, pruned.removed, pruned.stale) == (1, [], [])
        assert _at_target(Path(place)).items() >= before.items()


def test_a_campaign_that_was_moved_delivers_on_where_it_did(campaign: Path, tmp_path: Path) -> None:
    _deliver(campaign, formats=PICTURE_FORMATS[:2])
    moved = campaign.rename(tmp_path / "moved")
    again = _deliver(moved, formats=PICTURE_FORMATS[:1], prune=True)

    assert (again.made, again.current, len(again.removed)) == (0, 3, 3)
    assert {row["campaign"] for row in _at_target(tmp_path / "out").values()} == {str(moved)}


def test_a_strangers_file_is_not_written_over(campaign: Path, tmp_path: Path) -> None:
    file = tmp_path / "out/square/MUG_square_0.jpg"
    file.parent.mkdir(parents=True)
    file.write_bytes(b"somebody's own")

    with pytest.raises(JobError, match=r"square/mug_square_0\.jpg: is there, and no delivery of sdbatch made it"):
        _deliver(campaign)
    assert file.read_bytes() == b"somebody's own"


def test_names_that_collide_are_said_before_anything_is_made(campaign: Path, tmp_path: Path) -> None:
    with pytest.raises(
        JobError, match=r"both lamp \(output 0, square\) and chair|both mug \(output 0, square\) and lamp"
    ):
        _deliver(campaign, formats=PICTURE_FORMATS[:1], name="{format}.{ext}")
    assert not (tmp_path / "out").exists()


def test_bounds_of_a_delivery_refuse(campaign: Path) -> None:
    with pytest.raises(JobError, match=r"25\.0% of the master would be cropped, over crop_max: 0.2"):
        _deliver(campaign, crop_max=0.2, formats=PICTURE_FORMATS[:1])


@pytest.fixture
def noisy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A campaign of one picture and one clip that take an encoder many bytes."""
    monkeypatch.setenv("SDBATCH_CACHE", str(tmp_path / "cache"))
    pixels = {"still": noise(192, 192), "clip": np.stack([noise(160, 160, number) for number in range(8)])}
    draw_campaign(tmp_path / "campaign", [{"id": "still"}, {"id": "clip"}], pixels)
    return tmp_path / "campaign"


@pytest.mark.parametrize("suffix", ["jpg", "webp", "avif"])
def test_a_picture_has_the_best_quality_under_its_cap(noisy: Path, tmp_path: Path, suffix: str) -> None:
    one = {"name": "a", "width": 192, "height": 192, "type": suffix}
    free = _deliver(noisy, formats=[one], to=str(tmp_path / "free"))
    cap = free.bytes_made * 2 // 3
    capped = _deliver(noisy, formats=[{**one, "bytes_max": cap}])
    (row,) = pq.read_table(tmp_path / "out/delivered.parquet").to_pylist()

    assert capped.state == "done"
    assert cap * 0.8 < (tmp_path / "out" / row["name"]).stat().st_size == row["file_bytes"] <= cap
    assert 40 <= row["quality"] < 95


@pytest.mark.parametrize("suffix", ["mp4", "webm"])
def test_a_clip_comes_under_its_cap(noisy: Path, tmp_path: Path, suffix: str) -> None:
    one = {"name": "a", "width": 160, "height": 160, "type": suffix}
    free = _deliver(noisy, formats=[one], to=str(tmp_path / "free"))
    cap = free.bytes_made * 2 // 3
    capped = _deliver(noisy, formats=[{**one, "bytes_max": cap}])

    assert capped.state == "done", capped.failed
    assert cap * 0.4 < capped.bytes_made <= cap
    assert len(_read_by_av(tmp_path / f"out/a/clip_a_0.{suffix}")) == 8


@pytest.mark.parametrize("suffix", ["mp4", "webm"])
def test_a_cap_that_no_clip_comes_under_is_told_with_the_least_size(noisy: Path, tmp_path: Path, suffix: str) -> None:
    one = {"name": "a", "width": 160, "height": 160, "type": suffix}
    free = _deliver(noisy, formats=[one], to=str(tmp_path / "free"))
    (said,) = _deliver(noisy, formats=[{**one, "bytes_max": 3000}]).failed.values()
    found = re.match(r"has (\d+) bytes at the lowest quality(?: and (\d+) for marks and signature)?, over 3000", said)
    assert found is not None, said
    least = int(found[1]) + int(found[2] or 0)
    capped = _deliver(noisy, formats=[{**one, "bytes_max": least}])

    assert least < free.bytes_made / 2
    assert capped.state == "done", capped.failed
    assert capped.bytes_made <= least


def _tones(file: Path) -> tuple[list[float], float]:
    """Return the loudest frequency of each channel and the seconds of a sound, as PyAV's own libraries read it."""
    with av.open(str(file)) as opened:
        rate = opened.streams.audio[0].rate
        samples_CT = np.concatenate([frame.to_ndarray() for frame in opened.decode(audio=0)], axis=1)
    spectra = np.abs(np.fft.rfft(samples_CT, axis=1))
    return [float(place * rate / samples_CT.shape[1]) for place in spectra.argmax(axis=1)], samples_CT.shape[1] / rate


def test_a_clip_keeps_its_sound_under_a_cap_too(tmp_path: Path) -> None:
    rate = 24_000
    wave = np.arange(rate, dtype=np.float32) * 2 * np.pi / rate
    sound = Sound(samples_CT=np.stack([np.sin(440 * wave), np.sin(880 * wave)]) * np.float32(0.5), rate_hz=rate)
    frames = np.stack([noise(96, 96, number) for number in range(8)])
    draw_campaign(tmp_path / "campaign", [{"id": "clip"}], {"clip": frames}, sounds={"clip": sound})
    sizes = {"width": 96, "height": 96}
    wanted = [{"name": suffix, **sizes, "type": suffix} for suffix in ("mp4", "webm")]
    report = _deliver(tmp_path / "campaign", formats=[*wanted, {**wanted[0], "name": "capped", "bytes_max": 60_000}])

    assert report.state == "done", report.failed
    for name, suffix in (("mp4", "mp4"), ("webm", "webm"), ("capped", "mp4")):
        file = tmp_path / f"out/{name}/clip_{name}_0.{suffix}"
        tones_hz, sound_s = _tones(file)
        assert np.allclose(tones_hz, [440, 880], atol=3), (name, tones_hz)
        assert sound_s == pytest.approx(1.0, abs=0.06)
        assert len(_read_by_av(file)) == 8
    assert (tmp_path / "out/capped/clip_capped_0.mp4").stat().st_size <= 60_000


def test_a_file_that_misses_its_bound_fails_alone_with_exit_code_3(noisy: Path, tmp_path: Path) -> None:
    small = {"width": 192, "height": 192, "bytes_max": 2000}
    report = _deliver(
        noisy,
        formats=[{"name": "a", **small, "type": "jpg"}, {"name": "b", **small, "type": "png"}, {**PICTURE_FORMATS[0]}],
    )

    assert (report.state, report.exit_code, report.made) == ("failed", 3, 1)
    assert "bytes at quality 40, over 2000; lower quality.least or raise bytes_max" in report.failed["a/still_a_0.jpg"]
    assert "png has no quality to lower" in report.failed["b/still_b_0.png"]
    assert set(_files(tmp_path / "out")) == {"square/still_square_0.jpg"}


def test_a_master_that_was_changed_or_lost_fails_its_files_alone(campaign: Path) -> None:
    lamp, mug = (next((campaign / "assets").glob(f"{name}-*")) for name in ("lamp", "mug"))
    lamp.write_bytes(mug.read_bytes())
    mug.unlink()
    report = _deliver(campaign, formats=PICTURE_FORMATS[:1])

    assert (report.made, report.exit_code) == (1, 3)
    assert "is not the file that was committed" in report.failed["square/lamp_square_0.jpg"]
    assert "is missing" in report.failed["square/mug_square_0.jpg"]


def test_an_archive_is_sorted_stored_and_a_function_of_its_files(campaign: Path, tmp_path: Path) -> None:
    for name in ("one", "two"):
        assert _deliver(campaign, formats=PICTURE_FORMATS[:2], to=str(tmp_path / name / "all.zip")).made == 6
    data = (tmp_path / "one/all.zip").read_bytes()
    members = zipfile.ZipFile(io.BytesIO(data)).infolist()

    assert data == (tmp_path / "two/all.zip").read_bytes()
    assert [member.filename for member in members] == sorted(member.filename for member in members)
    assert {member.date_time for member in members} == {(1980, 1, 1, 0, 0, 0)}
    assert {member.compress_type for member in members} == {zipfile.ZIP_STORED}
    assert _deliver(campaign, formats=PICTURE_FORMATS[:2], to=str(tmp_path / "one/all.zip")).made == 0

    fewer = _deliver(campaign, formats=PICTURE_FORMATS[:1], to=str(tmp_path / "one/all.zip"), prune=True)
    assert (fewer.made, len(fewer.removed)) == (0, 3)
    assert len(zipfile.ZipFile(tmp_path / "one/all.zip").namelist()) == 3
    assert not list((tmp_path / "cache/deliveries").iterdir())


def test_a_long_archive_is_split_and_grows_again_from_what_it_holds(noisy: Path, tmp_path: Path) -> None:
    sizes = [{"name": f"f{n}", "width": 480, "height": 480 + n, "type": "png"} for n in range(4)]
    first = _deliver(noisy, formats=sizes[:3], to=str(tmp_path / "out/all.zip"), zip_bytes_max=1_000_000)
    second = _deliver(noisy, formats=sizes, to=str(tmp_path / "out/all.zip"), zip_bytes_max=1_500_000)
    names = [name for path in sorted((tmp_path / "out").glob("*.zip")) for name in zipfile.ZipFile(path).namelist()]

    assert (first.made, second.made, second.current) == (3, 1, 3)
    assert names == sorted(f"f{n}/still_f{n}_0.png" for n in range(4))
    assert all(path.stat().st_size <= 1_500_000 for path in (tmp_path / "out").glob("*.zip"))


def test_a_killed_delivery_goes_on_to_the_same_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SDBATCH_CACHE", str(tmp_path / "cache"))
    names = [f"row-{number}" for number in range(8)]
    draw_campaign(
        tmp_path / "campaign", [{"id": n} for n in names], {n: noise(256, 256, i) for i, n in enumerate(names)}
    )
    one = {"name": "a", "width": 512, "height": 512, "type": "webp"}
    _deliver(tmp_path / "campaign", formats=[one], to=str(tmp_path / "whole"))
    file = tmp_path / "killed.yaml"
    command = [sys.executable, "-m", "sdbatch", "deliver", str(file)]
    for attempt in range(20):  # on a busy machine it may end before it is killed
        killed = tmp_path / f"killed-{attempt}"
        file.write_text(json.dumps(_delivery(tmp_path / "campaign", formats=[one], to=str(killed))))
        with subprocess.Popen(command, stderr=subprocess.DEVNULL, env={**os.environ}) as process:
            until_s = time.monotonic() + 60
            while len(list(killed.glob("a/*"))) < 2 and time.monotonic() < until_s:
                time.sleep(0.005)
            process.send_signal(signal.SIGKILL)
        if len(_files(killed)) < 8:
            break
    assert 2 <= len(_files(killed)) < 8

    assert sdbatch.deliver(file).state == "done"
    assert _files(killed) == _files(tmp_path / "whole")
    assert sdbatch.deliver(file).made == 0


@pytest.mark.parametrize("to", ["out", "all.zip"])
def test_a_kill_before_the_end_is_written_costs_no_file(
    campaign: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, to: str
) -> None:
    def killed(*_: Any) -> None:
        raise Killed

    changes: dict[str, Any] = {"formats": PICTURE_FORMATS[:1], "to": str(tmp_path / to)}
    with monkeypatch.context() as patch:
        patch.setattr(ZipTarget if to == "all.zip" else FolderTarget, "complete", killed)
        with pytest.raises(Killed):
            _deliver(campaign, **changes)
    again = _deliver(campaign, **changes)

    assert (again.made, again.current) == (0, 3)
    assert (tmp_path / "all.zip" if to == "all.zip" else tmp_path / "out/delivered.csv").exists()
    assert len(list(tmp_path.glob("**/deliveries/*.jsonl" if to == "out" else "all.deliveries/*.jsonl"))) == 1


@pytest.mark.s3
@pytest.mark.parametrize("suffix", ["", "/all.zip"])
def test_a_bucket_takes_what_a_folder_takes(campaign: Path, tmp_path: Path, s3_endpoint: str, suffix: str) -> None:
    target = f"s3://{BUCKET}/delivered-{uuid.uuid4().hex}{suffix}"
    one = {**PICTURE_FORMATS[0]}
    first = _deliver(campaign, formats=[one], to=target)
    second = _deliver(campaign, formats=[{**one, "width": 80}], to=target)
    third = _deliver(campaign, formats=[{**one, "width": 80}], to=target)
    folder = open_store(target.removesuffix("/all.zip"), {})
    local = _deliver(campaign, formats=[{**one, "width": 80}])
    found = {entry.path for entry in folder.list()}

    assert (first.made, second.made, third.made, third.current, local.made) == (3, 3, 0, 3, 3)
    if suffix:
        archive = zipfile.ZipFile(io.BytesIO(folder.read("all.zip")))
        assert {n: hashlib.sha256(archive.read(n)).hexdigest() for n in archive.namelist()} == _files(tmp_path / "out")
        assert {"all.delivered.parquet", "all.delivered.csv"} < found
    else:
        names = _files(tmp_path / "out")
        assert {n: hashlib.sha256(folder.read(n)).hexdigest() for n in names} == names
        assert {"delivered.parquet", "delivered.csv"} < found


def test_the_command_says_what_it_made_and_exits_with_3_for_a_missed_bound(
    noisy: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    small = {**PICTURE_FORMATS[0], "bytes_max": 1000}
    file = tmp_path / "spring.yaml"
    codes = []
    for formats in ([PICTURE_FORMATS[0]], [small]):
        values = _delivery(noisy, formats=formats)
        del values["delivery"]
        file.write_text(json.dumps(values))
        with pytest.raises(SystemExit) as ended:
            app(["deliver", str(file)])
        codes.append(ended.value.code)
    said = capsys.readouterr()

    assert codes == [0, 3]
    assert "spring done: 1 made, 0 there already, 0 failed of 1 file; " in said.out
    assert "not made: square/still_square_0.jpg: has" in said.err


def test_processes_make_the_same_files_as_one(campaign: Path, tmp_path: Path) -> None:
    for number in (1, 2):
        assert _deliver(campaign, processes=number, to=str(tmp_path / str(number))).made == 14

    assert _files(tmp_path / "1") == _files(tmp_path / "2")


def test_a_script_that_delivers_runs_once(campaign: Path, tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    values = _delivery(campaign, processes=2)
    script.write_text(f"import sdbatch\nprint('begun')\nprint(sdbatch.deliver({values!r}).made)\nprint('ended')\n")

    here = tmp_path / "here"
    here.mkdir()
    for name in ("json", "signal", "sdbatch"):  # what lies in the folder that a person is in is not imported
        (here / f"{name}.py").write_text("raise SystemExit('a stranger was imported')")

    done = subprocess.run(
        [sys.executable, str(script)],
        cwd=here,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        capture_output=True,
        text=True,
        timeout=300,
    )

    assert done.stdout.split() == ["begun", "14", "ended"], done.stderr


def test_a_process_that_is_killed_ends_the_delivery_with_what_to_change(campaign: Path, tmp_path: Path) -> None:
    def kill_a_child() -> None:
        until_s = time.monotonic() + 60
        while time.monotonic() < until_s:
            children = [one for file in Path("/proc/self/task").glob("*/children") for one in file.read_text().split()]
            for child in children:
                with suppress(OSError):
                    if b"delivery.process" in Path(f"/proc/{child}/cmdline").read_bytes():
                        os.kill(int(child), signal.SIGKILL)
                        return
            time.sleep(0.001)

    killer = threading.Thread(target=kill_a_child)
    killer.start()
    with pytest.raises(WorkersUnavailable, match=r"one of 2 processes that make files was killed.*`processes: 1`"):
        _deliver(campaign, processes=2)
    killer.join()

    assert _deliver(campaign, processes=2).state == "done"
    assert len(_files(tmp_path / "out")) == 14


def test_a_second_signal_ends_a_delivery_whose_processes_would_go_on_for_long(campaign: Path, tmp_path: Path) -> None:
    file = tmp_path / "delivery.yaml"
    file.write_text(json.dumps(_delivery(campaign, processes=2)))
    command = [sys.executable, "-m", "sdbatch", "deliver", str(file)]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as driver:
        assert driver.stderr is not None
        until_s = time.monotonic() + 60
        children: list[psutil.Process] = []
        while len(children) < 2 and time.monotonic() < until_s:
            # One that is stopped before its own program has begun holds the driver in `vfork`.
            children = [child for child in psutil.Process(driver.pid).children() if "-P" in child.cmdline()]
            time.sleep(0.01)
        try:
            for child in children:
                child.suspend()
            driver.send_signal(signal.SIGINT)
            while "a second signal stops at once" not in driver.stderr.readline():
                assert driver.poll() is None
            driver.send_signal(signal.SIGINT)
            driver.wait(timeout=60)
        finally:
            for child in children:
                with suppress(psutil.NoSuchProcess):
                    child.kill()

    assert (driver.returncode, len(children)) == (130, 2)
    assert _deliver(campaign, processes=2).state == "done"
    assert len(_files(tmp_path / "out")) == 14


def test_what_keeps_a_process_from_opening_its_stores_is_what_the_delivery_says(tmp_path: Path) -> None:
    cannot = "az://shop/spring"  # its package is not among those of the tests
    place = Place(campaign=cannot, campaign_storage={}, files=str(tmp_path), files_storage={})
    task = Task(id="a", asset="a.png", sha256="", shape=None, files=(), quality=(80, 90), bars=(0, 0, 0))
    with makers(place, 1) as make:
        for _ in range(2):
            with pytest.raises(StoreRefused, match=cannot):
                make(task)


def test_where_says_which_rows_a_delivery_is_about(campaign: Path, tmp_path: Path) -> None:
    to = str(tmp_path / "to")
    first = _deliver(campaign, to=to)
    narrow = _deliver(campaign, to=to, where="x_product in ['Mug', 'Lamp'] and width == 256")

    assert (first.files, first.left_out) == (14, {})
    assert (narrow.files, narrow.current, narrow.left_out) == (8, 8, {"where": 2})
    assert len(narrow.stale) == 6
    assert all("chair" in name or "clip" in name for name in narrow.stale)


def test_a_selection_makes_its_files_alone_and_leaves_the_others(campaign: Path, tmp_path: Path) -> None:
    to = str(tmp_path / "to")
    _deliver(campaign, to=to)
    before = _files(tmp_path / "to")
    shown = _deliver(campaign, to=to, selection=Selection(only=frozenset({"mu*"})), dry_run=True)
    fresh = _deliver(campaign, to=str(tmp_path / "fresh"), selection=Selection(where="x_product == 'Mug'"))

    assert (shown.files, shown.current, shown.stale, shown.left_out) == (4, 4, [], {"selection": 3})
    assert _files(tmp_path / "to") == before
    assert fresh.made == 4
    with pytest.raises(JobError, match=r"^mu\*: the delivery has no id that fits it"):
        _deliver(campaign, to=to, where="x_product == 'Lamp'", selection=Selection(only=frozenset({"mu*"})))
    with pytest.raises(JobError, match="--prune: removes what the whole delivery does not ask for"):
        _deliver(campaign, to=to, selection=Selection(only=frozenset({"mug"})), prune=True)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"formats": ["instagram-stroy"]}, "did you mean instagram-story"),
        ({"only": "aproved"}, "only"),
        ({"where": "x_prodct == 'Mug'"}, "did you mean x_product"),
        ({"name": "{idd}.{ext}"}, "no column idd; did you mean id"),
        ({"quality": {"least": 90, "most": 50}}, "quality.least: 90 is over quality.most = 50"),
        ({"too": "x"}, "unknown key; did you mean to"),
        ({"bars": "black"}, "bars"),
        ({"focus": {"x": 2.0}}, "focus"),
        ({"version": 9}, "version 9 is newer"),
    ],
)
def test_a_wrong_delivery_is_told_what_to_change(campaign: Path, changes: dict[str, Any], said: str) -> None:
    with pytest.raises(SdbatchError, match=said):
        _deliver(campaign, **changes)


def test_a_delivery_into_its_own_campaign_is_refused(campaign: Path) -> None:
    with pytest.raises(JobError, match="lies in the campaign"):
        _deliver(campaign, to=str(campaign / "out"))


def test_shipped_formats_need_no_more_than_their_names() -> None:
    delivery = parse_delivery(
        {"delivery": "a", "campaign": "c", "to": "t", "formats": ["instagram-story", "display-300x250"]}
    )

    assert [one.bytes_max for one in delivery.own_formats] == [30_000_000, 150_000]


def test_an_option_of_verify_for_the_other_kind_of_place_is_refused(campaign: Path) -> None:
    made = _deliver(campaign, formats=PICTURE_FORMATS[:1])
    of_campaign = CliRunner().invoke(app, ["verify", str(campaign), "--trust", "roots.pem"])
    of_delivery = CliRunner().invoke(app, ["verify", made.to, "--sample", "1"])

    assert (of_campaign.exit_code, of_delivery.exit_code) == (2, 2)
    assert f"--trust roots.pem: {campaign} holds no delivery, and masters are not signed" in of_campaign.stderr
    assert f"--sample 1: {made.to} is a delivery, of which every file is hashed" in of_delivery.stderr
    assert CliRunner().invoke(app, ["verify", str(campaign), "--sample", "1"]).exit_code == 0
    assert CliRunner().invoke(app, ["verify", made.to]).exit_code == 0
