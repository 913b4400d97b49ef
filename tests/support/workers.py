"""Workers without a model, for the dispatcher's tests: a request's id says what becomes of it."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path

from sdbatch import points
from sdbatch.errors import DeviceLost, GpuUnusable, ModelLoadFailed, StoreUnavailable
from sdbatch.types import OnCall, Receipt, Running, Unit, WorkerSpec
from sdbatch.worker import Worker


def receipt_of(unit: Unit, worker: str, *, generate_s: float, batch_size: int) -> Receipt:
    """Return the receipt of a unit whose outputs were all made by one call and stored, without a row to tell of."""
    return Receipt(
        unit=unit.id,
        worker=worker,
        outcomes=(),
        model_calls=1,
        rows_generated=unit.num_outputs,
        assets_put=unit.num_outputs,
        assets_adopted=0,
        asset_bytes=0,
        generate_s=generate_s,
        load_s=0.0,
        batch_size=batch_size,
    )


class ScriptedWorker:
    """Ends units as their ids say.

    `die...` ends the process, `die-once...` the first time only, `hang...` never ends, `late...` ends a process that
    has committed, `busy...` meets an unavailable store once, `lost...` a device that is lost once, `bug...` raises,
    `unloadable...` cannot load its model, `slow...` takes a second, `nap...` a tenth. What is to happen once is
    remembered by files in the folder that stands for the campaign.
    """

    def __init__(self, name: str, spec: WorkerSpec, on_call: OnCall) -> None:
        self._name = name
        self._folder = Path(spec.output)
        self._on_call = on_call
        self._model = threading.Lock()
        self._call: tuple[str, tuple[str, ...], float] | None = None

    def prepare_process(self) -> None:
        """Nothing here depends on the process."""

    def start(self) -> dict[str, str]:
        """Take a moment, as an import does."""
        return {"pid": str(os.getpid())}

    def run_unit(self, unit: Unit) -> Receipt:
        """End a unit."""
        with self._model:
            self._make(unit)
            # Within the lock, so that no unit of another thread is between its log and its commit when this one exits.
            (self._folder / "log").open("a").write(f"{unit.id} {self._name} {unit.model}\n")
            (self._folder / f"committed-{unit.id}").touch()
            if any(request.id.startswith("late-") and self._is_first(request.id) for request in unit.requests):
                os._exit(17)
        return receipt_of(unit, self._name, generate_s=0.01 * unit.num_outputs, batch_size=unit.num_outputs)

    def _make(self, unit: Unit) -> None:
        for start in range(0, len(unit.requests), unit.batch_size):
            ids = tuple(request.id for request in unit.requests[start : start + unit.batch_size])
            self._on_call(unit.id, ids)
            self._call = (unit.id, ids, time.monotonic())
            for request_id in ids:
                self._meet(request_id)
        self._call = None

    def running(self) -> tuple[Running, ...]:
        """Tell of the call; it may take a second."""
        if self._call is None:
            return ()
        unit, ids, since_s = self._call
        elapsed_s = time.monotonic() - since_s
        return (Running(unit=unit, phase="generate", elapsed_s=elapsed_s, bound_s=1.0, ids=ids),)

    def _meet(self, request_id: str) -> None:
        kind = request_id.rpartition("-")[0]
        if kind == "die" or (kind == "die-once" and self._is_first(request_id)):
            os._exit(17)
        if kind == "hang":
            time.sleep(600)
        if kind == "lost" and self._is_first(request_id):
            raise DeviceLost("CUDA error: an illegal memory access was encountered")
        if kind == "busy" and self._is_first(request_id):
            raise StoreUnavailable("the store does not answer")
        if kind == "bug":
            raise KeyError("a mistake of ours")
        if kind == "unloadable":
            raise ModelLoadFailed("a weight is missing")
        if kind in {"slow", "nap"}:
            time.sleep(1.0 if kind == "slow" else 0.1)

    def _is_first(self, request_id: str) -> bool:
        try:
            (self._folder / f"met-{request_id}").touch(exist_ok=False)
        except FileExistsError:
            return False
        return True


class KilledOnce(Worker):
    """A real worker whose process is killed once in a campaign: when it has put its third asset."""

    def prepare_process(self) -> None:
        """Strike from now on."""
        super().prepare_process()
        points.install(self._strike)
        self._passed = 0

    def _strike(self, name: str) -> None:
        self._passed += name == "between-two-assets"
        if self._passed == 3:
            with contextlib.suppress(FileExistsError):
                (Path(self._spec.output) / "killed").touch(exist_ok=False)
                os.kill(os.getpid(), signal.SIGKILL)


class PatientWorker(ScriptedWorker):
    """Waits for what other workers do, however late that is."""

    def start(self) -> dict[str, str]:
        """Take a moment, as an import does."""
        (self._folder / f"started-{self._name}").touch()
        self._until_s = time.monotonic() + 300
        return super().start()

    def running(self) -> tuple[Running, ...]:
        """Say nothing: a call may take long."""
        return ()

    def _wait_until(self, is_so: Callable[[], bool]) -> None:
        while not is_so() and time.monotonic() < self._until_s:
            time.sleep(0.05)


class UnlikeWorker(PatientWorker):
    """Says that its torch is as old as its number: no two workers of a run are alike.

    One that is given `slow...` is at it until a second one has started.
    """

    def start(self) -> dict[str, str]:
        """Take a moment, as an import does."""
        return {**super().start(), "torch": f"2.{self._name[1:]}"}

    def _meet(self, request_id: str) -> None:
        super()._meet(request_id)
        if request_id.startswith("slow-"):
            self._wait_until(lambda: len(list(self._folder.glob("started-*"))) > 1)


class FollowedWorker(PatientWorker):
    """Leaves the requests from the 60th on to the time when w2 has started; w0 only until its node drains."""

    def _meet(self, request_id: str) -> None:
        names = ("started-w2", "drained") if self._name == "w0" else ("started-w2",)
        if int(request_id.rpartition("-")[2]) >= 60:
            self._wait_until(lambda: any((self._folder / name).exists() for name in names))
        super()._meet(request_id)


class SightlessWorker(ScriptedWorker):
    """Cannot use the GPU of the node that starts one first; on other nodes it tells which GPU was reserved for it."""

    def __init__(self, name: str, spec: WorkerSpec, on_call: OnCall) -> None:
        super().__init__(name, spec, on_call)
        self._gpu_ids = spec.gpu_ids

    def start(self) -> dict[str, str]:
        """Take a moment, as an import does, and look for the GPU."""
        import ray

        node = ray.get_runtime_context().get_node_id()
        (self._folder / "starts").open("a").write(f"{node}\n")
        broken = self._folder / "broken"
        with contextlib.suppress(FileExistsError):
            (self._folder / "chosen").touch(exist_ok=False)
            broken.write_text(node)
        deadline_s = time.monotonic() + 10
        while not broken.is_file() and time.monotonic() < deadline_s:
            time.sleep(0.05)
        if broken.read_text() == node:
            raise GpuUnusable("a GPU is asked for and torch 2.13 cannot use it: uncorrectable ECC error")
        return {**super().start(), "gpu_ids": ",".join(self._gpu_ids)}


class SqueezedWorker(ScriptedWorker):
    """Lives on a node whose memory a neighbour takes when `die-once...` is met: for six seconds no process starts."""

    def start(self) -> dict[str, str]:
        """Start, or end like a process that the node has no memory for."""
        met = list(self._folder.glob("met-die-once-*"))
        if met and time.time() - met[0].stat().st_mtime < SQUEEZE_S:
            (self._folder / f"ended-{self._name}").touch()
            os._exit(9)
        return super().start()


SQUEEZE_S = 6.0


class SignalledWorker(ScriptedWorker):
    """Sends its own process Ctrl-C with its first unit; it works in the driver's process."""

    def run_unit(self, unit: Unit) -> Receipt:
        os.kill(os.getpid(), signal.SIGINT)
        return super().run_unit(unit)
