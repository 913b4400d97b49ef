"""`sdbatch run` with its own Ray as a user of no account, without a home."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from conftest import prompts
from support.strangers import STRANGER, needs_root, run_as_stranger

import sdbatch

pytestmark = pytest.mark.ray
ROOT = Path(sdbatch.__file__).parents[1]


@pytest.mark.long
@needs_root
@pytest.mark.fault("F33", "a user id of no account, HOME not set, `run` with Ray", "exit 0, every row made")
def test_a_stranger_without_a_home_runs_a_campaign(
    tmp_path: Path, write_manifest: Callable[..., str], job_of: Callable[..., Any]
) -> None:
    for folder in (tmp_path, *tmp_path.parents):
        if folder == Path("/tmp"):
            break
        folder.chmod(0o755)
    (hold := tmp_path / "hold").mkdir()
    (own := tmp_path / "own").mkdir()
    os.chown(own, STRANGER, 0)
    path = tmp_path / "job.json"
    path.write_text(json.dumps(job_of(write_manifest(prompts(3)), str(own / "campaign"), workers={"count": 1})))
    environment = {"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT), "TMPDIR": "/tmp", "OMP_NUM_THREADS": "1"}
    before = set(Path("/tmp").glob("sdb-ray-*"))
    done = run_as_stranger(
        [sys.executable, "-m", "sdbatch", "run", str(path), "--json"], environment, hold, timeout_s=240
    )

    assert done.returncode == 0, done.stderr[-3000:]
    counts = json.loads(done.stdout)["counts"]
    assert (counts["rows_ok"], counts["rows_failed"], counts["worker_deaths"]) == (3, 0, 0)
    assert "Traceback" not in done.stderr
    assert {file.stat().st_uid for file in (own / "campaign").rglob("*.png")} == {STRANGER}
    assert set(Path("/tmp").glob("sdb-ray-*")) - before == set()
