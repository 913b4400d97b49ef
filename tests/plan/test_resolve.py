"""Rows become requests: which value wins, what is refused, and what the request key is made of."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.resolved import Row, rows_of

from sdbatch.canonical import canonical
from sdbatch.checkpoints import describe
from sdbatch.job import Job, parse_job
from sdbatch.plan.checks import STEPS_MAX
from sdbatch.plan.problems import RowProblem
from sdbatch.plan.resolve import Resolver
from sdbatch.plan.seeds import derived_seeds
from sdbatch.recipe import recipe_changes
from sdbatch.types import SEED_MAX, Source

MODEL = {"path": "builtin:tiny-random", "batch_size": 4}
TEXT = {"id": "a", "task": "text-to-image", "prompt": "a fox", "num_inference_steps": 12}
IMAGE = {**TEXT, "task": "image-to-image", "images": ["in/fox.png"]}
CLIPS = {"path": "/models/wan", "family": "Wan 2.1 T2V", "revision": "a" * 64, "batch_size": 4}
CLIP = {**TEXT, "task": "text-to-video"}
DIGESTS = {"/brand/in/fox.png": "sha256:aa", "/brand/in/sea.png": "sha256:bb"}


def _job(**changes: Any) -> Job:
    return parse_job({"manifest": "m", "output": "o", "models": {"tiny": MODEL}, "seed": 11, **changes})


def _resolver(job: Job) -> Resolver:
    models = {name: describe(name, model, {}) for name, model in job.models.items()}
    return Resolver(job, models, _source_fault, lambda url: f"/brand/{url}")


def _source_fault(url: str) -> str | None:
    return "is outside sources.allow" if url.startswith("..") else None


def _resolve(
    *rows: Mapping[str, Any], job: Job | None = None, digests: Mapping[str, str] = DIGESTS
) -> tuple[list[Row | None], list[RowProblem]]:
    names = dict.fromkeys(name for row in rows for name in row)
    columns = {name: [row.get(name) for row in rows] for name in names}
    resolved, faults = _resolver(job or _job()).resolve(columns, len(rows), digests)
    return rows_of(resolved, faults, len(rows)), faults


def _one(row: Mapping[str, Any], job: Job | None = None, digests: Mapping[str, str] = DIGESTS) -> Row:
    (resolved,), faults = _resolve(row, job=job, digests=digests)
    assert faults == []
    assert resolved is not None
    return resolved


def _recipe(row: Mapping[str, Any], job: Job | None = None) -> dict[str, Any]:
    recipe: dict[str, Any] = json.loads(_one(row, job).recipe)
    return recipe


def _key(row: Mapping[str, Any], **changes: Any) -> str:
    return _one(row, _job(**changes)).request_key


def _faults(row: Mapping[str, Any], job: Job | None = None) -> list[tuple[str | None, str]]:
    (resolved,), faults = _resolve(row, job=job)
    assert resolved is None
    return [(fault.column, fault.message) for fault in faults]


# --- precedence -----------------------------------------------------------------------------------------------------

LAYERS = [
    ("height", 64, (128, 120, 112)),
    ("width", 64, (128, 120, 112)),
    ("num_inference_steps", 50, (9, 8, 7)),
    ("guidance_scale", 7.5, (9.5, 8.5, 6.5)),
    ("strength", 0.8, (0.9, 0.7, 0.6)),
    ("fit", None, ("contain", "cover", "contain")),
    ("scheduler", None, ("DDIMScheduler", "DDPMScheduler", "PNDMScheduler")),
    ("prompt", "a fox", ("row", "model", "job")),
    ("negative_prompt", None, ("row", "model", "job")),
]


@pytest.mark.parametrize(("name", "last", "values"), LAYERS, ids=[name for name, *_ in LAYERS])
@pytest.mark.parametrize("first", range(4), ids=["row", "model", "job", "family"])
def test_the_row_wins_then_its_model_then_the_job_then_the_family(
    name: str, last: Any, values: tuple[Any, Any, Any], first: int
) -> None:
    in_row, in_model, in_job = (value if layer >= first else None for layer, value in enumerate(values))
    base: dict[str, Any] = {"id": "a", "prompt": "a fox", "images": ["in/fox.png"]}
    if name == "prompt" and first < 3:
        del base["prompt"]
    row = {**base, name: in_row} if in_row is not None else base
    defaults = {"task": "image-to-image", name: in_job}
    job = _job(models={"tiny": {**MODEL, "defaults": {name: in_model}}}, defaults=defaults)
    settled = (*values, last)[first]
    assert _recipe(row, job).get(name) == (None if settled == "cover" else settled)  # neutral, so not written


@pytest.mark.parametrize("name", ["height", "scheduler", "negative_prompt"])
def test_a_null_inherits_as_if_the_column_were_absent(name: str) -> None:
    job = _job(defaults={"height": 128, "scheduler": "DDIMScheduler", "negative_prompt": "blur"})
    assert _one({**TEXT, name: None}, job) == _one(TEXT, job)
    assert _recipe(TEXT, job)[name] == getattr(job.defaults, name)


@pytest.mark.parametrize(("name", "default", "none"), [("negative_prompt", "blur", None), ("prompt", "a sea", "")])
def test_an_empty_text_of_a_row_is_none_and_does_not_inherit(name: str, default: str, none: str | None) -> None:
    assert _recipe({**TEXT, name: ""}, _job(defaults={name: default})).get(name) == none


def test_an_empty_scheduler_is_the_model_s_own() -> None:
    job = _job(defaults={"scheduler": "DDIMScheduler"})
    assert _one({**TEXT, "scheduler": ""}, job).request_key == _key(TEXT)


def test_an_empty_text_of_a_model_s_defaults_covers_the_job_s() -> None:
    models = {"tiny": {**MODEL, "defaults": {"negative_prompt": ""}}}
    assert "negative_prompt" not in _recipe(TEXT, _job(models=models, defaults={"negative_prompt": "blur"}))


@pytest.mark.parametrize("layer", ["model", "job"])
def test_a_default_that_the_task_does_not_take_is_dropped(layer: str) -> None:
    extra = {"strength": 0.5, "fit": "contain", "num_frames": 17, "fps": 8.0}
    models = {"tiny": {**MODEL, "defaults": extra}} if layer == "model" else {"tiny": MODEL}
    job = _job(models=models, defaults=extra if layer == "job" else {})
    assert _one(TEXT, job) == _one(TEXT)
    assert _recipe(IMAGE, job)["strength"] == 0.5


@pytest.mark.parametrize(("name", "value"), [("strength", 0.5), ("fit", "cover")])
def test_a_row_s_own_value_that_the_task_does_not_take_is_an_error(name: str, value: Any) -> None:
    assert _faults({**TEXT, name: value}) == [(name, "is not taken by text-to-image of Stable Diffusion 1.x/2.x")]


def test_task_model_and_number_of_outputs_come_from_the_defaults() -> None:
    models = {"tiny": MODEL, "other": {**MODEL, "defaults": {"num_outputs": 3}}}
    job = _job(models=models, defaults={"task": "text-to-image", "model": "other", "num_outputs": 2})
    row = {"id": "a", "prompt": "p"}
    assert (_one(row, job).model, _one(row, job).num_outputs) == ("other", 3)
    assert _one({**row, "model": "tiny"}, job).num_outputs == 2
    assert _one({**row, "num_outputs": 5}, job).num_outputs == 5


def test_the_only_model_needs_no_name() -> None:
    assert _one(TEXT).model == "tiny"


def test_a_row_s_model_brings_its_own_defaults() -> None:
    models = {"small": MODEL, "large": {**MODEL, "defaults": {"height": 128}}}
    job = _job(models=models)
    heights = [_recipe({**TEXT, "model": name}, job)["height"] for name in models]
    assert heights == [64, 128]


# --- the recipe and its key -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("row", [TEXT, IMAGE, {**TEXT, "prompt": '"ä\n🦊', "seed": SEED_MAX, "guidance_scale": 3}])
def test_the_key_is_the_sha256_of_a_canonical_recipe(row: dict[str, Any]) -> None:
    request = _one(row, _job(determinism="exact", encode={"image": "jpg"}))
    assert request.recipe == canonical(json.loads(request.recipe))
    assert request.request_key == hashlib.sha256(request.recipe.encode()).hexdigest()


def test_a_recipe_says_everything_that_decides_the_pixels() -> None:
    job = _job(determinism="exact", encode={"image": "webp", "quality": 80})
    row = {**IMAGE, "negative_prompt": "blur", "seed": 5, "scheduler": "DDIMScheduler", "fit": "contain"}
    assert _recipe(row, job) == {
        "key_version": 2,
        "task": "image-to-image",
        "route": "StableDiffusionImg2ImgPipeline",
        "model": describe("tiny", job.models["tiny"], {}).revision,
        "prompt": "a fox",
        "negative_prompt": "blur",
        "seed": 5,
        "height": 64,
        "width": 64,
        "num_inference_steps": 12,
        "guidance_scale": 7.5,
        "strength": 0.8,
        "scheduler": "DDIMScheduler",
        "fit": "contain",
        "images": ["sha256:aa"],
        "batch_size": 4,
    }


def test_an_equal_request_made_another_way_has_an_equal_key() -> None:
    spelled = {**TEXT, "model": "tiny", "height": 64, "width": 64, "guidance_scale": 7.5, "negative_prompt": ""}
    assert _key(spelled) == _key(TEXT)
    assert _key({**TEXT, "guidance_scale": 5}) == _key({**TEXT, "guidance_scale": 5.0})


@pytest.mark.parametrize(
    "change",
    [
        {"prompt": "a sea"},
        {"negative_prompt": "blur"},
        {"seed": 6},
        {"height": 72},
        {"width": 72},
        {"num_inference_steps": 13},
        {"guidance_scale": 3.0},
        {"strength": 0.5},
        {"scheduler": "DDIMScheduler"},
        {"fit": "contain"},
        {"images": ["in/sea.png"]},
    ],
    ids=lambda change: next(iter(change)),
)
def test_the_key_changes_with_a_row_s(change: dict[str, Any]) -> None:
    row = {**IMAGE, "seed": 5}
    changed = {**row, **change}
    assert _key(changed) != _key(row)
    assert recipe_changes(_one(row).recipe, _one(changed).recipe) == list(change)


def test_the_key_changes_with_the_task() -> None:
    assert _key({**TEXT, "seed": 5}) != _key({**IMAGE, "seed": 5})


@pytest.mark.parametrize("digest", ["sha256:cc", "etag:aa", "missing"])
def test_the_key_changes_with_a_source_s_content(digest: str) -> None:
    changed = _one(IMAGE, digests={"/brand/in/fox.png": digest})
    assert changed.request_key != _one(IMAGE).request_key
    assert changed.sources == (Source(role="images", url="/brand/in/fox.png", digest=digest),)


def test_the_key_does_not_change_with_a_source_s_name() -> None:
    row = {**IMAGE, "seed": 5}
    moved = _one({**row, "images": ["in/moved.png"]}, digests={"/brand/in/moved.png": "sha256:aa"})
    assert moved.request_key == _one(row).request_key


def test_a_plain_string_is_a_list_of_one_source() -> None:
    assert _one({**IMAGE, "images": "in/fox.png"}) == _one(IMAGE)


@pytest.mark.parametrize(
    "changes",
    [
        {"models": {"tiny": {**MODEL, "revision": "2" * 40}}},
        {"models": {"tiny": {**MODEL, "dtype": "bfloat16"}}},
        {"determinism": "exact"},
        {"seed": 12},
    ],
    ids=["revision", "dtype", "exact", "seed"],
)
def test_the_key_changes_with_a_job_s(changes: dict[str, Any]) -> None:
    assert _key(TEXT, **changes) != _key(TEXT)


@pytest.mark.parametrize(
    "encode", [{"image": "jpg"}, {"image": "avif", "quality": 50}, {"video": "webm", "video_crf": 40}], ids=str
)
@pytest.mark.parametrize("row", [TEXT, CLIP], ids=["picture", "clip"])
def test_the_key_does_not_change_with_how_a_master_is_stored(row: dict[str, Any], encode: dict[str, Any]) -> None:
    models = {"tiny": MODEL if row is TEXT else CLIPS}
    assert _key(row, models=models, encode=encode) == _key(row, models=models)


def test_the_key_changes_with_the_batch_size_only_when_exact() -> None:
    def key(batch_size: int, determinism: str) -> str:
        return _key(TEXT, models={"tiny": {**MODEL, "batch_size": batch_size}}, determinism=determinism)

    assert key(4, "exact") != key(8, "exact")
    assert key(4, "fast") == key(8, "fast")


@pytest.mark.parametrize(
    "change",
    [{"id": "b"}, {"num_outputs": 4}, {"x_sku": "0012"}, {"seed_group": "scene"}],
    ids=["id", "num_outputs", "x_", "seed_group"],
)
def test_the_key_of_a_row_with_a_seed_does_not_change_with(change: dict[str, Any]) -> None:
    row = {**TEXT, "seed": 5}
    assert _key({**row, **change}) == _key(row)


@pytest.mark.parametrize(
    "changes",
    [
        {"seed": 12},
        {"output": "elsewhere"},
        {"manifest": "other"},
        {"workers": {"count": 8}},
        {"limits": {"attempts": 1}},
        {"models": {"renamed": MODEL}},
        {"models": {"tiny": {**MODEL, "num_cpus": 2, "num_gpus": 0.5}}},
    ],
    ids=["seed", "output", "manifest", "workers", "limits", "model name", "slot shape"],
)
def test_the_key_of_a_row_with_a_seed_does_not_change_with_the_job_s(changes: dict[str, Any]) -> None:
    row = {**TEXT, "seed": 5}
    assert _key(row, **changes) == _key(row)


def test_the_key_does_not_change_with_order_or_neighbours() -> None:
    rows = [{**TEXT, "id": f"row-{number}", "prompt": f"scene {number % 3}"} for number in range(7)]
    ahead, _ = _resolve(*rows)
    back, _ = _resolve(*reversed(rows))
    alone = [_one(row) for row in rows]
    assert ahead == list(reversed(back)) == alone
    assert len({row.request_key for row in alone}) == len(rows)


POOLS: dict[str, st.SearchStrategy[Any]] = {
    "prompt": st.sampled_from(["a fox", "a sea", ""]),
    "negative_prompt": st.sampled_from([None, "", "blur"]),
    "seed": st.sampled_from([0, 1, 2**53, 2**53 + 1]),
    "height": st.sampled_from([None, 64, 72]),
    "num_inference_steps": st.sampled_from([None, 50, 12]),
    "guidance_scale": st.sampled_from([None, 7.5, 0, 1e-7]),
    "scheduler": st.sampled_from([None, "", "DDIMScheduler"]),
    "task": st.sampled_from(["text-to-image", "image-to-image"]),
    "num_outputs": st.sampled_from([None, 1, 2]),
    "id": st.sampled_from(["a", "b"]),
}
ROWS = st.fixed_dictionaries(POOLS)
RESOLVER = _resolver(_job())


def _decisive(row: Mapping[str, Any]) -> tuple[Any, ...]:
    """Return what is to decide a row's pixels, by this test's own understanding of the defaults."""
    return (
        row["prompt"],
        row["negative_prompt"] or "",
        row["seed"],
        row["height"] or 64,
        row["num_inference_steps"] or 50,
        7.5 if row["guidance_scale"] is None else row["guidance_scale"],
        row["scheduler"] or None,
        row["task"],
    )


@given(ROWS, ROWS)
def test_keys_are_equal_exactly_when_recipes_and_decisive_values_are(one: dict[str, Any], two: dict[str, Any]) -> None:
    rows = [{**row, "images": "in/fox.png" if row["task"] == "image-to-image" else None} for row in (one, two)]
    columns = {name: [row[name] for row in rows] for name in rows[0]}
    resolved, faults = RESOLVER.resolve(columns, 2, DIGESTS)
    first, second = rows_of(resolved, faults, 2)
    assert faults == []
    assert first is not None
    assert second is not None
    is_equal = first.request_key == second.request_key
    assert is_equal == (first.recipe == second.recipe)
    assert is_equal == (_decisive(one) == _decisive(two))


# --- batch keys and cost --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "change",
    [{"id": "b"}, {"prompt": "a sea"}, {"negative_prompt": "blur"}, {"seed": 6}, {"images": ["in/sea.png"]}],
    ids=lambda change: next(iter(change)),
)
def test_rows_that_differ_only_so_share_a_batch(change: dict[str, Any]) -> None:
    assert _one({**IMAGE, **change}).batch_key == _one(IMAGE).batch_key


@pytest.mark.parametrize(
    "change",
    [
        {"height": 72},
        {"width": 72},
        {"num_inference_steps": 13},
        {"guidance_scale": 1.0},  # none
        {"strength": 0.5},
        {"scheduler": "DDIMScheduler"},
        {"model": "other"},
    ],
    ids=lambda change: next(iter(change)),
)
def test_rows_that_one_call_cannot_share_have_batches_of_their_own(change: dict[str, Any]) -> None:
    job = _job(models={"tiny": MODEL, "other": MODEL}, defaults={"model": "tiny"})
    assert _one({**IMAGE, **change}, job).batch_key != _one(IMAGE, job).batch_key


def test_rows_with_and_without_a_negative_prompt_share_a_call_but_in_sdxl_which_takes_none_for_zeros() -> None:
    none, empty, some = TEXT, {**TEXT, "negative_prompt": ""}, {**TEXT, "negative_prompt": "rain"}
    other = {**TEXT, "negative_prompt": "snow"}
    stated = {"family": "Stable Diffusion XL", "revision": "3" * 40, "defaults": {"height": 1024, "width": 1024}}
    sdxl = _job(models={"xl": {"path": "s3://models/xl", "batch_size": 4, **stated}})

    assert len({_one(row).batch_key for row in (none, empty, some, other)}) == 1
    keys = [_one(row, sdxl).batch_key for row in (none, empty, some, other)]
    assert keys[0] == keys[1] != keys[2] == keys[3]


@pytest.mark.parametrize(
    ("change", "factor"),
    [({"num_inference_steps": 24}, 2), ({"height": 128}, 2), ({"guidance_scale": 1.0}, 0.5), ({"prompt": "b"}, 1)],
    ids=["steps", "pixels", "no guidance", "prompt"],
)
def test_the_predicted_cost_follows_the_work(change: dict[str, Any], factor: float) -> None:
    assert _one({**TEXT, **change}).cost_tflop == pytest.approx(factor * _one(TEXT).cost_tflop)


def test_the_predicted_cost_counts_the_steps_that_strength_leaves() -> None:
    assert _one({**IMAGE, "strength": 0.5}).cost_tflop == pytest.approx(0.5 * _one(TEXT).cost_tflop)


# --- derived seeds --------------------------------------------------------------------------------------------------


def _seed(row: Mapping[str, Any], root: int = 11) -> int:
    return int(_recipe(row, _job(seed=root))["seed"])


def test_a_derived_seed_is_53_bits_of_a_digest_of_root_and_name() -> None:
    digest = hashlib.sha256(b"11:a").hexdigest()
    assert derived_seeds(11, ["a"]) == [int(digest[:16], 16) >> 11]
    assert [_seed(TEXT)] == derived_seeds(11, ["a"])


def test_a_derived_seed_depends_on_the_job_s_seed_and_the_id() -> None:
    assert len({_seed(TEXT), _seed(TEXT, root=12), _seed({**TEXT, "id": "b"})}) == 3


@pytest.mark.parametrize("change", [{"prompt": "a sea"}, {"height": 72}, {"num_outputs": 3}, {"seed_group": ""}])
def test_a_derived_seed_depends_on_nothing_else(change: dict[str, Any]) -> None:
    assert _seed({**TEXT, **change}) == _seed(TEXT)


def test_siblings_of_one_group_share_their_derived_seed() -> None:
    one, two = ({**TEXT, "id": name, "seed_group": "scene"} for name in ("a", "b"))
    assert _seed(one) == _seed(two) != _seed(TEXT)


@pytest.mark.parametrize("seed", [0, 1, 2**53, SEED_MAX])
def test_a_row_s_own_seed_is_kept_to_the_last_digit(seed: int) -> None:
    assert _seed({**TEXT, "seed": seed, "seed_group": "scene"}) == seed


# --- refusals -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "column", "message"),
    [
        ({"height": 500}, "height", "is not a multiple of 8; the nearest is 504"),
        ({"width": 67}, "width", "is not a multiple of 8; the nearest is 64"),
        ({"width": 3}, "width", "is not a multiple of 8; the nearest is 8"),
        ({"width": 9999}, "width", "is not a multiple of 8; the nearest is 8192"),
        ({"height": 0}, "height", "is not in 8..8192"),
        ({"height": -8}, "height", "is not in 8..8192"),
        ({"height": 8200}, "height", "is not in 8..8192"),
        ({"num_inference_steps": 0}, "num_inference_steps", f"is not in 1..{STEPS_MAX}"),
        ({"num_inference_steps": STEPS_MAX + 1}, "num_inference_steps", f"is not in 1..{STEPS_MAX}"),
        ({"num_outputs": 0}, "num_outputs", "is not in 1..1024"),
        ({"num_outputs": 1025}, "num_outputs", "is not in 1..1024"),
        ({"seed": -1}, "seed", f"is not in 0..{SEED_MAX}"),
        ({"seed": SEED_MAX + 1}, "seed", f"is not in 0..{SEED_MAX}"),
        ({"guidance_scale": -0.5}, "guidance_scale", "is not in 0..1000"),
        ({"guidance_scale": math.inf}, "guidance_scale", "is not in 0..1000"),
        ({"strength": 0.0}, "strength", "is not over 0 and at most 1"),
        ({"strength": 1.5}, "strength", "is not over 0 and at most 1"),
        ({"strength": math.inf}, "strength", "is not over 0 and at most 1"),
        ({"strength": 0.05}, "strength", "leaves no step of 12; at least 0.0834 is needed"),
        ({"fit": "stretch"}, "fit", "is neither cover nor contain"),
        (
            {"scheduler": "DDIMSheduler"},
            "scheduler",
            "is not a scheduler of Stable Diffusion 1.x/2.x; did you mean DDIMScheduler?",
        ),
        ({"task": "image-to-imge"}, "task", "is not a task; did you mean image-to-image?"),
        ({"task": ""}, "task", "is not a task (text-to-image, "),
        (
            {"task": "text-to-video", "images": None},
            "task",
            "is not served by tiny (Stable Diffusion 1.x/2.x: text-to-image, image-to-image, inpainting)",
        ),
        ({"model": "tinny"}, "model", "is not in the job's models; did you mean tiny?"),
        ({"model": "zzz"}, "model", "is not in the job's models (tiny)"),
        ({"images": None}, "images", "has 0 source(s); the task takes 1"),
        ({"images": []}, "images", "has 0 source(s); the task takes 1"),
        ({"images": ["in/fox.png", "in/sea.png"]}, "images", "has 2 source(s); the task takes 1"),
        ({"images": "../fox.png"}, "images", "is outside sources.allow"),
        ({"mask": "in/mask.png"}, "mask", "is a source the task would ignore"),
        ({"video": "in/a.mp4"}, "video", "is a source the task would ignore"),
        ({"control_image": "in/edge.png"}, "task", "needs models.tiny.controlnet to be a ControlNetModel; it has none"),
        ({"prompt": None}, "prompt", "is missing and has no default; an empty text is a legal prompt"),
        ({"keyframes": [0]}, "keyframes", "would be ignored: the task takes no key frames"),
        ({"num_frames": 17}, "num_frames", "is not taken by image-to-image of Stable Diffusion 1.x/2.x"),
        ({"duration_s": 2.0}, "duration_s", "is not taken by image-to-image of Stable Diffusion 1.x/2.x"),
        ({"fps": 8.0}, "fps", "is not taken by image-to-image of Stable Diffusion 1.x/2.x"),
        ({"loras": [{"name": "ink", "weight": 1.0}]}, "loras", "is not in the job's loras (there are none)"),
        ({"parameters": "{"}, "parameters", "is not JSON"),
        ({"parameters": "[1]"}, "parameters", "is not a JSON object"),
        ({"parameters": '{"seed": 1}'}, "parameters", "holds seed, which image-to-image of this model does not take"),
        ({"parameters": '{"strength": 0.5}'}, "parameters", "holds strength, which is settled by columns"),
        ({"parameters": '{"image": "a"}'}, "parameters", "holds image, which is settled by columns"),
        ({"parameters": '{"clip_skip": 1.5}'}, "parameters", "holds clip_skip = 1.5, which is not of type int"),
        ({"parameters": '{"eta": "1"}'}, "parameters", "holds eta = '1', which is not of type float"),
        (
            {"parameters": '{"clip_skp": 1}'},
            "parameters",
            "holds clip_skp, which image-to-image of this model does not",
        ),
    ],
)
def test_a_row_is_refused_with_its_bound(change: dict[str, Any], column: str, message: str) -> None:
    (fault,) = _faults({**IMAGE, **change})
    assert fault[0] == column
    assert fault[1].startswith(message)


@pytest.mark.parametrize("name", ["guidance_scale", "strength"])
def test_nan_is_refused(name: str) -> None:
    (resolved,), faults = _resolve({**IMAGE, name: math.nan})
    assert resolved is None
    assert [fault.column for fault in faults] == [name]


def test_text_to_image_refuses_a_source_rather_than_ignore_it() -> None:
    assert _faults({**TEXT, "images": ["in/fox.png"]}) == [("images", "has 1 source(s); the task takes 0")]


def test_a_row_without_a_model_is_refused_where_there_are_several() -> None:
    job = _job(models={"tiny": MODEL, "other": MODEL})
    assert _faults(TEXT, job) == [("model", "is missing and has no default; the job has tiny, other")]


def test_a_row_without_a_task_is_refused() -> None:
    ((column, message),) = _faults({"id": "a", "prompt": "p"})
    assert column == "task"
    assert message.startswith("is missing and has no default; defaults.task of the job sets it: text-to-")


def test_a_default_that_the_family_cannot_make_is_refused_too() -> None:
    assert _faults(TEXT, _job(defaults={"height": 500})) == [
        ("height", "is not a multiple of 8; the nearest is 504"),
    ]


def test_the_strength_that_is_named_leaves_a_step() -> None:
    resolver = _resolver(_job())

    def messages(steps: list[int], strengths: list[float]) -> list[str]:
        count = len(steps)
        columns: dict[str, list[Any]] = {name: [value] * count for name, value in IMAGE.items()}
        columns |= {"num_inference_steps": steps, "strength": strengths}
        return [fault.message for fault in resolver.resolve(columns, count, DIGESTS)[1]]

    steps = list(range(1, STEPS_MAX + 1))
    refused = messages(steps, [1e-6] * len(steps))
    assert len(refused) == len(steps)
    named = [float(message.split("at least ")[1].split()[0]) for message in refused]
    assert messages(steps, named) == []
    assert all(int(count * strength) >= 1 for count, strength in zip(steps, named, strict=True))


def test_a_fault_names_the_value_that_was_found() -> None:
    job = _job(defaults={"width": 30})
    _, faults = _resolve({**IMAGE, "height": 500, "images": ["../plan.png"]}, job=job)
    assert {fault.column: fault.value for fault in faults} == {"height": 500, "width": 30, "images": "../plan.png"}


def test_a_faulty_row_leaves_its_neighbours() -> None:
    rows, faults = _resolve(TEXT, {**TEXT, "height": 500}, {**TEXT, "height": 500}, {**TEXT, "id": "d"})
    assert [row is None for row in rows] == [False, True, True, False]
    assert [fault.offset for fault in faults] == [1, 2]


def test_a_row_with_several_faults_tells_all_of_them() -> None:
    row = {
        "id": "a",
        "task": "image-to-image",
        "height": 500,
        "width": 30,
        "num_inference_steps": 0,
        "guidance_scale": -1.0,
        "strength": 2.0,
        "fit": "stretch",
        "scheduler": "Nope",
        "num_outputs": 0,
        "seed": -1,
        "images": None,
        "mask": "in/mask.png",
        "video": "../a.mp4",
        "fps": 8.0,
    }
    assert {column for column, _ in _faults(row)} == {*row, "prompt"} - {"id", "task"}


@pytest.mark.parametrize(
    "other",
    [{"model": "tinny"}, {"task": "image-to-imge"}, {"task": "text-to-video"}],
    ids=["unknown model", "unknown task", "task not served"],
)
@pytest.mark.parametrize(
    "change",
    [
        {"num_inference_steps": 0},
        {"num_inference_steps": STEPS_MAX + 1},
        {"guidance_scale": -1.0},
        {"strength": 2.0},
        {"fit": "stretch"},
        {"num_outputs": 0},
        {"seed": -1},
        {"prompt": None},
        {"fps": -8.0},
        {"images": ["../fox.png"]},
    ],
    ids=["no steps", "steps", "guidance", "strength", "fit", "outputs", "seed", "prompt", "fps", "images"],
)
def test_a_fault_beside_a_wrong_model_or_task_is_told(change: dict[str, Any], other: dict[str, Any]) -> None:
    assert {column for column, _ in _faults({**IMAGE, **change, **other})} == {*change, *other}


def test_faults_come_in_the_order_of_the_rows() -> None:
    _, faults = _resolve({**TEXT, "seed": -1}, {**TEXT, "fps": 8.0}, {**TEXT, "height": 500})
    assert [(fault.offset, fault.column) for fault in faults] == [(0, "seed"), (1, "fps"), (2, "height")]


# --- sources --------------------------------------------------------------------------------------------------------


def test_only_sources_that_may_be_opened_are_asked_for() -> None:
    columns: dict[str, list[Any]] = {
        "images": [["in/fox.png", None], "in/sea.png", None, ["../plan.png"]],
        "mask": ["in/mask.png"],
    }
    assert _resolver(_job()).source_urls(columns) == {f"/brand/in/{name}.png" for name in ("fox", "sea", "mask")}


def test_a_source_that_is_not_there_is_planned_with_a_marker() -> None:
    (source,) = _one(IMAGE, digests={}).sources
    assert source.digest == "missing"
