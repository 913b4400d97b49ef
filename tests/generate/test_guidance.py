"""Rows with guidance of their own in one call, and a VAE that decodes some rows at a time."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import diffusers
import numpy as np
import pytest
import support.toy_models
import support.toy_newer
import torch
from support.revisions import PINNED
from support.studio import Case, Studio, base_row, difference, resolve
from torch.utils._python_dispatch import TorchDispatchMode

from sdbatch.families import FAMILIES
from sdbatch.generate import decoding
from sdbatch.generate.batch import make_batch, set_threads
from sdbatch.generate.guidance import PerRow
from sdbatch.generate.item import Item
from sdbatch.generate.load import LoadedModel, load_model
from sdbatch.generate.random_weights import make_tiny_random
from sdbatch.job import Model
from sdbatch.recipe import recipe_from

PICTURES: dict[str, Callable[[Path], None]] = {
    "Stable Diffusion 1.x/2.x": make_tiny_random,
    "Stable Diffusion XL": support.toy_models.make_tiny_sdxl,
    "Stable Diffusion 3/3.5": support.toy_models.make_tiny_sd3,
    "Chroma": support.toy_models.make_tiny_chroma,
    "Sana": support.toy_models.make_tiny_sana,
    "AuraFlow 0.3": support.toy_newer.make_tiny_aura_flow,
}
CLIPS = [
    Case(model="wan-t2v", task="text-to-video"),
    Case(model="ltx", task="text-to-video", row={"num_frames": 9}),
    Case(model="cogvideox", task="text-to-video", row={"num_frames": 9}),
    Case(model="cogvideox", task="text-to-video", row={"num_frames": 9, "parameters": '{"use_dynamic_cfg": true}'}),
]

SHOWN_AS_CLIPS = {"CogVideoX", "LTX-Video", "Wan 2.1 T2V"}


def _load(name: str, folder: Path) -> LoadedModel:
    set_threads(1)
    PICTURES[name](folder)
    return load_model(name, Model(path=str(folder), revision=PINNED), PINNED, {})


def _item(seed: int, guidance_scale: float = 4.0, **changes: Any) -> Item:
    recipe = {
        "task": "text-to-image",
        "prompt": f"a beach {seed}",
        "negative_prompt": "",
        "height": 64,
        "width": 64,
        "num_inference_steps": 2,
        "guidance_scale": guidance_scale,
        "parameters": {},
        **changes,
    }
    return Item(recipe=recipe_from(recipe), seed=seed)


def test_every_family_whose_rows_may_have_guidance_of_their_own_is_tried_here() -> None:
    """By one of its classes at least: a family's other tasks, and families that share a class, are guided alike."""
    classes = {
        family.title: {route.pipeline for routes in family.tasks.values() for route in routes if route.per_row_guidance}
        for family in FAMILIES.values()
    }
    tried = set().union(*(classes[title] for title in (*PICTURES, *SHOWN_AS_CLIPS)))

    assert not [title for title, names in classes.items() if names and not names & tried]


@pytest.mark.parametrize("name", PICTURES)
def test_a_picture_is_bitwise_the_same_beside_other_guidance(name: str, tmp_path: Path) -> None:
    model = _load(name, tmp_path)
    mixed = [_item(seed, scale) for seed, scale in enumerate((2.0, 3.3, 7.5))]
    rows_interact = next(iter(model.family.tasks.values()))[0].rows_interact

    together = [output.frames_FHWC for output in make_batch(model, mixed, None).outputs]
    for index, item in enumerate(mixed):
        same = [_item(seed, item.recipe.guidance_scale or 0.0) for seed in range(3)]
        alone = make_batch(model, same, None).outputs[index].frames_FHWC
        assert difference(alone, together[index]) <= rows_interact
        other = make_batch(model, [_item(seed, 20.0) for seed in range(3)], None).outputs[index].frames_FHWC
        assert difference(other, together[index]) > 2, "guidance moves nothing"


def test_guidance_that_the_denoiser_reads_is_each_row_s_own(tmp_path: Path) -> None:
    """A UNet that was distilled with guidance (LCM) is given one for the whole call."""
    make_tiny_random(tmp_path)
    plain = diffusers.UNet2DConditionModel.from_pretrained(tmp_path / "unet")
    torch.manual_seed(0)
    distilled = diffusers.UNet2DConditionModel.from_config({**plain.config, "time_cond_proj_dim": 16})
    distilled.load_state_dict(plain.state_dict(), strict=False)
    distilled.save_pretrained(tmp_path / "unet")
    model = load_model("tiny", Model(path=str(tmp_path), revision=PINNED), PINNED, {})
    items = [_item(seed, scale, num_inference_steps=4) for seed, scale in enumerate((2.0, 8.0, 2.0))]

    together = [output.frames_FHWC for output in make_batch(model, items, None).outputs]
    alone = [make_batch(model, [item], None).outputs[0].frames_FHWC for item in items]
    assert all(difference(*pair) <= 1 for pair in zip(together, alone, strict=True))
    other = make_batch(model, [_item(0, 8.0, num_inference_steps=4)], None).outputs[0].frames_FHWC
    assert difference(other, together[0]) > 2, "guidance moves nothing"
    model.options = model.options.model_copy(update={"guidance_interval": (0.0, 0.25)})  # its pass has no second half
    partly = [output.frames_FHWC for output in make_batch(model, items, None).outputs]
    assert all(difference(*pair) <= 1 for pair in zip(partly, together, strict=True))


@pytest.mark.parametrize("case", CLIPS, ids=[f"{case.name} {case.row}" for case in CLIPS])
def test_a_clip_is_the_same_beside_other_guidance(case: Case, studio: Callable[[str], Studio]) -> None:
    made = studio(case.model)
    rows = [{**base_row(case), "seed": seed, "guidance_scale": scale} for seed, scale in ((1, 2.0), (2, 6.5))]
    together = made.make(*rows)

    for row, frames in zip(rows, together, strict=True):
        assert difference(made.make(row)[0], frames) <= 1
    assert difference(made.make({**rows[0], "guidance_scale": 6.5})[0], together[0]) > 2, "guidance moves nothing"


def test_the_batch_key_leaves_guidance_out_where_rows_may_have_their_own(studio: Callable[[str], Studio]) -> None:
    info = studio("wan-t2v").info
    row = base_row(CLIPS[0])
    guided, other, plain = resolve(info, *({**row, "guidance_scale": scale} for scale in (2.0, 6.5, 1.0)))[0]

    assert guided.batch_key == other.batch_key
    assert guided.request_key != other.request_key
    assert guided.batch_key != plain.batch_key  # without guidance the denoiser runs once, not twice


def test_a_bound_between_rows_is_never_passed_over() -> None:
    assert PerRow((2.0, 3.0)) > 1
    with pytest.raises(AssertionError, match="both sides"):
        bool(PerRow((0.5, 3.0)) > 1)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_product_has_the_bits_of_the_plain_number(dtype: torch.dtype) -> None:
    values = torch.randn(2, 3, 50, generator=torch.Generator().manual_seed(1)).to(dtype)
    product = PerRow((0.7, 7.3)) * values

    assert torch.equal(product[0], 0.7 * values[0])
    assert torch.equal(product[1], 7.3 * values[1])


@pytest.mark.parametrize("pad_to", [None, 6], ids=["fast", "exact"])
def test_pictures_are_decoded_some_at_a_time_and_stay_the_same(
    pad_to: int | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = _load("Stable Diffusion 1.x/2.x", tmp_path)
    items = [_item(seed) for seed in range(5)]
    whole = [output.frames_FHWC for output in make_batch(model, items, pad_to).outputs]
    sizes: list[int] = []
    vae = model.pipeline(model.family.tasks["text-to-image"][0], "").vae
    hook = vae.decoder.register_forward_hook(lambda _module, inputs, _output: sizes.append(len(inputs[0])))
    monkeypatch.setattr(decoding, "DECODED_PIXELS_MAX", 4 * 64 * 64)
    parts = [output.frames_FHWC for output in make_batch(model, items, pad_to).outputs]
    first = make_batch(model, items[:1], pad_to).outputs[0].frames_FHWC
    hook.remove()

    assert sizes == ([3, 3, 3, 3] if pad_to else [3, 2, 1])
    assert max(difference(one, two) for one, two in zip(whole, parts, strict=True)) <= 1
    assert pad_to is None or np.array_equal(first, parts[0])


def test_no_negative_prompt_is_what_sdxl_makes_of_none_and_not_of_an_empty_text(tmp_path: Path) -> None:
    model = _load("Stable Diffusion XL", tmp_path)
    plain = diffusers.StableDiffusionXLPipeline.from_pretrained(tmp_path, use_safetensors=True)
    plain.set_progress_bar_config(disable=True)

    def picture(**negative: str) -> Any:
        return plain(
            prompt="a beach 1",
            height=64,
            width=64,
            num_inference_steps=2,
            guidance_scale=4.0,
            generator=torch.Generator("cpu").manual_seed(1),
            **negative,
        ).images[0]

    ours, other = (
        make_batch(model, [_item(1, negative_prompt=negative)], None).outputs[0].frames_FHWC[0]
        for negative in ("", "rain")
    )

    assert difference(np.asarray(picture(negative_prompt="")), np.asarray(picture())) > 2
    assert difference(ours, np.asarray(picture())) <= 1
    assert difference(other, np.asarray(picture(negative_prompt="rain"))) <= 1


class _Steps(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts operations by their name; `lift_fresh` stands for numbers that are sent to a device."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.counted: Counter[str] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.counted[str(func)] += 1
        return func(*args, **(kwargs or {}))


def _waits(model: Any, steps: int) -> Counter[str]:
    counting = _Steps()
    with counting:
        more = {"num_inference_steps": steps, "scheduler": "EulerDiscreteScheduler"}
        make_batch(model, [_item(seed, 2.0 + seed, **more) for seed in range(2)], None)
    return counting.counted


def test_a_step_sends_no_guidance_to_the_device_and_reads_no_number_back(tmp_path: Path) -> None:
    model = _load("Stable Diffusion 1.x/2.x", tmp_path)
    _waits(model, 2)

    few, many = _waits(model, 2), _waits(model, 6)

    sent, read = "aten.lift_fresh.default", "aten.item.default"
    assert few[sent] > 0, "nothing was counted"
    assert (many[sent], many[read]) == (few[sent], few[read])
