"""Files of one folder, reached through its descriptor, so that no link leads out of it.

    folder, a/b/c.png --> its descriptor --> a --> b --> c.png     (each opened in the one before, links refused)

A campaign may come from a stranger. The folder itself may be reached through links, since the caller names it; what
lies in it may be neither a link, nor a pipe, nor a device.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Final

from sdbatch.errors import StoreRefused

DEPTH_MAX: Final = 32
"""Folders within folders that a listing goes down; a campaign has four."""

_FOLDER: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
# Without O_NONBLOCK, opening a pipe waits for a writer; a regular file is read as always.
_FILE: Final = os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK


@contextmanager
def opened_folder(root: str, parts: tuple[str, ...] = (), *, makes: bool = False) -> Iterator[int]:
    """Give the descriptor of a folder beneath a root while the block runs.

    Args:
        root: The folder that everything lies in; a link to it is followed.
        parts: Names of the folders from there on, none of which may be a link.
        makes: Make what is missing, the root as well.

    Raises:
        StoreRefused: When one of them is a link.
        FileNotFoundError, NotADirectoryError: When one is not there, or is no folder.
    """

    def open_part(folder: int, number: int) -> int:
        return _opened(folder, parts[number], root, "/".join(parts[: number + 1]), makes=makes)

    with walked_down(_opened_root(root, makes=makes), len(parts), open_part) as folder:
        yield folder


@contextmanager
def walked_down(folder: int, depth: int, open_part: Callable[[int, int], int]) -> Iterator[int]:
    """Give the descriptor of the last of some nested folders while the block runs; the others are closed on the way.

    Args:
        folder: Descriptor of the first one, which is closed too.
        depth: Folders below it.
        open_part: Opens the next one, given the descriptor of the one that it lies in, and its number from 0.
    """
    try:
        for number in range(depth):
            inner = open_part(folder, number)
            os.close(folder)
            folder = inner
        yield folder
    finally:
        os.close(folder)


def opened_file(folder: int, name: str, where: str, *, follows: bool = False) -> int:
    """Open a regular file of a folder for reading; return its descriptor.

    Args:
        folder: Descriptor of the folder.
        name: Name in it.
        where: What messages call the file.
        follows: Whether a link is followed; what it leads to must be a regular file too.

    Raises:
        StoreRefused: When it is a link that is not followed, or leads back to itself, a pipe, a device or a socket.
        FileNotFoundError, IsADirectoryError: When it is not there, or is a folder.
    """
    try:
        file = os.open(name, _FILE if follows else _FILE | os.O_NOFOLLOW, dir_fd=folder)
    except OSError as error:
        if not follows:
            refuse_link(folder, name, where)
        if follows and error.errno == errno.ELOOP:
            raise StoreRefused(f"{where}: is a link that leads back to itself; put the file itself there") from error
        if stat.S_ISSOCK(_mode(folder, name, follows=follows)):
            raise StoreRefused(_not_regular(where, stat.S_IFSOCK)) from error
        raise
    mode = os.fstat(file).st_mode
    if stat.S_ISREG(mode):
        return file
    os.close(file)
    if stat.S_ISDIR(mode):
        raise IsADirectoryError(f"{where}: is a folder")
    raise StoreRefused(_not_regular(where, mode))


def refuse_link(folder: int, name: str, where: str) -> None:
    """Raise StoreRefused when a name in a folder is a link, and FileNotFoundError when it is not there."""
    if stat.S_ISLNK(os.stat(name, dir_fd=folder, follow_symlinks=False).st_mode):
        raise StoreRefused(f"{where}: is a link, and no link is followed inside a campaign; put the file itself there")


def kind_of(mode: int) -> str:
    """Return what a file that is not regular is, for people."""
    kinds = ((stat.S_ISLNK, "a link"), (stat.S_ISFIFO, "a pipe"), (stat.S_ISSOCK, "a socket"))
    return next((name for is_kind, name in kinds if is_kind(mode)), "a device")


def _opened_root(root: str, *, makes: bool) -> int:
    try:
        return os.open(root, _FOLDER)
    except FileNotFoundError:
        if not makes:
            raise
    os.makedirs(root, exist_ok=True)  # noqa: PTH103 -- beside `os.open`
    return os.open(root, _FOLDER)


def _opened(folder: int, name: str, root: str, path: str, *, makes: bool) -> int:
    try:
        return os.open(name, _FOLDER | os.O_NOFOLLOW, dir_fd=folder)
    except FileNotFoundError:
        if not makes:
            raise
    except OSError:
        refuse_link(folder, name, f"{root}/{path}")
        raise
    with suppress(FileExistsError):
        os.mkdir(name, dir_fd=folder)
    return _opened(folder, name, root, path, makes=False)


def _mode(folder: int, name: str, *, follows: bool) -> int:
    try:
        return os.stat(name, dir_fd=folder, follow_symlinks=follows).st_mode
    except OSError:
        return 0


def _not_regular(where: str, mode: int) -> str:
    return f"{where}: is {kind_of(mode)}, not a regular file"
