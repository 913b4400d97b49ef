"""Accelerators at work on real classes at toy size: each does what it says, and leaves nothing behind."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import support.toy_models
import torch
from conftest import long_but
from support.revisions import PINNED
from support.studio import Case, Studio, base_row, difference
from torch._inductor import config as inductor

from sdbatch.errors import ModelLoadFailed
from sdbatch.generate.accelerators import compile_counts
from sdbatch.generate.batch import make_batch, set_threads
from sdbatch.generate.item import Item
from sdbatch.generate.load import LoadedModel, load_model
from sdbatch.generate.random_weights import make_tiny_random
from sdbatch.job import Model, StepCache
from sdbatch.recipe import recipe_from

WAN = Case(model="wan-t2v", task="text-to-video")
LTX = Case(model="ltx", task="text-to-video", row={"num_frames": 9})
COG = Case(model="cogvideox", task="text-to-video", row={"num_frames": 9})
STEPS = 8
FIRST_BLOCK = StepCache(kind="FirstBlockCache", threshold=50.0)
MAG = StepCache(kind="MagCache", threshold=0.6, retention_ratio=0.1, mag_ratios=[1.0] * STEPS)
TAYLOR = StepCache(kind="TaylorSeerCache", cache_interval=3, disable_cache_before_step=1)


@pytest.fixture(scope="module")
def flux(tmp_path_factory: pytest.TempPathFactory) -> LoadedModel:
    set_threads(1)
    folder = tmp_path_factory.mktemp("flux")
    support.toy_models.make_tiny_flux(folder)
    return load_model("flux", Model(path=str(folder), revision=PINNED), PINNED, {})


@pytest.fixture(scope="module")
def sd_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    set_threads(1)
    folder = tmp_path_factory.mktemp("sd")
    make_tiny_random(folder)
    return folder


def _load(folder: Path, **options: Any) -> LoadedModel:
    return load_model("sd", Model(path=str(folder), revision=PINNED, **options), PINNED, {})


def _item(seed: int = 1, **changes: Any) -> Item:
    recipe = {
        "task": "text-to-image",
        "prompt": "a beach",
        "negative_prompt": "",
        "height": 64,
        "width": 64,
        "num_inference_steps": 4,
        "guidance_scale": 6.0,
        "parameters": {},
        **changes,
    }
    return Item(recipe=recipe_from(recipe), seed=seed)


def _flux_item(seed: int = 1) -> Item:
    item = _item(seed, num_inference_steps=STEPS, parameters={"max_sequence_length": 64})
    return replace(item, recipe=replace(item.recipe, negative_prompt=None))


def _pixels(model: LoadedModel, *items: Item) -> list[Any]:
    return [output.frames_FHWC for output in make_batch(model, items, None).outputs]


@pytest.mark.parametrize("cache", [FIRST_BLOCK, MAG, TAYLOR], ids=lambda cache: cache.kind)
def test_a_cache_of_steps_skips_something_of_pictures_and_leaves_nothing_behind(
    cache: StepCache, flux: LoadedModel
) -> None:
    _check_cache(flux, cache, [_flux_item(1), _flux_item(2)])


def test_a_text_encoder_in_host_memory_visits_the_device_for_new_texts_alone(sd_folder: Path) -> None:
    plain, model = _load(sd_folder), _load(sd_folder, offload_text_encoder=True)
    encoder: Any = model.pipeline(model.family.tasks["text-to-image"][0], "").text_encoder
    host = [parameter.data_ptr() for parameter in encoder.parameters()]
    visits: list[bool] = []
    encoder.embeddings.register_forward_hook(
        lambda *_: visits.append([parameter.data_ptr() for parameter in encoder.parameters()] != host)
    )
    made = [_pixels(model, _item(1), _item(2))[0], _pixels(model, _item(1))[0]]

    assert visits == [True, True]  # the prompt and the negative
    assert [parameter.data_ptr() for parameter in encoder.parameters()] == host
    assert np.array_equal(made[0], _pixels(plain, _item(1), _item(2))[0])
    assert difference(made[0], made[1]) <= 1


@pytest.mark.parametrize(
    ("case", "cache"),
    long_but(
        [(WAN, MAG), (LTX, FIRST_BLOCK), (COG, MAG)],
        [(WAN, FIRST_BLOCK), (WAN, MAG), (LTX, FIRST_BLOCK), (LTX, MAG), (COG, FIRST_BLOCK), (COG, MAG)],
    ),
    ids=lambda value: value.kind if isinstance(value, StepCache) else value.model,
)
def test_a_cache_of_steps_skips_something_of_clips_and_leaves_nothing_behind(
    case: Case, cache: StepCache, studio: Callable[[str], Studio]
) -> None:
    made = studio(case.model)
    row = {**base_row(case), "num_inference_steps": STEPS}
    _check_cache(made.loaded, cache, [made.item(row), made.item({**row, "seed": 2})])


def _check_cache(model: LoadedModel, cache: StepCache, items: list[Item]) -> None:
    plain = _pixels(model, *items)
    before, size = model.options, 1 if cache.kind == "FirstBlockCache" else 2
    model.options = before.model_copy(update={"step_cache": cache})
    try:
        first, again = (_pixels(model, *items[:size])[0] for _ in range(2))
        alone = _pixels(model, items[0])[0]
    finally:
        model.options = before

    assert difference(first, plain[0]) > 2, "nothing was skipped"
    assert np.array_equal(first, again), "a call finds what another one cached"
    assert difference(first, alone) <= 1, "its neighbours move it"
    assert np.array_equal(_pixels(model, *items)[0], plain[0]), "the cache outlives its call"


def _seen_rows(model: LoadedModel, interval: tuple[float, float] | None, items: list[Item]) -> tuple[Any, int]:
    """Return the first item's pixels and how many rows the denoiser's blocks saw in all steps."""
    pipeline: Any = model.pipeline(model.family.route_of(items[0].recipe), "")
    denoiser = getattr(pipeline, model.family.denoiser)
    inner = next(part for name, part in denoiser.named_modules() if name in {"conv_in", "proj_in", "patch_embedding"})
    seen: list[int] = []
    hook = inner.register_forward_hook(lambda _module, inputs, _output: seen.append(len(inputs[0])))
    before = model.options
    model.options = before.model_copy(update={"guidance_interval": interval})
    try:
        return _pixels(model, *items)[0], sum(seen)
    finally:
        hook.remove()
        model.options = before


def _check_interval(model: LoadedModel, items: list[Item], unguided: list[Item]) -> None:
    plain, all_rows = _seen_rows(model, None, items)
    whole, _ = _seen_rows(model, (0.0, 1.0), items)
    part, part_rows = _seen_rows(model, (0.25, 0.75), items)
    none, none_rows = _seen_rows(model, (0.99, 1.0), items)  # of 4 steps, none

    assert np.array_equal(plain, whole)
    assert difference(part, plain) > 0
    assert (part_rows, none_rows) == (all_rows * 3 // 4, all_rows // 2)
    assert difference(none, _pixels(model, *unguided)[0]) <= 1


def test_pictures_are_guided_in_the_steps_of_the_interval_alone(sd_folder: Path) -> None:
    items = [_item(1), _item(2, guidance_scale=9.0)]
    _check_interval(_load(sd_folder), items, [_item(seed, guidance_scale=1.0) for seed in (1, 2)])


@pytest.mark.parametrize("case", [WAN, LTX], ids=lambda case: case.model)
def test_clips_are_guided_in_the_steps_of_the_interval_alone(case: Case, studio: Callable[[str], Studio]) -> None:
    made = studio(case.model)
    row = {**base_row(case), "num_inference_steps": 4, "guidance_scale": 6.0}
    _check_interval(made.loaded, [made.item(row)], [made.item({**row, "guidance_scale": 1.0})])


def test_weights_are_stored_in_eight_bits_and_the_pictures_are_near(sd_folder: Path) -> None:
    plain, small = _load(sd_folder), _load(sd_folder, layerwise_casting="float8_e4m3fn")
    pipeline: Any = small.pipeline(small.family.tasks["text-to-image"][0], "")

    assert torch.float8_e4m3fn in {parameter.dtype for parameter in pipeline.unet.parameters()}
    assert 0 < difference(_pixels(plain, _item())[0], _pixels(small, _item())[0]) < 128


def test_another_memory_format_and_attention_move_the_last_bits_at_most(sd_folder: Path, flux: LoadedModel) -> None:
    last = _load(sd_folder, channels_last=True)
    pipeline: Any = last.pipeline(last.family.tasks["text-to-image"][0], "")
    assert pipeline.unet.conv_in.weight.is_contiguous(memory_format=torch.channels_last)
    assert difference(_pixels(_load(sd_folder), _item())[0], _pixels(last, _item())[0]) <= 1

    plain = _pixels(flux, _flux_item())[0]
    flux.options = flux.options.model_copy(update={"attention_backend": "_native_math"})
    assert difference(plain, _pixels(flux, _flux_item())[0]) <= 1
    flux.options = flux.options.model_copy(update={"attention_backend": None})


def test_a_machine_without_a_compiler_says_so(sd_folder: Path) -> None:
    with (
        inductor.patch({"cpp.cxx": ("no-such-compiler",)}),
        pytest.raises(ModelLoadFailed, match=r"compile: true needs a C\+\+ compiler"),
    ):
        _load(sd_folder, compile=True)


def test_a_call_says_how_often_torch_gave_up_compiling(sd_folder: Path) -> None:
    model = _load(sd_folder)
    assert make_batch(model, [_item()], None).recompile_limits == 0
    torch._dynamo.reset()

    @torch.compile(backend="eager", dynamic=False)
    def grown(rows: int, value: torch.Tensor) -> torch.Tensor:
        return value + rows

    shapes = iter(range(1, 100))

    def grow(*_: object) -> None:
        grown(1, torch.ones(next(shapes)))

    hook = model._base.unet.register_forward_pre_hook(grow)
    with torch._dynamo.config.patch(recompile_limit=2):
        assert make_batch(model, [_item()], None).recompile_limits == 1
    hook.remove()


def test_compiled_whole_the_denoiser_is_one_graph_and_so_is_the_decoder(
    sd_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Dynamo traces as ever; what it traced is run as it is, since Inductor takes a minute for it.
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend="eager"))
    torch._dynamo.reset()
    counted = torch._dynamo.utils.counters
    counted.clear()
    plain = _pixels(_load(sd_folder), _item())[0]
    assert counted["stats"]["unique_graphs"] == 0

    made = _pixels(_load(sd_folder, compile="whole"), _item())[0]

    assert counted["stats"]["unique_graphs"] == 2
    assert not counted["graph_break"]
    assert difference(plain, made) <= 1
    torch._dynamo.reset()


@pytest.mark.long
def test_blocks_are_compiled_once_and_found_again(
    studio: Callable[[str], Studio], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path))  # nothing in it, whatever ran before
    made = studio("wan-t2v")
    row = {**base_row(WAN), "num_frames": 1, "height": 32, "width": 32}
    plain = made.make(row)[0]
    options = Model(path=made.info.path, revision=PINNED, compile=True)
    before = compile_counts()
    counts = []
    for _ in range(2):
        torch._dynamo.reset()  # as in another process
        loaded = load_model("wan", options, PINNED, {})
        pixels = make_batch(loaded, [made.item(row)], None).outputs[0].frames_FHWC
        assert difference(plain, pixels) <= 1
        after = compile_counts()
        counts.append({name: after[name] - before[name] for name in after})
        before = after

    assert counts[0]["compiled"] == counts[1]["found"] == 1
    assert counts[1]["compiled"] == 0


@pytest.mark.fault(
    "A12", "an attention backend without its package", "the model is refused at its load; no row is blamed"
)
def test_a_backend_that_is_not_here_refuses_the_model_and_no_row(flux: LoadedModel) -> None:
    from sdbatch.generate.accelerators import accelerate

    options = flux.options.model_copy(update={"attention_backend": "sage"})
    with pytest.raises(
        ModelLoadFailed, match=r"attention_backend: sage cannot be used on this machine: .*sageattention"
    ):
        accelerate(flux._base, flux.family, options, "cpu")
