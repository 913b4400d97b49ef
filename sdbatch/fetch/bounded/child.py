"""The child's side: bounds on this process, then sources decoded one request after the other until the worker ends.

    {task, sources, settings} --> for each source: {read} --> {bytes} --> {needs} --> {go} --> ... --> {done} or {error}

It imports Pillow and NumPy, and what decodes with them.
"""

from __future__ import annotations

import errno
import fcntl
import math
import os
import resource
import select
import signal
import socket
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from PIL import AvifImagePlugin

from sdbatch.errors import RowError
from sdbatch.fetch.bounded.memory import FIXED_BYTES, clip_needs, picture_needs
from sdbatch.fetch.bounded.wire import Line, kind_of, laid_out, write_all
from sdbatch.fetch.decode import decode_sources
from sdbatch.fetch.headers import picture_size
from sdbatch.fetch.opening import lift_bounds_of_pillow
from sdbatch.fetch.settings import PixelSettings
from sdbatch.local_faults import LOCAL_FAULTS
from sdbatch.types import Source

TEXT_CHARACTERS_MAX: Final = 500
MACHINE_FAULTS: Final = LOCAL_FAULTS.keys() - {errno.EFBIG} | {errno.EACCES, errno.EAGAIN}
"""What the machine lacks; a source is not to blame for it. A file that grows too long here is the source's doing."""

Tree = Any


class _Stopped(BaseException):
    """The worker does not want this request any more. No decoder may take it for an error of its own."""


def serve(line: int, life: int, inbox: int, outbox: int) -> None:
    """Decode what the worker asks for, until it ends.

    Args:
        line: Descriptor of the socket to the worker.
        life: Read end of a pipe whose write end is open as long as the worker lives.
        inbox: Shared memory with a file's bytes.
        outbox: Shared memory for pixels.
    """
    end_with_worker(life)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    yield_memory_first()
    AvifImagePlugin.DEFAULT_MAX_THREADS = 1  # one for each core of the machine otherwise
    lift_bounds_of_pillow()
    os.set_inheritable(line, False)  # ffmpeg is not to hold them
    for descriptor in (life, inbox, outbox):
        os.set_inheritable(descriptor, False)
    to_worker = Line(socket.socket(fileno=line))
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # decoders warn of what is odd in a file, again and again
    base_bytes = _address_space_bytes()
    to_worker.send({"ready": os.getpid()})
    while True:
        try:
            message = to_worker.receive()
        except EOFError:
            return
        request = _Request(to_worker, message, inbox, base_bytes)
        try:
            to_worker.send(request.answer(outbox))
        except _Stopped:
            continue


def end_with_worker(life: int) -> None:
    """Have the kernel kill this process, and what it started, when the write end of the pipe `life` is closed.

    That happens however the worker ends, and also to a process that hangs in a decoder. Where the kernel cannot choose
    the signal (macOS), the process ends when it next looks at its socket. PR_SET_PDEATHSIG is not used: it follows the
    thread that started the process, not the process of that thread.
    """
    if hasattr(fcntl, "F_SETSIG"):
        fcntl.fcntl(life, fcntl.F_SETOWN, -os.getpgrp())
        fcntl.fcntl(life, fcntl.F_SETSIG, signal.SIGKILL)
        fcntl.fcntl(life, fcntl.F_SETFL, fcntl.fcntl(life, fcntl.F_GETFL) | os.O_ASYNC | os.O_NONBLOCK)
    if select.select([life], [], [], 0)[0]:
        sys.exit(0)  # it had ended before we asked


def yield_memory_first() -> None:
    """Let the system end this process before the worker, where memory runs out."""
    try:
        with open("/proc/self/oom_score_adj", "w") as file:  # noqa: PTH123 -- not a file of ours
            file.write("1000")
    except OSError:
        return  # not Linux, or not allowed


class _Request:
    """One request on its way through the decoder."""

    def __init__(self, line: Line, message: dict[str, Any], inbox: int, base_bytes: int) -> None:
        self._line = line
        self._inbox = inbox
        self._base_bytes = base_bytes
        self._settings = PixelSettings(**message["settings"])
        self._pixels_max: int = message["pixels_max"]
        self._result_bytes: int = message["result_bytes"]
        self._file_bytes_max: int = message["file_bytes_max"]
        self._seconds: dict[str, float] = message["processor_s"]
        self._sources = [Source(role=role, url=url, digest="") for role, url in message["sources"]]
        self._task: str = message["task"]
        self._at = "the request"
        self._granted = 0

    def answer(self, outbox: int) -> dict[str, Any]:
        """Decode; return what the worker is told. The pixels lie in `outbox` then."""
        arrays: list[NDArray[np.uint8]] = []
        try:
            bounded("RLIMIT_FSIZE", max(self._file_bytes_max, self._result_bytes) + FIXED_BYTES)
            pixels = TASKS[self._task](self._sources, self._settings, self._read, self._pixels_max)
            tree, num_bytes = laid_out(pixels, arrays)
            del pixels
            offset = 0
            for array in arrays:
                if array.nbytes:
                    write_all(outbox, array.data.cast("B"), offset)
                offset += array.nbytes
        except RowError as error:
            return {"error": type(error).__name__, "text": _short(str(error))}
        except MemoryError:
            return {"memory": f"{self._at}: decoding it takes more than {self._granted >> 20} MiB of memory"}
        except OSError as error:
            if error.errno in MACHINE_FAULTS:
                return {"errno": error.errno, "text": _short(f"{self._at}: {error.strerror}")}
            return self._failed(error)
        except Exception as error:  # noqa: BLE001 -- a decoder may raise anything; that is its source's fault
            return self._failed(error)
        return {"done": tree, "bytes": num_bytes}

    def _failed(self, error: Exception) -> dict[str, Any]:
        text = f"{self._at}: cannot be decoded: {type(error).__name__}: {error}"
        return {"error": "SourceUnreadable", "text": _short(text)}

    def _read(self, source: Source) -> bytes:
        """Ask for a source's bytes, and for the memory that it takes; begin to count its processor time."""
        number = next(place for place, one in enumerate(self._sources) if one is source)
        self._at = source.url
        self._line.send({"read": number})
        num_bytes = self._answer("bytes")
        self._allow(self._result_bytes + picture_needs(0, num_bytes))
        bounded("RLIMIT_CPU", math.ceil(time.process_time() + self._seconds[kind_of(source)]))
        data = os.pread(self._inbox, num_bytes, 0)
        self._line.send({"needs": self._needs(source, data)})
        self._allow(self._answer("go"))
        return data

    def _allow(self, num_bytes: int) -> None:
        """Let this process, and ffmpeg that it starts, have so much address space beyond what it began with."""
        self._granted = num_bytes
        bounded("RLIMIT_AS", self._base_bytes + num_bytes)

    def _answer(self, name: str) -> int:
        message = self._line.receive()
        if name not in message:
            raise _Stopped
        value: int = message[name]
        return value

    def _needs(self, source: Source, data: bytes) -> int:
        if kind_of(source) == "clip":
            Path(os.environ["TMPDIR"]).mkdir(mode=0o700, exist_ok=True)  # ffmpeg reads files; the worker removes it
            return clip_needs(self._pixels_max, len(data), self._result_bytes)
        pixels = min(stated_pixels(data, self._pixels_max), self._pixels_max)
        return self._result_bytes + picture_needs(pixels, len(data))


def stated_pixels(data: bytes, unknown: int) -> int:
    """Return the pixels that a picture says it has; `unknown` where its header cannot be read."""
    try:
        size = picture_size(data)
    except Exception:  # noqa: BLE001 -- what is wrong with it is said when it is decoded
        size = None
    return unknown if size is None else size[0] * size[1]


def bounded(name: str, value: int) -> None:
    """Set one of this process's limits, as far as those of the machine allow; not where there is no such limit."""
    limit = getattr(resource, name)
    _, most = resource.getrlimit(limit)
    if name == "RLIMIT_AS" and not sys.platform.startswith("linux"):
        return  # macOS counts libraries that all processes share
    resource.setrlimit(limit, (value if most == resource.RLIM_INFINITY else min(value, most), most))


def _address_space_bytes() -> int:
    try:
        with open("/proc/self/statm") as file:  # noqa: PTH123 -- not a file of ours
            return int(file.read().split()[0]) * resource.getpagesize()
    except OSError:
        return 0


def _short(text: str) -> str:
    return text[:TEXT_CHARACTERS_MAX]


TASKS: Final[dict[str, Callable[[Sequence[Source], PixelSettings, Callable[[Source], bytes], int], Tree]]] = {
    "decode": decode_sources
}
"""What a worker may ask for."""
