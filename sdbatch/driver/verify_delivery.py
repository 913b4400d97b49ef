"""Does a target hold what its table and its ledger say? Files, marks, signatures and ledger compared.

delivered.parquet --> every file: there, whole, marked, signed as it says
deliveries/*.jsonl --> a chain without gaps <--> a line for each file
"""

from __future__ import annotations

import hashlib
import zipfile
import zlib
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any, Final

from sdbatch.deliver.index import INDEX, MADE, PLANNED, TABLE, Rows, from_parquet, to_csv
from sdbatch.deliver.ledger import read_ledger
from sdbatch.deliver.making import SIDECAR
from sdbatch.deliver.settings import ZIP_SUFFIX, read_delivery
from sdbatch.deliver.targets import LEDGERS, partial_files
from sdbatch.errors import JobError, UserError
from sdbatch.extras import lacking
from sdbatch.job import Storage, read_job
from sdbatch.job.read import read_yaml
from sdbatch.packets import packet_in
from sdbatch.provenance.signing import read_credentials
from sdbatch.provenance.source_type import VOCABULARY
from sdbatch.provenance.xmp import document_of, read_packet
from sdbatch.storage import Store, joined, open_campaign, split

UNCHECKED: Final = "not checked (sdbatch[provenance] is not installed)"


@dataclass(kw_only=True)
class DeliveryVerifyReport:
    """What was found at a target.

    Attributes:
        files: Files that were made and compared.
        marked: Those of them whose XMP says how they came to be.
        credentials: Their number by state of their content credentials.
        ledger_files: Files of the ledger.
        ledger_lines: Their lines.
        findings: Every disagreement; a good target has none.
        forks: Files of the ledger that several others follow, or that begin it a second time.
    """

    files: int = 0
    marked: int = 0
    credentials: dict[str, int] = field(default_factory=dict)
    ledger_files: int = 0
    ledger_lines: int = 0
    findings: list[str] = field(default_factory=list)
    forks: list[str] = field(default_factory=list)

    @property
    def is_good(self) -> bool:
        """Whether nothing disagrees."""
        return not self.findings


@dataclass(frozen=True, slots=True, kw_only=True)
class Delivered:
    """A target that is only read.

    Attributes:
        store: The folder or bucket.
        rows: Its table.
        table: Path of the same table for people.
        ledgers: Folder of its ledger.
        read: Returns the bytes of a row's file.
    """

    store: Store
    rows: Rows
    table: str
    ledgers: str
    read: Callable[[Mapping[str, Any]], bytes]


def place_of(text: str) -> tuple[str, dict[str, Storage]]:
    """Return the URL that a person means, and the access to it.

    Args:
        text: A URL or a folder; or a job's or a delivery's YAML file, for its output or its target.

    Raises:
        JobError: When the file is neither.
    """
    if not text.endswith((".yaml", ".yml")):
        return text, {}
    if _is_settings(text):
        delivery = read_delivery(text)
        return delivery.to, delivery.storage
    job = read_job(text)
    return job.output, job.storage


def _is_settings(text: str) -> bool:
    if not text.endswith((".yaml", ".yml")):
        return False
    values = read_yaml(text, "job or delivery")
    return isinstance(values, dict) and "to" in values


def is_place_of_delivery(text: str) -> bool:
    """Whether what a person means holds the table of a delivery; see `place_of`.

    Raises:
        JobError: When it is the YAML file of a delivery that made nothing yet.
    """
    url, storage = place_of(text)
    if is_delivery(url, storage):
        return True
    if _is_settings(text):
        raise JobError(f"{text}: no delivery at {url} yet; `sdbatch deliver {text}` makes it")
    return False


def is_delivery(url: str, storage: Mapping[str, Storage]) -> bool:
    """Whether a place holds the table of a delivery."""
    folder, index = _places(url)
    return _has(open_campaign(folder, storage), index)


def _has(store: Store, path: str) -> bool:
    try:
        store.stat(path)
    except FileNotFoundError:
        return False
    return True


def _places(url: str) -> tuple[str, str]:
    if not url.lower().endswith(ZIP_SUFFIX):
        return url, INDEX
    folder, name = split(url)
    return folder, f"{name[: -len(ZIP_SUFFIX)]}.{INDEX}"


class DamagedArchive(UserError):
    """A file of an archive is not the one that was put there."""


@contextmanager
def opened(url: str, storage: Mapping[str, Storage]) -> Iterator[Delivered]:
    """Open a target to read it.

    Raises:
        JobError: When no delivery made anything there.
        DamagedArchive: When a file is read whose archive, or place in it, was damaged.
    """
    folder, index = _places(url)
    store = open_campaign(folder, storage)
    try:
        rows = from_parquet(store.read(index), joined(store.url, index))
    except FileNotFoundError as error:
        raise JobError(f"{url}: there is no {index}, so that no delivery made it") from error
    archives: dict[str, zipfile.ZipFile] = {}

    def read(row: Mapping[str, Any]) -> bytes:
        if row.get("archive") is None:
            return store.read(row["name"])
        archive = row["archive"]
        try:
            if archive not in archives:
                archives[archive] = files.enter_context(zipfile.ZipFile(files.enter_context(store.open(archive))))
            return archives[archive].read(row["name"])
        except KeyError as error:
            raise FileNotFoundError(row["name"]) from error
        except (zipfile.BadZipFile, zlib.error) as error:
            raise DamagedArchive(f"{archive}: {error}") from error

    stem = index.removesuffix(INDEX)
    with ExitStack() as files:
        yield Delivered(store=store, rows=rows, table=f"{stem}{TABLE}", ledgers=f"{stem}{LEDGERS}", read=read)


def verify_delivery(url: str, storage: Mapping[str, Storage], trust: str = "") -> DeliveryVerifyReport:
    """Compare a target's files with its table and its ledger.

    Args:
        url: Folder, bucket or archive.
        storage: Access to it.
        trust: Root certificates in PEM that are trusted.
    """
    report = DeliveryVerifyReport()
    states: Counter[str] = Counter()
    with opened(url, storage) as target:
        for name, row in sorted(target.rows.items()):
            if row["status"] == MADE:
                report.files += 1
                _look_at(target, name, row, trust, report, states)
            elif row["status"] == PLANNED:
                report.findings.append(f"{name}: is not made, because its delivery was cut off; deliver again to go on")
        ledger = read_ledger(target.store, target.ledgers)
        report.findings += [f"{target.ledgers}/{fault}" for fault in ledger.faults]
        report.findings += list(_untold(target.rows, ledger.told))
        report.findings += list(_beside(target))
    report.credentials = dict(states)
    report.ledger_files, report.ledger_lines, report.forks = ledger.files, ledger.lines, ledger.forks
    return report


def _untold(rows: Rows, told: Mapping[str, Mapping[str, Any]]) -> Iterator[str]:
    """Yield what table and ledger say differently."""
    for name, row in sorted(rows.items()):
        if row["status"] != MADE or row["ledger"] is None:
            continue
        line = told.get(name)
        if line is None:
            yield f"{name}: the ledger does not tell of it; {row['ledger']} should"
        elif line.get("sha256") != row["sha256"]:
            yield f"{name}: the ledger tells of another file ({line['ledger']})"
    for name in sorted(told.keys() - {name for name, row in rows.items() if row["status"] == MADE}):
        yield f"{name}: the ledger tells of it, and delivered.parquet does not"


def _beside(target: Delivered) -> Iterator[str]:
    """Yield what is wrong with the table for people, and what a delivery left that was killed."""
    try:
        if target.store.read(target.table) != to_csv(target.rows):
            yield f"{target.table}: does not say what its delivery wrote; deliver again, which writes it anew"
    except FileNotFoundError:
        yield f"{target.table}: is missing; deliver again, which writes it anew"
    for entry in partial_files(target.store):
        yield f"{entry.path}: is an unfinished file; where no delivery goes on, remove it"


def _look_at(
    target: Delivered,
    name: str,
    row: Mapping[str, Any],
    trust: str,
    report: DeliveryVerifyReport,
    states: Counter[str],
) -> None:
    try:
        data = target.read(row)
    except FileNotFoundError:
        report.findings.append(f"{name}: is missing")
        return
    except DamagedArchive as error:
        report.findings.append(f"{name}: is not the file that was delivered ({error})")
        return
    if hashlib.sha256(data).hexdigest() != row["sha256"]:
        report.findings.append(f"{name}: is not the file that was delivered")
    sidecar = _sidecar(target, name, row, report.findings)
    words = read_packet(packet_in(data))
    report.marked += str(words.get("Iptc4xmpExt:DigitalSourceType", "")).startswith(VOCABULARY)
    is_newer = row.get("content_sha256") is not None
    if is_newer and words.get("xmpMM:DocumentID") != document_of(row["request_key"], row["n"]):
        report.findings.append(f"{name}: its XMP does not name the output it was made from")
    states[_credentials(name, row, data, sidecar, trust, report.findings)] += 1


def _sidecar(target: Delivered, name: str, row: Mapping[str, Any], findings: list[str]) -> bytes | None:
    """Return what stands beside a file; None without any."""
    digest = row.get("sidecar_sha256")
    if not digest:
        return None
    try:
        data = target.store.read(name + SIDECAR)
    except FileNotFoundError:
        findings.append(f"{name}{SIDECAR}: is missing")
        return None
    if hashlib.sha256(data).hexdigest() != digest:
        findings.append(f"{name}{SIDECAR}: is not the file that was delivered")
    return data


def _credentials(
    name: str, row: Mapping[str, Any], data: bytes, sidecar: bytes | None, trust: str, findings: list[str]
) -> str:
    """Return the state of a file's credentials, and tell where it is not the one it should be."""
    label = row.get("c2pa_label")
    if lacking("provenance"):
        return UNCHECKED if label else "none"
    if row.get("sidecar_sha256") and sidecar is None:
        return "none"
    found = read_credentials(data, row["media_type"], sidecar, trust)
    if found.state == "invalid":
        findings.append(f"{name}: its content credentials do not hold: {', '.join(found.faults)}")
    elif label and found.label != label:
        findings.append(f"{name}: its content credentials are {found.label or 'gone'}, not {label}")
    return found.state
