"""A delivery: the files that somebody asked for, made from a campaign's masters.

    Delivery + effective rows --> which file from which master --> what is there already --> processes --> target

Nothing is made before every name and every bound was looked at. What is there is known by its key, so that a second
delivery makes nothing, and one after a kill goes on. Only `prune` removes anything: a file keeps its row until the one
that takes its place is made, and stays where that one fails.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from itertools import islice
from typing import Any, Final

from sdbatch.campaign import layout
from sdbatch.campaign.campaign import Campaign
from sdbatch.deliver import ledger
from sdbatch.deliver.clips import ClipShape
from sdbatch.deliver.index import BEFORE, FAILED, MADE, OF_FILE, PLANNED, Rows
from sdbatch.deliver.making import FileJob, Made, Task
from sdbatch.deliver.matching import Master, Match
from sdbatch.deliver.names import folded
from sdbatch.deliver.settings import Delivery
from sdbatch.deliver.targets import FolderTarget, Target, ZipTarget
from sdbatch.driver.delivery.marks import words_of
from sdbatch.driver.delivery.plan import LINES_MAX, DeliverReport, Owner, refuse_others, wanted_files
from sdbatch.driver.delivery.process import MakerEnded, Place, begin, make_in_place, makers
from sdbatch.driver.delivery.signing import Signing, signing_of, sources_of
from sdbatch.driver.picking import Selection
from sdbatch.driver.signals import Interrupt
from sdbatch.errors import JobError, WorkersUnavailable
from sdbatch.job import read_job
from sdbatch.report.progress import Progress, Snapshot
from sdbatch.storage import open_campaign, split

CHECKPOINT_S: Final = 5.0
"""Wall seconds between two writings of the table while files are made; a kill costs at most what came since."""
MASTERS_MIN: Final = 4
"""Fewest masters for each process: one takes a second or two to start."""
_AHEAD: Final = 2
"""Masters handed out for each process: one in hand, one waiting."""


def deliver_files(
    delivery: Delivery,
    *,
    selection: Selection | None = None,
    dry_run: bool = False,
    prune: bool = False,
    allow_code: bool = False,
    progress: Progress,
) -> DeliverReport:
    """Make what is missing of a delivery.

    Args:
        delivery: The delivery.
        selection: Make the files of these rows alone; the other files of the delivery stay as they are.
        dry_run: Say what would be made; write nothing.
        prune: Remove files that an earlier state of this delivery made and that are not wanted any more.
        allow_code: Whether a function that the delivery names may be run.
        progress: Shown while it goes on.

    Raises:
        UserError: Before anything was made: names that collide, bounds that are passed, a campaign that is not there.
        MachineError: When this machine or a store fails.
    """
    is_part = selection is not None and not selection.is_of_all
    if is_part and prune:
        raise JobError("--prune: removes what the whole delivery does not ask for; give it without a selection of rows")
    url, storage = _campaign_of(delivery)
    campaign = Campaign(open_campaign(url, storage))
    report = DeliverReport(delivery=delivery.delivery, to=delivery.to)
    with progress:
        progress.say("looking at the campaign")
        signing = signing_of(delivery, report, allow_code=allow_code, dry_run=dry_run)
        archived = _archives(campaign) if signing else frozenset()
        wanted, tasks_of = wanted_files(delivery, campaign, report, _identities(signing, archived), selection)
        owns = Owner(delivery.delivery, campaign)
        target = _target(delivery, owns)
        rows = target.read_rows()
        refuse_others(delivery, wanted, rows, target, owns)
        todo = {name for name, row in wanted.items() if not _is_current(row, rows.get(name), target, signing)}
        report.files, report.current = len(wanted), len(wanted) - len(todo)
        report.stale = [] if is_part else sorted(name for name, row in rows.items() if owns(row) and name not in wanted)
        if dry_run:
            report.state, report.made = "dry-run", len(todo)
            return report
        lost = [name for name in target.lost(rows) if name not in wanted]
        if lost and is_part:
            rows.update({name: {**rows[name], "status": PLANNED, "archive": None} for name in lost})
        elif lost:
            report.warnings.append(
                f"{len(lost)} files that this delivery does not ask for any more are gone, because an earlier one was "
                f"cut off on another machine, or their archive was damaged: {', '.join(lost[:LINES_MAX])}"
            )
            _remove(lost, delivery, target, rows, report, url)
            report.stale = sorted(set(report.stale).difference(lost))
        if prune and report.stale:
            _remove(report.stale, delivery, target, rows, report, url)
            gone = set(map(folded, report.stale))
            todo |= {name for name in wanted if folded(name) in gone}  # many disks do not tell capitals apart
            report.current, report.stale = len(wanted) - len(todo), []
        is_retold = _retell(rows, {name: row for name, row in wanted.items() if name not in todo})
        _take_up(rows, {name: wanted[name] for name in todo}, target, is_zip=delivery.is_zip)
        place = Place(
            campaign=url,
            campaign_storage=storage,
            files=target.files_url,
            files_storage=delivery.storage,
            signing=signing,
        )
        if todo or report.removed:
            target.write_rows(rows)
        tasks = _tasks(delivery, tasks_of, todo, target, wanted, archived)
        _make(tasks, place, delivery, target, rows, wanted, report, progress)
        left = [name for name in report.failed if rows[name]["status"] == MADE]
        if prune and left:
            _remove(left, delivery, target, rows, report, url)
            rows.update({name: {**wanted[name], **_failure(report.failed[name])} for name in left})
        else:
            report.stale += left
        is_told = all(row["ledger"] for row in rows.values() if row["status"] == MADE and row["name"] in wanted)
        if todo or report.removed or is_retold or not is_told or not target.is_complete(rows):
            _complete(delivery, target, rows, report, url)
        else:
            target.tidy()
    return report


def _archives(campaign: Campaign) -> frozenset[str]:
    """Return the paths of the credentials that sources came with."""
    return frozenset(entry.path for entry in campaign.store.list(layout.CREDENTIALS))


def _identities(
    signing: Signing | None, archived: frozenset[str]
) -> Callable[[Mapping[str, Any]], Mapping[str, Any] | None]:
    """Return what of signing decides the bytes of a master's files."""
    if signing is None:
        return lambda _: None
    return lambda row: {**signing.identity, "sources": [list(source) for source in sources_of(row, archived)]}


def _campaign_of(delivery: Delivery) -> tuple[str, dict[str, Any]]:
    if delivery.campaign.endswith((".yaml", ".yml")):
        job = read_job(delivery.campaign)
        return job.output, {**job.storage, **delivery.storage}
    return delivery.campaign, delivery.storage


def _target(delivery: Delivery, owns: Owner) -> Target:
    if delivery.is_zip:
        folder, name = split(delivery.to)
        return ZipTarget(open_campaign(folder, delivery.storage), name, delivery.zip_bytes_max)
    return FolderTarget(open_campaign(delivery.to, delivery.storage), owns)


def _is_current(row: dict[str, Any], there: dict[str, Any] | None, target: Target, signing: Signing | None) -> bool:
    """Whether a file is there as it is wanted; one that could not be signed when it was made is tried again."""
    if there is None or there["status"] != MADE or there["key"] != row["key"]:
        return False
    return (signing is None or bool(there.get("c2pa_label"))) and target.has(there)


def _retell(rows: Rows, current: Rows) -> bool:
    """Bring rows of files that are there to what the campaign tells of them today; return whether any differs."""
    retold = {name: {**row, **{column: rows[name].get(column) for column in OF_FILE}} for name, row in current.items()}
    is_other = any(_said(row) != _said(rows[name]) for name, row in retold.items())
    rows.update(retold)
    return is_other


def _said(row: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in row.items() if value is not None}


def _take_up(rows: Rows, todo: Rows, target: Target, *, is_zip: bool) -> None:
    """Write down files that are to be made, but for those where an older one lies, whose row stays until it is not."""
    for name, row in todo.items():
        there = rows.get(name)
        if there is None or there["status"] != MADE or not target.has(there):
            rows[name] = {**row, "sidecar_sha256": there and there.get("sidecar_sha256")}
        elif not is_zip:  # an archive's files are not written over
            there["key"] = BEFORE + there["key"].removeprefix(BEFORE)


def _tasks(
    delivery: Delivery,
    matches: dict[str, Match],
    todo: set[str],
    target: Target,
    wanted: Rows,
    archived: frozenset[str],
) -> list[Task]:
    """Return a task for each master of which a file is missing, clips first: they take longest."""
    by_asset: dict[str, list[str]] = {}
    for name in sorted(todo):
        by_asset.setdefault(matches[name].master.asset, []).append(name)
    tasks = [
        Task(
            id=matches[names[0]].master.id,
            asset=asset,
            sha256=matches[names[0]].master.sha256,
            shape=_clip_shape(matches[names[0]].master),
            files=tuple(
                FileJob(
                    name=name,
                    path=target.path_of(wanted[name]),
                    format=matches[name].format,
                    placement=matches[name].placement,
                    words=words_of(delivery.metadata, matches[name].master.columns),
                    sources=sources_of(matches[name].master.columns, archived),
                )
                for name in names
            ),
            quality=(delivery.quality.least, delivery.quality.most),
            bars=delivery.bar_colour,
            label=delivery.label,
        )
        for asset, names in by_asset.items()
    ]
    return sorted(tasks, key=lambda task: task.shape is None)


def _clip_shape(master: Master) -> ClipShape | None:
    if not master.is_clip:
        return None
    if not master.num_frames or not master.fps:
        raise JobError(
            f"{master.id}: the campaign does not say how many frames its clip has; `sdbatch verify` looks at it"
        )
    return ClipShape(
        suffix=master.asset.rpartition(".")[2],
        width=master.width,
        height=master.height,
        num_frames=master.num_frames,
        fps=master.fps,
    )


def _make(
    tasks: Sequence[Task],
    place: Place,
    delivery: Delivery,
    target: Target,
    rows: Rows,
    wanted: Rows,
    report: DeliverReport,
    progress: Progress,
) -> None:
    """Hand out the tasks, and write down what comes back."""
    if not tasks:
        return
    pending = sum(len(task.files) for task in tasks)
    processes = _num_processes(delivery, len(tasks))
    begun_s = saved_s = time.monotonic()
    ended = 0
    with _interrupted() as interrupt:
        for made in _results(tasks, place, processes, interrupt):
            for one in made:
                _write_down(one, target, rows, wanted[one.name], report)
            ended += len(made)
            now_s = time.monotonic()
            progress.show(
                Snapshot(
                    working_s=now_s - begun_s,
                    outputs_ended=ended,
                    outputs_pending=pending,
                    cost_share=ended / pending,
                    rows_failed=len(report.failed),
                    workers=processes,
                    in_flight=0,
                    noun="files",
                )
            )
            if now_s - saved_s > CHECKPOINT_S:
                target.write_rows(rows)
                saved_s = time.monotonic()
    if ended < pending:
        report.state = "interrupted"
    elif report.failed:
        report.state = "failed"


@contextmanager
def _interrupted() -> Iterator[Interrupt]:
    interrupt = Interrupt()
    with interrupt.installed():
        yield interrupt


def _write_down(made: Made, target: Target, rows: Rows, wanted: dict[str, Any], report: DeliverReport) -> None:
    there = rows[made.name]
    if made.fault:
        report.failed[made.name] = made.fault
        there.update({"error_message": made.fault} if there["status"] == MADE else _failure(made.fault))
        return
    if not made.sidecar_sha256:
        target.remove_sidecar(there)
    row = rows[made.name] = wanted
    row.update(status=MADE, sha256=made.sha256, file_bytes=made.file_bytes, quality=made.quality)
    told = ("content_sha256", "fingerprint", "c2pa_label", "signer", "sidecar_sha256")
    row.update({name: getattr(made, name) or None for name in told})
    if made.unsigned:
        report.unsigned[made.name] = made.unsigned
    report.made += 1
    report.bytes_made += made.file_bytes


def _failure(fault: str) -> dict[str, str]:
    return {"status": FAILED, "error_message": fault}


def _results(tasks: Sequence[Task], place: Place, processes: int, interrupt: Interrupt) -> Iterator[list[Made]]:
    """Yield what each task made, in the order in which they end; after a signal, of those in hand only."""
    if processes == 1:
        begin(place)
        for task in tasks:
            if interrupt.count:
                return
            yield make_in_place(task)
        return
    waiting = iter(tasks)
    in_hand: set[Future[list[Made]]] = set()
    try:
        # On a second signal the processes end first: the threads wait for what these make.
        with ThreadPoolExecutor(processes, "deliver") as pool, makers(place, processes) as make:
            while True:
                room = 0 if interrupt.count else _AHEAD * processes - len(in_hand)
                in_hand |= {pool.submit(make, task) for task in islice(waiting, room)}
                if not in_hand:
                    return
                done, in_hand = wait(in_hand, return_when=FIRST_COMPLETED)
                for future in done:
                    yield future.result()
    except MakerEnded as error:
        raise WorkersUnavailable(
            f"one of {processes} processes that make files was killed, perhaps for memory; deliver again to go on, "
            f"with `processes: {max(processes // 2, 1)}` in the delivery"
        ) from error


def _num_processes(delivery: Delivery, num_tasks: int) -> int:
    if delivery.processes != "auto":
        return min(delivery.processes, num_tasks)
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(min(cores, num_tasks // MASTERS_MIN), 1)


def _remove(
    names: Sequence[str], delivery: Delivery, target: Target, rows: Rows, report: DeliverReport, campaign: str
) -> None:
    """Remove files and their rows; the ledger says so first, so that after a kill it misses none of them."""
    kept = {name: row for name, row in rows.items() if name not in names}
    ledger.written(target.store, target.ledgers, _head(delivery, target, campaign), kept, names, ledger.stamp_now())
    target.remove(names, rows)
    report.removed += names


def _complete(delivery: Delivery, target: Target, rows: Rows, report: DeliverReport, campaign: str) -> None:
    if report.state == "interrupted":
        target.write_rows(rows)
        return
    if not rows and not report.removed:
        return
    target.write_rows(rows)
    target.complete(rows)
    ledger.written(target.store, target.ledgers, _head(delivery, target, campaign), rows, (), ledger.stamp_now())
    target.write_rows(rows)
    target.tidy()


def _head(delivery: Delivery, target: Target, campaign: str) -> dict[str, str]:
    return {"delivery": delivery.delivery, "campaign": campaign, "to": target.url}
