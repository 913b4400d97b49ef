"""The seam between the dispatcher and whatever runs workers.

    dispatcher -- start, submit, stop --> Executor
    dispatcher <-- Placed | Ready | UnitDone | Faulted | Died | Pulse | Draining -- wait()

Two executors stand behind it: in-process (breakpoints, unit tests) and Ray. What both promise is one test.
"""

from __future__ import annotations

import importlib
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from sdbatch.errors import MachineError, StoreRefused
from sdbatch.local_faults import local_fault, temporary_folder
from sdbatch.types import Observation, OnCall, Receipt, Running, Unit, WorkerSpec


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """The resources that one worker reserves.

    Attributes:
        num_gpus: GPUs, fractions allowed; None is 1 where the cluster has GPUs, else 0. See `Slots.settled`.
        num_cpus: Cores.
        memory_gib: Host memory, None for no reservation.
    """

    num_gpus: float | None
    num_cpus: int
    memory_gib: float | None

    @property
    def words(self) -> str:
        """What it reserves, as people say it."""
        gpus = "the GPUs of its machine" if self.num_gpus is None else f"{self.num_gpus:g} GPU"
        memory = f", {self.memory_gib:g} GiB of memory" if self.memory_gib else ""
        return f"{gpus} and {self.num_cpus} CPU{memory}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Placed:
    """A worker holds its slot from now on; it is not ready yet."""

    worker: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Ready:
    """A worker may be given units."""

    worker: str
    facts: Mapping[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class UnitDone:
    """A unit was committed."""

    worker: str
    unit: str
    receipt: Receipt


@dataclass(frozen=True, slots=True, kw_only=True)
class Faulted:
    """A unit, or with `unit` None the start of a worker, ended with an error; the worker lives.

    Attributes:
        worker: Name.
        unit: The unit's id.
        kind: Key of the table of outcomes.
        message: What a person reads.
        traceback: Traceback in the worker's process.
    """

    worker: str
    unit: str | None
    kind: str
    message: str
    traceback: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Died:
    """A worker's process is gone, or is being ended, with all the units it had been given.

    Attributes:
        worker: Name.
        kind: Key of the table of outcomes.
        message: What a person reads.
        ids: Requests that were in its model last, as far as that is known.
    """

    worker: str
    kind: str
    message: str
    ids: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True, kw_only=True)
class Pulse:
    """A worker answered a ping: where its units are."""

    worker: str
    running: tuple[Running, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Draining:
    """A worker's node is about to go: it must be fed no more."""

    worker: str


Event = Placed | Ready | UnitDone | Faulted | Died | Pulse | Draining


class Executor(Protocol):
    """Runs workers. Calls come from one thread."""

    def capacity(self, shape: Shape) -> int:
        """Return how many workers of a shape fit, at least 1; where a cluster may grow, how many may ever fit."""

    def start(self, worker: str, shape: Shape) -> None:
        """Ask for a worker; `Placed` follows once it holds its slot, then `Ready`, `Faulted` or `Died`."""

    def submit(self, worker: str, unit: Unit) -> None:
        """Give a worker a unit; `UnitDone`, `Faulted` or `Died` follows."""

    def wait(self, timeout_s: float) -> Sequence[Event]:
        """Return the events so far; wait at most this long when there are none."""

    def observe(self, observation: Observation) -> None:
        """Publish the run's state as metrics."""

    def stop(self, worker: str) -> None:
        """End a worker at once. No event follows for it."""

    def close(self) -> None:
        """End all workers and whatever this executor started."""


class Slots(Protocol):
    """What an executor knows of the slots that its workers are started in."""

    def settled(self, shape: Shape) -> Shape:
        """Return a shape with its GPUs as a number, where they are reserved."""

    def shortage(self, shape: Shape) -> str:
        """Say in words what a worker of a shape waits for."""

    def can_hold(self, shape: Shape) -> bool:
        """Whether a worker of a shape could ever be started, were nothing else there."""


class SlotExecutor(Executor, Slots, Protocol):
    """An executor that a run can be made with."""


class WorkerLike(Protocol):
    """The worker that an executor runs: see `sdbatch.worker.Worker`."""

    def prepare_process(self) -> None:
        """Set what only a process that is this worker and nothing else may; called before `start`, there alone."""

    def start(self) -> dict[str, str]:
        """Prepare; return facts about the machine."""

    def run_unit(self, unit: Unit) -> Receipt:
        """Make and commit one unit."""

    def running(self) -> tuple[Running, ...]:
        """Say where the units in it are; called from another thread."""


WORKER = "sdbatch.worker:Worker"
"""Dotted path of the class that executors run; dispatch puts no rooms together, so it does not import the class."""


def build_worker(path: str, name: str, spec: WorkerSpec, on_call: OnCall = lambda *_: None) -> WorkerLike:
    """Build a worker from its dotted path."""
    module, _, attribute = path.partition(":")
    worker: WorkerLike = getattr(importlib.import_module(module), attribute)(name, spec, on_call)
    return worker


@dataclass(frozen=True, slots=True, kw_only=True)
class ErrorRecord:
    """An error as plain values, so that it crosses processes whatever its class.

    Attributes:
        kind: Key of the table of outcomes.
        message: What a person reads.
        traceback: Traceback in the worker's process.
        node: Node of that process, where the executor knows nodes.
    """

    kind: str
    message: str
    traceback: str
    node: str = ""


def guarded(call: Callable[[], object]) -> object:
    """Return what `call` returns, or an `ErrorRecord`: the one boundary where a worker's errors become outcomes."""
    try:
        return call()
    except (MachineError, StoreRefused) as error:
        return ErrorRecord(kind=type(error).__name__, message=str(error), traceback=traceback.format_exc())
    except Exception as error:  # noqa: BLE001 -- the boundary; the policy stops the run for a bug
        if fault := local_fault(error, temporary_folder(), "TMPDIR"):
            return ErrorRecord(kind=type(fault).__name__, message=str(fault), traceback=traceback.format_exc())
        return ErrorRecord(kind="Bug", message=f"{type(error).__name__}: {error}", traceback=traceback.format_exc())
