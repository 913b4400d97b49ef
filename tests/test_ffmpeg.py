"""The bundled ffmpeg says which one it is."""

from __future__ import annotations

from imageio_ffmpeg import get_ffmpeg_version

from sdbatch import ffmpeg


def test_its_version_is_what_the_bundle_says() -> None:
    assert ffmpeg.version() == get_ffmpeg_version()
