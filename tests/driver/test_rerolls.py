"""Rows with unwanted outputs: what a run makes of them, and what is then shown, by many drawn stories."""

from __future__ import annotations

import hashlib
import random
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from sdbatch.campaign import layout
from sdbatch.campaign.campaign import Campaign
from sdbatch.campaign.excluded import RowOutputs
from sdbatch.campaign.schema import VOID, table, to_parquet
from sdbatch.campaign.snapshot import write_snapshot
from sdbatch.campaign.write import put_asset, put_commit, with_lineage
from sdbatch.driver.compact import write_metadata
from sdbatch.driver.judged import effective_rows, verify_with_decisions
from sdbatch.driver.one_run.meeting_seeds import MeetingSeeds
from sdbatch.driver.one_run.rerolls import Choice, Rules, choose, review_lines
from sdbatch.driver.one_run.select import classify
from sdbatch.driver.picking import Selection
from sdbatch.driver.rows.parts import with_digests
from sdbatch.review.decision import Decision
from sdbatch.review.files import add_decisions, read_verdicts
from sdbatch.storage import Store, open_store
from sdbatch.types import Request

RULES = Rules(is_retried=(True, False, False), rerolls=3, is_rerolling=True)
"""Of three failures the first is tried again; the last entry stands for no failure."""
IDS = tuple(f"row-{number}" for number in range(5))
KEY = hashlib.sha256(b"recipe").hexdigest()
STAGES = "d" * 64


def _outputs(**parts: Any) -> RowOutputs:
    return RowOutputs(**parts)


def _rolled(n: int, old: int) -> Choice:
    return Choice(reason="reroll", outputs=(n,), replaces={n: old}, further=(n,))


@pytest.mark.parametrize(
    ("row", "num_outputs", "choice"),
    [
        (_outputs(made={0, 1}, rejected={0}), 2, Choice(reason="reroll", outputs=(2,), replaces={2: 0}, further=(2,))),
        (_outputs(made={0, 1, 2}, rejected={0}, replaced={0}), 2, Choice(reason="reused")),
        (
            _outputs(made={0, 1, 2}, rejected={0, 1, 2}, replaced={1}),
            2,
            Choice(reason="reroll", outputs=(3, 4), replaces={3: 0, 4: 2}, further=(3, 4)),
        ),
        (_outputs(made={0}, rejected={0}), 2, Choice(reason="outputs", outputs=(1, 2), replaces={2: 0}, further=(2,))),
        (_outputs(made={0, 1, 2, 3}, rejected={0, 1, 2, 3}), 1, Choice(reason="reused", num_given_up=1)),
        (_outputs(blocked={0: 1}), 1, Choice(reason="reroll", outputs=(1,), replaces={1: 0}, further=(1,))),
        (_outputs(blocked={0: 0}), 1, Choice(reason="retry", outputs=(0,))),
        (_outputs(made={1}, blocked={0: 0}, replaced={0}), 1, Choice(reason="reused")),
        (_outputs(made={0}, rejected={0}, failed={1: 1}), 1, Choice(reason="failed", failure=1)),
        (
            _outputs(made={0}, rejected={0}, failed={1: 0}),
            1,
            Choice(reason="reroll", outputs=(1,), replaces={1: 0}, further=(1,)),
        ),
        (_outputs(made={0}, rejected={0}, failed={-1: 1}), 1, Choice(reason="failed", failure=1)),
        (
            _outputs(made={0}, rejected={0}, failed={1: 1}),
            2,
            Choice(reason="reroll", outputs=(2,), replaces={2: 0}, further=(2,)),
        ),
    ],
)
def test_what_a_reroll_makes(row: RowOutputs, num_outputs: int, choice: Choice) -> None:
    assert choose(row, num_outputs, RULES) == choice


@pytest.mark.parametrize(
    ("row", "choice"),
    [
        (_outputs(made={0}, rejected={0}), Choice(reason="reused", further=(1,))),
        (_outputs(blocked={0: 1}), Choice(reason="failed", failure=1, further=(1,))),
        (_outputs(made={0, 1}, rejected={0, 1}), Choice(reason="reused", further=(2,))),
    ],
)
def test_without_the_flag_outputs_wait_and_are_counted(row: RowOutputs, choice: Choice) -> None:
    rules = Rules(is_retried=RULES.is_retried, rerolls=3, is_rerolling=False)

    assert choose(row, 1, rules) == choice


def test_what_redo_names_is_made_again_and_nothing_beside_it() -> None:
    rules = Rules(is_retried=RULES.is_retried, rerolls=3, is_rerolling=False)
    row = _outputs(made={0, 1}, rejected={0, 1})

    assert choose(row, 2, rules, frozenset({3})) == Choice(
        reason="reroll", outputs=(3,), replaces={3: 0}, further=(2, 3)
    )


def test_a_person_is_told_what_waits_and_what_is_given_up() -> None:
    assert review_lines(0, 0, 3) == []
    assert review_lines(3, 0, 3) == ["3 output(s) that were rejected or blocked wait for `run --reroll`"]
    assert "limits.rerolls = 3" in review_lines(0, 2, 3)[0]


def test_rolled_seeds_that_meet_another_rows_are_told() -> None:
    def recipe(seed: int, prompt: str = "p") -> str:
        seed_text = f'"{seed}"' if seed >= 2**53 else str(seed)
        return f'{{"prompt":"{prompt}","seed":{seed_text},"task":"t"}}'

    rows = [("a", recipe(7), 1), ("b", recipe(8), 1), ("c", recipe(9, "other"), 1), ("d", recipe(2**62), 1)]
    rows += [("e", recipe(2**62 + 1), 1), ("f", '{"prompt":"\\"seed\\":8,","seed":8,"task":"t"}', 1)]
    table = pa.table(dict(zip(("id", "recipe", "num_outputs"), zip(*rows, strict=True), strict=True)))
    meeting = MeetingSeeds()
    assert meeting.line([table]) == []
    meeting.add("a", recipe(7), (1,))
    meeting.add("d", recipe(2**62), (1, 2))
    meeting.add("c", recipe(9, "other"), (1,))

    (line,) = meeting.line([table])
    assert "2 pair(s) of rows differ in their seeds alone" in line
    assert "(a and b, d and e)" in line


# --- stories --------------------------------------------------------------------------------------------------------


class _Story:
    """A campaign whose outputs are made by chance, as runs would, and judged by chance."""

    def __init__(self, folder: Path, seed: int) -> None:
        self.chance = random.Random(seed)
        self.store: Store = open_store(str(folder), {})
        self.num_outputs = {request_id: self.chance.randint(1, 3) for request_id in IDS}
        self.num_runs = 0
        self.num_decisions = 0
        self.lucky = False

    def asked(self) -> pa.Table:
        return pa.table(
            {
                "id": list(IDS),
                "request_key": [KEY] * len(IDS),
                "num_outputs": pa.array([self.num_outputs[name] for name in IDS], pa.int32()),
            }
        )

    def run(self, selection: Selection, void: list[dict[str, Any]] | None = None) -> dict[str, tuple[int, ...]]:
        """Make what a run would; some of it is blocked, or fails. Return the outputs by id."""
        self.num_runs += 1
        run = layout.run_id(self.num_runs, "20260101T000000Z")
        if void:
            self.store.put_new(layout.redo(run), to_parquet(table(void, VOID)))
        done = Campaign(self.store).done(read_verdicts(self.store))
        self.store.put_new(layout.requests(run, 0), to_parquet(self.asked()))
        (part,) = classify([with_digests(self.asked())], done, selection, STAGES, 2)
        made = dict(zip(IDS, part.outputs, strict=True))
        rows = []
        requests = []
        for place, (request_id, numbers) in enumerate(made.items()):
            replaces = tuple((request_id, n, old) for n, old in part.replaces.get(place, {}).items())
            requests.append(Request(request_id, KEY, "{}", numbers, (), "m", "b", 1.0, replaces=replaces))
            rows += [self._row(request_id, n) for n in numbers]
        if rows:
            assert put_commit(self.store, run, "000000", with_lineage(rows, requests))
        history = write_metadata(self.store, run)
        if self.chance.random() < 0.5:
            write_snapshot(self.store, run, history)
        return made

    def _row(self, request_id: str, n: int) -> dict[str, Any]:
        row = {"id": request_id, "request_key": KEY, "n": n, "task": "text-to-image"}
        luck = 1.0 if self.lucky else self.chance.random()
        if luck < 0.15:
            return {**row, "status": "blocked", "error_type": "SafetyChecker", "stages_digest": STAGES}
        if luck < 0.25:
            return {**row, "status": "failed", "error_type": "BlankOutput", "error_retryable": True}
        data = f"{request_id} {n} {self.num_runs}".encode()
        path = layout.asset(request_id, KEY, n, "png")
        stored = put_asset(self.store, path, data, "image/png", lambda _: True)
        return {
            **row,
            "status": "ok",
            "asset": path,
            "sha256": stored.sha256,
            "asset_bytes": stored.asset_bytes,
            "adopted": stored.adopted,
        }

    def judge(self, verdicts: tuple[str, ...] = ("rejected", "approved", "picked", "none")) -> None:
        """Let chance say something about some of what is shown."""
        decisions = []
        for row in self.shown():
            if row["status"] == "ok" and self.chance.random() < 0.5:
                self.num_decisions += 1
                verdict, by = self.chance.choice(verdicts), self.chance.choice(("jane", "joe"))
                at_ms = 1_790_000_000_000 + self.num_decisions
                decisions.append(Decision(row["id"], KEY, row["n"], row["sha256"], verdict, "", by, at_ms))
        add_decisions(self.store, decisions)

    def shown(self) -> list[dict[str, Any]]:
        return [row for part in effective_rows(self.store).parts() for row in part.to_pylist()]


@pytest.fixture(autouse=True)
def _no_fsync(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sdbatch.storage.local.os.fsync", lambda _: None)


@pytest.mark.parametrize("seed", range(6))
def test_plan_metadata_and_verify_agree_in_whatever_happens(seed: int, tmp_path: Path) -> None:
    story = _Story(tmp_path, seed)
    story.run(Selection())
    for _ in range(4):
        story.judge()
        before = {(row["id"], row["n"]): row for row in story.shown()}
        story.run(Selection(is_rerolling=story.chance.random() < 0.7))
        rows = story.shown()
        places = {(row["id"], row["n"]) for row in rows}

        report = verify_with_decisions(story.store)
        assert report.findings == ()
        assert report.metadata_rows == len(rows) == effective_rows(story.store).count()
        for request_id in IDS:
            mine = [row for row in rows if row["id"] == request_id]
            whole = [row for row in mine if row["status"] != "failed"]
            assert len(whole) <= story.num_outputs[request_id] <= len(mine)
            assert all(row["n"] < story.num_outputs[request_id] * 3 for row in mine)
        kept = {place for place, row in before.items() if row["verdict"] in {"approved", "picked"}}
        assert kept <= places, "an approval survives"
        replaced = {(row["id"], row["replaces"]) for row in rows if row["status"] == "ok"}
        assert not replaced & places, "what has its replacement is not shown"
    assert verify_with_decisions(story.store).is_good


def test_a_rejected_output_is_shown_until_its_replacement_is_made(tmp_path: Path) -> None:
    story = _Story(tmp_path, 1)
    story.lucky = True
    story.num_outputs = dict.fromkeys(IDS, 2)
    story.run(Selection())
    row = story.shown()[0]
    add_decisions(story.store, [Decision(row["id"], KEY, 0, row["sha256"], "rejected", "too dark", "jane", 1)])

    assert [(one["n"], one["verdict"], one["note"]) for one in story.shown()[:2]] == [
        (0, "rejected", "too dark"),
        (1, None, None),
    ]
    assert not any(story.run(Selection()).values())
    assert story.run(Selection(is_rerolling=True)) == {**dict.fromkeys(IDS, ()), IDS[0]: (2,)}
    assert [(one["n"], one["verdict"], one["replaces"]) for one in story.shown()[:2]] == [(1, None, None), (2, None, 0)]
    assert not any(story.run(Selection(is_rerolling=True)).values())
    assert verify_with_decisions(story.store).is_good


def test_a_decision_on_other_bytes_is_stale_and_does_not_count(tmp_path: Path) -> None:
    story = _Story(tmp_path, 1)
    story.lucky = True
    story.num_outputs = dict.fromkeys(IDS, 1)
    story.run(Selection())
    row = story.shown()[0]
    add_decisions(story.store, [Decision(row["id"], KEY, 0, row["sha256"], "rejected", "", "jane", 1)])
    story.store.delete(row["asset"])
    void = [{"id": row["id"], "request_key": KEY, "n": 0}]

    assert story.run(Selection(), void)[IDS[0]] == (0,), "the file that was rejected is gone, so its number is free"
    anew = story.shown()[0]
    assert anew["sha256"] != row["sha256"]
    assert (anew["n"], anew["verdict"]) == (0, None), "a picture made anew is open again"
    assert not any(story.run(Selection(is_rerolling=True)).values())


def test_decisions_bind_to_an_id_and_to_a_key(tmp_path: Path) -> None:
    story = _Story(tmp_path, 1)
    story.lucky = True
    story.num_outputs = dict.fromkeys(IDS, 1)
    story.run(Selection())
    row = story.shown()[0]
    others = [
        Decision("somebody-else", KEY, 0, row["sha256"], "rejected", "", "jane", 1),
        Decision(row["id"], "f" * 64, 0, row["sha256"], "rejected", "", "jane", 1),
    ]
    add_decisions(story.store, others)

    assert not any(story.run(Selection(is_rerolling=True)).values())
    assert {one["verdict"] for one in story.shown()} == {None}


def test_decisions_after_a_run_do_not_disturb_its_metadata(tmp_path: Path) -> None:
    story = _Story(tmp_path, 3)
    story.run(Selection())
    story.judge()
    story.run(Selection(is_rerolling=True))
    story.judge(("rejected",))

    assert len(story.store.list("reviews")) == 2
    assert verify_with_decisions(story.store).is_good
    first = min(entry.path for entry in story.store.list("reviews"))
    story.store.delete(first)
    (finding,) = verify_with_decisions(story.store).findings
    assert finding.kind == "reviews"
    assert first in finding.detail


def test_only_commits_of_the_manifests_own_rows_are_read_for_decisions(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    story = _Story(tmp_path, 1)
    story.lucky = True
    story.run(Selection())
    rows = story.shown()
    add_decisions(
        story.store, [Decision(one["id"], KEY, one["n"], one["sha256"], "rejected", "", "jane", 1) for one in rows]
    )
    reads: list[str] = []
    read = story.store.read

    def noted(path: str) -> bytes:
        reads.append(path)
        return read(path)

    monkeypatch.setattr(story.store, "read", noted)
    done = Campaign(story.store).done(read_verdicts(story.store))
    before = len(reads)
    other = story.asked().set_column(0, "id", pa.array([f"new-{name}" for name in IDS]))
    list(classify([with_digests(other)], done, Selection(), STAGES, 2))
    assert len(reads) == before
    list(classify([with_digests(story.asked())], done, Selection(), STAGES, 2))
    assert len(reads) == before + 1
    list(classify([with_digests(story.asked())], done, Selection(), STAGES, 2))
    assert len(reads) == before + 1, "what was compared once is remembered"
