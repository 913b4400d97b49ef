"""The contract that a local folder and a bucket prefix both keep.

A file that can be seen is whole, and of several writers of one new path exactly one wins.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import BinaryIO, Final, Protocol, TypeVar

JSON_BYTES_MAX: Final = 64 << 20
"""Longest JSON file that is read whole; a tokenizer's is some 30 MiB, a campaign's own are far shorter."""
READ_BYTES_MAX: Final = 8 << 30
"""Longest file of any other kind that is read whole; the snapshot of ten million rows has about 1 GiB."""
_JSON_SUFFIXES: Final = (".json", ".beat", ".cancel")
_Place = TypeVar("_Place")
NO_PUT_IF_ABSENT = "the store has no put-if-absent, so it cannot promise exactly once"


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One listed file.

    Attributes:
        path: Relative to what was listed.
        size_bytes: Length.
        etag: Content tag of an object store, "" on local disks.
        modified_s: Last change by the store's own clock, seconds since 1970; infinite when it does not say.
    """

    path: str
    size_bytes: int
    etag: str
    modified_s: float


def read_bytes_max(path: str) -> int:
    """Return how many bytes of a file are read at most, by its name."""
    return JSON_BYTES_MAX if path.endswith(_JSON_SUFFIXES) else READ_BYTES_MAX


def read_in_turn(read: Callable[[_Place], bytes], places: Iterable[_Place]) -> Iterator[bytes | None]:
    """Yield what `read` returns for one place after the other, None where it finds no file."""
    for place in places:
        try:
            content = read(place)
        except FileNotFoundError:
            content = None
        yield content


class Store(Protocol):
    """One folder, local or remote. Paths are relative to it."""

    url: str
    is_local: bool

    def put_new(self, path: str, data: bytes, content_type: str = ..., *, syncs: bool = ...) -> bool:
        """Write `data` unless `path` exists; return whether this call made it.

        What is there survives a power cut as soon as this returns; without `syncs` it may be missing after one, whole
        otherwise, until `sync` was called for its folder.
        """

    def sync(self, folder: str) -> None:
        """Let the files that were put into a folder survive a power cut; those of a bucket do from the beginning."""

    def put(self, path: str, data: bytes, content_type: str = ...) -> None:
        """Write `data`, replacing what is there, never showing half of it."""

    def read(self, path: str) -> bytes:
        """Return the content.

        Raises:
            FileNotFoundError: When there is no such file.
            StoreRefused: When it is longer than `read_bytes_max`, or no regular file.
        """

    def read_each(self, paths: Sequence[str]) -> Iterator[bytes | None]:
        """Yield the content of one file after the other, as `read` does; None for one that is not there.

        On a disk, neighbours of one folder are cheaper to read so: the way down to it is walked once for them all.
        """

    def stat(self, path: str) -> Entry:
        """Return size and tag of one file. Raises FileNotFoundError."""

    def list(self, folder: str = ..., *, deep: bool = ...) -> list[Entry]:
        """Return every file in `folder` (and below it, when deep), sorted by path; empty when there is none."""

    def folders(self, folder: str) -> Sequence[str]:
        """Return the names of the folders immediately in `folder`, sorted, in one call; empty when there is none."""

    def delete(self, path: str) -> None:
        """Remove a file; nothing happens when it is not there."""

    def temporary(self) -> Sequence[Entry]:
        """Return the unfinished files that killed writers left, sorted by path; `list` never shows them."""

    def read_range(self, path: str, start: int, stop: int) -> bytes:
        """Return the bytes from `start` to `stop`, fewer where the file ends before. Raises FileNotFoundError."""

    def open(self, path: str) -> BinaryIO:
        """Open for reading at random places. Raises FileNotFoundError."""
