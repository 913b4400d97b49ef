"""A folder to begin with: a brief with its tables and pictures, a job with a tiny model, a delivery.

    starter_files/ of this package --> write_starter() --> a folder of the user's own

Everything in it runs as it is, on a laptop.
"""

from __future__ import annotations

from collections.abc import Iterator
from importlib import resources
from importlib.resources.abc import Traversable
from pathlib import Path

from sdbatch.errors import JobError


def write_starter(folder: Path) -> list[str]:
    """Write the files into a new or empty folder; return their names in it.

    Raises:
        JobError: When the folder holds anything, or cannot be written.
    """
    try:
        if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            what = "is not empty" if folder.is_dir() else "is no folder"
            raise JobError(f"{folder}: {what}; name a folder that is not there yet, or an empty one")
        return list(_written(_files(), folder))
    except OSError as error:
        raise JobError(f"{folder}: {error.strerror or error}") from error


def _written(files: Iterator[tuple[str, bytes]], folder: Path) -> Iterator[str]:
    for name, data in files:
        file = folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        with file.open("xb") as opened:
            opened.write(data)
        yield name


def _files() -> Iterator[tuple[str, bytes]]:
    """Yield name and content of each file, sorted by name."""

    def below(folder: Traversable, before: str) -> Iterator[tuple[str, bytes]]:
        for item in sorted(folder.iterdir(), key=lambda item: item.name):
            if item.is_dir():
                yield from below(item, f"{before}{item.name}/")
            else:
                yield f"{before}{item.name}", item.read_bytes()

    yield from below(resources.files("sdbatch.desk").joinpath("starter_files"), "")
