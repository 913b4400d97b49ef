"""What a campaign has cost adds up to what its runs recorded, however it is told."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from conftest import prompts
from support.paced import STEP_S
from typer.testing import CliRunner

import sdbatch
from sdbatch import Selection
from sdbatch.campaign import layout
from sdbatch.cli import app
from sdbatch.driver.cost import campaign_cost
from sdbatch.driver.run import run_job
from sdbatch.errors import JobError
from sdbatch.job import parse_job
from sdbatch.report.progress import Silent
from sdbatch.storage import open_store

STEPS = 4
ROUNDED = 1e-4
"""Share by which two sums may differ: seconds are recorded to the microsecond, and a run of one row takes 0.1 s."""
Values = dict[str, Any]
GROUPINGS = [(), ("run",), ("x_product",), ("x_product", "run"), ("model", "task"), ("width", "x_product")]


@pytest.fixture(scope="module")
def campaign(tmp_path_factory: pytest.TempPathFactory) -> Values:
    """Three runs: a preview, the rest at another price, and an edited prompt beside a product that got a new name."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    folder = tmp_path_factory.mktemp("cost")
    values: Values = {
        "manifest": str(folder / "rows.parquet"),
        "output": str(folder / "campaign"),
        "models": {
            "tiny": {"path": "builtin:tiny-random", "batch_size": 4},
            "wide": {"path": "builtin:tiny-random", "batch_size": 4, "num_gpus": 2.0},
        },
        "defaults": {"task": "text-to-image", "num_inference_steps": STEPS},
        "seed": 3,
    }
    rows = [
        {
            **row,
            "model": "wide" if n % 4 == 3 else "tiny",
            "x_product": ["mug", "cup"][n % 2],
            "width": 64 + 64 * (n % 3 == 0),
        }
        for n, row in enumerate(prompts(12))
    ]

    def run(limit: int | None, price: float, changed: list[Values]) -> None:
        pq.write_table(pa.Table.from_pylist(changed), values["manifest"])
        job = parse_job({**values, "prices": {"gpu_hour": price, "currency": "EUR"}})
        run_job(
            job,
            selection=Selection(limit=limit),
            in_process=True,
            progress=Silent(),
            worker="support.paced:PacedWorker",
        )

    run(5, 2.0, rows)
    run(None, 4.0, rows)
    run(None, 4.0, [{**rows[0], "prompt": "edited"}, {**rows[1], "x_product": "jar"}, *rows[2:]])
    return values


def _records(values: Values) -> list[Values]:
    return [json.loads(path.read_text()) for path in sorted(Path(values["output"]).glob("runs/*/run.json"))]


@pytest.mark.parametrize("by", GROUPINGS)
def test_every_grouping_adds_up_to_the_runs_own_records(campaign: Values, by: tuple[str, ...]) -> None:
    report = sdbatch.cost(campaign["output"], by)
    own = [record["spending"]["own"] for record in _records(campaign)]
    total = report.total()

    assert len(own) == 3
    assert total["worker_gpu_s"] == pytest.approx(sum(one["gpu_s"] for one in own), rel=ROUNDED)
    assert total["cost"] == pytest.approx(sum(one["priced"]["EUR"][1] for one in own), rel=ROUNDED)
    assert total["assets"] == 12 + 1
    assert report.currency == "EUR"
    actual = sum(
        model["actual_s"] * (2.0 if name == "wide" else 1.0)
        for record in _records(campaign)
        for name, model in record["forecast"]["models"].items()
    )
    assert total["model_gpu_s"] == pytest.approx(actual, rel=ROUNDED)


def test_a_run_costs_what_it_recorded(campaign: Values) -> None:
    told = {row["run"]: row for row in sdbatch.cost(campaign["output"], ["run"]).table.to_pylist()}

    for record in _records(campaign):
        own = record["spending"]["own"]
        assert told[record["run_id"]]["worker_gpu_s"] == pytest.approx(own["gpu_s"], rel=ROUNDED)
        assert told[record["run_id"]]["cost"] == pytest.approx(own["priced"]["EUR"][1], rel=ROUNDED)
    assert [told[record["run_id"]]["assets"] for record in _records(campaign)] == [5, 7, 1]


def test_time_without_a_price_counts_at_the_newest_as_it_does_toward_a_budget(campaign: Values, tmp_path: Path) -> None:
    output = shutil.copytree(campaign["output"], tmp_path / "campaign")
    first, *others = sorted(output.glob("runs/*/run.json"))
    unpriced = json.loads(first.read_text())
    unpriced["prices"] = None
    first.write_text(json.dumps(unpriced))
    report = sdbatch.cost(str(output), ["run"])
    own = [json.loads(file.read_text())["spending"]["own"] for file in others]
    told = {row["run"]: row["cost"] for row in report.table.to_pylist()}

    at_newest = unpriced["spending"]["own"]["gpu_s"] / 3600 * 4.0
    assert told[unpriced["run_id"]] == pytest.approx(at_newest, rel=ROUNDED)
    assert report.total()["cost"] == pytest.approx(at_newest + sum(one["priced"]["EUR"][1] for one in own), rel=ROUNDED)
    assert report.notes == [
        f"1 run(s) had no price; their time counts at 4.00 EUR a GPU hour, which {others[-1].parent.name} had"
    ]
    for file in others:
        file.write_text(json.dumps({**json.loads(file.read_text()), "prices": None}))
    assert (sdbatch.cost(str(output)).total()["cost"], sdbatch.cost(str(output)).notes) == (None, [])


def test_rows_are_told_by_what_their_newest_manifest_calls_them(campaign: Values) -> None:
    told = {row["x_product"]: row for row in sdbatch.cost(campaign["output"], ["x_product"]).table.to_pylist()}

    assert {name: row["assets"] for name, row in told.items()} == {"mug": 7, "cup": 5, "jar": 1}
    wide = sdbatch.cost(campaign["output"], ["model"]).table.to_pylist()
    of_wide = next(row for row in wide if row["model"] == "wide")
    seconds = STEP_S * STEPS * (2 + 1 + 1)  # rows 3, 7 and 11; row 3 is twice as wide
    assert of_wide["model_gpu_s"] == pytest.approx(2.0 * seconds)


def test_an_approved_asset_carries_what_the_others_cost(campaign: Values) -> None:
    store = open_store(campaign["output"], {})
    files = [
        (row["id"], row["request_key"], row["n"], row["sha256"])
        for row in sdbatch.metadata(campaign["output"]).to_pylist()
    ]
    report = campaign_cost(store, ["x_product"], lambda: frozenset(files[:3]))
    total = report.total()

    assert (report.approved, total["approved"]) == (3, 3)
    assert total["cost_per_approved"] == pytest.approx(total["cost"] / 3)
    assert total["cost_per_asset"] == pytest.approx(total["cost"] / 13)
    unseen = campaign_cost(store, ["x_product"])
    assert unseen.approved is None
    assert set(unseen.table.column("approved").to_pylist()) == {None}


def test_time_that_no_row_used_stands_in_a_line_of_its_own(campaign: Values, tmp_path: Path) -> None:
    store = open_store(str(tmp_path), {})
    run = layout.run_id(1, "20260101T000000Z")
    record = _records(campaign)[0]
    store.put_new(layout.run_json(run), json.dumps({**record, "run_id": run}).encode())
    (row,) = campaign_cost(store, ["run", "model"]).table.to_pylist()

    assert (row["run"], row["model"], row["assets"]) == (run, None, 0)
    assert row["worker_gpu_s"] == pytest.approx(record["spending"]["own"]["gpu_s"], rel=ROUNDED)


def test_a_column_that_is_not_there_is_named(campaign: Values) -> None:
    with pytest.raises(JobError, match="--by colour: the metadata has no such column"):
        sdbatch.cost(campaign["output"], ["colour"])
    with pytest.raises(JobError, match="--by x_colour: no manifest of the campaign has such a column"):
        sdbatch.cost(campaign["output"], ["x_colour"])


@pytest.mark.parametrize("by", GROUPINGS)
def test_money_in_several_currencies_is_told_by_each(campaign: Values, tmp_path: Path, by: tuple[str, ...]) -> None:
    output = shutil.copytree(campaign["output"], tmp_path / "campaign")
    first, second, newest = sorted(output.glob("runs/*/run.json"))
    records = {path: json.loads(path.read_text()) for path in (first, second, newest)}
    first.write_text(json.dumps({**records[first], "prices": {"gpu_hour": 2.0, "currency": "USD"}}))
    second.write_text(json.dumps({**records[second], "prices": None}))
    report = sdbatch.cost(str(output), by)
    gpu_s = [record["spending"]["own"]["gpu_s"] for record in records.values()]
    rows = report.table.to_pylist()
    sums = {name: sum(row["cost"] for row in rows if row["currency"] == name) for name in ("EUR", "USD")}
    shown = CliRunner().invoke(app, ["cost", str(output), "--by", ",".join(by)], env={"COLUMNS": "160"})

    assert report.by == (*by, "currency")
    assert sums == {
        "EUR": pytest.approx((gpu_s[1] + gpu_s[2]) / 3600 * 4.0, rel=ROUNDED),
        "USD": pytest.approx(gpu_s[0] / 3600 * 2.0, rel=ROUNDED),
    }
    assert (report.currency, report.total()["cost"], report.total()["assets"]) == (None, None, 13)
    assert "runs had prices in EUR and USD, which do not add up to a sum" in report.notes
    assert (shown.exit_code, " EUR" in shown.output, " USD" in shown.output) == (0, True, True)


def test_the_command_prints_groups_and_their_sum(campaign: Values) -> None:
    shown = CliRunner().invoke(app, ["cost", campaign["output"], "--by", "x_product"], env={"COLUMNS": "120"})
    told = json.loads(CliRunner().invoke(app, ["cost", campaign["output"], "--by", "x_product", "--json"]).output)

    assert shown.exit_code == 0
    assert [line.split()[1] for line in shown.output.splitlines() if "GPU seconds" in line][-1] == "all"
    assert told["total"]["assets"] == sum(row["assets"] for row in told["rows"]) == 13
    assert told["currency"] == "EUR"
