r"""The worker: one process per GPU slot, its model resident. One of the two places that put rooms together.

    Unit --> fetch sources --> generate (one at a time) --> encode, upload --> commit --> Receipt
             \____ before the lock ____/   the lock        \____ threads, behind it ____/

Two units are in flight: while one is in the model, the other fetches, encodes or commits. It knows nothing of Ray.
"""

from __future__ import annotations

import importlib.metadata
import json
import logging
import math
import os
import platform
import socket
import threading
import time
import traceback
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np

from sdbatch.campaign import layout
from sdbatch.campaign.read import read_commit
from sdbatch.campaign.write import (
    StoredAsset,
    error_columns,
    put_asset,
    put_commit,
    receipt_of,
    request_columns,
)
from sdbatch.encode.asset import encode_asset, read_embedded
from sdbatch.encode.backlog import Backlog
from sdbatch.encode.image import thumbnail
from sdbatch.errors import (
    ROW_FAILURES,
    BlankOutput,
    DeadlineExceeded,
    DeviceLost,
    PromptTooLong,
    RowError,
    SourceChanged,
    SourceMissing,
    StoreRefused,
)
from sdbatch.fetch.once import ReadOnce
from sdbatch.fetch.sources import read_source
from sdbatch.job import Job, parse_job
from sdbatch.logs import configure
from sdbatch.outcomes import call_deadline_s, outcome_of
from sdbatch.recipe import Recipe, parse_recipe
from sdbatch.storage import open_store
from sdbatch.types import OnCall, Phase, Receipt, Request, Running, Source, Unit, WorkerSpec

if TYPE_CHECKING:
    from sdbatch.generate.batch import BatchResult, Generated
    from sdbatch.generate.batch_sizes import BatchSizes
    from sdbatch.generate.load import LoadedModel
    from sdbatch.generate.tokens import TokenCounter

LOG = logging.getLogger("sdbatch.worker")
FETCH_THREADS = 8
FETCH_MAX_S = 600.0
FINISH_MAX_S = 600.0
"""Longest a unit may fetch its sources, and encode, upload and commit; the store's own bounds end a single call."""
SOURCE_BYTES_MAX = 256 << 20
"""Source files that are kept, as campaigns make many pictures of one."""

ENCODE_BYTES_MAX = 1 << 30
"""Pixels that wait for encoding or upload: 340 pictures of 1024 px, 10 clips of 480p; then the model waits."""

# No model folder may reach a hub or bring code. Set before diffusers is imported, which reads them once.
_ENVIRONMENT = {
    "HF_HUB_OFFLINE": "1",
    "TRANSFORMERS_OFFLINE": "1",
    "DIFFUSERS_DISABLE_REMOTE_CODE": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    "TOKENIZERS_PARALLELISM": "false",
}


@dataclass(slots=True, kw_only=True)
class _PendingOutput:
    """One asset on its way through the worker; `pixels` are its sources, by the names an Item gives them."""

    request: Request
    n: int
    recipe: Recipe
    pixels: dict[str, Any] = field(default_factory=dict)
    fetch_s: float = 0.0
    tries: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class _UnitPhase:
    """Where a unit is. See `Running`."""

    phase: Phase
    since_s: float
    bound_s: float
    ids: tuple[str, ...]


@dataclass(slots=True, kw_only=True)
class _UnitTally:
    """What a unit's receipt will say."""

    model_calls: int = 0
    rows_generated: int = 0
    generate_s: float = 0.0
    load_s: float = 0.0
    batch_size: int = 0
    texts_encoded: int = 0
    sources_encoded: int = 0
    rows: list[dict[str, Any]] = field(default_factory=list)
    finishing: list[Future[dict[str, Any]]] = field(default_factory=list)


class Worker:
    """Makes units.

    Args:
        name: Unique in the run.
        spec: What the driver resolved.
        on_call: Told the unit and the request ids of every pipeline call before it runs: should the process die in
            it, these are the suspects.
    """

    def __init__(self, name: str, spec: WorkerSpec, on_call: OnCall = lambda *_: None) -> None:
        self._name = name
        self._spec = spec
        self._on_call = on_call
        self._places: dict[str, _UnitPhase] = {}
        self._job = parse_job(spec.job)
        self._store = open_store(spec.output, self._job.storage)
        self._generating = threading.Lock()
        self._fetchers = ThreadPoolExecutor(FETCH_THREADS, thread_name_prefix="fetch")
        self._finishers = ThreadPoolExecutor(_num_finishers(self._job), thread_name_prefix="finish")
        self._backlog = Backlog(ENCODE_BYTES_MAX)
        self._sources = ReadOnce(SOURCE_BYTES_MAX)
        self._model: tuple[str, LoadedModel] | None = None
        self._sizes: BatchSizes | None = None

    def start(self) -> dict[str, str]:
        """Import what is heavy and prove that the campaign seen here is the driver's.

        Returns:
            Facts about this machine, for the run's record.

        Raises:
            StoreRefused: When the campaign's lease is not there: a local folder that this node does not share.
        """
        os.environ.update(_ENVIRONMENT)
        configure(self._spec.log_format, campaign=self._spec.output, run_id=self._spec.run_id, worker=self._name)
        self._check_campaign()
        import sdbatch.generate.batch  # noqa: F401 -- torch and diffusers: seconds, before the first unit's clock
        from sdbatch.generate.accelerators import keep_compiled
        from sdbatch.generate.host_memory import keep_freed_memory
        from sdbatch.generate.load import quieten_libraries

        keep_freed_memory()
        keep_compiled()
        quieten_libraries()
        return {"host": socket.gethostname(), "pid": str(os.getpid()), "python": platform.python_version()}

    def run_unit(self, unit: Unit) -> Receipt:
        """Make and commit one unit; rows that cannot be made are recorded in it.

        Raises:
            MachineError: When something around the rows failed; nothing was committed.
        """
        try:
            return self._run_unit(unit)
        finally:
            self._places.pop(unit.id, None)

    def running(self) -> tuple[Running, ...]:
        """Say where the units in this worker are; answered from another thread while they run."""
        now_s = time.monotonic()
        return tuple(
            Running(unit=unit, phase=place.phase, elapsed_s=now_s - place.since_s, bound_s=place.bound_s, ids=place.ids)
            for unit, place in list(self._places.items())
        )

    def _enter(self, unit: Unit, phase: Phase, bound_s: float, ids: tuple[str, ...] = ()) -> None:
        self._places[unit.id] = _UnitPhase(phase=phase, since_s=time.monotonic(), bound_s=bound_s, ids=ids)

    def _run_unit(self, unit: Unit) -> Receipt:
        tally = _UnitTally()
        self._enter(unit, "fetch", FETCH_MAX_S)
        outputs = self._fetch(unit, tally)
        if outputs:
            self._enter(unit, "wait", math.inf)
            with self._generating:
                self._enter(unit, "load", self._job.limits.start_timeout_s)
                self._generate(unit, outputs, tally)
        self._enter(unit, "finish", FINISH_MAX_S)
        tally.rows.extend(future.result() for future in tally.finishing)
        order = {request.id: index for index, request in enumerate(unit.requests)}
        tally.rows.sort(key=lambda row: (order[row["id"]], row["n"] or 0))
        if not put_commit(self._store, self._spec.run_id, unit.id, tally.rows):
            # Another attempt at this unit was first; what stands is what is reported.
            tally.rows = read_commit(self._store, layout.commit(self._spec.run_id, unit.id)).to_pylist()
        LOG.info("committed", extra={"unit": unit.id, "model": unit.model, "rows": len(tally.rows)})
        return self._receipt(unit, tally)

    # --- fetch ------------------------------------------------------------------------------------------------------

    def _fetch(self, unit: Unit, tally: _UnitTally) -> list[_PendingOutput]:
        """Read and decode every source; requests whose source is bad fail as a whole."""
        recipes = [parse_recipe(request.recipe) for request in unit.requests]
        fetched = [
            self._fetchers.submit(self._pixels, request, recipe) if request.sources else None
            for request, recipe in zip(unit.requests, recipes, strict=True)
        ]
        outputs: list[_PendingOutput] = []
        for request, recipe, future in zip(unit.requests, recipes, fetched, strict=True):
            try:
                pixels, fetch_s = future.result() if future else ({}, 0.0)
            except RowError as error:
                tally.rows.append(self._failed(request, recipe, None, error, tries=1))
                continue
            share_s = fetch_s / len(request.outputs)
            outputs.extend(
                _PendingOutput(request=request, n=n, recipe=recipe, pixels=pixels, fetch_s=share_s)
                for n in request.outputs
            )
        return outputs

    def _pixels(self, request: Request, recipe: Recipe) -> tuple[dict[str, Any], float]:
        from sdbatch.fetch.pixels import read_pixels

        started_s = time.perf_counter()
        pixels = read_pixels(request.sources, recipe, self._source_bytes, self._job.sources.pixels_max)
        return pixels, time.perf_counter() - started_s

    def _source_bytes(self, source: Source) -> bytes:
        if source.digest == "missing":
            raise SourceMissing(f"{source.url}: no such file when the run was planned")
        return self._sources.get(f"{source.digest} {source.url}", lambda: self._planned_bytes(source))

    def _planned_bytes(self, source: Source) -> bytes:
        data, digest = read_source(source.url, self._job.storage, self._job.sources.bytes_max)
        if digest != source.digest:
            raise SourceChanged(f"{source.url}: {digest} is not what was planned, {source.digest}")
        return data

    # --- generate ---------------------------------------------------------------------------------------------------

    def _generate(self, unit: Unit, outputs: list[_PendingOutput], tally: _UnitTally) -> None:
        """Run every batch of a unit; what comes out is handed on to the finishing threads."""
        from sdbatch.generate.batch import set_threads

        options = self._job.models[unit.model]
        set_threads(options.num_cpus)
        model = self._warm(unit.model, tally)
        if options.long_prompt == "error":
            checked = []
            for output in outputs:
                tokens, is_long = model.tokens.count(output.recipe)
                if is_long:
                    error = PromptTooLong(f"prompt of {tokens} tokens is longer than the text encoder reads")
                    tally.rows.append(self._failed(output.request, output.recipe, output.n, error, tries=1))
                else:
                    checked.append(output)
            outputs = checked
        texts, sources = model.memo.texts_encoded, model.memo.sources_encoded
        while outputs:
            size = self._size(model, unit, outputs)
            self._make(model, outputs[:size], unit, tally)
            outputs = outputs[size:]
        tally.texts_encoded = model.memo.texts_encoded - texts
        tally.sources_encoded = model.memo.sources_encoded - sources

    def _size(self, model: LoadedModel, unit: Unit, outputs: list[_PendingOutput]) -> int:
        """Return how many outputs the next call makes: what this machine found best; in `exact` as planned."""
        from sdbatch.generate.batch_sizes import BATCH_MAX, BatchSizes, shape_of

        recipe = outputs[0].recipe
        if unit.solo or self._job.determinism == "exact":
            return unit.batch_size
        is_free = self._job.models[unit.model].batch_size == "auto" and model.family.route_of(recipe).rows != "single"
        self._sizes = self._sizes or BatchSizes()
        return self._sizes.choose(shape_of(model, recipe), unit.batch_size, BATCH_MAX if is_free else unit.batch_size)

    def _warm(self, name: str, tally: _UnitTally) -> LoadedModel:
        from sdbatch.generate.load import load_model

        if self._model is None or self._model[0] != name:
            started_s = time.perf_counter()
            self._model = None  # the old one's memory is free before the new one asks for its own
            model = load_model(
                name, self._job.models[name], self._spec.revisions[name], self._job.storage, self._job.loras
            )
            self._model = (name, model)
            tally.load_s = time.perf_counter() - started_s
        return self._model[1]

    def _make(self, model: LoadedModel, outputs: list[_PendingOutput], unit: Unit, tally: _UnitTally) -> None:
        """Make one batch; when its call fails, do with its rows what the table of outcomes says."""
        from sdbatch.generate.batch import Item, failure_kind, make_batch
        from sdbatch.generate.batch_sizes import shape_of

        is_exact = self._job.determinism == "exact"
        items = [Item(recipe=o.recipe, seed=o.recipe.output_seed(o.n), **o.pixels) for o in outputs]
        for output in outputs:
            output.tries += 1
        tally.model_calls += 1
        try:
            result = make_batch(model, items, unit.batch_size if is_exact else None, self._begin_call(unit, outputs))
        except Exception as error:  # noqa: BLE001 -- whatever a pipeline raises is its rows' matter, told apart below
            kind = failure_kind(error)
            if kind == "OutOfMemory" and self._sizes:
                self._sizes.failed(shape_of(model, outputs[0].recipe), len(outputs))
            for part in self._after_failure(kind, error, outputs, unit, tally):
                self._make(model, part, unit, tally)
            return
        if self._sizes:
            self._sizes.ran(shape_of(model, outputs[0].recipe), len(outputs), result.generate_s, result.memory)
        self._hand_on(model, result, outputs, unit, tally)

    def _begin_call(self, unit: Unit, outputs: list[_PendingOutput]) -> Callable[[], None]:
        """Note what goes into the model; return what is to be called before each of its steps."""
        limits = self._job.limits
        cost = sum(output.request.cost_tflop for output in outputs)
        bound_s = call_deadline_s(cost, unit.rate_tflop_per_s, limits.deadline_min_s, limits.start_timeout_s)
        ids = tuple(dict.fromkeys(output.request.id for output in outputs))
        self._on_call(unit.id, ids)
        self._enter(unit, "generate", bound_s, ids)
        deadline_s = time.monotonic() + bound_s

        def heed_deadline() -> None:
            if time.monotonic() > deadline_s:
                raise DeadlineExceeded(f"a pipeline call of {len(outputs)} took longer than {bound_s:.0f} s")

        return heed_deadline

    def _after_failure(
        self, kind: str, error: Exception, outputs: list[_PendingOutput], unit: Unit, tally: _UnitTally
    ) -> list[list[_PendingOutput]]:
        """Return the calls to make after one that failed; a row that is alone to blame is recorded instead."""
        outcome = outcome_of(kind)
        if outcome.replace_worker:
            raise DeviceLost(f"{type(error).__name__}: {error}") from error
        if len(outputs) > 1:
            if outcome.then != "halve" or self._job.determinism == "exact":
                return [[output] for output in outputs]
            half = (len(outputs) + 1) // 2
            return [outputs[:half], outputs[half:]]
        output = outputs[0]
        if kind == "Raised" and output.tries < self._job.limits.attempts:
            return [outputs]
        if isinstance(error, RowError):
            failure = error
        else:
            failure = ROW_FAILURES[outcome.records or ""](f"{type(error).__name__}: {error}")
            failure.__cause__ = error
        tally.rows.append(self._failed(output.request, output.recipe, output.n, failure, tries=output.tries))
        return []

    def _hand_on(
        self, model: LoadedModel, result: BatchResult, outputs: list[_PendingOutput], unit: Unit, tally: _UnitTally
    ) -> None:
        self._enter(unit, "finish", FINISH_MAX_S)  # it may wait for the encoders
        is_exact = self._job.determinism == "exact"
        tally.rows_generated += len(outputs)
        tally.generate_s += result.generate_s
        tally.batch_size = max(tally.batch_size, len(outputs))
        shared = {
            "pipeline_class": result.pipeline_class,
            "scheduler": result.scheduler,
            "device": result.device,
            "accelerators": self._accelerators(unit.model),
            "batch_size": unit.batch_size if is_exact else len(outputs),
            "versions": _versions(),
            "worker": self._name,
            "load_s": tally.load_s / unit.num_outputs,
            "denoise_s": (result.generate_s - result.decode_s) / len(outputs),
            "decode_s": result.decode_s / len(outputs),
        }
        for output, generated in zip(outputs, result.outputs, strict=True):
            self._backlog.enter(generated.frames_FHWC.nbytes)
            tally.finishing.append(self._finishers.submit(self._finish, output, generated, shared, model.tokens))

    # --- finish -----------------------------------------------------------------------------------------------------

    def _finish(
        self, output: _PendingOutput, generated: Generated, shared: dict[str, Any], tokens: TokenCounter
    ) -> dict[str, Any]:
        """Encode and put one asset, then give its place back; return its metadata row."""
        try:
            return self._finished(output, generated, shared, tokens)
        finally:
            self._backlog.leave(generated.frames_FHWC.nbytes)

    def _finished(
        self, output: _PendingOutput, generated: Generated, shared: dict[str, Any], tokens: TokenCounter
    ) -> dict[str, Any]:
        prompt_tokens, prompt_truncated = tokens.count(output.recipe)
        row = {
            **request_columns(output.request, output.recipe, output.n),
            **shared,
            "prompt_tokens": prompt_tokens,
            "prompt_truncated": prompt_truncated,
            "attempts": output.tries,
            "fetch_s": output.fetch_s,
        }
        if generated.is_blocked:
            return {**row, "status": "blocked", "error_type": "SafetyChecker", "error_retryable": False}
        try:
            self._check_quality(generated)
            started_s = time.perf_counter()
            sound = generated.sound
            encoded = encode_asset(
                generated.frames_FHWC,
                self._job.encode,
                fps=output.recipe.fps,
                sound=(sound.samples_CT, sound.rate_hz) if sound else None,
                request_key=output.request.request_key,
                n=output.n,
                recipe=output.request.recipe,
            )
            small = thumbnail(generated.frames_FHWC[0])
            encoded_s = time.perf_counter()
            path = layout.asset(output.request.id, output.request.request_key, output.n, encoded.suffix)
            stored = self._put(path, encoded.data, encoded.media_type, output)
        except RowError as error:
            return {**row, **_error(error)}
        num_frames, height, width, _ = generated.frames_FHWC.shape
        return {
            **row,
            "status": "ok",
            "asset": stored.path,
            "sha256": stored.sha256,
            "asset_bytes": stored.asset_bytes,
            "adopted": stored.adopted,
            "media_type": encoded.media_type,
            "width": width,
            "height": height,
            "num_frames": num_frames,
            "fps": output.recipe.fps,
            "thumbnail": small,
            "encode_s": encoded_s - started_s,
            "upload_s": time.perf_counter() - encoded_s,
        }

    def _check_quality(self, generated: Generated) -> None:
        if not self._job.quality_gate:
            return
        if not generated.is_finite:
            raise BlankOutput("the model gave NaN or infinite values")
        first_HWC, *others = generated.frames_FHWC
        if first_HWC.min() == first_HWC.max() and not others:
            raise BlankOutput(f"every value of the picture is {first_HWC.flat[0]}")
        if others and all(np.array_equal(first_HWC, frame_HWC) for frame_HWC in others):
            raise BlankOutput(f"all {len(others) + 1} frames of the clip are the same")

    def _put(self, path: str, data: bytes, media_type: str, output: _PendingOutput) -> StoredAsset:
        def is_same_request(stored: bytes) -> bool:
            try:
                embedded = read_embedded(stored, path.rpartition(".")[2]) or {}
            except (OSError, SyntaxError, ValueError):
                return False
            return (embedded.get("request_key"), embedded.get("n")) == (output.request.request_key, output.n)

        return put_asset(self._store, path, data, media_type, is_same_request)

    # --- records ----------------------------------------------------------------------------------------------------

    def _failed(
        self, request: Request, recipe: Recipe, n: int | None, error: RowError, *, tries: int
    ) -> dict[str, Any]:
        """Return the row of an output, or with `n` None of a whole request, that cannot be made."""
        return {
            **request_columns(request, recipe, n),
            **_error(error),
            "attempts": tries,
            "worker": self._name,
            "accelerators": self._accelerators(request.model),
            "versions": _versions(),
        }

    def _accelerators(self, model: str) -> str:
        return json.dumps(self._job.models[model].accelerators, sort_keys=True)

    def _receipt(self, unit: Unit, tally: _UnitTally) -> Receipt:
        """Return what the commit tells, and of the work what this worker knows better."""
        return replace(
            receipt_of(unit.id, self._name, tally.rows),
            model_calls=tally.model_calls,
            rows_generated=tally.rows_generated,
            generate_s=tally.generate_s,
            load_s=tally.load_s,
            batch_size=tally.batch_size,
            texts_encoded=tally.texts_encoded,
            sources_encoded=tally.sources_encoded,
        )

    def _check_campaign(self) -> None:
        path = layout.lease(self._spec.lease_epoch)
        try:
            token = json.loads(self._store.read(path))["token"]
        except (FileNotFoundError, ValueError, KeyError):
            token = None
        if token != self._spec.lease_token:
            raise StoreRefused(
                f"{self._spec.output} as seen from {socket.gethostname()} lacks the driver's {path}; "
                "a local output works only where every worker sees the same folder"
            )


def _error(error: RowError) -> dict[str, Any]:
    text = "".join(traceback.format_exception(error))
    return error_columns(type(error).__name__, str(error), retryable=error.retryable, traceback=text)


def _num_finishers(job: Job) -> int:
    """Return the threads that encode and upload: the cores a worker was given, and one that waits for the store."""
    return max(2, *(model.num_cpus + 1 for model in job.models.values()))


@cache
def _versions() -> str:
    names = ("sdbatch", "torch", "diffusers", "transformers", "pillow", "imageio-ffmpeg")
    return json.dumps({name: importlib.metadata.version(name) for name in names})
