r"""One decoding child as its worker sees it: started, given one request at a time, ended.

ChildProcess() --> decode() --> pixels by role
                        \----> RowError: the source's fault; the child serves on
                         \---> ChildEnded: it died, hung, or ran out of memory; it must be replaced
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from sdbatch.errors import ROW_FAILURES, DecoderUnavailable, RowError, SourceTooLarge, SourceUnreadable
from sdbatch.fetch.bounded.memory import HEAP_KEPT_BYTES, MIB, MemoryBudget
from sdbatch.fetch.bounded.wire import Line, Nonsense, kind_of, shared_file, taken_up, write_all
from sdbatch.fetch.settings import PixelSettings
from sdbatch.types import Source

START_S: Final = 120.0
"""Longest a child may take to import Pillow and NumPy; a busy machine takes some seconds."""

KEPT_BYTES: Final = 64 * MIB
"""Shared memory that a child keeps for its next request; what is over it is given back."""

_HANDED_DOWN: Final = ("PATH", "LD_LIBRARY_PATH", "IMAGEIO_FFMPEG_EXE")
_OWN: Final = {
    "MALLOC_ARENA_MAX": "1",
    "MALLOC_MMAP_THRESHOLD_": str(32 * MIB),  # what is freed is kept, or the next picture faults every page in again
    "MALLOC_TRIM_THRESHOLD_": str(HEAP_KEPT_BYTES),
    "OPENBLAS_NUM_THREADS": "1",
    "OMP_NUM_THREADS": "1",
    "LC_ALL": "C.UTF-8",
}
# The package's own __init__ imports Arrow and pydantic, which no decoder needs: a bare package stands in its place.
_START: Final = """
import json, sys, types
paths, package, descriptors = json.loads(sys.argv[1])
sys.path[:] = paths
bare = sys.modules["sdbatch"] = types.ModuleType("sdbatch")
bare.__path__ = [package]
from sdbatch.fetch.bounded.child import serve
serve(*descriptors)
"""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Bounds:
    """What decoding one source may take.

    Attributes:
        pixels_max: Most pixels, height times width, of a source.
        file_bytes_max: Most bytes of a source.
        processor_s: Processor seconds of a source, by kind: `picture` or `clip`.
        wall_s: Wall seconds of a source, which bound what does not use the processor.
    """

    pixels_max: int
    file_bytes_max: int
    processor_s: dict[str, float]
    wall_s: float


class ChildEnded(Exception):
    """A child died, was ended at a bound, or has no memory left.

    Attributes:
        failure: What the row is told when its source is to blame.
        by_system: Whether somebody outside killed it, as the system does where memory runs out.
    """

    def __init__(self, failure: RowError, *, by_system: bool = False) -> None:
        super().__init__(str(failure))
        self.failure = failure
        self.by_system = by_system


class ChildProcess:
    """A process that decodes; one thread uses it at a time.

    Args:
        bounds: Of each source.

    Raises:
        DecoderUnavailable: When it does not start.
    """

    def __init__(self, bounds: Bounds) -> None:
        self.num_served = 0
        self._said = ""
        self._bounds = bounds
        self._inbox, self._outbox, self._messages = shared_file(), shared_file(), shared_file()
        self._folder = _own_folder()
        ours, theirs = socket.socketpair()
        life, self._life = os.pipe()
        self._line = Line(ours)
        descriptors = (theirs.fileno(), life, self._inbox, self._outbox)
        arguments = json.dumps(
            [[path for path in sys.path if isinstance(path, str) and path], str(Path(__file__).parents[2]), descriptors]
        )
        try:
            self._process = subprocess.Popen(  # noqa: S603 -- our own program, no shell
                [sys.executable, "-I", "-S", "-c", _START, arguments],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=self._messages,
                env=_environment(self._folder),
                pass_fds=descriptors,
                start_new_session=True,
            )
        except OSError as error:
            self._release()
            raise DecoderUnavailable(f"the process that decodes sources cannot be started: {error}") from error
        finally:
            theirs.close()
            os.close(life)
        try:
            self._line.receive(START_S)
        except (EOFError, TimeoutError, Nonsense) as error:
            self.end()
            raise DecoderUnavailable(f"the process that decodes sources does not start: {self._said}") from error

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    def decode(
        self, sources: Sequence[Source], settings: PixelSettings, read: Callable[[Source], bytes], budget: MemoryBudget
    ) -> Any:
        """Decode a request's sources.

        Args:
            sources: The sources.
            settings: What their pixels are brought to.
            read: Returns a source's bytes; called in this process, as the child comes to each.
            budget: What the source's memory is taken from.

        Returns:
            Pixels by role.

        Raises:
            RowError: When a source is to blame, and the child serves on.
            ChildEnded: When it must be replaced.
        """
        roles = [source.role for source in sources]
        result_bytes = settings.result_bytes(roles)
        request = {
            "task": "decode",
            "sources": [(source.role, source.url) for source in sources],
            "settings": dataclasses.asdict(settings),
            "pixels_max": self._bounds.pixels_max,
            "file_bytes_max": self._bounds.file_bytes_max,
            "result_bytes": result_bytes,
            "processor_s": self._bounds.processor_s,
        }
        conversation = _Conversation(self._line, self._inbox, sources, self._bounds.wall_s)
        try:
            answer = conversation.hold(request, read, budget)
            pixels = self._outcome(answer, sources, result_bytes)
        except EOFError as error:
            raise self._death(conversation.at, conversation.kind) from error
        except TimeoutError as error:
            text = f"{conversation.at}: decoding it took over {self._bounds.wall_s:g} s"
            raise ChildEnded(SourceUnreadable(text)) from error
        except Nonsense as error:
            text = f"{conversation.at}: the process that decodes it answers nonsense: {error}"
            raise ChildEnded(SourceUnreadable(text)) from error
        finally:
            self.num_served += 1
        return pixels

    def end(self) -> None:
        """Kill it and what it started, and give back what it held; again does nothing."""
        if self._life < 0:
            return
        self._killed_status()
        self._said = _last_words(self._messages)
        self._release()

    def _killed_status(self) -> int:
        """Kill it and what it started; return how it ended, which is its own way where it had ended before."""
        if self._process.returncode is None:  # later its number may be another process's
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
        return self._process.wait()

    def _release(self) -> None:
        self._line.close()
        for descriptor in (self._life, self._inbox, self._outbox, self._messages):
            os.close(descriptor)
        self._life = -1
        shutil.rmtree(self._folder, ignore_errors=True)

    def _outcome(self, answer: dict[str, Any], sources: Sequence[Source], result_bytes: int) -> Any:
        """Return the pixels that an answer stands for, or raise what it tells."""
        match answer:
            case {"done": tree, "bytes": int(num_bytes)} if 0 <= num_bytes <= result_bytes:
                return self._pixels(tree, num_bytes)
            case {"error": str(kind), "text": str(text)}:
                raise ROW_FAILURES.get(kind, SourceUnreadable)(text)
            case {"memory": str(text)}:
                raise ChildEnded(SourceTooLarge(text))
            case {"errno": int(number), "text": str(text)}:
                raise OSError(number, os.strerror(number), text)
        raise Nonsense(f"an answer holds {', '.join(map(str, answer))}")

    def _pixels(self, tree: Any, num_bytes: int) -> Any:
        left = num_bytes

        def read(offset: int, size: int) -> NDArray[np.uint8]:
            nonlocal left
            left -= size
            if left < 0 or offset < 0:
                raise Nonsense("pixels lie where there are none")
            array = np.empty(size, dtype=np.uint8)
            view = array.data
            while view:
                # Read, not mapped: a file that is cut off meanwhile would end a process that has mapped it.
                got = os.preadv(self._outbox, [view], offset)
                if not got:
                    raise Nonsense("pixels are missing")
                view, offset = view[got:], offset + got
            return array

        pixels = taken_up(tree, read)
        if num_bytes > KEPT_BYTES:
            os.ftruncate(self._outbox, 0)
        return pixels

    def _death(self, at: str, kind: str) -> ChildEnded:
        """Return what is to be told of a child that closed its line, which the system does when a process ends."""
        status = self._killed_status()
        if status == -signal.SIGXCPU:
            text = f"{at}: decoding it took over {self._bounds.processor_s[kind]:g} s of processor time"
            return ChildEnded(SourceUnreadable(text))
        if status in {-signal.SIGKILL, -signal.SIGTERM}:
            text = f"{at}: the process that decodes it was killed, perhaps because the machine has no memory left"
            return ChildEnded(SourceUnreadable(text), by_system=True)
        how = f"status {status}" if status >= 0 else signal.Signals(-status).name
        return ChildEnded(SourceUnreadable(f"{at}: the process that decodes it ended with {how}"))


class _Conversation:
    """The messages about one request."""

    def __init__(self, line: Line, inbox: int, sources: Sequence[Source], wall_s: float) -> None:
        self._line = line
        self._inbox = inbox
        self._sources = sources
        self._wall_s = wall_s
        self._unread = set(range(len(sources)))
        self._source = sources[0]

    @property
    def at(self) -> str:
        """The source that is being decoded."""
        return self._source.url

    @property
    def kind(self) -> str:
        """See `Bounds.processor_s`."""
        return kind_of(self._source)

    def hold(self, request: dict[str, Any], read: Callable[[Source], bytes], budget: MemoryBudget) -> dict[str, Any]:
        """Give the child what it asks for; return its answer."""
        self._send(request)
        message = self._line.receive(self._wall_s)
        while True:
            match message:
                case {"read": int(number)} if number in self._unread:
                    self._unread.remove(number)
                    message = self._one_source(self._sources[number], read, budget)
                case _:
                    return message

    def _one_source(self, source: Source, read: Callable[[Source], bytes], budget: MemoryBudget) -> dict[str, Any]:
        """Hand a source over, wait while it is decoded; return what the child says next."""
        self._source = source
        try:
            data = read(source)
        except BaseException:
            self._send({"stop": True})  # the child waits for the next request then
            raise
        if os.fstat(self._inbox).st_size > KEPT_BYTES:
            os.ftruncate(self._inbox, 0)
        write_all(self._inbox, data, 0)
        self._send({"bytes": len(data)})
        match self._line.receive(self._wall_s):
            case {"needs": int(num_bytes)} if num_bytes >= 0:
                with budget.held(num_bytes) as granted:
                    self._send({"go": granted})
                    return self._line.receive(self._wall_s)
            case answer:
                return answer

    def _send(self, message: dict[str, Any]) -> None:
        try:
            self._line.send(message)
        except ConnectionError as error:
            raise EOFError from error


def _own_folder() -> Path:
    """Return a temporary folder that is not there yet: the child makes it for its first clip, pictures need none."""
    return Path(tempfile.gettempdir()) / f"sdbatch-decode-{secrets.token_hex(16)}"


def _environment(folder: Path) -> dict[str, str]:
    handed_down = {name: os.environ[name] for name in _HANDED_DOWN if name in os.environ}
    return {**handed_down, **_OWN, "TMPDIR": str(folder)}


def _last_words(messages: int) -> str:
    size = os.fstat(messages).st_size
    text = os.pread(messages, 2000, max(size - 2000, 0)).decode("utf-8", "replace").strip()
    return text.splitlines()[-1][:400] if text else "it said nothing"
