"""What a careful user writes with diffusers for mixed rows; each arm only divides the rows in its own way.

    groups of rows that one call can make --> Pictures.render(group) --> files

No process reads a source twice at one size, and every model is loaded once and stays.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import AnimateDiffPipeline, StableDiffusionImg2ImgPipeline, StableDiffusionPipeline
from imageio_ffmpeg import write_frames
from PIL import Image, ImageOps

from benchmarks.mixed.grouping import groups


@functools.cache
def source(path: str, width: int, height: int) -> Image.Image:
    """Return a source at the size of a row."""
    with Image.open(path) as image:
        return ImageOps.fit(image.convert("RGB"), (width, height), Image.Resampling.LANCZOS)


def save_clip(frames: Sequence[Image.Image], file: Path, fps: float) -> None:
    """Write a clip as diffusers' `export_to_video` does, which is a line around this writer."""
    writer = write_frames(str(file), frames[0].size, fps=fps)
    writer.send(None)
    for frame in frames:
        writer.send(np.asarray(frame))
    writer.close()


class Pictures:
    """Renders groups; every model is loaded once and stays.

    Args:
        models: Folder of the models' folders.
        output: Folder of the files.
    """

    def __init__(self, models: Path, output: Path) -> None:
        torch.set_num_threads(1)
        self._models = models
        self._output = output
        self._pipelines: dict[tuple[str, str], Any] = {}

    def render(self, rows: Sequence[dict[str, Any]]) -> None:
        """Make the files of one group."""
        first = rows[0]
        pipe = self._pipeline(first["model"], first["task"])
        arguments: dict[str, Any] = {
            "prompt": [row["prompt"] for row in rows],
            "num_inference_steps": int(first["num_inference_steps"]),
            "guidance_scale": float(first["guidance_scale"]),
            "generator": [torch.Generator("cpu").manual_seed(int(row["seed"])) for row in rows],
        }
        width, height = int(first["width"]), int(first["height"])
        if first["task"] == "text-to-video":
            for row, frames in zip(rows, self._frames(pipe, arguments, first), strict=True):
                save_clip(frames, self._output / f"{row['id']}.mp4", float(row["fps"]))
            return
        if first["task"] == "image-to-image":
            arguments |= {
                "image": [source(row["images"][0], width, height) for row in rows],
                "strength": float(first["strength"]),
            }
        else:
            arguments |= {"height": height, "width": width}
        for row, image in zip(rows, pipe(**arguments).images, strict=True):
            image.save(self._output / f"{row['id']}.png")

    def _frames(self, pipe: Any, arguments: dict[str, Any], first: dict[str, Any]) -> Any:
        size = {name: int(first[name]) for name in ("height", "width", "num_frames")}
        return pipe(**arguments, **size).frames

    def _pipeline(self, name: str, task: str) -> Any:
        if (name, task) not in self._pipelines:
            folder = self._models / name
            if task == "text-to-video":
                pipe = AnimateDiffPipeline.from_pretrained(folder)
            elif task == "text-to-image":
                pipe = StableDiffusionPipeline.from_pretrained(folder)
            else:
                pipe = StableDiffusionImg2ImgPipeline(**self._pipeline(name, "text-to-image").components)
            pipe.set_progress_bar_config(disable=True)
            self._pipelines[name, task] = pipe
        return self._pipelines[name, task]


def loop(manifest: Path, models: Path, output: Path) -> None:
    """Render a manifest in one process, group by group."""
    pictures = Pictures(models, output)
    for group in groups(manifest):
        pictures.render(group)
