"""Frames become clips, opened here by the bundled ffmpeg itself: size, count, rate, colour, sound and recipe."""

from __future__ import annotations

import re
import subprocess
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import imageio_ffmpeg
import numpy as np
import pytest
from numpy.typing import NDArray
from support.clips import read_by_zscale, stripe, stripe_shift

from sdbatch.canonical import canonical
from sdbatch.encode import video
from sdbatch.encode.embedded import Encoded
from sdbatch.encode.video import encode_video, read_embedded_video, read_frames_of_video
from sdbatch.errors import EncodeFailed
from sdbatch.ffmpeg import exact_rate
from sdbatch.formats import CLIPS, ClipFormat
from sdbatch.job import Encode
from sdbatch.types import Sound

# F frames, H and W pixels, C = 3 channels; of sound C channels, T samples.

KEY = "0123456789abcdef" * 4
RECIPE = {"prompt": 'Füchse = 狐 🦊; "quoted" # \\ and\n\t[chapter]\nmore', "seed": "9223372036854775807", "fps": 16.0}
PATCHES = {(200, 120, 60): 8, (0, 255, 0): 40, (20, 20, 220): 72}
COUNT, HEIGHT, WIDTH = 17, 64, 112

every_suffix = pytest.mark.parametrize("suffix", ["mp4", "webm"])


def _frames(count: int = COUNT, height: int = HEIGHT, width: int = WIDTH) -> NDArray[np.uint8]:
    """A grey ground with three still patches, and a white bar that moves two pixels a frame."""
    frames_FHWC = np.full((count, height, width, 3), 96, np.uint8)
    for colour, left in PATCHES.items():
        frames_FHWC[:, 8:40, left : left + 24] = colour
    for number, frame_HWC in enumerate(frames_FHWC):
        frame_HWC[48:60, 2 * number : 2 * number + 8] = 255
    return frames_FHWC


def _encoded(suffix: str = "mp4", fps: float = 16.0, n: int = 3, **more: Any) -> Encoded:
    options = Encode(video=suffix, video_crf=more.pop("crf", None))
    frames_FHWC = more.pop("frames_FHWC", _frames())
    return encode_video(frames_FHWC, fps, options, request_key=KEY, n=n, recipe=canonical(RECIPE), **more)


def _ffmpeg(*arguments: str, data: bytes) -> subprocess.CompletedProcess[bytes]:
    with tempfile.NamedTemporaryFile() as file:
        file.write(data)
        file.flush()
        return subprocess.run(
            [imageio_ffmpeg.get_ffmpeg_exe(), "-hide_banner", "-i", file.name, *arguments], capture_output=True
        )


def _explain_error(data: bytes) -> str:
    return _ffmpeg(data=data).stderr.decode()


def _decoded(encoded: Encoded, height: int = HEIGHT, width: int = WIDTH) -> NDArray[np.uint8]:
    raw = _ffmpeg("-f", "rawvideo", "-pix_fmt", "rgb24", "-", data=encoded.data).stdout
    return np.frombuffer(raw, np.uint8).reshape(-1, height, width, 3)


def _tone(seconds: float, rate_hz: int = 24_000) -> Sound:
    wave_T = 0.5 * np.sin(2 * np.pi * 440 * np.arange(int(seconds * rate_hz)) / rate_hz)
    return Sound(samples_CT=np.stack([wave_T, 0 * wave_T]).astype(np.float32), rate_hz=rate_hz)


# --- files ----------------------------------------------------------------------------------------------------------


@every_suffix
def test_a_clip_has_the_size_count_and_rate_that_were_asked(suffix: str) -> None:
    encoded = _encoded(suffix)

    assert (encoded.suffix, encoded.media_type) == (suffix, f"video/{suffix}")
    assert _decoded(encoded).shape == (COUNT, HEIGHT, WIDTH, 3)
    assert re.search(r"Video: (h264|av1) .*yuv420p\(tv, bt709, progressive\).* 16 fps", _explain_error(encoded.data))


@every_suffix
def test_colours_come_back_within_three_of_255(suffix: str) -> None:
    frames_FHWC = _decoded(_encoded(suffix))

    for colour, left in PATCHES.items():
        inside_FHWC = frames_FHWC[:, 16:32, left + 8 : left + 16].astype(int)
        assert np.abs(inside_FHWC - colour).max() <= 3, colour


@pytest.mark.parametrize("is_upright", [True, False])
@every_suffix
def test_colours_lie_where_players_look_for_them(suffix: str, is_upright: bool, tmp_path: Path) -> None:
    frames_FHWC = stripe(is_upright=is_upright)
    data = _encoded(suffix, frames_FHWC=frames_FHWC).data
    file = tmp_path / f"a.{suffix}"
    file.write_bytes(data)

    for read_FHWC in (read_by_zscale(file, 96, 160), read_frames_of_video(data, suffix, 96, 160)):
        assert abs(stripe_shift(read_FHWC[0], is_upright=is_upright)) < 0.15


@every_suffix
def test_every_frame_is_its_own_and_in_order(suffix: str) -> None:
    edges = [int(np.argmax(frame_HWC[54].mean(axis=-1) > 175)) for frame_HWC in _decoded(_encoded(suffix))]

    assert edges == [2 * number for number in range(COUNT)]


@pytest.mark.parametrize(
    ("fps", "meant"),
    [(23.976, "24000/1001"), (29.97, "30000/1001"), (59.94, "60000/1001"), (12.5, "25/2"), (24.0, "24"), (6.4, "32/5")],
)
def test_a_rate_is_the_fraction_that_is_meant(fps: float, meant: str) -> None:
    assert str(exact_rate(fps)) == meant


def test_a_fractional_rate_is_kept_in_the_file() -> None:
    data = _encoded(fps=23.976).data
    times = _ffmpeg("-c", "copy", "-f", "framecrc", "-", data=data).stdout.decode()

    assert "#tb 0: 1/24000" in times
    shown = sorted(int(line.split(",")[2]) for line in times.splitlines() if line.startswith("0,"))
    assert shown == [1001 * number for number in range(COUNT)]


def test_an_mp4_can_be_played_before_it_is_whole() -> None:
    data = _encoded().data

    assert data.index(b"moov") < data.index(b"mdat")


def test_an_odd_size_is_kept_in_webm_and_refused_in_mp4() -> None:
    frames_FHWC = _frames(height=63, width=111)

    assert _decoded(_encoded("webm", frames_FHWC=frames_FHWC), 63, 111).shape == (COUNT, 63, 111, 3)
    with pytest.raises(
        EncodeFailed, match=r"111 x 63: H\.264 takes multiples of 2; `encode\.video: webm` takes any size"
    ):
        _encoded("mp4", frames_FHWC=frames_FHWC)


@every_suffix
def test_a_lower_crf_makes_a_larger_file(suffix: str) -> None:
    noise_FHWC = np.random.default_rng(3).integers(0, 256, (5, 64, 64, 3), dtype=np.uint8)

    assert len(_encoded(suffix, crf=10, frames_FHWC=noise_FHWC).data) > len(
        _encoded(suffix, crf=45, frames_FHWC=noise_FHWC).data
    )


@every_suffix
def test_the_same_clip_gives_the_same_bytes(suffix: str) -> None:
    first = _encoded(suffix, sound=_tone(1.0))

    assert _encoded(suffix, sound=_tone(1.0)) == first
    assert _encoded(suffix, sound=_tone(1.0), n=4) != first


# --- sound ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("suffix", "codec"), [("mp4", "aac"), ("webm", "opus")])
def test_sound_is_muxed_and_cut_where_the_frames_end(suffix: str, codec: str) -> None:
    encoded = _encoded(suffix, sound=_tone(3.0))
    raw = _ffmpeg("-map", "0:a", "-f", "f32le", "-ar", "24000", "-", data=encoded.data).stdout
    samples_TC = np.frombuffer(raw, "<f4").reshape(-1, 2)

    assert f"Audio: {codec}" in _explain_error(encoded.data)
    assert abs(len(samples_TC) / 24_000 - COUNT / 16) < 0.05
    left, right = np.abs(samples_TC[4_000:20_000]).max(axis=0)
    assert 0.45 < left < 0.55
    assert right < 0.05
    assert _decoded(encoded).shape[0] == COUNT


def test_without_sound_there_is_no_track_of_it() -> None:
    assert "Audio" not in _explain_error(_encoded().data)


# --- what is embedded -----------------------------------------------------------------------------------------------


@every_suffix
def test_the_recipe_of_a_clip_reads_back_to_the_last_character(suffix: str) -> None:
    embedded = read_embedded_video(_encoded(suffix).data, suffix)

    assert embedded == {"format_version": 1, "request_key": KEY, "n": 3, "num_frames": COUNT, "recipe": RECIPE}


@every_suffix
@pytest.mark.parametrize("share", [0.05, 0.5, 0.9, None], ids=str)
def test_a_part_of_a_clip_is_no_clip(suffix: str, share: float | None) -> None:
    data = _encoded(suffix, sound=_tone(1.0)).data

    with pytest.raises(OSError, match=r"."):
        read_embedded_video(data[: int(share * len(data)) if share else -1], suffix)


def test_a_clip_of_another_program_holds_nothing_of_ours() -> None:
    done = _ffmpeg(
        "-map_metadata",
        "-1",
        "-metadata",
        "comment=a holiday",
        "-f",
        "matroska",
        "-c",
        "copy",
        "-",
        data=_encoded("webm").data,
    )

    assert read_embedded_video(done.stdout, "webm") is None


# --- failures -------------------------------------------------------------------------------------------------------


def test_an_ffmpeg_that_fails_is_an_error_with_its_words(monkeypatch: pytest.MonkeyPatch) -> None:
    broken = replace(CLIPS["mp4"], video=("libx264", "-preset", "no-such"))
    monkeypatch.setitem(cast("dict[str, ClipFormat]", CLIPS), "mp4", broken)

    with pytest.raises(EncodeFailed, match=r"mp4 of 17 frames, 112 x 64: ffmpeg, status \d+: .*preset"):
        _encoded()


def test_a_folder_that_takes_no_files_is_an_error_not_an_empty_clip(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", "/proc/self")

    with pytest.raises(EncodeFailed, match="/proc/self"):
        _encoded()


def test_an_ffmpeg_that_takes_too_long_is_stopped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(video, "TIMEOUT_FIRST_S", 0.0)
    monkeypatch.setattr(video, "TIMEOUT_PER_MPIXEL_S", 0.0)

    with pytest.raises(EncodeFailed, match="took over 0 s"):
        _encoded()


def test_nothing_is_left_in_the_temporary_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    _encoded(sound=_tone(1.0))
    with pytest.raises(EncodeFailed):
        _encoded(frames_FHWC=_frames(height=64, width=0))

    assert list(tmp_path.iterdir()) == []


# --- the table ------------------------------------------------------------------------------------------------------


def test_one_more_format_is_one_row(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = cast("dict[str, ClipFormat]", CLIPS)
    monkeypatch.setitem(rows, "mkv", replace(CLIPS["webm"], muxer="matroska", media_type="video/x-matroska"))
    options = Encode.model_construct(video="mkv")
    values = {"request_key": KEY, "n": 3, "recipe": canonical(RECIPE)}
    encoded = encode_video(_frames(), 16.0, options, sound=_tone(1.0), **values)  # type: ignore[arg-type]

    assert (encoded.suffix, encoded.media_type) == ("mkv", "video/x-matroska")
    assert read_embedded_video(encoded.data, "mkv") is not None
    assert "Audio: opus" in _explain_error(encoded.data)
