"""A request's sources become pixels of its recipe's size, on threads of their own, before the model needs them.

Request x N --> fetch() --> PendingOutput (one per output) or FailedOutput (the whole request)
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final

from sdbatch.errors import RowError, SourceChanged, SourceMissing
from sdbatch.fetch.decode import decode_sources
from sdbatch.fetch.read_once import ReadOnce
from sdbatch.fetch.sources import read_source
from sdbatch.job import Job
from sdbatch.recipe import Recipe, parse_recipe
from sdbatch.types import Request, Source
from sdbatch.worker.outputs import FailedOutput, PendingOutput

FETCH_THREADS: Final = 8
SOURCE_BYTES_MAX: Final = 256 << 20
"""Bytes of source files that are kept, because a campaign makes many pictures from one source."""


class SourceFetcher:
    """Reads and decodes the sources of requests; files that many of them name are read once. Thread-safe.

    Args:
        job: Says where sources may come from and how large they may be.
    """

    def __init__(self, job: Job) -> None:
        self._job = job
        self._threads = ThreadPoolExecutor(FETCH_THREADS, thread_name_prefix="fetch")
        self._files = ReadOnce(SOURCE_BYTES_MAX)

    def fetch(self, requests: Sequence[Request]) -> Iterator[PendingOutput | FailedOutput]:
        """Yield every output of the requests in their order; a request with a bad source fails as a whole."""
        recipes = [parse_recipe(request.recipe) for request in requests]
        fetched = [
            self._threads.submit(self._pixels, request, recipe) if request.sources else None
            for request, recipe in zip(requests, recipes, strict=True)
        ]
        for request, recipe, future in zip(requests, recipes, fetched, strict=True):
            try:
                pixels, fetch_s = future.result() if future else ({}, 0.0)
            except RowError as error:
                yield FailedOutput(request=request, n=None, recipe=recipe, error=error, attempts=1)
                continue
            share_s = fetch_s / len(request.outputs)
            notes = pixels.pop("notes", ())
            for n in request.outputs:
                yield PendingOutput(request=request, n=n, recipe=recipe, pixels=pixels, notes=notes, fetch_s=share_s)

    def _pixels(self, request: Request, recipe: Recipe) -> tuple[dict[str, Any], float]:
        started_s = time.perf_counter()
        pixels = decode_sources(request.sources, recipe, self._source_bytes, self._job.sources.pixels_max)
        return pixels, time.perf_counter() - started_s

    def _source_bytes(self, source: Source) -> bytes:
        if source.digest == "missing":
            raise SourceMissing(f"{source.url}: no such file when the run was planned")
        return self._files.get(f"{source.digest} {source.url}", lambda: self._planned_bytes(source))

    def _planned_bytes(self, source: Source) -> bytes:
        data, digest = read_source(source.url, self._job.storage, self._job.sources.bytes_max)
        if digest != source.digest:
            raise SourceChanged(f"{source.url}: {digest} is not what was planned, {source.digest}")
        return data
