"""Small outputs of one call are finished together, large ones and those of a store far away one by one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import Any

import pytest
from conftest import prompts

from sdbatch.campaign import layout
from sdbatch.campaign.campaign import Campaign
from sdbatch.campaign.read import read_commit
from sdbatch.driver.one_run.select import pending_requests
from sdbatch.driver.picking import Selection
from sdbatch.driver.rows.scan import ResolvedManifest
from sdbatch.job import parse_job
from sdbatch.storage import open_store
from sdbatch.types import Unit
from sdbatch.worker import finish
from sdbatch.worker.finish import Finisher
from sdbatch.worker.outputs import RenderedOutput
from sdbatch.worker.record import Recorder
from sdbatch.worker.render import Renderer
from sdbatch.worker.unit import UnitMaker

PICTURE_BYTES = 64 * 64 * 3


@pytest.mark.parametrize(
    ("bytes_max", "handfuls"),
    [(2 * PICTURE_BYTES, [2, 1, 2]), (1 << 18, [3, 2]), (PICTURE_BYTES - 1, [1] * 5)],
    ids=["two fit", "a whole call fits", "none fits"],
)
def test_a_handful_holds_outputs_of_one_call_within_its_bytes(
    bytes_max: int,
    handfuls: list[int],
    write_manifest: Callable[..., str],
    job_of: Callable[..., dict[str, Any]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    seen: list[int] = []
    submit = Finisher.submit

    def noted(self: Finisher, outputs: Sequence[RenderedOutput], load_s: float) -> Future[list[dict[str, Any]]]:
        seen.append(len(outputs))
        return submit(self, outputs, load_s)

    monkeypatch.setattr(Finisher, "submit", noted)
    monkeypatch.setattr(finish, "HANDFUL_BYTES_MAX", bytes_max)
    models = {"tiny": {"path": "builtin:tiny-sd", "batch_size": 3}}
    job = parse_job(job_of(write_manifest(prompts(5, height=64, width=64)), models=models))
    resolved_manifest = ResolvedManifest(job)
    store = open_store(job.output, {})
    requests = tuple(pending_requests(resolved_manifest, Campaign(store).done(), Selection()))
    revisions = {name: model.revision for name, model in resolved_manifest.scanned.models.items()}
    maker = UnitMaker("w", job, Renderer(job, revisions), store, "r000001-20260101T000000Z")
    receipt = maker.make(Unit(id="0", model="tiny", requests=requests, batch_size=3, cost_tflop=1.0))
    rows = read_commit(store, layout.commit(maker.run_id, "0")).to_pylist()

    assert receipt.model_calls == 2
    assert seen == handfuls
    assert [row["id"] for row in rows] == [f"row-{number:04d}" for number in range(5)]
    assert all(store.stat(row["asset"]).size_bytes == row["asset_bytes"] for row in rows)


def test_what_goes_to_a_store_far_away_is_handed_over_one_by_one(job_of: Callable[..., dict[str, Any]]) -> None:
    job = parse_job(job_of("m.parquet"))

    def bytes_max(url: str) -> int:
        return Finisher(job, open_store(url, {}), Recorder(job=job, worker="w")).handful_bytes_max

    assert bytes_max("s3://bucket/campaign") == 0
    assert bytes_max(job.output) == finish.HANDFUL_BYTES_MAX
