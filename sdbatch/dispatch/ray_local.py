"""Ray on this machine for one run, closed to everybody else.

    LocalRay() --> a folder of its own (0700) with a token of its own (0600), every listener on 127.0.0.1 --> close()

Ray's own local start listens on all interfaces and keeps one token a user under HOME, in a file others may read. What
decides that is the environment and a constant that Ray reads as it starts: both are put back at once, because the
process is the caller's.
"""

from __future__ import annotations

import contextlib
import logging
import os
import secrets
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

import ray

from sdbatch.dispatch.ray_inside import (
    ON_ONE_MACHINE,
    forget_authentication,
    kept_sigterm,
    one_machine,
    read_authentication_anew,
    without_helpers,
)
from sdbatch.errors import WorkersUnavailable
from sdbatch.scratch import Scratch

PREFIX: Final = "sdb-ray-"
UNLOCKED_MAX_S: Final = 3600.0
"""A folder without a lock is one that is being made, and after so long one that was left."""

LOOPBACK: Final = "127.0.0.1"
BASE_CHARACTERS_MAX: Final = 22
"""Longest folder that Ray's sockets still fit below: their paths are cut at 107 bytes."""


class LocalRay:
    """A cluster of this machine alone, which ends with `close`.

    Args:
        num_cpus: Logical CPUs, at least the machine's; None for the machine's.
        num_gpus: Logical GPUs; None for the machine's.
        with_token: Whether a token of its own is asked for; without it the caller's environment says what Ray does.
    """

    def __init__(self, num_cpus: int | None, num_gpus: int | None, *, with_token: bool = True) -> None:
        self._scratch = own_folder()
        folder = self._scratch.folder
        changes: dict[str, str | None] = {ON_ONE_MACHINE: "0"}
        if with_token:
            path = folder / "token"
            _write_private(path, secrets.token_hex(32))
            changes |= {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(path), "RAY_AUTH_TOKEN": None}
        try:
            with kept_environment(changes), one_machine(), without_helpers(), kept_sigterm():
                read_authentication_anew()
                context = ray.init(
                    address="local",
                    num_cpus=max(os.cpu_count() or 1, num_cpus or 1),
                    num_gpus=num_gpus,
                    include_dashboard=False,
                    _temp_dir=str(folder / "r"),  # Ray opens it to everybody; what is around it stays shut
                    _node_ip_address=LOOPBACK,
                    **COMMON,
                )
            _refuse_other_address(context.address_info["node_ip_address"])
            Path(context.address_info["session_dir"]).chmod(0o700)
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """End Ray, and remove its folder."""
        with kept_sigterm():
            ray.shutdown()
        forget_authentication()
        self._scratch.close()


# Ray's own warnings of every local start (metrics agent, /dev/shm size) are not for a person who types one command.
COMMON: Final[dict[str, Any]] = {"log_to_driver": False, "logging_level": logging.ERROR, "namespace": "sdbatch"}


@contextlib.contextmanager
def kept_environment(changes: Mapping[str, str | None] = MappingProxyType({})) -> Iterator[None]:
    """Put the environment back after the block; changes hold while it runs, and in the processes that it starts."""
    before = dict(os.environ)
    for name, value in changes.items():
        os.environ.pop(name, None)
        if value is not None:
            os.environ[name] = value
    try:
        yield
    finally:
        for name in os.environ.keys() - before.keys():
            del os.environ[name]
        os.environ.update(before)


def _refuse_other_address(address: str) -> None:
    """Refuse a cluster that this Ray opened to other machines.

    Raises:
        WorkersUnavailable: When its node listens elsewhere than on 127.0.0.1.
    """
    if address != LOOPBACK:
        raise WorkersUnavailable(
            f"Ray {ray.__version__} starts its own cluster at {address} and not at {LOOPBACK}, where other machines "
            f"would reach it; use another version of Ray, or a cluster of yours by RAY_ADDRESS"
        )


def _write_private(path: Path, text: str) -> None:
    """Write a new file that only this user may read."""
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(text)


def own_folder() -> Scratch:
    """Return a new folder for Ray, and remove those that killed runs left, also where Ray wrote after their removal."""
    return Scratch(PREFIX, _base(), unlocked_max_s=UNLOCKED_MAX_S)


def _base() -> str:
    """Return the folder for Ray's folders: RAY_TMPDIR, else the temporary one, else /tmp when that is too long."""
    base = os.environ.get("RAY_TMPDIR") or tempfile.gettempdir()
    return base if len(base) <= BASE_CHARACTERS_MAX else "/tmp"  # noqa: S108 -- what lies there is in a folder of 0700
