"""The verbs that pick rows: what is left out stays as it is, in the campaign too."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from conftest import asset_digests
from typer.testing import CliRunner

import sdbatch
from sdbatch.cli import app
from sdbatch.driver.picking import Selection
from sdbatch.errors import JobError, UserError

ROWS = [
    {"id": f"{name}-{number}", "prompt": f"a {name}", "x_product": name, "x_price": price, "seed": seed}
    for name, number, price, seed in [
        ("mug", 1, 5.0, 1),
        ("mug", 2, 8.0, 2),
        ("mug", 3, None, 3),
        ("lamp", 1, 40.0, 4),
        ("lamp", 2, 50.0, 5),
    ]
]


@pytest.fixture
def job(write_manifest: Callable[..., str], job_of: Callable[..., dict[str, Any]]) -> dict[str, Any]:
    return job_of(write_manifest(ROWS, shards=2))


def _ids(output: str, selection: Selection | None = None) -> list[str]:
    return sdbatch.metadata(output, selection).column("id").to_pylist()  # type: ignore[no-any-return]


def test_plan_and_run_make_what_is_picked_and_nothing_leaves(job: dict[str, Any]) -> None:
    pricey = Selection(where="x_price > 6 and model == 'tiny'")
    planned = sdbatch.plan(job, pricey)
    ran = sdbatch.run(job, pricey, in_process=True)
    spread = Selection(sample=1, per=("x_product",))
    sample = sdbatch.plan(job, spread)
    limited = sdbatch.plan(job, Selection(only=frozenset({"mug-*"}), limit=1))

    assert (planned.rows, planned.assets) == ({"new": 3, "unselected": 2}, 3)
    assert (ran.counts["rows_ok"], ran.rows_leaving) == (3, 0)
    assert _ids(job["output"]) == ["mug-2", "lamp-1", "lamp-2"]
    assert sample.rows["unselected"] == 3
    assert limited.rows == {"new": 1, "reused": 1, "unselected": 3}
    rest = sdbatch.run(job, in_process=True)
    assert (rest.counts["rows_ok"], rest.counts["rows_reused"], rest.rows_leaving) == (2, 3, 0)
    narrow = sdbatch.run(job, Selection(where="x_price == null"), in_process=True)
    assert (narrow.counts["model_calls"], narrow.rows_leaving) == (0, 0)
    assert len(_ids(job["output"])) == 5
    assert _ids(job["output"], Selection(where="x_price == null and status == 'ok' and width > 0")) == ["mug-3"]
    assert _ids(job["output"], Selection(only=frozenset({"lamp-*"}))) == ["lamp-1", "lamp-2"]
    with pytest.raises(UserError, match=r"--where: .*duration_s is no column here"):
        sdbatch.metadata(job["output"], Selection(where="duration_s > 1"))


def test_a_gallery_of_picked_rows_shows_them_alone(job: dict[str, Any]) -> None:
    sdbatch.run(job, in_process=True)

    def shown() -> str:
        """Return all texts of the gallery: the page and the files that it loads."""
        return "".join(file.read_text() for file in Path(job["output"], "report").rglob("*") if file.suffix == ".js")

    assert "mug-1" in shown()
    with pytest.raises(JobError, match="the campaign has no such id"):
        sdbatch.report(job["output"], Selection(only=frozenset({"cup-1"})))
    assert "mug-1" in shown()

    sdbatch.report(job["output"], Selection(where="x_product == 'lamp'"))

    assert "lamp-1" in shown()
    assert "mug-1" not in shown()


def test_redo_makes_picked_damaged_assets_again_and_forced_ones_whole_or_not(job: dict[str, Any]) -> None:
    sdbatch.run(job, in_process=True)
    before = asset_digests(job["output"])
    names = {name.removeprefix("assets/").rsplit("-", 2)[0]: name for name in before}
    for request_id in ("mug-1", "lamp-1"):
        Path(job["output"], names[request_id]).write_bytes(b"damaged")
    with pytest.raises(JobError, match="redo --force: makes whole assets again"):
        sdbatch.redo(job, force=True, in_process=True)

    first = sdbatch.redo(job, selection=Selection(where="x_product == 'lamp'"), in_process=True)
    assert first is not None
    assert first.counts["assets_put"] == 1
    damaged = asset_digests(job["output"])
    assert damaged[names["lamp-1"]] == before[names["lamp-1"]]
    assert damaged[names["mug-1"]] != before[names["mug-1"]]

    written = Path(job["output"], names["mug-2"])
    inode = written.stat().st_mtime_ns
    forced = sdbatch.redo(job, ["mug-1", "mug-2"], force=True, in_process=True)
    assert forced is not None
    assert (forced.counts["assets_put"], forced.counts["rows_reused"]) == (2, 0)
    assert written.stat().st_mtime_ns != inode
    assert asset_digests(job["output"]) == before
    assert sdbatch.verify(job["output"]).is_good
    assert sdbatch.redo(job, selection=Selection(where="x_product == 'mug'"), in_process=True) is None


def test_a_forced_redo_makes_the_output_again_that_replaced_a_rejected_one(job: dict[str, Any]) -> None:
    sdbatch.run(job, in_process=True)
    sdbatch.review(job["output"], reject=["mug-1"])
    sdbatch.run(job, Selection(is_rerolling=True), in_process=True)
    key = sdbatch.metadata(job["output"], Selection(only=frozenset({"mug-1"}))).column("request_key")[0].as_py()
    rejected, further = (Path(job["output"], "assets", f"mug-1-{key[:8]}-{n}.png") for n in (0, 1))
    before = asset_digests(job["output"])
    written = {path: path.stat().st_mtime_ns for path in (rejected, further)}

    forced = sdbatch.redo(job, ["mug-1"], force=True, in_process=True)

    assert forced is not None
    assert forced.counts["assets_put"] == 1
    assert rejected.stat().st_mtime_ns == written[rejected]
    assert further.stat().st_mtime_ns != written[further]
    assert asset_digests(job["output"]) == before
    shown = sdbatch.metadata(job["output"], Selection(only=frozenset({"mug-1"}))).to_pylist()
    assert [(row["n"], row["replaces"], row["verdict"]) for row in shown] == [(1, 0, None)]
    assert sdbatch.verify(job["output"]).is_good


def test_the_command_line_reads_ids_from_a_pipe_and_says_what_is_wrong_with_an_expression(
    job: dict[str, Any], tmp_path: Path
) -> None:
    path = tmp_path / "job.yaml"
    path.write_text(json.dumps(job))

    def call(*arguments: str, given: str = "") -> Any:
        return CliRunner().invoke(app, list(arguments), input=given)

    piped = call("plan", str(path), "--only-from", "-", "--json", given="mug-1\nlamp-2\n")
    assert json.loads(piped.stdout)["rows"] == {"new": 2, "unselected": 3}
    wrong = call("run", str(path), "--in-process", "--where", "x_pric > 3")
    assert (wrong.exit_code, wrong.stderr.count("\n")) == (2, 1)
    assert "did you mean x_price?" in wrong.stderr
    assert not Path(job["output"]).exists()
    assert call("plan", str(path), "--per", "x_product").exit_code == 2
    spread = call("plan", str(path), "--sample", "1", "--per", "x_product", "--json")
    assert json.loads(spread.stdout)["rows"] == {"new": 2, "unselected": 3}
    assert call("run", str(path), "--in-process", "--only", "mug-*").exit_code == 0
    kept = call("metadata", str(path), "--where", "x_price < 6", "--json")
    assert json.loads(kept.stdout)["rows"] == 1
