"""Faults of this machine that no row is to blame for: a full disk, a quota, too many open files, a disk that fails.

    OSError + the folder it is about --> local_fault() --> LocalFault, one line with the free space | None

Whoever turns an OSError into the failure of a row asks here first.
"""

from __future__ import annotations

import errno
import os
import re
import sqlite3
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from sdbatch.errors import LocalFault, causes

_DISK: Final = "free some space"
_FILES: Final = "raise the bound on open files (`ulimit -n`) or run fewer workers"

LOCAL_FAULTS: Final[Mapping[int, str]] = {
    errno.ENOSPC: _DISK,
    errno.EDQUOT: "free some space, or have the quota raised",
    errno.EFBIG: "raise the bound on the length of a file (`ulimit -f`)",
    errno.EIO: "look at the disk and at the kernel's log",
    errno.EROFS: "mount it for writing, or name another folder",
    errno.EMFILE: _FILES,
    errno.ENFILE: _FILES,
}
"""Error numbers that blame the machine, each with its remedy."""

_TEXTS: Final = re.compile(
    "|".join(re.escape(os.strerror(number)) for number in LOCAL_FAULTS if number != errno.EIO), re.IGNORECASE
)
"""What another program, such as ffmpeg, says of them. It says "Input/output error" of a damaged input as well."""
_NO_FOLDER: Final = "no temporary file can be written in any of "
_TEMPFILE_SAYS: Final = "No usable temporary directory found in"
_NUMBERS: Final = {os.strerror(number).lower(): number for number in LOCAL_FAULTS}
_SQLITE: Final = {"SQLITE_FULL": errno.ENOSPC, "SQLITE_IOERR": errno.EIO, "SQLITE_READONLY": errno.EROFS}


def local_fault(error: BaseException, folder: str | os.PathLike[str], what: str = "") -> LocalFault | None:
    """Return what a caught error says of this machine; None when it says nothing of it.

    Args:
        error: As it was caught; its causes are looked at as well.
        folder: Folder that was written to, or read from, where the error names no file elsewhere.
        what: What that folder is, such as TMPDIR.
    """
    parts = list(causes(error))
    if any(hasattr(part, "response") for part in parts):  # s3fs gives an unknown answer of a store the number of EIO
        return None
    for part in parts:
        if isinstance(part, LocalFault):
            return part
        if _is_without_folder(part):
            return LocalFault(f"{_NO_FOLDER}{_tried(part)}; set TMPDIR to a folder of your own, and run again to go on")
        number = _number_of(part)
        if number is not None:
            file = getattr(part, "filename", None)
            if isinstance(file, str) and file.startswith("/") and not file.startswith(f"{folder}/"):
                folder, what = Path(file).parent, ""
            return LocalFault(_line(number, str(folder), what))
    return None


def temporary_folder() -> str:
    """Return the folder of temporary files for a message; where there is none, the one that was meant."""
    try:
        return tempfile.gettempdir()
    except FileNotFoundError:
        return os.environ.get("TMPDIR", "/tmp")  # noqa: S108 -- only a name


@contextmanager
def local_faults_named(folder: str | os.PathLike[str], what: str = "") -> Iterator[None]:
    """Turn an error of this machine that the block raises into a `LocalFault`, which names the folder."""
    try:
        yield
    except (OSError, sqlite3.Error) as error:
        if fault := local_fault(error, folder, what):
            raise fault from error
        raise


def number_said(text: str) -> int | None:
    """Return the error number of this machine that another program's messages tell of; None for none."""
    said = _TEXTS.search(text)
    return _NUMBERS[said[0].lower()] if said else None


def free_space(folder: str) -> str:
    """Return the free space of the file system that a folder lies on, or would lie on, for people."""
    path = Path(folder)
    while not path.exists() and path != path.parent:
        path = path.parent
    try:
        status = os.statvfs(path)
    except OSError:
        return "free space unknown"
    free_bytes = status.f_bavail * status.f_frsize
    for unit, size in (("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)):
        if free_bytes >= size:
            return f"{free_bytes / size:.1f} {unit} free"
    return f"{free_bytes} bytes free"


def _is_without_folder(error: BaseException) -> bool:
    """Whether Python found no folder for temporary files, each of them full or closed."""
    return isinstance(error, FileNotFoundError) and str(error.strerror).startswith(_TEMPFILE_SAYS)


def _tried(error: BaseException) -> str:
    """Return the folders that Python tried."""
    said = str(error.strerror) if isinstance(error, OSError) else ""
    return said.removeprefix(_TEMPFILE_SAYS).strip(" []").replace("'", "")


def _number_of(error: BaseException) -> int | None:
    if isinstance(error, sqlite3.Error):
        name = getattr(error, "sqlite_errorname", None) or ""
        return next((number for known, number in _SQLITE.items() if name.startswith(known)), None)
    number = error.errno if isinstance(error, OSError) else None
    return number if number in LOCAL_FAULTS else None


def _line(number: int, folder: str, what: str) -> str:
    place = f"{what} {folder}" if what else folder
    return f"{place}: {os.strerror(number)} ({free_space(folder)}); {LOCAL_FAULTS[number]}, and run again to go on"
