"""Workers as Ray actors, pinned to GPUs by `num_gpus`.

    RayExecutor --> one actor per slot --> Worker (generate, encode, commit)

A plain actor runs two calls one after the other; the overlap is made by a concurrency group of two units and a lock
around generation inside the worker. Actors are never restarted by Ray: with restarts on, a process that kills itself
shows up as merely unavailable, for guilty and innocent calls alike, and a poison row loops.
"""

from __future__ import annotations

import hashlib
import math
import os
import time
from contextlib import suppress
from dataclasses import replace
from typing import Any

import ray
from ray.exceptions import ActorDiedError, ActorUnavailableError, RayError, RayTaskError

from sdbatch.dispatch import ray_inside
from sdbatch.dispatch.ahead import RayAhead, cluster_address
from sdbatch.dispatch.executor import (
    Died,
    Draining,
    ErrorRecord,
    Event,
    Placed,
    Pulse,
    Ready,
    Shape,
    WorkerLike,
    build_worker,
    guarded,
)
from sdbatch.dispatch.in_process import event_of
from sdbatch.dispatch.metrics import DriverMetrics, WorkerMetrics
from sdbatch.dispatch.policy import IN_FLIGHT_MAX
from sdbatch.dispatch.ray_joined import first_line, join, refuse_open
from sdbatch.dispatch.ray_local import LocalRay
from sdbatch.dispatch.shortage import lacking, shortage_text
from sdbatch.errors import WorkersUnavailable
from sdbatch.extras import require
from sdbatch.outcomes import outcome_of
from sdbatch.types import Observation, Receipt, Running, Unit, WorkerSpec

PING_EVERY_S = 2.0
PINGS_PER_S_MAX = 128.0
"""More workers are asked less often, so that pings never cost more than units: 1,024 of them every 8 s."""

SILENT_MAX_S = 60.0
"""A process that answers no ping for so long hangs with the interpreter's lock held; it is ended."""

NODES_POLL_S = 5.0
NODE_LABEL = "ray.io/node-id"
"""Label that Ray itself gives every node."""

ELASTIC_WORKERS = 1_000_000
"""More workers than any cluster holds; `workers.max` and the work to do are the bounds that matter."""


class SdbatchWorker:
    """The actor: its class and method names are what Ray's dashboard shows."""

    def __init__(self, path: str, name: str, spec: WorkerSpec, *, has_metrics: bool) -> None:
        self._build = (path, name, spec)
        self._has_metrics = has_metrics
        self._worker: WorkerLike | None = None
        self._metrics: WorkerMetrics | None = None

    def start(self) -> object:
        """Build the worker; heavy imports happen here, where an error can be reported (in __init__ it kills)."""
        return _with_node(guarded(self._start))

    def run_unit(self, unit: Unit) -> object:
        """Make and commit one unit."""
        worker = self._worker
        assert worker is not None, "a unit came before start"
        result = guarded(lambda: worker.run_unit(unit))
        if self._metrics is not None and isinstance(result, Receipt):
            self._metrics.add(result)
        return _with_node(result)

    def ping(self) -> tuple[Running, ...]:
        """Return where the units that run here are."""
        return self._worker.running() if self._worker else ()

    def _start(self) -> dict[str, str]:
        self._metrics = WorkerMetrics() if self._has_metrics else None
        path, name, spec = self._build
        gpu_ids = tuple(ray.get_runtime_context().get_accelerator_ids().get("GPU", ()))
        self._worker = build_worker(path, name, replace(spec, gpu_ids=gpu_ids), self._note_call)
        self._worker.prepare_process()
        return {**self._worker.start(), "node": ray.get_runtime_context().get_node_id()}

    def _note_call(self, unit: str, ids: tuple[str, ...]) -> None:
        """Record which requests go into the model; when the process dies in this call, they are the suspects.

        The record lies in the cluster's head and is lost with it; then only the hint is lost. Its cost does not show
        beside that of a pipeline call.
        """
        _, worker, spec = self._build
        ray_inside.note(_call_key(spec, worker), "\n".join(ids))


class RayExecutor:
    """Runs workers as actors on a Ray cluster.

    Joins the cluster of RAY_ADDRESS, or one this process is connected to; else starts one on this machine, which ends
    with the executor.

    Args:
        spec: What every worker is built from.
        worker_path: Dotted path of the worker's class.
        num_cpus: Logical CPUs of a cluster started here, at least the machine's; None for the machine's.
        num_gpus: Logical GPUs of a cluster started here; None for the machine's.
        allow_open: Whether a cluster may be one that asks for no token.
        ahead: Has perhaps started one here already.

    Raises:
        ClusterRefused: When the cluster does not take our token, or would do without one.
        WorkersUnavailable: When there is no cluster at RAY_ADDRESS, or none starts here.
    """

    def __init__(
        self,
        spec: WorkerSpec,
        worker_path: str,
        *,
        num_cpus: int | None = None,
        num_gpus: int | None = None,
        allow_open: bool = False,
        ahead: RayAhead | None = None,
    ) -> None:
        self._spec = spec
        self._path = worker_path
        # Campaigns whose first runs begin in one second give them one id, and a cluster may have both.
        campaign = hashlib.sha256(f"{spec.output} {spec.lease_token}".encode()).hexdigest()[:8]
        self._name = f"sdbatch-{spec.run_id}-{campaign}"
        self._actors: dict[str, Any] = {}
        self._calls: dict[Any, tuple[str, Unit | None]] = {}
        self._local: LocalRay | None = ahead.taken() if ahead else None
        self._owns_connection = self._local is not None or not ray.is_initialized()
        address = cluster_address()
        # A cluster joined by address may grow: actors that do not fit now wait, and are the autoscaler's demand.
        self._is_elastic = self._owns_connection and address != "local"
        if self._is_elastic:
            refuse_open(allow_open=allow_open)
            join(address, allow_open=allow_open)
        elif self._owns_connection:
            self._local = self._local or start_local(num_cpus, num_gpus, allow_open=allow_open)
        # Counted once, so that all workers of a run have the same slots.
        self._gpus_of_null = 1.0 if ray.cluster_resources().get("GPU", 0.0) >= 1 else 0.0
        # A Ray that was started here exports none, and counting them takes a worker without a model 3 % of its time.
        self._metrics = DriverMetrics() if self._local is None else None
        self._nodes: dict[str, str] = {}
        self._pings: dict[Any, tuple[str, float]] = {}
        self._placing: dict[Any, tuple[str, None]] = {}
        self._pinged_s = self._nodes_seen_s = time.monotonic()
        self._reported_draining: set[str] = set()
        self._left_nodes: set[str] = set()

    def capacity(self, shape: Shape) -> int:
        """See `Executor`."""
        if self._is_elastic:
            return ELASTIC_WORKERS
        total = ray.cluster_resources()
        limits = [total.get("CPU", 1.0) / shape.num_cpus]
        if gpus := self.settled(shape).num_gpus:
            limits.append(total.get("GPU", 0.0) / gpus)
        if shape.memory_gib:
            limits.append(total.get("memory", math.inf) / (shape.memory_gib * 2**30))
        return max(1, int(min(limits)))

    def settled(self, shape: Shape) -> Shape:
        """See `Slots`."""
        return shape if shape.num_gpus is not None else replace(shape, num_gpus=self._gpus_of_null)

    def shortage(self, shape: Shape) -> str:
        """See `Slots`."""
        total, free = ray.cluster_resources(), ray.available_resources()
        return shortage_text(self.settled(shape), total, free, grows=self._local is None)

    def can_hold(self, shape: Shape) -> bool:
        """See `Slots`: a cluster that was started here gets no further nodes, any other may."""
        total = ray.cluster_resources()
        return self._local is None or not total or not lacking(self.settled(shape), total)

    def start(self, worker: str, shape: Shape) -> None:
        """See `Executor`."""
        options: dict[str, Any] = {
            "name": f"{self._name}-{worker}",
            "namespace": "sdbatch",
            "num_cpus": shape.num_cpus,
            "num_gpus": self.settled(shape).num_gpus,
        }
        if shape.memory_gib:
            options["memory"] = int(shape.memory_gib * 2**30)
        if self._left_nodes and self._has_others(options["num_gpus"]):
            options["label_selector"] = {NODE_LABEL: f"!in({','.join(sorted(self._left_nodes))})"}
        actor = (
            _actor_class()
            .options(**options)
            .remote(self._path, worker, self._spec, has_metrics=self._metrics is not None)
        )
        self._actors[worker] = actor
        self._placing[actor.ping.options(concurrency_group="control").remote()] = (worker, None)
        self._calls[actor.start.options(concurrency_group="units").remote()] = (worker, None)

    def submit(self, worker: str, unit: Unit) -> None:
        """See `Executor`."""
        actor = self._actors[worker]
        self._calls[actor.run_unit.options(concurrency_group="units").remote(unit)] = (worker, unit)

    def wait(self, timeout_s: float) -> list[Event]:
        """See `Executor`.

        Raises:
            WorkersUnavailable: When the cluster does not answer any more.
        """
        try:
            return self._events(timeout_s)
        except (RayError, ConnectionError, TimeoutError) as error:
            raise WorkersUnavailable(
                f"the Ray cluster does not answer any more ({first_line(error)}); run again to go on"
            ) from error

    def _events(self, timeout_s: float) -> list[Event]:
        if not self._calls:
            time.sleep(timeout_s)
            return [*self._pulses(), *self._drains()]
        refs = [*self._placing, *self._calls]
        ready, _ = ray.wait(refs, num_returns=1, timeout=timeout_s)
        if ready:  # whatever else is ready comes along, so that a round handles all there is
            ready, _ = ray.wait(refs, num_returns=len(refs), timeout=0)
        events: list[Event] = []
        for ref in ready:
            if ref in self._placing:  # an actor that ended instead is told of by its start
                events.append(Placed(worker=self._placing.pop(ref)[0]))
                continue
            call = self._calls.pop(ref, None)
            if call is not None:
                events.append(self._event(ref, *call))
        return [*events, *self._pulses(), *self._drains()]

    def observe(self, observation: Observation) -> None:
        """See `Executor`."""
        if self._metrics is not None:
            self._metrics.show(observation)

    def stop(self, worker: str) -> None:
        """See `Executor`."""
        self._forget(worker)

    def close(self) -> None:
        """See `Executor`."""
        for worker in list(self._actors):
            self._forget(worker)
        if self._local is not None:
            self._local.close()
        elif self._owns_connection:
            with ray_inside.kept_sigterm():
                ray.shutdown()

    def _pulses(self) -> list[Event]:
        """Ping every worker that has units; return the answers, and a death for each that gave none for too long."""
        now_s = time.monotonic()
        if now_s - self._pinged_s >= max(PING_EVERY_S, len(self._actors) / PINGS_PER_S_MAX):
            self._pinged_s = now_s
            asked = {worker for worker, _ in self._pings.values()}
            for worker in {worker for worker, unit in self._calls.values() if unit is not None} - asked:
                ping = self._actors[worker].ping.options(concurrency_group="control").remote()
                self._pings[ping] = (worker, now_s)
        if not self._pings:
            return []
        answered, _ = ray.wait(list(self._pings), num_returns=len(self._pings), timeout=0)
        events: list[Event] = []
        for ping in answered:
            worker, _ = self._pings.pop(ping)
            with suppress(RayError):  # then the calls themselves end with it
                events.append(Pulse(worker=worker, running=ray.get(ping)))
        silent = [worker for worker, since_s in self._pings.values() if now_s - since_s >= SILENT_MAX_S]
        events += [self._died(name, "Silent", f"no answer to a ping for {SILENT_MAX_S:g} s") for name in silent]
        return events

    def _drains(self) -> list[Event]:
        """Return the workers on nodes that drain, each once.

        Raises:
            WorkersUnavailable: When the cluster that was started here has lost its only node.
        """
        now_s = time.monotonic()
        if now_s - self._nodes_seen_s < NODES_POLL_S:
            return []
        self._nodes_seen_s = now_s
        if self._owns_connection and not self._is_elastic and not any(node["Alive"] for node in ray.nodes()):
            raise WorkersUnavailable("the Ray cluster that this run had started is gone; run again to go on")
        draining = ray_inside.draining_nodes()
        names = [name for name, node in self._nodes.items() if node in draining and name not in self._reported_draining]
        self._reported_draining.update(names)
        return [Draining(worker=name) for name in names if name in self._actors]

    def _event(self, ref: Any, worker: str, unit: Unit | None) -> Event:
        try:
            result = ray.get(ref)
        except ActorDiedError as error:
            return self._died(worker, self._kind_of_death(worker, error), error)
        except ActorUnavailableError as error:
            return self._died(worker, "Unavailable", error)
        except RayTaskError as error:  # outside the guarded boundary: the call itself could not be carried out
            return self._died(worker, "Died", error)
        except RayError as error:
            return self._died(worker, "Unavailable", error)
        if isinstance(result, ErrorRecord) and outcome_of(result.kind).leave_node:
            self._left_nodes.add(result.node)
        event = event_of(worker, unit, result)
        if isinstance(event, Ready):
            self._nodes[worker] = event.facts["node"]
        return event

    def _has_others(self, num_gpus: float) -> bool:
        """Whether a node that was not left has so many GPUs, or may join; without one a start tells the fault again."""
        others = [node for node in ray.nodes() if node["Alive"] and node["NodeID"] not in self._left_nodes]
        return self._is_elastic or any(node["Resources"].get("GPU", 0.0) >= num_gpus for node in others)

    def _kind_of_death(self, worker: str, error: ActorDiedError) -> str:
        if getattr(error, "preempted", False):
            return "Preempted"
        alive = {node["NodeID"] for node in ray.nodes() if node["Alive"]}
        is_gone = "node has died" in str(error) or self._nodes.get(worker, "") not in {"", *alive}
        return "NodeLost" if is_gone else "Died"

    def _died(self, worker: str, kind: str, error: object) -> Died:
        self._forget(worker)
        left = ray_inside.take_note(_call_key(self._spec, worker))
        ids = frozenset(left.split("\n")) if left else frozenset()
        return Died(worker=worker, kind=kind, message=str(error).strip(), ids=ids)

    def _forget(self, worker: str) -> None:
        """Drop a worker and every call it had; a dead handle is never fed."""
        actor = self._actors.pop(worker, None)
        if actor is not None:
            ray.kill(actor, no_restart=True)
        calls: list[dict[Any, tuple[str, Any]]] = [self._calls, self._pings, self._placing]
        for waiting in calls:
            for ref in [ref for ref, (name, _) in waiting.items() if name == worker]:
                del waiting[ref]


def _with_node(result: object) -> object:
    """Return an error with the node of this process; anything else as it is."""
    if isinstance(result, ErrorRecord):
        return replace(result, node=ray.get_runtime_context().get_node_id())
    return result


def _call_key(spec: WorkerSpec, worker: str) -> bytes:
    return f"{spec.run_id}/{worker}".encode()


def _actor_class() -> Any:
    groups = {"units": IN_FLIGHT_MAX, "control": 1}
    return ray.remote(max_restarts=0, max_task_retries=0, concurrency_groups=groups)(SdbatchWorker)


def start_local(num_cpus: int | None = None, num_gpus: int | None = None, *, allow_open: bool = False) -> LocalRay:
    """Start Ray on this machine; for the arguments and errors see `RayExecutor`."""
    refuse_open(allow_open=allow_open)
    require("worker", "a worker on this machine")
    is_open = os.environ.get("RAY_AUTH_MODE", "").lower() == "disabled"
    try:
        return LocalRay(num_cpus, num_gpus, with_token=not is_open)
    except Exception as error:  # Ray has no class for a start that takes too long: a bare Exception
        raise WorkersUnavailable(f"Ray does not start on this machine: {error}") from error
