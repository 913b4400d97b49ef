"""A clip's frames come out as its maker saw them: SDR of BT.709, progressive, on white, whatever it is stored as."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import imageio_ffmpeg
import numpy as np
import pytest
from numpy.typing import NDArray
from support.clips import (
    H264,
    HEVC,
    PATCHES,
    described,
    encoded,
    ffmpeg,
    middles,
    patches,
    stripe,
    stripe_shift,
)

from sdbatch.errors import SourceUnreadable
from sdbatch.fetch.clip_colour import refuse_unread
from sdbatch.fetch.clip_header import parse_header
from sdbatch.fetch.clips import decode_clip

# F frames, H and W pixels, C = 3 channels.


def _read(data: bytes, notes: list[str] | None = None, **changes: Any) -> NDArray[np.uint8]:
    shape = {"num_frames": 5, "fps": 24.0, "height": 96, "width": 128, "fit": "cover", "pixels_max": 4_000_000}
    return decode_clip(data, "a", **{**shape, **changes}, notes=notes)


def _near(colours: list[tuple[int, ...]], right: tuple[tuple[int, ...], ...] = PATCHES) -> bool:
    return bool(np.abs(np.array(colours) - np.array(right)).max() <= 3)


# --- HDR ------------------------------------------------------------------------------------------------------------

BT2020_OF_BT709 = np.array([[0.6274, 0.3293, 0.0433], [0.0691, 0.9195, 0.0114], [0.0164, 0.0880, 0.8956]])
"""Of ITU-R BT.2087."""


def _pq(light_nits: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the signal of PQ, by the formula of ITU-R BT.2100."""
    power = (light_nits / 10_000) ** 0.1593017578125
    return ((0.8359375 + 18.8515625 * power) / (1 + 18.6875 * power)) ** 78.84375


def _hlg(light_nits: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the signal of HLG for a screen of 1,000 nits, by the formulas of ITU-R BT.2100, channel by channel."""
    scene = (light_nits / 1000) ** (1 / 1.2)
    logarithmic = 0.17883277 * np.log(np.maximum(12 * scene - 0.28466892, 1e-9)) + 0.55991073
    return np.where(scene <= 1 / 12, np.sqrt(3 * scene), logarithmic)


def _yuv_of_hdr(curve: Any) -> NDArray[np.uint16]:
    """Return planes of 10 bits, 4:4:4, of the patches, where white paper has 203 nits (ITU-R BT.2408)."""
    frames_FHWC = patches()[..., :3].astype(np.float64) / 255
    signal = curve(203 * (frames_FHWC**2.4) @ BT2020_OF_BT709.T)
    luma = signal @ np.array([0.2627, 0.6780, 0.0593])
    blue, red = (signal[..., 2] - luma) / 1.8814, (signal[..., 0] - luma) / 1.4746
    planes = np.stack([64 + 876 * luma, 512 + 896 * blue, 512 + 896 * red], axis=1)
    planes_FPHW: NDArray[np.uint16] = np.rint(planes).astype("<u2")
    return planes_FPHW


@pytest.mark.parametrize(
    ("curve", "transfer"),
    [
        pytest.param(_hlg, "arib-std-b67", marks=pytest.mark.fault("F2", "an HLG clip", "its colours within 3 of 255")),
        pytest.param(_pq, "smpte2084", marks=pytest.mark.fault("F2", "a PQ clip", "its colours within 3 of 255")),
    ],
    ids=["hlg", "pq"],
)
def test_hdr_up_to_white_paper_comes_out_as_it_looks(tmp_path: Path, curve: Any, transfer: str) -> None:
    file = tmp_path / "a.mov"
    frames_FPHW = _yuv_of_hdr(curve)
    tags = ("-color_primaries", "bt2020", "-color_trc", transfer, "-colorspace", "bt2020nc", "-color_range", "tv")
    raw = ["-f", "rawvideo", "-pix_fmt", "yuv444p10le", "-s", "128x96", "-framerate", "24", *tags, "-i", "pipe:0"]
    ffmpeg(*raw, "-pix_fmt", "yuv420p10le", *HEVC, *tags, str(file), stdin=frames_FPHW.tobytes())
    assert f"bt2020nc/bt2020/{transfer}" in described(file)
    notes: list[str] = []

    assert _near(middles(_read(file.read_bytes(), notes)[2]))
    assert len(notes) == 1
    assert notes[0].startswith("a: its HDR (")


def test_what_is_brighter_than_white_paper_keeps_its_hue(tmp_path: Path) -> None:
    file = tmp_path / "a.mov"
    bright_FPHW = _yuv_of_hdr(lambda nits: _pq(4 * nits))
    tags = ("-color_primaries", "bt2020", "-color_trc", "smpte2084", "-colorspace", "bt2020nc", "-color_range", "tv")
    raw = ["-f", "rawvideo", "-pix_fmt", "yuv444p10le", "-s", "128x96", "-framerate", "24", *tags, "-i", "pipe:0"]
    ffmpeg(*raw, "-pix_fmt", "yuv420p10le", *HEVC, *tags, str(file), stdin=bright_FPHW.tobytes())
    red, _, white, skin = middles(_read(file.read_bytes())[2])

    assert white == (255, 255, 255)
    assert red[0] >= 252
    assert max(red[1:]) < 60
    assert skin[0] >= 252 > skin[1] > skin[2]


# --- SDR of other kinds ---------------------------------------------------------------------------------------------


def _to(matrix: str, span: str = "tv", pixel_format: str = "yuv420p") -> str:
    return f"scale=out_color_matrix={matrix}:out_range={span}:flags=accurate_rnd,format={pixel_format}"


UNTAGGED = "setparams=colorspace=unknown:color_primaries=unknown:color_trc=unknown:range=unknown"


@pytest.mark.fault("F3", "an HD clip without colour tags", "BT.709, within 3 of 255")
@pytest.mark.parametrize(("width", "height"), [(1280, 720), (720, 1280), (720, 404)])
def test_an_untagged_clip_of_hd_is_bt709(tmp_path: Path, width: int, height: int) -> None:
    file = tmp_path / "a.mp4"
    data = encoded(file, patches(width, height), "-vf", f"{_to('bt709')},{UNTAGGED}", *H264)
    assert "bt709" not in described(file)

    assert _near(middles(_read(data)[2]))


@pytest.mark.parametrize(("width", "height"), [(640, 360), (720, 576), (720, 480)])
def test_an_untagged_clip_of_television_is_bt601(tmp_path: Path, width: int, height: int) -> None:
    data = encoded(tmp_path / "a.mp4", patches(width, height), "-vf", f"{_to('smpte170m')},{UNTAGGED}", *H264)

    assert _near(middles(_read(data)[2]))


@pytest.mark.fault("F3", "a clip of full range", "its colours within 3 of 255")
@pytest.mark.parametrize("suffix", ["mp4", "mkv"])
def test_full_range_is_honoured(tmp_path: Path, suffix: str) -> None:
    file = tmp_path / f"a.{suffix}"
    data = encoded(file, patches(), "-vf", f"{_to('bt709', 'pc')},setparams=range=pc:colorspace=bt709", *H264)
    assert "(pc, bt709" in described(file)

    assert _near(middles(_read(data)[2]))


@pytest.mark.fault("F2", "SDR clips of BT.2020, Display P3 and SMPTE 170M primaries", "their colours within 3 of 255")
@pytest.mark.parametrize(
    ("made", "tags"),
    [
        ("p=2020:t=2020_10:m=2020_ncl", ("bt2020", "bt2020-10", "bt2020nc")),
        ("p=smpte432:t=709:m=709", ("smpte432", "bt709", "bt709")),
        ("p=170m:t=601:m=170m", ("smpte170m", "smpte170m", "smpte170m")),
        ("p=bt470bg:t=601:m=470bg", ("bt470bg", "smpte170m", "bt470bg")),
    ],
    ids=["bt2020", "p3", "170m", "470bg"],
)
def test_other_primaries_are_brought_to_bt709(tmp_path: Path, made: str, tags: tuple[str, str, str]) -> None:
    file = tmp_path / "a.mp4"
    chain = f"format=gbrp,zscale=min=gbr:pin=709:tin=709:rin=full:{made}:r=limited,format=yuv420p"
    stated = ("-color_primaries", tags[0], "-color_trc", tags[1], "-colorspace", tags[2])
    data = encoded(file, patches(), "-vf", chain, *H264, *stated)

    assert _near(middles(_read(data)[2]))


def test_a_clip_of_odd_size_and_other_primaries_is_read(tmp_path: Path) -> None:
    chain = "crop=127:95,format=gbrp,zscale=min=gbr:pin=709:tin=709:rin=full:p=smpte432:t=709:m=709:r=limited"
    tags = ("-color_primaries", "smpte432", "-color_trc", "bt709", "-colorspace", "bt709")
    data = encoded(tmp_path / "a.mkv", patches(), "-vf", f"{chain},format=yuv444p", "-c:v", "ffv1", *tags)

    assert _near(middles(_read(data)[2]))


# --- fields ---------------------------------------------------------------------------------------------------------


def _moving_bar(num_frames: int) -> NDArray[np.uint8]:
    """A white bar on black that moves 12 pixels a field: fields, shot one after the other."""
    fields_FHWC = np.zeros((2 * num_frames, 96, 128, 4), np.uint8)
    for number in range(2 * num_frames):
        fields_FHWC[number, :, 8 + 6 * number : 24 + 6 * number] = 255
    woven_FHWC = fields_FHWC[::2].copy()
    woven_FHWC[:, 1::2] = fields_FHWC[1::2, 1::2]
    return woven_FHWC


def _combing(frame_HWC: NDArray[np.uint8]) -> float:
    """Return the largest difference between a row and the mean of its neighbours."""
    rows_HW = frame_HWC[8:-8, :, 1].astype(float)
    return float(np.abs(rows_HW[1:-1] - (rows_HW[:-2] + rows_HW[2:]) / 2).max())


@pytest.mark.fault("F4", "interlaced clips of H.264, MPEG-2, ProRes and DV", "whole frames: no combing")
@pytest.mark.parametrize(
    ("suffix", "options"),
    [
        ("mp4", [*H264, "-flags", "+ilme+ildct", "-x264-params", "tff=1"]),
        ("mpg", ["-c:v", "mpeg2video", "-q:v", "2", "-flags", "+ilme+ildct"]),
        ("mov", ["-c:v", "prores_ks", "-flags", "+ildct", "-top", "1"]),
    ],
    ids=["h264", "mpeg2", "prores"],
)
def test_an_interlaced_clip_has_whole_frames(tmp_path: Path, suffix: str, options: list[str]) -> None:
    file = tmp_path / f"a.{suffix}"
    pixel_format = "yuv422p10le" if suffix == "mov" else "yuv420p"
    chain = f"scale=interl=1:out_color_matrix=bt709,format={pixel_format},setfield=tff"
    data = encoded(file, _moving_bar(8), "-vf", chain, *[word for word in options if word not in {"-top", "1"}])
    frames_FHWC = _read(data)

    assert _combing(_moving_bar(8)[2][..., :3]) > 200
    assert len(frames_FHWC) == 5
    assert max(map(_combing, frames_FHWC)) < 120
    assert [int(frame_HWC[48, :, 0].argmax()) for frame_HWC in frames_FHWC] == sorted(
        {int(frame_HWC[48, :, 0].argmax()) for frame_HWC in frames_FHWC}
    )


def test_a_progressive_clip_is_left_as_it_is(tmp_path: Path) -> None:
    data = encoded(tmp_path / "a.mp4", _moving_bar(8), "-vf", _to("bt709", pixel_format="yuv444p"), *H264)

    assert max(map(_combing, _read(data))) > 200


# --- alpha ----------------------------------------------------------------------------------------------------------

ALPHAS = (255, 255, 0, 128)
ON_WHITE = (PATCHES[0], PATCHES[1], (255, 255, 255), (237, 212, 197))


@pytest.mark.parametrize(
    ("name", "options"),
    [
        pytest.param(
            "vp8.webm",
            ["-c:v", "libvpx", "-pix_fmt", "yuva420p", "-auto-alt-ref", "0", "-b:v", "2M"],
            marks=pytest.mark.fault("F5", "VP8 with alpha", "laid on white, within 3 of 255"),
        ),
        pytest.param(
            "vp9.webm",
            ["-c:v", "libvpx-vp9", "-pix_fmt", "yuva420p", "-deadline", "realtime", "-b:v", "2M"],
            marks=pytest.mark.fault("F5", "VP9 with alpha", "laid on white, within 3 of 255"),
        ),
        pytest.param(
            "prores.mov",
            ["-c:v", "prores_ks", "-profile:v", "4444", "-pix_fmt", "yuva444p10le"],
            marks=pytest.mark.fault("F5", "ProRes 4444 with alpha", "laid on white, within 3 of 255"),
        ),
        pytest.param(
            "qtrle.mov",
            ["-c:v", "qtrle", "-pix_fmt", "argb"],
            marks=pytest.mark.fault("F5", "QTRLE with alpha", "laid on white, within 3 of 255"),
        ),
        pytest.param(
            "png.mov",
            ["-c:v", "png", "-pix_fmt", "rgba"],
            marks=pytest.mark.fault("F5", "PNG in MOV with alpha", "laid on white, within 3 of 255"),
        ),
        pytest.param(
            "ffv1.mkv",
            ["-c:v", "ffv1", "-pix_fmt", "yuva444p"],
            marks=pytest.mark.fault("F5", "FFV1 with alpha", "laid on white, within 3 of 255"),
        ),
        pytest.param(
            "hevc.mov",
            [*HEVC[:2], "-x265-params", "log-level=0:crf=4:alpha=1", *HEVC[4:], "-pix_fmt", "yuva420p"],
            marks=pytest.mark.fault("F5", "HEVC with alpha", "laid on white, within 3 of 255"),
        ),
    ],
    ids=["vp8", "vp9", "prores", "qtrle", "png", "ffv1", "hevc"],
)
def test_transparent_parts_lie_on_white(tmp_path: Path, name: str, options: list[str]) -> None:
    data = encoded(tmp_path / name, patches(alphas=ALPHAS), *options)

    assert _near(middles(_read(data)[2]), ON_WHITE)


# --- what is refused ------------------------------------------------------------------------------------------------


@pytest.mark.fault("F2", "a clip of Dolby Vision 5, ICtCp, S-Log or a carried ICC profile", "refused by name")
@pytest.mark.parametrize(
    ("said", "details", "message"),
    [
        (
            "yuv420p10le(tv, bt2020nc/bt2020/smpte2084, progressive)",
            "      DOVI configuration record: version: 1.0, profile: 5, level: 4, compatibility id: 0",
            "is Dolby Vision of profile 5",
        ),
        ("yuv420p10le(tv, ictcp/bt2020/smpte2084, progressive)", "", "has the colour matrix ictcp"),
        ("yuv420p10le(tv, bt2020nc/bt2020/log316, progressive)", "", "has the transfer log316"),
        ("yuv422p10le(tv, bt709/smpte428/bt709, progressive)", "", "has the primaries smpte428"),
        ("rgba(pc, gbr/unknown/unknown, progressive)", "      ICC profile: 3144 bytes", "carries an ICC profile"),
    ],
    ids=["dolby", "ictcp", "log", "xyz", "icc"],
)
def test_what_is_not_honoured_is_refused_by_name(said: str, details: str, message: str) -> None:
    line = f"  Stream #0:0[0x1](und): Video: hevc (Main 10) (hvc1 / 0x31637668), {said}, 640x360, 24 fps (default)"
    header = parse_header(f"Input #0\n{line}\n    Side data:\n{details}\n", "a")

    with pytest.raises(SourceUnreadable, match=f"a: {message}"):
        refuse_unread(header, "a")


@pytest.mark.parametrize("number", [1, 2, 4])
def test_dolby_vision_that_other_players_show_is_read(number: int) -> None:
    line = "  Stream #0:0: Video: hevc (Main 10), yuv420p10le(tv, bt2020nc/bt2020/smpte2084), 640x360, 24 fps"
    record = f"      DOVI configuration record: version: 1.0, profile: 8, level: 4, compatibility id: {number}"

    refuse_unread(parse_header(f"{line}\n    Side data:\n{record}\n", "a"), "a")


def test_a_real_clip_of_ictcp_is_refused(tmp_path: Path) -> None:
    options = ("-c:v", "libx265", "-x265-params", "log-level=0:colormatrix=ictcp:transfer=smpte2084:colorprim=bt2020")
    data = encoded(tmp_path / "a.mkv", patches(), "-pix_fmt", "yuv420p10le", *options)

    with pytest.raises(SourceUnreadable, match="a: has the colour matrix ictcp, which is not read"):
        _read(data)


def test_the_bundled_ffmpeg_reads_what_the_table_says() -> None:
    from sdbatch.fetch.containers import DECODERS

    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-hide_banner", "-decoders"]
    listed = subprocess.run(command, capture_output=True, text=True).stdout
    known = {line.split()[1] for line in listed.splitlines() if len(line.split()) > 1}

    assert set(DECODERS.split(",")) <= known


# --- colours that several pixels share ------------------------------------------------------------------------------


@pytest.mark.parametrize("primaries", ["bt709", "bt2020"])
@pytest.mark.parametrize("is_upright", [True, False])
@pytest.mark.parametrize("siting", ["left", "center", "topleft"])
def test_colours_lie_where_the_clip_has_them(tmp_path: Path, siting: str, is_upright: bool, primaries: str) -> None:
    matrix, named = {"bt709": ("709", "bt709"), "bt2020": ("2020_ncl", "bt2020nc")}[primaries]
    stored = f"format=gbrp,zscale=min=gbr:m={matrix}:rin=full:r=limited:c={siting},format=yuv420p"
    said = ("-chroma_sample_location", siting, "-colorspace", named, "-color_primaries", primaries)
    frames_FHWC = stripe(is_upright=is_upright)
    data = encoded(tmp_path / "a.mkv", frames_FHWC, "-vf", stored, *said, *H264, pixel_format="rgb24")
    read_FHWC = _read(data, num_frames=2, width=160)

    assert abs(stripe_shift(read_FHWC[0], is_upright=is_upright)) < 0.15
