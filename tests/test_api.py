"""The functions as a script calls them: a text alone is one, and what cannot be meant is refused by name."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.masters import draw_campaign, patches

import sdbatch
from sdbatch import Selection
from sdbatch.errors import JobError

IDS = ["1", "2", "12", "21"]
"""Ids whose letters are ids as well."""


@pytest.fixture
def campaign(tmp_path: Path) -> Path:
    draw_campaign(
        tmp_path / "campaign",
        [{"id": name, "x_a": name} for name in IDS],
        {name: patches(96, 64, number) for number, name in enumerate(IDS)},
    )
    return tmp_path / "campaign"


def _delivery(campaign: Path) -> dict[str, Any]:
    return {
        "delivery": "shop",
        "campaign": str(campaign),
        "to": str(campaign.parent / "shop"),
        "formats": [{"name": "tile", "width": 32, "height": 32, "type": "png"}],
        "name": "{id}.{ext}",
    }


def test_a_text_alone_is_one_and_not_its_letters(campaign: Path) -> None:
    shop = Path(_delivery(campaign)["to"])
    said = sdbatch.review(campaign, reject="12", by="jane")
    assert [(one.id, one.verdict) for one in said.decisions] == [("12", "rejected")]

    assert sdbatch.metadata(campaign, Selection(only="12")).column("id").to_pylist() == ["12"]  # type: ignore[arg-type]
    assert sdbatch.cost(campaign, by="x_a").by == ("x_a",)
    assert sdbatch.deliver(_delivery(campaign)).made == 3
    asset = sdbatch.open_asset(campaign, "1", as_type="path")
    assert sdbatch.trace(asset, campaign).by == "sha256"
    assert sdbatch.audit(campaign, campaign.parent / "audit.csv", shop).delivered == 3
    assert len(sdbatch.takedown(campaign, where="id == '1'", delivered=shop).delivered) == 1


def test_paths_are_taken_wherever_places_are(campaign: Path) -> None:
    shop = Path(_delivery(campaign)["to"])
    sdbatch.deliver(_delivery(campaign))

    assert sdbatch.verify_delivery(shop).is_good
    assert not sdbatch.gc(campaign, superseded=True, delivered=[shop]).superseded


VERBS: list[Callable[[Path, Any], object]] = [
    sdbatch.metadata,
    sdbatch.failures,
    sdbatch.report,
    lambda campaign, selection: sdbatch.review(campaign, approve=["*"], selection=selection),
    lambda campaign, selection: sdbatch.deliver(_delivery(campaign), selection=selection),
]


@pytest.mark.parametrize("verb", VERBS, ids=["metadata", "failures", "report", "review", "deliver"])
def test_what_a_run_makes_is_no_selection_of_what_is_there(verb: Callable[[Path, Any], object], campaign: Path) -> None:
    for selection in (Selection(limit=1), Selection(retry_failed=""), Selection(is_rerolling=True)):
        with pytest.raises(JobError, match=r"^(limit 1|retry_failed ''|is_rerolling True): says what plan, run and"):
            verb(campaign, selection)
    with pytest.raises(JobError, match=r"selection 'mug-\*': should be an instance of Selection"):
        verb(campaign, "mug-*")

    assert not sdbatch.review(campaign).decisions
    assert not Path(_delivery(campaign)["to"]).exists()


def test_what_cannot_be_meant_is_refused_by_name(campaign: Path) -> None:
    row = sdbatch.metadata(campaign).to_pylist()[0]
    job = {"manifest": "m.csv", "output": "out", "models": {"tiny": {"path": "builtin:tiny-random"}}}

    with pytest.raises(JobError, match="as_type 'numpy': should be 'image', 'bytes' or 'path'"):
        sdbatch.open_asset(campaign, row, as_type="numpy")  # type: ignore[call-overload]
    with pytest.raises(JobError, match="n 9: goes with an id"):
        sdbatch.open_asset(campaign, row, 9)
    with pytest.raises(JobError, match="limit -3: should be greater than or equal to 1"):
        Selection(limit=-3)
    with pytest.raises(JobError, match=r"selection \['seed=3'\]: should be an instance of"):
        sdbatch.plan(job, ["seed=3"])  # type: ignore[arg-type]


WRONG: dict[str, tuple[Callable[[Path], object], str]] = {
    "a job that is a number": (lambda _: sdbatch.load_job(3), "job 3: should be an instance of Job or a valid string"),  # type: ignore[arg-type]
    "a campaign that is None": (lambda _: sdbatch.status(None), "campaign None: should be a valid string"),  # type: ignore[arg-type]
    "a budget that is a number": (lambda c: sdbatch.run(c, budget=12.5), "budget 12.5: should be a valid string"),  # type: ignore[arg-type]
    "progress that is a function": (lambda c: sdbatch.run(c, progress=print), "progress .*: should be an instance of"),  # type: ignore[arg-type]
    "a switch that is a text": (lambda c: sdbatch.gc(c, delete="no"), "delete 'no': should be a valid boolean"),  # type: ignore[arg-type]
    "an age below 0": (lambda c: sdbatch.gc(c, older_than_s=-1), "older_than_s -1: should be greater than or equal to"),
    "a sample below 0": (lambda c: sdbatch.verify(c, -0.1), "sample -0.1: should be a valid integer or greater than 0"),
    "a share above all": (lambda c: sdbatch.verify(c, 1.5), "sample 1.5: .* less than or equal to 1"),
    "runs below 1": (lambda c: sdbatch.runs(c, -1), "num_runs -1: should be greater than or equal to 1"),
    "ids in the place of one": (lambda c: sdbatch.open_asset(c, IDS), "row .*: should be an instance of Mapping or"),  # type: ignore[call-overload]
    "no texts": (lambda c: sdbatch.cost(c, by=None), "by None: should be a valid string"),  # type: ignore[arg-type]
    "an axis in a list": (lambda c: sdbatch.plan_grid(c, ["seed=1,2"]), r"x \['seed=1,2'\]: should be a valid string"),  # type: ignore[arg-type]
    "no shards": (lambda c: sdbatch.build_manifest(c, c, shards=0), "shards 0: should be greater than or equal to 1"),
    "a variable that is a number": (
        lambda c: sdbatch.submit(c, "http://127.0.0.1:9", environment={"A": 1}),  # type: ignore[dict-item]
        r"environment\['A'\] 1: should be a valid string",
    ),
    "a selection of half a row": (lambda _: Selection(limit=2.5), "limit 2.5: should be a valid integer"),  # type: ignore[arg-type]
    "ids that are None": (lambda _: Selection(only=None), "only None: should be a valid frozenset"),  # type: ignore[arg-type]
    "an expression that is none": (lambda _: Selection(where=True), "where True: should be a valid string"),  # type: ignore[arg-type]
}


@pytest.mark.parametrize("name", WRONG)
def test_a_value_of_another_type_is_refused_by_name(name: str, campaign: Path) -> None:
    call, message = WRONG[name]

    with pytest.raises(JobError, match=f"^{message}"):
        call(campaign)


def test_the_values_of_numpy_and_arrow_are_taken_for_pythons(campaign: Path) -> None:
    table = sdbatch.metadata(campaign, Selection(limit=None, sample=np.int64(2)))  # type: ignore[arg-type]

    assert table.num_rows == 2
    assert sdbatch.open_asset(campaign, table["id"][0], np.int32(0)).size == (96, 64)  # type: ignore[call-overload]
    assert sdbatch.verify(campaign, np.float64(0.5)).assets_hashed == 2


def test_a_row_of_a_pandas_table_is_taken_for_a_row(campaign: Path) -> None:
    pytest.importorskip("pandas")
    rows = sdbatch.metadata(campaign).to_pandas()

    assert next(sdbatch.open_asset(campaign, row).size for _, row in rows.iterrows()) == (96, 64)
    with pytest.raises(JobError, match=r"^row .*: should be an instance of Mapping or"):
        sdbatch.open_asset(campaign, rows["id"])


def test_a_job_that_was_copied_with_other_values_is_checked_as_any_other() -> None:
    job = sdbatch.load_job({"manifest": "m.csv", "output": "out", "models": {"tiny": {"path": "builtin:tiny-random"}}})

    assert sdbatch.load_job(job) == job
    assert sdbatch.load_job(job.model_copy(update={"output": Path("out/b")})).output == "out/b"
    with pytest.raises(JobError, match="job: seed: 'x' should be a valid integer"):
        sdbatch.plan(job.model_copy(update={"seed": "x"}))
    with pytest.raises(JobError, match="job: sed: unknown key; did you mean seed"):
        sdbatch.check(job.model_copy(update={"sed": 3}))
    with pytest.raises(JobError, match="job: output: 3 should be a valid string"):
        sdbatch.status(job.model_copy(update={"output": 3}))


def test_an_argument_that_is_not_there_is_refused_with_the_functions_name(campaign: Path) -> None:
    with pytest.raises(TypeError, match=r"^runs\(\) got an unexpected keyword argument 'newest'"):
        sdbatch.runs(campaign, newest=3)  # type: ignore[call-arg]
