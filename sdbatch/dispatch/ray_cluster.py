"""Workers as Ray actors, pinned to GPUs by `num_gpus`.

    RayExecutor --> one actor per slot --> Worker (generate, encode, commit)

A plain actor runs two calls one after the other; the overlap is made by a concurrency group of two units and a lock
around generation inside the worker. Actors are never restarted by Ray: with restarts on, a process that kills itself
shows up as merely unavailable, for guilty and innocent calls alike, and a poison row loops.
"""

from __future__ import annotations

import logging
import math
import os
import socket
from typing import Any

import ray
from ray.exceptions import ActorDiedError, ActorUnavailableError, RayError, RayTaskError

from sdbatch.dispatch.executor import Died, Event, Shape, WorkerLike, build_worker, guarded
from sdbatch.dispatch.in_process import event_of
from sdbatch.dispatch.metrics import DriverMetrics, WorkerMetrics
from sdbatch.dispatch.policy import IN_FLIGHT_MAX
from sdbatch.errors import WorkersUnavailable
from sdbatch.types import Observation, Receipt, Unit, WorkerSpec

CONNECT_TIMEOUT_S = 10.0
ELASTIC_WORKERS = 1_000_000
"""Stands for as many workers as the cluster may ever hold; `workers.max` and the work to do bound it."""


class SdbatchWorker:
    """The actor: its class and method names are what Ray's dashboard shows."""

    def __init__(self, path: str, name: str, spec: WorkerSpec) -> None:
        self._build = (path, name, spec)
        self._worker: WorkerLike | None = None
        self._metrics: WorkerMetrics | None = None

    def start(self) -> object:
        """Build the worker; heavy imports happen here, where an error can be reported (in __init__ it kills)."""
        return guarded(self._start)

    def run_unit(self, unit: Unit) -> object:
        """Make and commit one unit."""
        worker, metrics = self._worker, self._metrics
        assert worker is not None, "a unit came before start"
        assert metrics is not None, "a unit came before start"
        result = guarded(lambda: worker.run_unit(unit))
        if isinstance(result, Receipt):
            metrics.add(result)
        return result

    def ping(self) -> str:
        """Answer while a unit runs."""
        return "ok"

    def _start(self) -> dict[str, str]:
        self._metrics = WorkerMetrics()
        self._worker = build_worker(*self._build)
        return self._worker.start()


class RayExecutor:
    """Runs workers as actors on a Ray cluster.

    Joins the cluster of RAY_ADDRESS, or one this process is connected to; else starts one on this machine, which ends
    with the executor.

    Args:
        spec: For every worker.
        worker_path: Dotted path of the worker's class.
        num_cpus: Logical CPUs of a cluster started here, at least the machine's; None for the machine's.
        num_gpus: Logical GPUs of a cluster started here; None for the machine's.
    """

    def __init__(
        self, spec: WorkerSpec, worker_path: str, *, num_cpus: int | None = None, num_gpus: int | None = None
    ) -> None:
        self._spec = spec
        self._path = worker_path
        self._actors: dict[str, Any] = {}
        self._calls: dict[Any, tuple[str, Unit | None]] = {}
        self._owns_cluster = not ray.is_initialized()
        # A cluster one joins by address may grow: what does not fit now waits, and is the autoscaler's demand.
        self._is_elastic = self._owns_cluster and os.environ.get("RAY_ADDRESS", "local") != "local"
        if self._owns_cluster:
            _connect(num_cpus, num_gpus)
        self._metrics = DriverMetrics()

    def capacity(self, shape: Shape) -> int:
        """See `Executor`."""
        if self._is_elastic:
            return ELASTIC_WORKERS
        total = ray.cluster_resources()
        limits = [total.get("CPU", 1.0) / shape.num_cpus]
        if gpus := self._num_gpus(shape):
            limits.append(total.get("GPU", 0.0) / gpus)
        if shape.memory_gib:
            limits.append(total.get("memory", math.inf) / (shape.memory_gib * 2**30))
        return max(1, int(min(limits)))

    def start(self, worker: str, shape: Shape) -> None:
        """See `Executor`."""
        options: dict[str, Any] = {
            "name": f"sdbatch-{self._spec.run_id}-{worker}",
            "namespace": "sdbatch",
            "num_cpus": shape.num_cpus,
            "num_gpus": self._num_gpus(shape),
        }
        if shape.memory_gib:
            options["memory"] = int(shape.memory_gib * 2**30)
        actor = _actor_class().options(**options).remote(self._path, worker, self._spec)
        self._actors[worker] = actor
        self._calls[actor.start.options(concurrency_group="units").remote()] = (worker, None)

    def submit(self, worker: str, unit: Unit) -> None:
        """See `Executor`."""
        actor = self._actors[worker]
        self._calls[actor.run_unit.options(concurrency_group="units").remote(unit)] = (worker, unit)

    def wait(self, timeout_s: float) -> list[Event]:
        """See `Executor`."""
        if not self._calls:
            return []
        refs = list(self._calls)
        ready, _ = ray.wait(refs, num_returns=1, timeout=timeout_s)
        if ready:  # whatever else is ready comes along, so that a round handles all there is
            ready, _ = ray.wait(refs, num_returns=len(refs), timeout=0)
        events: list[Event] = []
        for ref in ready:
            call = self._calls.pop(ref, None)
            if call is not None:
                events.append(self._event(ref, *call))
        return events

    def observe(self, observation: Observation) -> None:
        """See `Executor`."""
        self._metrics.show(observation)

    def stop(self, worker: str) -> None:
        """See `Executor`."""
        self._forget(worker)

    def close(self) -> None:
        """See `Executor`."""
        for worker in list(self._actors):
            self._forget(worker)
        if self._owns_cluster:
            ray.shutdown()

    def _event(self, ref: Any, worker: str, unit: Unit | None) -> Event:
        try:
            return event_of(worker, unit, ray.get(ref))
        except ActorDiedError as error:
            kind = "Preempted" if getattr(error, "preempted", False) else "Died"
            return self._died(worker, kind, error)
        except ActorUnavailableError as error:
            return self._died(worker, "Unavailable", error)
        except RayTaskError as error:  # outside the guarded boundary: the call itself could not be carried out
            return self._died(worker, "Died", error)
        except RayError as error:
            return self._died(worker, "Unavailable", error)

    def _died(self, worker: str, kind: str, error: Exception) -> Died:
        self._forget(worker)
        return Died(worker=worker, kind=kind, message=str(error).strip())

    def _forget(self, worker: str) -> None:
        """Drop a worker and every call it had; a dead handle is never fed."""
        actor = self._actors.pop(worker, None)
        if actor is not None:
            ray.kill(actor, no_restart=True)
        for ref in [ref for ref, (name, _) in self._calls.items() if name == worker]:
            del self._calls[ref]

    def _num_gpus(self, shape: Shape) -> float:
        if shape.num_gpus is not None:
            return shape.num_gpus
        return 1.0 if ray.cluster_resources().get("GPU", 0.0) >= 1 else 0.0


def _actor_class() -> Any:
    groups = {"units": IN_FLIGHT_MAX, "control": 1}
    return ray.remote(max_restarts=0, max_task_retries=0, concurrency_groups=groups)(SdbatchWorker)


def _connect(num_cpus: int | None, num_gpus: int | None) -> None:
    """Join RAY_ADDRESS, or start a cluster on this machine."""
    # Ray's own warnings of every local start (metrics agent, /dev/shm size) are not for a person who types one command.
    common: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR, "namespace": "sdbatch"}
    address = os.environ.get("RAY_ADDRESS")
    _check_reachable(address or "")
    try:
        if address and address != "local":
            ray.init(address=address, **common)
        else:
            cpus = max(os.cpu_count() or 1, num_cpus or 1)
            ray.init(address="local", num_cpus=cpus, num_gpus=num_gpus, include_dashboard=False, **common)
    except (ConnectionError, TimeoutError, RuntimeError) as error:
        raise WorkersUnavailable(f"no Ray cluster at {address or 'this machine'}: {error}") from error


def _check_reachable(address: str) -> None:
    """Refuse a HOST:PORT where nothing listens; Ray itself would try for minutes and end the process."""
    host, _, port = address.rpartition(":")
    if not host or not port.isdigit() or "/" in host:
        return
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=CONNECT_TIMEOUT_S).close()
    except OSError as error:
        raise WorkersUnavailable(f"no Ray cluster at RAY_ADDRESS {address}: {error}") from error
