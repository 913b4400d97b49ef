"""The worker that an executor runs: one per GPU slot, its model resident.

start() proves that the campaign is the driver's    run_unit() makes and commits    running() answers a ping
"""

from __future__ import annotations

import json
import logging
import os
import platform
import socket
import time
from dataclasses import dataclass
from typing import Final

from sdbatch.campaign import layout
from sdbatch.collector import left_to_stay
from sdbatch.device_choice import runs_on_cpu
from sdbatch.errors import GpuUnusable, StoreRefused, UserError
from sdbatch.job import parse_job
from sdbatch.logs import configure
from sdbatch.storage import open_campaign
from sdbatch.types import OnCall, Phase, Receipt, Running, Unit, WorkerSpec
from sdbatch.without_pandas import keep_pandas_out
from sdbatch.worker.environment import prepare_environment
from sdbatch.worker.render import Renderer
from sdbatch.worker.unit import UnitMaker

LOG = logging.getLogger("sdbatch.worker")

FLOAT32_NOTE: Final = (
    "models.{name}: dtype float32 on a GPU takes twice the memory of bfloat16 and several times as long; say dtype"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class _UnitPhase:
    """The phase a unit is in. See `Running`."""

    phase: Phase
    since_s: float
    bound_s: float
    ids: tuple[str, ...]


def prepare_generation(num_cpus: int = 1, *, is_exact: bool = False) -> None:
    """Set what only a process that is there to run models may: environment, memory allocator, the libraries' messages.

    A worker of its own process calls it, and a command that runs models in its own.

    Args:
        num_cpus: Cores that the process may use.
        is_exact: See `prepare_environment`.
    """
    prepare_environment(num_cpus, is_exact=is_exact)  # before the first import of torch and diffusers
    from sdbatch.generate.host_memory import keep_freed_memory
    from sdbatch.generate.load import quieten_libraries

    keep_freed_memory()
    quieten_libraries()


def prepare_process(spec: WorkerSpec, name: str) -> None:
    """Set what only a process that is a worker and nothing else may: log handlers, no pandas, what is never collected.

    See `prepare_generation` for the rest.

    Args:
        spec: What the worker is built from.
        name: Name of the worker; it stands in every log line.
    """
    configure(spec.log_format, campaign=spec.output, run_id=spec.run_id, worker=name)
    keep_pandas_out()
    job = parse_job(spec.job)
    with left_to_stay():
        prepare_generation(max(model.num_cpus for model in job.models.values()), is_exact=job.determinism == "exact")
        import sdbatch.generate.batch  # noqa: F401 -- all that is imported for any model


class Worker:
    """Makes units.

    Args:
        name: Unique in the run.
        spec: What the driver resolved.
        on_call: Told the unit and the request ids of every pipeline call before it runs: should the process die in
            it, these are the suspects.
    """

    def __init__(self, name: str, spec: WorkerSpec, on_call: OnCall = lambda *_: None) -> None:
        self._name = name
        self._spec = spec
        self._phases: dict[str, _UnitPhase] = {}
        job = parse_job(spec.job)
        self._job = job
        self._store = open_campaign(spec.output, job.storage, is_reached=True)
        self._maker = UnitMaker(
            name,
            job,
            Renderer(job, spec.revisions, is_gpu_reserved=bool(spec.gpu_ids), campaign=self._store),
            self._store,
            spec.run_id,
            self._enter,
            on_call,
        )

    def prepare_process(self) -> None:
        """See `prepare_process`; for an executor that gives the worker a process of its own."""
        prepare_process(self._spec, self._name)

    def start(self) -> dict[str, str]:
        """Import what is heavy and prove that the campaign seen here is the driver's.

        Returns:
            Facts about this machine and its versions, for the run's record and to be compared with other workers'.

        Raises:
            StoreRefused: When the campaign's lease is not there: a local folder that this node does not share.
            GpuUnusable: When a GPU was reserved for this worker and torch cannot use it, or this node's environment
                names a device that there is none of.
        """
        self._check_campaign()
        _check_device_choice()
        import sdbatch.generate.batch  # noqa: F401 -- torch and diffusers: seconds, before the first unit's clock
        from sdbatch.generate.versions import worker_versions

        notes = self._device_notes()
        return {
            "host": socket.gethostname(),
            "pid": str(os.getpid()),
            "python": platform.python_version(),
            **worker_versions(uses_gpu=any(model.num_gpus != 0 for model in self._job.models.values())),
            **({"note": "; ".join(notes)} if notes else {}),
        }

    def run_unit(self, unit: Unit) -> Receipt:
        """Make and commit one unit; outputs that cannot be made are recorded as failures.

        Raises:
            MachineError: When something around the rows failed; nothing was committed.
        """
        try:
            return self._maker.make(unit)
        finally:
            self._phases.pop(unit.id, None)

    def running(self) -> tuple[Running, ...]:
        """Return where the units in this worker are; another thread may ask while they run."""
        now_s = time.monotonic()
        return tuple(
            Running(unit=unit, phase=place.phase, elapsed_s=now_s - place.since_s, bound_s=place.bound_s, ids=place.ids)
            for unit, place in list(self._phases.items())
        )

    def _enter(self, unit: str, phase: Phase, bound_s: float, ids: tuple[str, ...]) -> None:
        self._phases[unit] = _UnitPhase(phase=phase, since_s=time.monotonic(), bound_s=bound_s, ids=ids)

    def _device_notes(self) -> list[str]:
        """Prove the GPU that was reserved; return what a person should change in the job for it."""
        from sdbatch.generate.device import device_of

        is_reserved = bool(self._spec.gpu_ids)
        notes = []
        # A slot has either a GPU or none. What a slot without one is asked for is looked at when a model is loaded.
        for name, model in self._job.models.items() if is_reserved else ():
            if model.num_gpus != 0:
                device = device_of(model.num_gpus, is_reserved=True)
                if device.note:
                    LOG.warning("device", extra={"model": name, "note": device.note})
                if device.name == "cuda" and model.dtype == "float32":
                    notes.append(FLOAT32_NOTE.format(name=name))
        return notes

    def _check_campaign(self) -> None:
        path = layout.lease(self._spec.lease_epoch)
        try:
            token = json.loads(self._store.read(path))["token"]
        except (FileNotFoundError, ValueError, KeyError):
            token = None
        if token != self._spec.lease_token:
            raise StoreRefused(
                f"{self._spec.output} as seen from {socket.gethostname()} lacks the driver's {path}; "
                "a local output works only where every worker sees the same folder"
            )


def _check_device_choice() -> None:
    """Refuse a wrong SDBATCH_DEVICE of this node alone: the driver's own was looked at before the run began."""
    try:
        runs_on_cpu()
    except UserError as error:
        raise GpuUnusable(f"{error} (on {socket.gethostname()})") from error
