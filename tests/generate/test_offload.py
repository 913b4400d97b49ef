"""Offloading: the same pixels, nothing left behind, and weights that are stored in 8 bits before they are placed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import support.toy_models
import torch
from conftest import long_but
from diffusers.hooks.group_offloading import _is_group_offload_enabled
from support.revisions import PINNED
from support.studio import Case, Studio, base_row
from support.toy_clips import make_wan_t2v_a14b
from support.toy_models import make_tiny_flux, make_tiny_lora
from support.toy_parts import loaded, make_gguf, pixels_of

from sdbatch.checkpoints import describe, describe_lora
from sdbatch.errors import JobError, ModelError
from sdbatch.generate.batch import make_batch, set_threads
from sdbatch.generate.item import Item
from sdbatch.generate.load import LoadedModel, load_model
from sdbatch.generate.random_weights import make_tiny_random
from sdbatch.job import Lora, Model, parse_job
from sdbatch.recipe import recipe_from

RECIPE = {
    "task": "text-to-image",
    "prompt": "a beach",
    "height": 64,
    "width": 64,
    "num_inference_steps": 2,
    "guidance_scale": 4.0,
}
MAKERS: dict[str, Callable[[Path], None]] = {
    "sd": make_tiny_random,
    "flux": support.toy_models.make_tiny_flux,
}
CLIPS = ("wan-t2v",)
SOURCE = np.linspace(0, 255, 64 * 64 * 3).reshape(64, 64, 3).astype(np.uint8)


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    set_threads(1)
    made = {name: tmp_path_factory.mktemp(name) for name in MAKERS}
    for name, folder in made.items():
        MAKERS[name](folder)
    return made


def _load(folder: Path | str, loras: dict[str, Lora] | None = None, **options: Any) -> LoadedModel:
    return load_model("m", Model(path=str(folder), revision=PINNED, **options), PINNED, {}, loras)


def _items(**changes: Any) -> list[Item]:
    images = (SOURCE,) if "images" in changes else ()
    return [Item(recipe=recipe_from({**RECIPE, **changes}), seed=seed, images=images) for seed in (1, 2)]


def _pixels(model: LoadedModel, items: list[Item]) -> Any:
    return np.stack([output.frames_FHWC for output in make_batch(model, items, None).outputs])


@pytest.mark.parametrize("offload", ["model", "group"])
@pytest.mark.parametrize("name", MAKERS)
def test_an_offloaded_model_makes_the_same_pixels(name: str, offload: str, folders: dict[str, Path]) -> None:
    edit = {"task": "image-to-image", "images": ["sha256:00"], "strength": 0.9}
    calls = [_items(), _items(**edit), _items(prompt="a fox"), _items()]
    plain, moved = _load(folders[name]), _load(folders[name], offload=offload)
    base: Any = moved._base
    denoiser = getattr(base, moved.family.denoiser)

    assert _is_group_offload_enabled(denoiser) is _is_group_offload_enabled(base.text_encoder) is (offload == "group")
    assert not _is_group_offload_enabled(base.vae), "an encoder and a decoder have no order of layers"
    visits: list[str] = []
    if offload == "model":
        _count_visits(moved, visits)
    for items in calls:
        assert np.array_equal(_pixels(plain, items), _pixels(moved, items))
    if offload == "model":
        assert hasattr(denoiser, "_hf_hook")
        assert set(visits) >= {"text_encoder", moved.family.denoiser, "vae"}


def _count_visits(model: LoadedModel, visits: list[str]) -> None:
    """Note each module that a hook brings to the device."""
    base: Any = model._base
    assert model._offload is not None
    model._offload.hook(base)
    for name, module in base.components.items():
        if hasattr(module, "_hf_hook"):
            hook = module._hf_hook
            before = hook.pre_forward

            def noted(module: Any, *args: Any, _name: str = name, _before: Any = before, **kwargs: Any) -> Any:
                visits.append(_name)
                return _before(module, *args, **kwargs)

            hook.pre_forward = noted


@pytest.mark.parametrize("offload", ["model", "group"])
def test_an_offloaded_gguf_makes_the_same_pixels(offload: str, tmp_path: Path) -> None:
    flux = tmp_path / "flux"
    make_tiny_flux(flux)
    file = make_gguf(flux / "transformer" / "diffusion_pytorch_model.safetensors", tmp_path / "t.gguf")
    entry = {"path": str(flux), "components": {"transformer": {"path": str(file)}}}

    moved = loaded({**entry, "offload": offload})
    assert _is_group_offload_enabled(moved._base.transformer) is (offload == "group")
    assert np.array_equal(pixels_of(loaded(entry)), pixels_of(moved))


def test_both_experts_of_wan_from_gguf_make_the_same_pixels_layer_by_layer(tmp_path: Path) -> None:
    wan = tmp_path / "wan"
    make_wan_t2v_a14b(wan)
    experts = {
        name: str(make_gguf(wan / name / "diffusion_pytorch_model.safetensors", tmp_path / f"{name}.gguf", "wan"))
        for name in ("transformer", "transformer_2")
    }
    entry = {"path": str(wan), "components": experts}

    moved = loaded({**entry, "offload": "group"})
    assert all(_is_group_offload_enabled(getattr(moved._base, name)) for name in experts)
    assert np.array_equal(pixels_of(loaded(entry), num_frames=5), pixels_of(moved, num_frames=5))


@pytest.mark.parametrize("backend", ["torchao", "quanto"])
def test_layers_within_layers_are_not_offloaded_one_by_one(backend: str, tmp_path: Path) -> None:
    """On an H200 such a row failed amid its call."""
    make_tiny_flux(tmp_path)
    kind = {"torchao": "int8wo", "quanto": "int8"}[backend]
    entry = {"path": str(tmp_path), "quantize": {"transformer": {"backend": backend, "type": kind}}, "offload": "group"}
    with pytest.raises(
        ModelError, match=rf"models\.m\.offload: group .* of transformer, quantised by {backend}; .* GGUF"
    ):
        describe("m", Model.model_validate(entry), {})

    on_cpu = loaded({**entry, "num_gpus": 0})  # on a CPU nothing is brought anywhere
    assert np.array_equal(pixels_of(on_cpu), pixels_of(loaded({**entry, "num_gpus": 0, "offload": "none"})))
    describe("m", Model.model_validate({**entry, "offload": "model"}), {})


@pytest.mark.parametrize("name", CLIPS)
def test_clips_are_the_same_where_layers_visit(name: str, studio: Callable[[str], Studio]) -> None:
    made = studio(name)
    case = Case(model=name, task="text-to-video", row={"num_frames": 9})
    items = [made.item(base_row(case))]
    plain = _pixels(made.loaded, items)
    for offload in ("group", "model"):
        assert np.array_equal(plain, _pixels(_load(made.info.path, offload=offload), items))


@pytest.mark.parametrize("offload", ["model", "group"])
def test_a_call_that_fails_leaves_an_offloaded_model_usable(offload: str, folders: dict[str, Path]) -> None:
    model = _load(folders["sd"], offload=offload)
    plain = _pixels(model, _items())
    base: Any = model._base
    hooks, taken_back = list(getattr(base, "_all_hooks", ())), []
    for one in hooks:
        one.offload = lambda one=one: taken_back.append(one)
    hook = model._base.unet.register_forward_pre_hook(lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        _pixels(model, _items(prompt="a fox"))
    hook.remove()
    assert taken_back == hooks, "modules of a failed call stay on the device"

    assert np.array_equal(plain, _pixels(model, _items()))
    assert taken_back == 2 * hooks
    assert list(getattr(base, "_all_hooks", ())) == hooks, "new hooks would drop what stands in the place of a forward"
    assert "maybe_free_model_hooks" not in vars(model._base)


@pytest.mark.parametrize("offload", long_but({"group"}, ["model", "group"]))
def test_a_lora_fits_an_offloaded_model(offload: str, tmp_path: Path) -> None:
    make_tiny_lora(tmp_path, 0)
    lora = Lora(path=str(tmp_path), base="StableDiffusionPipeline")
    loras, identity = {"ink": lora}, describe_lora("ink", lora, {}).revision
    plain = load_model("m", Model(path="builtin:tiny-random", revision=PINNED), PINNED, {}, loras)
    options = Model(path="builtin:tiny-random", revision=PINNED, offload=offload)  # type: ignore[arg-type]
    moved = load_model("m", options, PINNED, {}, loras)
    inked = _items(loras=[[identity, 0.8]])

    for items in (_items(), inked, _items()):
        assert np.array_equal(_pixels(plain, items), _pixels(moved, items))
    assert not np.array_equal(_pixels(plain, inked), _pixels(plain, _items()))


def test_weights_are_stored_in_8_bits_before_they_are_placed(
    folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    from diffusers import UNet2DConditionModel

    placed: list[set[torch.dtype]] = []
    place = UNet2DConditionModel.to

    def note(module: Any, *args: Any, **kwargs: Any) -> Any:
        if args == ("cpu",):
            placed.append({weight.dtype for weight in module.parameters()})
        return place(module, *args, **kwargs)

    monkeypatch.setattr(UNet2DConditionModel, "to", note)
    model = _load(folders["sd"], layerwise_casting="float8_e4m3fn")
    assert placed
    assert all(torch.float8_e4m3fn in dtypes for dtypes in placed)
    for offload in ("group", "model"):
        moved = _load(folders["sd"], layerwise_casting="float8_e4m3fn", offload=offload)
        assert np.array_equal(_pixels(model, _items()), _pixels(moved, _items()))


def test_weights_that_are_quantised_are_not_cast() -> None:
    options = {"layerwise_casting": "float8_e4m3fn", "quantize": {"unet": {"backend": "torchao", "type": "int8wo"}}}
    with pytest.raises(JobError, match=r"layerwise_casting beside quantize\.unet"):
        parse_job({"manifest": "m", "output": "o", "models": {"m": {"path": "p", **options}}})


@pytest.mark.parametrize(
    ("options", "device"),
    [({}, "cpu"), ({"offload": "group"}, None), ({"layerwise_casting": "float8_e4m3fn"}, None)],
    ids=str,
)
def test_a_model_is_read_module_by_module_to_its_device(
    options: dict[str, Any], device: str | None, folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    from diffusers.pipelines import pipeline_utils

    asked: list[Any] = []
    load = pipeline_utils.load_sub_model

    def note(**arguments: Any) -> Any:
        asked.append(arguments["device_map"])
        return load(**arguments)

    monkeypatch.setattr(pipeline_utils, "load_sub_model", note)
    model = _load(folders["sd"], **options)
    assert set(asked) == {device}
    assert not any(hasattr(module, "_hf_hook") for module in model._base.unet.modules())
