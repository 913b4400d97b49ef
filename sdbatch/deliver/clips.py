"""A clip brought to exact pixels, and encoded under its byte cap.

    master (file) + Placement --> ffmpeg: crop, scale, encode --> file; over its cap: once more, to a bit rate

A clip's colours are BT.709 before and after and are never turned to RGB in between. The master's metadata stay behind.
H.264 is encoded to a bit rate in two passes. SVT-AV1 has no second pass in ffmpeg, and its one pass to a bit rate was
seen to leave two thirds of a cap unused, so that its rate factor is bisected.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from sdbatch.deliver.label import label_image, label_place
from sdbatch.deliver.marking import Label
from sdbatch.deliver.placing import Placement
from sdbatch.deliver.stills import GRAY_SIDE, CapMissed
from sdbatch.errors import EncodeFailed
from sdbatch.ffmpeg import FfmpegFailed, running
from sdbatch.formats import CLIPS, ClipFormat
from sdbatch.named_formats import NamedFormat
from sdbatch.packets import Packet, as_ffmetadata, tags_of, uuid_box

CLIPS_VERSION: Final = 2
"""Raised when the same settings give other pixels or bytes."""
TIMEOUT_FIRST_S: Final = 60.0
TIMEOUT_PER_MPIXEL_S: Final = 4.0
"""Bound on ffmpeg's wall seconds."""
RATE_TRIES: Final = 4
RATE_SHARE: Final = 0.95
"""Share of the cap that the first rate aims at: containers and rate control need the rest."""
RATE_MIN: Final = 20_000
"""Bits a second below which no picture is to be seen."""
CRF_MAX: Final = {"libx264": 51, "libsvtav1": 63}
"""Highest rate factor of each encoder, its lowest quality."""
_SITING: Final = "in_chroma_loc=left:out_chroma_loc=left"
"""Where a colour lies that several pixels share; `scale` takes it in the middle of them by default."""
_SOUND_RATE: Final = 64_000
_BIT_EXACT: Final = ("-fflags", "+bitexact", "-flags:v", "+bitexact", "-flags:a", "+bitexact")
_TWO_PASSES: Final = "libx264"
_TOO_LOW: Final = "requested bitrate is too low"
"""What x264 says in its second pass of a rate that even its lowest quality exceeds."""
_READ: Final = ("-protocol_whitelist", "file", "-threads", "1", "-xerror")


@dataclass(frozen=True, slots=True, kw_only=True)
class ClipShape:
    """What is known of a master.

    Attributes:
        suffix: Its file type.
        width: Pixels.
        height: Pixels.
        num_frames: Frames.
        fps: Frames a second.
    """

    suffix: str
    width: int
    height: int
    num_frames: int
    fps: float


def make_clip(
    master: Path,
    shape: ClipShape,
    one: NamedFormat,
    placement: Placement,
    bars: tuple[int, int, int],
    reserved_bytes: int = 0,
    xmp: Packet | None = None,
    label: Label | None = None,
) -> bytes:
    """Return a clip of exactly a format's size, with all frames and the sound of its master.

    Args:
        master: The master's file; further files are written beside it.
        shape: What is known of it.
        one: The format.
        placement: From `placed`.
        bars: Colour of letterbox bars.
        reserved_bytes: What later steps add to the file.
        xmp: What the file says of itself.
        label: Words that are seen on every frame.

    Raises:
        CapMissed: When no rate brings it under its cap.
        EncodeFailed: When the file does not have the master's frames.
        FfmpegFailed: When ffmpeg fails.
    """
    written = CLIPS[one.type]
    timeout_s = TIMEOUT_FIRST_S + TIMEOUT_PER_MPIXEL_S * shape.num_frames * (
        (shape.width * shape.height + one.width * one.height) / 1e6
    )
    file = master.with_name(f"made.{one.type}")
    filters = _filters(master, shape, one, placement, bars)
    if label is not None:
        filters = _with_label(filters, master.with_name("label.png"), one, label)
    tags = master.with_name("tags")
    tags.write_text(as_ffmetadata(tags_of(xmp, one.type)), encoding="utf-8")
    box = uuid_box(xmp) if xmp is not None and written.xmp_in == "box" else b""

    def encode(video: Sequence[str], *, sound_rate: int | None = None, is_first_pass: bool = False) -> None:
        demuxer = CLIPS[shape.suffix].demuxer
        sound = () if is_first_pass else ("-map", "0:a?", *_sound(written, sound_rate))
        tracks = ["-map", "0:v:0", *sound, "-map_metadata", "1", "-map_chapters", "-1", "-vf", filters]
        muxed = ["-f", "null", "-"] if is_first_pass else [*written.more, "-f", written.muxer, str(file)]
        inputs = [*_READ, "-f", demuxer, "-i", str(master), "-f", "ffmetadata", "-i", str(tags)]
        arguments = [*inputs, *tracks, "-fps_mode", "passthrough"]
        with running([*arguments, "-c:v", *video, *_BIT_EXACT, *muxed], timeout_s=timeout_s):
            pass

    encode((*written.video, *(() if written.crf is None else ("-crf", str(written.crf)))))
    cap = None if one.bytes_max is None else one.bytes_max - reserved_bytes - len(box)
    if cap is not None and file.stat().st_size > cap:
        if written.video[0] == _TWO_PASSES:
            _encode_to_rate(file, shape, cap, written, encode)
        else:
            _bisect_rate_factor(file, cap, written, encode)
    _check_frames(file, written, shape.num_frames)
    return file.read_bytes() + box


def first_gray(file: Path, demuxer: str) -> NDArray[np.uint8]:
    """Return gray_HW of 32 x 32 of a clip's first frame, from which its fingerprint is taken.

    Args:
        file: The clip.
        demuxer: ffmpeg's name of its container.

    Raises:
        FfmpegFailed: When it is no clip.
    """
    arguments = [*_READ, "-f", demuxer, "-i", str(file), "-frames:v", "1"]
    arguments += ["-vf", f"scale={GRAY_SIDE}:{GRAY_SIDE}:flags=area", "-f", "rawvideo", "-pix_fmt", "gray", "pipe:1"]
    with running(arguments, timeout_s=TIMEOUT_FIRST_S) as (_, stdout):
        data = stdout.read()[: GRAY_SIDE**2]
    return np.frombuffer(data, np.uint8).reshape(GRAY_SIDE, GRAY_SIDE)


def _encode_to_rate(file: Path, shape: ClipShape, cap: int, written: ClipFormat, encode: Callable[..., None]) -> None:
    """Encode anew to a bit rate in two passes, lowered until the file is under its cap; at last in lowest quality."""
    rate = int(cap * 8 * RATE_SHARE / (shape.num_frames / shape.fps))
    passes = file.with_name("passes")

    def encode_at(rate: int) -> None:
        sound_rate = min(_SOUND_RATE, rate // 4)
        for number in (1, 2):
            steps = ("-b:v", str(rate - sound_rate), "-pass", str(number), "-passlogfile", str(passes))
            encode((*written.video, *steps), sound_rate=sound_rate, is_first_pass=number == 1)

    for _ in range(RATE_TRIES):
        if rate < RATE_MIN:
            break
        try:
            encode_at(rate)
        except FfmpegFailed as error:
            if _TOO_LOW not in str(error):
                raise
            break
        size = file.stat().st_size
        if size <= cap:
            return
        rate = int(rate * RATE_SHARE * cap / size)
    _encode_least(file, cap, written, encode)


def _encode_least(
    file: Path, cap: int, written: ClipFormat, encode: Callable[..., None], sound_rate: int = RATE_MIN
) -> None:
    """Encode in the lowest quality. Raises CapMissed when even that is over the cap."""
    encode((*written.video, "-crf", str(CRF_MAX[written.video[0]])), sound_rate=sound_rate)
    if (size := file.stat().st_size) > cap:
        raise CapMissed(f"has {size} bytes at the lowest quality", cap, "raise bytes_max")


def _bisect_rate_factor(file: Path, cap: int, written: ClipFormat, encode: Callable[..., None]) -> None:
    """Encode anew with the lowest rate factor, the best quality, whose file is under the cap."""
    assert written.crf is not None, "a codec without rate factor is encoded in two passes"
    best = file.with_name("best")

    def size_at(crf: int) -> int:
        encode((*written.video, "-crf", str(crf)), sound_rate=_SOUND_RATE)
        return file.stat().st_size

    _encode_least(file, cap, written, encode, sound_rate=_SOUND_RATE)
    file.replace(best)
    fails, fits = written.crf, CRF_MAX[written.video[0]]
    while fits - fails > 1:
        middle = (fails + fits) // 2
        if size_at(middle) <= cap:
            fits = middle
            file.replace(best)
        else:
            fails = middle
    best.replace(file)


def _filters(master: Path, shape: ClipShape, one: NamedFormat, placement: Placement, bars: tuple[int, int, int]) -> str:
    """Return ffmpeg's filters; one colour stands for 2 x 2 pixels, so that a crop begins at even ones."""
    left, top, right, bottom = placement.box
    x, y = (int(value) // 2 * 2 for value in (left, top))
    width = max(min(round((right - left) / 2) * 2, shape.width - x), 2)
    height = max(min(round((bottom - top) / 2) * 2, shape.height - y), 2)
    steps = []
    if (x, y, width, height) != (0, 0, shape.width, shape.height):
        steps.append(f"crop={width}:{height}:{x}:{y}")
    if (placement.width, placement.height) != (width, height):
        steps.append(f"scale={placement.width}:{placement.height}:{_SITING}:flags=lanczos+accurate_rnd")
    if (placement.width, placement.height) != (one.width, one.height):
        colour = bars if one.fit == "letterbox" else _mean_colour(master, shape)
        shown = "0x" + "".join(f"{value:02x}" for value in colour)
        steps.append(f"pad={one.width}:{one.height}:{placement.left}:{placement.top}:color={shown}")
    pixels = CLIPS[one.type].pixels
    steps += [f"format={pixels}", "setsar=1"]
    steps.append("setparams=colorspace=bt709:color_primaries=bt709:color_trc=bt709:range=tv")
    return ",".join(steps)


def _with_label(filters: str, file: Path, one: NamedFormat, label: Label) -> str:
    """Return filters that lay a label, which is written to a file, on every frame."""
    words = label_image(label, one.width, one.height)
    words.save(file)
    left, top = label_place(label, words.size, (one.width, one.height))
    # `format=auto` would take the picture to RGB and back by the wrong matrix: its colours were seen to move by 20.
    # Two readers take the escapes off: that of the graph, then that of the filter's options.
    path = re.sub(r"([\\':,;\[\]])", r"\\\\\\\1", str(file))
    end = f"format={CLIPS[one.type].pixels},setparams=colorspace=bt709:color_primaries=bt709:color_trc=bt709:range=tv"
    return f"{filters}[shown];movie={path}[label];[shown][label]overlay={left}:{top}:format=yuv420,{end}"


def _mean_colour(master: Path, shape: ClipShape) -> tuple[int, int, int]:
    """Return the mean colour of the first frame."""
    arguments = [*_READ, "-f", CLIPS[shape.suffix].demuxer, "-i", str(master), "-frames:v", "1"]
    arguments += ["-vf", "scale=1:1:flags=area:in_color_matrix=bt709", "-f", "rawvideo", "-pix_fmt", "rgb24", "pipe:1"]
    with running(arguments, timeout_s=TIMEOUT_FIRST_S) as (_, stdout):
        red, green, blue = stdout.read()[:3]
    return red, green, blue


def _sound(written: ClipFormat, rate: int | None) -> tuple[str, ...]:
    codec, *settings = written.sound
    return ("-c:a", codec, *(settings if rate is None else ("-b:a", str(rate))))


def _check_frames(file: Path, written: ClipFormat, num_frames: int) -> None:
    arguments = [*_READ, "-f", written.demuxer, "-i", str(file), "-map", "0:v:0", "-c", "copy", "-f", "null", "-"]
    with running(["-nostats", "-progress", "pipe:1", *arguments], timeout_s=TIMEOUT_FIRST_S) as (_, stdout):
        found = re.findall(r"^frame=\s*(\d+)", stdout.read().decode(), re.MULTILINE)
    if not found or int(found[-1]) != num_frames:
        raise EncodeFailed(f"holds {found[-1] if found else 0} frames; its master has {num_frames}")
