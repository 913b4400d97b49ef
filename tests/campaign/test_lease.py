"""One driver per campaign."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from sdbatch.campaign import layout, lease
from sdbatch.campaign.lease import Lease, acquire
from sdbatch.errors import CampaignHeld, LeaseLost, StoreRefused
from sdbatch.storage import Entry, LocalStore, Store, open_store


@pytest.fixture(autouse=True)
def _short_term(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lease, "BEAT_EVERY_S", 0.1)
    monkeypatch.setattr(lease, "TERM_S", 60.0)  # a busy machine's beats and a busy store's answers take seconds


def _pretend_elsewhere(store: Store, held: Lease) -> None:
    """Let the holder stand on another machine, so that its process id says nothing."""
    path = layout.lease(held.holder.epoch)
    store.put(path, json.dumps({**json.loads(store.read(path)), "host": "elsewhere"}).encode())


class Clock:
    """In place of `time` in the lease: only who sleeps by it lets it go on."""

    def __init__(self) -> None:
        self.now_s = 1000.0

    def monotonic(self) -> float:
        return self.now_s

    def sleep(self, seconds: float) -> None:
        self.now_s += seconds


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr(lease, "time", made)
    return made


def _silence(held: Lease) -> None:
    """Let a holder's beats end, and nobody say so."""
    held._stop.set()
    held._thread.join()


def _die_holding(campaign_url: str) -> None:
    """Let a process of this machine take a campaign and die."""
    script = (
        "import os, sys; from sdbatch.campaign.lease import acquire; from sdbatch.storage import open_store;"
        f"acquire(open_store({campaign_url!r}, {{}})); os._exit(9)"
    )
    assert subprocess.run([sys.executable, "-c", script]).returncode == 9


def test_a_released_campaign_is_taken_at_once(campaign_url: str) -> None:
    store = open_store(campaign_url, {})
    first = acquire(store)
    first.release()
    started_s = time.monotonic()
    second = acquire(store)
    second.release()

    assert (first.holder.epoch, second.holder.epoch) == (1, 2)
    assert time.monotonic() - started_s < lease.TERM_S


def test_a_living_holder_is_named(campaign_url: str) -> None:
    store = open_store(campaign_url, {})
    held = acquire(store)
    try:
        with pytest.raises(CampaignHeld, match=rf"process {os.getpid()} .* since {held.holder.since[:10]}"):
            acquire(store)
    finally:
        held.release()


def test_a_silent_holder_elsewhere_is_waited_out_for_one_term(campaign_url: str, clock: Clock) -> None:
    store = open_store(campaign_url, {})
    held = acquire(store)
    _silence(held)
    _pretend_elsewhere(store, held)
    started_s = clock.now_s
    taken = acquire(store)
    taken.release()

    assert taken.holder.epoch == 2
    assert lease.TERM_S <= clock.now_s - started_s <= lease.TERM_S + 1.0


def test_a_watcher_that_was_stopped_for_a_term_looks_once_more(
    campaign_url: str, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = open_store(campaign_url, {})
    held = acquire(store)

    def sleep(_: float) -> None:
        clock.now_s += 2 * lease.TERM_S
        held._beat("held")

    monkeypatch.setattr(clock, "sleep", sleep)
    _silence(held)
    with pytest.raises(CampaignHeld, match=rf"process {os.getpid()}"):
        acquire(store)


def test_a_dead_process_on_this_machine_is_not_waited_for(campaign_url: str) -> None:
    _die_holding(campaign_url)
    started_s = time.monotonic()
    taken = acquire(open_store(campaign_url, {}))
    taken.release()

    assert taken.holder.epoch == 2
    assert time.monotonic() - started_s < lease.TERM_S


def test_a_dead_process_on_this_machine_is_not_asked_to_stop_and_one_elsewhere_is(campaign_url: str) -> None:
    store = open_store(campaign_url, {})
    _die_holding(campaign_url)

    assert lease.ask_to_stop(store) is None
    path = layout.lease(1)
    store.put(path, json.dumps({**json.loads(store.read(path)), "host": "elsewhere"}).encode())
    assert "on elsewhere (epoch 1)" in str(lease.ask_to_stop(store))


def test_a_holder_sees_that_it_was_overtaken(campaign_url: str) -> None:
    store = open_store(campaign_url, {})
    held = acquire(store)
    held.check()
    store.put_new(layout.lease(2), b"{}")
    deadline_s = time.monotonic() + 60
    while not held.is_lost and time.monotonic() < deadline_s:
        time.sleep(0.05)

    with pytest.raises(LeaseLost, match="epoch 1"):
        held.check()


def test_what_only_the_holder_may_replace_is_asked_of_the_store_at_once(campaign_url: str) -> None:
    store = open_store(campaign_url, {})
    held = acquire(store)
    _silence(held)  # no further beat looks for others
    held.confirm()
    store.put_new(layout.lease(2), b"{}")

    with pytest.raises(LeaseLost, match="epoch 1"):
        held.confirm()


def test_a_holder_whose_beats_do_not_come_through_stops_after_a_bound(campaign_url: str, clock: Clock) -> None:
    held = acquire(open_store(campaign_url, {}))
    _silence(held)
    held.check()
    clock.sleep(lease.TERM_S)
    started_s = clock.now_s

    with pytest.raises(LeaseLost, match="no beat of epoch 1 came through"):
        held.check()
    assert lease.OUTAGE_MAX_S <= clock.now_s - started_s < lease.OUTAGE_MAX_S + 1.0


def test_a_holder_that_was_cut_off_for_a_term_asks_the_store_before_it_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Gone(LocalStore):
        times_away = 0

        def list(self, folder: str = "", *, deep: bool = True) -> list[Entry]:
            if self.times_away:
                self.times_away -= 1
                raise OSError("no route to host")
            return super().list(folder, deep=deep)

    store = Gone(str(tmp_path))
    held = acquire(store)
    monkeypatch.setattr(lease, "TERM_S", 2.0)
    store.times_away = 10_000
    while time.monotonic() - held._beaten_s < lease.TERM_S:
        time.sleep(0.05)
    store.times_away = 4  # for as many beats it stays away
    held.check()

    assert store.times_away == 0
    held.release()


def test_a_beat_that_ends_for_a_reason_nobody_foresaw_loses_the_lease(tmp_path: Path) -> None:
    class Broken(LocalStore):
        def list(self, folder: str = "", *, deep: bool = True) -> list[Entry]:
            if threading.current_thread().name == "lease":
                raise ZeroDivisionError
            return super().list(folder, deep=deep)

    before, threading.excepthook = threading.excepthook, lambda _: None
    try:
        held = acquire(Broken(str(tmp_path)))
        held._thread.join(timeout=60)
    finally:
        threading.excepthook = before

    with pytest.raises(LeaseLost, match="epoch 1"):
        held.check()


def test_a_store_without_put_if_absent_is_refused(tmp_path: object) -> None:
    class Careless(LocalStore):
        def put_new(self, path: str, data: bytes, content_type: str = "", *, syncs: bool = True) -> bool:
            self.put(path, data)
            return True

    with pytest.raises(StoreRefused, match="put-if-absent"):
        acquire(Careless(str(tmp_path)))
