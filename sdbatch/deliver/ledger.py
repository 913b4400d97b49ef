"""The ledger of a target: a file for each time that something was made or removed, never changed afterwards.

    lines --> written() --> deliveries/<utc>-<first 8 digits of its sha256>.jsonl --> read_ledger() --> what it tells

Each line holds the digest of the line before it, and the first one that of the file before it, so that a line or a file
that was changed, moved or taken out shows, with its number. Two invocations at a time may name the same file: a fork,
which is allowed, and listed. The newest file is named by `deliveries/latest.json`, so that a new one costs the same
however many there are.
"""

from __future__ import annotations

import hashlib
import heapq
import json
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Final

from sdbatch.deliver.index import MADE, Rows
from sdbatch.storage import Store

LEDGER_VERSION: Final = 2
"""In version 1 the lines did not hold each other's digests."""
LATEST: Final = "latest.json"
_DIGEST: Final = re.compile(r"[0-9a-f]{64}")
_COLUMNS: Final = (
    *("name", "sha256", "file_bytes", "content_sha256", "format", "id", "request_key", "n", "asset", "asset_sha256"),
    *("key", "fingerprint", "c2pa_label", "signer", "sidecar_sha256", "source_digests", "verdict", "reviewed_by"),
)


@dataclass(kw_only=True)
class Ledger:
    """What the ledger of a target tells.

    Attributes:
        files: Number of its files.
        lines: Number of their lines.
        told: The line about each file that is there, by name: the last word counts.
        faults: What does not hold, by file, and where a line is meant with its number.
        forks: Files that several others name as the one before them.
    """

    files: int = 0
    lines: int = 0
    told: dict[str, dict[str, Any]] = field(default_factory=dict)
    faults: list[str] = field(default_factory=list)
    forks: list[str] = field(default_factory=list)


def stamp_now() -> str:
    """Return the time as it begins a ledger file's name: `20260101T000000Z`."""
    return datetime.now(UTC).strftime("%Y%m%dT%H%M%SZ")


def written(
    store: Store, folder: str, head: Mapping[str, Any], rows: Rows, removed: Iterable[str], stamp: str
) -> str | None:
    """Write one ledger file about the rows that no ledger tells of yet; return its name, None when there is nothing.

    Args:
        store: The target.
        folder: Folder of the ledger.
        head: Values of the first line.
        rows: The rows; `ledger` is set in those that are told of.
        removed: Names of files that were removed.
        stamp: Time of the invocation, which begins the name; see `stamp_now`.
    """
    told = [row for _, row in sorted(rows.items()) if row["status"] == MADE and row["ledger"] is None]
    gone = sorted(removed)
    if not told and not gone:
        return None
    previous = _newest(store, folder)
    bodies: list[dict[str, Any]] = [
        {"format_version": LEDGER_VERSION, "at": stamp, **head, "lines": 1 + len(told) + len(gone)},
        *({"made": {name: row.get(name) for name in _COLUMNS}} for row in told),
        *({"removed": name} for name in gone),
    ]
    data = b""
    for body in bodies:
        line = json.dumps({**body, "previous": previous}, ensure_ascii=False, sort_keys=True).encode()
        previous = hashlib.sha256(line).hexdigest()
        data += line + b"\n"
    name = f"{stamp}-{hashlib.sha256(data).hexdigest()[:8]}.jsonl"
    store.put_new(f"{folder}/{name}", data, "application/x-ndjson")
    # A kill in between leaves the older name there, so that the next file makes a fork.
    latest = {"format_version": 1, "name": name, "sha256": hashlib.sha256(data).hexdigest()}
    store.put(f"{folder}/{LATEST}", json.dumps(latest).encode() + b"\n", "application/json")
    for row in told:
        row["ledger"] = name
    return name


def _newest(store: Store, folder: str) -> str | None:
    """Return the digest of the newest file, None when there is none."""
    digest = _latest(store, folder).get("sha256")
    if digest is not None:
        return digest
    before = [entry.path for entry in store.list(folder, deep=False) if entry.path.endswith(".jsonl")]
    return hashlib.sha256(store.read(before[-1])).hexdigest() if before else None


def _latest(store: Store, folder: str) -> dict[str, str]:
    """Return name and digest of the newest file; nothing where that is not known, or not readable."""
    try:
        latest = _body(store.read(f"{folder}/{LATEST}"))
    except FileNotFoundError:
        return {}
    name, digest = latest.get("name"), latest.get("sha256")
    is_one = isinstance(name, str) and isinstance(digest, str) and _DIGEST.fullmatch(digest)
    return {"name": str(name), "sha256": str(digest)} if is_one else {}


def read_ledger(store: Store, folder: str) -> Ledger:
    """Return what a ledger tells, and what in it does not hold."""
    ledger = Ledger()
    paths = [entry.path for entry in store.list(folder, deep=False) if entry.path.endswith(".jsonl")]
    named: dict[str, str | None] = {}
    files = {path.rpartition("/")[2]: store.read(path) for path in paths}
    digests = {name: hashlib.sha256(data).hexdigest() for name, data in files.items()}
    for name in _in_order(files, digests):
        named |= _read_file(name, files[name], digests[name], ledger)
    ledger.files = len(paths)
    known = set(digests.values())
    ledger.faults += [
        f"{name}: names a file before it that is not there: one was removed or changed"
        for name, previous in named.items()
        if previous is not None and previous not in known
    ]
    by_digest = {digest: name for name, digest in digests.items()}
    ledger.faults += _latest_faults(store, folder, by_digest)
    ledger.forks = [by_digest[one] for one, count in Counter(named.values()).items() if count > 1 and one in by_digest]
    ledger.forks += [name for name, previous in named.items() if previous is None][1:]
    return ledger


def _latest_faults(store: Store, folder: str, by_digest: Mapping[str, str]) -> Iterator[str]:
    """Yield what does not hold in the file that names the newest one; without it the newest name counts."""
    try:
        store.stat(f"{folder}/{LATEST}")
    except FileNotFoundError:
        return
    latest = _latest(store, folder)
    name, digest = latest.get("name"), latest.get("sha256", "")
    if not latest or by_digest.get(digest, name) != name:
        yield f"{LATEST}: is damaged; remove it, the next delivery that makes a file writes it anew"
    elif digest not in by_digest:
        yield f"{LATEST}: names {name}, which is not there"


def _in_order(files: Mapping[str, bytes], digests: Mapping[str, str]) -> Sequence[str]:
    """Return the names of files, each after the one before it; their names tell the order to a second only."""
    by_digest = {digest: name for name, digest in digests.items()}
    following: dict[str, list[str]] = {}
    ready: list[str] = []
    for name, data in files.items():
        before = by_digest.get(_previous(_body(data.partition(b"\n")[0])) or "")
        if before is None:
            ready.append(name)
        else:
            following.setdefault(before, []).append(name)
    heapq.heapify(ready)
    order: list[str] = []
    while ready:
        order.append(heapq.heappop(ready))
        for name in following.get(order[-1], ()):
            heapq.heappush(ready, name)
    return order


def _read_file(name: str, data: bytes, digest: str, ledger: Ledger) -> dict[str, str | None]:
    """Add what one file tells; return its name and the digest of the file before it, where its first line stands."""
    lines = data.split(b"\n")
    is_whole = lines.pop() == b""
    ledger.lines += len(lines)
    bodies = [_body(line) for line in lines]
    fault = _first_fault(lines, bodies)
    if fault is None and not is_whole:
        fault = f"line {len(lines) + 1} is cut off"
    if fault is None and name[-14:-6] != digest[:8]:
        # All lines hold but the last, which nothing in this file vouches for.
        fault = f"line {len(lines)} is not the one its name was made from"
    if fault is not None:
        ledger.faults.append(f"{name}: {fault}")
    for body in bodies:
        if isinstance(made := body.get("made"), dict) and isinstance(made.get("name"), str):
            ledger.told[made["name"]] = {**made, "ledger": name}
        elif isinstance(body.get("removed"), str):
            ledger.told.pop(body["removed"], None)
    if not bodies or "format_version" not in bodies[0]:
        return {}
    return {name: _previous(bodies[0])}


def _previous(body: Mapping[str, Any]) -> str | None:
    previous = body.get("previous")
    return previous if isinstance(previous, str) else None


def _body(line: bytes) -> dict[str, Any]:
    try:
        body = json.loads(line)
    except ValueError:
        return {}
    return body if isinstance(body, dict) else {}


def _first_fault(lines: list[bytes], bodies: list[dict[str, Any]]) -> str | None:
    """Return what is wrong with the first line that does not follow the one before it."""
    for number, body in enumerate(bodies, 1):
        if not body:
            return f"line {number} cannot be read"
    if not bodies:
        return "line 1 is missing"
    version = bodies[0].get("format_version")
    if version == 1:
        return None
    if version != LEDGER_VERSION:
        return f"line 1 has version {version}, and this sdbatch reads up to {LEDGER_VERSION}"
    for number in range(1, len(bodies)):
        if bodies[number].get("previous") != hashlib.sha256(lines[number - 1]).hexdigest():
            return (
                f"line {number + 1} does not follow line {number}: one of them was changed, or one was removed or moved"
            )
    if bodies[0].get("lines") != len(lines):
        return f"line {len(lines) + 1} is missing: the file had {bodies[0].get('lines')} lines"
    return None
