"""Joins a Ray cluster by its address, and says at once why that cannot be.

    RAY_ADDRESS --> refuse_open(), refuse_without_token() --> does it answer, does it take our token? --> ray.init()

Ray itself tries a wrong token for half a minute and then names another reason; without any token it ends the process.
"""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import ray
from ray.util import get_node_ip_address

from sdbatch.dispatch.ray_inside import ON_ONE_MACHINE, address_of_auto, kept_sigterm, one_machine
from sdbatch.dispatch.ray_local import COMMON, kept_environment
from sdbatch.errors import ClusterRefused, WorkersUnavailable

_OWN_NAMES: Final = ("localhost", "127.0.0.1", "::1")
CONNECT_TIMEOUT_S: Final = 10.0
ANSWER_TIMEOUT_S: Final = 30.0
"""A head that is up answers in milliseconds; most of this is the import of Ray on a busy machine."""

_REMEDY: Final = "RAY_AUTH_TOKEN, or RAY_AUTH_TOKEN_PATH for a file that holds it"
_OPEN: Final = (
    "whoever reaches such a cluster runs code as you. {first} the cluster a token, or say --allow-open-ray where "
    "nobody else reaches it"
)
_ANOTHER_RAY: Final = "another Ray"
"""What the asking process ends with where Ray's inside is not the one it knows."""

_ASK: Final = """
import os, sys
try:
    from ray._raylet import AuthenticationTokenLoader, Config, GcsClient
    AuthenticationTokenLoader.instance, Config.initialize
except (ImportError, AttributeError):
    sys.exit("another Ray")
try:
    from ray._private.authentication import authentication_token_setup as setup
    find = setup.maybe_enable_token_auth_if_token_available
except (ImportError, AttributeError):  # a Ray that takes a token only where RAY_AUTH_MODE says so
    find = lambda **_: None

def ask():
    Config.initialize("")
    AuthenticationTokenLoader.instance().reset_cache()
    try:
        GcsClient(address=sys.argv[1])
    except Exception as error:
        return f"{type(error).__name__} {str(error).splitlines()[0]}"
    return "ok"

own = {name: os.environ.pop(name) for name in list(os.environ) if name.startswith("RAY_AUTH_")}
os.environ["RAY_AUTH_MODE"] = "disabled"
print(ask())
del os.environ["RAY_AUTH_MODE"]
os.environ.update(own)
find(warn_if_disabled=False)
print(ask())
"""
"""Asks a head for its id, without a token and with ours; a line each. Ray's native code writes to standard error and
may end its process, hence one of its own."""


def refuse_open(*, allow_open: bool) -> None:
    """Refuse RAY_AUTH_MODE=disabled, unless the caller knows.

    Raises:
        ClusterRefused: When it is set and not allowed.
    """
    mode = os.environ.get("RAY_AUTH_MODE", "")
    if mode.lower() == "disabled" and not allow_open:
        raise ClusterRefused(f"RAY_AUTH_MODE={mode}: {_OPEN.format(first='Unset it and give')}")


def refuse_without_token() -> None:
    """Refuse RAY_AUTH_MODE=token where no token is at hand.

    Raises:
        ClusterRefused: When there is none.
    """
    if os.environ.get("RAY_AUTH_MODE", "").lower() != "token" or os.environ.get("RAY_AUTH_TOKEN"):
        return
    stated = os.environ.get("RAY_AUTH_TOKEN_PATH")
    path = Path(stated) if stated else Path(os.path.expanduser("~")) / ".ray" / "auth_token"  # noqa: PTH111 -- without a HOME it stays as it is
    try:
        text = path.read_text()
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not text"
        raise ClusterRefused(f"RAY_AUTH_MODE=token, and no token in {path}: {reason}; set {_REMEDY}") from error
    if not text.strip():
        raise ClusterRefused(f"RAY_AUTH_MODE=token, and {path} is empty; set {_REMEDY}")


def join(address: str, *, allow_open: bool) -> None:
    """Join the cluster at an address.

    Args:
        address: RAY_ADDRESS.
        allow_open: Whether it may be one that asks for no token.

    Raises:
        ClusterRefused: When it does not take our token, or asks for none, or the address is another server's.
        WorkersUnavailable: When nothing answers there.
    """
    if "://" in address:  # nobody could ask such a server whether it wants a token
        raise ClusterRefused(
            f"RAY_ADDRESS {address}: a head is joined by HOST:PORT, such as head:6379; to a job server, such as "
            "http://head:8265, `sdbatch submit --address` sends jobs"
        )
    refuse_without_token()
    with kept_environment():  # Ray turns token mode on in it when a token lies under HOME
        try:
            found = address_of_auto() if address == "auto" else address
            _check_reachable(found, allow_open=allow_open)
            with _as_it_listens(found), kept_sigterm():
                ray.init(address=address, **COMMON)
        except (ClusterRefused, WorkersUnavailable):
            raise
        except Exception as error:  # Ray has no class for a start that takes too long: a bare Exception
            raise WorkersUnavailable(f"no Ray cluster at RAY_ADDRESS {address}: {first_line(error)}") from error


def _host_and_port(address: str) -> tuple[str, int] | None:
    """Return the parts of HOST:PORT; None for any other form of address, which is left to Ray."""
    host, _, port = address.rpartition(":")
    return (host.strip("[]"), int(port)) if host and port.isdigit() and "/" not in host else None


def _check_reachable(address: str, *, allow_open: bool) -> None:
    """Ask a HOST:PORT for the cluster's id."""
    place = _host_and_port(address)
    if place is None:
        return
    try:
        socket.create_connection(place, timeout=CONNECT_TIMEOUT_S).close()
    except (OSError, OverflowError) as error:
        raise WorkersUnavailable(f"no Ray cluster at RAY_ADDRESS {address}: {error}") from error
    _check_token(address, allow_open=allow_open)


@contextlib.contextmanager
def _as_it_listens(address: str) -> Iterator[None]:
    """Let Ray keep 127.0.0.1 while the block runs, where the head listens there alone.

    Ray puts the machine's own address in its place, and then tries that one for minutes.
    """
    place = _host_and_port(address)
    with contextlib.ExitStack() as stack:
        if place is not None and place[0] in _OWN_NAMES and not _answers(get_node_ip_address(), place[1]):
            os.environ[ON_ONE_MACHINE] = "0"
            stack.enter_context(one_machine())
        yield


def _answers(host: str, port: int) -> bool:
    try:
        socket.create_connection((host, port), timeout=CONNECT_TIMEOUT_S).close()
    except OSError:
        return False
    return True


def _check_token(address: str, *, allow_open: bool) -> None:
    try:
        answer = subprocess.run(  # noqa: S603 -- our own interpreter
            [sys.executable, "-P", "-c", _ASK, address],  # the folder that a person is in is nobody's package
            check=False,
            capture_output=True,
            text=True,
            timeout=ANSWER_TIMEOUT_S,
        )
    except subprocess.TimeoutExpired as error:
        raise WorkersUnavailable(
            f"no Ray cluster at RAY_ADDRESS {address}: something listens there that does not answer as a Ray head "
            f"within {ANSWER_TIMEOUT_S:g} s"
        ) from error
    if answer.stderr.strip().endswith(_ANOTHER_RAY) and answer.returncode == 1:
        _refuse_unasked(address, allow_open=allow_open)
        return
    without, _, own = answer.stdout.strip().partition("\n")
    if without == "ok" and not allow_open:
        raise ClusterRefused(
            f"the Ray cluster at RAY_ADDRESS {address} asks for no token, and {_OPEN.format(first='Give')}"
        )
    if "AuthenticationError" in own:
        has_token = any(os.environ.get(name) for name in ("RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"))
        gave = "does not take our token" if has_token else "asks for a token"
        raise ClusterRefused(f"the Ray cluster at RAY_ADDRESS {address} {gave}; set {_REMEDY}")
    if own != "ok":
        reason = own or f"asking it ended with exit code {answer.returncode}"
        raise WorkersUnavailable(f"no Ray cluster at RAY_ADDRESS {address}: {reason}")


def _refuse_unasked(address: str, *, allow_open: bool) -> None:
    """Refuse a cluster of which nobody can say whether it asks for a token."""
    if not allow_open:
        raise ClusterRefused(
            f"whether the Ray cluster at RAY_ADDRESS {address} asks for a token cannot be told with "
            f"Ray {ray.__version__}; say --allow-open-ray where it does, or where nobody else reaches it"
        )


def first_line(error: Exception) -> str:
    """Return what an error says, in one line."""
    return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
