"""Converts arguments for pipelines with a form of their own: a route names its adapter, a function and a row here.

pipeline + arguments under diffusers' names + recipe --> adapt() --> arguments the pipeline takes
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Mapping
from typing import Any, Final

import numpy as np
from PIL import Image

from sdbatch.errors import PromptTooLong
from sdbatch.recipe import Recipe

Arguments = dict[str, Any]


def adapt(name: str, pipeline: Any, arguments: Arguments, recipe: Recipe) -> Arguments:
    """Return the arguments as a pipeline takes them.

    Args:
        name: The route's adapter; "" for none.
        pipeline: Pipeline that will be called; some adapters set it up for the call.
        arguments: Arguments from the task's file.
        recipe: A recipe of the call; what adapters read of it is equal in all rows.
    """
    return ADAPTERS[name](pipeline, arguments, recipe) if name else arguments


def _ltx_conditions(_pipeline: Any, arguments: Arguments, recipe: Recipe) -> Arguments:
    from diffusers.pipelines.ltx.pipeline_ltx_condition import LTXVideoCondition

    placed = zip(arguments["conditions"], recipe.keyframes, strict=True)
    conditions = [LTXVideoCondition(image=image, frame_index=frame) for image, frame in placed]
    return {**arguments, "conditions": conditions}


def _ltx2_conditions(pipeline: Any, arguments: Arguments, recipe: Recipe) -> Arguments:
    """Place images at frames: the pipeline counts latent frames, 0, 1, 9, 17..., and takes what lies between."""
    from diffusers.pipelines.ltx2.pipeline_ltx2_condition import LTX2VideoCondition

    factor = pipeline.vae_temporal_compression_ratio
    placed = zip(arguments["conditions"], recipe.keyframes, strict=True)
    conditions = [
        LTX2VideoCondition(frames=image, index=(frame - 1) / factor + 1 if frame else 0) for image, frame in placed
    ]
    return {**arguments, "conditions": conditions}


def _ltx_latents(pipeline: Any, arguments: Arguments, recipe: Recipe) -> Arguments:
    """Encode clips to latents: a whole clip as a condition of full strength would come back unchanged."""
    vae = pipeline.vae
    video_BCFHW = pipeline.video_processor.preprocess_video([arguments["latents"]], recipe.height, recipe.width)
    device = pipeline._execution_device  # noqa: SLF001  an offloaded VAE lies elsewhere until it is called
    encoded = vae.encode(video_BCFHW.to(device, vae.dtype)).latent_dist.mode().float()
    mean, std = (values.view(1, -1, 1, 1, 1).float() for values in (vae.latents_mean, vae.latents_std))
    return {**arguments, "latents": (encoded - mean) * vae.config.scaling_factor / std}


def _vace_keyframes(_pipeline: Any, arguments: Arguments, recipe: Recipe) -> Arguments:
    """Lay key frames into a grey clip, and mask all other frames so that they are generated."""
    size = (recipe.width, recipe.height)
    given = dict(zip(recipe.keyframes, arguments["video"], strict=True))
    frames = range(arguments["num_frames"])
    grey = Image.new("RGB", size, (128, 128, 128))
    kept, generated = (Image.new("L", size, value) for value in (0, 255))
    return {
        **arguments,
        "video": [given.get(frame, grey) for frame in frames],
        "mask": [kept if frame in given else generated for frame in frames],
    }


def _hunyuan(pipeline: Any, arguments: Arguments, recipe: Recipe) -> Arguments:
    """Set guidance, which is a component here, and decode row by row: the VAE's mask fits one row alone (0.42.1).

    From an image the pipeline would choose a size of its own, near the source's shape; it is given the recipe's size.
    """
    size = (recipe.height, recipe.width)
    pipeline.guider = pipeline.guider.new(guidance_scale=recipe.guidance_scale)
    pipeline.vae.enable_slicing()
    pipeline.video_processor.calculate_default_height_width = lambda **_: size
    return arguments


def _motion_schedule(pipeline: Any, arguments: Arguments, recipe: Recipe) -> Arguments:
    """Give a Stable Diffusion folder's scheduler the noise levels that motion adapters were trained on.

    What the row's scheduler says itself stays.
    """
    scheduler = pipeline.scheduler
    trained = {"beta_schedule": "linear", "timestep_spacing": "linspace", "clip_sample": False, "steps_offset": 1}
    said = recipe.more.get("scheduler_options", {})
    pipeline.scheduler = scheduler.from_config(
        scheduler.config, **{name: value for name, value in trained.items() if name not in said}
    )
    return arguments


def _guiders(pipeline: Any, arguments: Arguments, recipe: Recipe) -> Arguments:
    """Set guidance where it is a component, and another one for prompts with words to be written."""
    for name in ("guider", "ocr_guider"):
        if guider := getattr(pipeline, name):
            setattr(pipeline, name, guider.new(guidance_scale=recipe.guidance_scale))
    return arguments


def _own_size(pipeline: Any, arguments: Arguments, recipe: Recipe) -> Arguments:
    """Let a pipeline make the row's own size: HiDream would make every picture as large as 1024 x 1024 (0.42.1).

    It scales a size to the area of its default one, and rounds down; so it is given the row's, and a hair more.
    """
    pipeline.default_sample_size = math.sqrt(recipe.height * recipe.width) * (1 + 1e-9) / pipeline.vae_scale_factor
    return arguments


def _own_sigmas(pipeline: Any, arguments: Arguments, recipe: Recipe) -> Arguments:
    """Give the noise levels of a row's own steps, where the folder's would silently stand for another number of them.

    Qwen-Image 2.1 takes `sample_sigmas` of its model_index.json, and their number for the steps (0.42.1).
    """
    stated = pipeline.config.get("sample_sigmas")
    steps = recipe.num_inference_steps
    if stated is None or len(stated) == steps:
        return arguments
    return {**arguments, "sigmas": np.linspace(1.0, 1 / steps, steps).tolist()}


def _whole_prompt(pipeline: Any, arguments: Arguments, _recipe: Recipe) -> Arguments:
    """Refuse a prompt that does not fit beside its picture: Kandinsky 5 would cut off the picture's place (0.42.1).

    Raises:
        PromptTooLong: When the prompt or the negative prompt takes more tokens than are left of the picture.
    """
    own = inspect.signature(pipeline.__call__).parameters["max_sequence_length"].default
    most = arguments.get("max_sequence_length", own) + pipeline.prompt_template_encode_start_idx
    image = arguments["image"]
    half = image.resize((image.width // 2, image.height // 2))
    for name in ("prompt", "negative_prompt"):
        text = pipeline.prompt_template.format(arguments[name])
        taken = len(pipeline.tokenizer(text=[text], images=[half])["input_ids"][0])
        if taken > most:
            said = name.replace("_", " ")
            raise PromptTooLong(f"{said} and picture take {taken} tokens, and {most} are read; shorten the {said}")
    return arguments


ADAPTERS: Final[Mapping[str, Callable[[Any, Arguments, Recipe], Arguments]]] = {
    "guiders": _guiders,
    "hunyuan": _hunyuan,
    "ltx-conditions": _ltx_conditions,
    "ltx-latents": _ltx_latents,
    "ltx2-conditions": _ltx2_conditions,
    "motion-schedule": _motion_schedule,
    "own-sigmas": _own_sigmas,
    "own-size": _own_size,
    "vace-keyframes": _vace_keyframes,
    "whole-prompt": _whole_prompt,
}
"""Adapters by the name that a route gives."""
