r"""The pipeline calls for outputs of one batch key, and what follows from a call that fails.

    outputs --> calls to make --> pipeline call --> stages on the device --> RenderedOutput x B
                    ^                  \-> CallFailure (words alone) --> the table of outcomes --> FailedOutput
                    \------------------------ halves, or each row alone, or again --/

A failed call is let go before the next one begins: its error would hold every tensor that was alive when it failed.
"""

from __future__ import annotations

import math
import time
import traceback
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from sdbatch.after import Judge, Verdict, judge
from sdbatch.errors import ROW_FAILURES, DeadlineExceeded, DeviceLost, GpuUnusable, MachineError, RowError
from sdbatch.job import Job
from sdbatch.local_faults import local_fault, temporary_folder
from sdbatch.outcomes import call_deadline_s, outcome_of
from sdbatch.points import reached
from sdbatch.recipe import Recipe
from sdbatch.worker.outputs import CallPlan, FailedOutput, PendingOutput, PipelineCall, RenderedOutput, RenderTally

if TYPE_CHECKING:
    from sdbatch.generate.batch_sizes import BatchSizes
    from sdbatch.generate.item import BatchResult
    from sdbatch.generate.load import LoadedModel

BeforeCall = Callable[[tuple[str, ...], float], None]
"""Told the request ids of a pipeline call, and the seconds it may take, before it runs."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceJudges:
    """The stages that run on the device, loaded.

    Attributes:
        device: Where they lie.
        judges: One per stage.
        digest: See `stages_digest`.
    """

    device: str
    judges: list[Judge]
    digest: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class CallFailure:
    """An error of a pipeline call in words: it holds no frame, and so none of the call's tensors.

    Attributes:
        kind: Key of the table of outcomes.
        row_error: The error itself where it is a request's; without its traceback.
        message: Class and text of the error.
        traceback: The traceback as text.
    """

    kind: str
    row_error: RowError | None
    message: str
    traceback: str

    @classmethod
    def of(cls, error: Exception, kind: str) -> CallFailure:
        """Return the words of an error."""
        return cls(
            kind=kind,
            row_error=type(error)(str(error)) if isinstance(error, RowError) else None,
            message=f"{type(error).__name__}: {error}",
            traceback="".join(traceback.format_exception(error)),
        )


class Generation:
    """The pipeline calls that one `generate` makes with one model.

    Args:
        job: The job.
        model: Model that makes the outputs.
        plan: How outputs are divided into calls.
        tally: Counts what is done.
        before_call: Called before every pipeline call.
        batch_sizes: Returns what this machine knows of batch sizes.
        judges: The stages on the device.
    """

    def __init__(
        self,
        job: Job,
        model: LoadedModel,
        plan: CallPlan,
        tally: RenderTally,
        before_call: BeforeCall,
        batch_sizes: Callable[[], BatchSizes],
        judges: DeviceJudges,
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
        """Make every output; each is yielded once.

        Raises:
            MachineError: When the device is lost or of no use, a LoRA is no longer what was planned, or this machine is
                out of disk or of open files.
        """
        again: deque[list[PendingOutput]] = deque()
        while outputs or again:
            if again:
                batch = again.popleft()
            else:
                size = self._size(outputs)
                batch, outputs = outputs[:size], outputs[size:]
            batch = [replace(output, attempts=output.attempts + 1) for output in batch]
            made = self._call(batch)
            if not isinstance(made, CallFailure):
                yield from made
                del made  # so that its pixels can be freed while the next call is made
                continue
            self._let_go(made)
            for next_call in reversed(self._calls_after(made, batch)):
                if isinstance(next_call, FailedOutput):
                    yield next_call
                else:
                    again.appendleft(next_call)

    def _size(self, outputs: Sequence[PendingOutput]) -> int:
        """Return how many outputs the next call makes: the best that this machine knows; in `exact` as planned."""
        from sdbatch.generate.batch_sizes import BATCH_MAX, first_size, shape_of

        if not self._is_sized:
            return self._plan.batch_size
        model, recipe = self._model, outputs[0].recipe
        if model.options.batch_size != "auto" or model.family.route_of(recipe).rows == "single":
            return self._choose(recipe, self._plan.batch_size, self._plan.batch_size)
        first = first_size(self._plan.batch_size, model.denoiser_parameters, model.device)
        size = self._choose(recipe, BATCH_MAX, first)
        if size > self._plan.batch_size:
            self._tally.batch_wanted = max(self._tally.batch_wanted, size)
        if model.device == "cuda" and not self._batch_sizes().is_settled(shape_of(model, recipe)):
            return size  # a size is measured by full calls alone
        return math.ceil(len(outputs) / math.ceil(len(outputs) / size))  # 17 rows at 16 are 9 and 8, not 16 and 1

    def _choose(self, recipe: Recipe, most: int, first: int) -> int:
        from sdbatch.generate.batch_sizes import shape_of

        return self._batch_sizes().choose(shape_of(self._model, recipe), first, most)

    def _call(self, outputs: Sequence[PendingOutput]) -> list[RenderedOutput] | CallFailure:
        """Make one pipeline call."""
        from sdbatch.generate.batch import make_batch
        from sdbatch.generate.batch_sizes import shape_of
        from sdbatch.generate.faults import failure_kind
        from sdbatch.generate.item import Item

        items = [Item(recipe=output.recipe, seed=output.seed, **output.sources.pixels) for output in outputs]
        shape = shape_of(self._model, outputs[0].recipe) if self._is_sized else ""
        pad_to = self._plan.batch_size if self._is_exact else None
        self._tally.model_calls += 1
        try:
            result = make_batch(self._model, items, pad_to, self._begin_call(outputs))
            reached("after-generate")
            verdicts = judge(self._judges.judges, result.outputs)
        except MachineError:
            raise
        except Exception as error:
            if fault := local_fault(error, temporary_folder(), "TMPDIR"):
                raise fault from error
            kind = failure_kind(error)
            if kind == "OutOfMemory" and shape:
                self._batch_sizes().failed(shape, len(outputs))
            return CallFailure.of(error, kind)
        if shape:
            cost_tflop = sum(output.request.cost_tflop for output in outputs)
            self._batch_sizes().ran(shape, len(outputs), result.generate_s, result.memory, cost_tflop=cost_tflop)
        return self._rendered(outputs, result, verdicts)

    def _let_go(self, failure: CallFailure) -> None:
        """Free what a failed call held, so that the next one finds the memory that this one found."""
        from sdbatch.generate.memory import release_memory

        if not outcome_of(failure.kind).replace_worker:  # a lost device answers no call that empties its cache
            release_memory()

    def _begin_call(self, outputs: Sequence[PendingOutput]) -> Callable[[], None]:
        """Say what goes into the model; return what is to be called before each of its steps."""
        limits = self._job.limits
        cost_tflop = sum(output.request.cost_tflop for output in outputs)
        rate = self._plan.rate_tflop_per_s
        bound_s = call_deadline_s(cost_tflop, rate, limits.deadline_min_s, limits.start_timeout_s)
        self._before_call(tuple(dict.fromkeys(output.request.id for output in outputs)), bound_s)
        deadline_s = time.monotonic() + bound_s
        count = len(outputs)

        def heed_deadline() -> None:
            if time.monotonic() > deadline_s:
                raise DeadlineExceeded(f"a pipeline call of {count} took longer than {bound_s:.0f} s")

        return heed_deadline

    def _calls_after(
        self, failure: CallFailure, outputs: list[PendingOutput]
    ) -> list[list[PendingOutput] | FailedOutput]:
        """Return the calls to make after one that failed, or the one output that is alone to blame.

        Raises:
            DeviceLost: When the device refuses every further call.
            GpuUnusable: When no process on this node can use it.
        """
        outcome = outcome_of(failure.kind)
        if outcome.replace_worker:
            raise (GpuUnusable if outcome.leave_node else DeviceLost)(failure.message)
        if len(outputs) > 1:
            if outcome.then != "halve" or self._is_exact:
                return [[output] for output in outputs]
            half = (len(outputs) + 1) // 2
            return [outputs[:half], outputs[half:]]
        (output,) = outputs
        if failure.kind == "Raised" and output.attempts < self._job.limits.attempts:
            return [outputs]
        error = failure.row_error or ROW_FAILURES[outcome.records or ""](failure.message)
        return [failed(output, error, failure.traceback)]

    def _rendered(
        self, outputs: Sequence[PendingOutput], result: BatchResult, verdicts: Sequence[tuple[Verdict, ...]]
    ) -> list[RenderedOutput]:
        self._tally.rows_generated += len(outputs)
        self._tally.generate_s += result.generate_s
        self._tally.decode_retries += result.decode_retries
        self._tally.recompile_limits += result.recompile_limits
        self._tally.batch_size = max(self._tally.batch_size, len(outputs))
        call = PipelineCall(
            pipeline_class=result.pipeline_class,
            scheduler=result.scheduler,
            device=result.device,
            batch_size=self._plan.batch_size if self._is_exact else len(outputs),
            denoise_s=(result.generate_s - result.decode_s) / len(outputs),
            decode_s=result.decode_s / len(outputs),
        )
        return [
            RenderedOutput(
                pending=output,
                generated=generated,
                call=call,
                tokens=self._model.tokens,
                verdicts=judged,
                stages_digest=self._judges.digest,
            )
            for output, generated, judged in zip(outputs, result.outputs, verdicts, strict=True)
        ]


def failed(output: PendingOutput, error: RowError, traceback_text: str = "") -> FailedOutput:
    """Return an output as one that cannot be rendered."""
    return FailedOutput(
        request=output.request,
        n=output.n,
        recipe=output.recipe,
        error=error,
        attempts=output.attempts,
        traceback=traceback_text,
    )
