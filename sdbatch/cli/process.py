"""What a command may set in its process, and a library function may not."""

from __future__ import annotations

import contextlib
import logging
import subprocess
from collections.abc import Iterator

import pyarrow as pa

from sdbatch.cli.streams import prepare_streams
from sdbatch.extras import require
from sdbatch.interrupted_import import raise_again
from sdbatch.logs import configure, log_format
from sdbatch.without_pandas import keep_pandas_out


def prepare_command() -> None:
    """Set what a command may and a library function may not: streams, log handlers, Arrow's memory, Ray's logs."""
    raise_again()
    prepare_streams()
    configure(log_format())
    # Ray's notes on packaging and on its socket are not for the person who waits for a job.
    logging.getLogger("ray").setLevel(logging.ERROR)
    # Arrow's default pool keeps the memory of every part it read.
    pa.set_memory_pool(pa.system_memory_pool())
    keep_pandas_out()


LAST_LINE = (
    "sdbatch: the run ended without a word of its own: its process was killed, or Ray ended it because the cluster's "
    "head is gone. What was committed stays; run again to go on"
)
_WATCH = "trap '' INT TERM HUP; read -r ended || printf '%s\\n' \"$0\" >&2"


@contextlib.contextmanager
def last_line() -> Iterator[None]:
    """See to it that a run says its last line also where its process cannot.

    When a cluster's head is gone, Ray's native code ends the driver's process, and no handler of Python runs. A shell
    waits at a pipe meanwhile: it hears that the block ended, or nothing. It is in a session of its own, where no Ctrl-C
    ends it before it can say that it wants none; when something else has ended it, the run ends as it would have.
    """
    with subprocess.Popen(  # noqa: S603 -- a fixed command
        ["/bin/sh", "-c", _WATCH, LAST_LINE],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        bufsize=0,  # what a pipe without a reader did not take is not written once more as it is closed
        start_new_session=True,
    ) as watch:
        assert watch.stdin is not None, "a pipe was asked for"
        try:
            yield
        finally:
            with contextlib.suppress(BrokenPipeError):
                watch.stdin.write(b"ended\n")


def prepare_generation(*, is_exact: bool) -> None:
    """Set what a process that runs models needs; torch is imported here, where it is used anyway."""
    require("worker", "rendering in this process")
    from sdbatch.worker.process import prepare_generation

    prepare_generation(is_exact=is_exact)
