"""The thread on which a run starts and ends Ray, on this machine perhaps while the driver still reads a long manifest.

begin() --> Ray starts, in processes of its own, beside the reading --> then(), beside the counting --> taken(), close()

Signals interrupt Python's main thread alone. Where one interrupted Ray's start or shutdown halfway, the next shutdown
could wait for a lock for ever, or the process end by SIGSEGV; and there Ray's start would take SIGTERM for itself.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from typing import TYPE_CHECKING, TypeVar

from sdbatch.collector import seldom_collected

if TYPE_CHECKING:
    from sdbatch.dispatch.ray_local import LocalRay

_T = TypeVar("_T")


def cluster_address() -> str:
    """Return the address of the cluster that a run joins; `local` where it starts one on this machine."""
    return os.environ.get("RAY_ADDRESS") or "local"


class RayAhead:
    """Ray's thread, and a cluster of this machine that is started there before it is needed.

    One thread does all of it, in order. It lives until `close`: Linux ends Ray's processes with the thread that started
    them, not with its process.

    Args:
        num_cpus: Logical CPUs, at least the machine's; None for the machine's.
        allow_open: Whether it may do without a token because RAY_AUTH_MODE says so.
    """

    def __init__(self, num_cpus: int | None, *, allow_open: bool = False) -> None:
        self._num_cpus = num_cpus
        self._allow_open = allow_open
        self._thread = ThreadPoolExecutor(1, "ray-ahead")
        self._started: Future[None] | None = None
        self._local: LocalRay | None = None

    @property
    def is_begun(self) -> bool:
        """Whether it was started, or is being started."""
        return self._started is not None

    def begin(self) -> None:
        """Start it; nothing happens where a run joins a cluster, or when it was begun before."""
        if self._started is None and cluster_address() == "local":
            self._started = self.then(self._start)

    def then(self, call: Callable[[], _T]) -> Future[_T]:
        """Make a call on the thread after all that came before it, however these ended."""
        return self._thread.submit(call)

    def settle(self) -> None:
        """Wait for the start, where there is one, and for all calls of `then`."""
        wait([self.then(lambda: None)])

    def taken(self) -> LocalRay | None:
        """Return the cluster once it runs; None where none was begun. Who takes it ends it, before `close`.

        Raises:
            ClusterRefused, WorkersUnavailable: As a start at this moment would.
        """
        if self._started is not None:
            self._started.result()
        local, self._local = self._local, None
        return local

    def close(self) -> None:
        """End a cluster that nobody has taken, and the thread."""
        self.then(self._end)
        self.settle()
        self._thread.shutdown()

    def _start(self) -> None:
        with seldom_collected():  # its modules are half of all objects
            import ray

            from sdbatch.dispatch.ray_cluster import start_local

        if not ray.is_initialized():
            self._local = start_local(self._num_cpus, allow_open=self._allow_open)

    def _end(self) -> None:
        local, self._local = self._local, None
        if local is not None:
            local.close()
