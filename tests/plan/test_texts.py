"""Weights, long prompts and textual inversions in keys: a row's recipe holds what the row makes use of, and no more."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from safetensors.numpy import save_file
from support.resolved import Row, rows_of

from sdbatch.checkpoints import describe
from sdbatch.errors import JobError, ModelError
from sdbatch.job import Job, parse_job
from sdbatch.plan.resolve import Resolver
from sdbatch.prompt_syntax import TextReader, as_compel, counted, with_vectors, without_weights

COMPEL: dict[str, Any] = {"prompt_weights": "compel"}
CHUNK: dict[str, Any] = {"long_prompt": "chunk"}


@pytest.fixture
def words(tmp_path: Path) -> dict[str, Any]:
    import numpy as np

    for name in ("one", "other"):
        save_file({name: np.full((1, 32), len(name), np.float32)}, tmp_path / f"{name}.safetensors")
    return {"embeddings": {f"<{name}>": str(tmp_path / f"{name}.safetensors") for name in ("one", "other")}}


def _job(*, defaults: Mapping[str, Any] | None = None, **model: Any) -> Job:
    entry = {"path": "builtin:tiny-random", "batch_size": 4, **model}
    values = {"manifest": "m", "output": "o", "models": {"m": entry}, "seed": 11}
    return parse_job({**values, "defaults": {"task": "text-to-image", **(defaults or {})}})


def _resolve(job: Job, *rows: Mapping[str, Any]) -> tuple[list[Row | None], list[str]]:
    models = {name: describe(name, model, {}) for name, model in job.models.items()}
    given = [{"id": f"r{number}", "seed": 1, **row} for number, row in enumerate(rows)]
    columns = {name: [row.get(name) for row in given] for name in dict.fromkeys(name for row in given for name in row)}
    resolved, problems = Resolver(job, models, lambda _: None, lambda url: url).resolve(columns, len(rows), {})
    return rows_of(resolved, problems, len(rows)), [f"{one.column} {one.message}" for one in problems]


def _recipes(job: Job, *rows: Mapping[str, Any]) -> list[dict[str, Any]]:
    resolved, problems = _resolve(job, *rows)
    assert problems == []
    return [json.loads(row.recipe) for row in resolved if row is not None]


def _keys(job: Job, *rows: Mapping[str, Any]) -> list[str]:
    return [row.request_key for row in _resolve(job, *rows)[0] if row is not None]


def test_only_rows_that_make_use_of_it_have_another_key(words: dict[str, Any]) -> None:
    rows: list[dict[str, Any]] = [
        {"prompt": "a beach"},
        {"prompt": "a (beach:1.4)"},
        {"prompt": "a beach", "negative_prompt": "(sand)1.2"},
        {"prompt": "a <one>"},
        {"prompt": "a beach", "negative_prompt": "<other>"},
        {"prompt": None},
    ]
    before = _keys(_job(defaults={"prompt": "some <one>"}), *rows)
    after = _keys(_job(defaults={"prompt": "some <one>"}, **COMPEL, **words), *rows)

    assert [one == other for one, other in zip(before, after, strict=True)] == [True, False, False, False, False, False]


def test_a_recipe_names_each_word_that_its_row_holds_with_the_file_s_digest(words: dict[str, Any]) -> None:
    job = _job(**words)
    found = describe("m", job.models["m"], {}).embeddings
    recipes = _recipes(
        job, {"prompt": "a <one> and <other>"}, {"prompt": "<one>"}, {"prompt": "one"}, {"prompt": "(<one>:1.2)"}
    )

    assert [recipe.get("embeddings") for recipe in recipes] == [
        found,
        {"<one>": found["<one>"]},
        None,
        {"<one>": found["<one>"]},
    ]
    assert all("prompt_weights" not in recipe for recipe in recipes)


def test_a_word_of_another_model_is_plain_text(words: dict[str, Any]) -> None:
    entry = {"path": "builtin:tiny-random", "batch_size": 4}
    models = {"has": {**entry, **words}, "lacks": entry}
    job = parse_job({"manifest": "m", "output": "o", "models": models, "defaults": {"task": "text-to-image"}})
    has, lacks = _recipes(job, *({"model": name, "prompt": "a <one>"} for name in models))

    assert has["embeddings"].keys() == {"<one>"}
    assert "embeddings" not in lacks


def test_other_vectors_under_the_same_word_move_the_key(words: dict[str, Any]) -> None:
    swapped = {"embeddings": {"<one>": words["embeddings"]["<other>"]}}

    assert _keys(_job(**words), {"prompt": "a <one>"}) != _keys(_job(**swapped), {"prompt": "a <one>"})


def test_rows_that_are_encoded_otherwise_do_not_share_a_call(words: dict[str, Any]) -> None:
    rows, _ = _resolve(
        _job(**COMPEL, **words), {"prompt": "a"}, {"prompt": "(a:1.2)"}, {"prompt": "<one>"}, {"prompt": "b"}
    )
    keys = [row.batch_key for row in rows if row is not None]

    assert keys[0] == keys[3]
    assert len(set(keys)) == 3


def test_chunks_are_of_every_row_of_the_model() -> None:
    assert [recipe["long_prompt"] for recipe in _recipes(_job(**CHUNK), {"prompt": "a"}, {"prompt": "b" * 200})] == [
        "chunk",
        "chunk",
    ]


@pytest.mark.parametrize(
    ("model", "row", "problem"),
    [
        (COMPEL, {"prompt": "cat.swap(dog)"}, "prompt holds compel's .swap(...), which is not taken; leave it out"),
        (
            CHUNK,
            {"prompt": "a", "parameters": '{"clip_skip": 1}'},
            "parameters holds clip_skip, which is not taken beside long_prompt: chunk",
        ),
    ],
)
def test_what_would_be_passed_over_is_refused(model: dict[str, Any], row: dict[str, Any], problem: str) -> None:
    assert _resolve(_job(**model), row)[1] == [problem]


def test_without_compel_rows_that_need_it_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)

    assert _resolve(_job(**COMPEL), {"prompt": "(a:1.2)"}, {"prompt": "a"})[1] == [
        "prompt needs the Python package compel, which is not installed: pip install 'sdbatch[prompts]'"
    ]


@pytest.mark.parametrize("option", [COMPEL, CHUNK, {"embeddings": {"<one>": "one.safetensors"}}], ids=str)
def test_a_family_that_cannot_is_refused_with_those_that_can(option: dict[str, Any]) -> None:
    entry = {"path": "/models/wan", "family": "Wan 2.1 T2V", "revision": "a" * 64, **option}
    job = parse_job({"manifest": "m", "output": "o", "models": {"m": entry}})

    with pytest.raises(ModelError, match=r"is not for Wan 2\.1 T2V; it is for Stable Diffusion 1\.x/2\.x"):
        describe("m", job.models["m"], {})


@pytest.mark.parametrize("word", ["a", "two words", "(x)", "a:b", "x,y"])
def test_a_word_that_other_syntax_is_written_with_is_refused(word: str) -> None:
    with pytest.raises(JobError, match="embeddings"):
        _job(embeddings={word: "one.safetensors"})


def test_a_file_of_pickles_is_refused() -> None:
    with pytest.raises(JobError, match="embeddings"):
        _job(embeddings={"<one>": "one.pt"})


@pytest.mark.parametrize(
    ("text", "ours"),
    [
        ("a (beach:1.4)", "a (beach)1.4"),
        ("(a (b:1.2) c:1.3)", "(a (b)1.2 c)1.3"),
        ("a (beach : 1.4 )", "a (beach : 1.4 )"),
        ("a (beach: 1.4)", "a (beach)1.4"),
        ("wide (16:9), (at 10:30)", "wide (16:9), (at 10:30)"),
        ("a (beach)1.4", "a (beach)1.4"),
        ("note: 1) one", "note: 1) one"),
        ("(a:1.2)2 people, (b:1).5", "(a)1.2 2 people, (b)1 .5"),
        ("(a:1.2). A dog, (b:1)-like", "(a)1.2. A dog, (b)1-like"),
    ],
)
def test_a1111_s_weights_become_compel_s_and_ratios_do_not(text: str, ours: str) -> None:
    assert as_compel(text) == ours


@pytest.mark.parametrize(
    ("text", "has"),
    [("a beach", False), ("a close-up, well-lit", False), ("a - b", False), ("dog++", True), ("a (b)", True)],
)
def test_only_texts_that_compel_would_read_otherwise_have_weights(text: str, has: bool) -> None:
    assert TextReader([]).read(text).has_weights is has


def test_words_are_found_alone_and_as_they_are_written() -> None:
    reader = TextReader(["cat_toy", "<cat>", "<cat>2"])

    assert reader.read("a cat_toy, cat_toys, Cat_toy").words == ("cat_toy",)
    assert reader.read("a<cat>2 <cat>").words == ("<cat>", "<cat>2")
    assert with_vectors("a <cat>2 cat_toys <cat>", {"<cat>": "X Y", "<cat>2": "Z"}) == "a Z cat_toys X Y"


def test_weights_do_not_count_as_tokens() -> None:
    assert without_weights("a (beach:1.4), (sea)0.5 dog") == "a beach, sea dog"


def test_a_word_counts_as_many_tokens_as_it_has_vectors() -> None:
    text = "a <wide> beach, (<one>:1.2)"
    assert counted(text, {}, has_weights=False) == (text, 0)
    assert counted(text, {"<wide>": 60, "<one>": 1}, has_weights=False) == ("a   beach, ( :1.2)", 61)
    assert counted("<one> and <one>", {"<one>": 3}, has_weights=True) == ("  and  ", 6)


@pytest.mark.parametrize(("num_vectors", "is_cut"), [(1, False), (45, True)])
def test_both_counters_count_the_vectors_of_a_word(tmp_path: Path, num_vectors: int, is_cut: bool) -> None:
    import numpy as np

    from sdbatch.checkpoints.token_counts import token_counter
    from sdbatch.generate.load import load_model
    from sdbatch.recipe import parse_recipe

    save_file({"v": np.zeros((num_vectors, 128), np.float32)}, tmp_path / "v.safetensors")
    job = _job(path="builtin:tiny-sd", embeddings={"<wide>": str(tmp_path / "v.safetensors")})
    info = describe("m", job.models["m"], {})
    (recipe,) = (row.recipe for row in _resolve(job, {"prompt": "a <wide>"})[0] if row is not None)
    counter = token_counter(info)
    assert counter is not None
    loaded = load_model("m", job.models["m"], info.combined_revision, {})
    tokens, cut = loaded.tokens.count(parse_recipe(recipe))

    assert cut is is_cut
    assert counter.excess(recipe) == ((tokens, 40) if is_cut else None)
    assert tokens == 3 + num_vectors
