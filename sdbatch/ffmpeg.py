"""The one place that starts ffmpeg: the bundled program, its status checked, its time bounded.

    arguments --> running() --> a process to feed or to read from --> ended well, or FfmpegFailed

imageio_ffmpeg's own writer and reader are not used: they never look at the exit status, and resize to multiples of 16.
"""

from __future__ import annotations

import contextlib
import errno
import functools
import signal
import subprocess
import tempfile
import threading
from collections.abc import Iterator, Sequence
from fractions import Fraction
from subprocess import DEVNULL, PIPE
from typing import IO

import imageio_ffmpeg

from sdbatch.local_faults import LOCAL_FAULTS, number_said

MESSAGE_CHARACTERS_MAX = 400
DESCRIPTION_BYTES_MAX = 1 << 20
VERSION_TIMEOUT_S = 30.0
NTSC_RATES = {round(rate * 1000 / 1001, 2): Fraction(rate * 1000, 1001) for rate in (24, 30, 48, 60, 120)}
"""Rates that people write as decimals, such as 23.976 or 29.97, and the fractions they stand for."""

_QUIET = ("-hide_banner", "-nostdin", "-v", "error", "-y")
_ENVIRONMENT = {"SVT_LOG": "1"}  # SVT-AV1 prints its settings to stderr else; nothing of ours is handed down


class FfmpegFailed(OSError):
    """ffmpeg ended with another status than 0, logged an error, or had to be stopped.

    Its `errno` is set where ffmpeg says that this machine is at fault, such as for a full disk.
    """


@contextlib.contextmanager
def running(
    arguments: Sequence[str], *, timeout_s: float, is_strict: bool = True
) -> Iterator[tuple[IO[bytes], IO[bytes]]]:
    """Run ffmpeg while the block writes its stdin or reads its stdout: one of the two, or they wait for each other.

    When the block raises, or after `timeout_s`, it is killed; afterwards it has always ended.

    Args:
        arguments: Inputs, filters, outputs.
        timeout_s: Bound on its wall seconds.
        is_strict: Whether an error that it logs is one, though it ends with status 0, as it does after half a WebM.

    Returns:
        Its stdin and its stdout.

    Raises:
        FfmpegFailed: With the beginning of its messages.
    """
    command = [imageio_ffmpeg.get_ffmpeg_exe(), *_QUIET, *arguments]
    with (
        tempfile.TemporaryFile() as messages,
        subprocess.Popen(command, stdin=PIPE, stdout=PIPE, stderr=messages, env=_ENVIRONMENT) as process,  # noqa: S603 -- a list, no shell
    ):
        assert process.stdin is not None
        assert process.stdout is not None
        is_late = threading.Event()

        def stop() -> None:
            is_late.set()
            process.kill()

        watch = threading.Timer(timeout_s, stop)
        watch.daemon = True
        watch.start()
        try:
            with contextlib.suppress(BrokenPipeError):  # it ended before it had read all: its status says why
                yield process.stdin, process.stdout
                process.stdin.close()
            status = process.wait()
        finally:
            watch.cancel()
            process.kill()
        messages.seek(0)
        text = " ".join(messages.read().decode("utf-8", "replace").split())[:MESSAGE_CHARACTERS_MAX]
        if is_late.is_set():
            raise FfmpegFailed(f"ffmpeg took over {timeout_s:g} s")
        if status or (is_strict and text):
            failed = FfmpegFailed(f"ffmpeg, status {status}: {text}")
            # On a full disk its messages may be lost too; it ends with its error number, counted down from 256.
            number = errno.EFBIG if status == -signal.SIGXFSZ else 256 - status
            failed.errno = number if number in LOCAL_FAULTS and number != errno.EIO else number_said(text)
            raise failed


def described(arguments: Sequence[str], *, timeout_s: float) -> str:
    """Return what ffmpeg says of an input, whether it can be opened or not; nothing of it is decoded.

    Args:
        arguments: The input and its options.
        timeout_s: Bound on its wall seconds.

    Raises:
        FfmpegFailed: When it had to be stopped.
    """
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-hide_banner", "-nostdin", *arguments]
    with tempfile.TemporaryFile() as messages:
        try:
            subprocess.run(command, stdin=DEVNULL, stdout=DEVNULL, stderr=messages, env=_ENVIRONMENT, timeout=timeout_s)  # noqa: S603, PLW1510 -- a list, no shell; it ends with 1, for want of an output
        except subprocess.TimeoutExpired as error:
            raise FfmpegFailed(f"ffmpeg took over {timeout_s:g} s") from error
        messages.seek(0)
        return messages.read(DESCRIPTION_BYTES_MAX).decode("utf-8", "replace")


def exact_rate(fps: float) -> Fraction:
    """Return a playback rate as the fraction that is meant: 29.97 is 30000/1001, 12.5 is 25/2."""
    if abs(fps - round(fps)) > 1e-3 and round(fps, 2) in NTSC_RATES:
        return NTSC_RATES[round(fps, 2)]
    return Fraction(fps).limit_denominator(1001)


@functools.cache
def version() -> str:
    """Return the bundled program's version, such as `7.0.2-static`.

    Raises:
        FfmpegFailed: When it does not run or states none.
    """
    with running(["-version"], timeout_s=VERSION_TIMEOUT_S) as (_, stdout):
        words = stdout.read().decode("utf-8", "replace").split()
    if words[:2] != ["ffmpeg", "version"] or len(words) < 3:
        raise FfmpegFailed(f"ffmpeg -version begins with {' '.join(words[:3])!r}")
    return words[2]
