"""Ray's inside is touched in one file, and a Ray that lacks a part of it opens nothing and blames nobody."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

import sdbatch
from sdbatch.dispatch import ray_inside, ray_joined
from sdbatch.dispatch.ray_local import _refuse_other_address
from sdbatch.errors import ClusterRefused, WorkersUnavailable

PACKAGE = Path(sdbatch.__file__).parent

TERMINATED = """
import os, signal
from sdbatch.dispatch.ahead import RayAhead
heard = []
signal.signal(signal.SIGTERM, lambda *_: heard.append(len(heard)))
ahead = RayAhead(1)
ahead.begin()
ahead.settle()
os.kill(os.getpid(), signal.SIGTERM)
ahead.close()
os.kill(os.getpid(), signal.SIGTERM)
print(heard)
"""


@pytest.fixture
def lacks(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Let a module of Ray be one that this Ray does not have."""
    return lambda module: monkeypatch.setitem(sys.modules, module, None)


def _imported(path: Path) -> list[str]:
    found = []
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found += [name.name for name in node.names]
        if isinstance(node, ast.ImportFrom):
            found += [f"{node.module}.{name.name}" for name in node.names]
    return found


def test_nobody_imports_what_is_private_to_ray() -> None:
    private = {
        f"{path.relative_to(PACKAGE)}: {name}"
        for path in PACKAGE.rglob("*.py")
        for name in _imported(path)
        if name.startswith("ray.") and any(part.startswith("_") for part in name.split("."))
    }

    assert private == set()
    # By name, where it is looked for before it is used; and in the process that asks a head.
    named = {path.name for path in PACKAGE.rglob("*.py") if '"ray._' in (text := path.read_text()) or " ray._" in text}
    assert named == {"ray_inside.py", "ray_joined.py"}


def test_without_word_of_draining_nodes_none_drains(lacks: Callable[[str], None]) -> None:
    lacks("ray._private.state")

    assert ray_inside.draining_nodes() == frozenset()


def test_without_a_call_for_packages_none_is_put() -> None:
    assert ray_inside.put_package(object(), Path("package.zip")) is None


def test_a_node_starts_no_helpers_in_the_block_and_all_of_them_after_it() -> None:
    node = pytest.importorskip("ray._private.node").Node
    utils = pytest.importorskip("ray._private.utils")
    starts = ["start_monitor", "start_api_server", "start_log_monitor"]
    before = {name: vars(node)[name] for name in starts}
    with ray_inside.without_helpers():
        assert [vars(node)[name](node, include_dashboard=False) for name in starts] == [None] * 3
        assert isinstance(utils.get_dashboard_dependency_error(), ImportError)

    assert {name: vars(node)[name] for name in starts} == before
    assert utils.get_dashboard_dependency_error() is None  # ray[default] is what the project installs


@pytest.mark.parametrize("module", ["ray._private.node", "ray._private"])
def test_helpers_that_a_ray_starts_otherwise_are_started(lacks: Callable[[str], None], module: str) -> None:
    lacks(module)
    with ray_inside.without_helpers():
        pass


def test_without_a_place_for_notes_every_request_is_a_suspect(lacks: Callable[[str], None]) -> None:
    lacks("ray.experimental.internal_kv")
    ray_inside.note(b"key", "row-1")

    assert ray_inside.take_note(b"key") == ""


def test_a_token_that_cannot_be_forgotten_serves_one_cluster(
    lacks: Callable[[str], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    lacks("ray._raylet")
    monkeypatch.setattr(ray_inside._Once, "was_read", False)

    ray_inside.read_authentication_anew()
    ray_inside.forget_authentication()
    with pytest.raises(WorkersUnavailable, match="remembers the token of an earlier cluster of this process; run in"):
        ray_inside.read_authentication_anew()


def test_a_cluster_that_is_not_told_is_asked_for_by_address(lacks: Callable[[str], None]) -> None:
    lacks("ray._private.services")

    with pytest.raises(ClusterRefused, match="does not tell which cluster that is; say its HOST:PORT"):
        ray_inside.address_of_auto()


def test_a_cluster_that_cannot_be_asked_is_refused_unless_it_may_be_open(monkeypatch: pytest.MonkeyPatch) -> None:
    lacking = "import sys\nsys.modules['ray._raylet'] = None\n"
    monkeypatch.setattr(ray_joined, "_ASK", lacking + ray_joined._ASK)

    with pytest.raises(ClusterRefused, match=r"127\.0\.0\.1:1 asks for a token cannot be told with Ray"):
        ray_joined._check_token("127.0.0.1:1", allow_open=False)
    ray_joined._check_token("127.0.0.1:1", allow_open=True)


def test_a_cluster_of_ones_own_that_others_reach_is_refused() -> None:
    _refuse_other_address("127.0.0.1")
    with pytest.raises(WorkersUnavailable, match=r"at 10\.0\.0\.7 and not at 127\.0\.0\.1, where other machines"):
        _refuse_other_address("10.0.0.7")


@pytest.mark.ray
def test_ray_takes_sigterm_from_nobody_while_it_runs_and_after_it_has_ended() -> None:
    environment = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"}
    done = subprocess.run(
        [sys.executable, "-c", TERMINATED], env=environment, capture_output=True, text=True, timeout=120
    )

    assert (done.returncode, done.stdout) == (0, "[0, 1]\n"), done.stderr
