"""Ctrl-C while the command is still being imported, which takes half a second.

    the package's first line --> end_at_once() --> imports --> main() --> raise_again() --> KeyboardInterrupt, as ever

Until then nothing was begun, so that the signal ends the process as it ends any other program, without a traceback. A
program that imports the package for its own use keeps its handler.
"""

from __future__ import annotations

import signal
import sys
from pathlib import Path
from typing import Final

COMMAND: Final = "sdbatch"


def is_command() -> bool:
    """Whether this process is the command, by its name or as `python -m sdbatch`."""
    if sys.argv[:1] == ["-m"]:  # so it is called while `python -m` looks for its module
        return ("-m", COMMAND) in zip(sys.orig_argv, sys.orig_argv[1:], strict=False)
    return bool(sys.argv) and Path(sys.argv[0]).name == COMMAND


def end_at_once() -> None:
    """Let SIGINT end this process; where it is ignored, as behind `nohup`, it stays so."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)


def raise_again() -> None:
    """Let SIGINT raise KeyboardInterrupt again."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_DFL:
        signal.signal(signal.SIGINT, signal.default_int_handler)
