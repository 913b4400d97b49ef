"""A request's sources become pixels of its recipe's size, before the model needs them.

    Request x N --> fetch() --> PendingOutput (one per output) or FailedOutput (the whole request)

Threads read the files; they are decoded in child processes, which are bounded (see `sdbatch.fetch.bounded`). Requests
that make the same pixels of the same sources, such as many prompts for one picture, share them.
"""

from __future__ import annotations

import contextlib
import hashlib
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from sdbatch.encode.image import thumbnail
from sdbatch.errors import RowError, SourceChanged, SourceMissing, SourceTooLarge
from sdbatch.families import ENLARGES
from sdbatch.fetch.bounded.decoder import BoundedDecoder
from sdbatch.fetch.kept_once import KeptOnce
from sdbatch.fetch.settings import PixelSettings
from sdbatch.fetch.sources import read_source
from sdbatch.job import Job
from sdbatch.plan.sources import ASSET_SCHEME
from sdbatch.recipe import Recipe, parse_recipes
from sdbatch.storage import AllowList, Store
from sdbatch.types import Request, Source
from sdbatch.worker.outputs import NO_SOURCES, FailedOutput, FetchedSources, PendingOutput, arrays_of
from sdbatch.worker.source_credentials import CredentialArchives

FETCH_THREADS: Final = 8
CHILDREN_MIN: Final = 2
"""Sources that are decoded at once on a worker of one core: one of them may be a clip, which takes long."""

SOURCE_BYTES_MAX: Final = 256 << 20
"""Bytes of source files that are kept, because a campaign makes many pictures from one source."""

PIXELS_BYTES_MAX: Final = 128 << 20
"""Bytes of decoded sources that are kept: 42 pictures of 1024 px."""

PROGRESS_S: Final = 5.0
"""Seconds between two looks at whether any source came further."""

OnProgress = Callable[[tuple[str, ...]], None]
"""Told the ids whose sources are being decoded, whenever a source of this worker has come further."""


class SourceFetcher:
    """Reads and decodes the sources of requests; what many of them name is read and decoded once. Thread-safe.

    Args:
        job: Says where sources may come from and how large they may be.
        campaign: Holds the outputs that are sources; None where there are none.
    """

    def __init__(self, job: Job, campaign: Store | None = None) -> None:
        self._job = job
        self._campaign = campaign
        self._allow = AllowList(job.sources.allow)
        self._threads = ThreadPoolExecutor(FETCH_THREADS, thread_name_prefix="fetch")
        self._files = KeptOnce[bytes](SOURCE_BYTES_MAX, len)
        self._fetched = KeptOnce[FetchedSources](PIXELS_BYTES_MAX, lambda fetched: fetched.size_bytes)
        cores = max(model.num_cpus for model in job.models.values())
        self._decoder = BoundedDecoder(
            pixels_max=job.sources.pixels_max,
            file_bytes_max=job.sources.bytes_max,
            num_children=min(max(cores, CHILDREN_MIN), FETCH_THREADS),
        )
        self._progress = _Progress()
        self._archives = CredentialArchives()

    def fetch(
        self, requests: Sequence[Request], on_progress: OnProgress = lambda _: None
    ) -> Iterator[PendingOutput | FailedOutput]:
        """Yield every output of the requests in their order; a request with a bad source fails as a whole."""
        recipes = parse_recipes(request.recipe for request in requests)
        fetched = [
            self._threads.submit(self._timed, request, recipe) if request.sources else None
            for request, recipe in zip(requests, recipes, strict=True)
        ]
        for request, recipe, future in zip(requests, recipes, fetched, strict=True):
            try:
                sources, fetch_s = self._awaited(future, requests, on_progress) if future else (NO_SOURCES, 0.0)
            except RowError as error:
                yield FailedOutput(request=request, n=None, recipe=recipe, error=error, attempts=1)
                continue
            share_s = fetch_s / len(request.outputs)
            for n in request.outputs:
                yield PendingOutput(request=request, n=n, recipe=recipe, sources=sources, fetch_s=share_s)

    def _awaited(
        self, future: Future[tuple[FetchedSources, float]], requests: Sequence[Request], on_progress: OnProgress
    ) -> tuple[FetchedSources, float]:
        """Return what a thread fetched; meanwhile tell of sources, of whatever request, that come further."""
        told = -1
        while True:
            try:
                return future.result(timeout=PROGRESS_S)
            except TimeoutError:
                if future.done():
                    raise
                steps, decoding = self._progress.seen()
                if steps != told:
                    told = steps
                    on_progress(tuple(request.id for request in requests if request.id in decoding))

    def _timed(self, request: Request, recipe: Recipe) -> tuple[FetchedSources, float]:
        """Return a request's sources, and the seconds that it waited for them."""
        started_s = time.perf_counter()
        settings = PixelSettings(
            height=recipe.height,
            width=recipe.width,
            fit=recipe.fit or "cover",
            num_frames=recipe.num_frames,
            fps=recipe.fps,
            enlarges=ENLARGES.get(recipe.route, 1),
        )
        # The task says what a source is to the output, which its credentials are kept with.
        key = (recipe.task, settings, request.sources)
        fetched = self._fetched.get(key, lambda: self._decoded(request, settings, recipe.task))
        return fetched, time.perf_counter() - started_s

    def _decoded(self, request: Request, settings: PixelSettings, task: str) -> FetchedSources:
        """Read and decode the sources of a request, for it and for those that share them."""
        for source in request.sources:
            self._source_bytes(source)  # a slow store keeps no child waiting
        with self._progress.decoding(request.id):
            pixels = self._decoder.decode(request.sources, settings, self._source_bytes)
        notes, source_types = pixels.pop("notes", ()), pixels.pop("source_types", ())
        credentials, unkept = self._archives.of(request.sources, task, self._source_bytes)
        for array in arrays_of(pixels):
            array.flags.writeable = False  # many requests see it
        first_HWC = _first_picture(pixels)
        return FetchedSources(
            pixels=pixels,
            notes=(*notes, *unkept),
            source_types=source_types,
            credentials=credentials,
            thumbnail=None if first_HWC is None else thumbnail(first_HWC),
        )

    def _source_bytes(self, source: Source) -> bytes:
        if source.digest == "missing":
            raise SourceMissing(f"{source.url}: no such file when the run was planned")
        data = self._files.get(f"{source.digest} {source.url}", lambda: self._planned_bytes(source))
        self._progress.step()
        return data

    def _planned_bytes(self, source: Source) -> bytes:
        sources = self._job.sources
        if source.url.startswith(ASSET_SCHEME):
            data, digest = self._output_bytes(source)
        else:
            data, digest = read_source(source.url, self._job.storage, sources.bytes_max, self._allow)
        if digest != source.digest:
            raise SourceChanged(f"{source.url}: {digest} is not what was planned, {source.digest}")
        return data

    def _output_bytes(self, source: Source) -> tuple[bytes, str]:
        """Read an output of the campaign; return its bytes and their digest."""
        if self._campaign is None or not source.asset:
            raise SourceMissing(f"{source.url}: this process was given no campaign that has it")
        bytes_max = self._job.sources.bytes_max
        try:
            size_bytes = self._campaign.stat(source.asset).size_bytes
            if size_bytes > bytes_max:
                raise SourceTooLarge(f"{source.url}: {size_bytes} bytes are over {bytes_max}")
            data = self._campaign.read(source.asset)
        except FileNotFoundError as error:
            raise SourceMissing(f"{source.url}: {source.asset} is not in the campaign any more") from error
        return data, f"sha256:{hashlib.sha256(data).hexdigest()}"


def _first_picture(pixels: Mapping[str, Any]) -> NDArray[np.uint8] | None:
    """Return the first source picture, or the source clip's first frame, as the model sees it; None without one."""
    if pixels.get("images"):
        return pixels["images"][0]  # type: ignore[no-any-return]
    for role in ("video", "control_image"):
        if role in pixels:
            return pixels[role][0]  # type: ignore[no-any-return]
    return None


class _Progress:
    """Which requests' sources are being decoded, and whether anything comes further."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._steps = 0
        self._decoding: Counter[str] = Counter()

    def step(self) -> None:
        with self._lock:
            self._steps += 1

    @contextlib.contextmanager
    def decoding(self, request_id: str) -> Iterator[None]:
        with self._lock:
            self._decoding[request_id] += 1
        try:
            yield
        finally:
            with self._lock:
                self._steps += 1
                self._decoding[request_id] -= 1
                self._decoding += Counter()  # drops what is at 0

    def seen(self) -> tuple[int, frozenset[str]]:
        with self._lock:
            return self._steps, frozenset(self._decoding)
