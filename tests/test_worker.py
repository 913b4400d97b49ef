"""One worker without Ray: every row of a unit ends in its commit, whatever happens to its neighbours."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from conftest import prompts
from support.weights import weights

import sdbatch
from sdbatch.campaign import layout
from sdbatch.campaign.campaign import Campaign
from sdbatch.campaign.lease import acquire
from sdbatch.campaign.read import read_commit
from sdbatch.driver.one_run.select import pending_requests
from sdbatch.driver.picking import Selection
from sdbatch.driver.rows.scan import ResolvedManifest
from sdbatch.errors import DeviceLost, GpuUnusable, ModelLoadFailed, StoreRefused, UserError
from sdbatch.generate import batch
from sdbatch.generate.item import BatchResult, Item
from sdbatch.job import parse_job
from sdbatch.storage import open_store
from sdbatch.types import Receipt, Unit, WorkerSpec
from sdbatch.worker import Worker

RUN = "r000001-20260101T000000Z"
Make = Callable[..., tuple[Receipt, list[dict[str, Any]]]]


@pytest.fixture
def make(write_manifest: Callable[..., str], job_of: Callable[..., dict[str, Any]]) -> Iterator[Make]:
    """Run rows as one unit of a fresh worker; return its receipt and the committed rows."""
    leases = []

    def call(rows: list[dict[str, Any]], batch_size: int = 4, **changes: Any) -> tuple[Receipt, list[dict[str, Any]]]:
        job = parse_job(job_of(write_manifest(rows), **changes))
        resolved_manifest = ResolvedManifest(job)
        store = open_store(job.output, {})
        lease = acquire(store)
        leases.append(lease)
        requests = tuple(pending_requests(resolved_manifest, Campaign(store).done(), Selection()))
        unit = Unit(id="000000", model="tiny", requests=requests, batch_size=batch_size, cost_tflop=1.0)
        worker = Worker(
            "w0",
            WorkerSpec(
                job=job.model_dump(mode="json"),
                output=job.output,
                run_id=RUN,
                lease_epoch=lease.holder.epoch,
                lease_token=lease.holder.token,
                revisions={name: model.revision for name, model in resolved_manifest.scanned.models.items()},
            ),
        )
        worker.start()
        receipt = worker.run_unit(unit)
        return receipt, read_commit(store, layout.commit(RUN, "000000")).to_pylist()

    yield call
    for lease in leases:
        lease.release()


def _break(monkeypatch: pytest.MonkeyPatch, fault: Callable[[list[Item]], None]) -> None:
    """Let the pipeline call meet a fault before it runs: the one thing a tiny model never does by itself."""
    original = batch.make_batch

    def faulty(model: Any, items: Any, pad_to: int | None, on_step: Callable[[], None]) -> BatchResult:
        fault(list(items))
        return original(model, items, pad_to, on_step)

    monkeypatch.setattr(batch, "make_batch", faulty)


def test_a_metadata_row_says_everything(make: Make) -> None:
    receipt, rows = make([{"id": "a", "prompt": "naïve 海", "seed": 5, "num_outputs": 2}])
    row = rows[1]

    assert (receipt.model_calls, receipt.rows_generated, receipt.assets_put) == (1, 2, 2)
    assert receipt.texts_encoded == 2  # the prompt of both outputs, and the empty negative
    assert row["prompt"] == "naïve 海"
    assert (row["n"], row["seed"], row["status"], row["media_type"]) == (1, 6, "ok", "image/png")
    assert (row["pipeline_class"], row["scheduler"], row["dtype"]) == (
        "StableDiffusionPipeline",
        "DDIMScheduler",
        "float32",
    )
    assert row["asset"] == f"assets/a-{row['request_key'][:8]}-1.png"
    assert row["prompt_tokens"] > 5
    assert not row["prompt_truncated"]
    assert all(row[name] >= 0 for name in ("load_s", "fetch_s", "denoise_s", "decode_s", "encode_s", "upload_s"))
    assert row["load_s"] > 0
    assert 500 < len(row["thumbnail"]) < 20_000
    empty = {name for name, value in row.items() if value is None}
    assert empty == {
        *("negative_prompt", "strength", "fit", "images", "mask", "video", "control_image", "source_digests", "fps"),
        "source_notes",
        *("error_type", "error_message", "error_retryable", "error_traceback_sha256", "stages_digest", "copied_from"),
        "ip_adapter_images",
        "ip_adapter_scale",
        "replaces",
        "source_thumbnail",
        "watermark",
    }


def test_a_row_that_raises_costs_itself(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []

    def fault(items: list[Item]) -> None:
        calls.append(len(items))
        if any("2" in (item.recipe.prompt or "") for item in items):
            raise ValueError("the model does not like this one")

    _break(monkeypatch, fault)
    receipt, rows = make(prompts(6))

    assert [row["status"] for row in rows] == ["ok", "ok", "failed", "ok", "ok", "ok"]
    assert (rows[2]["error_type"], rows[2]["attempts"]) == ("GenerationFailed", 3)
    assert rows[2]["error_message"] == "ValueError: the model does not like this one"
    assert len(rows[2]["error_traceback_sha256"]) == 64
    assert (rows[2]["worker"], rows[2]["error_retryable"]) == ("w0", False)
    assert calls == [4, 1, 1, 1, 1, 1, 2]
    assert receipt.rows_generated == 5


def test_out_of_memory_halves_the_batch_loses_nobody_and_is_remembered(
    make: Make, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    calls = []

    def fault(items: list[Item]) -> None:
        calls.append(len(items))
        if len(items) > 2:
            raise torch.OutOfMemoryError("CUDA out of memory")

    _break(monkeypatch, fault)
    monkeypatch.setenv("SDBATCH_CACHE", str(tmp_path / "cache"))
    receipt, rows = make(prompts(8), determinism="fast")

    assert {row["status"] for row in rows} == {"ok"}
    assert calls == [4, 2, 2, 2, 2]
    assert receipt.batch_size == 2

    _, rows = make(prompts(4, seed=1), determinism="fast", output=str(tmp_path / "later"))
    assert {row["status"] for row in rows} == {"ok"}
    assert calls[5:] == [2, 2], "another worker of this machine has forgotten what fits"


def test_in_exact_out_of_memory_fails_the_row_instead(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    def fault(items: list[Item]) -> None:
        if any("1" in (item.recipe.prompt or "") for item in items):
            raise torch.OutOfMemoryError("CUDA out of memory")

    _break(monkeypatch, fault)
    _, rows = make(prompts(3))

    assert [row["error_type"] for row in rows] == [None, "OutOfMemory", None]
    assert rows[1]["error_retryable"]


def test_a_call_past_its_deadline_ends_at_the_next_step_and_costs_the_slow_row_alone(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    now_s = [0.0]

    def fault(items: list[Item]) -> None:
        if any(item.recipe.prompt == "slow" for item in items):
            now_s[0] += 3.1

    _break(monkeypatch, fault)
    monkeypatch.setattr("sdbatch.worker.generation.time", SimpleNamespace(monotonic=lambda: now_s[0]))
    rows = [{"id": name, "prompt": name} for name in ("a", "slow", "b")]
    receipt, made = make(rows, limits={"start_timeout_s": 3.0, "deadline_min_s": 3.0})

    assert [row["status"] for row in made] == ["ok", "failed", "ok"]
    assert (made[1]["error_type"], made[1]["attempts"], made[1]["error_retryable"]) == ("DeadlineExceeded", 2, True)
    assert "took longer than 3 s" in made[1]["error_message"]
    assert receipt.model_calls == 4


@pytest.mark.parametrize(
    "error", [torch.AcceleratorError("unspecified launch failure"), RuntimeError("CUDA error: device-side assert")]
)
def test_a_device_that_is_lost_blames_no_row_and_commits_nothing(
    make: Make, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def fault(items: list[Item]) -> None:
        raise error

    _break(monkeypatch, fault)

    with pytest.raises(DeviceLost, match=str(error)):
        make([{"id": "a", "prompt": "a"}])


@pytest.mark.parametrize("value", [float("nan"), 0.5])
def test_nan_and_blank_pictures_are_failures(make: Make, monkeypatch: pytest.MonkeyPatch, value: float) -> None:
    original = batch._to_uint8
    spoiled: list[bool] = []

    def spoil(video_BFCHW: torch.Tensor) -> tuple[Any, list[bool]]:
        if not spoiled:
            video_BFCHW = video_BFCHW.clone()
            video_BFCHW[1] = value
            spoiled.append(True)
        return original(video_BFCHW)

    monkeypatch.setattr(batch, "_to_uint8", spoil)
    _, rows = make(prompts(3))

    assert [row["error_type"] for row in rows] == [None, "BlankOutput", None]
    assert rows[1]["error_retryable"]
    assert rows[1]["asset"] is None


def test_a_long_prompt_is_recorded_or_refused_as_the_job_says(make: Make, tmp_path: Path) -> None:
    rows = [{"id": "short", "prompt": "short"}, {"id": "long", "prompt": "long " * 100}]
    model = {"path": "builtin:tiny-random", "batch_size": 4}
    _, taken = make(rows)
    strict = {"models": {"tiny": {**model, "long_prompt": "error"}}, "output": str(tmp_path / "strict")}
    _, refused = make(rows, **strict)

    assert [row["prompt_truncated"] for row in taken] == [False, True]
    assert [row["error_type"] for row in refused] == [None, "PromptTooLong"]


def test_a_source_that_changed_after_the_plan_fails_its_row(
    make: Make, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from PIL import Image

    from sdbatch.fetch.sources import read_source

    source = tmp_path / "a.png"
    Image.fromarray(np.zeros((64, 64, 3), np.uint8)).save(source)

    def changed(*arguments: Any) -> tuple[bytes, str]:
        Image.fromarray(np.full((64, 64, 3), 9, np.uint8)).save(source)
        return read_source(*arguments)

    monkeypatch.setattr("sdbatch.worker.sources.read_source", changed)
    row = {"id": "a", "prompt": "p", "task": "image-to-image", "images": str(source), "strength": 1.0}
    _, rows = make([row])

    assert (rows[0]["error_type"], rows[0]["error_retryable"]) == ("SourceChanged", True)


def test_work_is_counted_exactly(make: Make, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from PIL import Image

    from sdbatch.generate import load as loading
    from sdbatch.worker import sources as module

    calls: list[tuple[str, str]] = []

    def count(owner: Any, name: str) -> None:
        original = getattr(owner, name)

        def counted(first: str, *others: Any, **named: Any) -> Any:
            calls.append((name, first))
            return original(first, *others, **named)

        monkeypatch.setattr(owner, name, counted)

    def run_counted(worker: Worker, unit: Unit) -> Receipt:
        for name in ("put_new", "put", "read", "stat", "list", "delete"):
            count(worker._store, name)
        count(loading, "load_model")
        count(module, "read_source")
        return original_run(worker, unit)

    original_run = Worker.run_unit
    monkeypatch.setattr(Worker, "run_unit", run_counted)
    for name, value in (("a", 0), ("b", 200)):
        Image.fromarray(np.full((64, 64, 3), value, np.uint8)).save(tmp_path / f"{name}.png")
    shared = {"negative_prompt": "blur", "task": "image-to-image", "strength": 1.0}
    texts = ["a fox", "a hare", "a fox", "an owl", "a hare", "a fox"]
    rows = [
        {"id": f"r{n}", "prompt": text, "images": str(tmp_path / ("a.png" if n % 2 else "b.png")), **shared}
        for n, text in enumerate(texts)
    ]
    receipt, made = make(rows)
    monkeypatch.undo()

    assert {row["status"] for row in made} == {"ok"}
    assert (receipt.model_calls, receipt.rows_generated) == (2, 6)
    assert (receipt.texts_encoded, receipt.sources_encoded) == (4, 2)
    of_store = [(name, path.split("/")[0]) for name, path in calls if name not in {"load_model", "read_source"}]
    assert of_store == [("put_new", "assets")] * 6 + [("put_new", "runs")]
    assert sorted(set(calls) - {(n, p) for n, p in calls if n == "put_new"}) == [
        ("load_model", "tiny"),
        ("read_source", str(tmp_path / "a.png")),
        ("read_source", str(tmp_path / "b.png")),
    ]
    assert len(calls) == 10


def test_a_worker_that_does_not_see_the_drivers_folder_refuses(job_of: Callable[..., dict[str, Any]]) -> None:
    spec = WorkerSpec(
        job=job_of("unused"),
        output="/nowhere",
        run_id=RUN,
        lease_epoch=1,
        lease_token="a",
        revisions={},
    )

    with pytest.raises(StoreRefused, match=r"lacks the driver's lease/000001\.json"):
        Worker("w0", spec).start()


def test_a_wrong_word_for_the_device_is_refused_before_anything_starts(
    job_of: Callable[..., dict[str, Any]], write_manifest: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    job = job_of(write_manifest(prompts(1)))
    made = sdbatch.run(job, in_process=True)
    assert made.exit_code == 0
    campaign = Path(job["output"])
    token = json.loads((campaign / "lease" / "000001.json").read_bytes())["token"]
    spec = WorkerSpec(job=job, output=job["output"], run_id=RUN, lease_epoch=1, lease_token=token, revisions={})
    monkeypatch.setenv("SDBATCH_DEVICE", "cuda:1")

    with pytest.raises(UserError, match="SDBATCH_DEVICE is 'cuda:1'; it is cpu, or not set"):
        sdbatch.run(job, in_process=True)
    assert len(list((campaign / "runs").iterdir())) == 1
    with pytest.raises(GpuUnusable, match="SDBATCH_DEVICE is 'cuda:1'; it is cpu, or not set \\(on "):
        Worker("w0", spec).start()


def test_a_model_that_cannot_be_loaded_blames_no_row(make: Make, tmp_path: Path) -> None:
    from sdbatch.generate.random_weights import make_tiny_random

    folder = tmp_path / "model"
    make_tiny_random(folder)
    of_another = weights({"decoder.conv_in.weight": [1]})  # whole, so that only its load tells
    (folder / "vae" / "diffusion_pytorch_model.safetensors").write_bytes(of_another)

    with pytest.raises(ModelLoadFailed, match=str(folder)):
        make(prompts(1), models={"tiny": {"path": str(folder), "batch_size": 4}})
