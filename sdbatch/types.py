"""The nouns every room shares: what is to be made, how it is handed out, and how it ended.

    Request (one manifest row, resolved)  -->  Unit (handed out, committed as one)  -->  Receipt (how it ended)

A request's *recipe* is canonical JSON of everything that decides its pixels; the request key is the recipe's sha256.
The worker renders recipes and nothing else, so what is hashed, what is made and what is recorded cannot differ.
"""

from __future__ import annotations

import pickle
from collections.abc import Callable
from dataclasses import dataclass, field, fields
from itertools import repeat
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

FORMAT_VERSION = 1
"""Stands in every file of a campaign; raised when a reader of the old form would misread the new one."""

Status = Literal["ok", "failed", "blocked"]
Phase = Literal["fetch", "wait", "load", "generate", "finish"]
TASKS = ("text-to-image", "image-to-image", "inpainting", "text-to-video", "image-to-video", "video-to-video")
STAGES = ("load", "fetch", "denoise", "decode", "encode", "upload")
"""Stages that a row's wall seconds are recorded by."""

SEED_MAX = 2**63 - 1
"""Seeds are int64 and not negative; outputs of one row take seed, seed + 1, ... modulo 2**63."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """One file a request reads.

    Attributes:
        role: Manifest column it stands in: `images`, `mask`, `video`, `control_image` or `ip_adapter_images`.
        url: Absolute local path or fsspec URL.
        digest: `sha256:...` of a local file, `etag:...` in an object store, `missing` when it was not there.
        asset: Path in the campaign of an output of it that is a source (`asset:<id>/<n>`); "" of any other.
    """

    role: str
    url: str
    digest: str
    asset: str = ""


class Origin(NamedTuple):
    """A committed output of the same request key, of which copies are made instead of rendering it again.

    Attributes:
        n: Output number.
        commit: Path of the commit that tells of it.
    """

    n: int
    commit: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Sound:
    """A clip's sound.

    Attributes:
        samples_CT: float32 in -1..1, C channels of T samples.
        rate_hz: Samples a second.
    """

    samples_CT: NDArray[np.float32]
    rate_hz: int


class Request(NamedTuple):
    """One manifest row, resolved, with the outputs that are still to be made.

    Rows of one key are one request: each of its outputs is rendered, or copied from an earlier run, once, and the other
    ids get copies of the file.

    A tuple, because a million of them are made: a frozen dataclass takes six times as long.

    Attributes:
        id: The manifest's id.
        request_key: sha256 of the recipe, 64 hex digits.
        recipe: Canonical JSON (RFC 8785) of everything that decides the pixels.
        outputs: Numbers `n` still to be made, ascending, from 0.
        sources: Files to read, in the recipe's order.
        model: Name in the job's `models`.
        batch_key: Equal for requests that may share one pipeline call.
        cost_tflop: Predicted work of one output, in 10^12 floating point operations.
        attempt: Tries of this request in this run before now, machine faults excluded.
        takers: For each of `outputs` the ids that get it, in manifest order; empty where `id` alone gets them all.
        origins: Outputs of this key that are committed already, under this id or others.
        shape: Task, size, frames, steps and planned batch size as one text: outputs alike in it take equally long.
        replaces: (id, new number, the number it replaces) of each output that is made in the place of an unwanted one.
    """

    id: str
    request_key: str
    recipe: str
    outputs: tuple[int, ...]
    sources: tuple[Source, ...]
    model: str
    batch_key: str
    cost_tflop: float
    attempt: int = 0
    takers: tuple[tuple[str, ...], ...] = ()
    origins: tuple[Origin, ...] = ()
    shape: str = ""
    replaces: tuple[tuple[str, int, int], ...] = ()

    @property
    def ids(self) -> tuple[str, ...]:
        """Every id that gets an output, in the order in which they are named."""
        return tuple(dict.fromkeys(name for ids in self.takers for name in ids)) if self.takers else (self.id,)

    @property
    def num_assets(self) -> int:
        """Assets it gives when all goes well, copies included."""
        return sum(map(len, self.takers)) if self.takers else len(self.outputs)

    def takers_of(self, n: int) -> tuple[str, ...]:
        """Return the ids that get output `n`: the file of the first is rendered, those of the others are copies."""
        return self.takers[self.outputs.index(n)] if self.takers else (self.id,)

    def outputs_of(self, taker: str) -> tuple[int, ...]:
        """Return the outputs that one of its ids gets."""
        if not self.takers:
            return self.outputs
        return tuple(n for n in self.outputs if taker in self.takers_of(n))


@dataclass(frozen=True, slots=True, kw_only=True)
class Unit:
    """Batch-compatible requests handed out, retried and committed as one.

    Attributes:
        id: Place in the run, zero-padded so that names sort: `000017`.
        model: Name in the job's `models`.
        requests: At least one; all of one batch key.
        batch_size: Outputs per pipeline call; in `exact` the tail is padded to it.
        cost_tflop: Sum over all outputs.
        solo: Whether its requests are suspects of a crash and run alone.
        rate_tflop_per_s: What one worker did on this model so far in this run; None when nothing is known yet.
    """

    id: str
    model: str
    requests: tuple[Request, ...]
    batch_size: int
    cost_tflop: float
    solo: bool = False
    rate_tflop_per_s: float | None = None

    def __reduce__(self) -> tuple[Any, ...]:
        """Cross to a worker as columns: cloudpickle would ask a question at every object, which is far slower.

        Recipes are much alike. Compressed, a unit of a thousand goes along with Ray's message to the worker, which has
        room for 100 KiB; longer ones lie in the store of objects of a node, and take twice as long.
        """
        import pyarrow as pa  # the process that decodes sources does without it

        columns = [
            column[:1] if column.count(column[0]) == len(column) else column
            for column in zip(*self.requests, strict=True)
        ]
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        told = pickle.dumps({**values, "requests": (len(self.requests), columns)}, pickle.HIGHEST_PROTOCOL)
        return _unit_of, (len(told), pa.compress(told, codec="zstd", asbytes=True))

    @property
    def num_outputs(self) -> int:
        """Outputs it renders when all goes well; some of them may be copied from an earlier run instead."""
        return sum([len(request.outputs) for request in self.requests])

    @property
    def num_assets(self) -> int:
        """Assets it gives when all goes well, copies included."""
        return sum([request.num_assets if request.takers else len(request.outputs) for request in self.requests])

    @property
    def num_rows(self) -> int:
        """Manifest rows it settles."""
        return sum([len(request.ids) if request.takers else 1 for request in self.requests])


def _unit_of(told_bytes: int, compressed: bytes) -> Unit:
    """Return a unit from what `Unit.__reduce__` gives: a column of equal values stands there once."""
    import pyarrow as pa

    told = pa.decompress(compressed, told_bytes, codec="zstd", asbytes=True)
    values = pickle.loads(told)  # noqa: S301 -- Ray, which brings it, is told everything in pickles
    num_requests, columns = values["requests"]
    whole = [repeat(column[0], num_requests) if len(column) == 1 else column for column in columns]
    return Unit(**{**values, "requests": tuple(map(Request._make, zip(*whole, strict=True)))})


@dataclass(frozen=True, slots=True, kw_only=True)
class RowOutcome:
    """The end of one output or, with `n` None, of one whole request.

    Attributes:
        id: The manifest's id.
        request_key: Key of the request.
        n: Output number; None when the request failed as a whole.
        status: `ok`, `failed` or `blocked`.
        error_type: Class name, None when ok.
        error_message: At most 500 characters, None when ok.
        error_retryable: Whether a later run tries again by itself.
        stages_digest: Settings of the stages that may block, None without any: under others a later run tries again.
    """

    id: str
    request_key: str
    n: int | None
    status: Status
    error_type: str | None = None
    error_message: str | None = None
    error_retryable: bool = False
    stages_digest: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Receipt:
    """The report of a worker to the driver after a unit's commit: small, no pictures.

    Attributes:
        unit: The unit's id.
        worker: Name of the worker.
        outcomes: Only outputs that are not ok, or requests that failed as a whole; every other output is ok.
        model_calls: Pipeline calls made.
        rows_generated: Outputs that came out of the pipeline, padding excluded.
        assets_put: Assets this worker wrote.
        assets_adopted: Assets that were there already and were taken as they are.
        assets_copied: Assets, written or adopted, that are copies of another id's asset.
        asset_bytes: Bytes of the assets recorded.
        generate_s: Wall seconds inside pipeline calls.
        load_s: Wall seconds spent on loading the model for this unit, 0 when it was warm.
        batch_size: Largest batch that was run; below the unit's after an out-of-memory.
        batch_wanted: Rows that the worker would have put into a call, had the unit held so many; 0 for no wish.
        stage_s: Wall seconds by stage. See `STAGES`.
        texts_encoded: Texts that went through a text encoder; known ones do not.
        sources_encoded: Source pictures and clips that went through the VAE's encoder.
        rows_truncated: Requests whose prompt is longer than the text encoder reads.
        decode_retries: Times that the VAE's decoder ran out of memory and went on in smaller parts.
        recompile_limits: Times that torch gave up compiling a block anew, and ran it as it is.
    """

    unit: str
    worker: str
    outcomes: tuple[RowOutcome, ...]
    model_calls: int
    rows_generated: int
    assets_put: int
    assets_adopted: int
    asset_bytes: int
    generate_s: float
    load_s: float
    batch_size: int
    stage_s: dict[str, float] = field(default_factory=dict)
    texts_encoded: int = 0
    sources_encoded: int = 0
    assets_copied: int = 0
    batch_wanted: int = 0
    rows_truncated: int = 0
    decode_retries: int = 0
    recompile_limits: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Running:
    """The place of a unit inside a worker, as its ping tells.

    Attributes:
        unit: The unit's id.
        phase: `fetch`, `wait` (for the model), `load`, `generate` or `finish`.
        elapsed_s: Since the phase, in `generate` since the pipeline call, began.
        bound_s: Longest it may take; infinite for `wait`, which others' bounds bound.
        ids: Requests in the pipeline call; in `fetch` those whose sources are being decoded; empty in other phases.
    """

    unit: str
    phase: Phase
    elapsed_s: float
    bound_s: float
    ids: tuple[str, ...] = ()


OnCall = Callable[[str, tuple[str, ...]], None]
"""Told the unit and the request ids of a pipeline call before it runs."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PendingWork:
    """Requests that wait for one model.

    Attributes:
        cost_tflop: Predicted work.
        outputs: Assets they make.
        oldest: Arrival number of the request that waits longest.
    """

    cost_tflop: float
    outputs: int
    oldest: int


@dataclass(slots=True, kw_only=True)
class Counts:
    """DESIGN 5's counts of one run. Rows are manifest rows, except `rows_generated` (outputs of pipeline calls)."""

    model_calls: int = 0
    rows_generated: int = 0
    assets_put: int = 0
    assets_adopted: int = 0
    assets_copied: int = 0
    rows_ok: int = 0
    rows_failed: int = 0
    rows_reused: int = 0
    model_loads: int = 0
    worker_deaths: int = 0
    units_committed: int = 0
    rows_truncated: int = 0
    rows_waiting: int = 0
    rows_withdrawn: int = 0

    def as_dict(self) -> dict[str, int]:
        """Return the counts by name, in declaration order."""
        return {name: getattr(self, name) for name in self.__slots__}


@dataclass(frozen=True, slots=True, kw_only=True)
class Observation:
    """The progress of a run, as its metrics show it; totals since the run began."""

    workers: int
    units_in_flight: int
    assets_pending: int
    rows_ok: int
    rows_failed: int
    rows_reused: int
    worker_deaths: int
    retries: int


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerSpec:
    """Everything a worker needs to be built; under 100 KB, plain values.

    Attributes:
        job: The resolved job as plain JSON values.
        output: The campaign's URL.
        run_id: The run the worker belongs to.
        lease_epoch: The driver's epoch: a file the worker must see in the campaign.
        lease_token: That file's token.
        revisions: Planned content revision by model name; a load that finds another is refused.
        log_format: How its log lines look.
        gpu_ids: GPUs that were reserved for this worker; the executor that places it fills them in.
    """

    job: dict[str, object] = field(repr=False)
    output: str
    run_id: str
    lease_epoch: int
    lease_token: str
    revisions: dict[str, str]
    log_format: Literal["text", "json"] = "text"
    gpu_ids: tuple[str, ...] = ()


class RefusedValue:
    """Stands in a table where no value can be meant, on its way to the reader that reports it with its row.

    Attributes:
        message: What is wrong; it follows the column in a message.
    """

    __slots__ = ("message",)

    def __init__(self, message: str) -> None:
        self.message = message

    def __repr__(self) -> str:
        return ""  # a message shows no value beside it
