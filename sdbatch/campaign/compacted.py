"""The newest compacted metadata, compared with the commits that its run could see, for `verify`."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from typing import Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from sdbatch.campaign import layout
from sdbatch.campaign.committed import is_of_runs_to
from sdbatch.campaign.digests import (
    Digests,
    DigestTable,
    digest_order,
    id_digests,
    numbers_of,
    output_digests,
    request_digests,
)
from sdbatch.campaign.effective import ASKED, winners
from sdbatch.campaign.excluded import unwanted_outputs
from sdbatch.campaign.files import newest_run_with_manifest, request_parts
from sdbatch.campaign.findings import Finding, file_finding, output_finding
from sdbatch.campaign.read import read_json, read_part
from sdbatch.campaign.schema import METADATA
from sdbatch.campaign.tombstones import Tombstones
from sdbatch.errors import UserError
from sdbatch.storage import Store
from sdbatch.verdicts import Verdicts

_SAME: Final = ("status", "asset", "sha256")
_COMPARED: Final = pa.schema([METADATA.field(name) for name in ("id", "request_key", "n", *_SAME)])


def metadata_findings(
    store: Store, rows: pa.Table, verdicts_of: Callable[[Sequence[str]], Verdicts], tombstones: Tombstones
) -> tuple[list[Finding], int]:
    """Compare the newest compacted metadata with what is committed; return its number of rows too.

    Args:
        store: The campaign.
        rows: Outcomes that count, in (run, unit) order.
        verdicts_of: See `verify_campaign`.
        tombstones: What was taken down: metadata from before and after it are both right.
    """
    try:
        latest = read_json(store, layout.LATEST)
        run, folder, claimed = str(latest["run_id"]), str(latest["path"]).rstrip("/"), int(latest["rows"])
    except FileNotFoundError:
        run = newest_run_with_manifest(store) or ""
        detail = f"is not there, though {run} ended"
        return ([file_finding("metadata", layout.LATEST, detail)] if _has_ended(store, run) else []), 0
    except (ValueError, KeyError, TypeError, OverflowError) as error:
        return [file_finding("metadata", layout.LATEST, f"is not readable ({str(error)[:100]}); run again")], 0
    if f"{folder}/" != layout.metadata(run):
        return [file_finding("metadata", layout.LATEST, f"names {folder[:100]!r}, not {layout.metadata(run)}")], 0
    findings: list[Finding] = []
    try:
        verdicts = verdicts_of(_files_of_decisions(store, run))
    except UserError as error:
        return [file_finding("reviews", layout.reviews(run), f"names a file that is not readable: {error}")], 0
    effective = tombstones.laid_over(_effective(store, run, rows, findings, verdicts))
    is_seen = np.zeros(effective.num_rows, np.bool_)
    num_rows = 0
    order = digest_order(_outputs(effective), np.arange(effective.num_rows))
    outputs = DigestTable(_outputs(effective).take(order))
    for entry in store.list(folder):
        try:
            part = tombstones.laid_over(read_part(store, entry.path, _COMPARED, is_whole=True))
        except (pa.ArrowException, ValueError) as error:
            findings.append(file_finding("metadata", entry.path, f"is not readable ({error})"))
            continue
        num_rows += part.num_rows
        place = np.append(order, -1)[outputs.positions(_outputs(part))]
        findings += _part_findings(entry.path, part, effective, place, is_seen)
    unseen = effective.filter(pa.array(~is_seen))
    detail = f"is committed and not in {folder}/"
    findings += [output_finding("metadata", row, detail) for row in unseen.to_pylist()]
    if num_rows != claimed:
        detail = f"has {num_rows} rows, {layout.LATEST} says {claimed}"
        findings.append(file_finding("metadata", f"{folder}/", detail))
    return findings, num_rows


def _part_findings(
    path: str, part: pa.Table, effective: pa.Table, place: NDArray[np.int64], is_seen: NDArray[np.bool_]
) -> Iterator[Finding]:
    """Compare one part with the effective rows it should hold, and mark these as seen."""
    is_there = place >= 0
    _, first = np.unique(place, return_index=True)
    is_first = np.zeros(len(place), np.bool_)
    is_first[first] = True
    is_twice = is_there & (~is_first | np.append(is_seen, False)[place])
    is_seen[place[is_there]] = True
    committed = effective.take(pa.array(place, mask=~is_there))
    differing = {name: _differs(part.column(name), committed.column(name)) for name in _SAME}
    for row in np.flatnonzero(~is_there | is_twice | np.logical_or.reduce(list(differing.values()))).tolist():
        (values,) = part.slice(row, 1).to_pylist()
        if is_twice[row]:
            yield output_finding("metadata", values, f"{path} has this output twice")
        elif not is_there[row]:
            yield output_finding("metadata", values, f"{path} has a row that no commit has")
        else:
            name = next(name for name in _SAME if differing[name][row])
            yield output_finding("metadata", values, f"{path} and its commit differ in {name}")


def _differs(one: pa.ChunkedArray, two: pa.ChunkedArray) -> NDArray[np.bool_]:
    """Say where two columns differ; null is equal to null."""
    is_equal = pc.or_(pc.fill_null(pc.equal(one, two), False), pc.and_(pc.is_null(one), pc.is_null(two)))
    differs: NDArray[np.bool_] = ~np.asarray(is_equal).astype(np.bool_)
    return differs


def _outputs(rows: pa.Table) -> Digests:
    requests = request_digests(id_digests(rows.column("id")), rows.column("request_key"))
    return output_digests(requests, numbers_of(rows.column("n")))


def _effective(store: Store, run: str, rows: pa.Table, findings: list[Finding], verdicts: Verdicts) -> pa.Table:
    """Return the outcomes a run's metadata must hold: those of its manifest, committed by it or before."""
    seen = rows.filter(is_of_runs_to(rows, run))
    counting = winners(seen)
    digests = request_digests(id_digests(counting.column("id")), counting.column("request_key"))
    is_wanted = np.zeros(counting.num_rows, np.bool_)
    unwanted = unwanted_outputs(seen, counting, verdicts)
    marked = _rows_of(counting, unwanted)
    for path in request_parts(store, run):
        try:
            asked = read_part(store, path, ASKED, is_whole=True)
        except (pa.ArrowException, ValueError) as error:
            findings.append(file_finding("requests", path, f"is not readable ({error}); run again"))
            continue
        requests = request_digests(id_digests(asked.column("id")), asked.column("request_key"))
        order = digest_order(requests, np.arange(asked.num_rows))
        place = np.append(order, -1)[DigestTable(requests.take(order)).positions(digests)]
        num_outputs = np.append(np.asarray(asked.column("num_outputs")).astype(np.int64), -1)[place]
        is_shown = numbers_of(counting.column("n")) < num_outputs
        for row, request, n in marked:
            if place[row] >= 0 and n is not None:
                is_shown[row] = n in unwanted[request].shown(int(num_outputs[row]))
        is_wanted |= (place >= 0) & is_shown
    return counting.filter(pa.array(is_wanted))


def _rows_of(
    counting: pa.Table, requests: Collection[tuple[str, str]]
) -> list[tuple[int, tuple[str, str], int | None]]:
    """Return (row, request, n) of the rows of some requests."""
    ids = pa.array(sorted({request_id for request_id, _ in requests}), pa.string())
    rows = np.flatnonzero(np.asarray(pc.is_in(counting.column("id"), ids)).astype(np.bool_))
    names = ("id", "request_key", "n")
    columns = [counting.column(name).take(pa.array(rows)).to_pylist() for name in names]
    places = zip(rows.tolist(), *columns, strict=True)
    return [(row, (request_id, key), n) for row, request_id, key, n in places if (request_id, key) in requests]


def _files_of_decisions(store: Store, run: str) -> list[str]:
    """Return the files of decisions that a run's metadata were made with."""
    try:
        return [str(path) for path in read_json(store, layout.reviews(run))["files"]]
    except FileNotFoundError:
        return []
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"{store.url}/{layout.reviews(run)}: {str(error)[:100]}") from error


def _has_ended(store: Store, run: str) -> bool:
    """Whether a run wrote its record as one that ends with metadata."""
    try:
        return bool(run) and read_json(store, layout.run_json(run)).get("state") in {"done", "failed"}
    except (FileNotFoundError, ValueError):
        return False
