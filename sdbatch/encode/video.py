"""Encodes frames, and sound where there is any, as clips that embed their recipe.

    frames_FHWC + recipe --> encode_video() --> bytes          bytes --> read_embedded_video() --> recipe

MP4 holds H.264 and AAC and plays everywhere; WebM holds AV1 and Opus and is smaller. The bundled ffmpeg gets raw frames
on stdin and texts in files, so that prompts do not show in the list of processes. The same frames give the
same bytes: no time or version is written, and the threads are pinned, because x264's bytes change with their number.
"""

# F frames, H and W pixels, C = 3 channels; of sound C channels, T samples.

from __future__ import annotations

import re
import tempfile
from fractions import Fraction
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from sdbatch.encode.embedded import Encoded, embedded_text, from_text
from sdbatch.errors import EncodeFailed
from sdbatch.ffmpeg import FfmpegFailed, exact_rate, running
from sdbatch.formats import CLIPS, ClipFormat
from sdbatch.job import Encode
from sdbatch.local_faults import local_fault, temporary_folder
from sdbatch.packets import Packet, as_ffmetadata, tags_of, uuid_box
from sdbatch.types import Sound

TIMEOUT_FIRST_S = 60.0
TIMEOUT_PER_MPIXEL_S = 2.0
"""Bound on ffmpeg's wall seconds, many times what its encoders take."""

SITING: Final = "left"
"""Where a colour lies that several pixels share: at the left one, as players take it."""
SITING_BEFORE: Final = "center"
"""Where it lay in the first clips of version 0.1: in the middle of them, as ffmpeg has it by default."""

_COLOURS: Final = (
    # Untagged, or converted as ffmpeg does by default (bt601), green 255 plays as 215.
    "scale=out_color_matrix=bt709:out_range=tv:out_chroma_loc={siting}:flags=accurate_rnd+full_chroma_int,format={pixels},"
    "setparams=colorspace=bt709:color_primaries=bt709:color_trc=bt709:range=tv"
)
_WHOLE_COLOURS: Final = f"scale=in_chroma_loc={SITING}:flags=bicubic+accurate_rnd+full_chroma_int"
_BIT_EXACT = ("-fflags", "+bitexact", "-flags:v", "+bitexact", "-flags:a", "+bitexact")


def encode_video(
    frames_FHWC: NDArray[np.uint8],
    fps: float,
    options: Encode,
    *,
    request_key: str,
    n: int,
    recipe: str,
    sound: Sound | None = None,
    xmp: Packet | None = None,
    siting: str = SITING,
) -> Encoded:
    """Encode one clip with its recipe inside, and check the file.

    Args:
        frames_FHWC: uint8, RGB. H.264 has one colour for 2 x 2 pixels, so an MP4 takes even sizes only; nothing is
            resized, an odd one is refused. WebM takes any.
        fps: Frames per second; 23.976 and the like stand for 24000/1001.
        options: The job's `encode`.
        request_key: 64 hex digits.
        n: Output number.
        recipe: Canonical JSON.
        sound: Sound of the clip, which is cut where the frames end; None for a silent clip.
        xmp: What the file says of itself.
        siting: `SITING`, or `SITING_BEFORE` to see whether an older clip holds these frames.

    Raises:
        EncodeFailed: When ffmpeg fails or takes too long, or when the file does not hold the frames and the recipe.
        LocalFault: When this machine is out of disk or of open files.
    """
    num_frames, height, width, _ = frames_FHWC.shape
    written = CLIPS[options.video]
    if height % written.size_multiple or width % written.size_multiple:
        others = " or ".join(suffix for suffix, one in CLIPS.items() if one.size_multiple == 1)
        raise EncodeFailed(
            f"{width} x {height}: {written.codec} takes multiples of {written.size_multiple}; "
            f"`encode.video: {others}` takes any size"
        )
    rate = exact_rate(fps)
    text = embedded_text(request_key, n, recipe, num_frames=num_frames)
    try:
        with tempfile.TemporaryDirectory(prefix="sdbatch-") as name:
            folder = Path(name)
            tags = {"comment": text, **tags_of(xmp, options.video)}
            (folder / "metadata").write_text(as_ffmetadata(tags), encoding="utf-8")
            inputs = ["-f", "rawvideo", "-pix_fmt", "rgb24", "-s", f"{width}x{height}", "-framerate", str(rate)]
            inputs += ["-i", "pipe:0", "-f", "ffmetadata", "-i", str(folder / "metadata")]
            if sound is not None:
                inputs += _sound_input(folder / "sound", sound, num_frames / rate)
            file = folder / f"clip.{options.video}"
            arguments = [*inputs, *_output(written, options.crf, siting, has_sound=sound is not None), str(file)]
            with running(arguments, timeout_s=_timeout_s(frames_FHWC)) as (stdin, _):
                stdin.write(np.ascontiguousarray(frames_FHWC).data)
            num_stored, text_stored = _inspect(file, written)
            data = file.read_bytes()
    except OSError as error:
        if fault := local_fault(error, temporary_folder(), "TMPDIR"):
            raise fault from error
        raise EncodeFailed(f"{options.video} of {num_frames} frames, {width} x {height}: {error}") from error
    if num_stored != num_frames:
        raise EncodeFailed(f"{options.video} holds {num_stored} frames; {num_frames} were encoded")
    if text_stored != text:
        raise EncodeFailed(f"{options.video} of {num_frames} frames holds another recipe than it was given")
    if xmp is not None and written.xmp_in == "box":
        data += uuid_box(xmp)
    return Encoded(data=data, suffix=options.video, media_type=written.media_type)


def read_embedded_video(data: bytes, suffix: str) -> dict[str, Any] | None:
    """Return what `encode_video` embedded, None when the file holds nothing of ours.

    Raises:
        OSError: When it is not a whole clip.
    """
    with tempfile.TemporaryDirectory(prefix="sdbatch-") as name:
        file = Path(name) / "clip"
        file.write_bytes(data)
        num_frames, text = _inspect(file, CLIPS[suffix])
    embedded = from_text(text)
    if embedded is not None and embedded.get("num_frames") != num_frames:
        raise FfmpegFailed(f"not a whole clip: {num_frames} of {embedded.get('num_frames')} frames")
    return embedded


def read_frames_of_video(
    data: bytes, suffix: str, height: int, width: int, *, scales: bool = False
) -> NDArray[np.uint8]:
    """Decode a clip that `encode_video` made; returns frames_FHWC, uint8, RGB.

    Args:
        data: Whole file.
        suffix: `mp4` or `webm`.
        height: Height in pixels.
        width: Width in pixels.
        scales: Bring frames of another size to this one.

    Raises:
        OSError: When it is not a whole clip of that size.
    """
    demuxer = CLIPS[suffix].demuxer
    with tempfile.TemporaryDirectory(prefix="sdbatch-") as name:
        file = Path(name) / "clip"
        file.write_bytes(data)
        arguments = ["-protocol_whitelist", "file", "-threads", "1", "-xerror", "-f", demuxer, "-i", str(file)]
        scale = f"scale={width}:{height}:flags=area" if scales else _WHOLE_COLOURS
        arguments += ["-map", "0:v:0", "-vf", scale, "-f", "rawvideo", "-pix_fmt", "rgb24", "pipe:1"]
        with running(arguments, timeout_s=TIMEOUT_FIRST_S) as (_, stdout):
            values = np.frombuffer(stdout.read(), dtype=np.uint8)
    if values.size % (height * width * 3):
        raise FfmpegFailed(f"not a clip of {width} x {height}: {values.size} values")
    return values.reshape(-1, height, width, 3)


def _output(written: ClipFormat, crf: int | None, siting: str, *, has_sound: bool) -> list[str]:
    colours = _COLOURS.format(pixels=written.pixels, siting=siting)
    tracks = ["-map", "0:v:0", "-map_metadata", "1", "-vf", colours, "-c:v", *written.video]
    if crf is not None:
        tracks += ["-crf", str(crf)]
    if has_sound:
        tracks += ["-map", "2:a:0", "-c:a", *written.sound]
    return [*tracks, *_BIT_EXACT, *written.more, "-f", written.muxer]


def _sound_input(file: Path, sound: Sound, duration_s: Fraction) -> list[str]:
    """Write samples as raw floats, no longer than the frames; return the arguments with which ffmpeg reads them."""
    kept_CT = np.nan_to_num(sound.samples_CT[:, : round(duration_s * sound.rate_hz)]).clip(-1, 1)
    file.write_bytes(np.ascontiguousarray(kept_CT.T, dtype="<f4").tobytes())
    return ["-f", "f32le", "-ar", str(sound.rate_hz), "-ac", str(len(kept_CT)), "-i", str(file)]


def _timeout_s(frames_FHWC: NDArray[np.uint8]) -> float:
    return TIMEOUT_FIRST_S + TIMEOUT_PER_MPIXEL_S * frames_FHWC.size / 3e6


def _inspect(file: Path, written: ClipFormat) -> tuple[int, str]:
    """Return the number of frames in a clip and its comment; every packet is read and none is decoded."""
    metadata = file.with_name("read-back")
    arguments = ["-protocol_whitelist", "file", "-xerror", "-f", written.demuxer, "-i", str(file)]
    arguments += ["-f", "ffmetadata", str(metadata), "-map", "0", "-c", "copy", "-f", "null", "-"]
    with running(["-nostats", "-progress", "pipe:1", *arguments], timeout_s=TIMEOUT_FIRST_S) as (_, stdout):
        progress = stdout.read().decode()
    frames = re.findall(r"^frame=\s*(\d+)", progress, re.MULTILINE)
    return int(frames[-1]) if frames else 0, _comment(metadata.read_text(encoding="utf-8"))


def _comment(ffmetadata: str) -> str:
    line = re.search(r"^comment=((?:\\.|[^\\\n])*)$", ffmetadata, re.MULTILINE | re.IGNORECASE | re.DOTALL)
    return re.sub(r"\\(.)", r"\1", line[1], flags=re.DOTALL) if line else ""
