"""One driver per campaign: who holds it, whether it still lives, and taking over from the dead.

    lease/<epoch>.json  (put-if-absent: making it is taking the campaign)
    lease/<epoch>.beat  (rewritten every few seconds; unchanged for 15 s on the watcher's own clock = dead)

Clocks of different machines are never compared: only whether a beat changes while we watch.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import socket
import threading
import time
import uuid
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from sdbatch.campaign import layout
from sdbatch.campaign.read import read_holder, read_json
from sdbatch.errors import CampaignHeld, Interrupted, LeaseLost, SdbatchError, StoreRefused
from sdbatch.points import reached
from sdbatch.storage import NO_PUT_IF_ABSENT, Entry, Store
from sdbatch.types import FORMAT_VERSION

BEAT_EVERY_S = 3.0
TERM_S = 15.0
OUTAGE_MAX_S = 120.0
"""Longest a holder whose beats do not come through waits for the store before it stops."""

RACERS = 4
TAKES_MAX: Final = 16
"""Epochs in turn at which another driver may be faster, before this one gives up."""
EPOCH_MAX: Final = 999_999
"""Last number that a lease may have; a campaign that runs every minute reaches it after two years."""
_LEASE = re.compile(r"lease/(\d{6})\.json")
_SIGN = re.compile(r"lease/(\d{6})\.(?:beat|cancel)")


@dataclass(frozen=True, slots=True, kw_only=True)
class Holder:
    """Who holds an epoch.

    Attributes:
        epoch: Number; the highest holds the campaign.
        token: Random, unique to the driver.
        host: Machine and process space; a process id means something only within it.
        pid: Process id.
        process_start: The process's start in clock ticks since boot, so that a reused pid is told apart; "" unknown.
        since: UTC, ISO 8601.
    """

    epoch: int
    token: str
    host: str
    pid: int
    process_start: str
    since: str


class Lease:
    """A held lease, with a thread that beats.

    Use `acquire` to get one and `release` to let it go.
    """

    def __init__(self, store: Store, holder: Holder) -> None:
        self._store = store
        self.holder = holder
        self._stop = threading.Event()
        self._count = 0
        self.is_lost = False
        self.is_cancelled = False
        self.note: Callable[[], dict[str, Any]] = dict
        """Returns what every beat says beside that the holder lives."""
        self._beat("held")
        self._beaten_s = time.monotonic()
        self._thread = threading.Thread(target=self._run, name="lease", daemon=True)
        self._thread.start()

    def check(self) -> None:
        """Return while nobody took over; after a term without a beat wait until the store has said so.

        Whoever watches may take over after such a term, be it that the store did not answer or that this process was
        stopped for a while. The next beat looks for that first.

        Raises:
            LeaseLost: When another driver took over, or the store did not answer for `OUTAGE_MAX_S` more.
        """
        until_s = time.monotonic() + OUTAGE_MAX_S
        while self._is_unsure() and time.monotonic() < until_s:
            time.sleep(OUTAGE_MAX_S / 1000)
        if self._is_unsure():
            self.is_lost = True
            raise LeaseLost(f"{self._store.url}: no beat of epoch {self.holder.epoch} came through; run again to go on")
        if self.is_lost:
            raise LeaseLost(f"{self._store.url}: another driver took the campaign over from epoch {self.holder.epoch}")

    def _is_unsure(self) -> bool:
        return not self.is_lost and time.monotonic() - self._beaten_s >= TERM_S

    def confirm(self) -> None:
        """Ask the store whether nobody took over, and raise LeaseLost when somebody did.

        For what only the holder may replace: `check` alone sees a takeover one beat late.
        """
        self.check()
        if _newest_epoch(_paths(self._store)) > self.holder.epoch:
            self.is_lost = True
            self.check()

    def release(self) -> None:
        """Say that the campaign is free."""
        self._stop.set()
        self._thread.join(timeout=TERM_S)
        if not self.is_lost:
            with contextlib.suppress(SdbatchError, OSError):  # then the term runs out by itself
                self._beat("released")

    def _run(self) -> None:
        try:
            while not self._stop.wait(BEAT_EVERY_S):
                with contextlib.suppress(SdbatchError, OSError):  # `check` counts the seconds since the last beat
                    paths = _paths(self._store)
                    if _newest_epoch(paths) > self.holder.epoch:
                        return
                    self.is_cancelled = layout.cancel(self.holder.epoch) in paths
                    self._beat("held")
                    self._beaten_s = time.monotonic()
        finally:  # nobody beats any more, whatever the reason
            self.is_lost = self.is_lost or not self._stop.is_set()

    def _beat(self, state: str) -> None:
        self._count += 1
        beat = {"format_version": FORMAT_VERSION, "token": self.holder.token, "count": self._count, "state": state}
        beat |= self.note()
        reached("lease-renewal")
        self._store.put(layout.beat(self.holder.epoch), json.dumps(beat).encode(), "application/json")


def acquire(store: Store, is_interrupted: Callable[[], bool] = lambda: False) -> Lease:
    """Take a campaign, or refuse.

    Waits at most `TERM_S` for a holder that may be dead; one on this machine whose process is gone is dead at once.
    Taking an epoch proves on the way that the store's put-if-absent holds: of `RACERS` puts at once one may win, and of
    later ones none. A store that ignores the condition, or that looks first and writes then, does not pass.

    Args:
        store: The campaign.
        is_interrupted: Asked while it waits.

    Raises:
        CampaignHeld: Naming who holds it and since when.
        StoreRefused: When the store lets two writers make one file.
        Interrupted: When `is_interrupted` says so.
        UserError: When what lies in the lease's place is not one.
    """
    for _ in range(TAKES_MAX):
        epoch = _newest_epoch(_paths(store))
        if epoch >= EPOCH_MAX:
            raise StoreRefused(
                f"{store.url}/{layout.lease(epoch)}: is the last number that a lease may have; if no run wrote it, "
                "remove it"
            )
        if epoch:
            _wait_out(store, epoch, is_interrupted)
        holder = Holder(
            epoch=epoch + 1,
            token=uuid.uuid4().hex,
            host=_host(),
            pid=os.getpid(),
            process_start=_process_start(os.getpid()),
            since=datetime.now(UTC).isoformat(timespec="seconds"),
        )
        values = {name: getattr(holder, name) for name in holder.__slots__}
        data = json.dumps({"format_version": FORMAT_VERSION, **values}).encode()
        path = layout.lease(holder.epoch)
        wins = _race(store, path, data)
        if not any(wins) and store.read(path) != data:  # equal bytes are ours: the winner's reply was lost
            continue  # another driver was faster; look at it
        if wins.count(True) > 1 or store.put_new(path, data, "application/json"):
            raise StoreRefused(f"{store.url}: {NO_PUT_IF_ABSENT} (several writers of one new file won)")
        reached("after-taking-the-lease")
        return Lease(store, holder)
    raise CampaignHeld(f"{store.url}: {TAKES_MAX} times in turn another driver was faster; try again later")


def _race(store: Store, path: str, data: bytes) -> list[bool]:
    with ThreadPoolExecutor(RACERS) as pool:
        return list(pool.map(lambda _: store.put_new(path, data, "application/json"), range(RACERS)))


def ask_to_stop(store: Store) -> str | None:
    """Ask whoever holds a campaign to stop; return who that is, None when nobody does.

    A holder that died on another machine is asked too: nothing here can tell, and the file harms nobody.
    """
    epoch = _newest_epoch(_paths(store))
    if not epoch or _read_beat(store, epoch).get("state") == "released":
        return None
    holder = read_holder(store, epoch)
    if _is_dead_here(holder):
        return None
    store.put_new(layout.cancel(epoch), b"{}\n", "application/json")
    return f"process {holder.get('pid')} on {holder.get('host')} (epoch {epoch})"


def superseded(store: Store) -> list[Entry]:
    """Return beats and requests to stop of every epoch but the newest; the leases themselves stay, as a record."""
    entries = store.list(layout.LEASE)
    newest = _newest_epoch({entry.path for entry in entries})
    signs = ((entry, _SIGN.fullmatch(entry.path)) for entry in entries)
    return [entry for entry, found in signs if found and int(found.group(1)) < newest]


def is_gone(store: Store) -> bool:
    """Whether the newest holder ran on this machine and died; of others only a watch over a term can tell."""
    epoch = _newest_epoch(_paths(store))
    return bool(epoch) and _is_dead_here(read_holder(store, epoch))


def _wait_out(store: Store, epoch: int, is_interrupted: Callable[[], bool]) -> None:
    """Return when the holder of `epoch` is gone; raise CampaignHeld when it lives."""
    holder = read_holder(store, epoch)
    if _is_dead_here(holder):
        return
    first = _read_beat(store, epoch)
    deadline_s = time.monotonic() + TERM_S
    is_over = False
    while not is_over:
        is_over = time.monotonic() >= deadline_s  # asked before the look: who was stopped for a term looks once more
        beat = _read_beat(store, epoch)
        if beat.get("state") == "released":
            return
        if beat != first:
            raise CampaignHeld(
                f"{store.url} is held by process {holder.get('pid')} on {holder.get('host')} "
                f"since {holder.get('since')} (epoch {epoch})"
            )
        if is_interrupted():
            raise Interrupted(f"{store.url}: stopped by a signal before anything was started")
        if not is_over:
            time.sleep(min(1.0, TERM_S / 10))


def _is_dead_here(holder: dict[str, Any]) -> bool:
    """Whether the holder ran on this machine and its process is gone."""
    if holder.get("host") != _host():
        return False
    pid = int(holder.get("pid", os.getpid()))
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    except PermissionError:
        return False
    start = _process_start(pid)
    return bool(start and holder.get("process_start") and start != holder["process_start"])


def _paths(store: Store) -> set[str]:
    return {entry.path for entry in store.list(layout.LEASE)}


def _newest_epoch(paths: set[str]) -> int:
    return max((int(found.group(1)) for path in paths if (found := _LEASE.fullmatch(path))), default=0)


def _read_beat(store: Store, epoch: int) -> dict[str, Any]:
    try:
        return read_json(store, layout.beat(epoch))
    except (FileNotFoundError, ValueError):
        return {}


def _host() -> str:
    """Name this machine and its process space: containers share a kernel, not their process ids."""
    try:
        space = Path("/proc/self/ns/pid").readlink().name
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()[:8]
    except OSError:
        return socket.gethostname()
    return f"{socket.gethostname()}/{boot}/{space}"


def _process_start(pid: int) -> str:
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return ""
    return stat.rpartition(")")[2].split()[19]
