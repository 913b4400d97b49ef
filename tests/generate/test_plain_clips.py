"""Clips are what diffusers alone makes of their rows: the class that the route names, the row's arguments and its seed.

row --> sdbatch --> frames (and sound)
row --> a call of the pipeline as its documentation has it, written here by hand --> the same frames
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import diffusers
import numpy as np
import pytest
import torch
from PIL import Image
from support.studio import KANDINSKY_TEXT, LTX2_BLOCKS, Case, Pixels, Studio, base_row, clip, difference, picture

T, I, V = "text-to-video", "image-to-video", "video-to-video"  # noqa: E741  as the tasks are shortened everywhere


class Plain(NamedTuple):
    """A route, and its call by hand.

    Attributes:
        case: The model, its task and what a row of it says.
        pipeline: diffusers class.
        source: Argument of the sources; of one image, where there is one.
        more: Returns further arguments from the images.
    """

    case: Case
    pipeline: str
    source: str = ""
    more: Callable[[Sequence[Image.Image]], dict[str, Any]] = lambda _: {}


def _ltx_conditions(images: Sequence[Image.Image]) -> dict[str, Any]:
    from diffusers.pipelines.ltx.pipeline_ltx_condition import LTXVideoCondition

    return {
        "conditions": [LTXVideoCondition(image=one, frame_index=at) for one, at in zip(images, (0, 8), strict=True)]
    }


def _ltx2_conditions(images: Sequence[Image.Image]) -> dict[str, Any]:
    from diffusers.pipelines.ltx2.pipeline_ltx2_condition import LTX2VideoCondition

    latent = (8 - 1) / 8 + 1  # it counts latent frames, of which the second one begins at frame 1
    placed = zip(images, (0, latent), strict=True)
    return {"conditions": [LTX2VideoCondition(frames=one, index=at) for one, at in placed]}


def _vace_frames(images: Sequence[Image.Image]) -> dict[str, Any]:
    first, last = images
    frames = [first, *[Image.new("RGB", first.size, (128, 128, 128))] * 3, last]
    return {"video": frames, "mask": [Image.new("L", first.size, value) for value in (0, 255, 255, 255, 0)]}


NINE: dict[str, Any] = {"num_frames": 9}
LTX2: dict[str, Any] = {**NINE, "fps": 24.0, "parameters": LTX2_BLOCKS}
KANDINSKY: dict[str, Any] = {"num_frames": 17, "parameters": KANDINSKY_TEXT}
FOUR: dict[str, Any] = {"num_frames": 4}
KEYS: dict[str, Any] = {**NINE, "keyframes": [0, 8]}
HALF: dict[str, Any] = {"strength": 0.5}

ARGUMENTS = ("prompt", "negative_prompt", "num_inference_steps", "guidance_scale", "strength")
"""Columns that are arguments by the same name."""

PLAIN = (
    Plain(Case(model="animatediff", task=T, row=FOUR, size=32), "AnimateDiffPipeline"),
    Plain(
        Case(model="animatediff", task=V, video=True, row={**FOUR, **HALF}, size=32),
        "AnimateDiffVideoToVideoPipeline",
        "video",
    ),
    Plain(
        Case(model="sparsectrl", task=I, images=2, row={**FOUR, "keyframes": [0, 3]}, size=32),
        "AnimateDiffSparseControlNetPipeline",
        more=lambda images: {"conditioning_frames": images, "controlnet_frame_indices": [0, 3]},
    ),
    Plain(
        Case(model="svd", task=I, images=1, row={**FOUR, "fps": 12.0}, unread=frozenset({"prompt"})),
        "StableVideoDiffusionPipeline",
        "image",
        lambda _: {"fps": 12},
    ),
    Plain(Case(model="wan-t2v", task=T), "WanPipeline"),
    Plain(Case(model="wan-t2v", task=V, video=True, row=HALF), "WanVideoToVideoPipeline", "video"),
    Plain(Case(model="wan-t2v-a14b", task=T, row={"parameters": '{"guidance_scale_2": 2.0}'}), "WanPipeline"),
    Plain(Case(model="wan-ti2v", task=I, images=1), "WanImageToVideoPipeline", "image"),
    Plain(Case(model="wan-i2v", task=I, images=1), "WanImageToVideoPipeline", "image"),
    Plain(
        Case(model="wan-flf2v", task=I, images=2),
        "WanImageToVideoPipeline",
        "image",
        lambda images: {"last_image": images[1]},
    ),
    Plain(Case(model="wan-vace", task=I, images=2, row={"keyframes": [0, 4]}), "WanVACEPipeline", more=_vace_frames),
    Plain(Case(model="ltx", task=T, row={**NINE, "fps": 12.5}), "LTXPipeline", more=lambda _: {"frame_rate": 12.5}),
    Plain(Case(model="ltx", task=I, images=1, row=NINE), "LTXImageToVideoPipeline", "image"),
    Plain(Case(model="ltx", task=I, images=2, row=KEYS), "LTXConditionPipeline", more=_ltx_conditions),
    Plain(Case(model="ltx-told-time", task=T, row=NINE), "LTXPipeline"),
    Plain(Case(model="ltx-told-time", task=I, images=1, row=NINE), "LTXImageToVideoPipeline", "image"),
    Plain(Case(model="ltx2", task=T, row=LTX2), "LTX2Pipeline"),
    Plain(Case(model="ltx2", task=I, images=2, row={**LTX2, **KEYS}), "LTX2ConditionPipeline", more=_ltx2_conditions),
    Plain(Case(model="cogvideox", task=T, row=NINE), "CogVideoXPipeline"),
    Plain(Case(model="cogvideox", task=V, video=True, row={**NINE, **HALF}), "CogVideoXVideoToVideoPipeline", "video"),
    Plain(Case(model="cogvideox-1.5", task=T, row=NINE), "CogVideoXPipeline"),
    Plain(Case(model="cogvideox-i2v", task=I, images=1, row=NINE), "CogVideoXImageToVideoPipeline", "image"),
    Plain(Case(model="hunyuan", task=T), "HunyuanVideo15Pipeline"),
    Plain(Case(model="hunyuan-i2v", task=I, images=1), "HunyuanVideo15ImageToVideoPipeline", "image"),
    Plain(Case(model="kandinsky", task=T, row=KANDINSKY), "Kandinsky5T2VPipeline"),
    Plain(Case(model="kandinsky-i2v", task=I, images=1, row=KANDINSKY), "Kandinsky5I2VPipeline", "image"),
)


@pytest.mark.parametrize("plain", PLAIN, ids=[f"{plain.case.model} {plain.pipeline}" for plain in PLAIN])
def test_a_clip_is_what_diffusers_alone_makes_of_its_row(plain: Plain, studio: Callable[[str], Studio]) -> None:
    made = studio(plain.case.model)
    row = {**base_row(plain.case), "guidance_scale": 4.0, "num_inference_steps": 3}
    is_single = made.info.family.route_of(made.item(row).recipe).rows == "single"
    neighbour = {**row, "seed": 2, **({} if "prompt" in plain.case.unread else {"prompt": "zz blue sky"})}

    output = made.batch(row, *([] if is_single else [neighbour])).outputs[0]
    frames, samples = _by_hand(plain, row, made.info.path)

    assert output.frames_FHWC.shape == frames.shape
    assert difference(output.frames_FHWC, frames) <= 1
    assert difference(made.make({**row, "seed": 3})[0], frames) > 1
    if samples is not None:
        assert output.sound is not None
        np.testing.assert_allclose(output.sound.samples_CT, samples, atol=1e-5)


def test_a_row_without_guidance_has_that_of_the_model_s_own_guider(studio: Callable[[str], Studio]) -> None:
    plain = Plain(Case(model="hunyuan-distilled", task=T), "HunyuanVideo15Pipeline")
    made, row = studio("hunyuan-distilled"), base_row(plain.case)

    frames, _ = _by_hand(plain, row, made.info.path)

    assert difference(made.make(row)[0], frames) <= 1
    assert difference(made.make({**row, "guidance_scale": 6.0})[0], frames) > 1
    assert made.item({**row, "guidance_scale": 6.0}).recipe.guidance_scale == 6.0


def _by_hand(plain: Plain, row: dict[str, Any], folder: str) -> tuple[Pixels, Any]:
    """Return the frames, and the samples of sound, of a call of the pipeline."""
    pipeline = getattr(diffusers, plain.pipeline).from_pretrained(folder)
    pipeline.set_progress_bar_config(disable=True)
    size = (row["height"], row["width"])
    images = [Image.fromarray(picture(int(name), size)) for name in row.get("images", ())]
    arguments = {
        **{name: row[name] for name in ARGUMENTS if name in row},
        **json.loads(row.get("parameters", "{}")),
        **plain.more(images),
    }
    if plain.source == "image":
        arguments["image"] = images[0]
    if plain.source == "video":
        arguments["video"] = [Image.fromarray(frame) for frame in clip(int(row["video"]), row["num_frames"], size)]
    else:
        arguments["num_frames"] = row["num_frames"]
    if plain.pipeline == "StableVideoDiffusionPipeline":
        arguments["max_guidance_scale"] = arguments.pop("guidance_scale")
    if plain.case.model.startswith("hunyuan") and "guidance_scale" in row:
        pipeline.guider = pipeline.guider.new(guidance_scale=arguments.pop("guidance_scale"))
    if plain.case.model != "hunyuan-i2v":  # it makes a size of its own, near the image's: the same one here
        arguments |= {"height": size[0], "width": size[1]}
    torch.manual_seed(row["seed"])  # SparseCtrl samples its key frames' latents with torch's own generator
    generator = torch.Generator("cpu").manual_seed(row["seed"])
    made = pipeline(**arguments, generator=generator, output_type="np")
    samples = made.audio[0].float().numpy() if hasattr(made, "audio") else None
    return (made.frames[0] * 255).round().astype(np.uint8), samples
