"""The file formats that assets are written in: one more is one row here.

    job's `encode` --> PICTURES[suffix] or CLIPS[suffix] --> encode/ writes it, checks it, and reads it back

Plain values, so that the job file's choices come from here without Pillow or ffmpeg. A format that Pillow or ffmpeg
writes needs no code; `encode/` has the few ways in which files differ.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Literal


@dataclass(frozen=True, slots=True, kw_only=True)
class PictureFormat:
    """The way one kind of picture file is written.

    Attributes:
        pillow: Pillow's name of the format.
        media_type: For the store and the metadata.
        recipe_in: Where the recipe stands: `text` for PNG's text chunks, `exif` for EXIF's UserComment. What has text
            chunks is written by `encode/` itself.
        options: Settings of the job's `encode` that Pillow's `save` is given, by the same name.
        save: Further arguments of `save`.
        save_lossless: What they are where `lossless` is set.
        has_density: Whether the file can say how many pixels an inch of print has.
    """

    pillow: str
    media_type: str
    recipe_in: Literal["text", "exif"] = "exif"
    options: tuple[str, ...] = ()
    save: Mapping[str, Any] = field(default_factory=dict)
    save_lossless: Mapping[str, Any] = field(default_factory=dict)
    has_density: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class ClipFormat:
    """The way ffmpeg writes one kind of clip file.

    Attributes:
        media_type: For the store and the metadata.
        muxer: ffmpeg's name for writing it.
        demuxer: ffmpeg's name for reading it.
        codec: Name of the video codec, for people.
        video: Video encoder and its settings but the quality.
        crf: Rate factor where the job names none, lower is better; None for a codec that takes none.
        sound: Sound encoder and its settings.
        pixels: ffmpeg's pixel format.
        more: Further arguments for the muxer.
        size_multiple: Height and width are multiples of this.
        xmp_in: Where XMP stands: `box` for a box at the end, `tags` for the container's tags.
    """

    media_type: str
    muxer: str
    demuxer: str
    codec: str
    video: tuple[str, ...]
    crf: int | None
    sound: tuple[str, ...]
    pixels: str = "yuv420p"
    more: tuple[str, ...] = ()
    size_multiple: int = 1
    xmp_in: Literal["box", "tags"] = "tags"


PICTURES: Final[Mapping[str, PictureFormat]] = {
    "png": PictureFormat(pillow="PNG", media_type="image/png", recipe_in="text", has_density=True),
    "jpg": PictureFormat(pillow="JPEG", media_type="image/jpeg", options=("quality",), has_density=True),
    "webp": PictureFormat(
        pillow="WEBP",
        media_type="image/webp",
        options=("quality", "lossless"),
        save={"method": 4},
        save_lossless={"method": 0},
    ),
    "avif": PictureFormat(pillow="AVIF", media_type="image/avif", options=("quality",)),
}

CLIPS: Final[Mapping[str, ClipFormat]] = {
    "mp4": ClipFormat(
        media_type="video/mp4",
        muxer="mp4",
        demuxer="mov",
        codec="H.264",
        video=("libx264", "-preset", "medium", "-threads", "1"),
        crf=18,
        sound=("aac", "-b:a", "192k"),
        more=("-movflags", "+faststart"),
        size_multiple=2,
        xmp_in="box",
    ),
    "webm": ClipFormat(
        media_type="video/webm",
        muxer="webm",
        demuxer="matroska",
        codec="AV1",
        video=("libsvtav1", "-preset", "8", "-svtav1-params", "lp=1"),
        crf=30,
        sound=("libopus", "-b:a", "160k"),
    ),
}


def taking(option: str) -> str:
    """Return the picture formats that an option of the job's `encode` is for, as a phrase."""
    *others, last = [suffix for suffix, one in PICTURES.items() if option in one.options]
    return f"{', '.join(others)} and {last}" if others else last
