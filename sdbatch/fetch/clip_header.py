"""What a clip says of itself, as ffmpeg reads it from the file's head without decoding a frame.

    file --> read_header() --> ClipHeader        (clip_colour.py decides from it what is to be done, or refuses)

The bundled ffmpeg comes without ffprobe, so that its own line for the stream is parsed. Of several video streams the
one that players show is meant: the first that is marked as default, else the first; a cover picture is none.
"""

from __future__ import annotations

import itertools
import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from sdbatch.errors import SourceUnreadable
from sdbatch.fetch.containers import DECODERS
from sdbatch.ffmpeg import described

HEADER_S: Final = 30.0
_ANY_STREAM: Final = re.compile(r"  (  )?Stream ")
"""A line that begins a stream, or a group of them, whose own lines are indented once more: a track of time code and the
track that it belongs to are one."""
_STREAM: Final = re.compile(
    _ANY_STREAM.pattern + r"#0:(?P<index>\d+)(\[\w+\])?(\(.*?\))?: Video: (?P<codec>\w+)(?P<rest>.*)"
)
_STILL: Final = re.compile(r"\((attached pic|timed thumbnails)\)")
_PIXELS: Final = re.compile(r", (?P<format>[a-z]\w*)(?:\((?P<said>[^)]*(?:\([^)]*\)[^)]*)*)\))?, (?P<w>\d+)x(?P<h>\d+)")
_DOVI: Final = re.compile(r"DOVI configuration record: .*profile: (\d+).*compatibility id: (\d+)")
_TURN: Final = re.compile(r"(?i)display ?matrix: rotation of (-?[0-9.]+) degrees")
_CROPPED: Final = re.compile(r"Frame Cropping: (\d+)/(\d+)/(\d+)/(\d+)")
_LOGGED_BY: Final = re.compile(r"\[[^\]]* @ 0x[0-9a-f]+\] *")
_SITINGS: Final = frozenset({"left", "center", "topleft", "top", "bottomleft", "bottom"})
_FIELDS: Final = re.compile(r"(top|bottom)( coded)? first")
_ALPHA: Final = re.compile(r"yuva|gbrap|rgba|bgra|argb|abgr|^ya|pal8|rgb32|bgr32|ayuv|vuya|uyva")


@dataclass(frozen=True, slots=True, kw_only=True)
class ClipHeader:
    """What a clip says of its video stream. Empty texts are what it does not say.

    Attributes:
        stream: ffmpeg's number of the stream in the file.
        num_videos: Video streams in the file, covers apart.
        codec: ffmpeg's name, such as `hevc`.
        pixel_format: ffmpeg's name, such as `yuv420p10le`.
        width: Pixels as coded.
        height: Pixels as coded.
        cropped: Columns and rows of them that are not shown.
        range: `tv` or `pc`.
        matrix: ffmpeg's name, such as `bt2020nc`.
        primaries: ffmpeg's name, such as `bt2020`.
        transfer: ffmpeg's name, such as `arib-std-b67`.
        siting: Where a colour lies that several pixels share: ffmpeg's name, such as `left` or `center`.
        is_interlaced: Whether its fields come one after the other.
        has_alpha: Whether a second stream or channel holds alpha.
        is_premultiplied: Whether its colours are multiplied by alpha.
        dolby_vision: Profile and number of the plain signal that it is compatible with; None without Dolby Vision.
        has_profile: Whether it carries an ICC profile.
        is_turned: Whether it is shown with its width as its height.
    """

    codec: str
    pixel_format: str
    width: int
    height: int
    stream: int = 0
    num_videos: int = 1
    cropped: tuple[int, int] = (0, 0)
    range: str = ""
    matrix: str = ""
    primaries: str = ""
    transfer: str = ""
    siting: str = ""
    is_interlaced: bool = False
    has_alpha: bool = False
    is_premultiplied: bool = False
    dolby_vision: tuple[int, int] | None = None
    has_profile: bool = False
    is_turned: bool = False

    @property
    def is_rgb(self) -> bool:
        """Whether it is coded as RGB, so that no matrix is needed."""
        return bool(re.match(r"rgb|bgr|gbr|argb|abgr|0rgb|0bgr|pal8|x2rgb|x2bgr", self.pixel_format))


def read_header(file: Path, demuxer: str, name: str, pixels_max: int) -> ClipHeader:
    """Return what a clip says of its video stream.

    Args:
        file: The clip.
        demuxer: See `sdbatch.fetch.containers`.
        name: Name of the source in messages.
        pixels_max: Most pixels of a frame.

    Raises:
        SourceUnreadable: When it has no video stream.
    """
    # The siting is told to those who ask for details alone.
    arguments = ["-v", "verbose", *input_arguments(file, demuxer, pixels_max)]
    return parse_header(described(arguments, timeout_s=HEADER_S), name)


def input_arguments(file: Path, demuxer: str, pixels_max: int) -> list[str]:
    """Return what ffmpeg is told before it opens a stranger's clip."""
    allowed = ["-protocol_whitelist", "file", "-codec_whitelist", DECODERS]
    return ["-max_pixels", str(pixels_max), *allowed, "-f", demuxer, "-i", f"file:{file}"]


def parse_header(text: str, name: str) -> ClipHeader:
    """Return what ffmpeg's description says of the video stream that players show.

    Raises:
        SourceUnreadable: When it names none.
    """
    lines = text.splitlines()
    streams = [
        (place, stream)
        for place, line in enumerate(lines)
        if (stream := _STREAM.match(line)) and not _STILL.search(line)
    ]
    if not streams:
        raise SourceUnreadable(f"{name}: {_why(text)}")
    place, stream = min(streams, key=lambda one: ("(default)" not in one[1]["rest"], int(one[1]["index"])))
    details = itertools.takewhile(
        lambda line: line.startswith("  ") and not _ANY_STREAM.match(line), lines[place + 1 :]
    )
    return replace(_header(stream, "\n".join(details)), num_videos=len(streams))


def _header(stream: re.Match[str], details: str) -> ClipHeader:
    codec, index, pixels = stream["codec"], int(stream["index"]), _PIXELS.search(stream["rest"])
    if pixels is None:
        return ClipHeader(codec=codec, pixel_format="", width=0, height=0, stream=index)
    said = [word.strip() for word in (pixels["said"] or "").split(",")]
    matrix, primaries, transfer = _colours(said)
    dovi, turn, cropped = _DOVI.search(details), _TURN.search(details), _CROPPED.search(details)
    left, right, top, bottom = map(int, cropped.groups()) if cropped else (0, 0, 0, 0)
    return ClipHeader(
        codec=codec,
        pixel_format=pixels["format"],
        width=int(pixels["w"]),
        height=int(pixels["h"]),
        stream=index,
        cropped=(left + right, top + bottom),
        range=next((word for word in said if word in {"tv", "pc"}), ""),
        matrix=matrix,
        primaries=primaries,
        transfer=transfer,
        siting=next((word for word in said if word in _SITINGS), ""),
        is_interlaced=any(_FIELDS.match(word) for word in said),
        has_alpha=bool(_ALPHA.search(pixels["format"])) or bool(re.search(r"alpha_mode\s*: 1\b", details)),
        is_premultiplied=any("premultiplied" in word for word in said),
        dolby_vision=(int(dovi[1]), int(dovi[2])) if dovi else None,
        has_profile="ICC profile" in details or "ICC Profile" in details,
        is_turned=turn is not None and abs(round(float(turn[1]))) in {90, 270},
    )


def _colours(said: list[str]) -> tuple[str, str, str]:
    """Return matrix, primaries and transfer: stated as `a/b/c`, or as one word when all three are the same."""
    for word in said:
        if "/" in word:
            matrix, primaries, transfer = (
                part if part not in {"unknown", "reserved"} else "" for part in word.split("/")
            )
            return matrix, primaries, transfer
    rest = [word for word in said if re.fullmatch(r"(bt|smpte|gbr|fcc|ycgco|film|ebu|linear|iec)[\w-]*", word)]
    return (rest[0], rest[0], rest[0]) if rest else ("", "", "")


def _why(text: str) -> str:
    """Return why ffmpeg describes no video stream."""
    if "  Stream #" in text:
        return "holds no video"
    lines = [_LOGGED_BY.sub("", line.strip()) for line in text.splitlines() if line.strip() and "Input #" not in line]
    return f"cannot be opened: {lines[-1] if lines else 'ffmpeg says nothing of it'}"
