"""Behind the model: an output is judged, encoded and put, on threads of their own.

RenderedOutput --> Finisher.submit() --> quality --> encode --> put --> row

The bytes of what waits here are bounded; when they are too many, the model waits.
"""

from __future__ import annotations

import time
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Final

import numpy as np

from sdbatch.campaign import layout
from sdbatch.campaign.write import StoredAsset, put_asset
from sdbatch.encode.asset import encode_asset, read_embedded
from sdbatch.encode.backlog import Backlog
from sdbatch.encode.embedded import Encoded
from sdbatch.encode.image import thumbnail
from sdbatch.errors import BlankOutput, RowError
from sdbatch.job import Job
from sdbatch.storage import Store
from sdbatch.worker.record import Recorder, Row, failure_columns
from sdbatch.worker.render import RenderedOutput

ENCODE_BYTES_MAX: Final = 1 << 30
"""Bytes of pixels that wait for encoding or upload: 340 pictures of 1024 px, 10 clips of 480p."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FinishedOutput:
    """How an output ended, before it is put anywhere.

    Attributes:
        columns: Metadata columns that say so.
        encoded: Its file; None when it is blocked.
    """

    columns: Row
    encoded: Encoded | None = None


class Finisher:
    """Finishes outputs on a few threads.

    Args:
        job: The job.
        store: The campaign's.
        recorder: Makes the rows.
    """

    def __init__(self, job: Job, store: Store, recorder: Recorder) -> None:
        self._job = job
        self._store = store
        self._recorder = recorder
        self._threads = ThreadPoolExecutor(_num_threads(job), thread_name_prefix="finish")
        self._backlog = Backlog(ENCODE_BYTES_MAX)

    def submit(self, rendered: RenderedOutput, load_s: float) -> Future[Row]:
        """Finish an output in the background; wait first while too many bytes do.

        Args:
            rendered: The output.
            load_s: Its share of the seconds that the model's load took.

        Returns:
            The output's metadata row, once it is stored or known to have failed.
        """
        self._backlog.enter(rendered.generated.frames_FHWC.nbytes)
        return self._threads.submit(self._finish, rendered, load_s)

    def _finish(self, rendered: RenderedOutput, load_s: float) -> Row:
        try:
            return {**self._recorder.rendered_row(rendered, load_s), **self._end_columns(rendered)}
        finally:
            self._backlog.leave(rendered.generated.frames_FHWC.nbytes)

    def _end_columns(self, rendered: RenderedOutput) -> Row:
        """Encode and put an output; return the columns that say how it ended."""
        try:
            finished = finish_output(rendered, self._job)
            if finished.encoded is None:
                return finished.columns
            started_s = time.perf_counter()
            stored = self._put(finished.encoded, rendered)
        except RowError as error:
            return failure_columns(error)
        return {
            **finished.columns,
            "asset": stored.path,
            "sha256": stored.sha256,
            "asset_bytes": stored.asset_bytes,
            "adopted": stored.adopted,
            "upload_s": time.perf_counter() - started_s,
        }

    def _put(self, encoded: Encoded, rendered: RenderedOutput) -> StoredAsset:
        request, n = rendered.pending.request, rendered.pending.n

        def is_same_request(stored: bytes) -> bool:
            try:
                embedded = read_embedded(stored, encoded.suffix) or {}
            except (OSError, SyntaxError, ValueError):
                return False
            return (embedded.get("request_key"), embedded.get("n")) == (request.request_key, n)

        path = layout.asset(request.id, request.request_key, n, encoded.suffix)
        return put_asset(self._store, path, encoded.data, encoded.media_type, is_same_request)


def finish_output(rendered: RenderedOutput, job: Job) -> FinishedOutput:
    """Judge an output and encode it as the job says.

    Raises:
        BlankOutput: When its pixels are not finite, or the same everywhere.
        EncodeFailed: When a clip could not be encoded.
    """
    generated, recipe = rendered.generated, rendered.pending.recipe
    if generated.is_blocked:
        return FinishedOutput(columns={"status": "blocked", "error_type": "SafetyChecker", "error_retryable": False})
    check_quality(rendered, job)
    started_s = time.perf_counter()
    encoded = _encode(rendered, job)
    small = thumbnail(generated.frames_FHWC[0])
    num_frames, height, width, _ = generated.frames_FHWC.shape
    columns = {
        "status": "ok",
        "media_type": encoded.media_type,
        "width": width,
        "height": height,
        "num_frames": num_frames,
        "fps": recipe.fps,
        "thumbnail": small,
        "encode_s": time.perf_counter() - started_s,
    }
    return FinishedOutput(columns=columns, encoded=encoded)


def _encode(rendered: RenderedOutput, job: Job) -> Encoded:
    generated, pending = rendered.generated, rendered.pending
    sound = generated.sound
    return encode_asset(
        generated.frames_FHWC,
        job.encode,
        fps=pending.recipe.fps,
        sound=(sound.samples_CT, sound.rate_hz) if sound else None,
        request_key=pending.request.request_key,
        n=pending.n,
        recipe=pending.request.recipe,
    )


def check_quality(rendered: RenderedOutput, job: Job) -> None:
    """Refuse pixels that nobody wants.

    Raises:
        BlankOutput: When they are not finite, or the same everywhere.
    """
    generated = rendered.generated
    if not job.quality_gate:
        return
    if not generated.is_finite:
        raise BlankOutput("the model gave NaN or infinite values")
    first_HWC, *others = generated.frames_FHWC
    if first_HWC.min() == first_HWC.max() and not others:
        raise BlankOutput(f"every value of the picture is {first_HWC.flat[0]}")
    if others and all(np.array_equal(first_HWC, frame_HWC) for frame_HWC in others):
        raise BlankOutput(f"all {len(others) + 1} frames of the clip are the same")


def _num_threads(job: Job) -> int:
    """Return the threads that encode and upload: the cores a worker was given, and one that waits for the store."""
    return max(2, *(model.num_cpus + 1 for model in job.models.values()))
