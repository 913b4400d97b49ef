"""The time to load begins anew while bytes move, so that a copy that is longer than it ends no worker."""

from __future__ import annotations

import gc
import threading
import time
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
from conftest import prompts
from support.proxy import faulty_proxy

from sdbatch.campaign.campaign import Campaign
from sdbatch.campaign.lease import acquire
from sdbatch.checkpoints import SHIPPED, transfer
from sdbatch.dispatch.policy import overdue
from sdbatch.driver.one_run.select import pending_requests
from sdbatch.driver.picking import Selection
from sdbatch.driver.rows.scan import ResolvedManifest
from sdbatch.job import parse_job
from sdbatch.storage import open_store
from sdbatch.types import Phase, Running, Unit, WorkerSpec
from sdbatch.worker import Worker

START_TIMEOUT_S = 3.0
TINY = SHIPPED["tiny-sd"]


@pytest.mark.s3
def test_a_copy_may_take_longer_than_the_time_to_load(
    s3_endpoint: str,
    write_manifest: Callable[..., str],
    job_of: Callable[..., dict[str, Any]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    store = open_store("s3://campaigns/load-clock/model", {})
    for file in TINY.rglob("*"):
        if file.is_file():
            store.put(str(file.relative_to(TINY)), file.read_bytes())
    monkeypatch.setattr(transfer, "RANGE_BYTES", 1 << 20)
    monkeypatch.setattr(transfer, "RANGES_AT_ONCE", 1)
    values = job_of(
        write_manifest(prompts(1)),
        models={"tiny": {"path": store.url, "batch_size": 1}},
        limits={"start_timeout_s": START_TIMEOUT_S},
    )
    job = parse_job(values)
    resolved_manifest = ResolvedManifest(job)
    lease = acquire(open_store(job.output, {}))
    spec = WorkerSpec(
        job=job.model_dump(mode="json"),
        output=job.output,
        run_id="r000001-20260101T000000Z",
        lease_epoch=lease.holder.epoch,
        lease_token=lease.holder.token,
        revisions={name: model.revision for name, model in resolved_manifest.scanned.models.items()},
    )
    requests = tuple(pending_requests(resolved_manifest, Campaign(open_store(job.output, {})).done(), Selection()))
    now_s = [0.0]
    entered: list[str] = []
    enter = Worker._enter

    def count(self: Worker, unit: str, phase: Phase, bound_s: float, ids: tuple[str, ...]) -> None:
        enter(self, unit, phase, bound_s, ids)
        entered.append(phase)

    monkeypatch.setattr("sdbatch.worker.process.time", SimpleNamespace(monotonic=lambda: now_s[0]))
    monkeypatch.setattr(Worker, "_enter", count)
    with faulty_proxy(s3_endpoint) as proxy:
        monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.endpoint)
        workers = [Worker("w0", spec)]
        workers[0].start()
        turns = threading.Lock()
        moved_to = [0]
        loading: list[Running] = []
        until_s = time.monotonic() + 60

        def one_by_one(path: str, asked: str) -> None:
            if asked and path.endswith(".safetensors") and not asked.startswith("bytes=0-"):  # where headers stand
                with turns:
                    while len(entered) == moved_to[0] and time.monotonic() < until_s:  # bytes of the one before
                        time.sleep(0.002)
                    moved_to[0] = len(entered)
                    now_s[0] += 0.4
                    loading.extend(workers[0].running())

        proxy.hold = one_by_one
        workers[0].run_unit(Unit(id="0", model="tiny", requests=requests, batch_size=1, cost_tflop=1.0))
    lease.release()
    workers.clear()
    gc.collect()  # other tests count the bytes that live

    assert now_s[0] > START_TIMEOUT_S
    assert {place.phase for place in loading} == {"load"}
    assert max(place.elapsed_s for place in loading) < START_TIMEOUT_S
    assert {place.bound_s for place in loading} == {START_TIMEOUT_S}
    assert overdue(loading) is None
