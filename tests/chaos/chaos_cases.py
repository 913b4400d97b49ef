"""What is done to a run, and what must hold afterwards: one function a kind of case, one table of all cases.

    case --> Lab: the command, the fault, the same command again --> Found (figures, problems)

No problems means that it passed. A reference is the same rows run undisturbed.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import signal
import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from chaos_lab import (
    INJECT,
    ROOT,
    START_TIMEOUT_S,
    WORKERS,
    Ended,
    Lab,
    Rows,
    Running,
    State,
    counts_of,
    differences,
    end_state,
    made_seeds,
    plan_of,
    tagged,
    wait_for_made,
)
from chaos_points import POINTS, VICTIMS, Point, Victim, kills

KILL_ROWS = 40
RANDOM_ROWS = 400
POISON_ROWS = 600
POISON_ROUNDS = 2
POISON_STEPS = 24
"""A bad row costs the run a few seconds of imports and deadlines, so a row that takes a hundredth of a second proves
nothing about one that takes ten."""
POISON_DEADLINE_S = 5.0
NULL_ROWS = 10_000
NULL_SETTLED_ROWS = 1_000
WALL_RATIO_MAX = 1.5
RSS_GROWTH_MAX = 0.10
"""Memory while rows are made may be this share above its largest value in the first 1,000."""
SEED = 20261121
UNITS_IN_FLIGHT = 2
HELD_EXIT_CODE = 4
_SHARE = {"worker": 1, "driver": WORKERS, "raylet": WORKERS, "cluster": WORKERS, "s3": WORKERS}
"""How many workers lose what they had in flight."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """What a case showed.

    Attributes:
        problems: What did not hold; empty is good.
        figures: Counts and seconds, printed.
    """

    problems: list[str]
    figures: dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One line of the table.

    Attributes:
        name: `kind/...`, unique.
        act: Does it, in an empty folder.
    """

    name: str
    act: Callable[[Lab, Path], Found]


_references: dict[str, State] = {}


def reference(lab: Lab, rows: Rows) -> State:
    """Return what an undisturbed run of these rows leaves; run once per session."""
    key = json.dumps(rows)
    if key not in _references:
        folder = lab.case_folder(f"reference-{len(_references)}")
        output = lab.output(folder, "local")
        ended = lab.run(lab.write_job(folder, rows, output), None, "--in-process")
        assert ended.exit_code == 0, ended.said
        _references[key] = end_state(output)
    return _references[key]


# --- kills ----------------------------------------------------------------------------------------------------------


def kill_at(point: Point, victim: Victim, store: str, lab: Lab, folder: Path, *options: str) -> Found:
    """Strike a victim at a point, then run the same command, which may have options, again."""
    rows = lab.rows(KILL_ROWS)
    wanted = reference(lab, rows)
    output = lab.output(folder, store)
    job = lab.write_job(folder, rows, output)
    plan = plan_of(point, victim, lab.s3_pid() if store == "s3" else None)
    first = lab.run(job, plan, *options)
    problems = struck_problems(folder)
    if problems:
        return Found(problems=problems, figures={"exit": first.exit_code})
    made_before = len(made_seeds(folder))
    second = lab.run(job, plan, *options)
    problems += ended_problems(victim, first, second)
    if first.exit_code == 0 and len(made_seeds(folder)) != made_before:
        problems.append("the second run made something although the first had ended well")
    figures = {"struck": struck(folder), **ended_figures(first, second)}
    return judged(folder, output, wanted, _SHARE[victim], problems, figures)


def kill_some_time(victim: Victim, store: str, lab: Lab, folder: Path) -> Found:
    """Kill a victim at a random moment (after so many outputs) of a longer run, then run the same command again."""
    rows = lab.rows(RANDOM_ROWS)
    wanted = reference(lab, rows)
    output = lab.output(folder, store)
    job = lab.write_job(folder, rows, output)
    s3_pid = lab.s3_pid() if store == "s3" else 0
    moment = random.Random(f"{SEED}-{victim}-{store}").randrange(1, RANDOM_ROWS)
    running = lab.start(job)
    wait_for_made(running, moment)
    chosen = {
        "worker": running.workers()[:1],
        "driver": [running.process.pid],
        "raylet": running.raylets(),
        "cluster": [running.process.pid, *tagged([running.tag])],
        "s3": [s3_pid],
    }[victim]
    for pid in chosen:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    first = running.wait()
    second = lab.run(job)
    problems = ended_problems(victim, first, second) + ([] if chosen else ["there was nothing to kill"])
    figures = {"seed": SEED, "killed_at": f"{moment} made", **ended_figures(first, second)}
    return judged(folder, output, wanted, _SHARE[victim], problems, figures)


def struck_problems(folder: Path) -> list[str]:
    """Say why nothing was struck: a case must not pass because nothing happened."""
    if (folder / "broken").is_file():
        return [(folder / "broken").read_text()]
    return [] if (folder / "struck").is_file() else ["the point was never passed"]


def struck(folder: Path) -> str:
    """Say what was struck, by its process name."""
    path = folder / "strikes"
    return path.read_text().strip() if path.is_file() else "nothing"


def ended_problems(victim: Victim, first: Ended, second: Ended) -> list[str]:
    """Say what is wrong with how the two commands ended."""
    problems = []
    if victim in {"driver", "cluster"} and first.exit_code != -signal.SIGKILL:
        problems.append(f"the first run ended with {first.exit_code}, not by the kill: {first.said[-300:]}")
    if victim == "worker" and first.exit_code != 0:
        problems.append(f"the first run ended with {first.exit_code}: {first.said[-300:]}")
    for name, ended in (("first", first), ("second", second)):
        if ended.exit_code == 124:
            problems.append(f"the {name} run hung")
        if ended.left:
            problems.append(f"processes outlived the {name} run: {ended.left}")
    if second.exit_code != 0:
        problems.append(f"the second run ended with {second.exit_code}: {second.said[-300:]}")
    return problems


def ended_figures(first: Ended, second: Ended) -> dict[str, Any]:
    """Return exit codes and seconds of two commands."""
    figures = {
        "exit": f"{first.exit_code}, {second.exit_code}",
        "wall_s": f"{first.wall_s:g}, {second.wall_s:g}",
    }
    if first.exit_code > 0:
        figures["said"] = (first.result.get("message") or first.said.strip())[-200:].replace("\n", " ")
    return figures


def judged(
    folder: Path, output: str, wanted: State, workers_hit: int, problems: list[str], figures: dict[str, Any]
) -> Found:
    """Compare the end state with an undisturbed run's, and count what was made again."""
    found = end_state(output)
    counts = differences(wanted, found)
    seeds = made_seeds(folder)
    again = len(seeds) - len(set(seeds))
    bound = workers_hit * UNITS_IN_FLIGHT * max(found.unit_rows, default=0)
    problems = [*problems, *(f"{number} {name}" for name, number in counts.items() if number), *found.problems[:3]]
    if again > bound:
        problems.append(f"{again} outputs were made again, over {bound}")
    if found.num_orphans:
        problems.append(f"{found.num_orphans} orphans")
    figures |= {
        "ok": sum(status == "ok" for _, (status, _) in found.rows),
        **counts,
        "made": len(seeds),
        "again": f"{again} <= {bound}",
        "adopted": counts_of(output, "assets_adopted"),
        "model_calls": counts_of(output, "model_calls"),
    }
    return Found(problems=problems, figures=figures)


# --- two drivers, zombies, edits, clocks ----------------------------------------------------------------------------


def two_drivers(store: str, lab: Lab, folder: Path) -> Found:
    """Start the same command twice at once: one makes, the other is refused."""
    rows = lab.rows(KILL_ROWS)
    wanted = reference(lab, rows)
    output = lab.output(folder, store)
    job = lab.write_job(folder, rows, output)
    running = [lab.start(job), lab.start(job)]
    codes = sorted(each.wait().exit_code for each in running)
    problems = [] if codes == [0, HELD_EXIT_CODE] else [f"the two ended with {codes}"]
    return judged(folder, output, wanted, 0, problems, {"exit": str(codes)})


def zombie(store: str, lab: Lab, folder: Path) -> Found:
    """Stop a whole run just before a commit, let another take over after a term, then wake the first."""
    rows = lab.rows(KILL_ROWS)
    wanted = reference(lab, rows)
    output = lab.output(folder, store)
    job = lab.write_job(folder, rows, output)
    point = next(point for point in POINTS if point.name == "before-the-commit")
    first = lab.start(job, plan_of(point, "cluster", None, signal.SIGSTOP))
    wait_for_file(folder / "struck", first)
    time.sleep(1.0)
    stopped = tagged([first.tag])
    second = lab.run(job)
    for pid in stopped:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGCONT)
    woken = first.wait()
    third = lab.run(job)
    problems = struck_problems(folder)
    if second.exit_code != 0 or third.exit_code != 0:
        problems.append(f"the second and third run ended with {second.exit_code}, {third.exit_code}: {second.said}")
    if woken.exit_code != 1 or "took the campaign over" not in woken.said + json.dumps(woken.result):
        problems.append(f"the woken run ended with {woken.exit_code}: {woken.said[-300:]}")
    if third.result.get("counts", {}).get("model_calls") != 0:
        problems.append("the third run called the model")
    figures = {
        "exit": f"{woken.exit_code}, {second.exit_code}, {third.exit_code}",
        "wall_s": f"{second.wall_s:g}",
    }
    return judged(folder, output, wanted, WORKERS, problems, figures)


def wait_for_file(path: Path, running: Running, timeout_s: float = 120.0) -> None:
    """Wait until a file is there. Raises TimeoutError."""
    deadline_s = time.monotonic() + timeout_s
    while not path.is_file():
        if running.process.poll() is not None or time.monotonic() > deadline_s:
            raise TimeoutError(f"{path.name} did not come: exit code {running.process.poll()}")
        time.sleep(0.05)


def edited_between(store: str, lab: Lab, folder: Path) -> Found:
    """Kill a run, edit the manifest, run; put the old manifest back, run."""
    rows = lab.rows(KILL_ROWS)
    changed = [{**row, "prompt": f"{row['prompt']}, by night"} for row in rows[:5]]
    edited = [*changed, *rows[8:], *({**row, "id": f"new-{row['id']}"} for row in rows[8:11])]
    wanted, wanted_edited = reference(lab, rows), reference(lab, edited)
    output = lab.output(folder, store)
    point = next(point for point in POINTS if point.name == "after-the-commit")
    first = lab.run(lab.write_job(folder, rows, output), plan_of(point, "driver", None))
    second = lab.run(lab.write_job(folder, edited, output))
    after_edit = end_state(output)
    third = lab.run(lab.write_job(folder, rows, output))
    found = end_state(output)
    problems = struck_problems(folder)
    codes = (first.exit_code, second.exit_code, third.exit_code)
    if codes != (-signal.SIGKILL, 0, 0):
        problems.append(f"the runs ended with {codes}")
    if after_edit.rows != wanted_edited.rows:
        problems.append("the edited manifest's rows differ from an undisturbed run's")
    if found.rows != wanted.rows:
        problems.append("the old manifest's rows differ from an undisturbed run's")
    if wanted.assets.keys() | wanted_edited.assets.keys() != found.assets.keys():
        problems.append("there are other assets than those of the two manifests")
    if found.problems:
        problems.extend(found.problems[:3])
    seeds = made_seeds(folder)
    figures = {
        "exit": str(codes),
        "ok": len(found.rows),
        "made": len(seeds),
        "assets": len(found.assets),
        "model_calls": counts_of(output, "model_calls"),
    }
    return Found(problems=problems, figures=figures)


def clock_jumps(seconds: int, kills_driver: bool, lab: Lab, folder: Path) -> Found:
    """Let the clock jump in every process amid a run, with or without the driver's death; run again."""
    rows = lab.rows(KILL_ROWS)
    wanted = reference(lab, rows)
    output = lab.output(folder, "local")
    job = lab.write_job(folder, rows, output)
    point = next(point for point in POINTS if point.name == "before-the-commit")
    number = signal.SIGKILL if kills_driver else 0
    plan = plan_of(point, "driver", None, number)
    plan |= {
        "clock_s": seconds,
        "clock_modules": [
            "sdbatch.campaign.lease",
            "sdbatch.campaign.write",
            "sdbatch.driver.one_run.session",
            "sdbatch.driver.one_run.records",
        ],
    }
    first = lab.run(job, plan)
    second = lab.run(job, plan)
    problems = struck_problems(folder)
    expected = (-signal.SIGKILL if kills_driver else 0, 0)
    if (first.exit_code, second.exit_code) != expected:
        problems.append(f"the runs ended with {first.exit_code}, {second.exit_code}: {first.said[-300:]}")
    if not kills_driver and second.result["counts"]["model_calls"]:
        problems.append("the second run called the model")
    if not second.result.get("run_id", "").startswith("r000002-"):
        problems.append(f"the second run is called {second.result.get('run_id')}")
    figures = {"runs": second.result.get("run_id"), **ended_figures(first, second)}
    return judged(folder, output, wanted, WORKERS if kills_driver else 0, problems, figures)


# --- poison ---------------------------------------------------------------------------------------------------------

POISON: dict[str, str] = {
    "corrupt": "SourceUnreadable",
    "missing": "SourceMissing",
    "raises": "GenerationFailed",
    "exits": "WorkerCrash",
    "hangs": "DeadlineExceeded",
    "nan": "BlankOutput",
}
"""Kind of a bad row to the class it must be recorded with."""


def poison(lab: Lab, folder: Path) -> Found:
    """One row in a hundred is bad, in six ways; clean and poisoned runs alternate.

    What ends a process costs a fixed few seconds of imports, so the rows are not the lightest that there are.
    """
    clean = [{**row, "num_inference_steps": POISON_STEPS} for row in lab.rows(POISON_ROWS)]
    bad = poisoned_rows(lab, clean)
    wanted = reference(lab, clean)
    walls: dict[str, list[float]] = {"clean": [], "poison": []}
    problems: list[str] = []
    last: State | None = None
    failures: dict[str, int] = {}
    for number in range(POISON_ROUNDS):
        for name, rows in (("clean", clean), ("poison", bad)):
            place = folder / f"{name}-{number}"
            place.mkdir()
            output = lab.output(place, "local")
            limits = {"deadline_min_s": POISON_DEADLINE_S, "start_timeout_s": START_TIMEOUT_S}
            ended = lab.run(lab.write_job(place, rows, output, limits=limits), {"poison": True})
            walls[name].append(ended.wall_s)
            if ended.exit_code != (0 if name == "clean" else 3):
                problems.append(f"{name} run {number} ended with {ended.exit_code}: {ended.said[-300:]}")
            if name == "poison" and ended.exit_code == 3:
                last, failures = end_state(output), ended.result["failures"]
                problems += poison_problems(bad, wanted, last)
    ratio = statistics.median(walls["poison"]) / statistics.median(walls["clean"])
    if ratio > WALL_RATIO_MAX:
        problems.append(f"poisoned runs took {ratio:.2f} times the clean ones', over {WALL_RATIO_MAX}")
    figures = {
        "rows": len(bad),
        "ok": sum(status == "ok" for _, (status, _) in last.rows) if last else 0,
        "failures": json.dumps(failures),
        "clean_s": json.dumps(walls["clean"]),
        "poison_s": json.dumps(walls["poison"]),
        "ratio": round(ratio, 2),
    }
    return Found(problems=problems, figures=figures)


def poisoned_rows(lab: Lab, rows: Rows) -> Rows:
    """Return the rows with one of each kind of poison laid over six of them, spread out."""
    corrupt = lab.folder / "corrupt.png"
    whole = Path(lab.draw_source()).read_bytes()
    corrupt.write_bytes(whole[: len(whole) // 2])
    edit = {"task": "image-to-image", "strength": 0.8, "num_inference_steps": POISON_STEPS}
    columns: dict[str, dict[str, Any]] = {
        "corrupt": {**edit, "images": [str(corrupt)]},
        "missing": {**edit, "images": [str(lab.folder / "absent.png")]},
        **{kind: {"prompt": f"a row that is bad [{kind}]"} for kind in ("raises", "exits", "hangs", "nan")},
    }
    result = [dict(row) for row in rows]
    for number, kind in enumerate(POISON):
        place = (2 * number + 1) * len(rows) // (2 * len(POISON)) // 4 * 4  # a text-to-image row's place
        result[place] = {"id": f"bad-{kind}", "prompt": "p", **columns[kind]}
    return result


def poison_problems(rows: Rows, clean: State, found: State) -> list[str]:
    """Say which row was not treated as it should be."""
    good = {key[0]: (key, value) for key, value in clean.rows}
    problems = []
    for (request_id, key, n), (status, detail) in found.rows:
        if request_id.startswith("bad-"):
            kind = request_id.removeprefix("bad-")
            if (status, detail) != ("failed", POISON[kind]):
                problems.append(f"{request_id}: {status} {detail}, not failed {POISON[kind]}")
        elif good.get(request_id) != ((request_id, key, n), (status, detail)):
            problems.append(f"{request_id}: {status} {detail}, not what an undisturbed run gave")
    if len(found.rows) != len(rows):
        problems.append(f"{len(found.rows)} rows in the metadata, not {len(rows)}")
    return problems + found.problems[:3]


# --- a cluster of three nodes ---------------------------------------------------------------------------------------


@contextlib.contextmanager
def environment(**values: str) -> Iterator[None]:
    """Set variables of this process while the block runs."""
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def node_lost(lab: Lab, folder: Path) -> Found:
    """A head and two nodes of one logical GPU each: one is lost amid the run and another joins."""
    from ray.cluster_utils import Cluster

    rows = lab.rows(RANDOM_ROWS)
    wanted = reference(lab, rows)
    output = lab.output(folder, "local")
    models = {"tiny": {"path": "builtin:tiny-random", "batch_size": 4, "num_gpus": 1}}
    job = lab.write_job(folder, rows, output, models=models)
    paths = os.pathsep.join([str(INJECT), str(INJECT.parents[1]), str(ROOT)])
    plan = json.dumps({"folder": str(folder)})
    with environment(RAY_AUTH_MODE="disabled", PYTHONPATH=paths, SDBATCH_CHAOS=plan, RAY_TMPDIR=lab.ray_folder):
        cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "num_gpus": 0})
        try:
            cluster.add_node(num_cpus=1, num_gpus=1)
            lost = cluster.add_node(num_cpus=1, num_gpus=1)
            running = lab.start(job, None, "--allow-open-ray", RAY_ADDRESS=cluster.address)
            wait_for_made(running, 60)
            pids_before = made_pids(folder)
            cluster.remove_node(lost, allow_graceful=False)
            cluster.add_node(num_cpus=1, num_gpus=1)
            first = running.wait()
        finally:
            cluster.shutdown()
    problems = [] if first.exit_code == 0 else [f"the run ended with {first.exit_code}: {first.said[-300:]}"]
    counts = first.result.get("counts", {})
    if not counts.get("worker_deaths"):
        problems.append("no death of a worker was counted")
    if len(made_pids(folder)) < 3:
        problems.append("the node that joined made nothing")
    figures = {
        "exit": first.exit_code,
        "wall_s": first.wall_s,
        "workers": f"{len(pids_before)}, then {len(made_pids(folder))}",
        "deaths": counts.get("worker_deaths"),
    }
    return judged(folder, output, wanted, 1, problems, figures)


def made_pids(folder: Path) -> set[str]:
    """Return the processes that made something in a case."""
    path = folder / "made"
    return {line.split()[1] for line in path.read_text().splitlines()} if path.is_file() else set()


# --- memory ---------------------------------------------------------------------------------------------------------


def memory(lab: Lab, folder: Path) -> Found:
    """10,000 rows whose model costs nothing: the memory of driver and workers must not grow while they are made.

    At the end the driver compacts the metadata, 16,384 rows at a time; that peak is printed beside.
    """
    rows = [{"id": f"row-{number:05d}", "prompt": f"scene {number}"} for number in range(NULL_ROWS)]
    output = lab.output(folder, "local")
    running = lab.start(lab.write_job(folder, rows, output), {"null_model": True})
    curves: dict[str, list[tuple[int, float]]] = {}
    while running.process.poll() is None and time.monotonic() - running.started_s < 900:
        made = len(made_seeds(folder))
        for name, pid in [("driver", running.process.pid), *((f"worker {p}", p) for p in running.workers())]:
            with contextlib.suppress(OSError):
                pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
                curves.setdefault(name, []).append((made, pages * os.sysconf("SC_PAGE_SIZE") / 2**20))
        time.sleep(0.5)
    ended = running.wait()
    problems = [] if ended.exit_code == 0 else [f"the run ended with {ended.exit_code}: {ended.said[-300:]}"]
    figures: dict[str, Any] = {"rows": NULL_ROWS, "exit": ended.exit_code, "wall_s": ended.wall_s}
    for name, curve in curves.items():
        working = [(made, mib) for made, mib in curve if 0 < made < NULL_ROWS]
        settled = max((mib for made, mib in working if made <= NULL_SETTLED_ROWS), default=0.0)
        growth = max(mib for _, mib in working) / settled - 1 if settled else 0.0
        figures[f"{name}_mib"] = "; ".join(f"{made}: {mib:.0f}" for made, mib in thinned(working))
        if growth > RSS_GROWTH_MAX:
            problems.append(f"{name} grew by {growth:.0%} after the first {NULL_SETTLED_ROWS} rows")
    figures["compaction_mib"] = round(max(mib for made, mib in curves["driver"] if made == NULL_ROWS))
    found = end_state(output)
    if len({key for key, _ in found.rows}) != NULL_ROWS or found.problems:
        problems.append(f"{len(found.rows)} rows in the metadata; {found.problems[:3]}")
    return Found(problems=problems, figures=figures)


def thinned(curve: list[tuple[int, float]]) -> list[tuple[int, float]]:
    """Return the last point of each tenth of the rows."""
    last = {made * 10 // NULL_ROWS: (made, mib) for made, mib in curve if made}
    return [last[tenth] for tenth in sorted(last)]


# --- the table ------------------------------------------------------------------------------------------------------


def cases() -> list[Case]:
    """Return every case of `make chaos`, in its order."""
    table = [
        Case(name=f"kill/{store}/{point.name}/{victim}", act=partial(kill_at, point, victim, store))
        for point, victim, store in kills()
    ]
    table += [
        Case(name=f"random/{store}/{victim}", act=partial(kill_some_time, victim, store))
        for store in ("local", "s3")
        for victim in VICTIMS
        if (store, victim) != ("local", "s3")
    ]
    for store in ("local", "s3"):
        table.append(Case(name=f"two-drivers/{store}", act=partial(two_drivers, store)))
        table.append(Case(name=f"zombie/{store}", act=partial(zombie, store)))
        table.append(Case(name=f"edited/{store}", act=partial(edited_between, store)))
    table += [
        Case(name="clock/day-ahead", act=partial(clock_jumps, 86_400, False)),
        Case(name="clock/day-back", act=partial(clock_jumps, -86_400, False)),
        Case(name="clock/day-ahead-and-a-kill", act=partial(clock_jumps, 86_400, True)),
        Case(name="clock/day-back-and-a-kill", act=partial(clock_jumps, -86_400, True)),
        Case(name="poison", act=poison),
        Case(name="nodes/one-lost-one-joined", act=node_lost),
        Case(name="memory", act=memory),
    ]
    return table
