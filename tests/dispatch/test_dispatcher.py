"""What both executors promise: every request ends once, the guilty alone are set aside, faults stop what they must."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from sdbatch.campaign.write import receipt_of
from sdbatch.dispatch.dispatcher import Dispatcher, Plan
from sdbatch.dispatch.executor import Died, Event, Executor, Faulted, Ready, Shape, UnitDone
from sdbatch.dispatch.fleet import Fleet
from sdbatch.dispatch.in_process import InProcessExecutor
from sdbatch.dispatch.likeness import Standard
from sdbatch.dispatch.policy import START_FAULTS_MAX
from sdbatch.errors import MachineError, ModelLoadFailed, WorkersUnavailable, WorkersUnlike
from sdbatch.outcomes import Outcome
from sdbatch.plan.window import Window, bisected
from sdbatch.types import Receipt, Request, Unit, WorkerSpec

SCRIPTED = "support.workers:ScriptedWorker"
CPU = Shape(num_gpus=0, num_cpus=1, memory_gib=None)


def _request(name: str, model: str = "a", size: int = 64) -> Request:
    recipe = json.dumps({"task": "text-to-image", "height": size, "width": size, "num_inference_steps": 1})
    return Request(
        id=name,
        request_key=f"key-{name}",
        recipe=recipe,
        outputs=(0,),
        sources=(),
        model=model,
        batch_key=f"{model}-{size}",
        cost_tflop=1.0,
    )


def _requests(count: int, **more: Any) -> list[Request]:
    return [_request(f"good-{number:03d}", **more) for number in range(count)]


class Job:
    """Works off requests and keeps what was reported."""

    def __init__(self, executor: Executor, requests: list[Request], **changes: Any) -> None:
        self.done: list[str] = []
        self.set_aside: list[tuple[str, str | None]] = []
        self.units: list[Unit] = []
        models = {request.model for request in requests}
        clock: Callable[[], float] = changes.pop("clock", time.monotonic)
        fleet: Fleet | None = changes.pop("fleet", None)
        plan: dict[str, Any] = {
            "requests": iter(requests),
            "cost_tflop": float(len(requests)),
            "shapes": dict.fromkeys(models, CPU),
            "worker_count": 2,
            "worker_max": 64,
            "start_timeout_s": 300.0,
            "bisect": bisected,
            "recover": lambda _: None,
            **changes,
        }
        self.dispatcher = Dispatcher(
            executor,
            Window(dict.fromkeys(models, 4)),
            Plan(**plan),
            on_receipt=self._on_receipt,
            on_set_aside=self._on_set_aside,
            on_tick=lambda: None,
            should_stop=lambda: False,
            clock=clock,
            fleet=fleet,
        )

    def _on_set_aside(self, unit: Unit, worker: str, outcome: Outcome, message: str) -> None:
        self.set_aside.extend((request.id, outcome.records) for request in unit.requests)

    def _on_receipt(self, unit: Unit, receipt: Receipt) -> None:
        self.units.append(unit)
        assert not receipt.outcomes
        self.done.extend(request.id for request in unit.requests for _ in request.outputs)


@pytest.fixture
def executor_of(tmp_path: Path) -> Callable[[bool], Executor]:
    spec = WorkerSpec(job={}, output=str(tmp_path), run_id=tmp_path.name, lease_epoch=1, lease_token="", revisions={})

    def make(in_process: bool) -> Executor:
        if in_process:
            return InProcessExecutor(spec, SCRIPTED)
        from sdbatch.dispatch.ray_cluster import RayExecutor

        return RayExecutor(spec, SCRIPTED)

    return make


@pytest.fixture
def executor(executor_of: Callable[[bool], Executor], in_process: bool) -> Any:
    made = executor_of(in_process)
    yield made
    made.close()


@pytest.fixture
def ray_executor(executor_of: Callable[[bool], Executor], ray_cluster: None) -> Any:
    made = executor_of(False)
    yield made
    made.close()


def test_every_request_ends_once(executor: Executor) -> None:
    requests = [*_requests(100), *[_request(f"other-{n:02d}", model="b") for n in range(10)]]
    job = Job(executor, requests)
    job.dispatcher.run()

    assert sorted(job.done) == sorted(request.id for request in requests)
    assert job.dispatcher.num_in_flight == 0


@pytest.mark.fault(
    "F13", "a worker with another torch than earlier runs", "refused in exact, warned of in fast, nothing in silence"
)
@pytest.mark.parametrize("refuse_unlike", [True, False])
def test_a_worker_unlike_earlier_ones_stops_the_run_or_is_warned_of(
    refuse_unlike: bool, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    spec = WorkerSpec(job={}, output=str(tmp_path), run_id="r", lease_epoch=1, lease_token="", revisions={})
    standards = {"a": Standard(source="run r1", facts={"torch": "1.9"})}
    executor = InProcessExecutor(spec, "support.workers:UnlikeWorker")
    job = Job(executor, _requests(3), refuse_unlike=refuse_unlike, standards=standards)
    difference = "worker w0 has torch 2.0, run r1 had 1.9"

    if refuse_unlike:
        with pytest.raises(WorkersUnlike, match=difference):
            job.dispatcher.run()
        assert not (tmp_path / "log").exists()  # no unit was handed out
        return
    job.dispatcher.run()
    assert len(job.done) == 3
    assert job.dispatcher.warnings[0] == difference
    assert [record.difference for record in caplog.records if hasattr(record, "difference")] == job.dispatcher.warnings


@pytest.mark.fault("F13", "two workers with unlike versions in one run", "an exact run stops before the second is fed")
@pytest.mark.ray
def test_two_workers_that_differ_stop_an_exact_run(tmp_path: Path, ray_cluster: None) -> None:
    from sdbatch.dispatch.ray_cluster import RayExecutor

    spec = WorkerSpec(job={}, output=str(tmp_path), run_id=tmp_path.name, lease_epoch=1, lease_token="", revisions={})
    executor = RayExecutor(spec, "support.workers:UnlikeWorker")
    job = Job(executor, [_request(f"slow-{number}") for number in range(40)], refuse_unlike=True)
    try:
        with pytest.raises(WorkersUnlike, match=r"worker w[01] has torch 2\.[01], worker w[01] had 2\.[01]"):
            job.dispatcher.run()
    finally:
        executor.close()
    assert len({line.split()[1] for line in (tmp_path / "log").read_text().splitlines()}) == 1


@pytest.mark.ray
def test_campaigns_whose_runs_have_one_id_share_a_cluster(tmp_path: Path, ray_cluster: None) -> None:
    from sdbatch.dispatch.ray_cluster import RayExecutor

    executors: list[RayExecutor] = []
    jobs: list[Job] = []
    try:
        for name in ("spring", "autumn"):
            folder = tmp_path / name
            folder.mkdir()
            spec = WorkerSpec(
                job={}, output=str(folder), run_id=tmp_path.name, lease_epoch=1, lease_token="", revisions={}
            )
            executors.append(RayExecutor(spec, SCRIPTED))
            jobs.append(Job(executors[-1], _requests(10)))
            jobs[-1].dispatcher.run()  # its workers stay until it is closed
    finally:
        for executor in executors:
            executor.close()

    assert [len(job.done) for job in jobs] == [10, 10]


def test_units_hold_one_batch_key_and_shrink_toward_the_end(executor: Executor) -> None:
    job = Job(executor, [*_requests(300), *[_request(f"wide-{n:02d}", size=128) for n in range(20)]])
    job.dispatcher.run()
    sizes = [len(unit.requests) for unit in job.units]

    assert all(len({request.batch_key for request in unit.requests}) == 1 for unit in job.units)
    assert max(sizes) > 4
    assert sizes[-1] <= 4


def test_a_store_that_does_not_answer_costs_nobody(executor: Executor) -> None:
    job = Job(executor, [_request("busy-0"), *_requests(20)])
    job.dispatcher.run()

    assert len(job.done) == len(set(job.done)) == 21
    assert not job.set_aside


def test_a_bug_stops_the_run_with_its_traceback(executor: Executor) -> None:
    job = Job(executor, [_request("bug-0")])

    with pytest.raises(MachineError, match=r"(?s)KeyError.*_meet"):
        job.dispatcher.run()


def test_a_model_that_does_not_load_stops_the_run_with_its_traceback(executor: Executor) -> None:
    job = Job(executor, [_request("unloadable-0")])

    with pytest.raises(ModelLoadFailed, match=r"(?s)model a does not load: a weight is missing.*_meet"):
        job.dispatcher.run()


def test_a_model_that_does_not_load_leaves_the_others_work_alone(executor: Executor) -> None:
    job = Job(executor, [_request("unloadable-0", model="b"), _request("good-b", model="b"), *_requests(30)])

    with pytest.raises(ModelLoadFailed, match=r"model b does not load: a weight is missing"):
        job.dispatcher.run()
    assert sorted(job.done) == [request.id for request in _requests(30)]


def test_a_device_that_is_lost_ends_its_worker_and_costs_no_row(executor: Executor) -> None:
    job = Job(executor, [*_requests(5), _request("lost-0"), *_requests(20)[5:]])
    job.dispatcher.run()

    assert sorted(job.done) == sorted(["lost-0", *(request.id for request in _requests(20))])
    assert job.dispatcher.worker_deaths == 1
    assert not job.set_aside


def test_no_more_workers_are_started_than_there_are_outputs(executor: Executor) -> None:
    job = Job(executor, _requests(1))
    job.dispatcher.run()

    assert len(job.dispatcher.facts) == 1


@pytest.mark.ray
def test_a_process_that_dies_is_replaced_and_its_units_are_made(ray_executor: Executor) -> None:
    job = Job(ray_executor, [_request("die-once-0"), *_requests(30)])
    job.dispatcher.run()

    assert sorted(job.done) == sorted(["die-once-0", *(request.id for request in _requests(30))])
    assert job.dispatcher.worker_deaths == 1
    assert not job.set_aside


@pytest.mark.ray
def test_a_request_that_kills_its_process_is_set_aside_alone(ray_executor: Executor) -> None:
    job = Job(ray_executor, [*_requests(7), _request("die-0"), *_requests(30)[7:]])
    job.dispatcher.run()

    assert job.set_aside == [("die-0", "WorkerCrash")]
    assert sorted(job.done) == [request.id for request in _requests(30)]
    assert job.dispatcher.worker_deaths == 3  # in company, then twice alone


@pytest.mark.ray
def test_a_call_that_never_ends_costs_the_row_that_hangs_in_it_and_no_other(
    ray_executor: Executor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sdbatch.dispatch.ray_cluster.PING_EVERY_S", 0.25)
    job = Job(ray_executor, [*_requests(7), _request("hang-0"), *_requests(30)[7:]])
    job.dispatcher.run()

    assert job.set_aside == [("hang-0", "DeadlineExceeded")]
    assert sorted(job.done) == [request.id for request in _requests(30)]
    assert job.dispatcher.worker_deaths == 2  # in company, then alone


@pytest.mark.ray
def test_a_unit_that_was_committed_before_its_worker_died_is_not_made_again(
    ray_executor: Executor, tmp_path: Path
) -> None:
    def recover(unit: Unit) -> Receipt | None:
        if not (tmp_path / f"committed-{unit.id}").exists():
            return None
        return receipt_of(unit.id, "", [{**ok, "id": request.id} for request in unit.requests])

    ok = {"request_key": "", "n": 0, "status": "ok", "adopted": False}
    job = Job(ray_executor, [*_requests(3), _request("late-0"), *_requests(20)[3:]], recover=recover)
    job.dispatcher.run()

    assert sorted(job.done) == sorted(["late-0", *(request.id for request in _requests(20))])
    assert job.dispatcher.worker_deaths == 1
    assert len((tmp_path / "log").read_text().splitlines()) == len(job.units)


@pytest.mark.ray
def test_workers_that_can_never_start_are_waited_for_no_longer_than_said(ray_executor: Executor) -> None:
    impossible = Shape(num_gpus=100, num_cpus=1, memory_gib=None)
    job = Job(ray_executor, _requests(2), shapes={"a": impossible}, start_timeout_s=2.0)

    with pytest.raises(WorkersUnavailable, match="start_timeout_s = 2; each asks for 100 GPU"):
        job.dispatcher.run()


@pytest.mark.ray
def test_a_worker_is_pinned_to_the_gpus_it_asks_for(ray_executor: Executor) -> None:
    assert ray_executor.capacity(Shape(num_gpus=1, num_cpus=1, memory_gib=None)) == 2
    assert ray_executor.capacity(Shape(num_gpus=0.5, num_cpus=1, memory_gib=None)) == 4
    assert ray_executor.capacity(Shape(num_gpus=None, num_cpus=1, memory_gib=None)) == 2
    job = Job(ray_executor, _requests(8), shapes={"a": Shape(num_gpus=1, num_cpus=1, memory_gib=None)})
    job.dispatcher.run()

    assert len(job.done) == 8


@pytest.mark.ray
@pytest.mark.fault(
    "A4", "the only node's GPU cannot be used", "the run ends after 3 starts with the reason; no row is blamed"
)
def test_a_run_whose_only_node_has_no_usable_gpu_ends_with_the_reason(tmp_path: Path, ray_cluster: None) -> None:
    from sdbatch.dispatch.ray_cluster import RayExecutor

    spec = WorkerSpec(job={}, output=str(tmp_path), run_id=tmp_path.name, lease_epoch=1, lease_token="", revisions={})
    executor = RayExecutor(spec, "support.workers:SightlessWorker")
    shape = Shape(num_gpus=1, num_cpus=1, memory_gib=None)
    job = Job(executor, _requests(4), shapes={"a": shape}, worker_count=1)
    try:
        with pytest.raises(MachineError, match=r"GpuUnusable: a GPU is asked for .* uncorrectable ECC error"):
            job.dispatcher.run()
    finally:
        executor.close()

    assert len((tmp_path / "starts").read_text().splitlines()) == START_FAULTS_MAX
    assert job.set_aside == []


@pytest.mark.ray
def test_units_of_two_models_go_to_warm_workers(ray_executor: Executor, tmp_path: Path) -> None:
    requests = [_request(f"good-{n:03d}", model="ab"[n % 2]) for n in range(200)]
    job = Job(ray_executor, requests)
    job.dispatcher.run()
    served: dict[str, list[str]] = {}
    for line in sorted((tmp_path / "log").read_text().splitlines()):  # in the order they were handed out
        _, worker, model = line.split()
        served.setdefault(worker, []).append(model)

    changes = sum(sum(a != b for a, b in pairwise(models)) for models in served.values())
    assert changes <= 2


class Rounds:
    """An executor whose rounds are written down: what happens at once is otherwise a matter of luck."""

    def __init__(self, *rounds: Callable[[list[tuple[str, Unit]]], list[Event]]) -> None:
        self._rounds = list(rounds)
        self.given: list[tuple[str, Unit]] = []
        self.started: list[str] = []
        self.stopped: list[str] = []

    def capacity(self, shape: Shape) -> int:
        return 1

    def start(self, worker: str, shape: Shape) -> None:
        self.started.append(worker)

    def submit(self, worker: str, unit: Unit) -> None:
        self.given.append((worker, unit))

    def wait(self, timeout_s: float) -> list[Event]:
        if not self._rounds:  # from here on all goes well
            given, self.given = self.given, []
            fresh = [name for name in self.started if name not in self.stopped]
            return [*(Ready(worker=name, facts={}) for name in fresh), *(_done(*pair) for pair in given)]
        return self._rounds.pop(0)(self.given)

    def observe(self, observation: object) -> None: ...

    def stop(self, worker: str) -> None:
        self.stopped.append(worker)
        self.given = [pair for pair in self.given if pair[0] != worker]

    def close(self) -> None: ...


def _done(worker: str, unit: Unit) -> UnitDone:
    rows = [{"id": r.id, "request_key": "", "n": 0, "status": "ok", "adopted": False} for r in unit.requests]
    return UnitDone(worker=worker, unit=unit.id, receipt=receipt_of(unit.id, worker, rows))


def _ready(_: object) -> list[Event]:
    return [Ready(worker="w0", facts={})]


def _lost(worker: str, unit: Unit | None) -> Faulted:
    return Faulted(worker=worker, unit=unit.id if unit else None, kind="DeviceLost", message="lost", traceback="")


def test_a_receipt_that_comes_in_the_round_of_its_worker_s_end_is_recovered_once() -> None:
    committed: dict[str, Receipt] = {}

    def both(given: list[tuple[str, Unit]]) -> list[Event]:
        (worker, first), (_, second) = given
        done = _done(worker, second)
        committed[second.id] = done.receipt
        return [_lost(worker, first), done]

    job = Job(Rounds(_ready, both), _requests(8), recover=lambda unit: committed.get(unit.id))
    job.dispatcher.run()

    assert sorted(job.done) == [request.id for request in _requests(8)]
    assert not job.set_aside


def test_workers_that_die_before_any_is_ready_stop_the_run_at_the_third() -> None:
    def dies(worker: str) -> Callable[[object], list[Event]]:
        return lambda _: [Died(worker=worker, kind="Died", message="exit code 1")]

    executor = Rounds(*(dies(name) for name in ("w0", "w1", "w2")))

    with pytest.raises(MachineError, match="w2 died while it started: exit code 1"):
        Job(executor, _requests(2), worker_count=1).dispatcher.run()
    assert executor.started == ["w0", "w1", "w2"]


def test_a_node_lost_while_its_worker_starts_counts_for_nothing() -> None:
    def lost(worker: str) -> Callable[[object], list[Event]]:
        return lambda _: [Died(worker=worker, kind="NodeLost", message="gone")]

    job = Job(Rounds(*(lost(f"w{n}") for n in range(5))), _requests(2), worker_count=1)
    job.dispatcher.run()

    assert len(job.done) == 2


def test_a_run_whose_last_worker_is_lost_waits_no_longer_than_for_a_first_one() -> None:
    now_s = [0.0]

    def nothing(_: object) -> list[Event]:
        now_s[0] += 0.1
        return []

    def lost(_: object) -> list[Event]:
        return [Died(worker="w0", kind="NodeLost", message="gone")]

    executor = Rounds(_ready, lost, *[nothing] * 30)

    with pytest.raises(WorkersUnavailable, match="start_timeout_s = 1;"):
        Job(executor, _requests(2), worker_count=1, start_timeout_s=1.0, clock=lambda: now_s[0]).dispatcher.run()
    assert executor.started == ["w0", "w1"]


def test_a_shape_that_no_machine_has_leaves_the_other_models_work_alone() -> None:
    wide = Shape(num_gpus=100, num_cpus=1, memory_gib=None)
    now_s = [0.0]

    class Small(Rounds):
        def start(self, worker: str, shape: Shape) -> None:
            if shape != wide:
                super().start(worker, shape)

        def wait(self, timeout_s: float) -> list[Event]:
            now_s[0] += 0.05
            return super().wait(timeout_s)

    requests = [*_requests(4), _request("good-b", model="b")]
    plan: dict[str, Any] = {"shapes": {"a": CPU, "b": wide}, "worker_count": 1, "start_timeout_s": 1.0}
    job = Job(Small(), requests, clock=lambda: now_s[0], **plan)

    with pytest.raises(WorkersUnavailable, match=r"model b: .*\.start_timeout_s = 1; each asks for 100 GPU"):
        job.dispatcher.run()
    assert sorted(job.done) == [request.id for request in _requests(4)]


def test_a_silent_worker_is_ended_and_what_was_in_its_model_runs_alone() -> None:
    def silent(given: list[tuple[str, Unit]]) -> list[Event]:
        ids = frozenset({given[0][1].requests[1].id})
        return [Died(worker="w0", kind="Silent", message="no answer to a ping", ids=ids)]

    job = Job(Rounds(_ready, silent), _requests(4), worker_count=1)
    job.dispatcher.run()

    assert [[r.id[-1] for r in unit.requests] for unit in job.units] == [["1"], ["0", "2", "3"]]
    assert all(unit.solo for unit in job.units)


def test_a_model_that_loads_elsewhere_blames_the_worker_that_cannot() -> None:
    def fails(given: list[tuple[str, Unit]]) -> list[Event]:
        worker, unit = given[-1]
        return [Faulted(worker=worker, unit=unit.id, kind="ModelLoadFailed", message="disk full", traceback="")]

    executor = Rounds(_ready, lambda given: [_done(*given.pop(0))], fails)
    job = Job(executor, _requests(16), worker_count=1)
    job.dispatcher.run()

    assert executor.stopped == ["w0"]
    assert sorted(job.done) == [request.id for request in _requests(16)]


def test_the_first_worker_that_is_ready_leaves_those_that_still_start_their_share() -> None:
    sizes: list[int] = []

    def measured(given: list[tuple[str, Unit]]) -> list[Event]:
        done = [_done(*pair) for pair in given]
        sizes.extend(len(unit.requests) for _, unit in given)
        given.clear()
        return [replace(one, receipt=replace(one.receipt, generate_s=0.04, rows_generated=4)) for one in done]

    job = Job(Rounds(_ready, measured, measured), _requests(256), worker_count=4)
    job.dispatcher.run()

    assert sizes[:2] == [4, 4]  # nothing is known yet: a batch each
    assert sizes[2] == 248 // (4 * 4) // 4 * 4  # a quarter of one of four workers' share, in whole batches
    assert len(job.done) == 256


class Squeezed(Rounds):
    """A node whose memory a neighbour takes: workers die two seconds after they were started, until it gives it back.

    Time passes where the dispatcher waits, and nowhere else.
    """

    def __init__(self, squeeze_s: float, kind: str) -> None:
        super().__init__()
        self._squeeze_s = squeeze_s
        self._kind = kind
        self._ready_at_s: dict[str, float] = {}
        self.now_s = 0.0

    def start(self, worker: str, shape: Shape) -> None:
        super().start(worker, shape)
        self._ready_at_s[worker] = self.now_s + 2.0

    def wait(self, timeout_s: float) -> list[Event]:
        self.now_s += timeout_s
        due = [name for name, at_s in self._ready_at_s.items() if self.now_s >= at_s and name not in self.stopped]
        if self.now_s < self._squeeze_s:
            return [Died(worker=name, kind=self._kind, message="the node ran low on memory") for name in due]
        given, self.given = self.given, []
        for name in due:
            del self._ready_at_s[name]
        return [*(Ready(worker=name, facts={}) for name in due), *(_done(*pair) for pair in given)]


@pytest.mark.fault(
    "F34", "a neighbour takes the node's memory for 45 s", "few workers are started, and the run goes on"
)
def test_a_squeeze_of_45_seconds_is_waited_out() -> None:
    executor = Squeezed(45.0, "Unavailable")
    job = Job(executor, _requests(30), worker_count=4, clock=lambda: executor.now_s)
    job.dispatcher.run()

    assert sorted(job.done) == [request.id for request in _requests(30)]
    assert not job.set_aside
    assert len(executor.started) == 4 * 7  # at first, and after waits of 1, 2, 4, 8, 16 and 32 s; without waits some 90
    assert executor.now_s < 90


@pytest.mark.fault(
    "F34", "a node that never gives the memory back", "the run ends after a quarter of an hour, resumable"
)
def test_a_squeeze_that_does_not_end_stops_the_run_after_a_time_and_not_a_number_of_deaths() -> None:
    executor = Squeezed(1e9, "Unavailable")
    job = Job(executor, _requests(30), worker_count=4, clock=lambda: executor.now_s)

    with pytest.raises(MachineError, match=r"20 faults without one unit done; the last: worker w.*ran low on memory"):
        job.dispatcher.run()
    assert 600 < executor.now_s < 1200


def test_a_store_that_refuses_everything_is_asked_less_and_less_often() -> None:
    now_s = [0.0]
    times: list[float] = []

    class Refusing(Rounds):
        def wait(self, timeout_s: float) -> list[Event]:
            now_s[0] += timeout_s
            if len(self.started) == 1 and not times and not self.given:
                return [Ready(worker="w0", facts={})]
            times.extend(now_s[0] for _ in self.given)
            given, self.given = self.given, []
            return [
                Faulted(worker=name, unit=unit.id, kind="StoreUnavailable", message="no answer", traceback="")
                for name, unit in given
            ]

    job = Job(Refusing(), _requests(4), worker_count=1, clock=lambda: now_s[0])
    with pytest.raises(MachineError, match="20 faults without one unit done"):
        job.dispatcher.run()
    waits = [two - one for one, two in pairwise(times) if two > one]

    assert waits[:4] == pytest.approx([1.5, 2.5, 4.5, 8.5], abs=0.5)
    assert now_s[0] > 600


@pytest.mark.long
@pytest.mark.ray
@pytest.mark.fault(
    "F34", "no worker process starts for six seconds, on a real cluster", "few tries, no row blamed, all rows made"
)
def test_processes_that_end_while_they_start_are_replaced_ever_later(tmp_path: Path, ray_cluster: None) -> None:
    from sdbatch.dispatch.ray_cluster import RayExecutor

    spec = WorkerSpec(job={}, output=str(tmp_path), run_id=tmp_path.name, lease_epoch=1, lease_token="", revisions={})
    executor = RayExecutor(spec, "support.workers:SqueezedWorker")
    job = Job(executor, [*_requests(8), _request("die-once-0"), *_requests(20)[8:]], worker_count=1)
    try:
        job.dispatcher.run()
    finally:
        executor.close()

    assert sorted(job.done) == sorted(["die-once-0", *(request.id for request in _requests(20))])
    assert not job.set_aside
    assert 1 <= len(list(tmp_path.glob("ended-*"))) <= 3  # after 1, 3 and 7 s; one a second without a wait


@pytest.mark.parametrize("num_requests", [1, 8])
def test_workers_started_ahead_are_taken_and_no_more_are_kept_than_there_is_work_for(
    executor: Executor, num_requests: int
) -> None:
    fleet = Fleet(executor, {"a": CPU})
    for _ in range(3):
        fleet.start_ahead(CPU)
    job = Job(executor, _requests(num_requests), fleet=fleet, worker_count=2)

    job.dispatcher.run()

    assert sorted(job.done) == [f"good-{number:03d}" for number in range(num_requests)]
    assert fleet.names_of(CPU) == ["w0", "w1"][:num_requests]
    assert not fleet.starts_s, "how long they started is not known"
    assert sum(fleet.slot_seconds().values()) > 0
