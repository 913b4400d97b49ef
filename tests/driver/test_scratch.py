"""What a killed driver leaves on disk goes with the next one."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from sdbatch.scratch import Scratch


@pytest.fixture(autouse=True)
def _own_temporary_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))


def test_a_folder_goes_with_its_owner() -> None:
    scratch = Scratch()
    (scratch.folder / "part-0").touch()
    scratch.close()

    assert not scratch.folder.exists()


def test_the_folder_of_a_killed_process_is_removed_and_that_of_a_living_one_is_not(tmp_path: Path) -> None:
    script = (
        f"import os, tempfile; tempfile.tempdir = {str(tmp_path)!r}; from sdbatch.scratch import Scratch;"
        "print(Scratch().folder, flush=True); os.kill(os.getpid(), 9)"
    )
    killed = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    left = Path(killed.stdout.strip())
    living = Scratch()
    (living.folder / "part-0").touch()

    assert killed.returncode == -9
    assert not left.exists()
    Scratch().close()
    assert (living.folder / "part-0").exists()
    living.close()


def test_a_folder_that_is_no_spool_of_ours_is_left_alone(tmp_path: Path) -> None:
    other = tmp_path / "sdbatch-spool-but-without-a-lock"
    other.mkdir()
    Scratch().close()

    assert other.exists()
