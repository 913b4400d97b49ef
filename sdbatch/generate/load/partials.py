"""Unfinished folders beside finished ones: how they are named, and which of them a dead process left.

    models/NAME --> models/.NAME.BOOT.partial   a copy on its way, taken up by the next process of the same boot
                    models/.NAME-UUID           a folder that one process makes at a go
                    models/.NAME.lock           held by the process that makes NAME: see `sdbatch.checkpoints.turns`

Who holds the lock of NAME is alive. Of what nobody holds, folders made at a go are removed at once; copies are kept for
a while, because whoever takes one up fetches only what is missing.
"""

from __future__ import annotations

import hashlib
import re
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

from sdbatch.checkpoints.transfer import LEDGER
from sdbatch.checkpoints.turns import held_if_free

KEPT_S: Final = 3 * 86_400.0
"""Age from which a copy that nobody took up is removed."""

_BOOT: Final = Path("/proc/sys/kernel/random/boot_id")
_LEFT: Final = re.compile(r"\.(.+?)(?:-[0-9a-f]{32}|\.[0-9a-f]{8}(\.partial))")


def lock_of(folder: Path) -> Path:
    """Return the lock file of a folder."""
    return folder.with_name(f".{folder.name}.lock")


def partial_of(folder: Path) -> Path:
    """Return where the copy of a folder grows.

    Each boot of a machine has its own: of what was written before, some may never have reached the disk; and on a disk
    that machines share whose locks do not reach from one to the other, they do not write into one copy.
    """
    try:
        boot = _BOOT.read_text()
    except OSError:
        boot = ""
    return folder.with_name(f".{folder.name}.{hashlib.sha256(boot.encode()).hexdigest()[:8]}.partial")


def sweep(folder: Path, *, needs_room: bool = False) -> None:
    """Remove unfinished folders of dead processes.

    Args:
        folder: One that this process makes, whose lock it holds.
        needs_room: Whether it needs the room of the others' copies too, whatever their age.
    """
    own = partial_of(folder)
    boot = own.name.removeprefix(f".{folder.name}.")
    for left in folder.parent.glob(".*"):
        matched = _LEFT.fullmatch(left.name)
        if matched is None or left == own or not left.is_dir():
            continue
        # A lock tells of the processes of this boot; the copy of another one may be another machine's.
        is_copy, is_of_boot = matched[2] is not None, left.name.endswith(boot)
        with _held(folder.with_name(matched[1]), folder) as is_held, suppress(FileNotFoundError):
            if is_held and (not is_copy or (needs_room and is_of_boot) or _age_s(left) > KEPT_S):
                shutil.rmtree(left, ignore_errors=True)


@contextmanager
def _held(other: Path, own: Path) -> Iterator[bool]:
    """Hold the lock of a folder while the block runs; give whether this process does."""
    if other == own:
        yield True
    else:
        with held_if_free(lock_of(other)) as is_held:
            yield is_held


def _age_s(partial: Path) -> float:
    """Return the seconds since a copy came further."""
    ledger = partial / LEDGER
    return time.time() - (ledger if ledger.exists() else partial).stat().st_mtime
