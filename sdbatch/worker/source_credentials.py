"""The credentials that sources came with are kept, so that a delivery can name the source when it is long gone.

    sources + their bytes --> CredentialArchives.of() --> archives by path in the campaign, and what is to be noted

Most sources have none, which is seen from the file's outline; of one that has, a process of its own reads them.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

from sdbatch.campaign import layout
from sdbatch.extras import lacking
from sdbatch.local_faults import local_fault, temporary_folder
from sdbatch.packets import credentialed_type
from sdbatch.provenance.archive_process import REFUSED
from sdbatch.provenance.definition import relation_of
from sdbatch.types import Source

TIMEOUT_S: Final = 60.0
KEPT_MAX: Final = 1_000
"""Archives that a worker remembers, of some 10 KB each."""
_START: Final = (
    "import json, sys; paths, rest = json.loads(sys.argv[1]); sys.path[:] = paths; "
    "from sdbatch.provenance.archive_process import archive; archive(json.dumps(rest))"
)


class CredentialArchives:
    """Archives of sources' credentials, each made once. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._known: dict[str, bytes | str] = {}

    def of(
        self, sources: Sequence[Source], task: str, read: Callable[[Source], bytes]
    ) -> tuple[dict[str, bytes], list[str]]:
        """Return the archives of a request's sources by path, and a sentence for each that cannot be kept.

        Args:
            sources: The request's.
            task: Its task, by which is told what a source is to the output.
            read: Returns a source's bytes.
        """
        archives: dict[str, bytes] = {}
        notes: list[str] = []
        numbers: dict[str, int] = {}
        for source in sources:
            number = numbers[source.role] = numbers.get(source.role, -1) + 1
            data = read(source)
            media_type = credentialed_type(data)
            if media_type is None:
                continue
            label, relation = layout.credentials_label(source.digest), relation_of(task, source.role, number)
            path = layout.credentials(label, relation)
            with self._lock:
                if path not in self._known:
                    if len(self._known) >= KEPT_MAX:
                        self._known.clear()
                    title = source.url.rpartition("/")[2]
                    self._known[path] = _archived(data, [media_type, label, relation, title])
                found = self._known[path]
            if isinstance(found, bytes):
                archives[path] = found
            else:
                notes.append(f"{source.url}: {found}")
        return archives, notes


def _archived(data: bytes, rest: list[str]) -> bytes | str:
    """Return an archive, or why there is none."""
    if missing := lacking("provenance"):
        return f"its content credentials are not kept: {missing}"
    try:
        with tempfile.TemporaryDirectory(prefix="sdbatch-") as name:
            source = Path(name) / "source"
            source.write_bytes(data)
            paths = [path for path in sys.path if path]
            done = subprocess.run(  # noqa: S603 -- our own program, no shell
                [sys.executable, "-I", "-S", "-c", _START, json.dumps([paths, [str(source), *rest]])],
                env={"TMPDIR": name},  # what reads a stranger's file has no credentials of ours
                capture_output=True,
                timeout=TIMEOUT_S,
                check=False,
            )
            if done.returncode == 0:
                return source.with_name("archive").read_bytes()
    except subprocess.TimeoutExpired:
        return f"its content credentials took over {TIMEOUT_S:g} s to read and are not kept"
    except OSError as error:
        if fault := local_fault(error, temporary_folder(), "TMPDIR"):
            raise fault from error
        return f"its content credentials are not kept: {error}"
    said = done.stdout.decode("utf-8", "replace") if done.returncode == REFUSED else f"exit status {done.returncode}"
    return f"its content credentials cannot be read and are not kept: {said}"
