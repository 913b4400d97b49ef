"""Commit and resume as a state machine: drivers that die anywhere, workers that come late, rows that change.

Two of the ids share their keys, so that what one has is copied for the other.

What stands in the campaign is compared after every step with a reading of the bare files that shares no code with ours.
"""

from __future__ import annotations

import hashlib
import io
import json
import shutil
import tempfile
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from support.history import missing
from support.stores import Fault as StoreFault
from support.stores import FaultyStore, Killed

from sdbatch.campaign import layout, lease
from sdbatch.campaign.campaign import Campaign
from sdbatch.campaign.gc import collect_garbage
from sdbatch.campaign.history import History
from sdbatch.campaign.lease import Lease, acquire
from sdbatch.campaign.schema import INDEX, from_parquet, table, to_parquet
from sdbatch.campaign.snapshot import write_snapshot
from sdbatch.campaign.verify import verify_campaign
from sdbatch.campaign.write import put_asset, put_commit
from sdbatch.driver.compact import write_metadata
from sdbatch.driver.one_run.select import classify
from sdbatch.driver.picking import Selection
from sdbatch.driver.rows.parts import with_digests
from sdbatch.driver.rows.shared_keys import SharedKeys, Sharing, leading_words
from sdbatch.plan.window import Window
from sdbatch.types import Origin, Request, Unit
from sdbatch.verdicts import NO_VERDICTS

IDS = ("a", "b", "c")
OUTPUTS_MAX = 3
INDEX_EVERY = 2
REQUESTS = pa.schema([("id", pa.string()), ("request_key", pa.string()), ("num_outputs", pa.int32())])
UNIT_TFLOP = 2.0
Place = tuple[str, str, int | None]
End = Literal[
    "ends", "ends with a snapshot", "goes on", "dies", "is overtaken", "is overtaken at its end", "is collected"
]
ENDS: tuple[End, ...] = get_args(End)
Way = Literal["well", "fails", "cut off", "left behind"]
WAYS: tuple[Way, ...] = ("well", "well", "fails", "cut off", "left behind")
Fault = tuple[int, StoreFault] | None
KINDS: tuple[StoreFault, ...] = ("die before", "die after", "lose reply")
FAULTS = st.one_of(st.none(), st.none(), st.tuples(st.integers(0, 25), st.sampled_from(KINDS)))
"""Two in three actions meet none; the others one at some call of theirs."""


def _key(request_id: str, version: int) -> str:
    """Return a row's key: `b` and `c` say the same."""
    return hashlib.sha256(f"{'b' if request_id == 'c' else request_id} {version}".encode()).hexdigest()


def _bytes(key: str, n: int, device: int) -> bytes:
    """What a device makes of an output: the same request, not always the same bytes."""
    return json.dumps({"key": key, "n": n, "device": device}).encode()


@dataclass
class Work:
    """A unit on a worker: its rows as far as they are made."""

    run: str
    unit: Unit
    device: int
    fails: bool
    rows: list[dict[str, Any]] = field(default_factory=list)
    stored: dict[tuple[str, int], bytes] = field(default_factory=dict)

    def step(self, store: FaultyStore) -> bool:
        """Put the next asset, or in the end commit; return whether it is over."""
        todo = [
            (request, n, taker)
            for request in self.unit.requests
            for n in request.outputs
            for taker in request.takers_of(n)
        ][len(self.rows) :]
        if not todo:
            if not put_commit(store, self.run, self.unit.id, self.rows):
                self.rows = from_parquet(store.read(layout.commit(self.run, self.unit.id))).to_pylist()
            return True
        request, n, taker = todo[0]
        row: dict[str, Any] = {"id": taker, "request_key": request.request_key, "n": n, "recipe": "{}"}
        data, origin = self._data(store, request, n, taker)
        if data is None:
            error = {"status": "failed", "error_type": "GenerationFailed", "error_retryable": True}
            self.rows.append({**row, **error})
            return False

        def is_same(stored: bytes) -> bool:
            content = json.loads(stored)
            return (content["key"], content["n"]) == (request.request_key, n)

        path = layout.asset(taker, request.request_key, n, "png")
        stored = put_asset(store, path, data, "image/png", is_same)
        if taker == request.takers_of(n)[0]:  # a worker copies at once, before anybody can collect the file
            self.stored[request.request_key, n] = store.read(stored.path) if stored.adopted else data
        made = {"asset": stored.path, "sha256": stored.sha256, "asset_bytes": stored.asset_bytes}
        self.rows.append({**row, **made, "status": "ok", "adopted": stored.adopted, "copied_from": origin})
        return False

    def _data(self, store: FaultyStore, request: Request, n: int, taker: str) -> tuple[bytes | None, str | None]:
        """Return the bytes of an output, None for a failure, and the asset they are a copy of."""
        if taker != request.takers_of(n)[0]:
            first = next(row for row in self.rows if (row["request_key"], row["n"]) == (request.request_key, n))
            is_there = first["status"] == "ok"
            return (self.stored[request.request_key, n], first["asset"]) if is_there else (None, None)
        for origin in request.origins:
            row = _origin_row(store, request, origin) if origin.n == n else None
            with suppress(FileNotFoundError):
                if row and hashlib.sha256(data := store.read(row["asset"])).hexdigest() == row["sha256"]:
                    return data, row["asset"]
        return (None, None) if self.fails else (_bytes(request.request_key, n, self.device), None)


def _origin_row(store: FaultyStore, request: Request, origin: Origin) -> dict[str, Any] | None:
    with suppress(FileNotFoundError):
        for row in from_parquet(store.read(origin.commit)).to_pylist():
            if (row["request_key"], row["n"], row["status"]) == (request.request_key, origin.n, "ok"):
                return row  # type: ignore[no-any-return]
    return None


@dataclass
class Driver:
    """A run from its lease to its metadata; it dies with the exception that goes through it."""

    run: str
    lease: Lease
    window: Window
    index: list[dict[str, Any]] = field(default_factory=list)
    commits: int = 0
    indexes: int = 0
    history: History | None = None
    """Read at its end, by one that was stopped before it wrote its snapshot."""
    is_followed: bool = False

    def record(self, store: FaultyStore, work: Work) -> None:
        """Remember a committed unit for the index, as the driver's receipts do."""
        path = layout.commit(self.run, work.unit.id)
        self.index += [{**row, "commit": path} for row in work.rows]
        self.commits += 1
        if self.commits % INDEX_EVERY == 0:
            self.write_rest(store)

    def write_rest(self, store: FaultyStore) -> None:
        """Write an index over the commits that none covers."""
        if self.index:
            store.put_new(layout.index(self.run, self.indexes), to_parquet(table(self.index, INDEX)))
            self.index, self.indexes = [], self.indexes + 1


class CampaignMachine(RuleBasedStateMachine):
    """Any order of runs, deaths, late workers, edits and garbage collections."""

    @initialize()
    def begin(self) -> None:
        self.folder = tempfile.mkdtemp(prefix="sdbatch-machine-")
        self.store = FaultyStore(self.folder)
        self.manifest = dict.fromkeys(IDS, (0, 1))
        self.driver: Driver | None = None
        self.old_drivers: list[Driver] = []
        self.late: list[Work] = []

    def teardown(self) -> None:
        try:
            if hasattr(self, "folder"):
                self._finish_all()
        finally:
            shutil.rmtree(getattr(self, "folder", ""), ignore_errors=True)

    # --- what happens -----------------------------------------------------------------------------------------------

    @rule(
        edits=st.lists(st.tuples(st.sampled_from(IDS), st.integers(0, 2), st.integers(1, 3)), max_size=2),
        units=st.lists(st.tuples(st.integers(0, 2), st.sampled_from(WAYS)), max_size=5),
        end=st.sampled_from(ENDS),
        fault=FAULTS,
    )
    def a_run(self, edits: list[tuple[str, int, int]], units: list[tuple[int, Way]], end: End, fault: Fault) -> None:
        """Go on with the run, or start one; perhaps it ends, or dies, or is followed unawares."""
        self.manifest |= {request_id: (version, count) for request_id, version, count in edits}
        self._meet(fault)
        if self.driver is None or edits:
            self._let_go()
            self._attempt(self._start)
        for device, route in units:
            if self.driver is not None and self.driver.window.num_requests:
                self._make(self.driver, device, route)
        if end in {"ends", "ends with a snapshot"} and (driver := self.driver) is not None:
            self.driver = None
            is_whole = not driver.window.num_requests
            self._attempt(lambda: self._end(driver, is_whole=is_whole, has_snapshot=end == "ends with a snapshot"))
        if end == "is overtaken at its end" and self.driver is not None:
            overtaken = self.driver
            self._attempt(lambda: self._read_at_end(overtaken))
        if end in {"is overtaken", "is overtaken at its end"}:
            self._let_go()
        if end == "dies":
            self.driver = None
        if end == "is collected":
            self._let_go()
            self._attempt(self._collect)

    @precondition(lambda self: self.late)
    @rule(which=st.integers(0, 9), steps=st.integers(1, 4), fault=FAULTS)
    def a_late_worker_goes_on(self, which: int, steps: int, fault: Fault) -> None:
        late = self.late.pop(which % len(self.late))
        self._meet(fault)
        is_over = [False]

        def go_on() -> None:
            is_over[0] = any(late.step(self.store) for _ in range(steps))

        if self._attempt(go_on, kills_driver=False) and not is_over[0]:
            self.late.append(late)

    @precondition(lambda self: self.old_drivers)
    @rule(which=st.integers(0, 9), device=st.integers(0, 2), route=st.sampled_from(WAYS), fault=FAULTS)
    def an_overtaken_driver_goes_on(self, which: int, device: int, route: Way, fault: Fault) -> None:
        driver = self.old_drivers[which % len(self.old_drivers)]
        self._meet(fault)
        if driver.window.num_requests:
            self._make(driver, device, route)

    @precondition(lambda self: any(driver.history for driver in self.old_drivers))
    @rule(which=st.integers(0, 9), fault=FAULTS)
    def an_overtaken_driver_writes_its_snapshot(self, which: int, fault: Fault) -> None:
        """What it read is old: who followed it may have counted commits that came since."""
        readers = [driver for driver in self.old_drivers if driver.history]
        driver = readers[which % len(readers)]
        before = self._ok()
        self._meet(fault)
        self._attempt(lambda: self._snapshot(driver), kills_driver=False)
        if driver.is_followed:
            assert self._ok() == before

    # --- what must hold ---------------------------------------------------------------------------------------------

    @invariant()
    def what_stands_is_what_the_bare_files_say(self) -> None:
        if not hasattr(self, "store"):
            return
        store = self.store.real
        wins = self._winners()
        ok = {place for place, row in wins.items() if row["status"] == "ok"}

        assert self._made() == ok
        for place in ok:
            data = (Path(self.folder) / wins[place]["asset"]).read_bytes()
            assert hashlib.sha256(data).hexdigest() == wins[place]["sha256"]
            content = json.loads(data)
            assert (content["key"], content["n"]) == place[1:]
        kinds = {finding.kind for finding in verify_campaign(store).findings}
        assert kinds <= {"metadata"}  # old until the next run ends

    def _winners(self) -> dict[Place, dict[str, Any]]:
        """Read every file of the campaign and pick the rows that count, by the words of the design."""
        void = []
        for path in Path(self.folder).glob("runs/*/redo.parquet"):
            rows = pq.read_table(io.BytesIO(path.read_bytes())).to_pylist()
            void += [(row["id"], row["request_key"], row["n"], path.parent.name) for row in rows]
        told = self._told()
        best: dict[Place, tuple[bool, str, str]] = {}
        winners: dict[Place, dict[str, Any]] = {}
        for path in sorted(Path(self.folder).glob("runs/*/commits/*.parquet")):
            run = path.parent.parent.name
            if told is not None and run <= told[0] and str(path.relative_to(self.folder)) not in told[1]:
                continue  # it came late
            for row in pq.read_table(io.BytesIO(path.read_bytes())).to_pylist():
                if any(
                    row["id"] == i and row["request_key"].startswith(k) and row["n"] == n and run < since
                    for i, k, n, since in void
                ):
                    continue
                place = (row["id"], row["request_key"], row["n"])
                rank = (row["status"] != "ok", run, path.stem)
                if place not in best or rank < best[place]:
                    best[place], winners[place] = rank, row
        return winners

    def _told(self) -> tuple[str, set[str]] | None:
        """Return the run of the newest snapshot, and the commits it tells of."""
        files = [path for path in Path(self.folder).glob("runs/*/snapshot.parquet") if path.stat().st_size]
        if not files:
            return None
        rows = pq.read_table(io.BytesIO(max(files).read_bytes()))
        return max(files).parent.name, set(rows.column("commit").to_pylist())

    def _ok(self) -> set[Place]:
        return {place for place, row in self._winners().items() if row["status"] == "ok"}

    def _made(self) -> set[Place]:
        """Return what a plan would leave, of every request there can be."""
        requests = [(i, _key(i, version)) for i in IDS for version in range(3)]
        counts = [OUTPUTS_MAX] * len(requests)
        left = missing(self.store.real, [i for i, _ in requests], [k for _, k in requests], counts)
        return {(i, k, n) for (i, k), ns in zip(requests, left, strict=True) for n in range(OUTPUTS_MAX) if n not in ns}

    def _finish_all(self) -> None:
        """Whatever happened: one more run makes what is missing and nothing else, and all agrees."""
        self.store.set_fault(None)
        before = self._ok()
        wanted: set[Place] = {(i, _key(i, v), n) for i, (v, count) in self.manifest.items() for n in range(count)}
        driver = self._start()
        made: set[Place] = set()
        while driver.window.num_requests:
            unit = driver.window.take("tiny", UNIT_TFLOP)
            made |= {
                (taker, request.request_key, n)
                for request in unit.requests
                for n in request.outputs
                for taker in request.takers_of(n)
            }
            self._work(driver, Work(run=driver.run, unit=unit, device=0, fails=False))
        assert made == wanted - before
        self._end(driver)
        self._check_effective(driver.run, wanted)
        assert verify_campaign(self.store.real).is_good
        for late in self.late:
            while not late.step(self.store):
                pass
        self.late = []
        self._check_effective(driver.run, wanted)
        assert self._start().window.num_requests == 0
        self.what_stands_is_what_the_bare_files_say()

    def _check_effective(self, run: str, wanted: set[Place]) -> None:
        rows = [
            row for part in Campaign(self.store.real).effective(NO_VERDICTS, run).parts() for row in part.to_pylist()
        ]
        places = [(row["id"], row["request_key"], row["n"]) for row in rows]
        wins = self._winners()

        assert sorted(places) == sorted(wanted)
        assert all(row["status"] == "ok" for row in rows)
        assert all(
            (row["run_id"], row["unit"]) == (wins[p]["run_id"], wins[p]["unit"])
            for p, row in zip(places, rows, strict=True)
        )

    # --- a driver, as the package has it ----------------------------------------------------------------------------

    def _meet(self, fault: Fault) -> None:
        self.store.set_fault(*(fault or (None,)))

    def _attempt(self, call: Callable[[], object], *, kills_driver: bool = True) -> bool:
        """Do something that the fault ahead may kill; return whether it was done. What was killed calls no more."""
        try:
            call()
        except Killed:
            self.driver = None if kills_driver else self.driver
            self.store.set_fault(None)
            return False
        return True

    def _collect(self) -> None:
        """With no mercy for the young: what is left of the protection is that it makes outputs void."""
        collect_garbage(self.store, older_than_s=-1e9, delete=True)

    def _let_go(self) -> None:
        """The driver is followed and does not know it yet."""
        if self.driver is not None:
            self.old_drivers.append(self.driver)
        self.driver = None

    def _make(self, driver: Driver, device: int, route: Way) -> None:
        """Make a unit; `cut off` or `left behind`, its worker goes on unseen, and `cut off`, another makes it too."""
        unit = driver.window.take("tiny", UNIT_TFLOP)
        if route in {"cut off", "left behind"}:
            late = Work(run=driver.run, unit=unit, device=device + 3, fails=device == 2)
            if self._attempt(lambda: late.step(self.store)):
                self.late.append(late)
        if route != "left behind" and driver in (self.driver, *self.old_drivers):
            work = Work(run=driver.run, unit=unit, device=device, fails=route == "fails")
            self._attempt(lambda: self._work(driver, work))

    def _start(self) -> Driver:
        held = acquire(self.store)
        held._stop.set()  # nobody beats: every driver here may be followed at any moment
        run = layout.run_id(held.holder.epoch, "20260101T000000Z")
        rows = [
            {"id": i, "request_key": _key(i, v), "num_outputs": count, "model": "tiny"}
            for i, (v, count) in self.manifest.items()
        ]
        window = Window({"tiny": 2})
        done = Campaign(self.store).done(follower=run)
        for old in self.old_drivers:
            old.is_followed = True
        manifest = with_digests(pa.Table.from_pylist(rows))
        (part,) = classify([manifest], done, Selection())
        sharing = Sharing(SharedKeys(leading_words(manifest.column("request_key"))), done.origins)
        sharing.count(manifest, part.outputs)
        pending = [place for place, outputs in enumerate(part.outputs) if outputs]
        columns = sharing.request_columns(
            manifest.take(pa.array(pending, pa.int64())), [part.outputs[place] for place in pending]
        )
        for place, outputs, takers, origins in zip(pending, *(columns[name] for name in _SHARED), strict=True):
            if outputs:
                window.add(_request(rows[place])._replace(outputs=outputs, takers=takers, origins=origins))
        self.store.put_new(layout.requests(run, 0), to_parquet(table(rows, REQUESTS)))
        self.driver = Driver(run=run, lease=held, window=window)
        return self.driver

    def _work(self, driver: Driver, work: Work) -> None:
        while not work.step(self.store):
            pass
        driver.record(self.store, work)

    def _read_at_end(self, driver: Driver) -> None:
        driver.write_rest(self.store)
        driver.history = Campaign(self.store).history()

    def _snapshot(self, driver: Driver) -> None:
        if driver.history is not None and len(driver.history):
            write_snapshot(self.store, driver.run, driver.history)

    def _end(self, driver: Driver, *, is_whole: bool = True, has_snapshot: bool = True) -> None:
        self._read_at_end(driver)
        if is_whole:
            driver.history = write_metadata(self.store, driver.run)
        before = self._ok()
        if has_snapshot:
            self._snapshot(driver)
            assert self._ok() == before
        self.store.put_new(layout.run_json(driver.run), b'{"state": "done"}')
        with suppress(Killed):
            driver.lease.release()


_SHARED = ("outputs", "takers", "origins")


def _request(row: Mapping[str, Any]) -> Request:
    return Request(
        id=row["id"],
        request_key=row["request_key"],
        recipe='{"height":64,"num_inference_steps":1,"task":"text-to-image","width":64}',
        outputs=(),
        sources=(),
        model="tiny",
        batch_key="same",
        cost_tflop=1.0,
    )


@pytest.fixture(autouse=True)
def _at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lease, "_wait_out", lambda *_: None)  # a term has passed without a beat
    monkeypatch.setattr("sdbatch.storage.local.os.fsync", lambda _: None)  # processes die here, no power is cut


@pytest.mark.slow
def test_nothing_is_lost_or_doubled_whatever_dies_and_whoever_comes_late() -> None:
    from hypothesis.stateful import run_state_machine_as_test

    checked = settings(
        max_examples=12,
        stateful_step_count=10,
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )
    run_state_machine_as_test(CampaignMachine, settings=checked)
