"""Clips of the containers and codecs that cameras, editors and discs write are read; others are refused by name."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from support.clips import H264, PATCHES, encoded, ffmpeg, middles, patches

from sdbatch.errors import SourceUnreadable
from sdbatch.fetch.clips import decode_clip

BT601 = "scale=out_color_matrix=smpte170m:flags=accurate_rnd"


def _read(data: bytes, **changes: Any) -> NDArray[np.uint8]:
    shape = {"num_frames": 5, "fps": 24.0, "height": 96, "width": 128, "fit": "cover", "pixels_max": 4_000_000}
    return decode_clip(data, "a", **{**shape, **changes})


@pytest.mark.fault("F35", "MJPEG, MPEG-2, DNxHD, QTRLE, DV, ProRes; AVI, MPEG-TS, M2TS, MPEG-PS, MXF", "their frames")
@pytest.mark.parametrize(
    ("name", "options", "size"),
    [
        ("mjpeg.avi", ["-vf", f"{BT601}:out_range=pc,format=yuvj420p", "-c:v", "mjpeg", "-q:v", "2"], (128, 96)),
        ("mjpeg.mov", ["-vf", f"{BT601}:out_range=pc,format=yuvj420p", "-c:v", "mjpeg", "-q:v", "2"], (128, 96)),
        ("xvid.avi", ["-vf", f"{BT601},format=yuv420p", "-c:v", "mpeg4", "-q:v", "2"], (128, 96)),
        ("mpeg2.mpg", ["-vf", f"{BT601},format=yuv420p", "-c:v", "mpeg2video", "-q:v", "2"], (128, 96)),
        ("mpeg2.ts", ["-vf", f"{BT601},format=yuv420p", "-c:v", "mpeg2video", "-q:v", "2"], (128, 96)),
        ("h264.ts", ["-vf", f"{BT601},format=yuv420p", *H264], (128, 96)),
        ("camera.mts", ["-vf", f"{BT601},format=yuv420p", *H264, "-f", "mpegts", "-mpegts_m2ts_mode", "1"], (128, 96)),
        ("qtrle.mov", ["-c:v", "qtrle", "-pix_fmt", "rgb24"], (128, 96)),
        ("prores.mov", ["-vf", f"{BT601},format=yuv422p10le", "-c:v", "prores_ks"], (128, 96)),
        ("raw.mov", ["-vf", f"{BT601},format=uyvy422", "-c:v", "rawvideo"], (128, 96)),
        ("dnxhd.mov", ["-vf", "DNX", "-c:v", "dnxhd", "-profile:v", "dnxhr_hq"], (1280, 720)),
        ("dnxhd.mxf", ["-vf", "DNX", "-c:v", "dnxhd", "-profile:v", "dnxhr_hq"], (1280, 720)),
        ("dv.avi", ["-vf", f"{BT601},format=yuv420p", "-c:v", "dvvideo", "-r", "25"], (720, 576)),
        ("dv.dv", ["-vf", f"{BT601},format=yuv420p", "-c:v", "dvvideo", "-r", "25"], (720, 576)),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_cameras_and_editors_write_is_read(
    tmp_path: Path, name: str, options: list[str], size: tuple[int, int]
) -> None:
    options = [word if word != "DNX" else "scale=out_color_matrix=bt709,format=yuv422p" for word in options]
    data = encoded(tmp_path / name, patches(*size), *options, fps=25 if name.startswith("dv") else 24)
    frames_FHWC = _read(data, fps=25.0 if name.startswith("dv") else 24.0)

    assert frames_FHWC.shape == (5, 96, 128, 3)
    assert np.abs(np.array(middles(frames_FHWC[2])) - PATCHES).max() <= 3


@pytest.mark.fault("F35", "an old QuickTime file without `ftyp`", "its frames")
def test_a_quicktime_file_that_begins_with_another_box_is_read(tmp_path: Path) -> None:
    data = encoded(tmp_path / "a.mov", patches(), "-c:v", "qtrle", "-pix_fmt", "rgb24", "-movflags", "+faststart")
    size = int.from_bytes(data[:4])
    assert data[4:8] == b"ftyp"
    old = (size).to_bytes(4) + b"wide" + b"\0" * (size - 8) + data[size:]  # places of frames stay as they are

    assert np.abs(np.array(middles(_read(old)[2])) - PATCHES).max() <= 3


@pytest.mark.parametrize(("turn", "place"), [("90", 2), ("180", 3), ("270", 1)])
def test_a_turned_clip_stands_upright(tmp_path: Path, turn: str, place: int) -> None:
    encoded(tmp_path / "a.mp4", patches(96, 96), "-vf", f"{BT601},format=yuv420p", *H264)
    ffmpeg("-display_rotation", turn, "-i", str(tmp_path / "a.mp4"), "-c", "copy", str(tmp_path / "b.mp4"))
    frames_FHWC = _read((tmp_path / "b.mp4").read_bytes(), height=96, width=96)

    # The display matrix turns counter-clockwise; the red patch moves from the top left.
    assert np.abs(np.array(middles(frames_FHWC[2])[place]) - PATCHES[0]).max() <= 3


@pytest.mark.fault(
    "F35", "Windows Media, Flash, Ogg, a playlist, a still in the place of a clip", "refused by what it is"
)
@pytest.mark.parametrize(
    ("data", "title"),
    [
        (b"\x30\x26\xb2\x75\x8e\x66\xcf\x11\xa6\xd9", "a Windows Media"),
        (b"FLV\x01\x05", "a Flash"),
        (b"OggS\0\2", "an Ogg"),
        (b"#EXTM3U\n#EXTINF:2,\nsecret.mp4\n", "a playlist"),
        (b"\x89PNG\r\n\x1a\n", "a PNG"),
        (b"RIFF\x64\0\0\0WEBPVP8X", "a WebP"),
        (b"\0\0\0\x20ftypavis\0\0\0\0avifmsf1iso8", "an AVIF"),
        (b"\0\0\0\x20ftypheic\0\0\0\0mif1heic", "a HEIC"),
        (b"<html><title>404", "an HTML"),
    ],
)
def test_what_is_not_read_is_named(data: bytes, title: str) -> None:
    with pytest.raises(SourceUnreadable, match=f"a: is {title}.* file, not an MP4, WebM or GIF file; clips are MP4"):
        _read(data)


def test_a_codec_that_is_not_read_is_named(tmp_path: Path) -> None:
    data = encoded(tmp_path / "a.avi", patches(), "-c:v", "wmv2")

    with pytest.raises(SourceUnreadable, match="a: is coded as wmv2, which is not read"):
        _read(data)
