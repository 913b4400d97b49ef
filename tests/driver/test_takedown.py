"""Rights withdrawn: what was made from a source goes everywhere, stays gone, and a kill in between changes nothing."""

from __future__ import annotations

import hashlib
import json
import shutil
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image
from support.masters import draw_campaign, noise
from support.servers import BUCKET
from support.stores import FaultyStore, Killed
from typer.testing import CliRunner

import sdbatch
from sdbatch.campaign import layout, lease
from sdbatch.campaign.schema import from_parquet
from sdbatch.campaign.tombstones import read_tombstones
from sdbatch.cli import app
from sdbatch.deliver.targets import ZipTarget
from sdbatch.driver import deliver
from sdbatch.driver.takedown import take_down
from sdbatch.errors import NewerFormat, UserError
from sdbatch.storage import LocalStore, Store, open_campaign

SIZE = {"height": 64, "width": 64}
EDIT = {"task": "image-to-image", "strength": 0.5, **SIZE}


def _rows(folder: Path) -> list[dict[str, Any]]:
    lake, hill = str(folder / "lake.png"), str(folder / "hill.png")
    return [
        {"id": "free", "prompt": "a red fox", **SIZE, "x_artist": "Ada"},
        {"id": "lake", "prompt": "at night", "images": [lake], "num_outputs": 2, "x_artist": "Ben", **EDIT},
        {"id": "twin", "prompt": "at night", "images": [str(folder / "copy.png")], "x_artist": "Ada", **EDIT},
        {"id": "hill", "prompt": "at night", "images": [hill], "x_artist": "Ben", **EDIT},
        {"id": "next", "prompt": "in snow", "images": ["asset:lake/1"], "x_artist": "Ada", **EDIT},
    ]


def _sources(folder: Path) -> None:
    for name, colour in (("lake", (40, 90, 200)), ("copy", (40, 90, 200)), ("hill", (60, 160, 60))):
        Image.new("RGB", (64, 64), colour).save(folder / f"{name}.png")


def _job(folder: Path, output: str, rows: list[dict[str, Any]]) -> dict[str, Any]:
    manifest = folder / "rows.jsonl"
    manifest.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return {
        "manifest": str(manifest),
        "output": output,
        "models": {"tiny": {"path": "builtin:tiny-random", "batch_size": 4}},
        "defaults": {"task": "text-to-image", "num_inference_steps": 2, "guidance_scale": 3.0},
        "sources": {"allow": [str(folder)]},
        "seed": 11,
    }


class Studio:
    """A campaign of two runs, and what was delivered of it; every test gets a copy of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        _sources(folder)
        self.rows = _rows(folder)
        self.output = str(folder / "campaign")
        for _ in range(2):  # the row that is made from another row's output waits for the second run
            assert sdbatch.run(_job(folder, self.output, self.rows), in_process=True).exit_code == 0


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Studio:
    return Studio(tmp_path_factory.mktemp("takedown"))


@pytest.fixture
def campaign(made: Studio, tmp_path: Path) -> str:
    shutil.copytree(made.output, tmp_path / "campaign")
    return str(tmp_path / "campaign")


def _deliver(
    campaign: str, to: str, name: str = "spring", *, where: str | None = None, **more: Any
) -> sdbatch.DeliverReport:
    formats = [{"name": "square", "width": 48, "height": 48, "type": "jpg"}]
    values = {"delivery": name, "campaign": campaign, "to": to, "processes": 1, "formats": formats}
    return sdbatch.deliver({**values, "name": name + "/{id}-{n}.{ext}", "where": where}, **more)


def _assets(store: Store) -> set[str]:
    return {
        "/".join(map(str, (parts[0], parts[2])))
        for one in store.list("assets")
        if (parts := layout.asset_parts(one.path))
    }


def _pictures(store: Store) -> dict[str, set[str]]:
    """Return the ids that commits hold a picture of, and of whose source they do."""
    found: dict[str, set[str]] = {"thumbnail": set(), "source_thumbnail": set()}
    for entry in store.list(layout.RUNS):
        if layout.is_commit(entry.path):
            for row in from_parquet(store.read(entry.path)).to_pylist():
                for name, ids in found.items():
                    if row[name] is not None:
                        ids.add(row["id"])
    return found


LAKE = {"lake/0", "lake/1", "twin/0", "next/0"}
ALL = {"free/0", "hill/0", *LAKE}


@pytest.mark.parametrize("kind", ["local", pytest.param("s3", marks=[pytest.mark.s3, pytest.mark.long])])
def test_a_source_is_taken_down_wherever_it_went_and_no_run_brings_it_back(
    kind: str, made: Studio, campaign: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    url, target = campaign, str(tmp_path / "delivered")
    if kind == "s3":
        request.getfixturevalue("s3_endpoint")
        url, target = (f"s3://{BUCKET}/takedown-{tmp_path.name}/{name}" for name in ("campaign", "delivered"))
        local, remote = open_campaign(campaign, {}), open_campaign(url, {})
        for entry in local.list():
            remote.put(entry.path, local.read(entry.path))
    store = open_campaign(url, {})
    assert _deliver(url, target).made == 6
    lake = str(made.folder / "lake.png")
    before = {entry.path: store.read(entry.path) for entry in store.list()}

    listed = sdbatch.takedown(url, [lake], delivered=[target])
    assert {entry.path: store.read(entry.path) for entry in store.list()} == before, "a list writes nothing"
    assert ({f"{one.id}/{one.n}" for one in listed.outputs}, listed.is_removed) == (LAKE, False)
    whys = {f"{one.id}/{one.n}": one.why for one in listed.outputs}
    assert whys["twin/0"].startswith("source sha256:"), "the same bytes under another name are the same source"
    assert whys["next/0"].startswith("made from assets/lake-")
    assert sorted(listed.delivered[target]) == [f"spring/{name.replace('/', '-')}.jpg" for name in sorted(LAKE)]

    done = sdbatch.takedown(url, [lake], delivered=[target], note="licence ended", by="legal", yes=True)
    assert (len(done.assets), done.thumbnails, done.is_removed) == (4, 8, True)
    assert _assets(store) == ALL - LAKE
    assert _pictures(store) == {"thumbnail": {"free", "hill"}, "source_thumbnail": {"hill"}}
    verified = sdbatch.verify(url)
    assert (verified.findings, verified.withdrawn, verified.rows_ok) == ((), 4, 2)
    there = sdbatch.verify_delivery(target)
    assert (there.findings, there.files) == ([], 2)
    rows = {row["id"]: row for row in sdbatch.metadata(url).to_pylist()}
    assert {name: row["status"] for name, row in rows.items()} == {
        "free": "ok", "hill": "ok", "lake": "withdrawn", "twin": "withdrawn", "next": "withdrawn"
    }  # fmt: skip
    assert (rows["next"]["asset"], rows["next"]["prompt"]) == (None, "in snow"), "the metadata stay, as history"
    (record,) = store.list(layout.TAKEDOWNS)
    told = from_parquet(store.read(record.path)).to_pylist()
    assert {(row["by"], row["note"]) for row in told} == {("legal", "licence ended")}

    # A run makes none of it again: neither as it was, nor with another prompt, nor under another id.
    edited = [{**row, "prompt": "by day"} if row["id"] == "lake" else row for row in made.rows]
    other = {**made.rows[1], "id": "other", "seed": 5}
    # (what is made from the edited row waits for it)
    for manifest, rest in ((made.rows, {"withdrawn": 3}), ([*edited, other], {"withdrawn": 3, "waiting": 1})):
        withdrawn = rest["withdrawn"]
        job = _job(tmp_path, url, manifest) | {"sources": {"allow": [str(made.folder)]}}
        assert sdbatch.plan(job).rows == {"reused": 2, **rest}
        run = sdbatch.run(job, in_process=True)
        assert (run.exit_code, run.counts["rows_withdrawn"], run.counts["assets_put"]) == (0, withdrawn, 0)
        assert sdbatch.status(url)["counts"]["rows_withdrawn"] == withdrawn
        assert sdbatch.redo(job, in_process=True) is None
        assert sdbatch.verify(url).is_good
    assert _assets(store) == ALL - LAKE
    assert _deliver(url, target).made == 0
    again = sdbatch.takedown(url, [lake], delivered=[target], yes=True)
    assert (again.assets, again.thumbnails, again.delivered, len(store.list(layout.TAKEDOWNS))) == (
        [],
        0,
        {target: []},
        1,
    )


def test_gallery_audit_trace_and_reproduce_know_what_was_taken_down(
    made: Studio, campaign: str, tmp_path: Path
) -> None:
    gone = next(row for row in sdbatch.metadata(campaign).to_pylist() if row["id"] == "twin")
    copy = tmp_path / "found-somewhere.png"
    shutil.copy(Path(campaign, gone["asset"]), copy)
    packs = [path for path in Path(campaign, "report").rglob("*") if path.is_file()]
    small = from_parquet(Path(campaign, _commit_of(campaign, "twin")).read_bytes()).to_pylist()
    thumbnail = next(row["thumbnail"] for row in small if row["id"] == "twin")
    assert any(_holds(path, thumbnail) for path in packs), "the gallery shows it before"

    result = CliRunner().invoke(app, ["takedown", campaign, "--where", "x_artist == 'Ada' and id != 'free'", "--yes"])
    assert result.exit_code == 0, result.output
    assert "2 assets" in result.output
    assert "--delivered" in result.output

    assert not any(_holds(path, thumbnail) for path in Path(campaign, "report").rglob("*") if path.is_file())
    audit = sdbatch.audit(campaign, tmp_path / "audit.parquet")
    assert (audit.withdrawn, audit.missing, audit.masters) == (2, 0, 6)
    marks = {row["id"]: row["mark"] for row in pq.read_table(tmp_path / "audit.parquet").to_pylist()}
    assert (marks["twin"], marks["next"]) == ("withdrawn", "withdrawn")
    traced = sdbatch.trace(copy, [campaign])
    assert (traced.by, traced.candidates[0].values["status"], traced.candidates[0].values["id"]) == (
        "sha256", "withdrawn", "twin"
    )  # fmt: skip
    with pytest.raises(UserError, match="twin with n 0 was taken down"):
        sdbatch.reproduce(campaign, "twin")
    parts = [pq.read_table(path).to_pylist() for path in Path(campaign, "metadata").rglob("*.parquet")]
    newest = max(Path(campaign, "metadata").iterdir()).name
    assert newest.startswith("r") or parts
    assert sdbatch.verify(campaign).is_good
    assert CliRunner().invoke(app, ["verify", campaign]).exit_code == 0


def _commit_of(campaign: str, request_id: str) -> str:
    for path in sorted(Path(campaign, "runs").glob("*/commits/*.parquet")):
        if request_id in from_parquet(path.read_bytes(), ["id"]).column("id").to_pylist():
            return str(path.relative_to(campaign))
    raise AssertionError(request_id)


def _holds(path: Path, picture: bytes) -> bool:
    import base64

    data = path.read_bytes()
    return picture in data or base64.b64encode(picture)[4:-4] in data


def test_one_output_is_taken_down_and_its_siblings_stay(made: Studio, campaign: str, tmp_path: Path) -> None:
    sdbatch.takedown(campaign, where="id == 'lake' and n == 0", yes=True)

    store = open_campaign(campaign, {})
    assert _assets(store) == ALL - {"lake/0"}
    assert sdbatch.verify(campaign).is_good
    # Nothing more is made of its request: the sibling stands, and the third output is not made.
    more = [{**row, "num_outputs": 3} if row["id"] == "lake" else row for row in made.rows]
    job = _job(tmp_path, campaign, more) | {"sources": {"allow": [str(made.folder)]}}
    assert sdbatch.run(job, in_process=True).counts["rows_withdrawn"] == 1
    assert _assets(store) == ALL - {"lake/0"}


def test_a_float32_is_compared_as_a_person_reads_it(tmp_path: Path) -> None:
    draw_campaign(tmp_path / "campaign", [{"id": "a", "x_weight": 0.7}, {"id": "b", "x_weight": 0.5}], {
        name: noise(16, 16, seed) for seed, name in enumerate("ab")
    })  # fmt: skip
    (part,) = Path(tmp_path, "campaign").glob("runs/*/requests/*.parquet")
    rows = pq.read_table(part)
    place = rows.schema.get_field_index("x_weight")
    pq.write_table(rows.set_column(place, "x_weight", rows.column("x_weight").cast("float32")), part)

    listed = sdbatch.takedown(tmp_path / "campaign", where="x_weight == 0.7")

    assert [one.id for one in listed.outputs] == ["a"]


@pytest.mark.parametrize("fault", ["die before", "die after"])
def test_a_takedown_that_is_killed_at_any_call_ends_as_one_that_is_not(
    fault: Any, made: Studio, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lease, "BEAT_EVERY_S", 3600.0)  # calls are counted, and a slow takedown's beats are calls too
    monkeypatch.setattr(lease, "TERM_S", 3600.0)
    lake = str(made.folder / "lake.png")

    _deliver(made.output, str(tmp_path / "delivered"))

    def begun(name: str) -> tuple[FaultyStore, str]:
        folder, target = tmp_path / name, tmp_path / f"{name}-delivered"
        shutil.copytree(made.output, folder)
        shutil.copytree(tmp_path / "delivered", target)
        return FaultyStore(str(folder)), str(target)

    whole, target = begun("whole")
    whole.set_fault(None)
    take_down(whole, sources=[lake], delivered=[target], by="me", yes=True)
    writes = [
        place
        for place, (name, path) in enumerate(whole.calls)
        if name in {"put", "put_new", "delete"} and not path.startswith("lease")
    ]
    assert len(writes) > 12
    wanted = _state(whole.real, target)
    for place in [*writes[:3], *writes[3::3]] if fault == "die before" else writes[::8]:
        shutil.rmtree(tmp_path / "killed", ignore_errors=True)
        shutil.rmtree(tmp_path / "killed-delivered", ignore_errors=True)
        store, target = begun("killed")
        store.set_fault(place, fault)
        with pytest.raises(Killed):
            take_down(store, sources=[lake], delivered=[target], by="me", yes=True)
        store.set_fault(None)
        tombstones = read_tombstones(store.real)
        missing = {"lake/0", "lake/1", "twin/0", "next/0"} - _assets(store.real)
        assert not missing or tombstones, "the tombstone stands before the first file goes"
        assert not [one for one in sdbatch.verify(store.url).findings if one.kind == "missing"]
        _expire(store.real)
        take_down(store.real, sources=[lake], delivered=[target], by="me", yes=True)
        assert _state(store.real, target) == wanted
        assert sdbatch.verify(store.url).is_good
        assert sdbatch.verify_delivery(target).is_good


def _expire(store: Store) -> None:
    """The lease of a driver that died in this process is taken for a living one."""
    for entry in store.list(layout.LEASE):
        if entry.path.endswith(".beat"):
            store.put(entry.path, json.dumps({"state": "released"}).encode())


def _state(store: Store, target: str) -> Any:
    """Return what lies there, but for what tells of time, and of who held the campaign."""
    told = read_tombstones(store)
    files = {one.path for one in store.list() if not one.path.startswith(("lease/", "takedowns/", "report/"))}
    there = {one.path for one in open_campaign(target, {}).list() if not one.path.startswith("deliveries/")}
    return files, _pictures(store), sorted(told.outputs.column("asset").to_pylist()), told.digests, there


def test_a_zip_is_made_anew_without_what_was_taken_down(campaign: str, made: Studio, tmp_path: Path) -> None:
    target = str(tmp_path / "files.zip")
    assert _deliver(campaign, target).made == 6
    done = sdbatch.takedown(campaign, [str(made.folder / "hill.png")], delivered=[target], yes=True)

    assert done.delivered == {target: ["spring/hill-0.jpg"]}
    with zipfile.ZipFile(target) as archive:
        assert len(archive.namelist()) == 5
        assert "spring/hill-0.jpg" not in archive.namelist()
    assert sdbatch.verify_delivery(target).is_good


def test_archives_that_were_split_stay_so(tmp_path: Path) -> None:
    rows = [{"id": name} for name in "abc"]
    draw_campaign(tmp_path / "campaign", rows, {name: noise(480, 480, seed) for seed, name in enumerate("abc")})
    formats = [{"name": "whole", "width": 480, "height": 480, "type": "png"}]
    target = str(tmp_path / "out/files.zip")
    values = {"delivery": "spring", "campaign": str(tmp_path / "campaign"), "to": target, "processes": 1}
    sdbatch.deliver({**values, "formats": formats, "zip_bytes_max": 1_000_000})
    done = sdbatch.takedown(tmp_path / "campaign", where="id == 'b'", delivered=[target], yes=True)

    assert len(done.delivered[target]) == 1
    assert [path.name for path in sorted((tmp_path / "out").glob("*.zip"))] == ["files-001.zip", "files-002.zip"]
    assert sdbatch.verify_delivery(target).is_good


@pytest.mark.parametrize("name", ["files", "files.zip"])
def test_a_target_that_is_named_in_two_ways_loses_it_once(
    name: str, campaign: str, made: Studio, tmp_path: Path
) -> None:
    target, settings = str(tmp_path / name), tmp_path / "spring.yaml"
    _deliver(campaign, target)
    settings.write_text(json.dumps({"campaign": campaign, "to": target, "formats": ["x-post"]}))
    places = [target, str(settings)]
    done = sdbatch.takedown(campaign, [str(made.folder / "hill.png")], delivered=places, yes=True)

    assert done.delivered == {place: ["spring/hill-0.jpg"] for place in places}
    report = sdbatch.verify_delivery(target)
    assert (report.is_good, report.files, report.ledger_files) == (True, 5, 2)


def test_two_deliveries_of_one_folder_both_lose_it(campaign: str, made: Studio, tmp_path: Path) -> None:
    target = str(tmp_path / "shared")
    _deliver(campaign, target)
    _deliver(campaign, target, "autumn")
    sdbatch.takedown(campaign, [str(made.folder / "hill.png")], delivered=[target], yes=True)

    there = {path.name for path in Path(target).rglob("*.jpg")}
    assert len(list(Path(target).rglob("*.jpg"))) == 10
    assert "hill-0.jpg" not in there
    assert sdbatch.verify_delivery(target).is_good


@pytest.fixture(scope="module")
def edited(made: Studio) -> str:
    """The campaign after two rows were edited: `hill` is made from the other source now."""
    shutil.copytree(made.output, made.folder / "edited")
    lake = str(made.folder / "lake.png")
    changes: dict[str, dict[str, Any]] = {
        "free": {"prompt": "a blue fox"},
        "hill": {"prompt": "at noon", "images": [lake]},
    }
    rows = [{**row, **changes.get(row["id"], {})} for row in made.rows]
    assert sdbatch.run(_job(made.folder, str(made.folder / "edited"), rows), in_process=True).exit_code == 0
    return str(made.folder / "edited")


def _killed(*_: Any) -> None:
    raise Killed


def _cut_off(patch: pytest.MonkeyPatch, owner: Any, name: str, campaign: str, to: str, **more: Any) -> None:
    """Deliver with a process that dies where it calls something."""
    with patch.context() as patched:
        patched.setattr(owner, name, _killed)
        with pytest.raises(Killed):
            _deliver(campaign, to, **more)


HILL = "spring/hill-0.jpg"


def test_a_file_that_a_killed_delivery_wrote_over_is_known_by_what_it_says(
    campaign: str, edited: str, made: Studio, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = str(tmp_path / "delivered")
    _deliver(campaign, target)
    shutil.rmtree(campaign)
    shutil.copytree(edited, campaign)
    only = sdbatch.Selection(only=frozenset({"hill"}))
    _cut_off(monkeypatch, deliver, "_write_down", campaign, target, selection=only)
    listed = sdbatch.takedown(campaign, [str(made.folder / "lake.png")], delivered=[target])

    assert HILL in listed.delivered[target]


def test_a_file_that_no_row_tells_of_any_more_is_known_by_what_it_says(
    campaign: str, edited: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = str(tmp_path / "delivered")
    _cut_off(monkeypatch, deliver, "_write_down", campaign, target)
    shutil.rmtree(campaign)
    _cut_off(monkeypatch, deliver, "_make", shutil.copytree(edited, campaign), target)
    done = sdbatch.takedown(campaign, where="prompt == 'a red fox'", delivered=[target], yes=True)

    assert done.delivered == {target: ["spring/free-0.jpg"]}
    assert not list(Path(target).rglob("*.jpg"))


@pytest.mark.parametrize("is_elsewhere", [False, True])
def test_a_zip_whose_delivery_was_cut_off_is_asked_for_what_lies_in_it(
    is_elsewhere: bool, campaign: str, edited: str, made: Studio, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = tmp_path / "files.zip"
    _deliver(campaign, str(target))
    shutil.rmtree(campaign)
    _cut_off(monkeypatch, ZipTarget, "complete", shutil.copytree(edited, campaign), str(target))
    if is_elsewhere:
        monkeypatch.setenv("SDBATCH_CACHE", str(tmp_path / "another machine"))
    done = sdbatch.takedown(campaign, [str(made.folder / "hill.png")], delivered=[str(target)], yes=True)
    with zipfile.ZipFile(target) as archive:
        names = archive.namelist()

    assert done.delivered == {str(target): [HILL]}
    stay = LAKE if is_elsewhere else {"free/0", *LAKE}
    assert names == sorted(f"spring/{name.replace('/', '-')}.jpg" for name in stay)
    assert any("1 more of its files" in warning for warning in done.warnings) == is_elsewhere
    assert _deliver(campaign, str(target)).made == 1 + is_elsewhere
    assert sdbatch.verify_delivery(str(target)).is_good


def test_what_a_killed_prune_left_in_a_zip_is_taken_down(
    campaign: str, made: Studio, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = tmp_path / "files.zip"
    _deliver(campaign, str(target))
    _cut_off(monkeypatch, ZipTarget, "complete", campaign, str(target), where="id != 'hill'", prune=True)
    done = sdbatch.takedown(campaign, [str(made.folder / "hill.png")], delivered=[str(target)], yes=True)

    assert done.delivered == {str(target): [HILL]}
    with zipfile.ZipFile(target) as archive:
        assert HILL not in archive.namelist()
    assert sdbatch.verify_delivery(str(target)).is_good


@pytest.mark.parametrize("last", ["files.zip", "files.delivered.csv", "files.delivered.parquet"])
def test_a_takedown_that_is_killed_at_an_archive_ends_as_one_that_is_not(
    last: str, campaign: str, made: Studio, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed_after(store: LocalStore, path: str, data: bytes, content_type: str = "") -> None:
        put(store, path, data, content_type)
        if path == last:
            raise Killed

    put = LocalStore.put
    target, hill = tmp_path / "files.zip", [str(made.folder / "hill.png")]
    _deliver(campaign, str(target))
    with monkeypatch.context() as patch:
        patch.setattr(LocalStore, "put", killed_after)
        with pytest.raises(Killed):
            sdbatch.takedown(campaign, hill, delivered=[str(target)], yes=True)
    _expire(open_campaign(campaign, {}))
    sdbatch.takedown(campaign, hill, delivered=[str(target)], yes=True)

    assert b"hill" not in target.read_bytes()
    assert "hill" not in (tmp_path / "files.delivered.csv").read_text()
    assert sdbatch.verify_delivery(str(target)).is_good


def test_a_file_that_no_commit_names_is_found_by_what_it_says(campaign: str, made: Studio) -> None:
    store = open_campaign(campaign, {})
    path = next(one.path for one in store.list("assets") if "/hill-" in one.path)
    store.put(path.replace("/hill-", "/stray-"), store.read(path))
    store.put("assets/torn-00000000-0.png", b"half a file")
    found = sdbatch.takedown(campaign, [str(made.folder / "hill.png")], yes=True)

    assert {one.id for one in found.outputs} == {"hill", "stray"}
    assert "stray/0" not in _assets(store)
    assert "torn/0" in _assets(store)


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({}, "name a source"),
        ({"sources": ["nowhere.png"]}, "--source nowhere.png: nothing in the campaign was made from it"),
        ({"sources": ["ab" * 32]}, "name those by URL"),
        ({"where": "no_such_column == 1"}, "no_such_column"),
        ({"where": "id == 'free'", "delivered": ["."]}, "no delivery made it"),
    ],
)
def test_what_names_nothing_is_refused(asked: dict[str, Any], message: str, campaign: str) -> None:
    with pytest.raises(UserError, match=message):
        sdbatch.takedown(campaign, yes=True, **asked)
    assert not open_campaign(campaign, {}).list(layout.TAKEDOWNS)


def test_a_source_is_named_by_its_digest_too(campaign: str, made: Studio) -> None:
    digest = hashlib.sha256((made.folder / "hill.png").read_bytes()).hexdigest()

    assert [one.id for one in sdbatch.takedown(campaign, [digest]).outputs] == ["hill"]
    assert [one.id for one in sdbatch.takedown(campaign, [f"sha256:{digest}"]).outputs] == ["hill"]
    assert np.unique([one.why for one in sdbatch.takedown(campaign, [digest]).outputs]) == [f"source sha256:{digest}"]


def test_a_record_that_cannot_be_read_stops_what_would_make_it_again(campaign: str, made: Studio) -> None:
    sdbatch.takedown(campaign, [str(made.folder / "hill.png")], yes=True)
    store = open_campaign(campaign, {})
    (entry,) = store.list(layout.TAKEDOWNS)
    whole = store.read(entry.path)
    store.put(entry.path, whole[:100])
    job = _job(made.folder, campaign, made.rows)
    for call in (lambda: sdbatch.run(job, in_process=True), lambda: sdbatch.verify(campaign)):
        with pytest.raises(UserError, match="not a readable record of a takedown"):
            call()
    newer = from_parquet(whole).replace_schema_metadata({"sdbatch.format_version": "99"})
    pq.write_table(newer, Path(campaign, entry.path))
    with pytest.raises(NewerFormat, match="format_version 99"):
        sdbatch.verify(campaign)
    # Whoever removes the record lifts the takedown: the file is missing again, and redo makes it.
    store.delete(entry.path)
    assert [one.kind for one in sdbatch.verify(campaign).findings if one.id == "hill"][:1] == ["missing"]
