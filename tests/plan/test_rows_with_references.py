"""Rows with reference pictures, several control pictures, or a source to enlarge: their recipes, keys and refusals."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest
from support.resolved import Row, rows_of

from sdbatch.checkpoints import describe
from sdbatch.families import FAMILIES
from sdbatch.job import parse_job
from sdbatch.plan.problems import RowProblem
from sdbatch.plan.resolve import Resolver
from sdbatch.recipe import parse_recipe

PLAIN = {"controlnet": "ControlNetModel"}
TEXT = {"id": "a", "task": "text-to-image", "prompt": "a fox"}
FACE, EDGES, DEPTH = "face.png", "edges.png", "depth.png"
DIGESTS = {FACE: "sha256:fa", EDGES: "sha256:ed", DEPTH: "sha256:de", "b.png": "sha256:bb"}


def _resolve(
    *rows: Mapping[str, Any],
    family: str = "Stable Diffusion XL",
    components: Mapping[str, str] | None = None,
    configs: Mapping[str, Mapping[str, Any]] | None = None,
    defaults: Mapping[str, Any] | None = None,
) -> tuple[list[Row | None], list[RowProblem]]:
    model = {"path": "/m", "family": family, "revision": "a" * 64, "defaults": {"height": 512, "width": 512}}
    job = parse_job({"manifest": "m", "output": "o", "models": {"m": model}, "seed": 1, "defaults": defaults or {}})
    named = dict(components or {})
    info = replace(
        describe("m", job.models["m"], {}),
        components=named,
        component_revisions={name: f"{name}-revision" for name in named},
        net_configs=configs or {},
    )
    columns = {name: [row.get(name) for row in rows] for name in dict.fromkeys(name for row in rows for name in row)}
    resolver = Resolver(job, {"m": info}, lambda _: None, lambda url: url, {}, loads_here=False)
    resolved, problems = resolver.resolve(columns, len(rows), DIGESTS)
    return rows_of(resolved, problems, len(rows)), problems


def _one(row: Mapping[str, Any], **options: Any) -> Row:
    (found,), problems = _resolve(row, **options)
    assert not problems
    assert found is not None
    return found


def _refused(row: Mapping[str, Any], **options: Any) -> str:
    (found,), problems = _resolve(row, **options)
    assert found is None
    return "; ".join(f"{problem.column} {problem.message}" for problem in problems)


ADAPTED = {"ip_adapter": "IPAdapter"}


def test_a_row_without_reference_has_the_key_that_it_had_before_the_model_had_an_adapter() -> None:
    assert _one(TEXT).request_key == _one(TEXT, components=ADAPTED).request_key
    assert _one(TEXT).request_key == _one(TEXT, components=ADAPTED, defaults={"ip_adapter_scale": 0.5}).request_key


def test_reference_and_scale_are_in_the_recipe_and_full_scale_is_not_written() -> None:
    row = {**TEXT, "ip_adapter_images": [FACE, "b.png"]}
    found = _one(row, components=ADAPTED)
    recipe = json.loads(found.recipe)

    assert recipe["ip_adapter_images"] == ["sha256:fa", "sha256:bb"]
    assert recipe["components"] == {"ip_adapter": "ip_adapter-revision"}
    assert "ip_adapter_scale" not in recipe
    assert [source.role for source in found.sources] == ["ip_adapter_images"] * 2
    assert parse_recipe(found.recipe).ip_adapter_images == ("sha256:fa", "sha256:bb")
    half = _one({**row, "ip_adapter_scale": 0.5}, components=ADAPTED)
    assert json.loads(half.recipe)["ip_adapter_scale"] == 0.5
    assert _one({**row, "ip_adapter_scale": 1.0}, components=ADAPTED).request_key == found.request_key
    keys = {found.request_key, half.request_key, _one(TEXT).request_key}
    assert len({*keys, _one({**row, "ip_adapter_images": ["b.png", FACE]}, components=ADAPTED).request_key}) == 4


def test_rows_of_unlike_scale_or_number_of_references_share_no_call() -> None:
    row = {**TEXT, "ip_adapter_images": [FACE]}
    others: list[dict[str, Any]] = [
        {**row, "id": "b", "ip_adapter_images": ["b.png"]},
        {**row, "id": "c", "ip_adapter_scale": 0.5},
        {**row, "id": "d", "ip_adapter_images": [FACE, "b.png"]},
        {**TEXT, "id": "e"},
    ]
    found, _ = _resolve(row, *others, components=ADAPTED)
    keys = [one.batch_key for one in found if one]

    assert keys[0] == keys[1]
    assert len(set(keys)) == 4


@pytest.mark.parametrize(
    ("row", "options", "message"),
    [
        ({"ip_adapter_images": [FACE]}, {}, "needs models.m.components.ip_adapter to be a IPAdapter; it has none"),
        ({"ip_adapter_scale": 0.5}, {"components": ADAPTED}, "would be ignored: the row has no ip_adapter_images"),
        ({"ip_adapter_images": [FACE] * 17}, {"components": ADAPTED}, "has 17 pictures, over 16"),
        ({"ip_adapter_images": [FACE]}, {"family": "Sana"}, "is a source the task would ignore"),
        ({"ip_adapter_images": [FACE], "ip_adapter_scale": 11.0}, {"components": ADAPTED}, "is not in 0..10"),
    ],
)
def test_what_no_adapter_reads_is_refused(row: dict[str, Any], options: dict[str, Any], message: str) -> None:
    assert message in _refused({**TEXT, **row}, **options)


def test_one_control_picture_has_one_key_as_a_text_or_a_list() -> None:
    keys = [_one({**TEXT, "control_image": value}, components=PLAIN).request_key for value in (EDGES, [EDGES])]

    assert keys[0] == keys[1]
    recipe = json.loads(_one({**TEXT, "control_image": [EDGES]}, components=PLAIN).recipe)
    assert recipe["control_image"] == "sha256:ed"
    assert parse_recipe(json.dumps(recipe)).num_controls == 1


TWO = {"controlnet": "ControlNetModel", "controlnet_2": "ControlNetModel"}


def test_each_of_two_controlnets_reads_a_picture_and_both_are_in_the_key() -> None:
    row = {**TEXT, "control_image": [EDGES, DEPTH]}
    recipe = json.loads(_one(row, components=TWO).recipe)

    assert recipe["control_image"] == ["sha256:ed", "sha256:de"]
    assert recipe["components"] == {"controlnet": "controlnet-revision", "controlnet_2": "controlnet_2-revision"}
    assert (
        _one(row, components=TWO).request_key
        != _one({**row, "control_image": [DEPTH, EDGES]}, components=TWO).request_key
    )
    assert "has 1 picture(s); models.m names 2 ControlNets" in _refused({**row, "control_image": EDGES}, components=TWO)
    assert "has 2 picture(s); models.m names one ControlNet" in _refused(row, components=PLAIN)
    mixed = {"controlnet": "ControlNetModel", "controlnet_2": "ControlNetUnionModel"}
    assert "controlnet 2 to be a ControlNetModel; it is a ControlNetUnionModel" in _refused(row, components=mixed)


def test_each_net_may_have_a_scale_of_its_own() -> None:
    row = {**TEXT, "control_image": [EDGES, DEPTH]}

    def scaled(value: Any, row: Mapping[str, Any] = row, components: Mapping[str, str] = TWO) -> Any:
        parameters = json.dumps({"controlnet_conditioning_scale": value})
        found, problems = _resolve({**row, "parameters": parameters}, components=components)
        return problems[0].message if problems else json.loads(found[0].recipe)["parameters"]  # type: ignore[union-attr]

    assert scaled([1, 0.5]) == {"controlnet_conditioning_scale": [1.0, 0.5]}
    assert scaled(0.5) == {"controlnet_conditioning_scale": 0.5}
    assert "with 3 number(s) for 2 control picture(s)" in scaled([1, 2, 3])
    assert "is not a list of type float" in scaled([1, "x"])
    assert "which is not in -1000..1000" in scaled([1, 5000])
    assert "with 1 number(s) for 1" in scaled([1.0], row={**TEXT, "control_image": EDGES}, components=PLAIN)


def test_the_class_of_the_controlnet_chooses_the_route_and_union_is_told_the_kinds() -> None:
    union = {"controlnet": "ControlNetUnionModel"}
    row = {**TEXT, "control_image": [EDGES, DEPTH]}
    kinds = {"parameters": json.dumps({"control_mode": [3, 1]})}

    assert json.loads(_one({**TEXT, "control_image": EDGES}, components=PLAIN).recipe)["route"] == (
        "StableDiffusionXLControlNetPipeline"
    )
    recipe = json.loads(_one({**row, **kinds}, components=union).recipe)
    assert recipe["route"] == "StableDiffusionXLControlNetUnionPipeline"
    assert recipe["parameters"] == {"control_mode": [3, 1]}
    assert "needs control_mode, the kind of each of the 2 control picture(s)" in _refused(row, components=union)
    assert "needs control_mode" in _refused({**row, "control_image": EDGES, **kinds}, components=union)
    guessing = {"parameters": json.dumps({"control_mode": [3, 1], "guess_mode": True})}
    assert "holds guess_mode, which text-to-image of this model does not take" in _refused(
        {**row, **guessing}, components=union
    )
    assert "is read by one ControlNet" in _refused(
        {**row, **kinds}, components={**union, "controlnet_2": "ControlNetUnionModel"}
    )


X4 = "Stable Diffusion x4 Upscaler"
EDIT = {**TEXT, "task": "image-to-image", "images": [FACE]}


def test_the_size_of_what_is_enlarged_follows_from_its_source() -> None:
    recipe = json.loads(_one(EDIT, family=X4).recipe)

    assert not recipe.keys() & {"height", "width", "fit"}
    assert (parse_recipe(json.dumps(recipe)).height, parse_recipe(json.dumps(recipe)).columns().get("height")) == (
        0,
        None,
    )
    defaulted = _one(EDIT, family=X4, defaults={"height": 768, "width": 768})
    assert defaulted.request_key == _one(EDIT, family=X4).request_key
    asked = json.loads(_one({**EDIT, "height": 256, "width": 320}, family=X4).recipe)
    assert (asked["height"], asked["width"]) == (256, 320)
    assert "stands alone; say both height and width, or neither" in _refused({**EDIT, "height": 256}, family=X4)
    assert "is not a multiple of 4" in _refused({**EDIT, "height": 254, "width": 256}, family=X4)
    assert "is not taken by image-to-image" in _refused({**EDIT, "fit": "contain"}, family=X4)
    assert FAMILIES[X4].tasks.keys() == {"image-to-image"}


@pytest.mark.parametrize(
    ("modes", "configs", "message"),
    [
        ([3, 7], [{"num_control_type": 6}], "holds control_mode 7; models.m.controlnet knows the kinds 0 to 5"),
        ([3, 7], [{}], "holds control_mode 7; models.m.controlnet knows the kinds 0 to 5"),
        ([3, 7], [{"num_control_type": 8}], ""),
        (None, [{"num_control_type": 8}], "(0 to 7), such as"),
    ],
)
def test_a_union_controlnet_is_told_only_kinds_that_its_file_knows(
    modes: list[int] | None, configs: list[dict[str, int]], message: str
) -> None:
    row = {**TEXT, "control_image": [EDGES, DEPTH]}
    parameters = {} if modes is None else {"parameters": json.dumps({"control_mode": modes})}
    _, problems = _resolve(
        {**row, **parameters}, components={"controlnet": "ControlNetUnionModel"}, configs=_numbered(configs)
    )

    assert [problem.column for problem in problems] == ["parameters"] * bool(message)
    assert message in "".join(problem.message for problem in problems)


@pytest.mark.parametrize(
    ("mode", "kinds", "message"),
    [
        (2, [10], ""),
        (10, [10], "holds control_mode 10; models.m.controlnet knows the kinds 0 to 9"),
        (None, [10], "needs control_mode; models.m.controlnet knows the kinds 0 to 9"),
        (None, [None], ""),
        (2, [None], "holds control_mode 2, which models.m.controlnet would ignore: it has one kind"),
        ([-1, 4], [None, 10], ""),
        ([4, -1], [None, 10], "holds control_mode 4, which models.m.controlnet would ignore"),
        ([-1, 12], [None, 10], "holds control_mode 12; models.m.controlnet_2 knows the kinds 0 to 9"),
    ],
)
def test_each_of_flux_s_controlnets_is_told_only_kinds_that_its_file_knows(
    mode: Any, kinds: list[int | None], message: str
) -> None:
    nets = _numbered([{"num_mode": count} for count in kinds])
    row = {**TEXT, "control_image": [EDGES, DEPTH][: len(kinds)]}
    parameters = {} if mode is None else {"parameters": json.dumps({"control_mode": mode})}
    _, problems = _resolve(
        {**row, **parameters}, family="Flux.1", components=dict.fromkeys(nets, "FluxControlNetModel"), configs=nets
    )

    assert [problem.column for problem in problems] == ["parameters"] * bool(message)
    assert message in "".join(problem.message for problem in problems)


def _numbered(configs: list[Any]) -> dict[str, Any]:
    """Return configurations by the names that an entry's ControlNets have."""
    return {f"controlnet_{number + 1}" if number else "controlnet": config for number, config in enumerate(configs)}


MASKED = {"control_image": EDGES, "mask": DEPTH, "task": "inpainting"}


@pytest.mark.parametrize(
    ("family", "class_name", "key", "route"),
    [
        (
            "Stable Diffusion 3/3.5",
            "SD3ControlNetModel",
            "extra_conditioning_channels",
            "StableDiffusion3ControlNetInpaintingPipeline",
        ),
        ("Qwen-Image", "QwenImageControlNetModel", "extra_condition_channels", "QwenImageControlNetInpaintPipeline"),
    ],
)
def test_a_controlnet_that_reads_a_mask_paints_and_another_does_not(
    family: str, class_name: str, key: str, route: str
) -> None:
    options: dict[str, Any] = {"family": family, "components": {"controlnet": class_name}}
    of_mask, plain = {"controlnet": {key: 4}}, {"controlnet": {key: 0}}
    led = {**TEXT, "control_image": EDGES}
    plainly = {**TEXT, "task": "inpainting", "images": ["b.png"], "mask": DEPTH}

    assert json.loads(_one({**TEXT, **MASKED}, configs=of_mask, **options).recipe)["route"] == route
    assert json.loads(_one(plainly, configs=of_mask, **options).recipe)["route"] != route
    assert "want a ControlNet that reads a mask" in _refused({**TEXT, **MASKED}, configs=plain, **options)
    assert "is read by models.m.controlnet beside a mask alone" in _refused(led, configs=of_mask, **options)
    assert _one(led, configs=plain, **options).request_key == _one(led, **options).request_key
