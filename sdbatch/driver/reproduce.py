"""One asset rendered again, from its metadata alone, and compared with the stored one.

    metadata row --> Request --> Renderer in this process --> encoder --> file --> how far apart?

The worker renders and encodes with the same code. The campaign is read and never written, and nothing in it decides
what else is read: see `trusted`.
"""

# F frames, H and W pixels, C = 3 channels.

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from sdbatch.after import choose_stages, load_judges
from sdbatch.campaign import layout
from sdbatch.campaign.campaign import Campaign
from sdbatch.campaign.effective import with_own_assets
from sdbatch.campaign.read import read_commit
from sdbatch.campaign.schema import METADATA
from sdbatch.campaign.tombstones import read_tombstones
from sdbatch.columns import SOURCE_ROLES
from sdbatch.driver.alone import alone_in_process
from sdbatch.driver.trusted import NOBODY, Trust, checked_recipe, trusted_job
from sdbatch.encode.asset import read_frames
from sdbatch.encode.embedded import Encoded
from sdbatch.encode.video import SITING, SITING_BEFORE
from sdbatch.errors import UserError
from sdbatch.formats import CLIPS
from sdbatch.job import Job
from sdbatch.plan.sources import asset_name, listed
from sdbatch.storage import Store
from sdbatch.types import Request, Source
from sdbatch.worker.finish import finish_output
from sdbatch.worker.outputs import CallPlan, FailedOutput, RenderedOutput
from sdbatch.worker.record import Recorder
from sdbatch.worker.render import Renderer

TOLERANCE = 1
"""Difference of 8-bit values that a batch of another size, or another CPU, may cause."""

_COMPARED = ("device", "batch_size", "pipeline_class", "scheduler")


@dataclass(frozen=True, slots=True, kw_only=True)
class ReproduceReport:
    """The distance between an asset that was rendered again and the stored one.

    Attributes:
        id: Id of the request.
        request_key: Key of the request.
        n: Output number.
        asset: Path of the stored file.
        sha256: Digest of the stored file, as it is now.
        is_as_committed: Whether that is the digest its commit has.
        is_same_file: Whether the new file has the same bytes.
        difference_max: Largest difference of a value, 0..255; None when the shapes differ or nothing came out.
        differing_share: Share of all values that differ, 0..1.
        psnr_db: Peak signal-to-noise ratio; None when no value differs.
        tolerance: Largest difference that counts as equal.
        changed: What is not as it was: library versions, device, batch size, ...: (then, now) by name.
        fault: Why there is nothing to compare.
    """

    id: str
    request_key: str
    n: int
    asset: str
    sha256: str
    is_as_committed: bool
    is_same_file: bool
    difference_max: int | None = None
    differing_share: float = 0.0
    psnr_db: float | None = None
    tolerance: int = TOLERANCE
    changed: dict[str, tuple[Any, Any]] = field(default_factory=dict)
    fault: str | None = None

    @property
    def is_equal(self) -> bool:
        """Whether no value is further off than the tolerance."""
        return self.difference_max is not None and self.difference_max <= self.tolerance


def reproduce_asset(
    store: Store, request_id: str, n: int = 0, *, trust: Trust = NOBODY, tolerance: int = TOLERANCE
) -> ReproduceReport:
    """Render an asset again and compare.

    Args:
        store: The campaign.
        request_id: Id of the request; it is rendered at the key that the newest manifest gave it.
        n: Output number.
        trust: What the caller vouches for; see `sdbatch.driver.trusted`.
        tolerance: Largest difference of an 8 bit value that counts as equal.

    Raises:
        UserError: When there is no such asset, its metadata was changed, or the caller does not say where its model
            and its sources lie.
        MachineError: When the model is not there, or no longer the one it was.
    """
    row, commit = _row(store, request_id, n)
    recipe = checked_recipe(row, commit)
    job = trusted_job(row, recipe, _record(store, row), trust)
    try:
        stored = store.read(row["asset"])
    except FileNotFoundError as error:
        raise UserError(f"{store.url}/{row['asset']}: is not in the store; `sdbatch redo` makes it again") from error
    with alone_in_process(in_process=True):
        output = _rendered(job, store, row)
        again, encoded = _finished(job, output)
    report = {
        **{name: row[name] for name in ("id", "request_key", "n", "asset")},
        "sha256": hashlib.sha256(stored).hexdigest(),
        "is_as_committed": hashlib.sha256(stored).hexdigest() == row["sha256"],
        "is_same_file": encoded is not None and stored == encoded.data,
        "tolerance": tolerance,
        "changed": _changed(row, again),
    }
    if encoded is None:
        return ReproduceReport(**report, fault=f"{again['error_type']}: {again.get('error_message')}")
    try:
        stored_FHWC = _frames(stored, row["asset"].rpartition(".")[2], row)
    except OSError as error:
        return ReproduceReport(**report, fault=f"{row['asset']}: {error}")
    apart = distance(stored_FHWC, _frames(encoded.data, encoded.suffix, again))
    if encoded.suffix in CLIPS and apart.get("difference_max", 0) > tolerance:
        _, encoded = _finished(job, output, siting=SITING_BEFORE)
        before = distance(stored_FHWC, _frames(encoded.data, encoded.suffix, again)) if encoded else apart
        if before.get("difference_max", tolerance + 1) <= tolerance:
            report["is_same_file"], apart = encoded is not None and stored == encoded.data, before
    return ReproduceReport(**report, **apart)


def distance(one_FHWC: NDArray[np.uint8], two_FHWC: NDArray[np.uint8]) -> dict[str, Any]:
    """Return `difference_max`, `differing_share` and `psnr_db` of two assets, or the `fault` of their shapes."""
    if one_FHWC.shape != two_FHWC.shape:
        return {"fault": f"frames, height, width are {one_FHWC.shape[:3]} stored and {two_FHWC.shape[:3]} now"}
    most, differing, squares = 0, 0, 0.0
    for one_HWC, two_HWC in zip(one_FHWC, two_FHWC, strict=True):  # a frame at a time: a clip's floats are many
        apart_HWC = np.abs(one_HWC.astype(np.int16) - two_HWC)
        most = max(most, int(apart_HWC.max()))
        differing += int(np.count_nonzero(apart_HWC))
        squares += float(np.square(apart_HWC, dtype=np.float64).sum())
    psnr_db = 10 * math.log10(255**2 * one_FHWC.size / squares) if squares else None
    return {"difference_max": most, "differing_share": differing / one_FHWC.size, "psnr_db": psnr_db}


def _frames(data: bytes, suffix: str, row: Mapping[str, Any]) -> NDArray[np.uint8]:
    return read_frames(data, suffix, row["height"], row["width"])


# --- what the metadata says -----------------------------------------------------------------------------------------


def _row(store: Store, request_id: str, n: int) -> tuple[dict[str, Any], str]:
    """Return the metadata row of an asset, and the commit that it stands in."""
    outcomes = Campaign(store).outcomes_of(request_id)
    committed = outcomes.filter(pc.equal(outcomes.column("status"), "ok"))
    rows = [row for row in committed.to_pylist() if row["n"] == n]
    if not rows:
        numbers = ", ".join(map(str, sorted(set(committed.column("n").to_pylist()))))
        if not numbers:
            raise UserError(f"{store.url}: no asset of {request_id} is committed; `sdbatch metadata` lists what is")
        raise UserError(f"{store.url}: no asset of {request_id} with n {n} is committed; there are: {numbers}")
    key = Campaign(store).newest_key(request_id)
    wanted = next((row for row in rows if row["request_key"] == key), rows[-1])
    table = read_commit(store, wanted["commit"], METADATA.names)
    asset_row: dict[str, Any] = next(
        (row for row in table.to_pylist() if all(row[name] == wanted[name] for name in ("id", "request_key", "n"))), {}
    )
    if read_tombstones(store).cover(pa.Table.from_pylist([wanted], outcomes.schema)).any():
        raise UserError(f"{store.url}: {request_id} with n {n} was taken down, and is not rendered again")
    recipe = asset_row.get("recipe") or ""
    if hashlib.sha256(recipe.encode()).hexdigest() != asset_row.get("request_key"):
        raise UserError(f"{wanted['commit']}: the recipe of {request_id} is not the one its request key was made from")
    return asset_row, wanted["commit"]


def _record(store: Store, row: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """Return the record of the asset's run, or of the newest that knows its model."""
    own = Campaign(store).record(row["run_id"]) if layout.is_run(row["run_id"] or "") else None
    records = [own] if own else Campaign(store).records()
    return next((record for record in records if row["model"] in record.get("job", {}).get("models", {})), None)


# --- what comes out now ---------------------------------------------------------------------------------------------


def _rendered(job: Job, store: Store, row: dict[str, Any]) -> RenderedOutput | FailedOutput:
    renderer = Renderer(job, {row["model"]: row["model_revision"]}, campaign=store)
    (output,) = renderer.render([_request(row, store)], CallPlan(batch_size=row["batch_size"] or 1))
    return output


def _finished(
    job: Job, output: RenderedOutput | FailedOutput, siting: str = SITING
) -> tuple[dict[str, Any], Encoded | None]:
    """Return what the metadata would say of an output now, and its file; None when there is none."""
    recorder = Recorder(job=job, worker="reproduce")
    if isinstance(output, FailedOutput):
        return recorder.failed_rows(output)[0], None
    again = recorder.rendered_row(output, 0.0)
    finished = finish_output(output, job, load_judges(choose_stages(job.stages), "cpu", "cpu"), siting=siting)
    return {**again, **finished.columns}, finished.encoded


def _request(row: dict[str, Any], store: Store) -> Request:
    roles = [(role, url) for role in SOURCE_ROLES for url in listed(row[role])]
    digests = row["source_digests"] or []
    if len(digests) != len(roles):
        raise UserError(f"{row['id']}: its row has {len(roles)} sources and {len(digests)} digests")
    sources = tuple(
        Source(role=role, url=url, digest=digest, asset=_asset(store, url, digest))
        for (role, url), digest in zip(roles, digests, strict=True)
    )
    return Request(
        id=row["id"],
        request_key=row["request_key"],
        recipe=row["recipe"],
        outputs=(row["n"],),
        sources=sources,
        model=row["model"],
        batch_key="reproduce",
        cost_tflop=1.0,
    )


def _asset(store: Store, url: str, digest: str) -> str:
    """Return where the campaign has an output that was a source; "" where it has none of that content."""
    name = asset_name(url)
    outcomes = Campaign(store).outcomes_of(name.id) if name else None
    for commit in pc.unique(outcomes.column("commit")).to_pylist() if outcomes is not None else ():
        for row in with_own_assets(read_commit(store, commit, ["id", "n", "asset", "sha256"])).to_pylist():
            if name == (row["id"], row["n"]) and digest == f"sha256:{row['sha256']}" and row["asset"]:
                return str(row["asset"])
    return ""


def _changed(then: dict[str, Any], now: dict[str, Any]) -> dict[str, tuple[Any, Any]]:
    """Return by name what differs between the two renderings: its value then and now."""
    now = dict.fromkeys(_COMPARED) | now  # a request that failed came to no pipeline call
    changed = {name: (then[name], now[name]) for name in _COMPARED if now[name] is not None and then[name] != now[name]}
    before, after = _versions(then), _versions(now)
    names = sorted(before.keys() | after.keys())
    return changed | {
        name: (before.get(name), after.get(name)) for name in names if before.get(name) != after.get(name)
    }


def _versions(row: Mapping[str, Any]) -> dict[str, Any]:
    try:
        found = json.loads(row["versions"] or "{}")
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}
