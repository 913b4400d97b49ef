"""A campaign made by version 0.1 is readable for ever: every verb works on it, and a run there adds to it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from support.galleries import columns_of, state_of

import sdbatch
from sdbatch.errors import UserError
from sdbatch.packets import packet_in
from sdbatch.provenance.source_type import COMPOSITE, GENERATED
from sdbatch.provenance.xmp import read_packet
from sdbatch.recipe import KEY_VERSION

FIXTURE = Path(__file__).parent / "fixtures" / "campaign_0_1"
NEWEST = "r000006-20261126T172821Z"


@pytest.fixture
def campaign(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a copy of the campaign; its manifest and sources lie beside it, where the working directory is."""
    folder = tmp_path / "older"
    shutil.copytree(FIXTURE, folder)
    monkeypatch.chdir(folder)
    return folder / "campaign"


def _job(campaign: Path, **changes: Any) -> dict[str, Any]:
    """Return the job as its newest run wrote it down, with the model's old-style name left out."""
    job: dict[str, Any] = json.loads((campaign / "runs" / NEWEST / "run.json").read_text())["job"]
    job["models"]["named"]["revision"] = None
    return {**job, **changes}


def _files(campaign: Path) -> dict[str, bytes]:
    return {str(path.relative_to(campaign)): path.read_bytes() for path in campaign.rglob("*") if path.is_file()}


def test_status_metadata_and_verify_tell_what_version_0_1_made(campaign: Path) -> None:
    rows = sdbatch.metadata(campaign).to_pylist()
    report = sdbatch.verify(campaign)

    assert sdbatch.status(campaign)["run_id"] == NEWEST
    assert [row["id"] for row in rows if row["status"] == "failed"] == ["edit-missing", "edit-torn"]
    assert [(row["n"], row["seed"]) for row in rows if row["id"] == "mug-takes"] == [(0, 7), (1, 8), (2, 9)]
    assert {row["media_type"] for row in rows if row["id"].startswith("clip")} == {"video/mp4"}
    assert report.is_good
    assert sorted(path.rpartition("/")[2].partition("-")[0] for path in report.orphans) == ["ghost", "ghost"]
    assert report.rows_ok == report.assets_hashed == 24


def test_the_gallery_of_an_older_campaign_is_written_anew(campaign: Path) -> None:
    page = Path(sdbatch.report(campaign))
    (chunk,) = state_of(campaign)["chunks"]
    columns = columns_of(campaign, chunk["name"])

    assert page.is_file()
    assert "mug-takes" in columns["id"]
    assert all(ref >= 0 for ref, status in zip(columns["thumbs"], columns["status"], strict=True) if status == "ok")


def test_files_delivered_from_an_older_campaign_are_marked_although_its_masters_are_not(
    campaign: Path, tmp_path: Path
) -> None:
    formats = [{"name": "p", "width": 32, "height": 32, "type": "png"}]
    values = {"delivery": "d", "campaign": str(campaign), "to": str(tmp_path / "out"), "processes": 1}
    sdbatch.deliver({**values, "formats": formats, "name": "{id}-{n}.{ext}"})
    report = sdbatch.verify_delivery(str(tmp_path / "out"))
    types = {
        name: read_packet(packet_in((tmp_path / f"out/{name}-0.png").read_bytes()))["Iptc4xmpExt:DigitalSourceType"]
        for name in ("mug-1", "edit-night")
    }

    assert packet_in(next((campaign / "assets").glob("mug-1-*.png")).read_bytes()) is None
    assert (report.is_good, report.marked) == (True, report.files)
    assert types == {"mug-1": GENERATED, "edit-night": COMPOSITE}


@pytest.mark.parametrize("request_id", ["mug-1", "mug-takes", "clip", "named"])
def test_an_older_asset_is_rendered_again_and_equal(campaign: Path, request_id: str) -> None:
    before = _files(campaign)
    report = sdbatch.reproduce(campaign, request_id)

    assert report.fault is None
    assert report.is_equal
    assert report.is_as_committed
    assert _files(campaign) == before


def test_a_plan_says_what_newer_keys_would_render_again(campaign: Path) -> None:
    planned = sdbatch.plan(_job(campaign))

    assert sum(planned.rows.values()) == 12
    assert planned.rows["changed"] == 12
    assert "key_version" in planned.changed


def test_a_run_with_newer_keys_is_refused_with_its_cost_until_they_are_accepted(campaign: Path) -> None:
    before = _files(campaign)
    with pytest.raises(UserError, match=r"version 1.*--accept-new-keys") as refusal:
        sdbatch.run(_job(campaign), in_process=True)

    assert refusal.value.exit_code == 2
    assert _files(campaign).items() >= before.items()


def test_a_run_adds_to_an_older_campaign_and_loses_nothing(campaign: Path) -> None:
    kept = {path: data for path, data in _files(campaign).items() if path.startswith(("assets/", "runs/"))}
    old = {(row["id"], row["n"]): row["sha256"] for row in sdbatch.metadata(campaign).to_pylist()}
    result = sdbatch.run(_job(campaign), in_process=True, accept_new_keys=True)
    again = sdbatch.run(_job(campaign), in_process=True)
    rows = sdbatch.metadata(campaign).to_pylist()

    assert _files(campaign).items() >= kept.items()
    assert result.counts["rows_ok"] == 10
    assert again.counts["model_calls"] == 0
    assert {json.loads(row["recipe"])["key_version"] for row in rows} == {KEY_VERSION}
    assert {(row["id"], row["n"]) for row in rows} == old.keys()
    assert sdbatch.verify(campaign).is_good


def _use_every_verb(campaign: Path) -> None:
    sdbatch.status(campaign)
    sdbatch.verify(campaign)
    sdbatch.reproduce(campaign, "as-jpg")
    sdbatch.plan(_job(campaign))
    sdbatch.run(_job(campaign), in_process=True, accept_new_keys=True)


@pytest.mark.parametrize(
    "path",
    [
        f"runs/{NEWEST}/status.json",
        f"runs/{NEWEST}/run.json",
        "metadata/latest.json",
        "lease/000006.json",
    ],
)
def test_a_file_of_a_newer_version_is_refused_in_one_line(campaign: Path, path: str) -> None:
    file = campaign / path
    file.write_text(json.dumps({**json.loads(file.read_text()), "format_version": 99}))

    with pytest.raises(UserError) as refusal:
        _use_every_verb(campaign)

    assert "format_version 99" in str(refusal.value)
    assert path in str(refusal.value)
    assert "\n" not in str(refusal.value)
