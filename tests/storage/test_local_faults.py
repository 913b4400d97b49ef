"""A disk that is full, a quota, too many open files, a disk that fails: the machine is at fault and no row."""

from __future__ import annotations

import errno
import importlib
import json
import os
import resource
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import pytest
from conftest import prompts
from support.disks import resize, small_disk

import sdbatch
from sdbatch.dispatch.blame import FaultCounts
from sdbatch.dispatch.executor import ErrorRecord, guarded
from sdbatch.encode.asset import is_asset_of
from sdbatch.encode.video import encode_video
from sdbatch.errors import LocalFault, MachineError, RowError, StoreRefused
from sdbatch.ffmpeg import FfmpegFailed
from sdbatch.job import Encode
from sdbatch.local_faults import LOCAL_FAULTS, local_fault, number_said
from sdbatch.outcomes import LOCAL_FAULTS_MAX, outcome_of
from sdbatch.storage import Store, open_campaign
from sdbatch.storage.digests import sha256_files

DISK = "No space left on device"


def _put_many(store: Store) -> None:
    for number in range(100):
        store.put_new(f"assets/{number}", b"x" * 5000)


def _fill(file: Path) -> None:
    with file.open("wb", buffering=0) as handle:
        while True:
            handle.write(b"x" * 4096)


def _temporary(campaign: Path) -> list[str]:
    return [path.name for path in (campaign / ".tmp").iterdir()]


@pytest.mark.fault(
    "F16", "ENOSPC, EDQUOT, EIO, EMFILE, ENFILE, EROFS, EFBIG", "a machine fault with folder, free space and remedy"
)
@pytest.mark.parametrize("number", LOCAL_FAULTS)
def test_a_fault_of_the_machine_names_folder_free_space_and_remedy(number: int, tmp_path: Path) -> None:
    error = ValueError("what came of it")
    error.__cause__ = OSError(number, os.strerror(number))
    fault = local_fault(error, tmp_path / "not" / "there", "TMPDIR")
    assert fault is not None
    line = str(fault)

    assert line.startswith(f"TMPDIR {tmp_path}/not/there: {os.strerror(number)} (")
    assert " free); " in line
    assert LOCAL_FAULTS[number] in line
    assert "\n" not in line
    assert not isinstance(fault, RowError)
    assert (type(fault).exit_code, outcome_of("LocalFault").then) == (1, "again")


@pytest.mark.parametrize("number", [errno.ENOENT, errno.EACCES, errno.EINVAL])
def test_other_errors_are_none_of_the_machines(number: int) -> None:
    assert local_fault(OSError(number, "x"), "/") is None


def test_what_a_bucket_answers_is_no_fault_of_this_machine() -> None:
    error = OSError(errno.EIO, "what s3fs makes of a code that it does not know")
    error.__cause__ = cause = ValueError()
    cause.response = {"Error": {"Code": "Teapot"}}  # type: ignore[attr-defined]

    assert local_fault(error, "/") is None


@pytest.mark.fault("F16", "ffmpeg's own 'No space left'", "a machine fault")
@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("av_interleaved_write_frame(): No space left on device", errno.ENOSPC),
        ("clip.mp4: Disk quota exceeded", errno.EDQUOT),
        ("clip.mp4: Too many open files", errno.EMFILE),
        ("clip.mp4: Read-only file system", errno.EROFS),
        ("source: Input/output error", None),  # which ffmpeg says of a damaged source too
        ("moov atom not found", None),
    ],
)
def test_what_ffmpeg_says_of_the_machine_is_understood(text: str, number: int | None) -> None:
    assert number_said(text) == number


# --- a campaign on a disk -------------------------------------------------------------------------------------------


@pytest.mark.fault(
    "F32", "an output of 64 KiB", "a machine fault; nothing half-written stays, status.json can be replaced"
)
def test_a_full_disk_leaves_nothing_behind(tmp_path: Path) -> None:
    with small_disk(tmp_path / "c", "64k") as folder:
        store = open_campaign(str(folder), {})
        store.put("status.json", b"1" * 3000)
        with pytest.raises(LocalFault, match=rf"{folder}: {DISK} \(.* free\); free some space"):
            _put_many(store)
        with pytest.raises(LocalFault, match=DISK):
            store.put("other.json", b"x" * 70_000)
        assert _temporary(folder) == []
        with pytest.raises(OSError, match=DISK):
            _fill(folder / "filler")
        store.put("status.json", b"2" * 2000)
        assert store.read("status.json") == b"2" * 2000
        assert _temporary(folder) == []
        assert all(entry.size_bytes == 5000 for entry in store.list("assets"))


@pytest.mark.fault("F32", "`assets` on another file system than `.tmp`", "refused: two file systems")
def test_a_campaign_on_two_file_systems_is_explained(tmp_path: Path) -> None:
    with small_disk(tmp_path / "c" / "assets", "64k"):
        store = open_campaign(str(tmp_path / "c"), {})
        with pytest.raises(StoreRefused, match=r"\.tmp and assets lie on two file systems"):
            store.put_new("assets/a", b"1")
        with pytest.raises(StoreRefused, match=r"\.tmp and assets lie on two file systems"):
            store.put("assets/a", b"1")
        assert _temporary(tmp_path / "c") == []


@pytest.mark.fault("F16", "an output mounted read-only", "a machine fault")
def test_a_disk_that_takes_no_writes_is_a_fault_of_the_machine(tmp_path: Path) -> None:
    with (
        small_disk(tmp_path / "c", "64k", "ro") as folder,
        pytest.raises(LocalFault, match=rf"{folder}: Read-only file system"),
    ):
        open_campaign(str(folder), {}).put_new("a", b"1")


@pytest.mark.fault("F16", "files of limited length (ulimit -f)", "a machine fault; nothing stays")
def test_a_bound_on_the_length_of_files_is_a_fault_of_the_machine(tmp_path: Path) -> None:
    script = (
        "import resource, sys; resource.setrlimit(resource.RLIMIT_FSIZE, (8192, 8192))\n"
        "from sdbatch.storage import open_campaign; from sdbatch.errors import LocalFault\n"
        "try: open_campaign(sys.argv[1], {}).put_new('assets/a', b'x' * 100_000)\n"
        "except LocalFault as fault: print(fault)"
    )
    done = subprocess.run([sys.executable, "-c", script, str(tmp_path / "c")], capture_output=True, text=True)

    assert "File too large" in done.stdout
    assert _temporary(tmp_path / "c") == []
    assert list((tmp_path / "c" / "assets").iterdir()) == []


@pytest.mark.fault("F16", "EMFILE", "a machine fault that names ulimit -n")
def test_too_many_open_files_are_a_fault_of_the_machine(tmp_path: Path) -> None:
    store = open_campaign(str(tmp_path / "c"), {})
    store.put("a", b"1")
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (len(list(Path("/proc/self/fd").iterdir())), hard))
    held: list[BinaryIO] = []
    try:
        with pytest.raises(LocalFault, match=r"Too many open files .* \(`ulimit -n`\)"):
            held.extend(store.open("a") for _ in range(100))
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        for handle in held:
            handle.close()


# --- TMPDIR ---------------------------------------------------------------------------------------------------------


@pytest.mark.fault("F16", "a TMPDIR of 12 KiB, a clip to encode", "a machine fault that names TMPDIR; nothing stays")
@pytest.mark.parametrize("suffix", ["mp4", "webm"])
def test_a_full_temporary_folder_blames_no_clip(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, suffix: str) -> None:
    frames_FHWC = np.random.default_rng(1).integers(0, 256, (8, 128, 128, 3)).astype(np.uint8)
    values: dict[str, Any] = {"request_key": "k", "n": 0, "recipe": "{}"}
    whole = encode_video(frames_FHWC, 8.0, Encode.model_validate({"video": suffix}), **values)
    with small_disk(tmp_path / "tmp", "12k") as folder:
        monkeypatch.setattr(tempfile, "tempdir", str(folder))
        with pytest.raises(LocalFault, match=rf"TMPDIR {folder}: {DISK} \(.* free\)"):
            encode_video(frames_FHWC, 8.0, Encode.model_validate({"video": suffix}), **values)
        with pytest.raises(LocalFault, match=DISK):
            is_asset_of(whole.data, suffix, "k", 0)
        assert list(folder.iterdir()) == []


@pytest.mark.fault(
    "F16", "a TMPDIR of 12 KiB, a manifest to keep in it", "exit 1, one line that names TMPDIR, nothing stays"
)
@pytest.mark.parametrize("shards", [1, 4])
def test_a_run_whose_temporary_folder_is_full_ends_in_one_line(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    write_manifest: Callable[..., str],
    job_of: Callable[..., Any],
    shards: int,
) -> None:
    scan = importlib.import_module("sdbatch.driver.rows.scan")
    monkeypatch.setattr(scan, "PART_ROWS", 1)  # a part for each shard, and the first ones do not fit
    chance = np.random.default_rng(3)
    rows = [{**row, "prompt": chance.bytes(60).hex()} for row in prompts(400)]
    job = job_of(write_manifest(rows, shards))
    with small_disk(tmp_path / "tmp", "12k") as folder:
        monkeypatch.setattr(tempfile, "tempdir", str(folder))
        with pytest.raises(LocalFault, match=rf"TMPDIR {folder}: {DISK}") as caught:
            sdbatch.run(job, in_process=True)
        assert list(folder.iterdir()) == []
    assert (caught.value.exit_code, "\n" in str(caught.value)) == (1, False)
    assert not (tmp_path / "campaign").exists()


@pytest.mark.fault("F16", "not one folder that takes a temporary file", "exit 1, one line that names TMPDIR")
def test_a_run_without_any_temporary_folder_ends_in_one_line(
    tmp_path: Path, write_manifest: Callable[..., str], job_of: Callable[..., Any]
) -> None:
    path = tmp_path / "job.yaml"
    path.write_text(json.dumps(job_of(write_manifest(prompts(1)))))
    script = (  # a file system that takes no byte of a file, as far as this process can tell
        "import resource, runpy; resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))\n"
        "runpy.run_module('sdbatch', run_name='__main__', alter_sys=True)"
    )
    command = [sys.executable, "-c", script, "run", str(path), "--in-process"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)

    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert line.startswith("sdbatch: no temporary file can be written in any of /tmp, "), line
    assert line.endswith(f"{tmp_path}; set TMPDIR to a folder of your own, and run again to go on")


@pytest.mark.fault("F16", "a cache folder on a full disk", "a machine fault")
def test_a_full_cache_is_a_fault_of_the_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.png").write_bytes(b"1")
    with small_disk(tmp_path / "cache", "4k") as folder:
        monkeypatch.setenv("SDBATCH_CACHE", str(folder))
        (folder / "filler").write_bytes(b"x" * 4096)
        with pytest.raises(LocalFault, match=rf"{folder}: {DISK}"):
            sha256_files([str(tmp_path / "a.png")])


# --- the run --------------------------------------------------------------------------------------------------------


def test_three_faults_of_the_machine_in_a_row_stop_a_run_and_one_unit_done_starts_the_count_anew() -> None:
    bound = outcome_of("LocalFault").in_a_row_max
    counts = FaultCounts()
    first = [counts.add_machine_fault("full", bound) for _ in range(LOCAL_FAULTS_MAX - 1)]
    counts.clear("m")
    again = [counts.add_machine_fault("full", bound) for _ in range(LOCAL_FAULTS_MAX)]

    assert first == again[:-1] == [None] * (LOCAL_FAULTS_MAX - 1)
    assert isinstance(again[-1], MachineError)
    assert str(again[-1]) == f"{LOCAL_FAULTS_MAX} faults without one unit done; the last: full"


def test_a_workers_error_of_the_machine_is_no_bug() -> None:
    def fail() -> None:
        failed = FfmpegFailed("ffmpeg, status 228")
        failed.errno = errno.ENOSPC
        raise failed

    found = guarded(fail)
    assert isinstance(found, ErrorRecord)
    assert (found.kind, DISK in found.message) == ("LocalFault", True)


@pytest.mark.fault(
    "F32", "an output of 64 KiB, a run", "stopped, exit 1, one line, no row blamed; with more space it goes on"
)
def test_a_run_on_a_full_disk_stops_and_goes_on_with_more_space(
    tmp_path: Path, write_manifest: Callable[..., str], job_of: Callable[..., Any]
) -> None:
    job = job_of(write_manifest(prompts(12)))
    with small_disk(tmp_path / "campaign", "80k") as folder:
        stopped = sdbatch.run(job, in_process=True)
        status = json.loads(next(folder.glob("runs/*/status.json")).read_bytes())
        assert (stopped.state, stopped.exit_code, stopped.counts["rows_failed"]) == ("stopped", 1, 0)
        assert f"{folder}: {DISK}" in (stopped.message or "")
        assert "\n" not in (stopped.message or "")
        assert status["state"] == "stopped"
        assert _temporary(folder) == []
        resize(folder, "8m")
        resumed = sdbatch.run(job, in_process=True)
        assert (resumed.state, resumed.counts["rows_ok"] + resumed.counts["rows_reused"]) == ("done", 12)
        assert sdbatch.verify(folder).is_good
