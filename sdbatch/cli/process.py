"""What a command may set in its process, and a library function may not."""

from __future__ import annotations

import logging
import os

import pyarrow as pa

from sdbatch.logs import configure, log_format


def prepare_command() -> None:
    """Set what a command may and a library function may not: log handlers, Arrow's memory pool, what Ray reads."""
    configure(log_format())
    # Ray's notes on packaging and on its socket are not for the person who waits for a job.
    logging.getLogger("ray").setLevel(logging.ERROR)
    # A manifest that was built, and that git ignores, travels with the working directory all the same.
    os.environ.setdefault("RAY_RUNTIME_ENV_IGNORE_GITIGNORE", "1")
    # Arrow's default pool keeps the memory of every part it read.
    pa.set_memory_pool(pa.system_memory_pool())


def prepare_generation() -> None:
    """Set what a process that runs models needs; torch is imported here, where it is used anyway."""
    from sdbatch.worker.process import prepare_generation

    prepare_generation()
