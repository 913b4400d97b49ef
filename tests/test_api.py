"""The functions as a script calls them: a text alone is one, and what cannot be meant is refused by name."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

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
    with pytest.raises(JobError, match=r"selection 'mug-\*': is no Selection"):
        verb(campaign, "mug-*")

    assert not sdbatch.review(campaign).decisions
    assert not Path(_delivery(campaign)["to"]).exists()


def test_what_cannot_be_meant_is_refused_by_name(campaign: Path) -> None:
    row = sdbatch.metadata(campaign).to_pylist()[0]
    job = {"manifest": "m.csv", "output": "out", "models": {"tiny": {"path": "builtin:tiny-random"}}}

    with pytest.raises(JobError, match="as_type 'numpy': is not one of"):
        sdbatch.open_asset(campaign, row, as_type="numpy")  # type: ignore[call-overload]
    with pytest.raises(JobError, match="n 9: goes with an id"):
        sdbatch.open_asset(campaign, row, 9)
    with pytest.raises(JobError, match="--limit -3: is not at least 1"):
        Selection(limit=-3)
    with pytest.raises(JobError, match=r"selection \['seed=3'\]: is no Selection"):
        sdbatch.plan(job, ["seed=3"])  # type: ignore[arg-type]
