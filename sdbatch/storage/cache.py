"""The folder on this machine for things that can be made again, and folders that nobody else can write to.

SDBATCH_CACHE --> XDG_CACHE_HOME, ~/.cache --> TMPDIR/sdbatch-UID: the first that there is and that is ours to write
"""

from __future__ import annotations

import contextlib
import os
import stat
import tempfile
from pathlib import Path

from sdbatch.errors import UserError


def cache_folder() -> Path:
    """Return the folder for things that can be made again.

    SDBATCH_CACHE names it. Otherwise it is the user's cache, or where there is no home to write to (a user id of no
    account, a read-only file system) a folder of this user alone in the temporary folder.

    Raises:
        UserError: When no such folder can be written.
    """
    chosen = os.environ.get("SDBATCH_CACHE")
    if chosen:
        fault = _make_writable(Path(chosen))
        if fault:
            raise UserError(f"SDBATCH_CACHE={chosen} cannot be written: {fault}; it names a folder of your own")
        return Path(chosen)
    try:
        base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "sdbatch"
        fault = _make_writable(base)
    except RuntimeError as error:  # HOME is not set, and the user id has no account
        fault = str(error)
    return base if not fault else _temporary_cache(fault)


def _temporary_cache(reason: str) -> Path:
    """Return this user's cache in the temporary folder; `reason` says why it is not at home."""
    try:
        folder = Path(tempfile.gettempdir()) / f"sdbatch-{os.geteuid()}"
        if private_folder(folder):
            return folder
        fault = f"{folder} is there and is not this user's alone"
    except OSError as error:
        fault = f"{error.filename or 'the temporary folder'}: {error.strerror}"
    raise UserError(f"no cache folder can be written ({reason}; {fault}); set SDBATCH_CACHE to a folder of your own")


def _make_writable(folder: Path) -> str:
    """Make a folder where there is none; return why it cannot be written, "" where it can."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        return f"{error.strerror}: {error.filename}"
    return "" if os.access(folder, os.W_OK | os.X_OK) else f"{os.strerror(13)}: {folder}"


def private_folder(folder: Path) -> bool:
    """Make a folder that this user alone can read and write; return whether it is one.

    One that is there already counts only where nobody else could have written to it: it is this user's, no link, closed
    to others, and nobody else can put another in its place.

    Raises:
        OSError: When it cannot be made.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    with contextlib.suppress(FileExistsError):
        folder.mkdir(mode=0o700)
    status = folder.lstat()
    if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.geteuid() or status.st_mode & 0o022:
        return False
    if status.st_mode & 0o077:
        folder.chmod(0o700)
    return all(_keeps_its_entries(parent) for parent in folder.resolve().parents)


def _keeps_its_entries(folder: Path) -> bool:
    """Whether no other user but root can rename or remove what lies in a folder."""
    status = folder.stat()
    is_open = status.st_mode & 0o002 and not status.st_mode & stat.S_ISVTX
    return status.st_uid in {0, os.geteuid()} and not is_open
