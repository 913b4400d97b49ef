"""Warnings about rows that can be made, and will perhaps not be what was meant.

    RowBatch + ResolvedRows --> RowWarnings.look() --> Problems: prompts that are cut, foreign syntax, missing sources

Nothing here stops a run; `check --strict` takes them for errors.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Final

from sdbatch.checkpoints import ModelInfo
from sdbatch.checkpoints.token_counts import TokenCounter, token_counter
from sdbatch.errors import Problem
from sdbatch.families.scheduler_options import zero_snr_schedulers
from sdbatch.manifest.check import Problems
from sdbatch.manifest.foreign_syntax import foreign_syntax, may_hold_syntax
from sdbatch.manifest.lost_letters import MESSAGE, lost_letters, may_lack_letters
from sdbatch.manifest.read import RowBatch
from sdbatch.manifest.row_place import problem_at
from sdbatch.plan.resolve import ResolvedRows
from sdbatch.plan.sources import ASSET_SCHEME
from sdbatch.storage import parse_url

_SCHEDULER: Final = re.compile(r'"scheduler":"(\w+Scheduler)"')
"""A class in a recipe, where a component may have its digest by that name; in a text `"` has a backslash before it."""

PROMPTS_COUNTED_MAX: Final = 100_000
"""Prompts near or over their limit whose tokens are counted, some 50 us each; those after them are not."""

_TEXTS: Final = ("prompt", "negative_prompt")
NO_VALUE: Final = frozenset(
    {"nan", "NaN", "None", "none", "null", "Null", "NULL", "NA", "N/A", "n/a", "#N/A", "<NA>", "NaT", "undefined"}
)
"""Texts that programs write where there is no value: the prompt of `str(None)` and of pandas' `astype(str)`."""


class RowWarnings:
    """Collects the warnings of one manifest.

    Args:
        models: Description of each of the job's models.
        is_missing: Whether a source, given as an absolute URL, is known not to be there.
        counts_tokens: Whether the tokens of prompts are counted; a run leaves that to its workers.
    """

    def __init__(
        self, models: Mapping[str, ModelInfo], is_missing: Callable[[str], bool], *, counts_tokens: bool
    ) -> None:
        self._models = models
        self._is_missing = is_missing
        self._counts_tokens = counts_tokens
        self._fitting = {
            name: zero_snr_schedulers(model.family.schedulers) for name, model in models.items() if model.ends_in_noise
        }
        self._counters: dict[str, TokenCounter | None] = {}
        self._num_counted = 0
        self.problems = Problems()

    def look(self, batch: RowBatch, rows: ResolvedRows) -> None:
        """Look at a batch, and at those of its rows that can be made."""
        offsets = _offsets(batch, rows)
        for column in _TEXTS:
            texts = batch.columns.get(column, [])
            if not NO_VALUE.isdisjoint(texts):
                self.problems.extend(_no_value_problems(batch, column, texts))
            if may_lack_letters(texts):
                self.problems.extend(_lost_letters_problems(batch, column, texts))
            if may_hold_syntax(texts):
                self.problems.extend(_syntax_problems(batch, column, texts, self._weighted(rows, offsets)))
        if any(rows.sources):
            self.problems.extend(self._source_problems(batch, rows, offsets))
        self.problems.extend(self._scheduler_problems(batch, rows, offsets))
        if self._counts_tokens:
            self.problems.extend(self._token_problems(batch, rows, offsets))

    def _weighted(self, rows: ResolvedRows, offsets: Sequence[int]) -> frozenset[int]:
        """Return where rows stand whose model reads weights in prompts."""
        reading = {name for name, model in self._models.items() if model.options.prompt_weights == "compel"}
        if not reading:
            return frozenset()
        return frozenset(offset for offset, model in zip(offsets, rows.model, strict=True) if model in reading)

    def _source_problems(self, batch: RowBatch, rows: ResolvedRows, offsets: list[int]) -> Iterable[Problem]:
        for offset, sources in zip(offsets, rows.sources, strict=True):
            for source in sources:
                if self._is_missing(source.url):
                    message = "is a source that is not there; the row will fail"
                    yield problem_at(batch, offset, source.role, source.url, message)

    def _scheduler_problems(self, batch: RowBatch, rows: ResolvedRows, offsets: list[int]) -> Iterable[Problem]:
        """Yield a problem for each row whose scheduler drops what the model's own one has."""
        if not self._fitting:
            return
        for offset, name, recipe in zip(offsets, rows.model, rows.recipe, strict=True):
            asked = _SCHEDULER.search(recipe) if name in self._fitting else None
            if asked and asked[1] not in self._fitting[name]:
                message = (
                    f"drops rescale_betas_zero_snr of the model's own scheduler, with which its weights were trained; "
                    f"these take it: {', '.join(self._fitting[name])}"
                )
                yield problem_at(batch, offset, "scheduler", asked[1], message)

    def _token_problems(self, batch: RowBatch, rows: ResolvedRows, offsets: list[int]) -> Iterable[Problem]:
        """Yield a problem for each prompt that the text encoder does not read to its end."""
        counters = {model: self._counter(model) for model in set(rows.model)}
        least = min((counter.bytes_min for counter in counters.values() if counter), default=None)
        prompts = batch.columns.get("prompt", [None] * batch.num_rows)
        if least is None or _all_within(prompts, least):
            return
        for offset, model, recipe in zip(offsets, rows.model, rows.recipe, strict=True):
            counter, prompt = counters[model], prompts[offset]
            if counter is None or (prompt is not None and len(prompt.encode()) <= counter.bytes_min):
                continue
            self._num_counted += 1
            if self._num_counted > PROMPTS_COUNTED_MAX:
                return
            if excess := counter.excess(recipe):
                tokens, limit = excess
                message = f"tokens are over the {limit} that the text encoder reads; the end is left out"
                yield problem_at(batch, offset, "prompt", tokens, message)

    def _counter(self, model: str) -> TokenCounter | None:
        if model not in self._counters:
            self._counters[model] = token_counter(self._models[model])
        return self._counters[model]


def _all_within(prompts: Sequence[str | None], num_bytes: int) -> bool:
    """Whether no prompt has more bytes; one look at all of them is faster than a look at each."""
    if None in prompts:
        return False  # a default stands for it
    texts = [text for text in prompts if text]
    longest = max(map(len, texts), default=0)
    return longest <= num_bytes and ("".join(texts).isascii() or 4 * longest <= num_bytes)


def _syntax_problems(
    batch: RowBatch, column: str, texts: Iterable[str | None], weighted: Collection[int]
) -> Iterable[Problem]:
    for offset, text in enumerate(texts):
        for snippet, message in foreign_syntax(text, reads_weights=offset in weighted) if isinstance(text, str) else ():
            yield problem_at(batch, offset, column, snippet, message)


def _no_value_problems(batch: RowBatch, column: str, texts: Iterable[str | None]) -> Iterable[Problem]:
    message = "is a word for no value, which the model reads as plain text; leave the cell empty"
    return (problem_at(batch, offset, column, text, message) for offset, text in enumerate(texts) if text in NO_VALUE)


def _lost_letters_problems(batch: RowBatch, column: str, texts: Iterable[str | None]) -> Iterable[Problem]:
    for offset, text in enumerate(texts):
        if isinstance(text, str) and (snippet := lost_letters(text)):
            yield problem_at(batch, offset, column, snippet, MESSAGE)


@lru_cache(maxsize=65_536)
def is_absent_file(url: str) -> bool:
    """Whether a source is a local file that is not there; nothing is asked of a bucket, or of the campaign."""
    if url.startswith(ASSET_SCHEME):
        return False
    location = parse_url(url)
    return location.is_local and not Path(location.path).is_file()


def _offsets(batch: RowBatch, rows: ResolvedRows) -> list[int]:
    """Return where in the batch each resolved row stands: rows with problems are left out of them."""
    if len(rows.id) == batch.num_rows:
        return list(range(batch.num_rows))
    places = {request_id: offset for offset, request_id in enumerate(batch.columns.get("id", []))}
    return [places[request_id] for request_id in rows.id]
