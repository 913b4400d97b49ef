"""A round as a team goes it: made, judged by two people, rolled again, judged again, and what is then wanted."""

from __future__ import annotations

import json
import subprocess
import sys
import urllib.request
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from conftest import prompts
from support.decisions import made
from support.servers import end

import sdbatch
from sdbatch import Selection
from sdbatch.campaign import layout
from sdbatch.campaign.lease import acquire
from sdbatch.campaign.schema import to_parquet
from sdbatch.campaign.write import put_commit
from sdbatch.errors import UserError
from sdbatch.storage import open_store

WriteManifest = Callable[..., str]
JobOf = Callable[..., dict[str, Any]]
REROLL = Selection(is_rerolling=True)


def _shown(output: str) -> dict[str, str]:
    """Return the verdict of each effective output, by ID/N."""
    return {f"{row['id']}/{row['n']}": row["verdict"] or "open" for row in sdbatch.metadata(output).to_pylist()}


def _delivered(output: str) -> list[str]:
    """Deliver what is approved, and return the files that are there then."""
    target = Path(f"{output}-delivered")
    report = sdbatch.deliver(
        {
            "delivery": "shop",
            "campaign": output,
            "only": "approved",
            "to": str(target),
            "formats": [{"name": "square", "width": 32, "height": 32, "type": "png"}],
            "name": "{id}/{n}.{ext}",
        },
        prune=True,
    )
    assert report.state == "done"
    return sorted(str(file.relative_to(target).with_suffix("")) for file in target.rglob("*.png"))


def test_a_round_of_review(tmp_path: Path, write_manifest: WriteManifest, job_of: JobOf) -> None:
    job = job_of(write_manifest(prompts(3, num_outputs=2)), limits={"rerolls": 1})
    output = job["output"]

    def run(selection: Selection | None = None) -> dict[str, int]:
        result = sdbatch.run(job, selection, in_process=True)
        assert sdbatch.verify(output).is_good
        return {
            "made": result.counts["rows_generated"],
            "reused": result.counts["rows_reused"],
            "waiting": result.outputs_waiting,
            "given up": result.outputs_given_up,
        }

    assert run() == {"made": 6, "reused": 0, "waiting": 0, "given up": 0}

    # Jane's decisions come from a page, as a file, twice; Joe does not agree on one.
    rows = {f"{row['id']}/{row['n']}": row for row in sdbatch.metadata(output).to_pylist()}
    said = {"row-0000/0": "rejected", "row-0000/1": "approved", "row-0001/0": "picked", "row-0001/1": "approved"}
    lines = [
        {
            "format_version": 1,
            **{name: rows[place][name] for name in ("id", "request_key", "n", "sha256")},
            "verdict": verdict,
            "comment": "too dark" if verdict == "rejected" else "",
            "by": "jane",
            "at": "2026-11-26T10:00:00.000Z",
        }
        for place, verdict in said.items()
    ]
    stale = {**lines[0], "sha256": "0" * 64, "id": "row-0002", "request_key": rows["row-0002/0"]["request_key"]}
    file = tmp_path / "decisions.jsonl"
    file.write_text("".join(f"{json.dumps(line)}\n" for line in [*lines, stale]))
    first = sdbatch.review(output, decisions=file)
    assert (first.saved, sdbatch.review(output, decisions=file).saved) == (5, 0)
    assert first.verdicts == {"approved": 2, "open": 2, "picked": 1, "rejected": 1}
    assert [(one.id, one.verdict) for one in first.stale] == [("row-0002", "rejected")]
    report = sdbatch.review(output, reject=["row-0001/1"], approve=["row-0002"], by="joe", note="blurred")
    assert report.saved == 3
    assert report.verdicts == {"approved": 3, "picked": 1, "rejected": 2}
    noted = next(row for row in sdbatch.metadata(output).to_pylist() if (row["id"], row["n"]) == ("row-0001", 1))
    assert (noted["verdict"], noted["reviewed_by"], noted["note"]) == ("rejected", "joe", "blurred")
    assert _delivered(output) == ["row-0000/1", "row-0001/0", "row-0002/0", "row-0002/1"]

    # Of picked rows alone: what is decided, and what is told.
    first_row = Selection(where="id == 'row-0000'")
    told = sdbatch.review(output, selection=first_row)
    assert (told.outputs, told.verdicts, told.unknown) == (2, {"approved": 1, "rejected": 1}, 0)
    assert {one.id for one in told.decisions} == {"row-0000"}
    assert told.stale == []
    with pytest.raises(UserError, match="row-0001: means no output"):
        sdbatch.review(output, clear=["row-0001"], selection=first_row)
    assert (
        sdbatch.review(output, approve=["*"], by="jim", selection=Selection(where="verdict == 'approved'")).saved == 3
    )
    assert sdbatch.review(output, clear=["*"], by="jim", selection=Selection(where="reviewed_by == 'jim'")).saved == 3
    with pytest.raises(UserError, match="--import: takes in a whole file"):
        sdbatch.review(output, decisions=file, selection=first_row)

    # Without the flag nothing is made, and the plan says what waits.
    assert run() == {"made": 0, "reused": 3, "waiting": 2, "given up": 0}
    plan = sdbatch.plan(job)
    assert (plan.rows, plan.outputs_waiting, plan.assets) == ({"reused": 3}, 2, 0)
    plan = sdbatch.plan(job, REROLL)
    assert (plan.rows, plan.outputs_waiting, plan.assets) == ({"reroll": 2, "reused": 1}, 0, 2)
    assert run(REROLL) == {"made": 2, "reused": 1, "waiting": 0, "given up": 0}
    assert _shown(output) == {
        "row-0000/1": "approved",
        "row-0000/2": "open",
        "row-0001/0": "picked",
        "row-0001/2": "open",
        "row-0002/0": "approved",
        "row-0002/1": "approved",
    }
    anew = {row["n"]: row for row in sdbatch.metadata(output).to_pylist() if row["id"] == "row-0000"}
    assert anew[2]["replaces"] == 0
    assert anew[2]["seed"] == rows["row-0000/0"]["seed"] + 2
    assert _delivered(output) == ["row-0000/1", "row-0001/0", "row-0002/0", "row-0002/1"]

    # Rejected to the bound: the rest is given up, and said to be.
    sdbatch.review(output, reject=["row-0000/2"])
    assert run(REROLL)["made"] == 1
    sdbatch.review(output, reject=["row-0000/3"])
    assert run(REROLL) == {"made": 0, "reused": 3, "waiting": 0, "given up": 1}
    assert _shown(output)["row-0000/3"] == "rejected"

    # A second pick in a row is a conflict; taking it back settles it.
    conflict = sdbatch.review(output, pick=["row-0001/2"], by="joe")
    assert conflict.picks == ["row-0001: outputs 0, 2 are all picked; one of a row can be, so none of it is taken"]
    assert "row-0001/0" not in _delivered(output)
    assert sdbatch.review(output, clear=["row-0001/2"], by="joe").picks == []

    # An edited prompt is another request: its outputs are open, and going back brings the decisions back.
    other = {**prompts(1)[0], "prompt": "another", "num_outputs": 2}
    edited = job_of(write_manifest([other, *prompts(3, num_outputs=2)[1:]], name="edited"))
    sdbatch.run(edited, in_process=True)
    assert Counter(_shown(output).values())["open"] == 3
    assert run()["made"] == 0
    assert _shown(output)["row-0000/1"] == "approved"

    # Redo of a re-rolled output makes that one again, and no decision moves.
    asset = Path(output, "assets", f"row-0001-{rows['row-0001/0']['request_key'][:8]}-2.png")
    before = asset.read_bytes()
    asset.write_bytes(b"damaged")
    with pytest.raises(UserError, match="is not the file that the row tells of"):
        sdbatch.open_asset(output, "row-0001", 2)
    result = sdbatch.redo(job, in_process=True)
    assert result is not None
    assert result.counts["rows_generated"] == 1
    assert asset.read_bytes() == before
    assert sdbatch.verify(output).is_good
    assert sdbatch.gc(output, older_than_s=0).orphans == (), "what was rejected stays"

    # For notebooks.
    row = next(row for row in sdbatch.metadata(output).to_pylist() if row["id"] == "row-0002")
    assert sdbatch.open_asset(output, row).size == (64, 64)
    assert sdbatch.open_asset(output, "row-0002", 0, as_type="path") == Path(output, row["asset"])
    assert sdbatch.open_asset(output, row, as_type="bytes") == Path(output, row["asset"]).read_bytes()
    for meant, message in (("nobody", "has no id nobody"), ({**row, "asset": "../x"}, "has no asset")):
        with pytest.raises(UserError, match=message):
            sdbatch.open_asset(output, meant)

    _review_by_server(output)


def _review_by_server(output: str) -> None:
    """Let the command serve the campaign, and save a decision as its page does."""
    command = [sys.executable, "-m", "sdbatch", "review", output, "--no-browser", "--by", "kim"]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.PIPE)
    try:
        assert process.stderr is not None
        address = process.stderr.readline().decode().rpartition(" ")[2].strip()
        with urllib.request.urlopen(address, timeout=60) as page:
            assert b"sdbatch" in page.read()
        row = next(row for row in sdbatch.metadata(output).to_pylist() if row["id"] == "row-0002")
        line = {name: row[name] for name in ("id", "request_key", "n", "sha256")}
        body = json.dumps({**line, "verdict": "rejected", "at": "2026-11-27T00:00:00.000Z"}).encode()
        token = address.split("/")[3]
        headers = {
            "Origin": address[: address.index(token) - 1],
            "Content-Type": "application/jsonl",
            "X-Sdbatch-Token": token,
        }
        with urllib.request.urlopen(urllib.request.Request(f"{address}decisions", body, headers), timeout=60) as reply:
            assert json.load(reply) == {"saved": 1}
        process.terminate()
        assert process.wait(60) == 0
        assert process.stdout is not None
        assert b"1 decision saved" in process.stdout.read()
    finally:
        end(process)
    rejected = [row for row in sdbatch.metadata(output).to_pylist() if row["id"] == "row-0002" and row["n"] == 0]
    assert [(one["verdict"], one["reviewed_by"]) for one in rejected] == [("rejected", "kim")]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"approve": ["nobody*"]}, r"nobody\*: means no output that is made and wanted"),
        ({"pick": ["row-0000"]}, "means outputs 0 and 1; one of a row can be picked: row-0000/0"),
        ({"approve": ["row-*"], "reject": ["row-0001/1"]}, "row-0001/1: is to be both approved and rejected"),
        ({"approve": ["a/b/c"]}, "is no id, glob of ids or ID/N"),
        ({"note": "alone"}, "say which outputs it is about"),
        ({"approve": ["row-0000"], "note": "\x07"}, "has a control character"),
        ({"approve": ["row-0000"], "by": " "}, "is no name"),
        ({"decisions": "no-such-file.jsonl"}, "No such file"),
    ],
)
def test_what_cannot_be_meant_is_refused_and_nothing_is_added(
    drawn: str, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(UserError, match=message):
        sdbatch.review(drawn, **options)
    assert not open_store(drawn, {}).list("reviews")


def test_a_decision_from_a_clock_that_is_far_ahead_is_refused(drawn: str, tmp_path: Path) -> None:
    file = tmp_path / "decisions.jsonl"
    file.write_text(made(at="2999-01-01T00:00:00.000Z").line)

    with pytest.raises(UserError, match=r"beach.de-DE/0 is of 2999-01-01.*more than a day ahead"):
        sdbatch.review(drawn, decisions=file)
    assert not open_store(drawn, {}).list("reviews")


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A campaign of two rows with two outputs each, committed without a model."""
    folder = tmp_path_factory.mktemp("drawn")
    store = open_store(str(folder), {})
    acquire(store).release()
    run = layout.run_id(1, "20260101T000000Z")
    ids = ["row-0000", "row-0001"]
    asked = {"id": ids, "request_key": ["a" * 64] * 2, "num_outputs": pa.array([2, 2], pa.int32())}
    store.put_new(layout.requests(run, 0), to_parquet(pa.table(asked)))
    rows = [
        {"id": name, "request_key": "a" * 64, "n": n, "status": "ok", "sha256": f"{n}" * 64, "adopted": False}
        for name in ids
        for n in (0, 1)
    ]
    assert put_commit(store, run, "000000", rows)
    return str(folder)
