"""Tokens counted from a tokenizer's files alone are those that the worker counts with the model's own."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from sdbatch.checkpoints import describe
from sdbatch.checkpoints.token_counts import _read_tokenizer, token_counter
from sdbatch.job import parse_job

TEXTS = (
    "a photo of a beach at sunset",
    "Ein Becher,  mit Umlauten äöü\n und\ttabs; 'don't' we'll 1234",
    "混沌の街 🎉 émigré",
    "  ",
    "!!! ... (x) [y] <|endoftext|>",
    "word " * 90,
)


@pytest.mark.parametrize("name", ["tiny-sd", "tiny-video"])
def test_counts_equal_those_of_transformers(name: str) -> None:
    from transformers import AutoTokenizer

    from sdbatch.checkpoints.builtins import SHIPPED

    folder = Path(SHIPPED[name]) / "tokenizer"
    theirs = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    ours, num_added = _read_tokenizer(folder)

    for text in TEXTS:
        assert len(ours.encode(text).ids) + num_added == len(theirs(text, truncation=False).input_ids), text


def test_clips_older_files_count_alike(tmp_path: Path) -> None:
    """Stable Diffusion 1.x and XL have vocab.json and merges.txt and no tokenizer.json."""
    from transformers import CLIPTokenizer

    from sdbatch.checkpoints.builtins import SHIPPED

    whole = json.loads((Path(SHIPPED["tiny-sd"]) / "tokenizer" / "tokenizer.json").read_text())["model"]
    (tmp_path / "vocab.json").write_text(json.dumps(whole["vocab"]))
    merges = [pair if isinstance(pair, str) else " ".join(pair) for pair in whole["merges"]]
    (tmp_path / "merges.txt").write_text("#version: 0.2\n" + "\n".join(merges) + "\n")
    theirs = CLIPTokenizer.from_pretrained(tmp_path, local_files_only=True)
    ours, num_added = _read_tokenizer(tmp_path)

    for text in TEXTS[:4]:
        assert len(ours.encode(text).ids) + num_added == len(theirs(text, truncation=False).input_ids), text


def test_a_folder_without_a_tokenizer_that_is_read_here_is_not_counted(
    job_of: Callable[..., dict[str, Any]], tmp_path: Path
) -> None:
    job = parse_job(job_of(".", models={"m": {"path": "builtin:tiny-sd", "batch_size": 1}}))
    model = describe("m", job.models["m"], {}, with_revision=False)
    broken = tmp_path / "broken"
    (broken / "tokenizer").mkdir(parents=True)
    (broken / "tokenizer" / "tokenizer_config.json").write_text("{")

    from dataclasses import replace

    assert token_counter(model) is not None
    assert token_counter(replace(model, path=str(broken))) is None
    assert token_counter(replace(model, path=str(tmp_path / "nowhere"))) is None
    assert token_counter(replace(model, path="s3://models/sd")) is None
