"""Several ControlNets, and one that reads several pictures: each is felt, by its own row and at its own scale."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from support.toy_controlnets import (
    make_tiny_flux_controlnet,
    make_tiny_qwen_controlnet,
    make_tiny_sd3_controlnet,
    make_tiny_union_controlnet,
)
from support.toy_models import (
    make_tiny_controlnet,
    make_tiny_flux,
    make_tiny_qwen,
    make_tiny_sd3,
    make_tiny_sdxl,
    make_tiny_xl_controlnet,
)

from sdbatch.checkpoints import describe
from sdbatch.generate.batch import make_batch, set_threads
from sdbatch.generate.item import Item
from sdbatch.generate.load import LoadedModel, load_model
from sdbatch.generate.random_weights import make_tiny_random
from sdbatch.job import Model
from sdbatch.recipe import recipe_from

Make = Callable[[Path], None]
KINDS: Mapping[str, tuple[Make, Make, int]] = {
    "sd": (make_tiny_random, make_tiny_controlnet, 2),
    "sdxl": (make_tiny_sdxl, make_tiny_xl_controlnet, 2),
    "flux": (make_tiny_flux, make_tiny_flux_controlnet, 2),
    "sd3": (make_tiny_sd3, make_tiny_sd3_controlnet, 2),
    "union": (make_tiny_sdxl, make_tiny_union_controlnet, 1),
    "qwen": (make_tiny_qwen, make_tiny_qwen_controlnet, 1),
}
"""Makers of a model and of a ControlNet, and how many of the latter the model's entry names for two pictures."""

SIDE = {"sd": 32, "sdxl": 32, "union": 32, "flux": 64, "sd3": 64, "qwen": 64}
Load = Callable[[str], LoadedModel]


@pytest.fixture(scope="module")
def load(tmp_path_factory: pytest.TempPathFactory) -> Load:
    """Return a tiny model with its ControlNets, loaded once."""
    set_threads(1)
    kept: dict[str, LoadedModel] = {}

    def loaded(kind: str) -> LoadedModel:
        if kind not in kept:
            folder = tmp_path_factory.mktemp(kind)
            make_model, make_net, count = KINDS[kind]
            make_model(folder / "model")
            make_net(folder / "net")
            entry = Model.model_validate({"path": str(folder / "model"), "controlnet": [str(folder / "net")] * count})
            kept[kind] = load_model("m", entry, describe("m", entry, {}).combined_revision, {})
        return kept[kind]

    return loaded


def lines(side: int, turns: int) -> Any:
    """Return a picture of a gradient, turned."""
    rows, columns = np.mgrid[0:side, 0:side] * 255 // side
    return np.ascontiguousarray(np.rot90(np.stack([rows, columns, 255 - rows], -1).astype(np.uint8), turns))


def item_of(kind: str, controls: tuple[int, ...] = (0, 1), task: str = "text-to-image", **parameters: Any) -> Item:
    """Return an item with control pictures, each by its turns."""
    side = SIDE[kind]
    pipelines = {"union": "StableDiffusionXLControlNetUnionPipeline"}
    if kind == "union":
        parameters = {"control_mode": [0, 3], **parameters}
    values: dict[str, Any] = {
        "task": task,
        "route": pipelines.get(kind, "") if task == "text-to-image" else "",
        "prompt": "a beach",
        "height": side,
        "width": side,
        "num_inference_steps": 2,
        "guidance_scale": 4.0,
        "control_image": [f"sha256:0{turns}" for turns in controls],
        "parameters": parameters,
    }
    images: tuple[Any, ...] = ()
    mask = None
    if task != "text-to-image":
        values |= {"images": ["sha256:09"], "strength": 0.9}
        images = (lines(side, 3),)
    if task == "inpainting":
        values |= {"mask": "sha256:08"}
        mask = np.full((side, side), 255, np.uint8)
    pictures = tuple(lines(side, turns) for turns in controls)
    return Item(recipe=recipe_from(values), seed=1, images=images, mask=mask, control_image=pictures)


def pixels_of(model: LoadedModel, *items: Item) -> list[Any]:
    """Return the pixels of some rows: of one call, or of a call each where the route takes one row."""
    rows = model.family.route_of(items[0].recipe).rows
    calls = [[item] for item in items] if rows == "single" else [list(items)]
    return [output.frames_FHWC[0].astype(int) for call in calls for output in make_batch(model, call, None).outputs]


def difference(one: Any, two: Any) -> int:
    """Return by how much two pictures differ, of 255."""
    return int(np.abs(one - two).max())


@pytest.mark.parametrize("kind", KINDS)
def test_each_of_two_control_pictures_moves_its_own_row_alone(kind: str, load: Load) -> None:
    model = load(kind)
    item, first, second = item_of(kind), item_of(kind, (2, 1)), item_of(kind, (0, 3))
    one, by_first, by_second = pixels_of(model, item, first, second)
    again, _, _ = pixels_of(model, item, second, replace(first, seed=5))

    assert difference(one, by_first) > 2, "another first picture moves nothing"
    assert difference(one, by_second) > 2, "another second picture moves nothing"
    assert difference(one, again) <= (1 if kind == "qwen" else 0), "a neighbour's pictures move it"


@pytest.mark.parametrize("kind", ["sd", "flux", "union", "qwen"])
def test_each_control_picture_has_a_scale_of_its_own(kind: str, load: Load) -> None:
    model = load(kind)

    def scaled(*scales: float, controls: tuple[int, int] = (0, 1)) -> Any:
        value = list(scales) if len(scales) > 1 else scales[0]
        return pixels_of(model, item_of(kind, controls, controlnet_conditioning_scale=value))[0]

    assert difference(scaled(0.5), scaled(0.5, 0.5)) == 0
    assert min(difference(scaled(1.0, 0.2), scaled(0.2, 1.0)), difference(scaled(1.0), scaled(0.5))) > 0
    if kind != "union":  # there the pictures are read together, whatever their scales
        assert difference(scaled(1.0, 0.0, controls=(0, 1)), scaled(1.0, 0.0, controls=(0, 3))) == 0


@pytest.mark.parametrize("kind", ["sd", "sdxl", "flux"])
def test_several_controlnets_lead_an_edit_too(kind: str, load: Load) -> None:
    model = load(kind)
    task = "image-to-image"
    items = [item_of(kind, turns, task) for turns in ((0, 1), (2, 1), (0, 3))]
    one, by_first, by_second = pixels_of(model, *items)

    assert min(difference(one, by_first), difference(one, by_second)) > 2


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        ("sd", {}),
        ("sdxl", {}),
        ("union", {"control_mode": [0, 3]}),
        ("flux", {"controlnet_conditioning_scale": [1.0, 1.0]}),
        ("sd3", {"controlnet_conditioning_scale": [1.0, 1.0]}),
        ("qwen", {"controlnet_conditioning_scale": [1.0, 1.0]}),
    ],
)
def test_two_pictures_are_what_diffusers_makes_of_lists(kind: str, said: Mapping[str, Any], load: Load) -> None:
    """Where the VAE encodes a tensor it is in -1..1, as diffusers makes it of a picture."""
    model = load(kind)
    item = item_of(kind)
    route = model.family.route_of(item.recipe)
    pipeline = model.pipeline(route, "")
    negative = {} if route.negative_needs or route.empty_negative_differs else {"negative_prompt": ""}
    torch.manual_seed(1)  # Stable Diffusion 3 samples what the VAE makes of a control picture without a generator
    theirs = pipeline(
        "a beach",
        **negative,
        **{route.arguments["control_image"]: [Image.fromarray(pixels) for pixels in item.control_image]},
        **{route.arguments["guidance_scale"]: 4.0},
        **said,
        height=SIDE[kind],
        width=SIDE[kind],
        num_inference_steps=2,
        generator=torch.Generator("cpu").manual_seed(1),
        output_type="np",
    ).images[0]

    assert difference(pixels_of(model, item)[0], np.round(theirs * 255).astype(int)) <= 1


@pytest.mark.parametrize("count", [1, 2])
@pytest.mark.parametrize("task", ["text-to-image", "image-to-image", "inpainting"])
def test_rows_of_a_call_are_led_by_a_controlnet_of_many_kinds(task: str, count: int, tmp_path: Path) -> None:
    """From a picture Flux's pipelines give its ControlNets one kind for all rows of the call."""
    make_tiny_flux(tmp_path / "model")
    make_tiny_flux_controlnet(tmp_path / "net", num_kinds=4)
    entry = Model.model_validate({"path": str(tmp_path / "model"), "controlnet": [str(tmp_path / "net")] * count})
    model = load_model("m", entry, describe("m", entry, {}).combined_revision, {})

    def item(kinds: list[int], seed: int) -> Item:
        kind: Any = kinds[:count] if count > 1 else kinds[0]
        return replace(item_of("flux", (0, 1)[:count], task, control_mode=kind), seed=seed)

    items = [item([1, 3], 1), item([1, 3], 2)]
    together, alone = pixels_of(model, *items), [pixels_of(model, one)[0] for one in items]
    assert all(difference(*pair) <= 1 for pair in zip(together, alone, strict=True))
    assert difference(*together) > 2
    assert difference(pixels_of(model, item([0, 2], 1))[0], alone[0]) > 0, "another kind moves nothing"


def test_what_a_controlnet_s_file_says_of_its_kinds_is_known_before_anything_is_loaded(tmp_path: Path) -> None:
    make_tiny_sdxl(tmp_path / "model")
    make_tiny_union_controlnet(tmp_path / "net")
    entry = Model.model_validate({"path": str(tmp_path / "model"), "controlnet": str(tmp_path / "net")})

    assert describe("m", entry, {}).net_configs["controlnet"]["num_control_type"] == 6
