"""A campaign of an older version is read; a file of a later one is refused by its name."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

import sdbatch
from sdbatch.campaign import formats, layout, schema
from sdbatch.campaign.campaign import Campaign
from sdbatch.campaign.history import read_history
from sdbatch.campaign.lease import acquire
from sdbatch.campaign.snapshot import write_snapshot
from sdbatch.cli import app
from sdbatch.driver.compact import write_metadata
from sdbatch.errors import NewerFormat
from sdbatch.storage import open_store

FIXTURE = Path(__file__).parents[1] / "fixtures" / "campaign_0_1"
OLDER_RUNS = 6


@pytest.fixture
def campaign(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A campaign that version 0.1 made."""
    shutil.copytree(FIXTURE, tmp_path / "made")
    monkeypatch.chdir(tmp_path / "made")
    return str(tmp_path / "made" / "campaign")


# --- older ones -----------------------------------------------------------------------------------------------------


def test_an_older_campaign_has_status_metadata_report_and_agrees(campaign: str) -> None:
    status, rows = sdbatch.status(campaign), sdbatch.metadata(campaign)
    found = sdbatch.verify(campaign)

    assert status["run_id"].startswith("r000006-")
    assert rows.num_rows == json.loads((Path(campaign) / layout.LATEST).read_text())["rows"] == found.metadata_rows
    assert set(rows.column("status").to_pylist()) == {"ok", "failed"}
    assert {"x_product"} <= set(rows.column_names)
    assert (found.findings, found.late) == ((), ())
    assert {path.split("-")[0] for path in found.orphans} == {"assets/ghost"}
    assert Path(sdbatch.report(campaign)).exists()


def test_what_an_older_version_compacted_is_what_its_commits_give_now(campaign: str) -> None:
    path = next((Path(campaign) / "metadata").glob("r000006-*/part-00000.parquet"))
    compacted = pq.ParquetFile(path).read()
    now = sdbatch.metadata(campaign)

    assert now.select(compacted.column_names).to_pylist() == compacted.to_pylist()


def test_a_snapshot_of_an_older_campaign_changes_nothing_that_is_read(campaign: str) -> None:
    store = open_store(campaign, {})
    before = sdbatch.metadata(campaign)
    history = read_history(store)
    run = Campaign(store).newest_run()
    write_snapshot(store, run, history)

    assert read_history(store).files.snapshot == run
    assert len(read_history(store)) == len(history)
    assert sdbatch.metadata(campaign) == before
    assert sdbatch.verify(campaign).is_good


def test_orphans_of_an_older_campaign_are_collected(campaign: str) -> None:
    found = sdbatch.gc(campaign, delete=True, older_than_s=0)

    assert len(found.orphans) == 2
    assert sdbatch.verify(campaign).orphans == ()
    assert sdbatch.verify(campaign).is_good


def test_a_column_more_is_null_in_what_older_versions_wrote(campaign: str, monkeypatch: pytest.MonkeyPatch) -> None:
    younger = pa.field("younger", pa.list_(pa.string()))
    monkeypatch.setattr(schema, "METADATA", schema.METADATA.append(younger))
    monkeypatch.setattr(schema, "COMMIT", schema.COMMIT.append(younger))
    store = open_store(campaign, {})
    rows = sdbatch.metadata(campaign)

    assert rows.schema.field("younger") == younger
    assert rows.column("younger").null_count == rows.num_rows > 0
    acquire(store).release()
    shutil.rmtree(Path(campaign) / "metadata")
    write_metadata(store, Campaign(store).newest_run())
    assert sdbatch.verify(campaign).is_good


# --- later ones -----------------------------------------------------------------------------------------------------


def _newest(campaign: str, pattern: str) -> Path:
    return max(Path(campaign).glob(pattern))


def _raise_version(path: Path) -> None:
    """Let a file say that version 99 wrote it."""
    if path.suffix == ".parquet":
        table = pq.ParquetFile(path).read()
        pq.write_table(table.replace_schema_metadata({b"sdbatch.format_version": b"99"}), path)
    else:
        path.write_text(json.dumps({**json.loads(path.read_text()), "format_version": 99}))


LATER: dict[str, Callable[[str], object]] = {
    "runs/*/commits/*.parquet": sdbatch.metadata,
    "runs/r000004-*/index/*.parquet": sdbatch.metadata,
    "runs/*/redo.parquet": sdbatch.metadata,
    "runs/*/requests/*.parquet": sdbatch.metadata,
    "runs/*/snapshot.parquet": sdbatch.metadata,
    "runs/*/status.json": sdbatch.status,
    "runs/*/run.json": lambda campaign: list(Campaign(open_store(campaign, {})).records()),
    "metadata/r000006-*/*.parquet": sdbatch.verify,
    "metadata/latest.json": sdbatch.verify,
    "lease/*.json": lambda campaign: acquire(open_store(campaign, {})),
    "lease/*.beat": lambda campaign: acquire(open_store(campaign, {})),
}


@pytest.mark.parametrize("pattern", LATER)
def test_a_file_of_a_later_version_is_refused_by_its_name(
    pattern: str, campaign: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if "snapshot" in pattern:
        store = open_store(campaign, {})
        write_snapshot(store, Campaign(store).newest_run(), read_history(store))
    path = _newest(campaign, pattern)
    _raise_version(path)

    with pytest.raises(NewerFormat) as caught:
        LATER[pattern](campaign)
    assert str(caught.value) == f"{path} has format_version 99; this sdbatch reads up to {max(formats.READERS)}"
    assert caught.value.exit_code == 2


def test_on_the_command_line_it_is_one_line_and_exit_2(campaign: str) -> None:
    _raise_version(_newest(campaign, "runs/*/status.json"))
    result = CliRunner().invoke(app, ["status", campaign])

    assert result.exit_code == 2
    assert len(result.stderr.strip().splitlines()) == 1
    assert "has format_version 99" in result.stderr


def test_a_version_that_is_none_is_refused_too(campaign: str) -> None:
    path = _newest(campaign, "runs/*/status.json")
    path.write_text('{"format_version": "new"}')

    with pytest.raises(NewerFormat, match="format_version new"):
        sdbatch.status(campaign)
