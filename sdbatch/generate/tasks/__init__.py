"""The arguments that each task passes to its pipeline: a task is one file here and one row."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from sdbatch.families import Route
from sdbatch.generate.tasks import (
    image_to_image,
    image_to_video,
    inpainting,
    text_to_image,
    text_to_video,
    video_to_video,
)

CALLS: Final[Mapping[str, Callable[[Route, Sequence[Any]], list[dict[str, Any]]]]] = {
    "text-to-image": text_to_image.arguments,
    "image-to-image": image_to_image.arguments,
    "inpainting": inpainting.arguments,
    "text-to-video": text_to_video.arguments,
    "image-to-video": image_to_video.arguments,
    "video-to-video": video_to_video.arguments,
}
"""Functions by task. Each returns the arguments of a call for a batch of items, without generators and output type.

It returns the arguments of one call, or of several calls whose clips are joined: each begins with the frame with which
the one before ended, and that frame is kept once.
"""
