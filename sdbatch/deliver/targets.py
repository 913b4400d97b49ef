"""Where files are delivered to: a folder or bucket, or zip archives in one.

    FolderTarget   files under their names; delivered.parquet beside them
    ZipTarget      files in a folder of this machine until all are made, then FILE.zip; FILE.delivered.parquet beside it

An archive is a function of its files alone: sorted, stored, dated 1980-01-01.
"""

from __future__ import annotations

import hashlib
import io
import re
import shutil
import time
import zipfile
import zlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Final, Protocol

from sdbatch.deliver.index import BEFORE, INDEX, MADE, TABLE, Rows, from_parquet, to_csv, to_parquet
from sdbatch.deliver.making import SIDECAR
from sdbatch.deliver.names import folded
from sdbatch.errors import JobError, UserError
from sdbatch.storage import Entry, LocalStore, Store, joined
from sdbatch.storage.cache import cache_folder

LEDGERS: Final = "deliveries"
FOLDERS_MAX: Final = 16
"""Folders of a target that are listed one by one, so that the ledger is not listed; more are listed in one call."""
PARTIAL_S: Final = 600.0
"""A file that was not finished for so long was left by a delivery that was killed."""
_PARTIAL: Final = re.compile(r"\.tmp/[0-9a-f]{32}")
_NUMBER: Final = re.compile(r"|-\d{3,}")
"""What stands in the names of a delivery's archives before `.zip`, after what all of them begin with."""
_DATE: Final = (1980, 1, 1, 0, 0, 0)
_PARQUET, _CSV, _ZIP = "application/vnd.apache.parquet", "text/csv", "application/zip"


class Target(Protocol):
    """One place that files are delivered to.

    Attributes:
        store: The folder that holds what is delivered, and the table of it.
        files_url: Folder or bucket that files are put into as they are made.
        ledgers: Folder of the ledger in the store.
        url: For people.
    """

    store: Store
    files_url: str
    ledgers: str
    url: str

    def read_rows(self) -> Rows:
        """Return the rows of the table that is there; empty when there is none."""

    def write_rows(self, rows: Rows) -> None:
        """Write the table."""

    def path_of(self, row: Mapping[str, Any]) -> str:
        """Return the path below `files_url` under which a row's file is put."""

    def has(self, row: Mapping[str, Any]) -> bool:
        """Whether the file of a row that was made is there, as far as its length says."""

    def strangers(self, names: Iterable[str], rows: Rows) -> list[str]:
        """Return those names under which something lies that no row tells of."""

    def doubtful(self, rows: Rows) -> Iterator[tuple[str, bytes]]:
        """Yield name and content of each file there that may not be its row's, as after a delivery that was cut off.

        A name may come several times.
        """

    def lost(self, rows: Rows) -> list[str]:
        """Return the names of files that were made and that neither the target nor this machine has any more.

        An archive is made of what these two have; the files of a folder lie there, each for itself.
        """

    def remove(self, names: Iterable[str], rows: Rows) -> None:
        """Remove files, and their rows."""

    def remove_sidecar(self, row: Mapping[str, Any]) -> None:
        """Remove what stands beside a row's file."""

    def complete(self, rows: Rows) -> None:
        """Bring the target to its final state; all files of the rows are made."""

    def tidy(self) -> None:
        """Remove what was needed on the way, once all is written."""

    def is_complete(self, rows: Rows) -> bool:
        """Whether it is in that state, as far as this target can tell."""


class FolderTarget:
    """A folder or bucket, which several deliveries may share. See `Target`.

    Args:
        store: The folder.
        owns: Says whether a row is the delivery's own; others are left as they are.
    """

    def __init__(self, store: Store, owns: Callable[[Mapping[str, Any]], bool]) -> None:
        self.store, self.url, self.files_url, self.ledgers = store, store.url, store.url, LEDGERS
        self._owns = owns
        self._present = {entry.path: entry.size_bytes for entry in _files_of(store)}

    def read_rows(self) -> Rows:
        """See `Target`."""
        return _read_rows(self.store, INDEX)

    def write_rows(self, rows: Rows) -> None:
        """See `Target`. What other deliveries wrote meanwhile is kept, and a name that one of them took is refused.

        Raises:
            JobError: When another delivery has taken a name since the rows were read.
        """
        others = {name: row for name, row in self.read_rows().items() if not self._owns(row)}
        own = {name: row for name, row in rows.items() if self._owns(row)}
        taken = {folded(name): row["delivery"] for name, row in others.items()}
        for name in own:
            if other := taken.get(folded(name)):
                raise JobError(f"{self.url}: {name} was taken meanwhile by delivery {other}; deliver again to see all")
        rows.clear()
        rows.update(others | own)
        self.store.put(INDEX, to_parquet(rows), _PARQUET)

    def path_of(self, row: Mapping[str, Any]) -> str:
        """See `Target`."""
        return str(row["name"])

    def has(self, row: Mapping[str, Any]) -> bool:
        """See `Target`. What stands beside a file belongs to it."""
        is_there = self._present.get(row["name"]) == row["file_bytes"]
        return bool(is_there and (not row.get("sidecar_sha256") or row["name"] + SIDECAR in self._present))

    def strangers(self, names: Iterable[str], rows: Rows) -> list[str]:
        """See `Target`."""
        known = {folded(name) for name in rows}
        there = {folded(path) for path in self._present}
        return [name for name in names if folded(name) in there and folded(name) not in known]

    def doubtful(self, rows: Rows) -> Iterator[tuple[str, bytes]]:
        """See `Target`."""
        for name, row in rows.items():
            if name in self._present and (row["status"] != MADE or row["key"].startswith(BEFORE)):
                yield name, self.store.read(name)

    def lost(self, rows: Rows) -> list[str]:
        """See `Target`."""
        return []

    def remove(self, names: Iterable[str], rows: Rows) -> None:
        """See `Target`."""
        for name in names:
            self.store.delete(name)
            self.remove_sidecar(rows[name])
            del rows[name]

    def remove_sidecar(self, row: Mapping[str, Any]) -> None:
        """See `Target`. After a kill it may lie there although no row tells of it."""
        sidecar = row["name"] + SIDECAR
        if row.get("sidecar_sha256") or sidecar in self._present:
            self.store.delete(sidecar)

    def complete(self, rows: Rows) -> None:
        """See `Target`."""
        self.store.put(TABLE, to_csv(rows), _CSV)

    def tidy(self) -> None:
        """See `Target`."""
        _without_temporary_folder(self.store)

    def is_complete(self, rows: Rows) -> bool:
        """See `Target`."""
        return _holds(self.store, TABLE, to_csv(rows))


class ZipTarget:
    """One archive, or several where it would be too long. See `Target`.

    Args:
        store: Folder or bucket that holds the archive.
        file_name: Its name, which ends in .zip.
        bytes_max: Longest archive; a single file may be longer.
    """

    def __init__(self, store: Store, file_name: str, bytes_max: int) -> None:
        self.store, self.url = store, joined(store.url, file_name)
        self._stem = file_name[: -len(".zip")]
        self._bytes_max = bytes_max
        self.ledgers = f"{self._stem}.{LEDGERS}"
        self._work = cache_folder() / "deliveries" / hashlib.sha256(self.url.encode()).hexdigest()[:16]
        self._files = LocalStore(str(self._work))
        self.files_url = str(self._work)
        self._present = {entry.path: entry.size_bytes for entry in self._files.list()}
        self._archived: dict[str, dict[str, int]] = {}
        self._others: set[str] = set()

    def read_rows(self) -> Rows:
        """See `Target`.

        Raises:
            JobError: When an archive of that name is there without its table.
        """
        rows = _read_rows(self.store, f"{self._stem}.{INDEX}")
        paths = [entry.path for entry in self.store.list(deep=False)]
        stems = [path.removesuffix(f".{INDEX}") for path in paths if path.endswith(f".{INDEX}")]
        self._others = {f"{stem}.zip" for stem in stems if stem != self._stem}
        there = [path for path in paths if self._is_mine(path)]
        if there and not rows:
            raise JobError(
                f"{joined(self.store.url, there[0])}: is there, and no delivery of sdbatch made it; move it away"
            )
        for path in there:
            with self.store.open(path) as file, suppress(zipfile.BadZipFile), zipfile.ZipFile(file) as archive:
                self._archived[path] = {info.filename: info.file_size for info in archive.infolist()}
        return rows

    def write_rows(self, rows: Rows) -> None:
        """See `Target`."""
        self.store.put(f"{self._stem}.{INDEX}", to_parquet(rows), _PARQUET)

    def path_of(self, row: Mapping[str, Any]) -> str:
        """See `Target`. The key stands for the bytes, so that a file is found again after a kill."""
        return f"{row['key']}.file"

    def has(self, row: Mapping[str, Any]) -> bool:
        """See `Target`. Until a kill in `complete` is made up for, this machine alone may have what was archived."""
        is_archived = self._archived.get(row["archive"], {}).get(row["name"]) == row["file_bytes"]
        return bool(is_archived or self._present.get(self.path_of(row)) == row["file_bytes"])

    def strangers(self, names: Iterable[str], rows: Rows) -> list[str]:
        """See `Target`. An archive is all its delivery's own."""
        return []

    def doubtful(self, rows: Rows) -> Iterator[tuple[str, bytes]]:
        """See `Target`."""
        for path, members in self._archived.items():
            names = [name for name in members if rows.get(name, {}).get("archive") != path]
            if names:
                with self._opened(path) as archive:
                    yield from ((name, archive.read(name)) for name in names)

    def lost(self, rows: Rows) -> list[str]:
        """See `Target`."""
        return [name for name, row in rows.items() if row["status"] == MADE and not self.has(row)]

    def remove(self, names: Iterable[str], rows: Rows) -> None:
        """See `Target`."""
        for name in names:
            del rows[name]

    def remove_sidecar(self, row: Mapping[str, Any]) -> None:
        """See `Target`. Nothing stands beside a file of an archive."""

    def complete(self, rows: Rows) -> None:
        """See `Target`. Files that stay are first taken out of the old archives: on a bucket, those are replaced."""
        parts = self._parts(rows)
        if taken := sorted(parts.keys() & self._others):
            raise JobError(
                f"{joined(self.store.url, taken[0])}: is another delivery's; name another `to` for one of them"
            )
        changed = {
            name: members
            for name, members in parts.items()
            if set(self._archived.get(name, {})) != set(members) or any(rows[one]["archive"] != name for one in members)
        }
        self._take_out({one for members in changed.values() for one in members}, rows)
        for name, members in changed.items():
            self.store.put(name, self._archive(members, rows), _ZIP)
            for one in members:
                rows[one]["archive"] = name
        # By the other table a takedown that was killed knows whether it has anything to do here.
        self.store.put(f"{self._stem}.{TABLE}", to_csv(rows), _CSV)
        self.write_rows(rows)
        for name in self._archived.keys() - parts.keys():
            self.store.delete(name)

    def tidy(self) -> None:
        """See `Target`."""
        shutil.rmtree(self._work, ignore_errors=True)
        _without_temporary_folder(self.store)

    def is_complete(self, rows: Rows) -> bool:
        """See `Target`."""
        parts = {name: set(members) for name, members in self._parts(rows).items()}
        is_archived = parts == {name: set(members) for name, members in self._archived.items()}
        return is_archived and _holds(self.store, f"{self._stem}.{TABLE}", to_csv(rows))

    def _is_mine(self, path: str) -> bool:
        """Whether it is an archive of this delivery, by its name; `spring-2.zip` may be that of another one."""
        middle = path.removeprefix(self._stem).removesuffix(".zip")
        is_named_so = path == f"{self._stem}{middle}.zip" and _NUMBER.fullmatch(middle) is not None
        return is_named_so and path not in self._others

    def _parts(self, rows: Rows) -> dict[str, list[str]]:
        """Return the members of each archive."""
        parts: list[list[str]] = []
        held_bytes = 0
        for name in sorted(name for name, row in rows.items() if row["status"] == MADE):
            size = _member_bytes(rows[name])
            if not parts or held_bytes + size > self._bytes_max:
                parts.append([])
                held_bytes = 0
            parts[-1].append(name)
            held_bytes += size
        if len(parts) <= 1:
            return {f"{self._stem}.zip": members for members in parts}
        return {f"{self._stem}-{number:03d}.zip": members for number, members in enumerate(parts, 1)}

    def _take_out(self, names: set[str], rows: Rows) -> None:
        by_archive: dict[str, list[str]] = {}
        for name in names:
            if name in self._archived.get(rows[name]["archive"], {}):
                by_archive.setdefault(rows[name]["archive"], []).append(name)
        for path, members in by_archive.items():
            with self._opened(path) as archive:
                for name in members:
                    self._files.put(self.path_of(rows[name]), archive.read(name))

    @contextmanager
    def _opened(self, path: str) -> Iterator[zipfile.ZipFile]:
        try:
            with self.store.open(path) as file, zipfile.ZipFile(file) as archive:
                yield archive
        except (zipfile.BadZipFile, zlib.error) as error:
            raise UserError(
                f"{joined(self.store.url, path)}: is damaged ({error}); restore it, or remove it and deliver again, "
                "which makes its files anew"
            ) from error

    def _archive(self, members: Iterable[str], rows: Rows) -> bytes:
        buffer = io.BytesIO()
        with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
            for name in members:
                info = zipfile.ZipInfo(name, _DATE)
                info.create_system, info.external_attr = 3, 0o644 << 16
                archive.writestr(info, self._files.read(self.path_of(rows[name])))
        return buffer.getvalue()


def archive_bytes(rows: Rows) -> Counter[str]:
    """Return how long the archives may be that the rows of an archive's table name."""
    lengths: Counter[str] = Counter()
    for row in rows.values():
        if row["archive"] is not None:
            lengths[row["archive"]] += _member_bytes(row)
    return lengths


def _member_bytes(row: Mapping[str, Any]) -> int:
    """Return the most that a file takes of an archive, in which its name stands twice."""
    return int(row["file_bytes"]) + 2 * len(row["name"].encode()) + 128


def _files_of(store: Store) -> list[Entry]:
    """Return the files of a folder but for those of its ledger, of which every invocation adds one."""
    folders = [name for name in store.folders("") if name != LEDGERS]
    if len(folders) > FOLDERS_MAX:
        return [entry for entry in store.list() if not entry.path.startswith(f"{LEDGERS}/")]
    return [*store.list(deep=False), *(entry for folder in folders for entry in store.list(folder))]


def _read_rows(store: Store, path: str) -> Rows:
    try:
        data = store.read(path)
    except FileNotFoundError:
        return {}
    return from_parquet(data, joined(store.url, path))


def _holds(store: Store, path: str, data: bytes) -> bool:
    try:
        return store.read(path) == data
    except FileNotFoundError:
        return False


def partial_files(store: Store) -> list[Entry]:
    """Return the files that a delivery has not finished, or was killed over; other programs' are left out."""
    return [entry for entry in store.temporary() if _PARTIAL.fullmatch(entry.path)]


def _without_temporary_folder(store: Store) -> None:
    """Remove what killed deliveries left unfinished, and the empty folder: it is not for those who receive files."""
    for entry in partial_files(store):
        if time.time() - entry.modified_s > PARTIAL_S:
            store.delete(entry.path)
    if store.is_local:
        with suppress(OSError):
            (Path(store.url) / ".tmp").rmdir()
