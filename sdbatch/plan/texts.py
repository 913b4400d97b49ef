"""What the texts of rows ask of the text encoder: weights, chunks, textual inversions.

    prompt and negative prompt of each row --> text_uses() --> part of what rows are grouped by
    TextUses of a group + model's entry    --> settled_texts() --> members of the recipe, and RowProblems

Only what a row makes use of is in its recipe: a model's further textual inversions move no key of it.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping, Sequence
from typing import Any

from sdbatch.checkpoints import ModelInfo
from sdbatch.columns import named
from sdbatch.families import Route
from sdbatch.job import Job
from sdbatch.plan.problems import RowProblem
from sdbatch.prompt_syntax import TextReader, TextUse

_TEXTS = named("text")
TextUses = tuple[TextUse | None, ...]
"""One for each text column; None where the row has no text of its own."""


def reader_of(job: Job) -> TextReader | None:
    """Return what reads the texts of a job's rows; None where no model asks for it."""
    words = {word for model in job.models.values() for word in model.embeddings}
    is_asked = words or any(model.prompt_weights == "compel" for model in job.models.values())
    return TextReader(words) if is_asked else None


def text_uses(reader: TextReader, columns: Mapping[str, Sequence[Any]], num_rows: int) -> list[TextUses]:
    """Return what the texts of some rows hold."""
    nulls: Sequence[Any] = [None] * num_rows
    read = [
        [reader.read(text) if isinstance(text, str) else None for text in columns.get(name, nulls)] for name in _TEXTS
    ]
    return list(zip(*read, strict=True))


def settled_texts(
    uses: TextUses,
    texts: Mapping[str, str | None],
    reader: TextReader | None,
    model: ModelInfo,
    route: Route,
    parameters: Mapping[str, Any],
    *,
    loads_here: bool = True,
) -> tuple[dict[str, Any], list[RowProblem]]:
    """Return what stands in the recipe of how texts are encoded, and the problems.

    Args:
        uses: Of the rows' own texts.
        texts: Text of a row that has none of its own, by column.
        reader: The job's; None where nothing is read.
        model: Description of the model.
        route: How the family serves the rows.
        parameters: Further arguments of the rows.
        loads_here: Whether this machine's Python packages are those that load the models.
    """
    options = model.options
    found: dict[str, Any] = {}
    if options.long_prompt == "chunk" and "prompt" in route.arguments:
        found["long_prompt"] = "chunk"
    read = {
        name: reader.read(texts.get(name) or "") if use is None else use
        for name, use in zip(_TEXTS, uses, strict=True)
        if reader is not None and route.reads(name, parameters)
    }
    problems = []
    if options.prompt_weights == "compel" and any(use.has_weights for use in read.values()):
        found["prompt_weights"] = "compel"
        problems += [
            RowProblem(name, None, f"holds compel's {use.unserved}...), which is not taken; leave it out")
            for name, use in read.items()
            if use.unserved
        ]
    words = sorted({word for use in read.values() for word in use.words if word in model.embeddings})
    if words:
        found["embeddings"] = {word: model.embeddings[word] for word in words}
    is_encoded = found.keys() & {"prompt_weights", "long_prompt"}
    if is_encoded and "clip_skip" in parameters:
        option = min(is_encoded)
        message = f"holds clip_skip, which is not taken beside {option}: {found[option]}"
        problems.append(RowProblem("parameters", "clip_skip", message))
    if is_encoded and loads_here and importlib.util.find_spec("compel") is None:
        message = "needs the Python package compel, which is not installed: pip install 'sdbatch[prompts]'"
        problems.append(RowProblem("prompt", None, message))
    return found, problems
