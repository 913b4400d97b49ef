"""The size that a source states, for the price of rows that enlarge it.

    source --> its head --> width and height, None where they are not known

Local sources are all asked; of remote ones, which cost a call of the store each, the first few.
"""

from __future__ import annotations

from typing import Final

from sdbatch.errors import SdbatchError
from sdbatch.fetch.headers import HEAD_BYTES, picture_size
from sdbatch.job import Job
from sdbatch.plan.sources import ASSET_SCHEME
from sdbatch.storage import AllowList, open_store, parse_url, split

REMOTE_MAX: Final = 64
"""Remote sources whose heads are read; the others count at the size of the model's family."""


class SourceSizes:
    """Reads the sizes of sources, each once.

    Args:
        job: Says where sources may come from.
    """

    def __init__(self, job: Job) -> None:
        self._job = job
        self._allow = AllowList(job.sources.allow)
        self._known: dict[str, tuple[int, int] | None] = {}
        self._num_remote = 0

    def of(self, url: str) -> tuple[int, int] | None:
        """Return width and height of a source; None where it states none, is not there, or is one of too many."""
        if url.startswith(ASSET_SCHEME):
            return None  # `settle_chains` knows them
        if url not in self._known:
            try:
                head = self._head(url)
            except (SdbatchError, OSError):  # what is wrong with a source is told by its fetch
                head = b""
            self._known[url] = picture_size(head) if head else None
        return self._known[url]

    def _head(self, url: str) -> bytes:
        if parse_url(url).is_local:
            with self._allow.open(url) as file:
                return file.read(HEAD_BYTES)
        self._num_remote += 1
        if self._num_remote > REMOTE_MAX:
            return b""
        folder, name = split(url)
        return open_store(folder, self._job.storage).read_range(name, 0, HEAD_BYTES)
