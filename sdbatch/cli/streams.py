"""The standard streams of a command, which somebody may have stopped reading.

    standard error  --> what it does not take is left out: a run ends for no line about itself
    standard output --> the same, and the command ends with exit code 1, if its own was 0

`sdbatch run JOB 2>&1 | tee run.log` loses its reader when somebody presses Ctrl-C, a job in the background loses its
terminal, a log its disk; what is in flight has to end then as it would have.
"""

from __future__ import annotations

import io
import os
import sys
from typing import Any, Final

UNWRITTEN: Final = 1
"""Exit code of a command whose output went nowhere."""


class Heard:
    """A text stream that never raises for what it could not write.

    Attributes:
        fault: Why it could not write the first time; None while it could.
    """

    def __init__(self, stream: io.TextIOWrapper) -> None:
        stream.reconfigure(line_buffering=True)
        self._stream = stream
        self.fault: OSError | None = None

    def write(self, text: str) -> int:
        """Write a text, or remember why not."""
        try:
            self._stream.write(text)
        except OSError as error:
            self.fault = self.fault or error
        return len(text)

    def flush(self) -> None:
        """Hand on what is written, or remember why not."""
        try:
            self._stream.flush()
        except OSError as error:
            self.fault = self.fault or error

    def __getattr__(self, name: str) -> Any:
        """Answer all else as the stream itself does."""
        return getattr(self._stream, name)


def prepare_streams() -> None:
    """Put a stream that never raises in the place of each; one that was closed leads nowhere.

    Lines go out as they are written, also into a pipe: `status --watch` is read while it goes on.
    """
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        stream = getattr(sys, name)
        if stream is None:  # else the next file that is opened would get its descriptor, and our messages
            nowhere = os.open(os.devnull, os.O_RDWR)
            stream = open(nowhere, mode, encoding="utf-8")  # noqa: SIM115, PTH123 -- open as long as the process
        setattr(sys, name, stream if name == "stdin" else Heard(stream))


def is_read() -> bool:
    """Whether standard output could be written to, as far as is known."""
    return not (isinstance(sys.stdout, Heard) and sys.stdout.fault)


def end_output() -> int:
    """Hand on what is left of the output; return 0, or `UNWRITTEN` where some of it went nowhere.

    A reader that went away on purpose, such as `head`, is told nothing.
    """
    sys.stdout.flush()
    fault = sys.stdout.fault if isinstance(sys.stdout, Heard) else None
    if fault is not None and not isinstance(fault, BrokenPipeError):
        sys.stderr.write(f"sdbatch: standard output could not be written: {fault.strerror}\n")
    return 0 if fault is None else UNWRITTEN
