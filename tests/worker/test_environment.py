"""What a process that runs models sets before torch is imported: above all, nobody else's compiled code is read."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from conftest import long_but

from sdbatch.worker import environment
from sdbatch.worker.environment import compiled_folder

STRANGER = 12345
"""A user id without an account."""

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can make another user's folder")

SAY = """
import json, os, sys
from sdbatch.worker.process import prepare_generation
prepare_generation(2)
from torch._inductor.runtime.cache_dir_utils import cache_dir
from torch._inductor import config
folder = cache_dir()
mode = os.stat(folder).st_mode & 0o777
said = {name: os.environ[name] for name in ("PYTORCH_ALLOC_CONF", "HF_HUB_OFFLINE")}
print(json.dumps({"folder": folder, "mode": mode, "threads": config.compile_threads, **said}))
"""


@pytest.fixture(autouse=True)
def _nothing_set(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in (environment.COMPILED, "TORCHINDUCTOR_COMPILE_THREADS", *environment.ALLOCATOR):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("SDBATCH_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("TMPDIR", str(tmp_path / "tmp"))
    (tmp_path / "tmp").mkdir(mode=0o700)
    monkeypatch.setattr("tempfile.tempdir", None)


@pytest.mark.fault(
    "S1", "compile: true and another user's /tmp/torchinductor_NAME", "kernels from our own folder, 0700"
)
@pytest.mark.long
def test_a_worker_process_keeps_compiled_kernels_in_its_own_folder(tmp_path: Path) -> None:
    done = subprocess.run([sys.executable, "-c", SAY], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    said: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])

    assert said["folder"] == str(tmp_path / "cache" / "compiled"), "torch or diffusers had chosen one before"
    assert said["mode"] == 0o700
    assert said["threads"] == 2
    assert said["PYTORCH_ALLOC_CONF"] == "expandable_segments:True"
    assert said["HF_HUB_OFFLINE"] == "1"


def _planted(folder: Path, mode: int, owner: int = 0) -> None:
    folder.mkdir(parents=True)
    (folder / "kernel.pkl").write_bytes(b"a stranger's pickle")
    folder.chmod(mode)
    if owner:
        os.chown(folder, owner, owner)


@pytest.mark.fault("S1", "a folder of compiled kernels that all may write to", "it is not used")
@pytest.mark.parametrize("mode", [0o777, 0o1777, 0o770])
def test_a_folder_that_others_can_write_to_is_passed_over(mode: int, tmp_path: Path) -> None:
    _planted(tmp_path / "cache" / "compiled", mode)

    chosen = compiled_folder()
    assert chosen == tmp_path / "tmp" / f"sdbatch-{os.geteuid()}" / "compiled"
    assert chosen.stat().st_mode & 0o777 == 0o700
    assert list(chosen.iterdir()) == []


@needs_root
@pytest.mark.fault("S1", "another user's folder in the place of ours", "it is not used")
@pytest.mark.parametrize("place", ["compiled", "cache", "link"])
def test_another_users_folder_is_passed_over(place: str, tmp_path: Path) -> None:
    if place == "compiled":
        _planted(tmp_path / "cache" / "compiled", 0o700, STRANGER)
    elif place == "cache":
        _planted(tmp_path / "cache", 0o755, STRANGER)
    else:
        _planted(tmp_path / "theirs", 0o700, STRANGER)
        (tmp_path / "cache").mkdir()
        (tmp_path / "cache" / "compiled").symlink_to(tmp_path / "theirs")

    assert compiled_folder().is_relative_to(tmp_path / "tmp")


def test_where_others_could_put_another_folder_in_its_place_each_process_has_its_own(tmp_path: Path) -> None:
    (tmp_path / "cache").mkdir()
    for open_to_all in (tmp_path / "cache", tmp_path / "tmp"):
        open_to_all.chmod(0o777)

    one, two = compiled_folder(), compiled_folder()
    assert one != two
    assert {path.stat().st_mode & 0o777 for path in (one, two)} == {0o700}


def test_a_folder_of_ones_own_is_used_again_and_closed_to_others(tmp_path: Path) -> None:
    _planted(tmp_path / "cache" / "compiled", 0o755)  # as an earlier version made it

    assert compiled_folder() == tmp_path / "cache" / "compiled"
    assert (tmp_path / "cache" / "compiled").stat().st_mode & 0o777 == 0o700
    assert (tmp_path / "cache" / "compiled" / "kernel.pkl").is_file()


def test_a_private_folder_that_the_environment_names_is_kept_and_an_open_one_is_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(environment.COMPILED, str(tmp_path / "mine"))
    assert compiled_folder() == tmp_path / "mine"
    _planted(tmp_path / "open", 0o777)
    monkeypatch.setenv(environment.COMPILED, str(tmp_path / "open"))
    assert compiled_folder() == tmp_path / "cache" / "compiled"


@pytest.mark.fault("A11", "compile: true in exact, on workers that compile on their own", "equal bits: kernels by rule")
@pytest.mark.parametrize("is_exact", long_but({True}, [True, False]))
def test_what_compiles_for_a_worker_of_an_exact_job_chooses_by_rule(is_exact: bool) -> None:
    script = f"""
from sdbatch.worker.environment import prepare_environment
prepare_environment(is_exact={is_exact})
import subprocess, sys
said = "from torch._inductor import config; print(config.deterministic)"
print(subprocess.run([sys.executable, "-c", said], capture_output=True, text=True, check=True).stdout.strip())
"""
    environment = {name: value for name, value in os.environ.items() if name != "TORCHINDUCTOR_DETERMINISTIC"}
    found = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, env=environment)

    assert found.stdout.split() == [str(is_exact)]
