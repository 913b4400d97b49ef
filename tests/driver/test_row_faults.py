"""What a row holds is that row's problem, whatever it is: told by its id, beside every other row's, in words."""

from __future__ import annotations

import json
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from support.galleries import columns_of, state_of

import sdbatch
from sdbatch.checkpoints import describe
from sdbatch.errors import ManifestError, Problem
from sdbatch.job import parse_job
from sdbatch.manifest.build import build_shards
from sdbatch.plan.each_row import resolve_each
from sdbatch.plan.resolve import Resolver

fault = pytest.mark.fault
JobOf = Callable[..., dict[str, Any]]
VIDEO = {"task": "text-to-video", "model": "clip"}
MODELS = {
    name: {"path": f"builtin:tiny-{kind}", "batch_size": 1} for name, kind in (("tiny", "random"), ("clip", "video"))
}
DIGITS = "9" * 400


def _problems(job: dict[str, Any]) -> list[Problem]:
    with pytest.raises(ManifestError) as caught:
        sdbatch.check(job)
    return caught.value.problems


@pytest.mark.parametrize(
    ("row", "column", "message"),
    [
        pytest.param({**VIDEO, "duration_s": 1e308, "fps": 240.0}, "duration_s", "is not over 0 and at most 86400",
                     marks=fault("S11", "duration_s 1e308", "refused by its row")),
        pytest.param({"parameters": f'{{"guidance_rescale": {DIGITS}}}'}, "parameters", "which is not in -1000..1000",
                     marks=fault("S11", "a parameter of 400 digits", "refused by its row")),
        pytest.param({"parameters": f'{{"clip_skip": {DIGITS}}}'}, "parameters", "which is not in 0..32",
                     marks=fault("S11", "clip_skip of 400 digits", "refused by its row")),
        pytest.param({"parameters": '{"clip_skip": 1, "clip_skip": 2}'}, "parameters", "stands twice in one object",
                     marks=fault("F8", "a parameter that stands twice", "refused by its row")),
        pytest.param({"parameters": "[" * 60_000}, "parameters", "is not JSON",
                     marks=fault("S11", "JSON of 60,000 brackets", "refused by its row")),
        pytest.param({"task": "image-to-image", "images": ["x" * 300]}, "images", "holds a name of 300 bytes, over 255",
                     marks=fault("S11", "a file name of 300 characters", "refused by its row")),
        pytest.param({"task": "image-to-image", "images": ["a/" * 4000 + "x"]}, "images", "characters, over 4000",
                     marks=fault("S11", "a path of 8,000 characters", "refused by its row")),
        pytest.param({"seed_group": "a\x1b[31mb"}, "seed_group", "holds the control character U+001B",
                     marks=fault("S11", "a terminal escape in seed_group", "refused by its row")),
    ],
)  # fmt: skip
def test_an_odd_row_is_refused_by_itself(
    row: dict[str, Any], column: str, message: str, tmp_path: Path, job_of: JobOf
) -> None:
    rows = [
        {"id": "good", "prompt": "p"},
        {"id": "odd", "prompt": "p", **row},
        {"id": "late", "height": 3, "prompt": "p"},
    ]
    names = list(dict.fromkeys(name for each in rows for name in each))
    pq.write_table(pa.table({name: [each.get(name) for each in rows] for name in names}), tmp_path / "a.parquet")
    job = job_of(str(tmp_path / "a.parquet"), models=MODELS, defaults={"task": "text-to-image", "model": "tiny"})
    found = {(problem.row, problem.column): problem for problem in _problems(job)}

    assert set(found) == {(1, column), (2, "height")}
    assert message in found[1, column].message
    assert found[1, column].id == "odd"
    assert len(str(found[1, column])) < 600


@pytest.mark.parametrize("seeds", [[None, None], [7, 8], [None, 8]], ids=["no seeds", "seeds", "a seed"])
def test_a_row_without_an_id_is_told_once_and_in_words(seeds: list[int | None], tmp_path: Path, job_of: JobOf) -> None:
    columns = {"prompt": ["p", "q"], "seed": pa.array(seeds, pa.int64())}
    job = job_of(str(tmp_path / "a.parquet"), models=MODELS, defaults={"task": "text-to-image", "model": "tiny"})

    pq.write_table(pa.table({"id": ["good", None], **columns}), tmp_path / "a.parquet")
    assert [(one.row, one.column, one.message) for one in _problems(job)] == [(1, "id", "is missing")]
    pq.write_table(pa.table(columns), tmp_path / "a.parquet")
    assert [(one.row, one.column, one.message) for one in _problems(job)] == [
        (None, "id", "is missing; every row needs one")
    ]


@fault("S11", "a value that no check foresaw", "that row's problem; its neighbours are resolved")
def test_what_a_row_raises_is_its_own_problem() -> None:
    job = parse_job({"manifest": "m", "output": "o", "models": {"tiny": {"path": "builtin:tiny-sd"}}})
    models = {"tiny": describe("tiny", job.models["tiny"], {})}
    resolver = Resolver(job, models, lambda _: None, lambda url: url, loads_here=False)
    ids = [f"row-{number}" for number in range(9)]
    columns: dict[str, list[Any]] = {
        "id": ids,
        "task": ["text-to-image"] * 9,
        "prompt": ["p"] * 9,
        "height": [None] * 4 + ["tall"] + [None] * 4,
    }
    with pytest.raises(TypeError):
        resolver.resolve(columns, 9, {})
    rows, problems = resolve_each(resolver, columns, 9, {})

    assert rows.id == [name for name in ids if name != "row-4"]
    assert len(set(rows.request_key.to_pylist())) == 8
    assert [(problem.offset, problem.column) for problem in problems] == [(4, None)]
    assert problems[0].message.startswith("cannot be planned: TypeError: ")


@fault("S11", "a row that `check` refuses in a built manifest", "named by the line of the table and its id")
def test_a_problem_of_a_built_manifest_names_the_line_of_its_table(tmp_path: Path, job_of: JobOf) -> None:
    table = tmp_path / "scenes.csv"
    table.write_text('id,prompt,height\na,"one\ntwo",\nb,p,\n\nc,p,7\nd,p,9\n')
    build_shards(table, tmp_path / "m", shards=2)
    found = _problems(job_of(str(tmp_path / "m")))

    assert [(problem.line, problem.id, problem.source) for problem in found] == [
        (6, "c", "scenes.csv"),
        (7, "d", "scenes.csv"),
    ]
    assert str(found[0]).startswith("line 6 of scenes.csv (c): height 7 is not a multiple of 8")


def test_a_value_that_was_refused_is_told_once(tmp_path: Path, job_of: JobOf) -> None:
    pq.write_table(pa.table({"id": ["a"], "prompt": [1.5]}), tmp_path / "a.parquet")
    (problem,) = _problems(job_of(str(tmp_path / "a.parquet")))
    assert str(problem).endswith(
        "row 1 of " + str(tmp_path / "a.parquet") + " (a): prompt 1.5 is a number; this column takes text alone"
    )
    assert json.dumps(problem.value) == '"1.5"'


@fault("S9", "x_ columns of every type that is let in", "carried into metadata, gallery and every written file")
def test_columns_of_one_s_own_never_end_a_run(tmp_path: Path, job_of: JobOf) -> None:
    days = [-719_162, 2_932_896]
    own = {
        "x_first_and_last_day": pa.array(days, pa.date32()),
        "x_ms_day": pa.array([day * 86_400_000 for day in days], pa.date64()),
        "x_moment": pa.array([day * 86_400_000_000 for day in days], pa.timestamp("us")),
        "x_zoned": pa.array([(days[0] + 1) * 86_400, (days[1] - 1) * 86_400], pa.timestamp("s", "Pacific/Auckland")),
        "x_ns": pa.array([1000, None], pa.timestamp("ns", "+05:30")),
        "x_half": pa.array([1.5, None]).cast(pa.float32()).cast(pa.float16()),
        "x_big": pa.array([2**64 - 1, 0], pa.uint64()),
        "x_price": pa.array([Decimal("1.50"), None], pa.decimal128(38, 2)),
        "x_small": pa.array([Decimal("1.50"), None], pa.decimal32(5, 2)),
        "x_nan": pa.array([float("nan"), float("inf")]),
        "x_view": pa.array(["a\u202eb", None], pa.string_view()),
        "x_kind": pa.array(["a", None]).dictionary_encode(),
        "x_none": pa.nulls(2),
        "x_flag": pa.array([True, None]),
    }
    pq.write_table(pa.table({"id": ["a", "b"], "prompt": ["p", "q"], **own}), tmp_path / "a.parquet")
    job = job_of(str(tmp_path / "a.parquet"))
    result = sdbatch.run(job, in_process=True)
    metadata = sdbatch.metadata(job["output"])

    assert result.state == "done"
    assert metadata.column("x_big").to_pylist() == [2**64 - 1, 0]
    assert [when.year for when in metadata.column("x_moment").to_pylist()] == [1, 9999]
    folder = Path(job["output"])
    columns = columns_of(folder, state_of(folder)["chunks"][0]["name"])
    assert "x_zoned" in columns
    assert columns["x_moment"][1].startswith("9999-12-3")


def test_a_default_that_is_no_unicode_is_told_for_each_row_that_takes_it(tmp_path: Path, job_of: JobOf) -> None:
    pq.write_table(pa.table({"id": ["a", "b"], "prompt": [None, "p"]}), tmp_path / "a.parquet")

    (problem,) = _problems(job_of(str(tmp_path / "a.parquet"), defaults={"task": "text-to-image", "prompt": "x\ud800"}))

    assert problem.id == "a"
    assert "cannot be planned: UnicodeEncodeError" in str(problem)
