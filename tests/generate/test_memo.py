"""What is encoded once and kept: how often the encoders run, and that pixels do not know."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import support.toy_models
import torch
from support.revisions import PINNED
from support.studio import Case, Studio, base_row, difference

from sdbatch.generate import batch
from sdbatch.generate.batch import make_batch, set_threads
from sdbatch.generate.item import Item
from sdbatch.generate.load import LoadedModel, load_model
from sdbatch.generate.memo import Memo
from sdbatch.generate.random_weights import make_tiny_random
from sdbatch.job import Model
from sdbatch.recipe import recipe_from

Pixels = np.ndarray[Any, np.dtype[np.uint8]]
PICTURES: dict[str, Callable[[Path], None]] = {
    "sd": make_tiny_random,
    "sdxl": support.toy_models.make_tiny_sdxl,
    "flux": support.toy_models.make_tiny_flux,
    "zimage": support.toy_models.make_tiny_zimage,
}
CLIPS = [
    Case(model="wan-t2v", task="text-to-video"),
    Case(model="wan-t2v", task="video-to-video", video=True, row={"strength": 0.5}),
    Case(model="cogvideox-i2v", task="image-to-video", images=1, row={"num_frames": 9}),
]


@pytest.fixture(scope="module")
def picture_model(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], LoadedModel]:
    set_threads(1)
    kept: dict[str, LoadedModel] = {}

    def get(name: str) -> LoadedModel:
        if name not in kept:
            folder = tmp_path_factory.mktemp("memo") / name
            PICTURES[name](folder)
            kept[name] = load_model(name, Model(path=str(folder), revision=PINNED), PINNED, {})
        return kept[name]

    return get


def _item(prompt: str, seed: int = 1, negative_prompt: str = "snow", **changes: Any) -> Item:
    recipe = {
        "task": "image-to-image",
        "prompt": prompt,
        "negative_prompt": negative_prompt,
        "height": 64,
        "width": 64,
        "num_inference_steps": 2,
        "guidance_scale": 4.0,
        "strength": 0.5,
        "images": ["sha256:00"],
        "parameters": {},
        **changes,
    }
    picture = np.linspace(0, 255, 64 * 64 * 3).reshape(64, 64, 3).astype(np.uint8)
    return Item(
        recipe=recipe_from(recipe), seed=seed, images=(picture if "upside" not in prompt else picture[::-1].copy(),)
    )


def _items(name: str) -> list[Item]:
    """Return rows with two prompts, both texts of guidance where the model reads both, and two sources."""
    changes: dict[str, Any] = {"parameters": {"max_sequence_length": 64}} if name in {"flux", "zimage"} else {}
    made = [_item("a beach", 1, **changes), _item("upside down", 2, **changes), _item("a beach", 3, **changes)]
    if name == "flux":  # reads no negative
        return [replace(item, recipe=replace(item.recipe, negative_prompt=None)) for item in made]
    return made


def _made(model: LoadedModel, items: Sequence[Item], pad_to: int | None, calls: int = 2) -> list[Pixels]:
    """Return what several equal calls give."""
    return [output.frames_FHWC for _ in range(calls) for output in make_batch(model, items, pad_to).outputs]


@pytest.mark.parametrize("pad_to", [None, 4], ids=["fast", "exact"])
@pytest.mark.parametrize("name", PICTURES)
def test_pictures_are_byte_equal_with_and_without_the_memo(
    name: str, pad_to: int | None, picture_model: Callable[[str], LoadedModel], monkeypatch: pytest.MonkeyPatch
) -> None:
    model, items = picture_model(name), _items(name)
    model.memo = Memo()
    with_memo = _made(model, items, pad_to)
    distinct = {text for item in items for text in (item.recipe.prompt, item.recipe.negative_prompt)}
    assert model.memo.texts_encoded == len(distinct - {None})
    assert model.memo.sources_encoded == 2

    model.memo = Memo(bytes_max=0)
    without = _made(model, items, pad_to)
    assert model.memo.sources_encoded == 4

    assert difference(with_memo[0], with_memo[1]) > 2, "the rows do not differ"
    assert all(np.array_equal(one, two) for one, two in zip(with_memo, without, strict=True))
    monkeypatch.setattr(batch, "remembered", lambda *_, **__: nullcontext())
    plain = _made(model, items, pad_to, calls=1)
    assert max(difference(one, two) for one, two in zip(plain, without, strict=False)) <= 1


@pytest.mark.parametrize("case", CLIPS, ids=[case.name for case in CLIPS])
def test_clips_are_byte_equal_with_and_without_the_memo(
    case: Case, studio: Callable[[str], Studio], monkeypatch: pytest.MonkeyPatch
) -> None:
    made = studio(case.model)
    rows = [base_row(case), {**base_row(case), "seed": 2}]
    made.loaded.memo = Memo()
    with_memo = [*made.make(*rows), *made.make(*rows)]
    assert made.loaded.memo.texts_encoded == 2
    assert made.loaded.memo.sources_encoded == (1 if case.images or case.video else 0)

    made.loaded.memo = Memo(bytes_max=0)
    without = [*made.make(*rows), *made.make(*rows)]
    assert made.loaded.memo.texts_encoded == 4

    assert difference(with_memo[0], with_memo[1]) > 2, "the rows do not differ"
    assert all(np.array_equal(one, two) for one, two in zip(with_memo, without, strict=True))
    monkeypatch.setattr(batch, "remembered", lambda *_, **__: nullcontext())
    assert max(difference(one, two) for one, two in zip(made.make(*rows), without, strict=False)) <= 1


@pytest.mark.parametrize(("pad_to", "rows"), [(None, [8, 3, 1]), (16, [8, 8, 8])], ids=["fast", "exact"])
def test_a_text_encoder_sees_each_text_once_and_a_known_one_never(
    pad_to: int | None, rows: list[int], picture_model: Callable[[str], LoadedModel]
) -> None:
    model = picture_model("sd")
    model.memo = Memo()
    seen: list[int] = []
    encoder = model.pipeline(model.family.tasks["text-to-image"][0], "").text_encoder
    hook = encoder.embeddings.register_forward_hook(lambda _module, _inputs, output: seen.append(len(output)))
    _made(model, [_item(f"scene {number % 11}", number) for number in range(16)], pad_to, calls=1)
    assert (model.memo.texts_encoded, seen) == (12, rows)  # 8 and 3 of 11 prompts, and the negative

    _made(model, [_item(f"scene {number}", number) for number in range(11)], pad_to, calls=1)
    hook.remove()
    assert len(seen) == 3


def test_another_layer_of_a_known_text_is_another_thing(picture_model: Callable[[str], LoadedModel]) -> None:
    model = picture_model("sd")
    skipped = _item("a beach", parameters={"clip_skip": 1})
    model.memo = Memo()
    alone = _made(model, [skipped], None, calls=1)[0]
    model.memo = Memo()
    plain = _made(model, [_item("a beach")], None, calls=1)[0]

    assert np.array_equal(alone, _made(model, [skipped], None, calls=1)[0])
    assert difference(alone, plain) > 2


def test_the_memo_forgets_the_longest_unused_beyond_its_bound() -> None:
    memo = Memo(bytes_max=2 * 400)
    for key in ("a", "b"):
        memo.keep(key, ("x", None), torch.zeros(1, 100))
    memo.parts("a")
    memo.keep("c", ("x", None), torch.zeros(1, 100))
    assert [bool(memo.parts(key)) for key in ("a", "b", "c")] == [True, True, True]

    memo.parts("b"), memo.parts("a"), memo.parts("c")
    memo.trim()
    assert [bool(memo.parts(key)) for key in ("a", "b", "c")] == [True, False, True]


def test_rows_of_which_nothing_was_kept_do_not_pile_up() -> None:
    memo = Memo(rows_max=3)
    for key in range(10):
        memo.parts(key)
    memo.trim()
    assert list(memo._rows) == [7, 8, 9]
