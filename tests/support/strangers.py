"""A process of a user id without an account, as OpenShift gives them, in a view of the file system of its own.

    command --> unshare (its own mounts) --> the interpreter's folder is opened --> setpriv (its own id) --> command

An interpreter below a folder that only its owner enters (root's home) can be run by nobody else, so that folder is
covered, in this process' own mounts, by one that shows the interpreter alone.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

STRANGER = 12345
"""A user id without an account."""

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can take another user's id")

_ENTER = """
set -e
shown=$1 closed=$2 hold=$3; shift 3
if [ -n "$closed" ]; then
    mount --bind "$shown" "$hold"
    mount -t tmpfs -o mode=755 none "$closed"
    mkdir -p "$shown"
    mount --bind "$hold" "$shown"
fi
exec setpriv --reuid 12345 --regid 0 --clear-groups "$@"
"""


def run_as_stranger(
    command: list[str], environment: dict[str, str], hold: Path, timeout_s: float
) -> subprocess.CompletedProcess[str]:
    """Run a command as a stranger, in an environment that holds nothing else; skip the test where that cannot be.

    Args:
        command: What is run.
        environment: All of its environment.
        hold: An empty folder that the interpreter is mounted on meanwhile.
        timeout_s: Longest that it may take.
    """
    enter = ["unshare", "--mount", "sh", "-c", _ENTER, "sh", sys.base_prefix, _closed_folder(), str(hold)]
    try:
        tried = subprocess.run([*enter, sys.executable, "-c", "pass"], env=environment, capture_output=True, text=True)
    except FileNotFoundError as error:
        pytest.skip(f"no process with mounts of its own can be started here: {error}")
    if tried.returncode:
        pytest.skip(f"another user cannot run {sys.executable} here: {tried.stderr.strip()}")
    return subprocess.run([*enter, *command], env=environment, capture_output=True, text=True, timeout=timeout_s)


def _closed_folder() -> str:
    """Return the topmost folder above the interpreter that only its owner enters; "" where there is none."""
    above = reversed(Path(sys.base_prefix).resolve().parents)
    return next((str(folder) for folder in above if not folder.stat().st_mode & 0o001), "")
