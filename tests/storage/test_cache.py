"""The cache folder where there is no home to keep one in."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.strangers import STRANGER, needs_root

from sdbatch.errors import UserError
from sdbatch.storage.cache import cache_folder

SAY = f"""
import os, sys, tempfile
from sdbatch.errors import UserError
from sdbatch.storage.cache import cache_folder
os.setgroups([])
os.setgid({STRANGER})
os.setuid({STRANGER})
try:
    print(cache_folder(), cache_folder())
except UserError as error:
    sys.exit(str(error))
"""
"""The interpreter may lie where a stranger cannot read, so the process becomes one after its imports."""


def _as_stranger(environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
    kept = {name: os.environ[name] for name in ("PATH", "PYTHONPATH", "LD_LIBRARY_PATH") if name in os.environ}
    return subprocess.run(
        [sys.executable, "-c", SAY], env={**kept, **environment}, capture_output=True, text=True, timeout=120
    )


@pytest.fixture
def temporary() -> Iterator[Path]:
    """Give a folder that is as /tmp: all may write to it, and remove what is theirs.

    It lies beside those of pytest, which every pytest that starts on this machine closes to strangers again.
    """
    with tempfile.TemporaryDirectory(dir="/tmp") as folder:
        Path(folder).chmod(0o1777)
        yield Path(folder)


@needs_root
@pytest.mark.fault("F33", "HOME not set, or not to be written, user id of no account", "a private folder in TMPDIR")
@pytest.mark.parametrize("home", [None, "/proc"])
def test_without_a_home_the_cache_is_a_folder_of_the_users_own_in_the_temporary_folder(
    home: str | None, temporary: Path
) -> None:
    environment = {"TMPDIR": str(temporary), **({} if home is None else {"HOME": home})}
    done = _as_stranger(environment)
    assert done.returncode == 0, done.stderr
    wanted = str(temporary / f"sdbatch-{STRANGER}")
    assert done.stdout.split() == [wanted, wanted], "a later process would not find it"
    assert (temporary / f"sdbatch-{STRANGER}").stat().st_mode & 0o777 == 0o700


@needs_root
@pytest.mark.fault("F33", "no home, and another user's folder in TMPDIR", "one line that names SDBATCH_CACHE")
def test_a_folder_of_another_user_is_not_taken_for_the_cache(temporary: Path) -> None:
    (temporary / f"sdbatch-{STRANGER}").mkdir(mode=0o777)
    done = _as_stranger({"TMPDIR": str(temporary)})

    (line,) = done.stderr.splitlines()
    assert line.startswith("no cache folder can be written")
    assert "is there and is not this user's alone" in line
    assert line.endswith("set SDBATCH_CACHE to a folder of your own")


def test_a_cache_that_was_named_and_cannot_be_written_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SDBATCH_CACHE", "/proc/none")
    with pytest.raises(
        UserError, match=r"SDBATCH_CACHE=/proc/none cannot be written: .*; it names a folder of your own"
    ):
        cache_folder()
