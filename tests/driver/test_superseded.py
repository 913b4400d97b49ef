"""`gc --superseded`: assets of older keys go, and never one that somebody still counts on."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import pytest
from support.masters import draw_campaign, key_of, patches
from typer.testing import CliRunner

import sdbatch
from sdbatch.campaign import layout
from sdbatch.campaign.history import read_outcomes
from sdbatch.campaign.write import put_commit
from sdbatch.cli import app
from sdbatch.errors import JobError
from sdbatch.storage import open_campaign

NAMES = ("mug", "lamp", "chair", "left")


@pytest.fixture
def campaign(tmp_path: Path) -> Path:
    """Four rows; of the first three the prompt was edited since, and the last one is in the manifest no longer."""
    folder = tmp_path / "campaign"
    pictures = {name: patches(64, 64, number) for number, name in enumerate(NAMES)}
    draw_campaign(folder, [{"id": "lamp"}], {"lamp": pictures["lamp"]})
    sdbatch.review(str(folder), approve=["lamp"], by="Ada")
    formats = [{"name": "square", "width": 48, "height": 48, "type": "jpg"}]
    values: dict[str, Any] = {"delivery": "spring", "campaign": str(folder), "to": str(tmp_path / "out")}
    sdbatch.deliver({**values, "formats": formats, "name": "{id}.{ext}", "processes": 1})
    draw_campaign(folder, [{"id": name} for name in NAMES], pictures)
    edited = {name: patches(64, 64, number + 10) for number, name in enumerate(NAMES[:3])}
    keys = {name: key_of(name + " edited") for name in edited}
    draw_campaign(folder, [{"id": name} for name in edited], edited, keys=keys)
    return folder


def _there(campaign: Path) -> set[str]:
    old = {layout.asset(name, key_of(name), 0, "png"): name for name in NAMES}
    new = {layout.asset(name, key_of(name + " edited"), 0, "png"): f"{name} edited" for name in NAMES[:3]}
    return {(old | new)[entry.path] for entry in open_campaign(str(campaign), {}).list("assets")}


EDITED = {"mug edited", "lamp edited", "chair edited"}


def test_older_assets_are_listed_and_removed_and_what_was_approved_stays(campaign: Path, tmp_path: Path) -> None:
    out = str(tmp_path / "out")
    listed = sdbatch.gc(campaign, superseded=True, older_than_s=0)
    assert {path.split("/")[1].split("-")[0] for path in listed.superseded} == {"mug", "chair"}
    assert dict(listed.kept) == {"is of a row that the manifest has no longer": 1, "somebody approved or picked it": 1}
    assert _there(campaign) == EDITED | set(NAMES)

    result = CliRunner().invoke(
        app, ["gc", str(campaign), "--superseded", "--delivered", out, "--older-than", "0s", "--delete"]
    )
    assert result.exit_code == 0, result.output
    assert "1 superseded assets stay: each somebody approved or picked it" in result.output
    assert _there(campaign) == EDITED | {"lamp", "left"}
    assert sdbatch.verify(campaign).is_good
    again = sdbatch.gc(campaign, superseded=True, older_than_s=0, delivered=[out], delete=True)
    assert again.superseded == ()
    # What stands is what the newest manifest asks for, and what it shows is unchanged.
    assert {row["id"] for row in sdbatch.metadata(campaign).to_pylist()} == set(NAMES[:3])


def test_what_was_delivered_stays_unless_told_so(campaign: Path, tmp_path: Path) -> None:
    out = str(tmp_path / "out")
    kept = sdbatch.gc(campaign, superseded=True, older_than_s=0, delivered=[out], even_approved=True, delete=True)
    assert kept.kept["was delivered"] == 1
    assert "lamp" in _there(campaign)
    told = sdbatch.gc(campaign, superseded=True, older_than_s=0, even_delivered=True, even_approved=True, delete=True)
    assert len(told.superseded) == 1
    assert _there(campaign) == EDITED | {"left"}
    assert sdbatch.verify(campaign).is_good


def test_what_is_a_source_of_something_wanted_stays(campaign: Path) -> None:
    store = open_campaign(str(campaign), {})
    mug = store.read(layout.asset("mug", key_of("mug"), 0, "png"))
    row = {"id": "chair", "request_key": key_of("chair edited"), "n": 1, "status": "ok", "images": ["asset:mug/0"]}
    run = layout.run_id(9, "20260101T000000Z")
    put_commit(store, run, "000000", [{**row, "source_digests": [f"sha256:{hashlib.sha256(mug).hexdigest()}"]}])
    found = sdbatch.gc(campaign, superseded=True, older_than_s=0)

    assert {path.split("/")[1].split("-")[0] for path in found.superseded} == {"chair"}
    assert found.kept["is a source of what the manifest wants"] == 1


def test_what_a_row_has_stays_until_something_newer_is_made(campaign: Path) -> None:
    keys = {name: key_of(name + " edited again") for name in ("mug", "chair")}
    draw_campaign(campaign, [{"id": name} for name in keys], {"chair": patches(64, 64, 30)}, keys=keys)

    report = sdbatch.gc(campaign, superseded=True, older_than_s=0, even_delivered=True, delete=True)

    assert report.kept["is all that its row has, since what the manifest asks for now is not made"] == 2
    for key in ("mug", "mug edited"):
        assert Path(campaign, layout.asset("mug", key_of(key), 0, "png")).exists()
    assert not Path(campaign, layout.asset("chair", key_of("chair edited"), 0, "png")).exists()


def test_deliveries_are_named_before_anything_goes(campaign: Path, tmp_path: Path) -> None:
    with pytest.raises(JobError, match="name each delivery with --delivered"):
        sdbatch.gc(campaign, superseded=True, older_than_s=0, delete=True)
    for alone in ({"delivered": ["x"]}, {"even_approved": True}, {"even_delivered": True}):
        with pytest.raises(JobError, match="give --superseded as well"):
            sdbatch.gc(campaign, older_than_s=0, **alone)
    with pytest.raises(JobError, match="no delivery made it"):
        sdbatch.gc(campaign, superseded=True, older_than_s=0, delivered=[str(tmp_path)], delete=True)
    assert _there(campaign) == EDITED | set(NAMES)


def test_young_ones_stay_and_going_back_makes_them_anew(campaign: Path) -> None:
    assert sdbatch.gc(campaign, superseded=True).superseded == ()
    assert sdbatch.gc(campaign, superseded=True).num_younger == sdbatch.gc(campaign).num_younger + 2
    sdbatch.gc(campaign, superseded=True, older_than_s=0, even_delivered=True, delete=True)
    # The older keys count as not made: a run that goes back to them renders them.
    outcomes = open_campaign(str(campaign), {})
    keys = set(read_outcomes(outcomes, "mug").column("request_key").to_pylist())
    assert keys == {key_of("mug edited")}
