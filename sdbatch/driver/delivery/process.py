"""A process that makes files: it reads masters from the campaign, makes their files and puts them at the target.

Place --> begin() once in each process        Task --> make_in_place() --> Made x files

Place --> makers() --> processes, and what has a task made by one of them
"""

from __future__ import annotations

import json
import multiprocessing
import subprocess
import sys
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from functools import lru_cache
from multiprocessing.connection import Connection
from queue import SimpleQueue
from typing import Final

import numpy as np
from numpy.typing import NDArray

from sdbatch.campaign import layout
from sdbatch.deliver.making import FileJob, Made, Signature, Task, make_files, media_type
from sdbatch.driver.delivery.marks import packet_for
from sdbatch.driver.delivery.signing import Relation, Signing
from sdbatch.fetch.pictures import decode_image
from sdbatch.job import Storage
from sdbatch.packets import Packet
from sdbatch.provenance.definition import Ingredient, definition
from sdbatch.provenance.fingerprint import fingerprint
from sdbatch.provenance.signing import (
    CLAIMS_BYTES,
    INGREDIENT_BYTES,
    RESERVED_BYTES,
    TIME_STAMP_BYTES,
    FileSigner,
    SignFailed,
)
from sdbatch.storage import Store, open_campaign
from sdbatch.without_pandas import keep_pandas_out

ARCHIVES_KEPT: Final = 64
"""Archives of sources' credentials, of some 10 KB each, that a process keeps: many masters share a source."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where masters come from and files go to, and who signs them.

    Attributes:
        campaign: URL of the campaign.
        campaign_storage: Access to it.
        files: URL that files are put under.
        files_storage: Access to it.
        signing: How files are signed; None when they are not.
    """

    campaign: str
    campaign_storage: Mapping[str, Storage]
    files: str
    files_storage: Mapping[str, Storage]
    signing: Signing | None = None


class FileMarks:
    """Marks files in one process; see `sdbatch.deliver.making.Marks`.

    Args:
        signing: How files are signed; None when they are not.
        campaign: Where the archives of sources' credentials are.
    """

    def __init__(self, signing: Signing | None, campaign: Store) -> None:
        self.is_required = signing is not None and signing.required
        self._signer = None if signing is None else FileSigner(signing.key)
        self._trial_bytes = 0 if signing is None else signing.trial_bytes
        self._archive = lru_cache(ARCHIVES_KEPT)(campaign.read)

    def packet(self, job: FileJob, master: bytes) -> Packet:
        """See `Marks`."""
        return packet_for(job.words, master, job.format.type)

    def fingerprint(self, gray_HW: NDArray[np.uint8]) -> str:
        """See `Marks`."""
        return fingerprint(gray_HW)

    def reserved_bytes(self, job: FileJob) -> int:
        """See `Marks`."""
        if self._signer is None or job.format.type == "webm":
            return 0
        stamp = 0 if self._signer.key.timestamp_url is None else TIME_STAMP_BYTES
        archives = sum(INGREDIENT_BYTES + len(self._archived(*source)) for source in job.sources)
        return max(RESERVED_BYTES + stamp, self._trial_bytes + CLAIMS_BYTES) + archives

    def signed(self, job: FileJob, data: bytes, packet: Packet, fingerprint: str) -> Signature:
        """See `Marks`."""
        if self._signer is None:
            return Signature(data=data)
        sources = [
            Ingredient(label=label, relation=relation, archive=self._archived(label, relation))
            for label, relation in job.sources
        ]
        kind = media_type(job.format)
        claims = definition(
            title=job.name.rpartition("/")[2],
            media_type=kind,
            source_type=packet.source_type,
            system=job.words.get("system", ""),
            system_version=job.words.get("system_version", ""),
            steps=job.steps,
            fingerprint=fingerprint,
            ingredients=sources,
        )
        try:
            made = self._signer.sign(data, kind, claims, sources)
        except SignFailed as error:
            return Signature(data=data, fault=str(error))
        return Signature(data=made.data, sidecar=made.sidecar, label=made.label, signer=self._signer.key.signer)

    def _archived(self, label: str, relation: Relation) -> bytes:
        return self._archive(layout.credentials(label, relation))


_STORES: list[Store] = []
_MARKS: list[FileMarks] = []


def begin(place: Place) -> None:
    """Open both stores."""
    campaign = open_campaign(place.campaign, place.campaign_storage)
    files = open_campaign(place.files, place.files_storage)
    _MARKS[:] = [FileMarks(place.signing, campaign)]
    _STORES[:] = [campaign, files]


def make_in_place(task: Task) -> list[Made]:
    """Make all files of one master; see `make_files`."""
    campaign, files = _STORES
    return make_files(task, campaign.read, decode_image, _MARKS[0], files.put)


# A process of multiprocessing's would run the caller's script once more, and all that it does, before it makes a file.
# A signal to stop is the driver's affair, which waits for what is in hand.
_START: Final = """
import json, signal, sys
signal.signal(signal.SIGINT, signal.SIG_IGN)
signal.signal(signal.SIGTERM, signal.SIG_IGN)
sys.path[:], descriptor = json.loads(sys.argv[1])
from sdbatch.driver.delivery.process import serve
serve(descriptor)
"""


class MakerEnded(Exception):
    """A process that makes files died."""


@contextmanager
def makers(place: Place, number: int) -> Iterator[Callable[[Task], list[Made]]]:
    """Start some processes; give what has a task made by one that is idle, for as many threads.

    What it raises is what `make_in_place` raised there, or MakerEnded.
    """
    idle: SimpleQueue[_MakerProcess] = SimpleQueue()

    def make(task: Task) -> list[Made]:
        maker = idle.get()
        try:
            return maker.make(task)
        finally:
            idle.put(maker)

    with ExitStack() as stack:
        for _ in range(number):
            maker = _MakerProcess(place)
            stack.callback(maker.end)
            idle.put(maker)
        yield make


class _MakerProcess:
    def __init__(self, place: Place) -> None:
        self._place: Place | None = place
        self._line, theirs = multiprocessing.Pipe()
        arguments = json.dumps([[path for path in sys.path if path and isinstance(path, str)], theirs.fileno()])
        with theirs:
            self._process = subprocess.Popen(  # noqa: S603 -- our own program, no shell
                [sys.executable, "-P", "-c", _START, arguments], stdin=subprocess.DEVNULL, pass_fds=(theirs.fileno(),)
            )

    def make(self, task: Task) -> list[Made]:
        try:
            if self._place:
                self._line.send(self._place)
                self._place = None
            self._line.send(task)
            made: list[Made] | Exception = self._line.recv()
        except (EOFError, ConnectionError) as error:
            raise MakerEnded from error
        if isinstance(made, Exception):
            raise made
        return made

    def end(self) -> None:
        self._process.kill()
        self._process.wait()
        self._line.close()  # a thread that waits at it has heard by now that nothing comes


def serve(descriptor: int) -> None:
    """Make what is asked for on a line, until its other end is closed."""
    keep_pandas_out()
    with Connection(descriptor) as line, suppress(EOFError, ConnectionError):
        place = line.recv()
        while True:
            task = line.recv()
            made: list[Made] | Exception
            try:
                if not _STORES:
                    begin(place)
                made = make_in_place(task)
            except Exception as error:  # noqa: BLE001 -- it is raised where the task came from
                error.add_note(traceback.format_exc())
                made = error
            line.send(made)
