r"""Decides how the frames of a clip become RGB as its maker saw it: progressive, BT.709, 8 bits.

    ClipHeader --> refuse_unread() --> SourceUnreadable, naming what is not honoured
               \-> filters() --> ffmpeg's filters, in order

Pure: a table of what the words of ITU-T H.273 mean here. BT.709 values stand in RGB as they are, as in every player.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from sdbatch.errors import SourceUnreadable
from sdbatch.fetch.clip_header import ClipHeader
from sdbatch.fetch.containers import CODECS

HD_PIXELS: Final = 720
"""Width or height from which on a clip that states no matrix is BT.709; below, and in television's sizes, BT.601."""

TELEVISION: Final = frozenset({(720, 480), (720, 486), (720, 576), (704, 480), (704, 576)})
WHITE_NITS: Final = 203
"""Brightness of white paper in HLG and PQ, by ITU-R BT.2408; it becomes white."""

SITING_UNSTATED: Final = "left"
"""ITU-T H.273 has it for 4:2:0 that says nothing; it is that of MPEG-2 and all that came after."""
FLAGS: Final = "flags=bicubic+accurate_rnd+full_chroma_int"
_MATRICES: Final = {
    "": "",
    "gbr": "gbr",
    "bt709": "709",
    "fcc": "fcc",
    "bt470bg": "470bg",
    "smpte170m": "170m",
    "smpte240m": "240m",
    "bt2020nc": "2020_ncl",
}
"""zscale's names of the matrices that are read."""

_SCALE_MATRICES: Final = {"bt709", "fcc", "bt470bg", "smpte170m", "smpte240m", "bt2020nc"}
_PRIMARIES: Final = {
    "bt709": "709",
    "bt470m": "bt470m",
    "bt470bg": "bt470bg",
    "smpte170m": "170m",
    "smpte240m": "240m",
    "film": "film",
    "bt2020": "2020",
    "smpte431": "smpte431",
    "smpte432": "smpte432",
    "ebu3213": "jedec-p22",
}
"""zscale's names of the primaries that are read."""

_PLAIN_TRANSFERS: Final = frozenset(
    {
        "",
        "bt709",
        "bt470m",
        "bt470bg",
        "gamma22",
        "gamma28",
        "smpte170m",
        "smpte240m",
        "bt1361",
        "iec61966-2-1",
        "iec61966-2-4",
        "bt2020-10",
        "bt2020-12",
    }
)
"""Transfers whose values screens show alike. The 2.8 of BT.470 is one: every PAL disc says it and no screen has it."""

_HDR_TRANSFERS: Final = {"smpte2084": "PQ", "arib-std-b67": "HLG"}
ALPHA_DECODERS: Final = {"vp8": "libvpx", "vp9": "libvpx-vp9"}
"""Decoders that read the alpha of a codec where ffmpeg's own passes it over."""

_OUTPUT: Final = "p=709:m=gbr:r=full"
_PLAIN_DOLBY_VISION: Final = frozenset({1, 2, 4, 6})
"""Numbers of signals that players without Dolby Vision show rightly: HDR10, SDR, HLG, and that of discs."""

_FIELD_CODECS: Final = frozenset(
    {"h264", "hevc", "mpeg1video", "mpeg2video", "mpeg4", "prores", "dnxhd", "dvvideo", "mjpeg", "ffv1", "cfhd"}
)
"""Codecs whose frames say themselves whether they are interlaced, some of them perhaps only in the middle of a clip."""


def refuse_unread(header: ClipHeader, name: str) -> None:
    """Refuse a clip that says of itself what is not honoured.

    Raises:
        SourceUnreadable: Naming it.
    """
    if header.codec not in CODECS:
        raise SourceUnreadable(f"{name}: is coded as {header.codec}, which is not read; H.264 or ProRes is")
    if header.dolby_vision is not None and header.dolby_vision[1] not in _PLAIN_DOLBY_VISION:
        profile, number = header.dolby_vision
        raise _refused(name, f"is Dolby Vision of profile {profile}, compatible with nothing else ({number})")
    if header.transfer not in _PLAIN_TRANSFERS | _HDR_TRANSFERS.keys() | {"linear"}:
        raise _refused(name, f"has the transfer {header.transfer}")
    if header.primaries and header.primaries not in _PRIMARIES and not _is_gbr_alone(header):
        raise _refused(name, f"has the primaries {header.primaries}")
    if header.matrix not in _MATRICES and not header.is_rgb:
        raise _refused(name, f"has the colour matrix {header.matrix}")
    if header.has_profile:
        raise _refused(name, "carries an ICC profile")


def _refused(name: str, said: str) -> SourceUnreadable:
    return SourceUnreadable(f"{name}: {said}, which is not read; save it as BT.709 (SDR)")


def _is_gbr_alone(header: ClipHeader) -> bool:
    return header.primaries == "gbr"


def decoder_arguments(header: ClipHeader) -> list[str]:
    """Return which decoder ffmpeg is told to use, where its own choice would lose alpha."""
    decoder = ALPHA_DECODERS.get(header.codec) if header.has_alpha else None
    return ["-c:v", decoder] if decoder else []


def filters(header: ClipHeader, height: int, width: int) -> list[str]:
    """Return the filters that turn decoded frames to RGB, without the scaling to square pixels, which comes last.

    Args:
        header: What the clip says of itself; `refuse_unread` has looked at it.
        height: Height that frames are fitted to in the end. Where colours are to be changed, larger frames are shrunk
            to twice that size before.
        width: Width that frames are fitted to in the end.
    """
    if not changes_colours(header):
        return []
    whole = _shrunk_and_spread(header, height, width)
    if header.transfer in _HDR_TRANSFERS:
        return [*whole, *_tone_mapped(header)]
    is_linear = header.transfer == "linear"
    given, wanted = ("linear", "iec61966-2-1") if is_linear else ("709", "709")
    return [*whole, f"zscale={_input(header, _primaries(header), given)}:{_OUTPUT}:t={wanted}", _planar(header)]


def changes_colours(header: ClipHeader) -> bool:
    """Whether a clip's values are not those of BT.709 once they are RGB."""
    return header.transfer in _HDR_TRANSFERS.keys() | {"linear"} or _primaries(header) != "709"


def _primaries(header: ClipHeader) -> str:
    """Return zscale's name of a clip's primaries; of one that does not say, those that its matrix or transfer has."""
    is_wide = header.matrix == "bt2020nc" or header.transfer in _HDR_TRANSFERS
    return _PRIMARIES.get(header.primaries, "2020" if is_wide else "709")


def notes_of(header: ClipHeader) -> Iterator[str]:
    """Yield what is to be known of how a clip is read; each goes on after its name."""
    if header.num_videos > 1:
        shown = f"stream {header.stream} of the file"
        yield f"it has {header.num_videos} video streams, of which the one that players show ({shown}) was taken"
    if title := _HDR_TRANSFERS.get(header.transfer):
        yield f"its HDR ({title}) was brought to SDR, where what is brighter than paper is white"


def deinterlacing(header: ClipHeader) -> list[str]:
    """Return the filter that makes whole frames of fields, in frames that say they are interlaced, and in no other."""
    if header.is_rgb or not (header.is_interlaced or header.codec in _FIELD_CODECS):
        return []
    return ["bwdif=mode=send_frame:parity=auto:deint=interlaced"]


def scale_options(header: ClipHeader) -> str:
    """Return what the last filter, which makes RGB, is told of the values that come to it."""
    if header.is_rgb or changes_colours(header):
        return FLAGS
    matrix = header.matrix if header.matrix in _SCALE_MATRICES else default_matrix(header)
    full = ":in_range=pc" if header.range == "pc" else ""
    return f"in_color_matrix={matrix}{full}:{_siting(header)}:{FLAGS}"


def _siting(header: ClipHeader) -> str:
    """Return where a filter is to take a colour that several pixels share: at the left one, where a clip does not say.

    ffmpeg's `scale` (9.0) looks at no frame for it, and would take all of them in the middle.
    """
    return f"in_chroma_loc={header.siting or SITING_UNSTATED}"


def default_matrix(header: ClipHeader) -> str:
    """Return the matrix of a clip that states none."""
    is_hd = max(header.width, header.height) >= HD_PIXELS and (header.width, header.height) not in TELEVISION
    return "bt709" if is_hd else "smpte170m"


def _tone_mapped(header: ClipHeader) -> list[str]:
    """Return the filters from HLG or PQ to SDR.

    In light where white paper is 1, colours up to it stay as they are, and what is brighter keeps its hue. zscale (zimg
    3.0) brings HLG to light channel by channel; by the formula of BT.2100 saturated colours would come out paler.
    """
    light = f"zscale={_input(header, _primaries(header), header.transfer)}:t=linear:m=gbr:r=full:npl={WHITE_NITS}"
    floats = "format=gbrapf32le" if header.has_alpha else "format=gbrpf32le"
    return [
        light,
        floats,
        "zscale=p=709",
        "tonemap=tonemap=clip:desat=0",
        f"zscale={_OUTPUT}:t=709",
        _planar(header),
    ]


def _shrunk_and_spread(header: ClipHeader, height: int, width: int) -> list[str]:
    """Return the filters that give every pixel its own colour, since zscale takes no odd sizes of 4:2:0."""
    factor = f"max(1\\,min(iw/{2 * width}\\,ih/{2 * height}))"
    scale = f"scale=w=iw/{factor}:h=ih/{factor}:{_siting(header)}:{FLAGS}"
    alpha = "a" if header.has_alpha else ""
    return [scale, f"format=gbr{alpha}p12le" if header.is_rgb else f"format=yuv{alpha}444p12le"]


def _planar(header: ClipHeader) -> str:
    return "format=gbrap" if header.has_alpha else "format=gbrp"


def _input(header: ClipHeader, primaries: str, transfer: str) -> str:
    if header.is_rgb:
        return f"min=gbr:rin=full:pin={primaries}:tin={transfer}"
    default = "bt2020nc" if primaries == "2020" else default_matrix(header)
    matrix = _MATRICES[header.matrix if header.matrix not in {"", "gbr"} else default]
    return f"min={matrix}:rin={'full' if header.range == 'pc' else 'limited'}:pin={primaries}:tin={transfer}"
