"""Ray of this machine, started on a thread while the driver still reads a long manifest.

begin() --> Ray starts, in processes of its own, beside the reading --> taken() by the executor, or close()
"""

from __future__ import annotations

import os
import threading
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sdbatch.dispatch.ray_local import LocalRay


def cluster_address() -> str:
    """Return the address of the cluster that a run joins; `local` where it starts one on this machine."""
    return os.environ.get("RAY_ADDRESS") or "local"


class RayAhead:
    """A cluster of this machine that is started before it is needed.

    Args:
        num_cpus: Logical CPUs, at least the machine's; None for the machine's.
        allow_open: Whether it may do without a token because RAY_AUTH_MODE says so.
    """

    def __init__(self, num_cpus: int | None, *, allow_open: bool = False) -> None:
        self._num_cpus = num_cpus
        self._allow_open = allow_open
        self._thread: threading.Thread | None = None
        self._is_started = threading.Event()
        self._is_over = threading.Event()
        self._local: LocalRay | None = None
        self._error: Exception | None = None

    @property
    def is_begun(self) -> bool:
        """Whether it was started, or is being started."""
        return self._thread is not None

    def begin(self) -> None:
        """Start it; nothing happens where a run joins a cluster, or when it was begun before."""
        if self._thread is None and cluster_address() == "local":
            self._thread = threading.Thread(target=self._run, name="ray-ahead", daemon=True)
            self._thread.start()

    def taken(self) -> LocalRay | None:
        """Return the cluster once it runs; None where none was begun. Who takes it ends it, before `close`.

        Raises:
            ClusterRefused, WorkersUnavailable: As a start at this moment would.
        """
        if self._thread is not None:
            self._is_started.wait()
        if self._error is not None:
            raise self._error
        local, self._local = self._local, None
        return local

    def close(self) -> None:
        """End a cluster that nobody has taken."""
        if self._thread is not None:
            self._is_started.wait()
            if self._local is not None:
                self._local.close()
            self._is_over.set()
            self._thread.join()

    def _run(self) -> None:
        try:
            self._start()
        except Exception as error:  # noqa: BLE001 -- raised again where it would have been without this thread
            self._error = error
        finally:
            self._is_started.set()
        self._is_over.wait()  # Linux ends Ray's processes with the thread that started them, not with its process

    def _start(self) -> None:
        import ray

        from sdbatch.dispatch.ray_cluster import start_local

        if not ray.is_initialized():
            self._local = start_local(self._num_cpus, allow_open=self._allow_open)
