"""Clips made by the bundled ffmpeg from four patches of colour, each as its makers' programs store it."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any, Final

import imageio_ffmpeg
import numpy as np
from numpy.typing import NDArray

# F frames, H and W pixels, C = 3 or 4 channels.

PATCHES: Final = ((200, 40, 40), (40, 120, 40), (230, 230, 230), (220, 170, 140))
"""Top left, top right, bottom left, bottom right; all of them lie inside every gamut that a test uses."""

H264: Final = ("-c:v", "libx264", "-crf", "4", "-preset", "ultrafast")
HEVC: Final = ("-c:v", "libx265", "-x265-params", "log-level=0:crf=4", "-preset", "ultrafast", "-tag:v", "hvc1")


def patches(
    width: int = 128, height: int = 96, num_frames: int = 6, alphas: tuple[int, ...] = (255, 255, 255, 255)
) -> NDArray[np.uint8]:
    """Return frames_FHWC with 4 channels."""
    frames_FHWC = np.empty((num_frames, height, width, 4), np.uint8)
    for place, (colour, alpha) in enumerate(zip(PATCHES, alphas, strict=True)):
        rows = slice(0, height // 2) if place < 2 else slice(height // 2, height)
        columns = slice(0, width // 2) if place % 2 == 0 else slice(width // 2, width)
        frames_FHWC[:, rows, columns] = (*colour, alpha)
    return frames_FHWC


def middles(frame_HWC: NDArray[Any]) -> list[tuple[int, ...]]:
    """Return the colour in the middle of each patch of one frame."""
    height, width = frame_HWC.shape[:2]
    places = [(y, x) for y in (height // 4, 3 * height // 4) for x in (width // 4, 3 * width // 4)]
    return [tuple(int(value) for value in frame_HWC[place]) for place in places]


def stripe(*, is_upright: bool, width: int = 160, height: int = 96, num_frames: int = 4) -> NDArray[np.uint8]:
    """Return frames_FHWC of blue with a stripe of red through the middle."""
    frames_FHWC = np.full((num_frames, height, width, 3), (60, 60, 200), np.uint8)
    if is_upright:
        frames_FHWC[:, :, width // 2 - 20 : width // 2 + 20] = (200, 60, 60)
    else:
        frames_FHWC[:, height // 2 - 20 : height // 2 + 20] = (200, 60, 60)
    return frames_FHWC


def stripe_shift(frame_HWC: NDArray[Any], *, is_upright: bool) -> float:
    """Return by how many pixels the red of a `stripe` lies to the right of the middle, or below it."""
    across = frame_HWC[frame_HWC.shape[0] // 2] if is_upright else frame_HWC[:, frame_HWC.shape[1] // 2]
    red = across[:, 0].astype(float) - across[:, 0].min()
    return float((red * np.arange(len(red))).sum() / red.sum() - (len(red) - 1) / 2)


def read_by_zscale(file: Path, height: int, width: int) -> NDArray[np.uint8]:
    """Return frames_FHWC of a clip of BT.709 by another filter of ffmpeg's, which takes colours where they lie."""
    to_rgb = "zscale=min=709:m=gbr:rin=limited:r=full,format=gbrp"
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-v", "error", "-i", str(file), "-vf", to_rgb]
    done = subprocess.run([*command, "-f", "rawvideo", "-pix_fmt", "rgb24", "-"], capture_output=True, check=True)
    return np.frombuffer(done.stdout, np.uint8).reshape(-1, height, width, 3)


def ffmpeg(*arguments: str, stdin: bytes = b"") -> bytes:
    """Run ffmpeg; return its stderr."""
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-hide_banner", "-v", "info", "-y", *arguments]
    done = subprocess.run(command, input=stdin, capture_output=True)
    assert done.returncode == 0, done.stderr.decode()[-2000:]
    return done.stderr


def encoded(file: Path, frames_FHWC: NDArray[Any], *options: str, pixel_format: str = "rgba", fps: int = 24) -> bytes:
    """Return a clip of some frames.

    Args:
        file: Where it is written; the suffix decides the container.
        frames_FHWC: Frames, in the layout of `pixel_format`; of planar ones each frame is one row of bytes.
        options: Filters and encoder.
        pixel_format: ffmpeg's name.
        fps: Frames a second.
    """
    height, width = frames_FHWC.shape[1:3]
    raw = [
        "-f",
        "rawvideo",
        "-pix_fmt",
        pixel_format,
        "-s",
        f"{width}x{height}",
        "-framerate",
        str(fps),
        "-i",
        "pipe:0",
    ]
    ffmpeg(*raw, *options, str(file), stdin=frames_FHWC.tobytes())
    return file.read_bytes()


def described(file: Path) -> str:
    """Return ffmpeg's own line for the video stream of a file."""
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-hide_banner", "-i", str(file)]
    text = subprocess.run(command, capture_output=True).stderr.decode()
    return next(line for line in text.splitlines() if "Video:" in line)
