"""Weights of a bucket are copied once, by URL and identity, and a copy that changed is noticed."""

from __future__ import annotations

import json
import logging
import os
import shutil
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.proxy import faulty_proxy, first

from sdbatch.checkpoints import SHIPPED, describe
from sdbatch.checkpoints.transfer import LEDGER
from sdbatch.checkpoints.turns import turn
from sdbatch.errors import ModelLoadFailed, StoreUnavailable
from sdbatch.generate.load import load_model
from sdbatch.generate.load.copies import lora_file, model_folder
from sdbatch.generate.load.partials import lock_of, partial_of, sweep
from sdbatch.job import Lora, Model
from sdbatch.storage import Store, open_store, retries
from sdbatch.storage.cache import cache_folder

TINY = SHIPPED["tiny-sd"]
WEIGHTS = "unet/diffusion_pytorch_model.safetensors"


@pytest.fixture
def bucket(s3_endpoint: str, request: pytest.FixtureRequest) -> Iterator[Store]:
    """Give a model in a bucket, in a folder of the test's own."""
    store = open_store(f"s3://campaigns/copies/{request.node.name}/model", {})
    for file in TINY.rglob("*"):
        if file.is_file():
            store.put(str(file.relative_to(TINY)), file.read_bytes())
    yield store
    for entry in store.list():
        store.delete(entry.path)


def _copy(url: str, revision: str | None = None) -> Path:
    model = Model(path=url, revision=revision)
    return model_folder(model, describe("m", model, {}).base_revision, {})


def _flip(data: bytes) -> bytes:
    changed = bytearray(data)
    changed[-1] ^= 1
    return bytes(changed)


@pytest.mark.s3
def test_two_buckets_of_one_revision_are_two_copies(bucket: Store) -> None:
    other = open_store(f"{bucket.url}-other", {})
    for entry in bucket.list():
        data = bucket.read(entry.path)
        other.put(entry.path, _flip(data) if entry.path == WEIGHTS else data)
    one, two = (_copy(store.url, "5" * 40) for store in (bucket, other))

    assert one != two
    assert one.name.endswith("-model")
    assert two.name.endswith("-model-other")
    assert (one / WEIGHTS).read_bytes() == _flip((two / WEIGHTS).read_bytes())
    assert _copy(bucket.url, "6" * 40) not in {one, two}


@pytest.mark.s3
def test_a_copy_that_changed_on_disk_is_noticed_and_made_anew(bucket: Store, caplog: pytest.LogCaptureFixture) -> None:
    folder = _copy(bucket.url)
    whole = (folder / WEIGHTS).read_bytes()
    before = (folder / WEIGHTS).stat()

    assert _copy(bucket.url) == folder
    assert (folder / WEIGHTS).stat().st_ino == before.st_ino  # a copy that is whole stays
    (folder / WEIGHTS).write_bytes(_flip(whole))
    log = logging.getLogger("sdbatch.generate")
    log.addHandler(caplog.handler)  # a worker of another test may have kept our records from the root
    assert _copy(bucket.url) == folder
    log.removeHandler(caplog.handler)
    assert (folder / WEIGHTS).read_bytes() == whole
    records = {id(record): record for record in caplog.records if str(folder) in record.getMessage()}
    assert [vars(record)["files"] for record in records.values()] == [[WEIGHTS]]

    for spoil in (
        (folder / WEIGHTS).unlink,
        lambda: (folder / "unet" / "more.safetensors").write_bytes(b"x"),
        lambda: shutil.rmtree(folder / "vae"),
    ):
        spoil()
        _copy(bucket.url)
        assert sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()) == [
            entry.path for entry in bucket.list() if not entry.path.endswith(".md")
        ]


@pytest.mark.s3
def test_a_copy_that_was_only_touched_stays(bucket: Store) -> None:
    folder = _copy(bucket.url)
    inode = (folder / WEIGHTS).stat().st_ino
    os.utime(folder / WEIGHTS, ns=(1, 1))

    assert (_copy(bucket.url) / WEIGHTS).stat().st_ino == inode
    record = json.loads(folder.with_name(f"{folder.name}.json").read_text())
    assert "-1-" in record["files"][WEIGHTS]["mark"]


@pytest.mark.s3
def test_a_copy_without_its_record_was_not_finished(bucket: Store) -> None:
    folder = _copy(bucket.url)
    folder.with_name(f"{folder.name}.json").unlink()
    (folder / WEIGHTS).write_bytes(b"half")

    assert (_copy(bucket.url) / WEIGHTS).read_bytes() == (TINY / WEIGHTS).read_bytes()


@pytest.mark.s3
def test_a_bucket_whose_files_are_not_those_of_the_stated_digest_is_refused(bucket: Store) -> None:
    digest = describe("m", Model(path=str(TINY)), {}).revision
    model = Model(path=bucket.url, revision=digest)
    assert load_model("m", model, digest, {}).class_name == "StableDiffusionPipeline"

    bucket.put(WEIGHTS, _flip(bucket.read(WEIGHTS)))
    assert load_model("m", model, digest, {}).class_name == "StableDiffusionPipeline"  # of the copy, which is right
    other = Model(path=bucket.url, revision="0" * 64)
    with pytest.raises(ModelLoadFailed, match=f"its files have the digest [0-9a-f]+, the job's revision is {'0' * 64}"):
        load_model("m", other, "0" * 64, {})


def test_a_local_folder_whose_files_are_not_those_of_the_stated_digest_is_refused(tmp_path: Path) -> None:
    folder = Path(shutil.copytree(TINY, tmp_path / "model"))
    digest = describe("m", Model(path=str(folder)), {}).revision
    model = Model(path=str(folder), revision=digest)
    assert load_model("m", model, digest, {}).class_name == "StableDiffusionPipeline"

    (folder / WEIGHTS).write_bytes(_flip((folder / WEIGHTS).read_bytes()))
    with pytest.raises(ModelLoadFailed, match=f"the job's revision is {digest}"):
        load_model("m", model, digest, {})


@pytest.mark.s3
def test_of_a_lora_only_its_own_file_is_copied(s3_endpoint: str) -> None:
    store = open_store("s3://campaigns/copies/loras", {})
    store.put("ink.safetensors", b"ink")
    store.put("wool.safetensors", b"wool")
    file = lora_file(Lora(path=store.url, base="", weight_name="ink.safetensors", revision="7" * 40), "7" * 64, {})

    assert file.read_bytes() == b"ink"
    assert [path.name for path in file.parent.iterdir()] == ["ink.safetensors"]


# --- copies that were broken off --------------------------------------------------------------------------------------


@pytest.mark.s3
def test_a_copy_that_was_broken_off_is_taken_up(
    bucket: Store, s3_endpoint: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("SDBATCH_CACHE", str(tmp_path))  # other tests break copies off too
    monkeypatch.setattr(retries, "ATTEMPTS_MAX", 1)
    model = Model(path=bucket.url)
    revision = describe("m", model, {}).base_revision
    with faulty_proxy(s3_endpoint) as proxy:
        monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.endpoint)
        text = "text_encoder/model.safetensors"

        def is_whole() -> bool:
            ledgers = (cache_folder() / "models").glob(f".*.partial/{LEDGER}")
            lines = [line for ledger in ledgers for line in ledger.read_text().splitlines()]
            return any(f'"{text}"' in line and "sha256" in line for line in lines)

        def hold(path: str, _: str) -> None:
            until_s = time.monotonic() + 60
            while path.endswith(WEIGHTS) and not is_whole() and time.monotonic() < until_s:
                time.sleep(0.02)

        proxy.hold = hold
        proxy.rule = first(10, 503, "GET", WEIGHTS)
        with pytest.raises(StoreUnavailable, match=WEIGHTS):
            model_folder(model, revision, {})
        partials = [path for path in (cache_folder() / "models").glob(".*.partial") if (path / "files" / text).exists()]
        proxy.rule = proxy.hold = lambda *_: None
        proxy.seen.clear()
        folder = model_folder(model, revision, {})
        gets = Counter(path.partition("/model/")[2] for method, path, _ in proxy.seen if method == "GET")

    assert [path.exists() for path in partials] == [False]
    assert (folder / WEIGHTS).read_bytes() == (TINY / WEIGHTS).read_bytes()
    assert (gets[text], gets[WEIGHTS]) == (0, 2)
    assert sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()) == [
        entry.path for entry in bucket.list() if not entry.path.endswith(".md")
    ]


def test_what_dead_processes_left_is_swept_and_what_lives_is_not(tmp_path: Path) -> None:
    own = tmp_path / "own"
    boot = partial_of(own).name.split(".")[2]
    kept = [
        f".young.{boot}.partial",
        ".young.00000000.partial",
        f".alive-{'b' * 32}",
        f".alive.{boot}.partial",
        "whole",
    ]
    swept = [f".dead-{'a' * 32}", f".own-{'c' * 32}", f".old.{boot}.partial", ".old.00000000.partial"]
    for name in (*kept, *swept, partial_of(own).name):
        (tmp_path / name / "files").mkdir(parents=True)
        (tmp_path / name / "ledger.jsonl").touch()
        if ".old." in name:
            os.utime(tmp_path / name / "ledger.jsonl", (1, 1))

    with turn(lock_of(tmp_path / "alive"), "alive"):
        sweep(own)
        assert {path.name for path in tmp_path.iterdir() if path.is_dir()} == {*kept, partial_of(own).name}
        sweep(own, needs_room=True)
    assert {path.name for path in tmp_path.iterdir() if path.is_dir()} == {*kept[1:], partial_of(own).name}


@pytest.mark.s3
def test_a_bucket_that_changes_while_it_is_copied_gives_no_copy(
    bucket: Store, s3_endpoint: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = Model(path=bucket.url)
    revision = describe("m", model, {}).base_revision
    with faulty_proxy(s3_endpoint) as proxy:
        monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.endpoint)
        once = threading.Lock()

        def change(path: str, _: str) -> None:
            if path.endswith("tokenizer.json") and once.acquire(blocking=False):
                bucket.put("vae/config.json", bucket.read("vae/config.json") + b" ")

        proxy.hold = change
        with pytest.raises(ModelLoadFailed, match="changed while it was copied"):
            model_folder(model, revision, {})
        with pytest.raises(ModelLoadFailed, match="changed since it was looked into"):
            model_folder(model, revision, {})
