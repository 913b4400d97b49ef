r"""Recipes and sources in, outputs out. It knows no lease, no store and no campaign.

    Request x N --> fetch() --> PendingOutput x B --> pipeline call --> stages on the device --> RenderedOutput x B
                                                   \-> what the table of outcomes says of a call that failed

The model stays resident until another one is asked for. The worker, `reproduce` and the benchmark of a GPU render here.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from sdbatch.after import Judge, Verdict, choose_stages, judge, load_judges, stages_digest
from sdbatch.errors import ROW_FAILURES, DeadlineExceeded, DeviceLost, PromptTooLong, RowError
from sdbatch.job import Job
from sdbatch.outcomes import call_deadline_s, outcome_of
from sdbatch.points import reached
from sdbatch.types import Request
from sdbatch.worker.outputs import CallPlan, FailedOutput, PendingOutput, PipelineCall, RenderedOutput, RenderTally
from sdbatch.worker.sources import OnProgress, SourceFetcher

if TYPE_CHECKING:
    from sdbatch.generate.batch_sizes import BatchSizes
    from sdbatch.generate.item import BatchResult
    from sdbatch.generate.load import LoadedModel
    from sdbatch.generate.tokens import TokenCounter

BeforeCall = Callable[[tuple[str, ...], float], None]
"""Told the request ids of a pipeline call, and the seconds it may take, before it runs."""


class Renderer:
    """Renders requests with the models of a job, one of them resident at a time.

    `fetch` may be called from any thread. `generate` belongs to one thread at a time: whoever shares a renderer holds a
    lock around it.

    Args:
        job: Names the models and how they are run.
        revisions: Planned content revision by model name; a load that finds another is refused.
    """

    def __init__(self, job: Job, revisions: Mapping[str, str]) -> None:
        self._job = job
        self._revisions = revisions
        self._sources = SourceFetcher(job)
        self._stages = choose_stages(job.stages)
        self._judges: _DeviceJudges | None = None
        self._model: tuple[str, LoadedModel] | None = None
        self._sizes: BatchSizes | None = None

    def render(self, requests: Sequence[Request], plan: CallPlan) -> Iterator[RenderedOutput | FailedOutput]:
        """Fetch and generate requests that share one batch key.

        Raises:
            MachineError: When the model cannot be loaded, or the device is lost.
        """
        pending: list[PendingOutput] = []
        for output in self.fetch(requests):
            if isinstance(output, PendingOutput):
                pending.append(output)
            else:
                yield output
        yield from self.generate(pending, plan, RenderTally())

    def fetch(
        self, requests: Sequence[Request], on_progress: OnProgress = lambda _: None
    ) -> Iterator[PendingOutput | FailedOutput]:
        """See `SourceFetcher.fetch`."""
        return self._sources.fetch(requests, on_progress)

    def generate(
        self,
        outputs: list[PendingOutput],
        plan: CallPlan,
        tally: RenderTally,
        before_call: BeforeCall = lambda *_: None,
    ) -> Iterator[RenderedOutput | FailedOutput]:
        """Make outputs of one batch key, batch by batch; each is yielded once.

        Args:
            outputs: All of one model.
            plan: How they are divided into pipeline calls.
            tally: Counts what is done.
            before_call: Called before every pipeline call.

        Raises:
            MachineError: When the model cannot be loaded, or the device is lost.
        """
        if not outputs:
            return
        from sdbatch.generate.batch import set_threads

        options = self._job.models[outputs[0].request.model]
        set_threads(options.num_cpus)
        model = self._warm(outputs[0].request.model, tally)
        if options.long_prompt == "error":
            outputs, refused = _without_long_prompts(outputs, model.tokens)
            yield from refused
        judges = self._device_judges(model.device)
        generation = _Generation(self._job, model, plan, tally, before_call, self._batch_sizes, judges)
        texts, sources = model.memo.texts_encoded, model.memo.sources_encoded
        yield from generation.run(outputs)
        tally.texts_encoded += model.memo.texts_encoded - texts
        tally.sources_encoded += model.memo.sources_encoded - sources

    def _warm(self, name: str, tally: RenderTally) -> LoadedModel:
        from sdbatch.generate.load import load_model

        if self._model is None or self._model[0] != name:
            started_s = time.perf_counter()
            self._model = None  # the old one's memory is free before the new one asks for its own
            job = self._job
            model = load_model(name, job.models[name], self._revisions[name], job.storage, job.loras)
            self._model = (name, model)
            tally.load_s += time.perf_counter() - started_s
        return self._model[1]

    def _device_judges(self, device: str) -> _DeviceJudges:
        """Load the stages that run on the device, once; they stay beside whatever model is resident."""
        if self._judges is None or self._judges.device != device:
            judges = load_judges(self._stages, "device", device)
            self._judges = _DeviceJudges(device=device, judges=judges, digest=stages_digest(self._stages))
        return self._judges

    def _batch_sizes(self) -> BatchSizes:
        from sdbatch.generate.batch_sizes import BatchSizes

        self._sizes = self._sizes or BatchSizes()
        return self._sizes


def _without_long_prompts(
    outputs: Iterable[PendingOutput], tokens: TokenCounter
) -> tuple[list[PendingOutput], list[FailedOutput]]:
    """Return the outputs whose prompt the text encoder reads whole, and the others as failures."""
    kept, refused = [], []
    for output in outputs:
        num_tokens, is_long = tokens.count(output.recipe)
        if is_long:
            error = PromptTooLong(f"prompt of {num_tokens} tokens is longer than the text encoder reads")
            refused.append(_failed(replace(output, attempts=1), error))
        else:
            kept.append(output)
    return kept, refused


def _failed(output: PendingOutput, error: RowError) -> FailedOutput:
    return FailedOutput(request=output.request, n=output.n, recipe=output.recipe, error=error, attempts=output.attempts)


@dataclass(frozen=True, slots=True, kw_only=True)
class _DeviceJudges:
    """The stages that run on the device, loaded.

    Attributes:
        device: Where they lie.
        judges: One per stage.
        digest: See `stages_digest`.
    """

    device: str
    judges: list[Judge]
    digest: str | None


class _Generation:
    """The pipeline calls that one `generate` makes with one model."""

    def __init__(
        self,
        job: Job,
        model: LoadedModel,
        plan: CallPlan,
        tally: RenderTally,
        before_call: BeforeCall,
        batch_sizes: Callable[[], BatchSizes],
        judges: _DeviceJudges,
    ) -> None:
        self._job = job
        self._model = model
        self._plan = plan
        self._tally = tally
        self._before_call = before_call
        self._batch_sizes = batch_sizes
        self._judges = judges
        self._is_exact = job.determinism == "exact"
        self._is_sized = not (plan.is_fixed or self._is_exact)

    def run(self, outputs: list[PendingOutput]) -> Iterator[RenderedOutput | FailedOutput]:
        """Make every batch."""
        while outputs:
            size = self._size(outputs[0])
            yield from self._make(outputs[:size])
            outputs = outputs[size:]

    def _size(self, output: PendingOutput) -> int:
        """Return how many outputs the next call makes: the best that this machine knows; in `exact` as planned."""
        from sdbatch.generate.batch_sizes import BATCH_MAX, shape_of

        if not self._is_sized:
            return self._plan.batch_size
        model, recipe = self._model, output.recipe
        is_free = model.options.batch_size == "auto" and model.family.route_of(recipe).rows != "single"
        batch_max = BATCH_MAX if is_free else self._plan.batch_size
        return self._batch_sizes().choose(shape_of(model, recipe), self._plan.batch_size, batch_max)

    def _make(self, outputs: list[PendingOutput]) -> Iterator[RenderedOutput | FailedOutput]:
        """Make one batch; when its call fails, do with its rows what the table of outcomes says."""
        from sdbatch.generate.batch import failure_kind, make_batch
        from sdbatch.generate.batch_sizes import shape_of
        from sdbatch.generate.item import Item

        outputs = [replace(output, attempts=output.attempts + 1) for output in outputs]
        items = [Item(recipe=output.recipe, seed=output.seed, **output.pixels) for output in outputs]
        shape = shape_of(self._model, outputs[0].recipe) if self._is_sized else ""
        pad_to = self._plan.batch_size if self._is_exact else None
        self._tally.model_calls += 1
        try:
            result = make_batch(self._model, items, pad_to, self._begin_call(outputs))
            reached("after-generate")
            verdicts = judge(self._judges.judges, result.outputs)
        except Exception as error:  # noqa: BLE001 -- a pipeline may raise anything; the table of outcomes tells it apart
            kind = failure_kind(error)
            if kind == "OutOfMemory" and shape:
                self._batch_sizes().failed(shape, len(outputs))
            next_calls = self._calls_after(kind, error, outputs)
        else:
            if shape:
                self._batch_sizes().ran(shape, len(outputs), result.generate_s, result.memory)
            yield from self._rendered(outputs, result, verdicts)
            return
        for next_call in next_calls:
            if isinstance(next_call, FailedOutput):
                yield next_call
            else:
                yield from self._make(next_call)

    def _begin_call(self, outputs: Sequence[PendingOutput]) -> Callable[[], None]:
        """Say what goes into the model; return what is to be called before each of its steps."""
        limits = self._job.limits
        cost_tflop = sum(output.request.cost_tflop for output in outputs)
        rate = self._plan.rate_tflop_per_s
        bound_s = call_deadline_s(cost_tflop, rate, limits.deadline_min_s, limits.start_timeout_s)
        self._before_call(tuple(dict.fromkeys(output.request.id for output in outputs)), bound_s)
        deadline_s = time.monotonic() + bound_s

        def heed_deadline() -> None:
            if time.monotonic() > deadline_s:
                raise DeadlineExceeded(f"a pipeline call of {len(outputs)} took longer than {bound_s:.0f} s")

        return heed_deadline

    def _calls_after(
        self, kind: str, error: Exception, outputs: list[PendingOutput]
    ) -> list[list[PendingOutput] | FailedOutput]:
        """Return the calls to make after one that failed, or the one output that is alone to blame.

        Raises:
            DeviceLost: When the device refuses every further call.
        """
        outcome = outcome_of(kind)
        if outcome.replace_worker:
            raise DeviceLost(f"{type(error).__name__}: {error}") from error
        if len(outputs) > 1:
            if outcome.then != "halve" or self._is_exact:
                return [[output] for output in outputs]
            half = (len(outputs) + 1) // 2
            return [outputs[:half], outputs[half:]]
        if kind == "Raised" and outputs[0].attempts < self._job.limits.attempts:
            return [outputs]
        if isinstance(error, RowError):
            return [_failed(outputs[0], error)]
        failure = ROW_FAILURES[outcome.records or ""](f"{type(error).__name__}: {error}")
        failure.__cause__ = error
        return [_failed(outputs[0], failure)]

    def _rendered(
        self, outputs: Sequence[PendingOutput], result: BatchResult, verdicts: Sequence[tuple[Verdict, ...]]
    ) -> Iterator[RenderedOutput]:
        self._tally.rows_generated += len(outputs)
        self._tally.generate_s += result.generate_s
        self._tally.batch_size = max(self._tally.batch_size, len(outputs))
        call = PipelineCall(
            pipeline_class=result.pipeline_class,
            scheduler=result.scheduler,
            device=result.device,
            batch_size=self._plan.batch_size if self._is_exact else len(outputs),
            denoise_s=(result.generate_s - result.decode_s) / len(outputs),
            decode_s=result.decode_s / len(outputs),
        )
        for output, generated, judged in zip(outputs, result.outputs, verdicts, strict=True):
            yield RenderedOutput(
                pending=output,
                generated=generated,
                call=call,
                tokens=self._model.tokens,
                verdicts=judged,
                stages_digest=self._judges.digest,
            )
