"""What sdbatch asks of Ray's inside, all in one place, and what it does where a Ray no longer has it.

Everything else in this room uses Ray's public interface. No fallback opens a cluster or blames a row: what cannot be
known is refused with a remedy, or is done without where only comfort is lost.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
from collections.abc import Callable, Iterator, Mapping
from importlib import import_module
from pathlib import Path
from typing import Any, Final

import ray

from sdbatch.errors import ClusterRefused, WorkersUnavailable

ON_ONE_MACHINE: Final = "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"
"""Where this variable is 0, a node's own address is 127.0.0.1, as on macOS; otherwise Ray puts a public one there."""

_PR_SET_PDEATHSIG: Final = 1

_KV_NAMESPACE: Final = b"sdbatch"

_SIGACTION_BYTES: Final = 512
"""Room for C's `struct sigaction`, which takes 152 bytes on Linux and 16 on macOS."""


def _start_nothing(*_: object, **__: object) -> None:
    """Stand in the place of a start."""


def _no_dashboard() -> ImportError:
    """Stand in the place of the question what the dashboard lacks, whose answer also chooses a node's agent."""
    return ImportError("this node has no dashboard")


def _in_a_group_of_its_own() -> None:
    """Stand in the place of what a process of Ray's does before its program begins, where it is to end with its parent.

    In the caller's group it would end by the SIGTERM that `timeout`, a scheduler or a CI runner sends to all of it,
    and the driver would wait for what is in flight on a cluster that is gone.
    """
    os.setpgrp()
    if ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, int(signal.SIGKILL)):
        raise OSError("PR_SET_PDEATHSIG was refused")


_STAND_INS: Final[Mapping[tuple[str, str], Mapping[str, Callable[..., object]]]] = {
    ("ray._private.node", "Node"): {
        "start_monitor": _start_nothing,
        "start_api_server": _start_nothing,
        "start_log_monitor": _start_nothing,
    },
    ("ray._private", "utils"): {
        "get_dashboard_dependency_error": _no_dashboard,
        "set_kill_on_parent_death_linux": _in_a_group_of_its_own,
    },
}
"""What stands in the place of functions of Ray's, by module and what has them there. `ray.init` has no switch."""


class _Once:
    """Whether a cluster was started or asked for in this process."""

    was_read = False


def _inside(module: str, *names: str) -> tuple[Any, ...] | None:
    """Return things of one of Ray's inner modules; None where this Ray lacks any of them."""
    try:
        found = import_module(module)
        return tuple(getattr(found, name) for name in names)
    except (ImportError, AttributeError):
        return None


@contextlib.contextmanager
def kept_sigterm() -> Iterator[None]:
    """Put back what SIGTERM did before the block.

    Ray's native code takes the signal as it starts, and ends the process by SIGABRT where a run would let what is in
    flight end; as it ends, it leaves the signal to the system. Python's own way to put a handler back is there on the
    main thread alone, and Ray is started and ended on another.
    """
    native, before = ctypes.CDLL(None), ctypes.create_string_buffer(_SIGACTION_BYTES)
    native.sigaction(int(signal.SIGTERM), None, before)
    try:
        yield
    finally:
        native.sigaction(int(signal.SIGTERM), before, None)


def read_authentication_anew() -> None:
    """Let Ray's native code look again at the environment and at the token, which it remembers in a process.

    Raises:
        WorkersUnavailable: When this Ray cannot, and remembers those of an earlier cluster of this process.
    """
    found = _inside("ray._raylet", "AuthenticationTokenLoader", "Config")
    if found is None:
        if _Once.was_read:
            raise WorkersUnavailable(
                f"Ray {ray.__version__} remembers the token of an earlier cluster of this process; run in a new process"
            )
    else:
        loader, config = found
        config.initialize("")
        loader.instance().reset_cache()
    _Once.was_read = True


def forget_authentication() -> None:
    """Let Ray's native code forget the token of a cluster that has ended, where this Ray can."""
    with contextlib.suppress(WorkersUnavailable):
        read_authentication_anew()


@contextlib.contextmanager
def one_machine() -> Iterator[None]:
    """Let Ray take 127.0.0.1 for the node's address while the block runs; it read the variable when it was imported.

    A Ray without this constant has the variable alone, which the caller sets; `LocalRay` looks at the address after.
    """
    found = _inside("ray._private.ray_constants", "ENABLE_RAY_CLUSTER")
    if found is None:
        yield
        return
    constants: Any = import_module("ray._private.ray_constants")
    constants.ENABLE_RAY_CLUSTER = False
    try:
        yield
    finally:
        (constants.ENABLE_RAY_CLUSTER,) = found


@contextlib.contextmanager
def without_helpers() -> Iterator[None]:
    """Let Ray start a node without its autoscaler, its dashboard's server and its log monitor while the block runs.

    What it starts is in process groups of its own; see `_in_a_group_of_its_own`.

    None of them does anything for a cluster of one machine that shows no dashboard and hands no log to the driver. Ray
    waits for the server as it starts, and for the autoscaler, which hears no SIGTERM, a second as it ends. Its agent,
    which a node cannot do without, is the one of an installation without the dashboard: it measures no process, and
    the driver does not import all of the dashboard first, to learn whether it could. A Ray that starts them otherwise
    still does.
    """
    replaced = [
        (place, name, vars(place)[name], stand_in)
        for (module, owner), stand_ins in _STAND_INS.items()
        for place in _inside(module, owner) or ()
        for name, stand_in in stand_ins.items()
        if name in vars(place)
    ]
    try:
        for place, name, _, stand_in in replaced:
            setattr(place, name, stand_in)
        yield
    finally:
        for place, name, before, _ in replaced:
            setattr(place, name, before)


def address_of_auto() -> str:
    """Return HOST:PORT of the cluster that `auto` stands for.

    Raises:
        ClusterRefused: When this Ray does not tell, so that nobody could ask whether it wants a token.
        Exception: What Ray raises where there is none.
    """
    found = _inside("ray._private.services", "canonicalize_bootstrap_address_or_die")
    if found is None:
        raise ClusterRefused(
            f"RAY_ADDRESS auto: Ray {ray.__version__} does not tell which cluster that is; say its HOST:PORT"
        )
    (ask,) = found
    with one_machine():
        return str(ask("auto"))


def put_package(client: Any, package: Path) -> str | None:
    """Put a .zip file on a cluster through a client of its job server; return its address there.

    Ray 2.52 takes a .zip for a working directory, and then sends it past the job server, to a head that it is not
    connected to. None where this Ray has no such call.
    """
    put = getattr(client, "_upload_package_if_needed", None)
    return None if put is None else str(put(str(package), is_file=True))


def draining_nodes() -> frozenset[str]:
    """Return the ids of the nodes that are about to leave; none where this Ray does not tell.

    A worker on such a node is then fed until the node is gone, and what it had goes to others: the loss of a node
    blames no row.
    """
    found = _inside("ray._private.state", "state")
    ask = getattr(found[0], "get_draining_nodes", None) if found else None
    return frozenset(ask()) if ask else frozenset()


def note(key: bytes, text: str) -> None:
    """Keep a text in the cluster's head under a key; nothing where this Ray has no such place.

    Without it all requests of a unit are suspects of a death, and not only those of the call: the guilty one is found
    a little later.
    """
    found = _inside("ray.experimental.internal_kv", "_internal_kv_put")
    if found is not None:
        found[0](key, text, overwrite=True, namespace=_KV_NAMESPACE)


def take_note(key: bytes) -> str:
    """Return the text under a key, and remove it; "" where there is none."""
    found = _inside("ray.experimental.internal_kv", "_internal_kv_get", "_internal_kv_del")
    if found is None:
        return ""
    get, remove = found
    left = get(key, namespace=_KV_NAMESPACE) or b""
    remove(key, namespace=_KV_NAMESPACE)
    return str(left.decode())
