"""A manifest that lets rows of its campaign leave: counted, and above a bound refused."""

from __future__ import annotations

import importlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from conftest import prompts
from support.stores import Killed
from typer.testing import CliRunner

import sdbatch
from sdbatch.cli import app
from sdbatch.driver.picking import Selection
from sdbatch.errors import UserError

Values = dict[str, Any]
WRONG = "a wrong or shorter manifest on a campaign"


@pytest.fixture
def begun(write_manifest: Callable[..., str], job_of: Callable[..., Values], tmp_path: Path) -> Callable[..., Values]:
    """A campaign of six rows, and jobs on it with other manifests."""
    sdbatch.run(job_of(write_manifest(prompts(6), name="whole")), in_process=True)

    def make(rows: list[Values], **changes: Any) -> Values:
        return job_of(write_manifest(rows, name=f"rows-{len(rows)}"), **changes)

    return make


@pytest.mark.fault("F21", WRONG, "plan counts the rows that leave, with ids")
def test_plan_and_check_count_the_rows_that_leave(begun: Callable[..., Values]) -> None:
    values = begun(prompts(4))
    plan = sdbatch.plan(values)
    checked = sdbatch.check(values)

    assert plan.rows_leaving == checked.rows_leaving == 2
    said = "2 of 6 rows of the campaign are not in this manifest and leave its metadata and gallery; their assets stay"
    assert plan.warnings == [f"{said} (row-0004, row-0005)"]
    assert checked.warnings[0].message == plan.warnings[0]
    assert sdbatch.plan(begun(prompts(7))).rows_leaving == 0


@pytest.mark.fault("F21", WRONG, "the run's summary counts them; up to half of them need no word")
def test_a_run_lets_few_rows_leave_and_says_so(begun: Callable[..., Values]) -> None:
    values = begun(prompts(3))
    result = sdbatch.run(values, in_process=True)

    assert result.exit_code == 0
    assert result.rows_leaving == 3
    assert result.warnings[0].startswith("3 of 6 rows of the campaign are not in this manifest")
    assert sdbatch.metadata(values["output"]).num_rows == 3
    again = sdbatch.run(begun(prompts(6)), in_process=True)
    assert (again.counts["model_calls"], again.rows_leaving) == (0, 0)


@pytest.mark.fault(
    "F21", "a manifest without more than half of the campaign's rows", "exit 2 until --yes, nothing written"
)
def test_a_run_that_lets_most_rows_leave_is_refused_until_yes(begun: Callable[..., Values], tmp_path: Path) -> None:
    values = begun([{"id": "other", "prompt": "p"}])
    before = sorted(path for path in Path(values["output"]).rglob("*"))
    path = tmp_path / "job.yaml"
    path.write_text(json.dumps(values))
    refused = CliRunner().invoke(app, ["run", str(path), "--in-process"])

    assert refused.exit_code == 2
    assert "6 of 6 rows of the campaign are not in this manifest" in refused.output
    assert "over limits.leaving_fraction = 0.5" in refused.output
    assert "--yes" in refused.output
    assert sorted(Path(values["output"]).rglob("*")) == before
    told = json.loads(CliRunner().invoke(app, ["run", str(path), "--in-process", "--yes", "--json"]).stdout)
    assert (told["exit_code"], told["rows_leaving"]) == (0, 6)


def test_the_bound_is_the_jobs_own(begun: Callable[..., Values]) -> None:
    with pytest.raises(UserError, match=r"17%, over limits.leaving_fraction = 0.1"):
        sdbatch.run(begun(prompts(5), limits={"leaving_fraction": 0.1}), in_process=True)
    assert sdbatch.run(begun(prompts(1), limits={"leaving_fraction": 1.0}), in_process=True).rows_leaving == 5


@pytest.mark.fault("F21", "--only and --limit on the right manifest", "no row leaves")
def test_selections_never_count(begun: Callable[..., Values]) -> None:
    for selection in (Selection(limit=1), Selection(only=frozenset({"row-0000"}))):
        result = sdbatch.run(begun(prompts(6)), selection, in_process=True)
        assert result.rows_leaving == 0
        assert sdbatch.metadata(result.output).num_rows == 6


def test_a_row_that_was_renamed_stays(write_manifest: Callable[..., str], job_of: Callable[..., Values]) -> None:
    rows = [{"id": f"r{number}", "prompt": "p", "seed": number} for number in range(4)]
    sdbatch.run(job_of(write_manifest(rows, name="before")), in_process=True)
    renamed = [{**row, "id": f"new-{row['id']}"} for row in rows]
    result = sdbatch.run(job_of(write_manifest(renamed, name="after")), in_process=True)

    assert (result.exit_code, result.rows_leaving, result.counts["assets_copied"]) == (0, 0, 4)


def test_rows_of_which_nothing_was_made_do_not_count(
    write_manifest: Callable[..., str], job_of: Callable[..., Values]
) -> None:
    first = job_of(write_manifest(prompts(6), name="six"))
    sdbatch.run(first, Selection(limit=2), in_process=True)

    assert sdbatch.plan(job_of(write_manifest(prompts(2), name="two"))).rows_leaving == 0
    plan = sdbatch.plan(job_of(write_manifest(prompts(1), name="one")))
    assert plan.rows_leaving == 1
    assert plan.warnings[0].startswith("1 of 2 rows of the campaign are not in this manifest")


@pytest.mark.parametrize("parts_written", [0, 1, 2])
def test_a_manifest_that_a_killed_run_wrote_in_part_lets_no_row_leave(
    begun: Callable[..., Values], monkeypatch: pytest.MonkeyPatch, parts_written: int
) -> None:
    def dies(_: str) -> None:
        nonlocal parts_written
        if not parts_written:
            raise Killed
        parts_written -= 1

    scan = importlib.import_module("sdbatch.driver.rows.scan")
    monkeypatch.setattr(scan, "PART_ROWS", 1)  # the manifest is read in one batch a shard: three parts
    shards = ["a", "b", "c"]
    values = begun(prompts(6))
    output = values["output"]
    for place, name in enumerate(shards):
        part = [{**row, "x_price": 7} for row in prompts(6)[2 * place : 2 * place + 2]]
        pq.write_table(pa.Table.from_pylist(part), Path(values["manifest"]).parent / f"edited-{name}.parquet")
    edited = {**values, "manifest": str(Path(values["manifest"]).parent / "edited-*.parquet")}
    with monkeypatch.context() as patch:
        patch.setattr(scan, "reached", dies)
        with pytest.raises(Killed):
            sdbatch.run(edited, in_process=True)

    assert sdbatch.metadata(output).num_rows == 6
    assert "x_price" not in sdbatch.metadata(output).column_names
    with pytest.raises(UserError, match=r"5 of 6 rows of the campaign are not in this manifest"):
        sdbatch.run(begun(prompts(1)), in_process=True)
    sdbatch.run(edited, in_process=True)
    assert sdbatch.metadata(output).column("x_price").to_pylist() == [7] * 6
    assert sdbatch.metadata(output).column("id").to_pylist() == [row["id"] for row in prompts(6)]
