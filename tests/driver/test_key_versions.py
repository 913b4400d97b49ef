"""A campaign whose keys an older version made is not rendered again by surprise."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import sdbatch
from sdbatch.driver.one_run.key_versions import recorded_key_version
from sdbatch.errors import UserError
from sdbatch.recipe import KEY_VERSION
from sdbatch.storage import open_store

FIXTURE = Path(__file__).parents[1] / "fixtures" / "campaign_0_1"
ROWS = ["mug-0", "mug-1"]


def _campaign(folder: Path, ids: list[str]) -> dict[str, Any]:
    """Return a job for a copy of the campaign of version 0.1, with a manifest of some of its rows or of others."""
    shutil.copytree(FIXTURE / "campaign", folder / "campaign", dirs_exist_ok=True)
    rows = {"id": ids, "prompt": [f"a mug on table {number}" for number in range(len(ids))]}
    pq.write_table(pa.table(rows), folder / "rows.parquet")
    return {
        "manifest": str(folder / "rows.parquet"),
        "output": str(folder / "campaign"),
        "models": {"pictures": {"path": "builtin:tiny-random", "batch_size": 2}},
        "defaults": {"task": "text-to-image", "num_inference_steps": 2, "guidance_scale": 3.0},
        "determinism": "exact",
        "limits": {"leaving_fraction": 1.0},
        "seed": 11,
    }


def _files(folder: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_run_on_older_keys_is_refused_with_number_and_cost_and_writes_nothing(tmp_path: Path) -> None:
    job = _campaign(tmp_path, ROWS)
    before = _files(tmp_path)

    with pytest.raises(
        UserError, match=r"^2 of 2 outputs have keys of version 1.* \(2 rows\) would take about "
    ) as told:
        sdbatch.run(job, in_process=True)
    assert told.value.exit_code == 2
    assert "--accept-new-keys" in str(told.value)
    assert _files(tmp_path) == before


def test_new_keys_are_accepted_once(tmp_path: Path) -> None:
    job = _campaign(tmp_path, ROWS)
    one = sdbatch.run(job, sdbatch.Selection(only=frozenset(ROWS[:1])), in_process=True, accept_new_keys=True)
    rest = sdbatch.run(job, in_process=True)

    assert (one.counts["assets_put"], rest.counts["assets_put"], rest.counts["rows_reused"]) == (1, 1, 1)
    newest = max((tmp_path / "campaign/runs").iterdir())
    assert json.loads((newest / "run.json").read_text())["key_version"] == KEY_VERSION


def test_rows_that_are_new_need_nobody_s_leave_and_give_none_for_the_others(tmp_path: Path) -> None:
    fresh = sdbatch.run(_campaign(tmp_path, ["new"]), in_process=True)

    assert fresh.counts["assets_put"] == 1
    assert recorded_key_version(open_store(str(tmp_path / "campaign"), {})) == 1
    with pytest.raises(UserError, match="keys of version 1"):
        sdbatch.run(_campaign(tmp_path, ROWS), in_process=True)


def test_how_masters_are_stored_renders_nothing_again(tmp_path: Path) -> None:
    job = {**_campaign(tmp_path, ["new"]), "output": str(tmp_path / "fresh")}
    sdbatch.run(job, in_process=True)
    again = sdbatch.run({**job, "encode": {"image": "jpg", "quality": 80}}, in_process=True)

    assert (again.counts["rows_reused"], again.counts["model_calls"]) == (1, 0)
