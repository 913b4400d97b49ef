"""Behind the model: an output is judged, encoded and put, on threads of their own.

RenderedOutput --> Finisher.submit() --> stages on the CPU --> the job's watermark --> encode --> put --> row

The bytes of what waits here are bounded; when they are too many, the model waits.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Final

import numpy as np
from numpy.typing import NDArray

from sdbatch.after import STAGES, Judge, Verdict, choose_stages, judge, load_judges
from sdbatch.encode.asset import encode_asset
from sdbatch.encode.byte_budget import ByteBudget
from sdbatch.encode.embedded import Encoded
from sdbatch.encode.image import thumbnail
from sdbatch.encode.video import SITING
from sdbatch.encode.watermark import marked
from sdbatch.errors import ROW_FAILURES, RowError
from sdbatch.job import Job
from sdbatch.provenance.source_type import digital_source_type
from sdbatch.provenance.xmp import of_master
from sdbatch.storage import Store
from sdbatch.types import Request
from sdbatch.worker.copies import copies_of, put_output, stored_columns
from sdbatch.worker.outputs import RenderedOutput
from sdbatch.worker.record import Recorder, Row, failure_columns

ENCODE_BYTES_MAX: Final = 1 << 30
"""Bytes of pixels that wait for encoding or upload: 340 pictures of 1024 px, 10 clips of 480p."""


HANDFUL_BYTES_MAX: Final = 1 << 18
"""Most bytes of pixels that a thread is given at a time: 21 pictures of 64 px, one of 256 px. Small outputs cost less
together: each handing over lets the thread that feeds the model and the others take turns at the interpreter."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FinishedOutput:
    """The end of an output, before it is stored.

    Attributes:
        columns: Metadata columns that say so.
        encoded: Its file; None when it is blocked or failed.
        credentials: Archives of its sources' credentials, by path.
    """

    columns: Row
    encoded: Encoded | None = None
    credentials: Mapping[str, bytes] = field(default_factory=dict)


class Finisher:
    """Finishes outputs on a few threads.

    Args:
        job: The job.
        store: The campaign's.
        recorder: Makes the rows.

    Attributes:
        handful_bytes_max: Most bytes of pixels that should be handed over together.
    """

    def __init__(self, job: Job, store: Store, recorder: Recorder) -> None:
        self._job = job
        self._store = store
        self._recorder = recorder
        self._threads = ThreadPoolExecutor(_num_threads(job), thread_name_prefix="finish")
        self._judges = load_judges(choose_stages(job.stages), "cpu", "cpu")
        self._waiting = ByteBudget(ENCODE_BYTES_MAX)
        # What waits for another machine is better done side by side.
        self.handful_bytes_max = HANDFUL_BYTES_MAX if store.is_local else 0
        self._archived: set[str] = set()  # credentials that this worker has stored

    def submit(self, outputs: Sequence[RenderedOutput], load_s: float) -> Future[list[Row]]:
        """Finish outputs in the background, one after the other; wait first while too many bytes do.

        Args:
            outputs: At least one.
            load_s: The share of each in the seconds that the model's load took.

        Returns:
            The outputs' metadata rows, one for each id that takes one, once all are stored or known to have failed.
        """
        waiting_bytes = sum(frames_bytes(output) for output in outputs)
        self._waiting.enter(waiting_bytes)
        return self._threads.submit(self._finish_all, tuple(outputs), load_s, waiting_bytes)

    def _finish_all(self, outputs: Sequence[RenderedOutput], load_s: float, waiting_bytes: int) -> list[Row]:
        try:
            return [row for output in outputs for row in self._finish(output, load_s)]
        finally:
            self._waiting.leave(waiting_bytes)

    def _finish(self, rendered: RenderedOutput, load_s: float) -> list[Row]:
        request, n = rendered.pending.request, rendered.pending.n
        finished = finish_output(rendered, self._job, self._judges)
        row = {
            **self._recorder.rendered_row(rendered, load_s),
            **self._end_columns(finished, request, n),
            "id": request.takers_of(n)[0],
        }
        return [row, *copies_of(row, request, n, lambda: self._stored(row, finished), self._store)]

    def _end_columns(self, finished: FinishedOutput, request: Request, n: int) -> Row:
        """Put an output's file under the first id that takes it; return the columns that say how the output ended."""
        encoded = finished.encoded
        if encoded is None:
            return finished.columns
        started_s = time.perf_counter()
        for path, archive in finished.credentials.items():
            if path not in self._archived:
                self._store.put_new(path, archive, "application/c2pa")
                self._archived.add(path)
        taker = request.takers_of(n)[0]
        try:
            stored = put_output(self._store, request, taker, n, encoded.data, encoded.suffix, encoded.media_type)
        except RowError as error:
            return {name: finished.columns[name] for name in ("stages", "stages_digest")} | failure_columns(error)
        return {
            **finished.columns,
            **stored_columns(stored),
            "upload_s": time.perf_counter() - started_s,
        }

    def _stored(self, row: Row, finished: FinishedOutput) -> bytes:
        """Return the file that lies in the store: of an adopted one, not what was encoded here."""
        assert finished.encoded is not None, "only an output with a file is copied"
        return self._store.read(row["asset"]) if row["adopted"] else finished.encoded.data


def frames_bytes(rendered: RenderedOutput) -> int:
    """Return the bytes of an output's pixels."""
    return rendered.generated.frames_FHWC.nbytes


def finish_output(
    rendered: RenderedOutput, job: Job, judges: Sequence[Judge], *, siting: str = SITING
) -> FinishedOutput:
    """Judge an output and encode it as the job says.

    Args:
        rendered: What came out of the model, with the verdicts of the stages on the device.
        job: The job.
        judges: The stages that run on the CPU.
        siting: Of a clip; see `sdbatch.encode.video.encode_video`.
    """
    if rendered.generated.is_blocked:
        return FinishedOutput(columns={"status": "blocked", "error_type": "SafetyChecker", "error_retryable": False})
    verdicts = rendered.verdicts
    if not any(verdict.verdict == "blocked" for verdict in verdicts):
        verdicts += judge(judges, [rendered.generated])[0]
    judged = {"stages": [verdict.as_struct() for verdict in verdicts], "stages_digest": rendered.stages_digest}
    against = next((verdict for verdict in verdicts if verdict.verdict != "ok"), None)
    if against is not None:
        return FinishedOutput(columns={**judged, **_refusal_columns(against)})
    try:
        started_s = time.perf_counter()
        frames_FHWC = _marked(rendered, job)
        encoded = _encode(rendered, frames_FHWC, job, siting)
        small = thumbnail(frames_FHWC[0])
    except RowError as error:
        return FinishedOutput(columns={**judged, **failure_columns(error)})
    num_frames, height, width, _ = rendered.generated.frames_FHWC.shape
    columns = {
        **judged,
        "status": "ok",
        "media_type": encoded.media_type,
        "width": width,
        "height": height,
        "num_frames": num_frames,
        "fps": rendered.pending.recipe.fps,
        "thumbnail": small,
        "source_thumbnail": rendered.pending.sources.thumbnail,
        "encode_s": time.perf_counter() - started_s,
    }
    return FinishedOutput(columns=columns, encoded=encoded, credentials=rendered.pending.sources.credentials)


def _refusal_columns(verdict: Verdict) -> Row:
    """Return the columns that say why a stage refused an output."""
    if verdict.verdict == "blocked":
        return {
            "status": "blocked",
            "error_type": "SafetyChecker",
            "error_message": verdict.message,
            "error_retryable": False,
        }
    return failure_columns(ROW_FAILURES[STAGES[verdict.name].failure](verdict.message))


def _marked(rendered: RenderedOutput, job: Job) -> NDArray[np.uint8]:
    """Return the frames with the job's own watermark, where it has one."""
    frames_FHWC = rendered.generated.frames_FHWC
    if job.watermark is None:
        return frames_FHWC
    key, n = rendered.pending.request.request_key, rendered.pending.n
    return marked(frames_FHWC, job.watermark.call, request_key=key, n=n)


def _encode(rendered: RenderedOutput, frames_FHWC: NDArray[np.uint8], job: Job, siting: str) -> Encoded:
    generated, pending = rendered.generated, rendered.pending
    source_type = digital_source_type(pending.recipe.task, pending.sources.source_types)
    key, n = pending.request.request_key, pending.n
    return encode_asset(
        frames_FHWC,
        job.encode,
        fps=pending.recipe.fps,
        sound=generated.sound,
        request_key=key,
        n=n,
        recipe=pending.request.recipe,
        xmp=of_master(pending.recipe, rendered.call.pipeline_class, source_type, key, n),
        siting=siting,
    )


def _num_threads(job: Job) -> int:
    """Return the threads that encode and upload: the cores a worker was given, and one that waits for the store."""
    return max(2, *(model.num_cpus + 1 for model in job.models.values()))
