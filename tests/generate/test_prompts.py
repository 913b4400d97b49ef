"""Weights, long prompts and textual inversions on toy models: what moves pixels, and what does not."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from safetensors.torch import save_file
from support.toy_models import make_tiny_sdxl

from sdbatch.checkpoints import describe
from sdbatch.errors import ModelError, ModelLoadFailed
from sdbatch.families import FAMILIES
from sdbatch.generate.batch import make_batch, set_threads
from sdbatch.generate.item import Item
from sdbatch.generate.load import LoadedModel, load_model
from sdbatch.job import Model
from sdbatch.recipe import recipe_from

COMPEL: dict[str, Any] = {"prompt_weights": "compel"}
CHUNK: dict[str, Any] = {"long_prompt": "chunk"}
LONG = "a wide beach under a stormy sky, " * 5
"""Some 150 tokens: the toy's tokenizer has one for each letter."""
SOURCE = np.linspace(0, 255, 64 * 64 * 3).reshape(64, 64, 3).astype(np.uint8)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Files of textual inversions, and a folder of SDXL."""
    place = tmp_path_factory.mktemp("prompts")
    torch.manual_seed(3)
    one, other = torch.randn(2, 32), torch.randn(1, 32)
    save_file({"emb_params": one}, place / "toy.safetensors")
    save_file({"<cat>": other[0]}, place / "cat.safetensors")
    save_file({"<dog>": torch.randn(32)}, place / "dog.safetensors")
    save_file({"clip_l": one, "clip_g": torch.randn(2, 32)}, place / "toy_xl.safetensors")
    make_tiny_sdxl(place / "xl")
    return place


@pytest.fixture(scope="module", params=["sd", "sdxl"])
def model(request: pytest.FixtureRequest, folder: Path) -> LoadedModel:
    set_threads(1)
    if request.param == "sd":
        words = {"<toy>": str(folder / "toy.safetensors"), "<cat>": str(folder / "cat.safetensors")}
        return _loaded("builtin:tiny-random", words)
    return _loaded(str(folder / "xl"), {"<toy>": str(folder / "toy_xl.safetensors")})


def _loaded(path: str, words: dict[str, str]) -> LoadedModel:
    entry = Model.model_validate({"path": path, "embeddings": words})
    return load_model("m", entry, describe("m", entry, {}).revision, {})


def _item(prompt: str = "a beach", seed: int = 1, *, image: Any = None, **recipe: Any) -> Item:
    values = {
        "task": "text-to-image" if image is None else "image-to-image",
        "prompt": prompt,
        "height": 64,
        "width": 64,
        "num_inference_steps": 2,
        "guidance_scale": 5.0,
        **({} if image is None else {"strength": 0.8, "images": ["sha256:00"]}),
        **recipe,
    }
    return Item(recipe=recipe_from(values), seed=seed, images=() if image is None else (image,))


def _pixels(model: LoadedModel, *items: Item, pad_to: int | None = 2) -> list[NDArray[np.uint8]]:
    return [output.frames_FHWC[0] for output in make_batch(model, items, pad_to).outputs]


def _inverted(model: LoadedModel, *words: str) -> dict[str, Any]:
    return {"embeddings": {word: revision for word, revision in model._embeddings if word in words}}


def test_weights_move_pixels_and_both_forms_of_them_are_one(model: LoadedModel) -> None:
    (plain,) = _pixels(model, _item("a beach", **COMPEL))
    (a1111,) = _pixels(model, _item("a (beach:1.4)", **COMPEL))
    (compel,) = _pixels(model, _item("a (beach)1.4", **COMPEL))
    (less,) = _pixels(model, _item("a (beach:0.5)", **COMPEL))
    (negative,) = _pixels(model, _item("a beach", negative_prompt="(sand:1.4)", **COMPEL))
    (negative_plain,) = _pixels(model, _item("a beach", negative_prompt="sand", **COMPEL))

    assert np.array_equal(a1111, compel)
    assert not np.array_equal(plain, a1111)
    assert not np.array_equal(less, a1111)
    assert not np.array_equal(negative, negative_plain)


@pytest.mark.parametrize("more", [{}, {"negative_prompt": "sand"}, {"guidance_scale": 1.0}], ids=str)
def test_a_text_without_weights_that_fits_is_encoded_as_by_the_pipeline(
    model: LoadedModel, more: dict[str, Any]
) -> None:
    (own,) = _pixels(model, _item(**more))
    (ours,) = _pixels(model, _item(**more, **CHUNK))

    assert np.abs(own.astype(int) - ours.astype(int)).max() <= 1


def test_the_end_of_a_prompt_of_150_tokens_moves_pixels_only_where_it_is_read(model: LoadedModel) -> None:
    ends = ["and a red boat", "and a green car"]
    cut = [_pixels(model, _item(LONG + end))[0] for end in ends]
    read = [_pixels(model, _item(LONG + end, **CHUNK))[0] for end in ends]

    assert np.array_equal(cut[0], cut[1])
    assert not np.array_equal(read[0], read[1])


def test_rows_of_unlike_lengths_in_one_batch_do_not_touch_each_other(model: LoadedModel) -> None:
    more = {"negative_prompt": "sand", **CHUNK}
    rows = [_item("a beach", **more), _item(LONG, 2, **more), _item("a wood", 3, **{**more, "negative_prompt": LONG})]
    alone = [_pixels(model, row)[0] for row in rows]
    other = _item("other", 9, **more)

    assert all(map(np.array_equal, alone, _pixels(model, *rows)))
    assert np.array_equal(alone[0], _pixels(model, other, rows[0])[1])
    assert np.array_equal(alone[1], _pixels(model, other, rows[1])[1])


def test_weights_of_a_neighbour_do_not_move_a_row(model: LoadedModel) -> None:
    row = _item("a (beach:1.4)", **COMPEL)
    (alone,) = _pixels(model, row)

    assert np.array_equal(alone, _pixels(model, _item("(x:0.3) y", 7, **COMPEL), row)[1])


def test_image_to_image_reads_weights_as_well(model: LoadedModel) -> None:
    weighted = [_pixels(model, _item(f"a (beach:{one})", image=SOURCE, **COMPEL))[0] for one in (1.1, 1.9)]

    assert not np.array_equal(weighted[0], weighted[1])


def test_a_textual_inversion_moves_pixels_and_is_gone_for_the_next_row(model: LoadedModel) -> None:
    (before,) = _pixels(model, _item("a <toy> here"))
    (with_it,) = _pixels(model, _item("a <toy> here", **_inverted(model, "<toy>")))
    (again,) = _pixels(model, _item("a <toy> here", **_inverted(model, "<toy>")), pad_to=2)
    (after,) = _pixels(model, _item("a <toy> here"))

    assert not np.array_equal(before, with_it)
    assert np.array_equal(with_it, again)
    assert np.array_equal(before, after)


def test_after_a_call_the_model_is_as_it_was(model: LoadedModel) -> None:
    pipeline = model._base
    text = getattr(pipeline.text_encoder, "text_model", pipeline.text_encoder)
    before = (pipeline.tokenizer, text.embeddings.token_embedding, text.eos_token_id)
    _pixels(model, _item("a <toy> here", **_inverted(model, "<toy>")))

    assert (pipeline.tokenizer, text.embeddings.token_embedding, text.eos_token_id) == before


def test_two_words_of_as_many_vectors_are_not_taken_for_each_other(folder: Path) -> None:
    words = {f"<{name}>": str(folder / f"{name}.safetensors") for name in ("cat", "dog")}
    both = _loaded("builtin:tiny-random", words)
    cat, dog = (_pixels(both, _item(f"a {word}", **_inverted(both, word)))[0] for word in words)

    assert not np.array_equal(cat, dog)


def test_a_neighbour_s_words_do_not_move_a_row_of_textual_inversions(model: LoadedModel) -> None:
    row = _item("a <toy> here", **_inverted(model, "<toy>"))
    (alone,) = _pixels(model, row)

    assert np.array_equal(alone, _pixels(model, _item("b <toy> <toy>", 5, **_inverted(model, "<toy>")), row)[1])


def test_textual_inversions_may_have_weights_and_stand_in_long_prompts(model: LoadedModel) -> None:
    words = _inverted(model, "<toy>")
    pixels = [
        _pixels(model, _item(prompt, **words, **more))[0]
        for prompt, more in (
            ("a (<toy>:1.2)", COMPEL),
            ("a (<toy>:1.8)", COMPEL),
            (f"{LONG} a <toy>", CHUNK),
            (f"{LONG} a toy", CHUNK),
        )
    ]

    assert not np.array_equal(pixels[0], pixels[1])
    assert not np.array_equal(pixels[2], pixels[3])


def test_a_textual_inversion_is_what_diffusers_own_loader_makes_of_it(folder: Path) -> None:
    from diffusers import StableDiffusionPipeline

    from sdbatch.checkpoints.builtins import builtin_folder

    ours = _loaded("builtin:tiny-random", {"<toy>": str(folder / "toy.safetensors")})
    inversion = ours.inversion(recipe_from({**_item().recipe.columns(), **_inverted(ours, "<toy>")}))
    assert inversion is not None
    pipeline: Any = StableDiffusionPipeline.from_pretrained(builtin_folder("tiny-random"), local_files_only=True)
    vectors = inversion.vectors["text_encoder"]
    pipeline.load_textual_inversion({"toyword": vectors}, token="toyword")
    (theirs, _) = pipeline.encode_prompt("a toyword here", "cpu", 1, False)
    recipe = _item("a <toy> here", **_inverted(ours, "<toy>"), **CHUNK).recipe
    from sdbatch.generate.inversions import inverted
    from sdbatch.generate.prompts import PromptEncoder

    base = ours.pipeline(ours.family.route_of(recipe), "")
    with torch.inference_mode(), inverted(base, inversion):
        encoded, _ = PromptEncoder(base, recipe, inversion.tokens)._encoded("a <toy> here", 77)

    assert torch.allclose(theirs, encoded, atol=1e-5)
    with torch.inference_mode():
        other, _ = PromptEncoder(base, recipe, {})._encoded("a <toy> here", 77)
    assert not torch.allclose(theirs, other, atol=1e-2)


def test_the_end_of_a_text_is_found_though_new_words_have_higher_numbers(folder: Path) -> None:
    xl = _loaded(str(folder / "xl"), {"<toy>": str(folder / "toy_xl.safetensors")})
    encoder = xl._base.text_encoder_2.text_model
    item = _item("a <toy> here", **_inverted(xl, "<toy>"))
    (right,) = _pixels(xl, item)
    encoder.eos_token_id = 2  # as in the configuration of every published SDXL
    xl.memo = type(xl.memo)()

    assert np.array_equal(right, _pixels(xl, item)[0])
    assert encoder.eos_token_id == 2


def test_a_textual_inversion_that_is_not_what_was_planned_is_refused(model: LoadedModel) -> None:
    with pytest.raises(ModelLoadFailed, match="not what was planned"):
        make_batch(model, [_item("a <toy>", embeddings={"<toy>": "0" * 64})], None)


@pytest.mark.parametrize(
    ("tensors", "message"),
    [
        ({"a": (1, 32), "b": (1, 32)}, "holds 2 tensors (a, b); for Stable Diffusion 1.x/2.x it must hold one"),
        ({"a": (1, 48)}, "holds vectors of 48 numbers; the model's text_encoder takes 32"),
        ({"a": (76, 32)}, "holds a of shape [76, 32], which is not 1 to 75 vectors"),
    ],
)
def test_vectors_that_do_not_fit_are_refused_before_anything_is_loaded(
    tmp_path: Path, tensors: dict[str, tuple[int, ...]], message: str
) -> None:
    save_file({name: torch.zeros(shape) for name, shape in tensors.items()}, tmp_path / "bad.safetensors")
    entry = Model.model_validate(
        {"path": "builtin:tiny-random", "embeddings": {"<bad>": str(tmp_path / "bad.safetensors")}}
    )

    with pytest.raises(ModelError) as refused:
        describe("m", entry, {})
    assert f"models.m.embeddings.<bad>: bad.safetensors {message}" in str(refused.value)


def test_sdxl_s_file_must_be_for_both_text_encoders(folder: Path) -> None:
    entry = Model.model_validate({"path": str(folder / "xl"), "embeddings": {"<toy>": str(folder / "toy.safetensors")}})

    with pytest.raises(ModelError, match="it must hold clip_l and clip_g"):
        describe("m", entry, {})


ROUTES = [
    (family.title, route.pipeline)
    for family in FAMILIES.values()
    if family.takes_encoded_prompts
    for routes in family.tasks.values()
    for route in routes
]


@pytest.mark.parametrize(("title", "pipeline"), ROUTES)
def test_every_pipeline_of_a_family_takes_encoded_prompts(title: str, pipeline: str) -> None:
    import inspect

    import diffusers

    taken = inspect.signature(getattr(diffusers, pipeline).__call__).parameters
    names = {"prompt_embeds", "negative_prompt_embeds"}
    if "XL" in title:
        names |= {"pooled_prompt_embeds", "negative_pooled_prompt_embeds"}

    assert names <= taken.keys()
    assert taken["prompt"].default is None


def test_a_campaign_holds_weights_words_and_samplers_in_the_rows_that_say_them(
    folder: Path, write_manifest: Callable[..., str], job_of: Callable[..., dict[str, Any]]
) -> None:
    import json

    import sdbatch

    prompts = {"plain": "a beach", "weighted": "a (beach:1.5)", "word": "a <toy> beach", "long": LONG}
    rows = [{"id": name, "prompt": prompt, "seed": 3} for name, prompt in prompts.items()]
    rows += [{"id": "karras", "prompt": "a beach", "seed": 3, "scheduler": "DPM++ 2M Karras"}]
    rows += [{"id": "mine", "prompt": "a beach", "seed": 3, "scheduler": "mine"}]
    entry = {
        "path": "builtin:tiny-random",
        "batch_size": 4,
        "prompt_weights": "compel",
        "long_prompt": "chunk",
        "embeddings": {"<toy>": str(folder / "toy.safetensors")},
        "schedulers": {"mine": {"class": "DPMSolverMultistepScheduler", "use_karras_sigmas": True}},
    }
    job = job_of(write_manifest(rows), models={"m": entry}, determinism="exact")
    sdbatch.run(job, in_process=True)
    made = {row["id"]: row for row in sdbatch.metadata(job["output"]).to_pylist()}

    assert {row["status"] for row in made.values()} == {"ok"}
    assert len({row["sha256"] for row in made.values()}) == 5
    assert made["karras"]["sha256"] == made["mine"]["sha256"]
    assert made["karras"]["request_key"] == made["mine"]["request_key"]
    said = {name: json.loads(row["recipe"]).keys() for name, row in made.items()}
    assert {name for name, keys in said.items() if "prompt_weights" in keys} == {"weighted"}
    assert {name for name, keys in said.items() if "embeddings" in keys} == {"word"}
    assert not any(row["prompt_truncated"] for row in made.values())
