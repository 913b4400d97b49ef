"""Clips become frames of the asked number, rate and size; hostile ones stop at the caps and lead nowhere."""

from __future__ import annotations

import struct
import subprocess
from pathlib import Path
from typing import Any

import imageio_ffmpeg
import numpy as np
import pytest
from numpy.typing import NDArray

from sdbatch.errors import SourceTooLarge, SourceTooShort, SourceUnreadable
from sdbatch.fetch import clips as source_clips
from sdbatch.fetch.clips import HELD_FRAMES_MAX, decode_clip

# F frames, H and W pixels, C = 3 channels.

CODECS = {
    "mp4": ["-c:v", "libx264", "-crf", "1", "-pix_fmt", "yuv444p"],
    "webm": ["-c:v", "libvpx-vp9", "-lossless", "1", "-deadline", "realtime"],
    "mov": ["-c:v", "prores_ks"],
    "avi": ["-c:v", "rawvideo", "-pix_fmt", "bgr24"],
    "gif": ["-vf", "split[a][b];[a]palettegen[palette];[b][palette]paletteuse=dither=none"],
}
HEIGHT, WIDTH = 48, 64


def _levels(count: int) -> NDArray[np.uint8]:
    """Frames of one grey each, five apart, so that a frame tells its number."""
    return np.repeat(np.arange(20, 20 + 5 * count, 5, dtype=np.uint8), HEIGHT * WIDTH * 3).reshape(-1, HEIGHT, WIDTH, 3)


def _ffmpeg(*arguments: str, stdin: bytes = b"", cwd: Path | None = None) -> subprocess.CompletedProcess[bytes]:
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-v", "error", "-y", *arguments]
    return subprocess.run(command, input=stdin, capture_output=True, cwd=cwd)


def _clip(
    folder: Path,
    frames_FHWC: NDArray[np.uint8],
    fps: str = "8",
    suffix: str = "mp4",
    channels: str = "rgb24",
    more: tuple[str, ...] = (),
) -> bytes:
    _, height, width, _ = frames_FHWC.shape
    file = folder / f"clip.{suffix}"
    raw = ["-f", "rawvideo", "-pix_fmt", channels, "-s", f"{width}x{height}", "-framerate", fps, "-i", "pipe:0"]
    done = _ffmpeg(*raw, *CODECS[suffix], *more, str(file), stdin=frames_FHWC.tobytes())
    assert done.returncode == 0, done.stderr
    return file.read_bytes()


def _read(data: bytes, **changes: Any) -> NDArray[np.uint8]:
    shape = {"num_frames": 9, "fps": 8.0, "height": HEIGHT, "width": WIDTH, "fit": "cover", "pixels_max": 1_000_000}
    return decode_clip(data, "brand/a", **{**shape, **changes})


def _numbers(frames_FHWC: NDArray[np.uint8]) -> list[int]:
    return [round((float(frame_HWC.mean()) - 20) / 5) for frame_HWC in frames_FHWC]


# --- rate, number, size ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", CODECS)
def test_at_its_own_rate_every_frame_is_met_once(tmp_path: Path, suffix: str) -> None:
    fps = {"gif": "10"}.get(suffix, "24000/1001")  # a GIF counts in hundredths of a second
    frames_FHWC = _read(
        _clip(tmp_path, _levels(12), fps, suffix), num_frames=12, fps=10.0 if suffix == "gif" else 23.976
    )

    assert frames_FHWC.shape == (12, HEIGHT, WIDTH, 3)
    assert _numbers(frames_FHWC) == list(range(12))
    assert frames_FHWC.std(axis=(1, 2, 3)).max() < 2


@pytest.mark.parametrize(
    ("fps", "numbers"),
    [(4.0, [0, 2, 4, 6, 8]), (16.0, [0, 0, 1, 1, 2]), (3.0, [0, 2, 5, 8, 10]), (8.0, [0, 1, 2, 3, 4])],
)
def test_frames_are_repeated_or_left_out_and_never_blended(tmp_path: Path, fps: float, numbers: list[int]) -> None:
    frames_FHWC = _read(_clip(tmp_path, _levels(12)), num_frames=5, fps=fps)

    assert _numbers(frames_FHWC) == numbers


@pytest.mark.parametrize(
    ("suffix", "more"),
    [("avi", ()), ("avi", ("-c:v", "mjpeg")), ("mov", ("-c:v", "qtrle", "-video_track_timescale", "25")), ("mp4", ())],
)
def test_of_a_container_that_counts_in_frames_the_frame_on_screen_is_taken(
    tmp_path: Path, suffix: str, more: tuple[str, ...]
) -> None:
    data = _clip(tmp_path, _levels(25), "25", suffix, more=more)

    assert _numbers(_read(data, num_frames=25, fps=25.0)) == list(range(25))
    assert _numbers(_read(data, num_frames=8, fps=8.0)) == [25 * number // 8 for number in range(8)]


def test_a_source_a_few_frames_short_is_held_and_a_shorter_one_refused(tmp_path: Path) -> None:
    data = _clip(tmp_path, _levels(9))

    notes: list[str] = []

    assert _numbers(_read(data, num_frames=9, notes=notes)) == [*range(9)]
    assert notes == []
    frames_FHWC = _read(data, num_frames=9 + HELD_FRAMES_MAX, notes=notes)
    assert _numbers(frames_FHWC) == [*range(9), *[8] * HELD_FRAMES_MAX]
    assert notes == ["brand/a: gives 9 frame(s) at 8 a second; 17 are needed, and its last one was held"]
    with pytest.raises(SourceTooShort, match=r"brand/a: gives 9 frame\(s\) at 8 a second; 18 are needed"):
        _read(data, num_frames=10 + HELD_FRAMES_MAX)


def _joined(folder: Path, later: tuple[int, int], more: tuple[str, ...] = (), turn: tuple[str, ...] = ()) -> bytes:
    """Return a clip of 40 frames whose last 20 have another height and width, or are coded in another way."""
    levels_FHWC = _levels(40)
    later_FHWC = np.ascontiguousarray(np.broadcast_to(levels_FHWC[20:, :1, :1], (20, *later, 3)))
    for name, frames_FHWC in (("one", levels_FHWC[:20]), ("two", later_FHWC)):
        (folder / name).mkdir()
        _clip(folder / name, frames_FHWC, more=more if name == "two" else ())
    (folder / "list").write_text("file one/clip.mp4\nfile two/clip.mp4\n")
    done = _ffmpeg(*turn, "-f", "concat", "-i", "list", "-c", "copy", "clip.mkv", cwd=folder)
    assert done.returncode == 0, done.stderr
    return (folder / "clip.mkv").read_bytes()


@pytest.mark.parametrize(
    ("size", "more"),
    [
        ((HEIGHT, WIDTH), ("-pix_fmt", "yuv420p")),
        ((HEIGHT, WIDTH), ("-colorspace", "smpte170m")),
        ((HEIGHT * 2, WIDTH * 2), ()),
    ],
)
def test_a_clip_that_changes_in_its_middle_is_read_on(
    tmp_path: Path, size: tuple[int, int], more: tuple[str, ...]
) -> None:
    numbers = _numbers(_read(_joined(tmp_path, size, more), num_frames=30))

    left_out = sorted(set(range(32)) - set(numbers))
    assert numbers == [number for number in range(32) if number not in left_out]
    assert len(left_out) == 2
    assert 16 <= left_out[0] == left_out[1] - 1 < 20


def test_a_turned_clip_may_change_its_size(tmp_path: Path) -> None:
    data = _joined(tmp_path, (HEIGHT * 2, WIDTH * 2), turn=("-display_rotation", "90"))

    assert _numbers(_read(data, num_frames=18, height=64, width=48)) == list(range(18))


@pytest.mark.parametrize("size", [(HEIGHT, WIDTH * 2), (WIDTH, HEIGHT)])
def test_a_clip_that_changes_its_shape_is_refused(tmp_path: Path, size: tuple[int, int]) -> None:
    data = _joined(tmp_path, size)
    with pytest.raises(SourceUnreadable, match="brand/a: its frames change their shape in the middle"):
        _read(data, num_frames=30)


def test_every_frame_is_fitted_alike(tmp_path: Path) -> None:
    frames_FHWC = np.zeros((9, 32, 96, 3), np.uint8)
    frames_FHWC[:, :, 32:64] = 255
    data = _clip(tmp_path, frames_FHWC)

    assert _read(data, height=32, width=32, fit="cover").min() > 250
    contained_FHWC = _read(data, height=96, width=96, fit="contain")
    assert contained_FHWC.shape == (9, 96, 96, 3)
    assert set(np.unique(contained_FHWC[:, :30])) == {85}
    assert contained_FHWC[:, 48, 48].min() > 250


def test_padding_does_not_flicker_with_the_picture(tmp_path: Path) -> None:
    frames_FHWC = _read(_clip(tmp_path, _levels(9)), height=96, width=64, fit="contain")

    assert len(np.unique(frames_FHWC[:, 0])) == 1
    assert len(np.unique(frames_FHWC[:, 48, 32])) == 9


def test_colours_of_a_tagged_clip_are_kept(tmp_path: Path) -> None:
    frames_FHWC = np.full((9, HEIGHT, WIDTH, 3), (0, 255, 0), np.uint8)
    tagged = "scale=out_color_matrix=bt709:out_range=tv,format=yuv420p,setparams=colorspace=bt709:range=tv"
    data = _clip(tmp_path, frames_FHWC, more=("-vf", tagged, "-pix_fmt", "yuv420p"))

    assert np.abs(_read(data).astype(int) - (0, 255, 0)).max() <= 3


def test_a_turned_clip_stands_upright(tmp_path: Path) -> None:
    _clip(tmp_path, _levels(9))
    turn = ("-display_rotation", "90", "-i", str(tmp_path / "clip.mp4"), "-c", "copy", str(tmp_path / "turned.mp4"))
    assert _ffmpeg(*turn).returncode == 0
    frames_FHWC = _read((tmp_path / "turned.mp4").read_bytes(), height=WIDTH, width=HEIGHT, fit="contain")

    assert _numbers(frames_FHWC) == list(range(9))
    assert frames_FHWC.std(axis=(1, 2, 3)).max() < 2


def test_oblong_pixels_become_square(tmp_path: Path) -> None:
    frames_FHWC = np.zeros((9, 32, 32, 3), np.uint8)
    frames_FHWC[:, :, :16] = 200
    data = _clip(tmp_path, frames_FHWC, more=("-vf", "setsar=2"))

    assert (_read(data, height=32, width=64)[0, 16] > 100).sum(axis=0)[0] in range(30, 35)


def test_transparent_parts_of_a_clip_become_white(tmp_path: Path) -> None:
    frames_FHWC = np.zeros((9, HEIGHT, WIDTH, 4), np.uint8)
    frames_FHWC[:, :, : WIDTH // 2] = (200, 0, 0, 255)
    shown_FHWC = _read(_clip(tmp_path, frames_FHWC, suffix="gif", channels="rgba"))

    assert shown_FHWC[:, :, 40:].min() == 255
    assert shown_FHWC[:, :, :24, 1].max() < 10


def test_sound_beside_the_picture_does_no_harm(tmp_path: Path) -> None:
    _clip(tmp_path, _levels(9))
    tone = (
        "-i",
        str(tmp_path / "clip.mp4"),
        "-f",
        "lavfi",
        "-i",
        "sine=d=1",
        "-c:v",
        "copy",
        str(tmp_path / "tone.mp4"),
    )
    assert _ffmpeg(*tone).returncode == 0

    assert _numbers(_read((tmp_path / "tone.mp4").read_bytes())) == list(range(9))


@pytest.mark.parametrize(
    ("name", "more"),
    [
        ("code.mov", ("-timecode", "01:00:00:00")),
        ("code.mp4", ("-timecode", "01:00:00:00")),
        (
            "named.mkv",
            ("-metadata:s:v", "language=zh-Hans-CN", "-metadata:s:v", "title=Stream #0:1: Video: gif, rgb24"),
        ),
    ],
)
def test_a_clip_is_found_beside_its_time_code_and_by_any_language(
    tmp_path: Path, name: str, more: tuple[str, ...]
) -> None:
    _clip(tmp_path, _levels(9))
    done = _ffmpeg("-i", "clip.mp4", "-c", "copy", *more, name, cwd=tmp_path)
    assert done.returncode == 0, done.stderr

    assert _numbers(_read((tmp_path / name).read_bytes())) == list(range(9))


@pytest.mark.parametrize("suffix", ["mov", "mkv"])
@pytest.mark.parametrize("shown", [0, 1])
def test_of_several_clips_in_a_file_the_one_that_players_show_is_taken(tmp_path: Path, suffix: str, shown: int) -> None:
    _clip(tmp_path, _levels(18)[9:])
    (tmp_path / "clip.mp4").rename(tmp_path / "later.mp4")
    _clip(tmp_path, _levels(9))
    both = ("-i", "clip.mp4", "-i", "later.mp4", "-map", "0", "-map", "1", "-c", "copy")
    marks = ("-disposition:0", "0", "-disposition:1", "0", f"-disposition:{shown}", "default")
    done = _ffmpeg(*both, *marks, f"both.{suffix}", cwd=tmp_path)
    assert done.returncode == 0, done.stderr

    notes: list[str] = []

    frames_FHWC = _read((tmp_path / f"both.{suffix}").read_bytes(), notes=notes)

    assert _numbers(frames_FHWC) == [9 * shown + number for number in range(9)]
    told = f"the one that players show (stream {shown} of the file) was taken"
    assert notes == [f"brand/a: it has 2 video streams, of which {told}"]


def _with_aperture(data: bytes, width: int, height: int) -> bytes:
    """Return an MP4, its index behind its frames, of which only so much in the middle is shown."""
    aperture = struct.pack(">I4s8i", 40, b"clap", width, 1, height, 1, 0, 1, 0, 1)
    boxes, start, end = [], 0, len(data)
    for name in (b"moov", b"trak", b"mdia", b"minf", b"stbl", b"stsd", b"avc1"):
        while data[start + 4 : start + 8] != name:
            start += int.from_bytes(data[start : start + 4])
        boxes.append(start)
        end = start + int.from_bytes(data[start : start + 4])
        start += 16 if name == b"stsd" else 8
    longer = bytearray(data[:end] + aperture + data[end:])
    for place in boxes:
        struct.pack_into(">I", longer, place, int.from_bytes(data[place : place + 4]) + len(aperture))
    return bytes(longer)


@pytest.mark.parametrize("suffix", ["mp4", "mkv"])
def test_what_a_container_cuts_off_is_not_shown(tmp_path: Path, suffix: str) -> None:
    frames_FHWC = _levels(9)
    frames_FHWC[:, :12] = frames_FHWC[:, -12:] = 255
    (tmp_path / "cut.mp4").write_bytes(_with_aperture(_clip(tmp_path, frames_FHWC), WIDTH, HEIGHT - 24))
    done = _ffmpeg("-i", "cut.mp4", "-c", "copy", f"copy.{suffix}", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    file = tmp_path / ("cut.mp4" if suffix == "mp4" else "copy.mkv")

    assert _numbers(_read(file.read_bytes(), height=24)) == list(range(9))


# --- strangers' files -----------------------------------------------------------------------------------------------


def test_playlists_are_no_clips_and_are_not_followed(tmp_path: Path) -> None:
    (tmp_path / "secret.mp4").write_bytes(_clip(tmp_path, _levels(9)))
    playlists = {
        "concat.mp4": b"ffconcat version 1.0\nfile secret.mp4\n",
        "hls.m3u8": b"#EXTM3U\n#EXT-X-TARGETDURATION:2\n#EXTINF:2,\nsecret.mp4\n#EXT-X-ENDLIST\n",
    }
    for name, text in playlists.items():
        (tmp_path / name).write_bytes(text)
        # ffmpeg left to itself reads the file that is named.
        assert _ffmpeg("-i", name, "-f", "framecrc", "-", cwd=tmp_path).stdout.count(b"\n0,") == 9
        with pytest.raises(SourceUnreadable, match="not an MP4, WebM or GIF file"):
            _read(text)


@pytest.mark.parametrize("mark", [b"\0\0\0\x18ftypisom", b"\x1aE\xdf\xa3", b"GIF89a"])
def test_a_playlist_with_a_clips_mark_is_no_clip_either(mark: bytes) -> None:
    with pytest.raises((SourceUnreadable, SourceTooLarge), match="brand/a: "):
        _read(mark + b"\n#EXTM3U\n#EXT-X-TARGETDURATION:2\n#EXTINF:2,\nfile:///etc/passwd\n#EXT-X-ENDLIST\n")


def test_a_decoder_that_is_not_on_the_list_is_not_opened(tmp_path: Path) -> None:
    (tmp_path / "a.mkv").write_bytes(b"")
    _clip(tmp_path, _levels(9))
    assert _ffmpeg("-i", str(tmp_path / "clip.mp4"), "-c:v", "wmv2", str(tmp_path / "a.mkv")).returncode == 0

    with pytest.raises(SourceUnreadable, match="wmv2"):
        _read((tmp_path / "a.mkv").read_bytes())


def test_a_clip_over_the_cap_of_pixels_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SourceTooLarge, match=r"brand/a: .*64x48"):
        _read(_clip(tmp_path, _levels(9)), pixels_max=HEIGHT * WIDTH - 1)


@pytest.mark.parametrize("suffix", ["mp4", "webm", "gif"])
def test_half_a_clip_is_unreadable_or_short(tmp_path: Path, suffix: str) -> None:
    data = _clip(tmp_path, _levels(40), suffix=suffix)

    with pytest.raises((SourceUnreadable, SourceTooShort)):
        _read(data[: len(data) // 2], num_frames=40)


def test_a_clip_that_takes_too_long_is_stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = _clip(tmp_path, _levels(9))
    monkeypatch.setattr(source_clips, "WALL_S", 0.0)

    with pytest.raises(SourceUnreadable, match="took over 0 s"):
        _read(data)


def test_a_clip_of_sound_alone_is_unreadable(tmp_path: Path) -> None:
    file = tmp_path / "a.mp4"
    assert _ffmpeg("-f", "lavfi", "-i", "sine=d=1", str(file)).returncode == 0

    with pytest.raises(SourceUnreadable, match="brand/a: holds no video"):
        _read(file.read_bytes())
