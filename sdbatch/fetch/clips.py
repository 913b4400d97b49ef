"""Decodes source clips to frames of the number, rate and size that a recipe asks for.

    bytes --> decode_clip() --> frames_FHWC

Sources may come from anybody. The first bytes decide the container and no other demuxer is tried, so a playlist that
names other files or addresses is refused. Only decoders of an allow-list run, in an ffmpeg process with bounds on
pixels, frames, processor time and wall time. Frames are fitted as they come, so a large source takes no more memory
than the clip that is made from it.
"""

# F frames, H and W pixels, C = 3 channels.

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from sdbatch.errors import SourceTooLarge, SourceTooShort, SourceUnreadable
from sdbatch.fetch.clip_colour import decoder_arguments, deinterlacing, filters, notes_of, refuse_unread, scale_options
from sdbatch.fetch.clip_header import ClipHeader, input_arguments, read_header
from sdbatch.fetch.containers import HEAD_BYTES, demuxer_of
from sdbatch.fetch.pictures import fit_image, mean_colour, on_white
from sdbatch.ffmpeg import FfmpegFailed, exact_rate, running

HELD_FRAMES_MAX = 8
"""Frames that a source may lack at its end (one step of the coarsest frame rule); its last frame is repeated."""

LATE_S = 0.002
"""Seconds by which a frame may begin late and still count, since WebM rounds times to milliseconds."""

PROCESSOR_S = 120
WALL_S = 300.0
HEADER_BYTES_MAX = 256
NO_WIDTH = "sqrt(-1)"
"""Width of frames that are not read: ffmpeg stops, and says so with this expression in its message."""

CHANGE_MAX = 0.05
"""Share by which the proportions of later frames may differ from the first ones', because sizes are rounded."""


def decode_clip(
    data: bytes,
    name: str,
    *,
    num_frames: int,
    fps: float,
    height: int,
    width: int,
    fit: str,
    pixels_max: int,
    notes: list[str] | None = None,
) -> NDArray[np.uint8]:
    """Decode the beginning of a clip at another rate and size.

    Frame i is the one on screen i / fps seconds after the first: frames are repeated or left out, never blended.
    Transparent parts are laid on white, rotated clips are turned upright, pixels become square, fields become whole
    frames, and colours become BT.709 in 8 bits, also those of HLG and PQ.

    Args:
        data: Content of the file.
        name: Name of the source in messages.
        num_frames: Frames to return; nothing after them is decoded.
        fps: Rate of these frames, per second.
        height: Height in pixels.
        width: Width in pixels.
        fit: `cover` or `contain`, as `fit_image` takes it; `contain` pads every frame with the first one's mean colour.
        pixels_max: Height times width of the source, checked before a frame is unpacked.
        notes: Receives a sentence for each thing that is to be known of how it was read.

    Returns:
        frames_FHWC, uint8.

    Raises:
        SourceUnreadable: When it is not a whole clip of a container and a codec of `sdbatch.fetch.containers`, or
            says of itself what is not honoured.
        SourceTooLarge: When a frame has more pixels than `pixels_max`.
        SourceTooShort: When more than `HELD_FRAMES_MAX` frames are missing at its end.
    """
    demuxer = demuxer_of(data[:HEAD_BYTES], name)
    frames: list[NDArray[np.uint8]] = []
    ground: tuple[int, int, int] | None = None
    with tempfile.TemporaryDirectory(prefix="sdbatch-") as folder:
        file = Path(folder) / "source"
        file.write_bytes(data)
        try:
            header = read_header(file, demuxer, name, pixels_max)
            refuse_unread(header, name)
            arguments = [*_input(file, demuxer, header, pixels_max), *_output(header, num_frames, fps, height, width)]
            with running(arguments, timeout_s=WALL_S, is_strict=False) as (_, stdout):
                for image in _pictures(stdout, name, pixels_max):
                    ground = ground or mean_colour(image)
                    frames.append(fit_image(image, height, width, fit, ground))
        except FfmpegFailed as error:
            if NO_WIDTH in str(error):
                message = "its frames change their shape in the middle, which is not read; encode it with one size"
                raise SourceUnreadable(f"{name}: {message}") from error
            kind = SourceTooLarge if "max pixel count" in str(error) else SourceUnreadable
            raise kind(f"{name}: {error}") from error
    missing = num_frames - len(frames)
    gives = f"gives {len(frames)} frame(s) at {fps:g} a second; {num_frames} are needed"
    if not frames:
        raise SourceUnreadable(f"{name}: holds no frame")
    if missing > HELD_FRAMES_MAX:
        raise SourceTooShort(f"{name}: {gives}")
    if notes is not None:
        held = [f"{gives}, and its last one was held"] if missing else []
        notes.extend(f"{name}: {note}" for note in (*notes_of(header), *held))
    return np.stack(frames + frames[-1:] * missing)


def _input(file: Path, demuxer: str, header: ClipHeader, pixels_max: int) -> list[str]:
    bounds = ["-timelimit", str(PROCESSOR_S), "-threads", "1", "-xerror"]
    return [*bounds, *decoder_arguments(header), *input_arguments(file, demuxer, pixels_max)]


def _output(header: ClipHeader, num_frames: int, fps: float, height: int, width: int) -> list[str]:
    times = f"settb=AVTB,setpts=PTS-STARTPTS-{LATE_S}/TB,fps=fps={exact_rate(fps)}:round=up"
    columns = f"if({_is_of_its_shape(header)}\\,iw*if(sar\\,clip(sar\\,1/4\\,4)\\,1)\\,{NO_WIDTH})"
    square = f"scale=w={columns}:h=ih:{scale_options(header)}"
    alpha = ["unpremultiply=inplace=1"] if header.is_premultiplied else []
    chain = ",".join([*deinterlacing(header), times, *filters(header, height, width), square, "format=rgba", *alpha])
    # Where frames change their size or colours, ffmpeg begins its filters anew, and their times with them: by its own
    # choice it would leave out what it then takes for the past.
    frames = ["-map", f"0:{header.stream}", "-vf", chain, "-fps_mode", "passthrough", "-frames:v", str(num_frames)]
    return [*frames, "-f", "image2pipe", "-c:v", "pam", "pipe:1"]


def _is_of_its_shape(header: ClipHeader) -> str:
    """Return an expression of ffmpeg's that holds for frames of the shape that a clip begins with."""
    width, height = header.width - header.cropped[0], header.height - header.cropped[1]
    if width <= 0 or height <= 0:
        return "1"
    shape = height / width if header.is_turned else width / height
    return f"lt(abs(iw/ih/{shape:.6f}-1)\\,{CHANGE_MAX})"


def _pictures(stdout: IO[bytes], name: str, pixels_max: int) -> Iterator[Image.Image]:
    """Yield RGB pictures from a stream of PAM files; the header of each states its size."""
    while True:
        fields: dict[bytes, bytes] = {}
        while line := stdout.readline(HEADER_BYTES_MAX):
            key, _, value = line.strip().partition(b" ")
            if key == b"ENDHDR":
                break
            fields[key] = value
        if not fields:
            return
        width, height = int(fields[b"WIDTH"]), int(fields[b"HEIGHT"])
        if width * height > pixels_max:
            raise SourceTooLarge(f"{name}: {width} x {height} pixels are over {pixels_max}")
        data = stdout.read(width * height * 4)
        if len(data) < width * height * 4:
            return  # ffmpeg was stopped; its status says why
        yield on_white(Image.frombytes("RGBA", (width, height), data))
