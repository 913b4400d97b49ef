"""Reads the headers of a manifest's sources, so that `check` refuses by name what a run would refuse row by row.

    RowBatch --> SourceHeaders.add() --> distinct sources --> their heads --> problems(), each with its row

Local sources are all read; of remote ones a sample, and of clips, whose headers ffmpeg reads in a process each, as many
as a bound of time allows, unless all are asked for. A source that is not there is not this check's matter.
"""

from __future__ import annotations

import contextlib
import io
import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from stat import S_ISREG
from typing import Final, NamedTuple

from sdbatch.columns import SOURCE_ROLES
from sdbatch.errors import Problem, SdbatchError
from sdbatch.fetch.headers import HEAD_BYTES, clip_fault, clip_head_fault, picture_fault
from sdbatch.job import Job
from sdbatch.manifest.read import RowBatch, Shard, read_batches
from sdbatch.manifest.row_place import problem_at
from sdbatch.plan.sources import ASSET_SCHEME, listed
from sdbatch.storage import AllowList, open_store, parse_url, split

REMOTE_MAX: Final = 64
"""Remote sources whose heads are read, unless all are asked for."""

CLIPS_S: Final = 10.0
"""Wall seconds spent on headers of local clips, unless all are asked for; some 100 a second."""

THREADS: Final = 16


class _Use(NamedTuple):
    """One source as a kind of thing: what is a clip in one column may be a picture in another."""

    url: str
    is_clip: bool


class SourceHeaders:
    """Collects the sources of a manifest and reads their headers.

    Args:
        job: Says where sources may come from, and their bounds.
        reads_all: Whether remote sources and clips are read beyond their bounds too.
    """

    def __init__(self, job: Job, *, reads_all: bool = False) -> None:
        self._job = job
        self._allow = AllowList(job.sources.allow)
        self._reads_all = reads_all
        self._uses: dict[_Use, None] = {}
        self._as_written: dict[str, str | None] = {}
        self.num_read = 0

    @property
    def num_sources(self) -> int:
        """Return how many sources the manifest names."""
        return len(self._uses)

    def add(self, batch: RowBatch) -> None:
        """Remember a batch's sources that may be opened."""
        for _, _, _, use in self._named(batch):
            self._uses.setdefault(use)

    def problems(self, shards: Iterable[Shard]) -> Iterator[Problem]:
        """Read the headers, and yield a problem for each row that names a source which would be refused.

        The rows are read again, only when there is one.
        """
        faults = self._faults()
        if not faults:
            return
        for shard in shards:
            for batch in read_batches(shard):
                for offset, role, written, use in self._named(batch):
                    if use in faults:
                        yield problem_at(batch, offset, role, written, faults[use])

    def _named(self, batch: RowBatch) -> Iterator[tuple[int, str, str, _Use]]:
        """Yield offset, column, source as written and source for each source of a batch that may be opened."""
        for role in SOURCE_ROLES:
            for offset, value in enumerate(batch.columns.get(role, ())):
                for written in listed(value) if value else ():
                    if written not in self._as_written:
                        # What the campaign made itself is as its models and encoders make it.
                        is_allowed = not written.startswith(ASSET_SCHEME) and self._allow.problem(written) is None
                        self._as_written[written] = parse_url(written).url if is_allowed else None
                    url = self._as_written[written]
                    if url is not None:
                        yield offset, role, written, _Use(url, is_clip=role == "video")

    def _faults(self) -> Mapping[_Use, str]:
        """Read the headers; return what is wrong, by source."""
        local = [use for use in self._uses if parse_url(use.url).is_local]
        remote = [use for use in self._uses if not parse_url(use.url).is_local]
        chosen = remote if self._reads_all else _spread(remote, REMOTE_MAX)
        faults = dict(self._of_each([use for use in local if not use.is_clip], self._local_fault))
        with ThreadPoolExecutor(THREADS) as threads:
            faults.update(self._of_each(chosen, self._remote_fault, threads))
        with ThreadPoolExecutor(os.cpu_count() or 1) as threads:
            clips = _spread([use for use in local if use.is_clip], self.num_sources)
            faults.update(self._of_each(clips, self._local_fault, threads, None if self._reads_all else CLIPS_S))
        return faults

    def _of_each(
        self,
        uses: list[_Use],
        fault: Callable[[_Use], str | None],
        threads: ThreadPoolExecutor | None = None,
        seconds: float | None = None,
    ) -> Iterator[tuple[_Use, str]]:
        end_s = None if seconds is None else time.monotonic() + seconds

        def within(use: _Use) -> tuple[_Use, str | None, bool]:
            if end_s is not None and time.monotonic() > end_s:
                return use, None, False
            return use, fault(use), True

        for use, found, is_read in (threads.map if threads else map)(within, uses):
            self.num_read += is_read
            if found is not None:
                yield use, found

    def _local_fault(self, use: _Use) -> str | None:
        try:
            status = os.stat(use.url)  # noqa: PTH116 -- a link is followed, as it is in a run
            if not S_ISREG(status.st_mode):
                return None
            if fault := self._size_fault(status.st_size):
                return fault
            if use.is_clip:
                return clip_fault(Path(use.url), use.url, self._job.sources.pixels_max)
            with self._allow.open(use.url) as file:
                return picture_fault(file.read(HEAD_BYTES), file, self._job.sources.pixels_max)
        except FileNotFoundError:
            return None
        except OSError as error:
            return f"cannot be read: {error.strerror or error}"

    def _remote_fault(self, use: _Use) -> str | None:
        folder, name = split(use.url)
        store = open_store(folder, self._job.storage)
        pixels_max = self._job.sources.pixels_max
        with contextlib.suppress(FileNotFoundError, SdbatchError):  # the run, which reads all of it, tells
            if fault := self._size_fault(store.stat(name).size_bytes):
                return fault
            head = store.read_range(name, 0, HEAD_BYTES)
            if use.is_clip:
                return clip_head_fault(head, use.url, pixels_max)
            return picture_fault(head, io.BytesIO(head) if len(head) < HEAD_BYTES else None, pixels_max)
        return None

    def _size_fault(self, size_bytes: int) -> str | None:
        bytes_max = self._job.sources.bytes_max
        return f"{size_bytes} bytes are over {bytes_max} (sources.bytes_max)" if size_bytes > bytes_max else None


def _spread(uses: list[_Use], most: int) -> list[_Use]:
    """Return at most so many, spread over all of them, so that no folder is left out for standing last."""
    if len(uses) <= most:
        return uses
    return [uses[number * len(uses) // most] for number in range(most)]
