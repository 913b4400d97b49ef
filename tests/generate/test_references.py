"""Reference pictures by IP-Adapters: each row has its own, and rows without one are the plain model's."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import long_but
from support.toy_models import make_tiny_controlnet, make_tiny_flux, make_tiny_sdxl
from support.toy_references import make_tiny_ip_adapter

from sdbatch.checkpoints import describe
from sdbatch.checkpoints.ip_adapters import num_cross_attentions
from sdbatch.errors import ModelError
from sdbatch.generate.batch import make_batch, set_threads
from sdbatch.generate.item import Item
from sdbatch.generate.load import LoadedModel, load_model
from sdbatch.generate.random_weights import make_tiny_random
from sdbatch.job import Model
from sdbatch.recipe import recipe_from

MAKERS = {"sd": make_tiny_random, "sdxl": make_tiny_sdxl, "flux": make_tiny_flux, "plus": make_tiny_random}
SIDES = {"sd": 32, "sdxl": 32, "flux": 32, "plus": 32}
Load = Callable[[str], tuple[LoadedModel, LoadedModel]]


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Return the folder of a tiny model and of its adapter, made once."""
    kept: dict[str, Path] = {}

    def make(kind: str) -> Path:
        if kind not in kept:
            import diffusers

            folder = kept[kind] = tmp_path_factory.mktemp(kind)
            MAKERS[kind](folder / "model")
            pipeline = diffusers.DiffusionPipeline.from_pretrained(folder / "model", local_files_only=True)
            denoiser = getattr(pipeline, "unet", None) or pipeline.transformer
            make_tiny_ip_adapter(folder / "adapter", denoiser, is_plus=kind == "plus")
        return kept[kind]

    return make


@pytest.fixture(scope="module")
def load(folders: Callable[[str], Path]) -> Load:
    """Return a tiny model without an adapter, and with one."""
    set_threads(1)
    kept: dict[str, tuple[LoadedModel, LoadedModel]] = {}

    def loaded(kind: str) -> tuple[LoadedModel, LoadedModel]:
        if kind not in kept:
            folder = folders(kind)
            entries = [entry_of(folder), entry_of(folder, ip_adapter={"path": str(folder / "adapter")})]
            plain, adapted = (
                load_model("m", entry, describe("m", entry, {}).combined_revision, {}) for entry in entries
            )
            kept[kind] = (plain, adapted)
        return kept[kind]

    return loaded


def entry_of(folder: Path, **components: Any) -> Model:
    """Return the job's entry of a tiny model."""
    return Model(path=str(folder / "model"), components=components)


def picture(side: int, turns: int = 0) -> Any:
    """Return a gradient, turned."""
    rows, columns = np.mgrid[0:side, 0:side] * 255 // side
    return np.ascontiguousarray(np.rot90(np.stack([rows, columns, 255 - rows], -1).astype(np.uint8), turns))


def item_of(kind: str, references: int = 1, turns: int = 0, task: str = "text-to-image", **changes: Any) -> Item:
    """Return an item with so many reference pictures."""
    side = SIDES[kind]
    values: dict[str, Any] = {
        "task": task,
        "prompt": "a beach",
        "height": side,
        "width": side,
        "num_inference_steps": 2,
        "guidance_scale": 4.0,
        "ip_adapter_images": ["sha256:00"] * references,
    }
    if kind == "flux":
        values["parameters"] = {"max_sequence_length": 32}
    images: tuple[Any, ...] = ()
    if task == "image-to-image":
        values |= {"images": ["sha256:01"], "strength": 0.9}
        images = (picture(side),)
    return Item(
        recipe=recipe_from({**values, **changes}),
        seed=1,
        images=images,
        ip_adapter_images=tuple(picture(64, turns + number) for number in range(references)),
    )


def pixels_of(model: LoadedModel, *items: Item) -> list[Any]:
    """Return the pixels of one call's rows."""
    return [output.frames_FHWC[0].astype(int) for output in make_batch(model, items, None).outputs]


def difference(one: Any, two: Any) -> int:
    """Return by how much two pictures differ, of 255."""
    return int(np.abs(one - two).max())


@pytest.mark.parametrize("kind", long_but({"plus", "flux"}, MAKERS))
def test_each_row_of_a_call_follows_its_own_reference_and_no_neighbours(kind: str, load: Load) -> None:
    _, model = load(kind)
    item, turned = item_of(kind), item_of(kind, turns=1)
    neighbour = replace(item_of(kind, turns=2), seed=7)
    first, other, _ = pixels_of(model, item, turned, neighbour)
    again, _, _ = pixels_of(model, item, neighbour, turned)
    alone, second_alone, _ = pixels_of(model, item, item, item)

    assert difference(first, other) > 2, "another reference moves nothing"
    assert difference(first, again) == 0, "the neighbours' references move it"
    assert difference(first, alone) == difference(alone, second_alone) == 0


@pytest.mark.parametrize("kind", long_but({"sd", "flux"}, MAKERS))
def test_a_row_without_reference_is_the_plain_model_s_before_and_after_one_with_it(kind: str, load: Load) -> None:
    plain, model = load(kind)
    without, item = item_of(kind, references=0), item_of(kind)
    (expected,) = pixels_of(plain, without)

    (before,) = pixels_of(model, without)
    (read,) = pixels_of(model, item)
    (after,) = pixels_of(model, without)

    assert difference(read, expected) > 2
    assert difference(before, expected) == difference(after, expected) == 0


@pytest.mark.parametrize("kind", ["sd", "flux"])
def test_scale_and_number_of_references_move_pixels_and_the_other_tasks_read_them_too(kind: str, load: Load) -> None:
    plain, model = load(kind)
    (full,) = pixels_of(model, item_of(kind))
    (half,) = pixels_of(model, item_of(kind, ip_adapter_scale=0.5))
    (nothing,) = pixels_of(model, item_of(kind, ip_adapter_scale=0.0))
    (two,) = pixels_of(model, item_of(kind, references=2))
    (expected,) = pixels_of(plain, item_of(kind, references=0))
    edits = [pixels_of(model, item_of(kind, task="image-to-image", turns=turns))[0] for turns in (0, 1)]

    assert min(difference(full, half), difference(full, two), difference(half, nothing)) > 2
    assert difference(nothing, expected) <= 1
    assert difference(*edits) > 2


def test_what_a_row_of_one_reference_gives_is_what_diffusers_gives(load: Load, folders: Callable[[str], Path]) -> None:
    import diffusers

    folder = folders("sd")
    pipeline = diffusers.DiffusionPipeline.from_pretrained(folder / "model", local_files_only=True)
    pipeline.load_ip_adapter(
        str(folder / "adapter"), subfolder="", weight_name="ip-adapter_tiny.safetensors", local_files_only=True
    )
    pipeline.set_ip_adapter_scale(0.7)
    pipeline.set_progress_bar_config(disable=True)
    item = item_of("sd", ip_adapter_scale=0.7)
    theirs = pipeline(
        "a beach",
        negative_prompt="",
        height=32,
        width=32,
        num_inference_steps=2,
        guidance_scale=4.0,
        ip_adapter_image=[picture(64)],
        generator=torch.Generator("cpu").manual_seed(1),
        output_type="np",
    ).images[0]

    (ours,) = pixels_of(load("sd")[1], item)
    assert difference(ours, np.round(theirs * 255).astype(int)) <= 1


def test_an_adapter_beside_a_controlnet_is_read_by_the_pipeline_of_both(
    folders: Callable[[str], Path], tmp_path: Path
) -> None:
    folder = folders("sd")
    make_tiny_controlnet(tmp_path / "net")
    entry = entry_of(folder, ip_adapter={"path": str(folder / "adapter")}, controlnet={"path": str(tmp_path / "net")})
    model = load_model("m", entry, describe("m", entry, {}).combined_revision, {})
    controls: dict[str, Any] = {"control_image": "sha256:02"}
    items = [
        replace(item_of("sd", turns=turns, **controls), control_image=(picture(32, control),))
        for turns, control in ((0, 0), (1, 0), (0, 1))
    ]

    one, other_reference, other_control = pixels_of(model, *items)
    assert min(difference(one, other_reference), difference(one, other_control)) > 2


def test_an_adapter_of_an_offloaded_model_gives_the_same_pixels(load: Load, folders: Callable[[str], Path]) -> None:
    folder = folders("sd")
    components: dict[str, Any] = {"ip_adapter": {"path": str(folder / "adapter")}}
    entry = Model(path=str(folder / "model"), components=components, offload="model")
    offloaded = load_model("m", entry, describe("m", entry, {}).combined_revision, {})
    item, without = item_of("sd"), item_of("sd", references=0)

    for one in (item, without, item):
        assert difference(pixels_of(offloaded, one)[0], pixels_of(load("sd")[1], one)[0]) == 0


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ({"compile": True}, "does not go with compile"),
        ({"offload": "group"}, "does not go with offload: group"),
        ({"layerwise_casting": "float8_e4m3fn"}, "does not go with layerwise_casting"),
        ({"quantize": {"unet": {"backend": "torchao", "type": "int8wo"}}}, "does not go with quantize.unet"),
    ],
)
def test_what_an_adapter_cannot_be_combined_with_is_refused_by_check(
    entry: dict[str, Any], message: str, folders: Callable[[str], Path]
) -> None:
    folder = folders("sd")
    adapter: dict[str, Any] = {"ip_adapter": {"path": str(folder / "adapter")}}
    model = Model(path=str(folder / "model"), components=adapter, **entry)

    with pytest.raises(ModelError, match=message):
        describe("m", model, {})


def test_weights_of_another_model_or_program_are_refused_by_check(
    folders: Callable[[str], Path], tmp_path: Path
) -> None:
    from safetensors.torch import load_file, save_file

    folder, other = folders("sd"), folders("sdxl")

    def told(path: Path, **more: Any) -> str:
        with pytest.raises(ModelError) as caught:
            describe("m", entry_of(folder, ip_adapter={"path": str(path), **more}), {})
        return str(caught.value)

    weights = load_file(folder / "adapter" / "ip-adapter_tiny.safetensors")
    assert "whose texts are 64 wide; those of this Stable Diffusion 1.x/2.x are 32" in told(other / "adapter")
    assert "no tensor begins with" in told(folder / "model" / "unet" / "diffusion_pytorch_model.safetensors")
    encoder = {"image_encoder": str(folder / "adapter" / "image_encoder")}
    (tmp_path / "face").mkdir()
    face = {key: tensor for key, tensor in weights.items() if key != "image_proj.proj.weight"}
    save_file(face, tmp_path / "face" / "a.safetensors")
    assert "is a Face ID adapter" in told(tmp_path / "face", **encoder)
    (tmp_path / "pickle").mkdir()
    (tmp_path / "pickle" / "ip-adapter.bin").write_bytes(b"never opened")
    assert "only ip-adapter.bin, which is a pickle and is never opened" in told(tmp_path / "pickle")
    save_file(face, tmp_path / "face" / "b.safetensors")
    assert "has 2 files of weights; name one: a.safetensors, b.safetensors" in told(tmp_path / "face")
    save_file(weights, tmp_path / "alone.safetensors")
    assert "image_encoder" in told(tmp_path / "alone.safetensors")
    described = describe("m", entry_of(folder, ip_adapter={"path": str(tmp_path / "alone.safetensors"), **encoder}), {})
    assert described.components == {"ip_adapter": "IPAdapter"}


@pytest.mark.parametrize(
    ("kind", "key"), [("sd", "projection_dim"), ("plus", "hidden_size"), ("flux", "projection_dim")]
)
def test_an_image_encoder_that_the_adapter_was_not_trained_with_is_refused_by_check(
    kind: str, key: str, folders: Callable[[str], Path], tmp_path: Path
) -> None:
    folder = folders(kind)
    encoder = Path(shutil.copytree(folder / "adapter" / "image_encoder", tmp_path / "image_encoder"))
    config = json.loads((encoder / "config.json").read_text())
    (encoder / "config.json").write_text(json.dumps({**config, key: 2 * config[key]}))

    entry = {"path": str(folder / "adapter"), "image_encoder": str(encoder)}
    said = (
        rf"reads embeddings {config[key]} wide .*, and those of the image encoder .* are {2 * config[key]} wide \({key}"
    )
    with pytest.raises(ModelError, match=said):
        describe("m", entry_of(folder, ip_adapter=entry), {})


@pytest.mark.parametrize("kind", ["sd", "sdxl", "flux"])
def test_an_adapter_of_a_model_with_more_or_fewer_attentions_is_refused_by_check(
    kind: str, folders: Callable[[str], Path], tmp_path: Path
) -> None:
    """They are laid in one after the other: of an adapter with more, the last would be left, and others misplaced."""
    from safetensors.torch import load_file, save_file

    folder = folders(kind)
    weights = load_file(folder / "adapter" / "ip-adapter_tiny.safetensors")
    part = "double_blocks." if kind == "flux" else "ip_adapter."
    number = max(int(key.split(".")[1]) for key in weights if key.startswith(part))
    step = 1 if kind == "flux" else 2
    of_last = {key: tensor for key, tensor in weights.items() if key.startswith(f"{part}{number}.")}
    fewer = {key: tensor for key, tensor in weights.items() if key not in of_last}
    further = {key.replace(f"{part}{number}.", f"{part}{number + step}."): tensor for key, tensor in of_last.items()}
    has = number // step + 1

    def told(tensors: dict[str, Any]) -> str:
        save_file({key: tensor.clone() for key, tensor in tensors.items()}, tmp_path / "a.safetensors")
        adapter = {"path": str(tmp_path / "a.safetensors"), "image_encoder": str(folder / "adapter" / "image_encoder")}
        with pytest.raises(ModelError) as caught:
            describe("m", entry_of(folder, ip_adapter=adapter), {})
        return str(caught.value)

    assert f"it has to_k for {has} of its {has} attentions and 1 more; name" in told({**weights, **further})
    assert "was made for another" in told({**fewer, "ip_adapter.99.a": weights[next(iter(of_last))]})


@pytest.mark.parametrize(
    "change",
    [
        {},
        {
            "transformer_layers_per_block": [1, [2, 2]],
            "reverse_transformer_layers_per_block": [[1, 2, 3], 1],
            "mid_block_type": None,
        },
        {"layers_per_block": [1, 2], "transformer_layers_per_block": [1, 3]},
    ],
)
def test_the_attentions_of_a_unet_are_counted_by_its_configuration(change: dict[str, Any]) -> None:
    import diffusers

    config: dict[str, Any] = {
        "block_out_channels": [32, 32],
        "down_block_types": ["DownBlock2D", "CrossAttnDownBlock2D"],
        "up_block_types": ["CrossAttnUpBlock2D", "UpBlock2D"],
        "cross_attention_dim": 8,
        "attention_head_dim": 8,
        "norm_num_groups": 8,
        **change,
    }
    with torch.device("meta"):
        unet = diffusers.UNet2DConditionModel(**config)

    assert num_cross_attentions(config) == sum("attn2" in name for name in unet.attn_processors)


def test_other_weights_or_another_encoder_is_another_adapter(folders: Callable[[str], Path], tmp_path: Path) -> None:
    folder = folders("sd")
    copy = tmp_path / "adapter"
    shutil.copytree(folder / "adapter", copy)

    def revision(path: Path) -> str:
        return describe("m", entry_of(folder, ip_adapter={"path": str(path)}), {}).component_revisions["ip_adapter"]

    first = revision(folder / "adapter")
    assert revision(copy) == first
    config = copy / "image_encoder" / "config.json"
    config.write_text(json.dumps({**json.loads(config.read_text()), "hidden_act": "gelu"}))
    assert revision(copy) != first
