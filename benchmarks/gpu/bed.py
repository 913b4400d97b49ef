"""Rows in, pixels out, through the product's own plan and renderer; nothing is written.

rows (dicts) --> Parquet --> real plan --> Request --> Renderer.generate() --> RenderedOutput
"""

from __future__ import annotations

import hashlib
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import torch

from benchmarks.gpu.bench import Bench, Figures, allocated
from benchmarks.gpu.device import PassClock, is_in_use, wait_for
from sdbatch.campaign.campaign import Campaign
from sdbatch.checkpoints import ModelInfo
from sdbatch.driver.one_run.select import pending_requests
from sdbatch.driver.picking import Selection
from sdbatch.driver.rows.scan import ResolvedManifest
from sdbatch.generate.load import LoadedModel
from sdbatch.job import Job, parse_job
from sdbatch.storage import open_store
from sdbatch.types import Request
from sdbatch.worker.outputs import CallPlan, FailedOutput, PendingOutput, RenderedOutput, RenderTally
from sdbatch.worker.render import Renderer

CPUS = 4


class OpenRenderer(Renderer):
    """A renderer whose resident model can be looked at."""

    @property
    def model(self) -> LoadedModel:
        """Return the resident model."""
        assert self._model is not None, "nothing was rendered yet"
        return self._model[1]

    def leave(self) -> None:
        """Let the resident model go."""
        self._unload()


@dataclass(frozen=True, slots=True, kw_only=True)
class Bed:
    """One job, planned.

    Attributes:
        bench: The part that it belongs to.
        job: The job.
        models: Description of each model, by its name in the job.
        requests: By id.
        renderer: Its renderer.
        live: For each pipeline call, how many rows it has and the bytes allocated before it.
        last: The outputs that were asked for last.
    """

    bench: Bench
    job: Job
    models: Mapping[str, ModelInfo]
    requests: Mapping[str, Request]
    renderer: OpenRenderer
    live: list[tuple[int, int]] = field(default_factory=list)
    last: list[PendingOutput] = field(default_factory=list)

    def pending(self, ids: Sequence[str]) -> list[PendingOutput]:
        """Return the outputs of rows, ready for a call."""
        found = []
        for output in self.renderer.fetch([self.requests[one] for one in ids]):
            if isinstance(output, FailedOutput):
                raise output.error
            found.append(output)
        return found

    def render(self, ids: Sequence[str], batch_size: int, *, is_fixed: bool = True) -> list[RenderedOutput]:
        """Make rows of one model and batch key, and return their outputs in the order of the ids.

        Raises:
            RowError: When a row cannot be made.
        """
        outputs, _ = self.timed(ids, batch_size, is_fixed=is_fixed)
        return outputs

    def timed(
        self, ids: Sequence[str], batch_size: int, *, is_fixed: bool = True
    ) -> tuple[list[RenderedOutput], Figures]:
        """Make rows as `render` does; return what was counted as well."""
        plan, tally = CallPlan(batch_size=batch_size, is_fixed=is_fixed), RenderTally()
        pending = self.pending(ids)
        self.last[:] = pending
        wait_for(self.bench.device)
        begin_s = time.perf_counter()
        made: dict[str, RenderedOutput] = {}
        for output in self.renderer.generate(pending, plan, tally, self._note):
            if isinstance(output, FailedOutput):
                raise output.error
            made[output.pending.request.id] = output
        wait_for(self.bench.device)
        wall_s = time.perf_counter() - begin_s
        outputs = [made[one] for one in ids]
        figures: Figures = {
            "rows": len(outputs),
            "calls": tally.model_calls,
            "batch": tally.batch_size,
            "wall_s": round(wall_s, 4),
            "generate_s": round(tally.generate_s, 4),
            "rate_per_s": round(len(outputs) / tally.generate_s, 4),
            "decode_s": round(sum(one.call.decode_s for one in outputs), 4),
            "load_s": round(tally.load_s, 3),
            "finite": sum(one.generated.is_finite for one in outputs),
            "devices": sorted({one.call.device for one in outputs}),
        }
        if is_in_use():
            figures["peak_gib"] = round(torch.cuda.max_memory_allocated() / 2**30, 3)
            figures["weights_gib"] = round(allocated() / 2**30, 3)
        return outputs, figures

    def clocked(self, ids: Sequence[str], batch_size: int) -> Figures:
        """Make rows whose model is resident; return what was counted, and the passes of its modules."""
        clock = PassClock(self.bench.device)
        with clock.watching(self.modules()):
            _, figures = self.timed(ids, batch_size)
        return {**figures, "passes": clock.figures()}

    def modules(self) -> dict[str, torch.nn.Module]:
        """Return the denoiser, the VAE's decoder and the text encoders of the resident model."""
        parts = self.pipeline().components
        named = {name: part for name, part in parts.items() if isinstance(part, torch.nn.Module) and name != "vae"}
        return {**named, "decoder": parts["vae"].decoder}

    def pipeline(self) -> Any:
        """Return the pipeline of the resident model."""
        model = self.renderer.model
        recipe = self.last[0].recipe
        return model.pipeline(model.family.route_of(recipe), recipe.scheduler)

    def _note(self, ids: tuple[str, ...], _: float) -> None:
        self.live.append((len(ids), allocated()))


@contextmanager
def bed(
    bench: Bench,
    models: Mapping[str, tuple[str, Mapping[str, Any]]],
    rows: Sequence[Mapping[str, Any]],
    determinism: str = "fast",
) -> Iterator[Bed]:
    """Plan rows as a run does, and yield what makes them.

    Args:
        bench: The part.
        models: By name in the job, an architecture and further keys of the job's model.
        rows: Columns by name; `prompt` and `seed` are filled in where they lack.
        determinism: The job's.
    """
    folder = bench.folder / f"bed-{uuid.uuid4().hex[:8]}"
    folder.mkdir(parents=True)
    table = [
        {"prompt": f"scene {row['id']} of an old town by the sea", "seed": number, **row}
        for number, row in enumerate(rows)
    ]
    pq.write_table(pa.Table.from_pylist(table), folder / "rows.parquet")
    job = parse_job(
        {
            "manifest": str(folder / "rows.parquet"),
            "output": str(folder / "campaign"),
            "models": {name: entry(bench, architecture, keys) for name, (architecture, keys) in models.items()},
            "defaults": {"task": "text-to-image"},
            "determinism": determinism,
            "quality_gate": False,  # random weights may draw plain pictures; finiteness is counted apart
        }
    )
    resolved = ResolvedManifest(job)
    renderer: OpenRenderer | None = None
    try:
        requests = pending_requests(resolved, Campaign(open_store(job.output, job.storage)).done(), Selection())
        revisions = {name: model.revision for name, model in resolved.scanned.models.items()}
        renderer = OpenRenderer(job, revisions, is_gpu_reserved=bench.device == "cuda")
        yield Bed(
            bench=bench,
            job=job,
            models=resolved.scanned.models,
            requests={one.id: one for one in requests},
            renderer=renderer,
        )
    finally:
        resolved.close()
        if renderer is not None:
            renderer.leave()


def entry(bench: Bench, architecture: str, keys: Mapping[str, Any]) -> Figures:
    """Return a job's entry of an architecture's model."""
    return {
        "path": str(bench.model(architecture)),
        "revision": hashlib.sha1(architecture.encode(), usedforsecurity=False).hexdigest(),
        "dtype": bench.dtype,
        "num_gpus": 0 if bench.is_toy else 1,
        "num_cpus": 1 if bench.is_toy else CPUS,
        **keys,
        **bench.options,
    }


def row(bench: Bench, name: str, model: str, architecture: str, **changes: Any) -> Figures:
    """Return one row with an architecture's arguments."""
    return {"id": name, "model": model, **bench.arguments(architecture), **changes}
