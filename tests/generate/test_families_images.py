"""Every image family's real classes at toy size: what a row's pixels depend on, and what they do not."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import diffusers
import numpy as np
import pytest
import support.toy_controlnets
import support.toy_models
import support.toy_newer
import torch
from conftest import long_but
from PIL import Image
from support.revisions import PINNED

from sdbatch.families import FAMILIES, Family, Route
from sdbatch.families.schedulers import FLOW_SCHEDULERS, TAKE_SIGMAS
from sdbatch.generate.batch import make_batch, set_threads
from sdbatch.generate.item import Item
from sdbatch.generate.load import LoadedModel, load_model
from sdbatch.generate.random_weights import make_tiny_random
from sdbatch.job import Model
from sdbatch.recipe import recipe_from

Pixels = np.ndarray[Any, np.dtype[np.uint8]]
MAKERS: Mapping[str, Callable[[Path], None]] = {
    "Stable Diffusion 1.x/2.x": make_tiny_random,
    "Stable Diffusion XL": support.toy_models.make_tiny_sdxl,
    "Stable Diffusion XL Refiner": support.toy_models.make_tiny_xl_refiner,
    "Stable Diffusion 3/3.5": support.toy_models.make_tiny_sd3,
    "Flux.1": support.toy_models.make_tiny_flux,
    "Flux.1 Kontext": support.toy_models.make_tiny_kontext,
    "Flux.1 Fill": support.toy_models.make_tiny_fill,
    "Chroma": support.toy_models.make_tiny_chroma,
    "Flux.2 dev": support.toy_models.make_tiny_flux2,
    "Flux.2 Klein": support.toy_models.make_tiny_klein,
    "Qwen-Image": support.toy_models.make_tiny_qwen,
    "Qwen-Image 2.1": support.toy_newer.make_tiny_qwen_2,
    "Z-Image": support.toy_models.make_tiny_zimage,
    "HunyuanImage 2.1": support.toy_newer.make_tiny_hunyuan_image,
    "HunyuanImage 2.1 distilled": partial(support.toy_newer.make_tiny_hunyuan_image, is_distilled=True),
    "HiDream-I1": support.toy_newer.make_tiny_hidream,
    "Kandinsky 5 T2I": support.toy_newer.make_tiny_kandinsky,
    "Kandinsky 5 I2I": partial(support.toy_newer.make_tiny_kandinsky, pipeline="Kandinsky5I2IPipeline"),
    "Sana": support.toy_models.make_tiny_sana,
    "AuraFlow": partial(support.toy_newer.make_tiny_aura_flow, positions=64),
    "AuraFlow 0.3": support.toy_newer.make_tiny_aura_flow,
}
CONTROLNETS: Mapping[tuple[str, str], Callable[[Path], None]] = {
    ("Stable Diffusion 1.x/2.x", "ControlNetModel"): support.toy_models.make_tiny_controlnet,
    ("Stable Diffusion XL", "ControlNetModel"): support.toy_models.make_tiny_xl_controlnet,
    ("Stable Diffusion XL", "ControlNetUnionModel"): support.toy_controlnets.make_tiny_union_controlnet,
    ("Stable Diffusion 3/3.5", "SD3ControlNetModel"): support.toy_controlnets.make_tiny_sd3_controlnet,
    ("Flux.1", "FluxControlNetModel"): support.toy_controlnets.make_tiny_flux_controlnet,
    ("Stable Diffusion 3/3.5", "SD3ControlNetModel with a mask"): partial(
        support.toy_controlnets.make_tiny_sd3_controlnet, mask_channels=1
    ),
    ("Qwen-Image", "QwenImageControlNetModel"): support.toy_controlnets.make_tiny_qwen_controlnet,
    ("Qwen-Image", "QwenImageControlNetModel with a mask"): partial(
        support.toy_controlnets.make_tiny_qwen_controlnet, mask_channels=4
    ),
    ("Z-Image", "ZImageControlNetModel"): support.toy_controlnets.make_tiny_zimage_controlnet,
}
"""Makers of a ControlNet by family and class; the first of a family is the model's where a test does not say."""
WAYS = [
    (family, task, row)
    for family in FAMILIES.values()
    if family.title in MAKERS
    for task, rows in family.tasks.items()
    for row in rows
    if "motion_adapter" not in row.components
]
LIKE_OTHERS = {"HunyuanImage 2.1 distilled", "Flux.2 dev"}
"""Families whose pipelines read rows as another family's do: HunyuanImage 2.1's and Flux.2 Klein's."""
SHORT_WAYS = [
    (family, task, row)
    for family, task, row in WAYS
    if family.title not in LIKE_OTHERS and not ("ControlNet" in row.pipeline and task == "inpainting")
]
NAMES = [f"{family.title}: {task}: {row.pipeline}" for family, task, row in WAYS]
LONG_TEMPLATES = {"Flux.2 dev", "Kandinsky 5 I2I", "Kandinsky 5 T2I", "Qwen-Image"}
"""Families whose pipelines write more letters around a prompt than the quick limit of these tests."""
WANT_TORCHVISION = {"Kandinsky 5 I2I", "Qwen-Image 2.1"}
"""Families whose toys hold a processor that transformers gives out beside torchvision alone; else they are skipped."""
NEVER_CUT = {"Kandinsky 5 I2I", "Qwen-Image 2.1"}
"""Families whose pipelines read a prompt of any length, or refuse one that is too long."""
WORDY_TEMPLATES = {
    "Flux.2 dev",
    "HunyuanImage 2.1",
    "HunyuanImage 2.1 distilled",
    "Kandinsky 5 T2I",
    "Qwen-Image",
}
"""Families whose templates have, in letters, more tokens than the pipeline leaves room for beside a prompt."""
OF_ANY_SIZE = {"Stable Diffusion XL Refiner"}
"""Families whose pipelines look at no size, and whose toys have a smaller factor than the published VAE."""
OF_FLOW = [FAMILIES[title] for title in MAKERS if FAMILIES[title].schedulers == FLOW_SCHEDULERS]
COUPLED_MAX = 1
"""Most a row may change with its neighbours, of 255, where the table says that rows of a call move each other."""


@pytest.fixture(scope="module")
def folder_of(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Return the folder of a family's tiny model, or of a ControlNet for it, written once."""
    kept: dict[tuple[str, str], Path] = {}

    def folder(family: Family, controlnet: str = "") -> Path:
        key = (family.title, controlnet)
        if key not in kept:
            kept[key] = tmp_path_factory.mktemp("model")
            make = CONTROLNETS[key] if controlnet else MAKERS[family.title]
            make(kept[key])
        return kept[key]

    return folder


@pytest.fixture(scope="module")
def loaded(folder_of: Callable[..., Path]) -> Callable[..., LoadedModel]:
    """Return a family's tiny model with a ControlNet of a class, loaded once."""
    set_threads(1)
    kept: dict[tuple[str, str], LoadedModel] = {}

    def load(family: Family, controlnet: str = "") -> LoadedModel:
        if family.title in WANT_TORCHVISION:
            pytest.importorskip("torchvision")
        names = [name for title, name in CONTROLNETS if title == family.title]
        key = (family.title, controlnet or next(iter(names), ""))
        if key not in kept:
            values: dict[str, Any] = {"path": str(folder_of(family)), "revision": PINNED}
            if key in CONTROLNETS:
                values["controlnet"] = str(folder_of(family, key[1]))
            model = Model(**values)
            kept[key] = load_model("tiny", model, described(model), {})
        return kept[key]

    return load


def described(model: Model) -> str:
    """Return the planned revision of a model."""
    from sdbatch.checkpoints import describe

    return describe("tiny", model, {}).revision


def _net(row: Route) -> str:
    """Return the key of a route's ControlNet in `CONTROLNETS`, "" where it has none."""
    return row.components.get("controlnet", "") + " with a mask" * row.net_reads_mask


def _side(family: Family) -> int:
    """Return a side that is quick: the models of factor 2 have as many latents at 32 as the others at 128."""
    if family.sizes:  # the squares of those that it makes
        return min(height for height, width in family.sizes if height == width)
    return 32 if family.size_multiple == 8 else 64


def _gradient(side: int, turns: int = 0) -> Pixels:
    rows, columns = np.mgrid[0:side, 0:side] * 255 // side
    picture = np.stack([rows, columns, 255 - rows], axis=-1).astype(np.uint8)
    return np.ascontiguousarray(np.rot90(picture, turns))


def _mask(side: int) -> Pixels:
    mask = np.zeros((side, side), np.uint8)
    mask[:, : side // 2] = 255
    return mask


def _item(family: Family, task: str, row: Route, **changes: Any) -> Item:
    """Return an item with everything a way takes, at toy size; `changes` are of its recipe."""
    values: dict[str, Any] = {
        "task": task,
        "prompt": "a beach",
        "negative_prompt": "snow",
        "height": _side(family),
        "width": _side(family),
        "num_inference_steps": 1 if family.sizes else 4,
        "guidance_scale": 8.0,
        "strength": 0.5,
    }
    recipe = {name: value for name, value in values.items() if name in row.arguments}
    if row.negative_needs:
        del recipe["negative_prompt"]
    if row.nets == "union" and "control_mode" in row.parameters:
        changes["parameters"] = {"control_mode": [3], **changes.get("parameters", {})}
    sources = {"images": ["sha256:00"]} if row.images[1] else {}
    given = {**sources, **dict.fromkeys(row.sources, "sha256:00")}
    # Quick; but the templates around some prompts have more letters than that.
    quick = {"output_resolution": 64, **({} if family.title in LONG_TEMPLATES else {"max_sequence_length": 64})}
    return Item(
        recipe=recipe_from(
            {
                "task": task,
                "route": row.name,
                **recipe,
                **given,
                "parameters": {name: quick[name] for name in quick.keys() & row.parameters.keys()},
                **changes,
            }
        ),
        seed=1,
        images=(_gradient(_side(family)),) if row.images[1] else (),
        mask=_mask(_side(family)) if "mask" in row.sources else None,
        control_image=(_gradient(_side(family), 1),) if "control_image" in row.sources else (),
    )


def _pixels(model: LoadedModel, items: Sequence[Item], pad_to: int | None = None) -> list[Pixels]:
    return [output.frames_FHWC[0] for output in make_batch(model, items, pad_to).outputs]


def _differ(one: Pixels, two: Pixels) -> int:
    return int(np.abs(one.astype(int) - two.astype(int)).max())


def _variants(item: Item) -> dict[str, Item]:
    """Return items that differ in one thing each, all of one batch key."""
    variants = {
        "prompt": replace(item, recipe=replace(item.recipe, prompt="a forest at night, in the rain")),
        "seed": replace(item, seed=2),
    }
    if item.images:
        variants["images"] = replace(item, images=(np.ascontiguousarray(np.rot90(item.images[0], 2)),))
    if item.mask is not None:
        variants["mask"] = replace(item, mask=255 - item.mask)
    if item.control_image:
        variants["control_image"] = replace(item, control_image=tuple(255 - pixels for pixels in item.control_image))
    if item.recipe.negative_prompt is not None:
        variants["negative_prompt"] = replace(item, recipe=replace(item.recipe, negative_prompt="people and cars"))
    return variants


@pytest.mark.parametrize(("family", "task", "row"), long_but(SHORT_WAYS, WAYS), ids=NAMES)
def test_a_row_s_pixels_change_with_what_it_says_and_not_with_its_neighbours(
    family: Family, task: str, row: Route, loaded: Callable[..., LoadedModel]
) -> None:
    model = loaded(family, _net(row))
    item = _item(family, task, row)
    variants = _variants(item)
    if row.rows == "single":
        one, *others = (_pixels(model, [each])[0] for each in (item, *variants.values()))
        for name, pixels in zip(variants, others, strict=True):
            assert _differ(one, pixels) > 2, f"another {name} moves nothing"
        assert _differ(one, _pixels(model, [item])[0]) == 0, "a row before it moves it"
        return
    if row.rows == "shared":
        one, other = (_pixels(model, [source])[0] for source in (item, variants.pop("images")))
        assert _differ(one, other) > 2, "another source moves nothing"
    together = _pixels(model, [item, *variants.values()])

    for name, pixels in zip(variants, together[1:], strict=True):
        assert pixels.shape == (_side(family), _side(family), 3)
        assert _differ(together[0], pixels) > 2, f"another {name} moves nothing"
    alone = _pixels(model, [item], pad_to=len(together))[0]
    assert _differ(alone, together[0]) <= COUPLED_MAX * row.rows_interact, "its neighbours move it"


@pytest.mark.parametrize("family", [FAMILIES[title] for title in MAKERS], ids=lambda family: family.title)
def test_a_size_of_the_family_is_made_exactly(family: Family, loaded: Callable[[Family], LoadedModel]) -> None:
    height, width = family.sizes[1] if family.sizes else (2 * family.size_multiple, 3 * family.size_multiple)
    task, rows = next(iter(family.tasks.items()))
    item = _item(family, task, rows[0], height=height, width=width)
    if item.images:
        item = replace(item, images=(np.full((height, width, 3), 90, np.uint8),))
    if item.mask is not None:
        item = replace(item, mask=np.full((height, width), 255, np.uint8))

    assert make_batch(loaded(family), [item], None).outputs[0].frames_FHWC.shape == (1, height, width, 3)


@pytest.mark.parametrize(
    "family", [FAMILIES[title] for title in MAKERS if title not in OF_ANY_SIZE], ids=lambda family: family.title
)
def test_half_a_multiple_is_not_made(family: Family, loaded: Callable[[Family], LoadedModel]) -> None:
    """Else the table refuses sizes that the pipeline makes."""
    side = family.size_multiple * 5 // 2
    task, rows = next(iter(family.tasks.items()))
    item = _item(family, task, rows[0], height=side, width=side)
    if item.images:
        item = replace(item, images=(np.full((side, side, 3), 90, np.uint8),))
    try:
        shape = make_batch(loaded(family), [item], None).outputs[0].frames_FHWC.shape
    except (ValueError, RuntimeError):
        return
    assert shape != (1, side, side, 3)


@pytest.mark.parametrize("family", OF_FLOW, ids=lambda family: family.title)
def test_the_table_knows_whether_a_scheduler_is_given_its_sigmas(
    family: Family, loaded: Callable[[Family], LoadedModel]
) -> None:
    """FlowMatchHeun takes none; where a family gives some, `check` refuses it as the model's own."""
    task, rows = next(iter(family.tasks.items()))
    with pytest.raises((ValueError, TypeError)) if family.gives_sigmas else nullcontext():
        make_batch(loaded(family), [_item(family, task, rows[0], scheduler="FlowMatchHeunDiscreteScheduler")], None)
    if family.gives_sigmas:
        for scheduler in TAKE_SIGMAS[:2]:
            assert _pixels(loaded(family), [_item(family, task, rows[0], scheduler=scheduler)])[0].any()


@pytest.mark.parametrize("family", [FAMILIES[title] for title in MAKERS], ids=lambda family: family.title)
def test_one_folder_is_loaded_once_for_all_tasks(family: Family, loaded: Callable[[Family], LoadedModel]) -> None:
    model = loaded(family)
    classes = [name for title, name in CONTROLNETS if title == family.title][:1]
    ways = [row for of_family, _, row in WAYS if of_family is family]
    routes = [row for row in ways if not row.components or row.components["controlnet"] in classes]
    pipelines = [model.pipeline(row, "") for row in routes]

    for pipeline in pipelines:
        assert getattr(pipeline, family.denoiser) is getattr(pipelines[0], family.denoiser)
        assert pipeline.vae is pipelines[0].vae
    assert len({id(pipeline.scheduler) for pipeline in pipelines}) == len({row.pipeline for row in routes})


@pytest.mark.parametrize(
    "family", [FAMILIES[title] for title in MAKERS if title not in NEVER_CUT], ids=lambda family: family.title
)
def test_a_prompt_that_is_too_long_is_seen_where_the_encoder_cuts_it(
    family: Family, loaded: Callable[[Family], LoadedModel]
) -> None:
    model = loaded(family)
    item = _item(family, *next((task, rows[0]) for task, rows in family.tasks.items()), parameters={})
    limit = family.tokens_max or 77
    word = "ab"
    kept, cut = word * (limit // 2 - 20), word * (limit // 2 + 10)

    def moves(prompt: str) -> bool:
        same, other = (
            _pixels(model, [replace(item, recipe=replace(item.recipe, prompt=prompt + end))])[0] for end in ("x", "y")
        )
        return not np.array_equal(same, other)

    assert not model.tokens.count(replace(item.recipe, prompt=kept))[1]
    assert family.title in WORDY_TEMPLATES or moves(kept), "the encoder reads less than the table says"
    assert model.tokens.count(replace(item.recipe, prompt=cut))[1]
    assert not moves(cut), "what was cut off moves the pixels"


@pytest.mark.parametrize("title", ["Stable Diffusion 1.x/2.x", "Stable Diffusion XL"])
def test_a_controlnet_s_scale_may_be_a_whole_number(title: str, loaded: Callable[..., LoadedModel]) -> None:
    """A recipe has 1.0 as 1, which these pipelines refuse."""
    family = FAMILIES[title]
    ways = [(task, row) for of_family, task, row in WAYS if of_family is family and _net(row) == "ControlNetModel"]
    for task, row in ways:
        scaled = (_item(family, task, row, parameters={"controlnet_conditioning_scale": scale}) for scale in (1, 1.0))
        one, other = (_pixels(loaded(family, _net(row)), [item])[0] for item in scaled)
        assert np.array_equal(one, other)
    assert len(ways) == 3


# --- what a user of diffusers would have made by hand -------------------------------------------------------------


@pytest.mark.parametrize(("family", "task", "row"), long_but(SHORT_WAYS, WAYS), ids=NAMES)
def test_a_row_is_what_the_pipeline_makes_of_the_folder(
    family: Family, task: str, row: Route, loaded: Callable[..., LoadedModel], folder_of: Callable[..., Path]
) -> None:
    """The folder is loaded with the class that the route names, and called with what the row says."""
    model = loaded(family, _net(row))
    item = _item(family, task, row)
    nets = {
        name: getattr(diffusers, cls).from_pretrained(folder_of(family, _net(row)))
        for name, cls in row.components.items()
    }
    theirs = getattr(diffusers, row.pipeline).from_pretrained(folder_of(family), **nets)
    theirs.set_progress_bar_config(disable=True)
    if row.adapter == "guiders":  # guidance is a component there
        for name in ("guider", "ocr_guider"):
            setattr(theirs, name, getattr(theirs, name).new(guidance_scale=item.recipe.guidance_scale))
    if row.adapter == "own-size":  # the pipeline would make every picture as large as 1024 x 1024
        theirs.default_sample_size = _side(family) / theirs.vae_scale_factor
    torch.manual_seed(
        item.seed
    )  # some ControlNets' pipelines sample what the VAE makes of a picture without a generator
    floats = theirs(
        **_said_by_hand(row, item), generator=torch.Generator("cpu").manual_seed(item.seed), output_type="np"
    )[0][0]

    assert _differ(_pixels(model, [item])[0], np.round(floats * 255)) <= 1


def _said_by_hand(row: Route, item: Item) -> dict[str, Any]:
    """Return what a user passes to the route's class for an item: plain values and pictures."""
    columns: dict[str, Any] = {**item.recipe.columns(), "area": item.recipe.height * item.recipe.width}
    columns["images"] = Image.fromarray(item.images[0]) if item.images else None
    columns["mask"] = None if item.mask is None else Image.fromarray(item.mask)
    columns["control_image"] = Image.fromarray(item.control_image[0]) if item.control_image else None
    if row.nets == "union" and "control_mode" in row.parameters:
        columns["control_image"] = [columns["control_image"]]
    said = {name: columns[column] for column, name in row.arguments.items() if name and columns.get(column) is not None}
    return {**said, **row.constants, **item.recipe.parameters}


# --- traps of diffusers 0.42.1, seen to be avoided ---------------------------------------------------------------


def test_a_second_call_of_the_same_items_gives_the_same_pixels(loaded: Callable[[Family], LoadedModel]) -> None:
    """Z-Image writes its template into the list of prompts it is given: a retry with that list is another picture."""
    family = FAMILIES["Z-Image"]
    item = _item(family, "text-to-image", family.tasks["text-to-image"][0])
    model = loaded(family)
    first = _pixels(model, [item])[0]
    prompts = ["a beach"]
    pipeline = model.pipeline(family.tasks["text-to-image"][0], "")
    pipeline(prompts, num_inference_steps=1, guidance_scale=0.0, height=64, width=64, output_type="latent")

    assert prompts != ["a beach"], "the trap is gone"
    assert item.recipe.prompt == "a beach"
    assert np.array_equal(first, _pixels(model, [item])[0])


@pytest.mark.parametrize("title", ["Stable Diffusion 1.x/2.x", "Flux.1"])
def test_a_further_pipeline_leaves_the_weights_in_their_type(title: str, tmp_path: Path) -> None:
    """`from_pipe` without a type casts the modules that both share to float32, in place."""
    MAKERS[title](tmp_path)
    model = Model(path=str(tmp_path), revision=PINNED, dtype="bfloat16")
    loaded = load_model("tiny", model, PINNED, {})
    family = FAMILIES[title]
    for rows in family.tasks.values():
        for row in rows:
            if not row.components:
                loaded.pipeline(row, "")
    pipeline = loaded.pipeline(family.tasks["text-to-image"][0], "")
    modules = [module for module in pipeline.components.values() if isinstance(module, torch.nn.Module)]

    assert len(modules) >= 3
    assert {weight.dtype for module in modules for weight in module.parameters()} == {torch.bfloat16}


def test_a_reference_list_is_one_set_for_all_prompts_of_a_call(loaded: Callable[[Family], LoadedModel]) -> None:
    """Flux.2 takes a list of images as references for every prompt; elsewhere it is one image a row."""
    family = FAMILIES["Flux.2 Klein"]
    row = family.tasks["image-to-image"][0]
    one = _item(family, "image-to-image", row)
    two = replace(one, images=(*one.images, np.ascontiguousarray(one.images[0][::-1])))
    pixels = [_pixels(loaded(family), [item, item])[0] for item in (one, two)]

    assert _differ(*pixels) > 2


@pytest.mark.parametrize("title", ["AuraFlow", "AuraFlow 0.3"])
def test_aura_flow_s_largest_size_has_a_position_for_each_token(
    title: str, loaded: Callable[[Family], LoadedModel]
) -> None:
    """Of a wider picture, tokens at its edge silently get the positions of other places."""
    family = FAMILIES[title]
    positions = loaded(family).pipeline(family.tasks["text-to-image"][0], "").transformer.pos_embed
    most, over = (
        positions.pe_selection_index_based_on_dim(family.size_max // 8, width // 8).tolist()
        for width in (family.size_max, family.size_max + family.size_multiple)
    )

    assert sorted(most) == list(range(positions.pos_embed_max_size))
    assert len(set(over)) < len(over), "the trap is gone"
