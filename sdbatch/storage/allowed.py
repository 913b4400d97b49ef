"""The places that sources may come from, and local files opened beneath them.

    url --> problem() --> why it may not be opened          url --> open() --> an open file, beneath an allowed place

Whoever can write into an allowed folder can turn a link there at any moment. So a file is opened once, along a path
that has no link in it any more, and what is read is that open file.
"""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Sequence
from io import BufferedReader
from stat import S_ISLNK, S_ISREG
from typing import Final

from sdbatch.errors import UserError
from sdbatch.storage.beneath import walked_down
from sdbatch.storage.locations import parse_url

NAME_BYTES_MAX: Final = 255
PATH_CHARS_MAX: Final = 4000
"""Longest file name and path that Linux opens, the path with some room for the end of the working directory."""

TRIES: Final = 3
"""How often a path is followed anew, when a link was laid into it between two looks."""

# Linux can hold a folder that may be passed through but not listed.
_FOLDER: Final = getattr(os, "O_PATH", os.O_RDONLY) | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
# A pipe would wait for a writer, were it laid in the place of a file.
_FILE: Final = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC


class AllowList:
    """The places that sources may come from.

    Args:
        prefixes: Local folders, files, or URLs.

    A local prefix admits every file under it, after symbolic links are followed; a remote prefix ends
    at a whole path part.
    """

    def __init__(self, prefixes: Sequence[str]) -> None:
        self._local: list[str] = []
        self._remote: list[str] = []
        self._text = ", ".join(prefixes)
        for prefix in prefixes:
            location = parse_url(prefix)
            if location.is_local:
                self._local.append(os.path.realpath(location.path))
            else:
                self._remote.append(location.url)

    def problem(self, url: str) -> str | None:
        """Return why a source may not be opened, None when it may."""
        try:
            location = parse_url(url)
        except UserError as error:
            return f"is refused: {error}"
        if location.is_local and (message := _name_problem(location.path)):
            return message
        if location.is_local:
            place = self._place(_real(location.path))
        else:
            place = next((one for one in self._remote if _is_under(location.url, one)), None)
        return None if place is not None else f"is outside sources.allow ({self._text or 'which is empty'})"

    def open(self, url: str) -> BufferedReader:
        """Open a local source, beneath an allowed place, wherever links have been turned to meanwhile.

        Raises:
            FileNotFoundError: When there is no regular file that may be read beneath an allowed place.
        """
        path = parse_url(url).path
        for _ in range(TRIES):
            real = _real(path)
            place = self._place(real)
            if place is None:
                break
            try:
                return os.fdopen(_opened_beneath(place, real), "rb")
            except OSError as error:
                if error.errno not in {errno.ELOOP, errno.ENOTDIR, errno.EMLINK}:
                    raise
        raise FileNotFoundError(errno.ENOENT, "no file beneath sources.allow", path)

    def _place(self, real: str) -> str | None:
        return next((place for place in self._local if _is_under(real, place)), None)


def _name_problem(path: str) -> str | None:
    """Return why no file system has a path."""
    try:
        longest = max(map(len, os.fsencode(path).split(b"/")))
    except UnicodeEncodeError:
        return "holds half of a surrogate pair, which is no character"
    if longest > NAME_BYTES_MAX:
        return f"holds a name of {longest} bytes, over {NAME_BYTES_MAX}"
    return f"is a path of {len(path)} characters, over {PATH_CHARS_MAX}" if len(path) > PATH_CHARS_MAX else None


def _real(path: str) -> str:
    """Return a path with its links followed; "" where they are turned faster than they can be read."""
    for _ in range(TRIES):
        with contextlib.suppress(OSError):
            return os.path.realpath(path)
    return ""


def _is_under(path: str, place: str) -> bool:
    return path == place or path.startswith(place.rstrip("/") + "/")


def _opened_beneath(place: str, real: str) -> int:
    """Open a regular file by a path without links, part by part from an allowed place on; return its descriptor.

    Raises:
        OSError: ELOOP or ENOTDIR when a part is a link by now, FileNotFoundError when there is no such regular file.
    """
    if real == place:
        place = os.path.dirname(place)  # noqa: PTH120 -- text alone
    *folders, name = os.path.relpath(real, place).split("/")

    def open_part(holder: int, number: int) -> int:
        return os.open(folders[number], _FOLDER, dir_fd=holder)

    first = os.open(place, _FOLDER)
    try:
        with walked_down(first, len(folders), open_part) as holder:
            # Looked at before it is opened, because opening a device can do something.
            mode = os.stat(name, dir_fd=holder, follow_symlinks=False).st_mode
            if not S_ISREG(mode):
                raise OSError(errno.ELOOP if S_ISLNK(mode) else errno.ENOENT, "is not a file", real)
            descriptor = os.open(name, _FILE, dir_fd=holder)
    except PermissionError as error:
        raise FileNotFoundError(errno.ENOENT, "may not be read", real) from error
    if not S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise FileNotFoundError(errno.ENOENT, "is not a file", real)
    return descriptor
