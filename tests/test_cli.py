"""The command line: one line for an error, one JSON object when asked, the promised exit codes."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args

import pyarrow.parquet as pq
import pytest
from conftest import prompts
from typer.testing import CliRunner, Result

from sdbatch.cli import app
from sdbatch.cli.options import with_optional_class
from sdbatch.cli.output import WHAT_ROWS
from sdbatch.driver.one_run.select import Reason

Job = Callable[..., str]
ROOT = Path(__file__).parents[1]
DEMO = str(ROOT / "jobs" / "demo.yaml")
INSTALLED = ("submit", DEMO, "--address", "http://127.0.0.1:9", "--installed")


def _sdbatch(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "sdbatch", *arguments]
    return subprocess.run(command, capture_output=True, text=True, cwd=ROOT, timeout=120)


def _call(*arguments: str) -> Result:
    """Run a verb in this process: that one of them starts as a command is seen where a whole process matters."""
    return CliRunner().invoke(app, with_optional_class(list(arguments)))


@pytest.fixture
def job(tmp_path: Path, write_manifest: Callable[..., str], job_of: Callable[..., dict[str, Any]]) -> Job:
    """Write a job file over some rows."""

    def write(rows: list[dict[str, Any]], **changes: Any) -> str:
        path = tmp_path / "job.yaml"
        path.write_text(json.dumps(job_of(write_manifest(rows), **changes)))
        return str(path)

    return write


def test_a_whole_campaign_by_command(job: Job, tmp_path: Path) -> None:
    path = job(prompts(3))
    output = str(tmp_path / "campaign")
    checked = json.loads(_call("check", path, "--json").stdout)
    planned = json.loads(_call("plan", path, "--json").stdout)
    ran = _sdbatch("run", path, "--in-process", "--json")
    shown = _call("run", path, "--in-process")
    counted = _call("run", path, "--in-process", "--verbose")

    assert (checked["rows"], checked["assets"]) == (3, 3)
    assert planned["rows"] == {"new": 3}
    assert json.loads(ran.stdout)["counts"]["rows_ok"] == 3
    assert (ran.returncode, shown.exit_code) == (0, 0)
    assert "0 files made, 3 rows kept, 0 failed, 0 left\ncampaign: 3 of 3 made, 0 failed, 0 open\n" in shown.stdout
    assert "rows_reused" not in shown.stdout
    assert "rows_reused" in counted.stdout
    assert "gallery:" in shown.stdout
    assert json.loads(_call("status", output, "--json").stdout)["state"] == "done"
    assert "campaign: 3 of 3 made, 0 failed, 0 open" in _call("status", path).stdout
    written = tmp_path / "rows.parquet"
    assert json.loads(_call("metadata", output, "--to", str(written), "--json").stdout)["rows"] == 3
    assert pq.read_metadata(written).num_rows == 3
    assert json.loads(_call("verify", output, "--json").stdout)["good"]
    assert Path(json.loads(_call("report", output, "--json").stdout)["gallery"]).is_file()
    assert "nothing is missing" in _call("redo", path, "--in-process").stdout


def test_a_damaged_asset_makes_verify_exit_with_5(job: Job, tmp_path: Path) -> None:
    _call("run", job(prompts(2)), "--in-process")
    asset = next((tmp_path / "campaign" / "assets").iterdir())
    asset.write_bytes(asset.read_bytes()[:-1] + b"x")
    done = _sdbatch("verify", str(tmp_path / "campaign"))

    assert done.returncode == 5
    assert asset.name in done.stdout


def test_orphans_are_listed_and_removed_when_told(job: Job, tmp_path: Path) -> None:
    path = job(prompts(1))
    orphan = tmp_path / "campaign" / "assets" / "row-9999-01234567-0.png"

    assert _call("run", path, "--in-process").exit_code == 0
    orphan.write_bytes(b"left")
    listed = json.loads(_call("gc", path, "--older-than", "0s", "--json").stdout)

    assert "0 files, 0 bytes; 1 younger than 1d stay" in _call("gc", path).stdout
    assert (listed["orphans"], listed["is_deleted"]) == ([f"assets/{orphan.name}"], False)
    assert _call("gc", path, "--older-than", "soon").exit_code == 2
    assert _call("verify", path, "--sample", "1.5").exit_code == 2
    assert "1 orphans" in _call("verify", path, "--sample", "0.5").stdout
    assert orphan.exists()
    assert _call("gc", path, "--older-than", "0s", "--delete").exit_code == 0
    assert not orphan.exists()


def test_every_reason_of_a_plan_is_told_in_words() -> None:
    assert WHAT_ROWS.keys() == {*get_args(Reason), "leaving"}


def test_a_failed_row_exits_with_3_unless_accepted(job: Job, tmp_path: Path) -> None:
    row = {"id": "a", "prompt": "p", "task": "image-to-image", "images": str(tmp_path / "no.png"), "strength": 1.0}
    path = job([row])

    failed = _call("run", path, "--in-process")
    assert failed.exit_code == 3
    assert "report/index.html#f.status=failed\n" in failed.stdout  # as the page writes its address
    assert _call("run", path, "--in-process", "--accept-failed").exit_code == 0
    assert json.loads(_call("plan", path, "--retry-failed", "--json").stdout)["rows"] == {"retry": 1}
    assert json.loads(_call("plan", "--retry-failed", path, "--json").stdout)["rows"] == {"retry": 1}
    assert json.loads(_call("plan", path, "--retry-failed", "BlankOutput", "--json").stdout)["rows"] == {"failed": 1}
    assert "did you mean SourceMissing?" in _call("plan", path, "--retry-failed", "SourceMising").stderr


@pytest.mark.parametrize("verb", ["check", "plan", "run"])
def test_wrong_rows_exit_with_2_and_are_all_named(job: Job, verb: str) -> None:
    done = _sdbatch(verb, job([{"id": "a", "prompt": "p", "height": 3}, {"id": "a", "prompt": "p"}]))

    assert done.returncode == 2
    assert "row 1 of" in done.stderr
    assert "row 2 of" in done.stderr
    assert "Traceback" not in done.stderr


def test_an_error_is_one_json_object_when_asked(job: Job) -> None:
    done = _sdbatch("check", job([{"id": "a", "prompt": "p", "height": 3}]), "--json")
    said = json.loads(done.stdout)

    assert said["error"] == "ManifestError"
    assert said["problems"][0]["column"] == "height"


def test_a_wrong_job_exits_with_2_and_names_the_key(job: Job) -> None:
    done = _sdbatch("check", job(prompts(1)), "--set", "worker.count=2")

    assert (done.returncode, done.stderr.strip()[-40:]) == (2, "worker: unknown key; did you mean workers?"[-40:])
    assert _sdbatch("check", "nowhere.yaml").returncode == 2


def test_a_held_campaign_exits_with_4_and_names_its_holder(
    job: Job, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from sdbatch.campaign import lease
    from sdbatch.storage import open_store

    monkeypatch.setattr(lease, "BEAT_EVERY_S", 0.2)  # whoever comes waits for a beat of the holder
    held = lease.acquire(open_store(str(tmp_path / "campaign"), {}))
    try:
        done = _call("run", job(prompts(1)), "--in-process")
    finally:
        held.release()

    assert done.exit_code == 4
    assert f"held by process {held.holder.pid}" in done.stderr


def test_the_verbs_and_their_options_are_the_promised_ones() -> None:
    said = _sdbatch("--help").stdout

    for verb in (
        "check",
        "plan",
        "run",
        "redo",
        "status",
        "runs",
        "failures",
        "completion",
        "metadata",
        "verify",
        "gc",
        "reproduce",
        "report",
        "deliver",
        "manifest",
        "models",
    ):
        assert f" {verb} " in said
    models = CliRunner().invoke(app, ["models", "list"]).stdout
    every = CliRunner().invoke(app, ["models", "list", "--all"]).stdout
    assert ("tiny-sd" in models, "tiny-random" in models, "not here:" in models) == (True, False, False)
    assert ("tiny-random" in every, "not here:" in every) == (True, True)
    listed = json.loads(_sdbatch("models", "list", "--json").stdout)["models"]
    assert listed[0]["tasks"] == ["text-to-image", "image-to-image", "inpainting"]
    needs = "text-to-video (AnimateDiffPipeline) needs models.tiny-sd.motion_adapter to be a MotionAdapter; it has none"
    assert needs in listed[0]["lacking"]
    video = listed[1]
    assert video["tasks"] == ["text-to-video", "image-to-video", "video-to-video"]
    assert [video[name] for name in ("height", "width", "num_frames", "fps")] == [64, 64, 17, 8.0]


def test_a_refused_revision_is_pinned_by_what_the_remedy_prints(job: Job) -> None:
    path = job(prompts(1), models={"tiny": {"path": "builtin:tiny-sd", "batch_size": 1, "revision": "v1"}})
    refused = CliRunner().invoke(app, ["check", path])
    assert refused.exit_code == 2
    assert "models.tiny.revision: 'v1' is a name that can move" in " ".join(refused.output.split())

    printed = CliRunner().invoke(app, ["models", "pin", path]).stdout.splitlines()
    (pin,) = json.loads(CliRunner().invoke(app, ["models", "pin", path, "--json"]).stdout)["models"]
    assert printed == [f"models.tiny: {pin['path']}", f"  revision: {pin['revision']}"]
    assert CliRunner().invoke(app, ["check", path, "--set", f"models.tiny.revision={pin['revision']}"]).exit_code == 0


@pytest.mark.parametrize("path", sorted(path.name for path in (ROOT / "jobs").glob("*.yaml")))
def test_every_job_we_ship_is_a_valid_job(path: str) -> None:
    import sdbatch

    assert sdbatch.load_job(ROOT / "jobs" / path)


def test_check_and_plan_never_import_torch(job: Job) -> None:
    path = job(prompts(3))
    script = (
        "import sys, sdbatch; sdbatch.check(sys.argv[1]); sdbatch.plan(sys.argv[1]);"
        "sys.exit(1 if {'torch', 'ray', 'diffusers'} & sys.modules.keys() else 0)"
    )

    assert subprocess.run([sys.executable, "-c", script, path]).returncode == 0


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["models", "list", "--set", "seed=1"], "--set seed=1: overrides a value of a job; name the job too"),
        (["brief", "count", "brief.yaml", "--set", "seed=1"], "--set seed=1: overrides a value of a job"),
        (["brief", "preview", "brief.yaml", "--set", "seed=1"], "--set seed=1: overrides a value of a job"),
        (["brief", "build", "brief.yaml", "--to", "m", "--set", "seed=1"], "--set seed=1: overrides a value of a job"),
        (["plan", DEMO, "--date", "2026-11-26"], "manifests/demo/, has no ${date} to put it into"),
        ([*INSTALLED, "--exclude", "a"], "--exclude"),
        ([*INSTALLED, "--working-dir", "."], "--wor"),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else "",
)
def test_an_option_that_can_have_no_effect_is_refused(arguments: list[str], said: str) -> None:
    result = _call(*arguments)

    assert (result.exit_code, said in result.output) == (2, True), result.output
