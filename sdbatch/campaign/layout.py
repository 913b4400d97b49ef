"""Paths in a campaign folder: a public contract, in one place."""

from __future__ import annotations

import hashlib
import re
from typing import Final

LEASE: Final = "lease"
RUNS: Final = "runs"
ASSETS: Final = "assets"
LATEST: Final = "metadata/latest.json"
REPORT: Final = "report"
GALLERY: Final = "report/index.html"
CREDENTIALS: Final = "credentials"
TAKEDOWNS: Final = "takedowns"
DELIVERED: Final = "delivered.parquet"
"""The table of what was delivered: it lies at a target, where people look for the campaign."""
_DIGITS = re.compile(r"[0-9a-f]{64}")
AFTER_ALL_RUNS: Final = "s"
"""Sorts after the id of every run."""
_RUN = re.compile(r"r\d{6}-\d{8}T\d{6}Z")
_COMMIT = re.compile(r"runs/(r\d{6}-\d{8}T\d{6}Z)/commits/(\d{6,})\.parquet")
_ASSET = re.compile(r"assets/([A-Za-z0-9][A-Za-z0-9._-]{0,127})-([0-9a-f]{8})-(\d+)\.[a-z0-9]+")
_TAKEDOWN = re.compile(r"takedowns/r\d{6}-\d{8}T\d{6}Z\.parquet")
_INDEX = re.compile(r"runs/(r\d{6}-\d{8}T\d{6}Z)/index/\d{6}\.parquet")


def credentials_label(digest: str) -> str:
    """Return 64 hex digits that stand for a source: of its content, or where only an ETag is known of that."""
    kind, _, value = digest.partition(":")
    return value if kind == "sha256" and _DIGITS.fullmatch(value) else hashlib.sha256(digest.encode()).hexdigest()


def credentials(label: str, relation: str) -> str:
    """Return the archive of the credentials that a source came with.

    Args:
        label: From `credentials_label`.
        relation: What the source is to the output; for `inputTo` there is an archive of its own.
    """
    return f"{CREDENTIALS}/{label}{'' if relation == 'parentOf' else '-input'}.c2pa"


def run_id(epoch: int, stamp: str) -> str:
    """Return the id of the run that holds lease `epoch`; ids sort by epoch, so that no clock decides their order."""
    return f"r{epoch:06d}-{stamp}"


def lease(epoch: int) -> str:
    """Return the file whose making takes the campaign."""
    return f"{LEASE}/{epoch:06d}.json"


def epoch_of(run: str) -> int:
    """Return the epoch of the lease that a run holds."""
    return int(run[1:7])


def cancel(epoch: int) -> str:
    """Return the file by which anybody asks the holder to stop."""
    return f"{LEASE}/{epoch:06d}.cancel"


def beat(epoch: int) -> str:
    """Return the file by which the holder shows that it lives."""
    return f"{LEASE}/{epoch:06d}.beat"


def asset(request_id: str, request_key: str, n: int, suffix: str) -> str:
    """Return an asset's path."""
    return f"{ASSETS}/{request_id}-{request_key[:8]}-{n}.{suffix}"


def asset_parts(path: str) -> tuple[str, str, int] | None:
    """Return (id, first 8 digits of the request key, n) of an asset's path; None for a file that is none of ours."""
    found = _ASSET.fullmatch(path)
    return (found[1], found[2], int(found[3])) if found else None


def commit(run: str, unit: str) -> str:
    """Return a unit's commit."""
    return f"{RUNS}/{run}/commits/{unit}.parquet"


def index(run: str, number: int) -> str:
    """Return an index file."""
    return f"{RUNS}/{run}/index/{number:06d}.parquet"


def requests(run: str, number: int) -> str:
    """Return a part of the manifest as the run saw it."""
    return _part(requests_folder(run), number)


def grid_requests(run: str, number: int) -> str:
    """Return a part of the rows of a grid as the run saw them: they are beside the campaign's own manifest."""
    return _part(grid_requests_folder(run), number)


def first_part(folder: str) -> str:
    """Return the part of a manifest that is written last: with it the manifest is whole."""
    return _part(folder, 0)


def _part(folder: str, number: int) -> str:
    return f"{folder}/part-{number:05d}.parquet"


def grid_requests_folder(run: str) -> str:
    """Return the folder of the rows of a grid as a run saw them."""
    return f"{RUNS}/{run}/grid"


def grid_file(name: str, file: str) -> str:
    """Return a file that shows a grid."""
    return f"{REPORT}/grids/{name}/{file}"


def redo(run: str) -> str:
    """Return the list of outputs whose commits by earlier runs are void from this one on."""
    return f"{RUNS}/{run}/redo.parquet"


def snapshot(run: str) -> str:
    """Return what is done as of the end of a run; an empty file says that the run was followed before it wrote one."""
    return f"{RUNS}/{run}/snapshot.parquet"


def takedown(run: str) -> str:
    """Return the record of what was taken down while a lease was held."""
    return f"{TAKEDOWNS}/{run}.parquet"


def run_json(run: str) -> str:
    """Return the run's own record."""
    return f"{RUNS}/{run}/run.json"


def reviews(run: str) -> str:
    """Return the list of the files of decisions that a run's metadata were made with; not there where it had none."""
    return f"{RUNS}/{run}/reviews.json"


def status_json(run: str) -> str:
    """Return the run's live counts."""
    return f"{RUNS}/{run}/status.json"


def metadata(run: str) -> str:
    """Return the folder of a run's effective rows."""
    return f"metadata/{run}/"


def part(run: str, number: int) -> str:
    """Return one part of a run's effective rows."""
    return f"{metadata(run)}part-{number:05d}.parquet"


def requests_folder(run: str) -> str:
    """Return the folder of the manifest as a run saw it."""
    return f"{RUNS}/{run}/requests"


def is_run(name: str) -> bool:
    """Whether a folder's name is a run's id."""
    return _RUN.fullmatch(name) is not None


def run_of(path: str) -> str | None:
    """Return the run a path under runs/ belongs to."""
    pieces = path.split("/")
    return pieces[1] if len(pieces) > 2 and pieces[0] == RUNS and _RUN.fullmatch(pieces[1]) else None


def is_commit(path: str) -> bool:
    """Whether a path is a unit's commit."""
    return _COMMIT.fullmatch(path) is not None


def is_index(path: str) -> bool:
    """Whether a path is an index file."""
    return _INDEX.fullmatch(path) is not None


def is_takedown(path: str) -> bool:
    """Whether a path is a record of what was taken down."""
    return _TAKEDOWN.fullmatch(path) is not None


def is_redo(path: str) -> bool:
    """Whether a path is a run's list of void outputs."""
    return run_of(path) is not None and path == redo(path.split("/")[1])
