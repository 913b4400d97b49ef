"""Records of an output and of a unit: metadata rows and receipts.

RenderedOutput or FailedOutput --> row (one of a commit)        rows + RenderTally --> Receipt
"""

from __future__ import annotations

import importlib.metadata
import json
import traceback
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from typing import Any

from sdbatch.campaign.write import error_columns, receipt_of, request_columns
from sdbatch.errors import RowError
from sdbatch.job import Job
from sdbatch.types import Receipt
from sdbatch.worker.outputs import FailedOutput, RenderedOutput, RenderTally

Row = dict[str, Any]
"""One row of a commit by column; absent columns are null."""

_RECORDED = ("sdbatch", "torch", "diffusers", "transformers", "pillow", "imageio-ffmpeg")


@dataclass(frozen=True, slots=True, kw_only=True)
class Recorder:
    """Makes a worker's metadata rows.

    Attributes:
        job: The job.
        worker: Name of the worker.
    """

    job: Job
    worker: str
    _of_model: dict[str, Row] = field(default_factory=dict)

    def failed_rows(self, failed: FailedOutput) -> list[Row]:
        """Return a row for each id that would take an output, or a whole request, that cannot be rendered."""
        request, n = failed.request, failed.n
        row = {
            **request_columns(request, failed.recipe, n),
            **failure_columns(failed.error, failed.traceback),
            **self._worker_columns(request.model),
            "attempts": failed.attempts,
        }
        return [{**row, "id": taker} for taker in (request.ids if n is None else request.takers_of(n))]

    def rendered_row(self, rendered: RenderedOutput, load_s: float) -> Row:
        """Return what is recorded of an output that came out of the model, however it ends.

        Args:
            rendered: The output.
            load_s: Its share of the seconds that the model's load took.
        """
        pending, call = rendered.pending, rendered.call
        prompt_tokens, prompt_truncated = rendered.tokens.count(pending.recipe)
        return {
            **request_columns(pending.request, pending.recipe, pending.n),
            **self._worker_columns(pending.request.model),
            "pipeline_class": call.pipeline_class,
            "scheduler": call.scheduler,
            "device": call.device,
            "batch_size": call.batch_size,
            "load_s": load_s,
            "source_notes": list(pending.sources.notes) or None,
            "fetch_s": pending.fetch_s,
            "denoise_s": call.denoise_s,
            "decode_s": call.decode_s,
            "prompt_tokens": prompt_tokens,
            "prompt_truncated": prompt_truncated,
            "attempts": pending.attempts,
        }

    def _worker_columns(self, model: str) -> Row:
        if model not in self._of_model:
            accelerators = json.dumps(self.job.models[model].accelerators, sort_keys=True)
            self._of_model[model] = {"worker": self.worker, "accelerators": accelerators, "versions": versions()}
        return self._of_model[model]


def failure_columns(error: RowError, traceback_text: str = "") -> Row:
    """Return the columns that say why an output failed.

    Args:
        error: Why.
        traceback_text: Its traceback, where the error itself does not carry it.
    """
    text = traceback_text or "".join(traceback.format_exception(error))
    return error_columns(type(error).__name__, str(error), retryable=error.retryable, traceback=text)


def unit_receipt(unit: str, worker: str, rows: Sequence[Mapping[str, Any]], tally: RenderTally) -> Receipt:
    """Return what the commit tells, and of the work what the worker knows better."""
    return replace(
        receipt_of(unit, worker, rows),
        model_calls=tally.model_calls,
        rows_generated=tally.rows_generated,
        generate_s=tally.generate_s,
        load_s=tally.load_s,
        batch_size=tally.batch_size,
        batch_wanted=tally.batch_wanted,
        texts_encoded=tally.texts_encoded,
        sources_encoded=tally.sources_encoded,
        decode_retries=tally.decode_retries,
        recompile_limits=tally.recompile_limits,
    )


@cache
def versions() -> str:
    """Return the versions of the packages that decide pixels or files, as a JSON object."""
    return json.dumps({name: importlib.metadata.version(name) for name in _RECORDED})
