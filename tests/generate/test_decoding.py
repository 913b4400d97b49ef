"""How a VAE decodes: in tiles where the recipe says so, in smaller parts where memory runs out."""

from __future__ import annotations

import gc
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from support.live_bytes import live_bytes
from support.resolved import rows_of
from support.revisions import PINNED
from support.studio import Case, Studio, base_row, difference

from sdbatch.checkpoints import describe
from sdbatch.checkpoints.entries import refuse_accelerators
from sdbatch.errors import ModelError
from sdbatch.families import FAMILIES
from sdbatch.generate.batch import make_batch, set_threads
from sdbatch.generate.item import Item
from sdbatch.generate.load import LoadedModel, load_model
from sdbatch.generate.random_weights import make_tiny_random
from sdbatch.job import Model, parse_job
from sdbatch.plan.resolve import Resolver
from sdbatch.recipe import recipe_from

COG = Case(model="cogvideox", task="text-to-video", row={"num_frames": 9})
ROW_BYTES = 4 * 32 * 32 * 4
"""What the decoder of the toy is given for a row."""

RECIPE = {
    "task": "text-to-image",
    "negative_prompt": "",
    "height": 64,
    "width": 64,
    "num_inference_steps": 2,
    "guidance_scale": 4.0,
}


@pytest.fixture(scope="module")
def sd_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    set_threads(1)
    folder = tmp_path_factory.mktemp("sd")
    make_tiny_random(folder)
    return folder


@pytest.fixture
def sd(sd_folder: Path) -> Callable[..., LoadedModel]:
    return lambda **options: load_model("sd", Model(path=str(sd_folder), revision=PINNED, **options), PINNED, {})


def _items(count: int = 4, **changes: Any) -> list[Item]:
    return [
        Item(recipe=recipe_from({**RECIPE, "prompt": f"a beach, {number}", **changes}), seed=number)
        for number in range(count)
    ]


def _pixels(model: LoadedModel, items: list[Item], pad_to: int | None = None) -> Any:
    return np.stack([output.frames_FHWC for output in make_batch(model, items, pad_to).outputs])


def _watched(model: LoadedModel, fails: Callable[[int], bool] = lambda _: False) -> list[int]:
    """Return the rows of each pass of the decoder, as they come; a pass that `fails` runs out of memory."""
    seen: list[int] = []

    def look(_: object, args: tuple[torch.Tensor, ...]) -> None:
        seen.append(len(args[0]))
        if fails(len(args[0])):
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB")

    model._base.vae.decoder.register_forward_pre_hook(look)
    return seen


@pytest.mark.parametrize(
    ("title", "size", "is_tiled"),
    [
        ("HunyuanVideo 1.5", (480, 848, 121), True),
        ("HunyuanVideo 1.5", (64, 64, 5), False),
        ("CogVideoX", (480, 720, 49), True),
        ("CogVideoX I2V", (480, 720, 49), True),
        ("CogVideoX", (64, 64, 9), False),
        ("Wan 2.1 T2V", (480, 832, 81), False),
        ("Stable Diffusion XL", (2048, 2048, 1), False),
    ],
)
def test_tiling_follows_from_family_and_size(title: str, size: tuple[int, int, int], is_tiled: bool) -> None:
    height, width, num_frames = size
    for tiling, expected in (("auto", is_tiled), (True, True), (False, False)):
        assert FAMILIES[title].is_tiled(tiling, height=height, width=width, num_frames=num_frames) is expected  # type: ignore[arg-type]


def test_families_whose_vae_cannot_tile_are_said_to_be_so(studio: Callable[[str], Studio]) -> None:
    for name, tiles in (("svd", False), ("cogvideox", True), ("hunyuan", True), ("wan-t2v", True), ("ltx", True)):
        made = studio(name)
        assert made.info.family.vae_tiles is hasattr(made.loaded._base.vae, "use_tiling") is tiles, name
    with pytest.raises(ModelError, match=r"models\.m\.vae\.tiling: the VAE of Stable Video Diffusion cannot decode in"):
        refuse_accelerators("m", Model(path="p", vae={"tiling": True}), FAMILIES["Stable Video Diffusion"])  # type: ignore[arg-type]


def _accelerators(determinism: str, vae: dict[str, Any], **row: Any) -> dict[str, Any]:
    model = {"path": "builtin:tiny-random", "batch_size": 2, "vae": vae}
    job = parse_job({"manifest": "m", "output": "o", "models": {"tiny": model}, "determinism": determinism})
    info = describe("tiny", job.models["tiny"], {})
    info = replace(info, family=replace(info.family, untiled_max=128 * 128))
    resolver = Resolver(job, {"tiny": info}, lambda _: None, lambda url: url)
    values = {"id": "a", "task": "text-to-image", "prompt": "p", **row}
    found, faults = resolver.resolve({name: [value] for name, value in values.items()}, 1, {})
    (resolved,) = rows_of(found, faults, 1)
    assert resolved is not None
    accelerators: dict[str, Any] = json.loads(resolved.recipe).get("accelerators", {})
    return accelerators


@pytest.mark.parametrize("determinism", ["fast", "exact"])
def test_the_recipe_holds_a_tiling_and_nothing_where_there_is_none(determinism: str) -> None:
    large = {"height": 256, "width": 256}
    assert _accelerators(determinism, {}) == {}
    assert _accelerators(determinism, {"tiling": False}, **large) == {}
    assert _accelerators(determinism, {}, **large) == {"vae": {"tiling": True}}
    assert _accelerators(determinism, {"tiling": True}) == {"vae": {"tiling": True}}
    parts = {"decode_batch": 1, "slicing": True} if determinism == "exact" else {}
    cut = _accelerators(determinism, {"decode_batch": 1, "slicing": True}, **large)
    assert cut == {"vae": {**parts, "tiling": True}}


def test_the_recipe_tiles_and_the_job_does_not(sd: Callable[..., LoadedModel]) -> None:
    model = sd(vae={"tiling": True})
    model._base.vae.tile_latent_min_size, model._base.vae.tile_sample_min_size = 16, 32
    passes = _watched(model)
    items = _items(1)
    tiled = [replace(item, recipe=replace(item.recipe, accelerators={"vae": {"tiling": True}})) for item in items]

    plain = _pixels(model, items)
    assert passes == [1]
    seams = _pixels(model, tiled)
    assert len(passes) - 1 > 1, "a tiled decode makes several passes"
    assert difference(plain, seams) > 0
    assert np.array_equal(plain, _pixels(model, items)), "the tiling outlives its call"
    assert model._base.vae.use_tiling is False


def test_a_source_that_was_encoded_whole_does_not_stand_for_one_in_tiles(sd: Callable[..., LoadedModel]) -> None:
    model = sd()
    model._base.vae.tile_sample_min_size, model._base.vae.tile_latent_min_size = 32, 16
    source = np.linspace(0, 255, 64 * 64 * 3).reshape(64, 64, 3).astype(np.uint8)
    (item,) = _items(1, task="image-to-image", images=["sha256:00"], strength=0.9)
    item = replace(item, images=(source,))
    tiled = replace(item, recipe=replace(item.recipe, accelerators={"vae": {"tiling": True}}))

    alone = _pixels(sd_like(model, sd), [tiled])
    _pixels(model, [item])
    assert np.array_equal(_pixels(model, [tiled]), alone)
    assert model.memo.sources_encoded == 2


def sd_like(model: LoadedModel, sd: Callable[..., LoadedModel]) -> LoadedModel:
    """Load a model anew, with the tiles of another one."""
    fresh = sd()
    for name in ("tile_sample_min_size", "tile_latent_min_size"):
        setattr(fresh._base.vae, name, getattr(model._base.vae, name))
    return fresh


@pytest.mark.parametrize(
    ("vae", "expected"),
    [({}, [4]), ({"decode_batch": 3}, [2, 2]), ({"decode_batch": 1}, [1] * 4), ({"slicing": True}, [1] * 4)],
)
def test_the_job_says_how_many_rows_are_decoded_at_once(
    vae: dict[str, Any], expected: list[int], sd: Callable[..., LoadedModel]
) -> None:
    model = sd(vae=vae)
    passes = _watched(model)
    plain = _pixels(sd(), _items())

    assert difference(plain, _pixels(model, _items())) <= 1
    assert passes == expected
    del passes[:]
    _pixels(model, _items(3), pad_to=4)
    assert passes == expected, "in exact all parts have one size"
    assert model._base.vae.use_slicing is False


def test_a_decoder_out_of_memory_goes_on_in_smaller_parts(sd: Callable[..., LoadedModel]) -> None:
    model, plain = sd(), _pixels(sd(), _items())
    alive: list[int] = []
    weights = frozenset(weight.untyped_storage().data_ptr() for weight in model._base.vae.parameters())

    def fails(rows: int) -> bool:
        gc.collect()
        alive.append(live_bytes(weights) - rows * ROW_BYTES)
        return rows > 1

    passes = _watched(model, fails)
    denoised: list[int] = []
    model._base.unet.register_forward_pre_hook(lambda _, args: denoised.append(len(args[0])))
    result = make_batch(model, _items(), None)

    assert passes == [4, 2, 1, 1, 1, 1]
    assert alive[0] == alive[1] == alive[2], "a failed try leaves tensors behind"
    assert denoised == [8, 8], "the denoised latents are kept"
    assert result.decode_retries == 2
    assert difference(plain, np.stack([output.frames_FHWC for output in result.outputs])) <= 1
    del passes[:]
    assert make_batch(model, _items(), None).decode_retries == 0
    assert passes == [1] * 4, "what did not fit is not tried again"
    del passes[:]
    _pixels(model, _items(height=32, width=32))
    assert passes[0] == 4, "another size is"


def test_a_clip_whose_pipeline_asks_for_an_object_goes_on_too(studio: Callable[[str], Studio]) -> None:
    made = studio("cogvideox")
    items = [made.item({**base_row(COG), "seed": seed}) for seed in (1, 2)]
    plain = _pixels(made.loaded, items)
    seen: list[int] = []

    def look(_: object, args: tuple[torch.Tensor, ...]) -> None:
        seen.append(len(args[0]))
        if len(args[0]) > 1:
            raise MemoryError

    hook = made.loaded._base.vae.decoder.register_forward_pre_hook(look)
    try:
        result = make_batch(made.loaded, items, None)
    finally:
        hook.remove()
        made.loaded._decoded_max.clear()
    assert (seen[0], set(seen[1:]), result.decode_retries) == (2, {1}, 1)
    assert difference(plain, np.stack([output.frames_FHWC for output in result.outputs])) <= 1


def test_in_exact_and_alone_a_row_fails_as_it_is(sd: Callable[..., LoadedModel]) -> None:
    model = sd()
    passes = _watched(model, lambda _: True)
    with pytest.raises(torch.OutOfMemoryError):
        make_batch(model, _items(), 4)
    assert passes == [4]
    with pytest.raises(torch.OutOfMemoryError):
        make_batch(model, _items(), None)
    assert passes == [4, 4, 2, 1]
