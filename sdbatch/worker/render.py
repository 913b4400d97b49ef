r"""Recipes and sources in, outputs out. It knows no lease, and writes nothing.

    Request x N --> fetch() --> PendingOutput x B --> pipeline call --> stages on the device --> RenderedOutput x B
                                                   \-> what the table of outcomes says of a call that failed

The model stays resident until another one is asked for. The worker, `reproduce` and the benchmark of a GPU render here.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from sdbatch.after import Judge, choose_stages, load_judges, stages_digest
from sdbatch.errors import ModelLoadFailed, PromptTooLong
from sdbatch.job import Job
from sdbatch.storage import Store
from sdbatch.storage.progress import Watch, watched
from sdbatch.types import Request
from sdbatch.worker.generation import BeforeCall, DeviceJudges, Generation, failed
from sdbatch.worker.outputs import CallPlan, FailedOutput, PendingOutput, RenderedOutput, RenderTally
from sdbatch.worker.sources import OnProgress, SourceFetcher

if TYPE_CHECKING:
    from sdbatch.generate.batch_sizes import BatchSizes
    from sdbatch.generate.load import LoadedModel
    from sdbatch.generate.tokens import TokenCounter


class Renderer:
    """Renders requests with the models of a job, one of them resident at a time.

    `fetch` may be called from any thread. `generate` belongs to one thread at a time: whoever shares a renderer holds a
    lock around it.

    Args:
        job: Names the models and how they are run.
        revisions: Planned content revision by model name; a load that finds another is refused.
        is_gpu_reserved: Whether a GPU was reserved for this process.
        campaign: Holds the outputs that are sources of others; it is read for them alone.
    """

    def __init__(
        self, job: Job, revisions: Mapping[str, str], *, is_gpu_reserved: bool = False, campaign: Store | None = None
    ) -> None:
        self._job = job
        self._revisions = revisions
        self._is_gpu_reserved = is_gpu_reserved
        self._sources = SourceFetcher(job, campaign)
        self._stages = choose_stages(job.stages)
        self._judges: DeviceJudges | None = None
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
        on_loading: Callable[[], None] = lambda: None,
    ) -> Iterator[RenderedOutput | FailedOutput]:
        """Make outputs of one batch key, batch by batch; each is yielded once.

        Args:
            outputs: All of one model.
            plan: How they are divided into pipeline calls.
            tally: Counts what is done.
            before_call: Called before every pipeline call.
            on_loading: Called, from any thread, whenever the copy or the digest of a model's files comes further.

        Raises:
            MachineError: When the model cannot be loaded, or the device is lost.
        """
        if not outputs:
            return
        from sdbatch.generate.batch import set_threads

        options = self._job.models[outputs[0].request.model]
        set_threads(options.num_cpus)
        # Copying takes as long as it takes; only while nothing moves is it waited for with a bound.
        with watched(Watch(told=on_loading, still_max_s=self._job.limits.start_timeout_s)):
            model = self._warm(outputs[0].request.model, tally)
        if options.long_prompt == "error":
            outputs, refused = _without_long_prompts(outputs, model.tokens)
            yield from refused
        judges = self._device_judges(model.device)
        generation = Generation(self._job, model, plan, tally, before_call, self._batch_sizes, judges)
        texts, sources = model.memo.texts_encoded, model.memo.sources_encoded
        yield from generation.run(outputs)
        tally.texts_encoded += model.memo.texts_encoded - texts
        tally.sources_encoded += model.memo.sources_encoded - sources

    def _warm(self, name: str, tally: RenderTally) -> LoadedModel:
        from sdbatch.generate.load import load_model

        if self._model is None or self._model[0] != name:
            started_s = time.perf_counter()
            self._unload()  # the old one's memory is free before the new one asks for its own
            job = self._job
            model = load_model(
                name,
                job.models[name],
                self._revisions[name],
                job.storage,
                job.loras,
                is_gpu_reserved=self._is_gpu_reserved,
            )
            self._model = (name, model)
            tally.load_s += time.perf_counter() - started_s
        return self._model[1]

    def _unload(self) -> None:
        """Let the resident model go, and wait until its memory is free."""
        if self._model is None:
            return
        from sdbatch.generate.memory import release_memory

        is_compiled = bool(self._model[1].options.compile)
        self._model = None
        release_memory(with_compiled=is_compiled)

    def _device_judges(self, device: str) -> DeviceJudges:
        """Load the stages that run on the device, once; they stay beside whatever model is resident."""
        if self._judges is None or self._judges.device != device:
            judges = self._load_judges(device)
            self._judges = DeviceJudges(device=device, judges=judges, digest=stages_digest(self._stages))
        return self._judges

    def _load_judges(self, device: str) -> list[Judge]:
        from sdbatch.generate.faults import is_out_of_memory

        try:
            return load_judges(self._stages, "device", device)
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            said = f"{type(error).__name__}: {error}"
        raise ModelLoadFailed(f"the stages after the model do not fit beside it on {device}: {said}")

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
            refused.append(failed(replace(output, attempts=1), error))
        else:
            kept.append(output)
    return kept, refused
