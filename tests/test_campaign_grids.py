"""Grids: rows with every pair of values of two columns, beside the manifest's own rows."""

from __future__ import annotations

import io
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from conftest import LONG_ON_S3
from PIL import Image
from support.galleries import state_of
from typer.testing import CliRunner

import sdbatch
from sdbatch.campaign import layout
from sdbatch.campaign.campaign import Campaign
from sdbatch.campaign.effective import EffectiveRows
from sdbatch.campaign.files import run_ids
from sdbatch.cli import app
from sdbatch.driver import gallery
from sdbatch.driver.grid_axes import parse_axis
from sdbatch.errors import JobError, ManifestError
from sdbatch.storage import open_campaign
from sdbatch.verdicts import NO_VERDICTS

ROWS = [
    {"id": "fox", "prompt": "a red fox", "height": 64, "width": 64, "num_outputs": 2, "x_team": "north"},
    {"id": "owl", "prompt": "an owl", "height": 64, "width": 64, "num_outputs": 1, "x_team": "south"},
]
X, Y = "guidance_scale=1,3,5", "num_inference_steps=2,3"


@pytest.fixture
def job(write_manifest: Callable[..., str], job_of: Callable[..., dict[str, Any]]) -> dict[str, Any]:
    return job_of(write_manifest(ROWS), limits={"leaving_fraction": 0.0})


def _cells(output: str) -> list[dict[str, Any]]:
    """Return the metadata of the newest grid."""
    store = open_campaign(output, {})
    run = run_ids(store)[-1]
    parts = EffectiveRows(store, run, Campaign(store).history(), NO_VERDICTS, layout.grid_requests_folder(run)).parts()
    return [row for part in parts for row in part.to_pylist()]


@LONG_ON_S3
def test_a_grid_is_rendered_beside_the_manifest(campaign_url: str, job: dict[str, Any]) -> None:
    job["output"] = campaign_url
    sdbatch.run(job, in_process=True)
    before = sdbatch.metadata(campaign_url)
    assert sdbatch.plan_grid(job, X, Y, only=["fox"]).rows == {"new": 6}
    made = sdbatch.grid(job, X, Y, only=["fox"], in_process=True)
    cells = _cells(campaign_url)

    # The cell with the row's own values is the row's own picture, and all cells have its seed.
    assert (made.run.exit_code, made.run.counts["rows_generated"], made.run.counts["assets_copied"]) == (0, 5, 1)
    assert {row["seed"] for row in cells} == {before.column("seed")[0].as_py()}
    assert {row["status"] for row in cells} == {"ok"}
    assert len({row["sha256"] for row in cells}) == 6
    assert [(row["x_grid_x"], row["x_grid_y"]) for row in cells] == [(x, y) for y in "23" for x in "135"]
    assert {(row["x_grid"], row["x_grid_row"], row["x_team"]) for row in cells} == {
        ("guidance_scale-by-num_inference_steps", "fox", "north")
    }
    # It says nothing of the campaign, whose rows stand as they stood.
    assert made.run.campaign == {}
    assert sdbatch.status(campaign_url)["run_id"] == made.run.run_id
    assert sdbatch.status(campaign_url)["campaign"] == {"rows": 2, "made": 2, "failed": 0, "open": 0}
    # What it cost is told by the columns of its rows, as any other row's.
    cost = sdbatch.cost(campaign_url, ["x_team", "x_grid_row"]).table.select(["x_team", "x_grid_row", "assets"])
    assert sorted(map(str, (tuple(row.values()) for row in cost.to_pylist()))) == sorted(
        ["('north', None, 2)", "('south', None, 1)", "('north', 'fox', 6)"]
    )
    # Nothing leaves, nothing is in the way, and nothing is made twice, whichever axis a column is on.
    assert sdbatch.metadata(campaign_url).equals(before)
    again = sdbatch.run(job, in_process=True)
    assert (again.counts["model_calls"], again.rows_leaving, again.exit_code) == (0, 0, 0)
    assert sdbatch.metadata(campaign_url).select(["id", "sha256"]).equals(before.select(["id", "sha256"]))
    turned = sdbatch.grid(job, Y, X, only=["f*"], name="turned", in_process=True)
    assert (turned.run.counts["model_calls"], turned.run.counts["rows_reused"]) == (0, 6)
    assert {row["id"] for row in _cells(campaign_url)} == {row["id"] for row in cells}
    assert sdbatch.verify(campaign_url).is_good
    # An output of a grid can be the source of a row.
    chained = {
        "id": "next",
        "prompt": "",
        "task": "image-to-image",
        "images": [f"asset:{cells[1]['id']}/0"],
        "strength": 0.5,
    }
    assert _planned(job, [*ROWS, {**chained, "height": 64, "width": 64}]) == {"new": 1, "reused": 2}


def _planned(job: dict[str, Any], rows: list[dict[str, Any]]) -> dict[str, int]:
    path = Path(job["manifest"]).parent / "with-a-chain.parquet"
    pq.write_table(pa.Table.from_pylist(rows), path)
    return sdbatch.plan({**job, "manifest": str(path)}).rows


def test_its_page_and_its_sheet_show_every_cell(job: dict[str, Any]) -> None:
    # An axis of prompts, of which one makes its row fail.
    job["models"]["tiny"]["long_prompt"] = "error"
    long = " ".join(["word"] * 100)
    grid = sdbatch.grid(job, f'prompt=["<b>a, b</b>", {long}]', "seed=1,2", in_process=True)
    page = Path(grid.page).read_text(encoding="utf-8")
    sources = re.findall(r'<img [^>]*src="([^"]+)"', page)

    assert grid.run.exit_code == 3
    assert "default-src 'none'" in page
    assert "<script" not in page
    assert "http" not in page.replace('http-equiv="', "")
    assert "&lt;b&gt;a, b&lt;/b&gt;" in page
    assert "<b>a, b" not in page
    assert (len(sources), page.count("PromptTooLong")) == (4, 4)
    assert all((Path(grid.page).parent / source).is_file() for source in sources)
    with Image.open(io.BytesIO(Path(grid.sheet).read_bytes())) as sheet:
        assert sheet.format == "PNG"
        width, height = sheet.size
        colours = sheet.convert("RGB").getcolors(width * height)
    assert width > 2 * 256
    assert height > 4 * 256  # two rows of the manifest, two seeds
    assert colours is not None
    assert len(colours) > 500


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("guidance_scale", "an axis is COLUMN=VALUE,VALUE"),
        ("guidance=1,2", "did you mean guidance_scale"),
        ("id=a,b", "is no column that a grid can vary"),
        ("num_outputs=1,2", "is no column that a grid can vary"),
        ("guidance_scale=1,two", "guidance_scale 'two' "),
        ("guidance_scale=1,1.0", "a value stands twice"),
        ("seed=[1, 2", "is no list in YAML"),
        ("seed=" + ",".join(map(str, range(51))), "51 values are over 50"),
    ],
)
def test_an_axis_that_is_none_is_refused(text: str, message: str) -> None:
    with pytest.raises(JobError, match=re.escape(message)):
        parse_axis(text, "--x")


def test_axes_take_lists_and_mappings() -> None:
    loras = parse_axis("loras=[[{name: ink, weight: 0.5}], []]", "--x")
    assert loras.values == ([{"name": "ink", "weight": 0.5}], [])
    assert parse_axis("parameters=[{eta: 0.5}, {eta: 1}]", "--x").values == ('{"eta":0.5}', '{"eta":1}')
    assert parse_axis("prompt=['a, b', c]", "--x").values == ("a, b", "c")


def test_a_grid_leaves_the_gallery_as_it_is(job: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gallery, "GALLERY_EVERY_S", 0.0)
    sdbatch.run(job, in_process=True)
    report = Path(job["output"], "report")
    before = {path: path.read_bytes() for path in report.rglob("*") if path.is_file()}
    made = sdbatch.grid(job, X, in_process=True)

    assert made.run.counts["rows_ok"] > 0
    after = {path: path.read_bytes() for path in report.rglob("*") if path.is_file() and "grids" not in path.parts}
    assert after == before
    sdbatch.report(job["output"])
    assert state_of(Path(job["output"]))["state"] == "done"


def test_what_cannot_be_made_is_refused_before_anything_is_written(job: dict[str, Any]) -> None:
    for axes, more, error, message in (
        ((X, "guidance_scale=1"), {}, JobError, "--x and --y are both guidance_scale"),
        ((X,), {"only": ["foxx"]}, JobError, r"^foxx: the manifest has no such id; did you mean fox\?"),
        ((X,), {"name": "../up"}, JobError, "--name ../up: a name has"),
        (("height=63,64",), {}, ManifestError, r"63"),
        (("scheduler=Nope",), {"only": ["owl"]}, ManifestError, "Nope"),
    ):
        with pytest.raises(error, match=message):
            sdbatch.grid(job, *axes, in_process=True, **more)
    assert not Path(job["output"], "runs").exists()


def test_a_grid_ends_at_its_budget_and_goes_on_with_a_larger_one(job: dict[str, Any]) -> None:
    small, large = "0.0000001gpu_hours", "5gpu_hours"
    (line,) = sdbatch.plan_grid(job, X, only=["owl"], budget=small).budget
    assert line.startswith("limits.gpu_hours = ")
    ended = sdbatch.grid(job, X, only=["owl"], in_process=True, budget=small)

    assert (ended.run.exit_code, ended.run.state, ended.run.counts["rows_generated"]) == (6, "stopped", 0)
    assert "is reached" in str(ended.run.message)
    assert not Path(ended.page).exists()
    whole = sdbatch.grid(job, X, only=["owl"], in_process=True, budget=large)
    assert (whole.run.exit_code, whole.run.counts["rows_generated"]) == (0, 3)
    assert Path(whole.page).exists()


def test_the_command_shows_the_cost_and_waits_for_a_yes(job: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / "job.yaml").write_text(yaml.safe_dump(job))
    command = ["grid", str(tmp_path / "job.yaml"), "--x", X, "--only", "owl", "--in-process"]
    asked, dry = (CliRunner().invoke(app, [*command, *more]) for more in ([], ["--dry-run", "--json"]))

    assert (asked.exit_code, dry.exit_code) == (2, 0)
    assert "3 assets to make" in asked.stdout
    assert "in the model" in asked.stdout
    assert "nothing was rendered; --yes renders it" in asked.stderr
    assert json.loads(dry.stdout)["plan"]["rows"] == {"new": 3}
    assert not Path(job["output"], "runs").exists()
    refused = CliRunner().invoke(app, [*command, "--yes", "--budget", "12EUR"])
    assert (refused.exit_code, "the job has no prices" in refused.stderr) == (2, True)
    made = CliRunner().invoke(app, [*command, "--yes", "--budget", "1gpu_hours"])
    assert made.exit_code == 0, made.output
    assert f"sheet: {job['output']}/report/grids/guidance_scale/sheet.png" in made.stdout
    assert CliRunner().invoke(app, command).exit_code == 0  # all of it is there: nothing is asked
