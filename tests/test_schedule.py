"""A job that comes every night: one campaign, nothing doubled, tonight's rows in the metadata."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from conftest import asset_digests, prompts

import sdbatch
from sdbatch.errors import JobError
from sdbatch.job import parse_job

ROOT = Path(__file__).parents[1]


@pytest.fixture
def nightly(tmp_path: Path, write_manifest: Callable[..., str], job_of: Callable[..., dict[str, Any]]) -> Path:
    """Write two nights' manifests and the one job over them."""
    tonight = [*prompts(4)[1:], {"id": "new", "prompt": "new tonight"}]
    write_manifest(prompts(4), name="2026-11-20")
    tonight = [{**row, "prompt": "edited"} if row["id"] == "row-0003" else row for row in tonight]
    write_manifest(tonight, name="2026-11-21")
    path = tmp_path / "nightly.yaml"
    path.write_text(json.dumps(job_of(f"{tmp_path}/${{date}}/")))
    return path


OFTEN_BEATEN = """
from sdbatch.campaign import lease
from sdbatch.cli import main
lease.TERM_S, lease.BEAT_EVERY_S = 60.0, 0.5
main()
"""


def _start(job: Path, date: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", OFTEN_BEATEN, "run", str(job), "--date", date, "--in-process", "--json"]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def _tick(job: Path, date: str) -> dict[str, int]:
    result = sdbatch.run(sdbatch.load_job(job, date=date), in_process=True)
    assert result.exit_code == 0, result.message
    return result.counts


def test_a_tick_makes_what_changed_since_yesterday_and_a_second_one_nothing(nightly: Path, tmp_path: Path) -> None:
    campaign = str(tmp_path / "campaign")
    first = _tick(nightly, "2026-11-20")
    before = asset_digests(campaign)
    second = _tick(nightly, "2026-11-21")
    repeated = _tick(nightly, "2026-11-21")
    rows = {row["id"]: row for row in sdbatch.metadata(campaign).to_pylist()}

    assert first["rows_generated"] == 4
    assert (second["rows_generated"], second["rows_reused"]) == (2, 2)
    assert (repeated["model_calls"], repeated["rows_reused"]) == (0, 4)
    assert set(rows) == {"row-0001", "row-0002", "row-0003", "new"}
    assert rows["row-0003"]["prompt"] == "edited"
    assert before.items() <= asset_digests(campaign).items()
    assert len(asset_digests(campaign)) == 6


def test_of_two_ticks_that_overlap_one_drives_and_nothing_is_doubled(nightly: Path, tmp_path: Path) -> None:
    ticks = [_start(nightly, "2026-11-20") for _ in range(2)]
    outputs = [tick.communicate(timeout=480) for tick in ticks]
    codes = sorted(tick.returncode for tick in ticks)

    assert codes in ([0, 4], [0, 0]), outputs  # the second waits out one term; by then the first may be done
    assert {row["id"] for row in sdbatch.metadata(str(tmp_path / "campaign")).to_pylist()} == {
        row["id"] for row in prompts(4)
    }
    assert len(asset_digests(str(tmp_path / "campaign"))) == 4
    assert sdbatch.verify(str(tmp_path / "campaign")).is_good
    generated = sum(json.loads(text)["counts"]["rows_generated"] for text, _ in outputs if '"counts"' in text)
    assert generated == 4


@pytest.mark.parametrize(
    ("manifest", "date", "said"),
    [
        ("m/${date}/", "tonight", "'tonight' is not of the form YYYY-MM-DD"),
        ("m/${date}/", "2026-13-01", "is not of the form"),
        ("m/${date}/", "20261121", "is not of the form"),
        ("m/${HOME}/", "2026-11-21", "the only name to be filled in is"),
        ("m/${date/", "2026-11-21", "the only name to be filled in is"),
        ("m/${date}/", "", "'' is not of the form"),
        ("m/{date}/", "2026-11-21", r"date '2026-11-21': the manifest's path, m/{date}/, has no \${date}"),
    ],
)
def test_only_a_date_is_filled_in(manifest: str, date: str, said: str) -> None:
    with pytest.raises(JobError, match=said):
        parse_job({"manifest": manifest, "output": "o", "models": {"a": {"path": "builtin:tiny-random"}}}, date=date)


def test_the_date_comes_from_the_option_then_the_environment_then_today(monkeypatch: pytest.MonkeyPatch) -> None:
    from datetime import UTC, datetime

    job = {"manifest": "m/${date}/", "output": "o", "models": {"a": {"path": "builtin:tiny-random"}}}
    before = datetime.now(UTC).date().isoformat()
    today = parse_job(job).manifest
    monkeypatch.setenv("SDBATCH_DATE", "2026-01-02")

    assert today in {f"m/{before}/", f"m/{datetime.now(UTC).date().isoformat()}/"}
    assert parse_job(job).manifest == "m/2026-01-02/"
    assert parse_job(job, date="2026-03-04").manifest == "m/2026-03-04/"


@pytest.mark.parametrize("name", ["stills", "nightly"])
def test_the_jobs_for_real_models_pass_check_without_their_weights(
    name: str, tmp_path: Path, write_manifest: Callable[..., str]
) -> None:
    from support.toy_models import make_tiny_sdxl

    make_tiny_sdxl(tmp_path / "sdxl")
    rows = [{"id": "a", "prompt": "p"}]
    changes = [f"models.sdxl.path={tmp_path / 'sdxl'}", f"manifest={write_manifest(rows)}", f"output={tmp_path / 'o'}"]
    report = sdbatch.check(ROOT / "jobs" / f"{name}.yaml", changes)

    assert (report.rows, report.models) == (1, {"sdxl": "Stable Diffusion XL"})
