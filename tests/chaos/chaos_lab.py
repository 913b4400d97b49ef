"""What a case of `make chaos` works with: real commands in processes of their own, a real S3 server, the end state.

    rows --> job file --> `sdbatch run` (with a plan of faults) --> Ended          campaign --> end_state() --> State

Nothing here knows what a case is about.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from chaos_points import Point
from PIL import Image
from support.servers import BUCKET, KEY, SECRET, S3Server, descendants

import sdbatch
from sdbatch.campaign import layout
from sdbatch.campaign.read import read_commit
from sdbatch.storage import open_store

ROOT = Path(__file__).parents[2]
INJECT = Path(__file__).parent / "inject"
RUN_TIMEOUT_S = 300.0
"""A run that takes longer hangs: its case fails."""
START_TIMEOUT_S = 100.0
GONE_WITHIN_S = 90.0
"""After a driver's end, all that it started must be gone by itself within so long. Ray's agents look for their raylet
only now and then: on a busy machine they were seen to outlive it by up to a minute."""
S3_BACK_AFTER_S = 3.0
WORKERS = 2
BATCH_SIZE = 4

Rows = list[dict[str, Any]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Ended:
    """How a command ended.

    Attributes:
        exit_code: Negative for a signal.
        wall_s: Seconds from its start.
        result: What it printed as JSON, {} when it printed nothing.
        said: The end of its standard error.
        left: Titles of the processes that outlived it by more than `GONE_WITHIN_S`.
    """

    exit_code: int
    wall_s: float
    result: dict[str, Any]
    said: str
    left: list[str]


@dataclass(frozen=True, slots=True, kw_only=True)
class State:
    """What a campaign holds, hashed here from the stored files.

    Attributes:
        assets: sha256 by path of every file under assets/.
        rows: (id, request key, n) to (status, sha256 or error class), from the effective metadata, in its order.
        unit_rows: Rows of each commit.
        problems: What `verify` found.
        num_orphans: Assets no commit refers to.
    """

    assets: dict[str, str]
    rows: list[tuple[tuple[str, str, int | None], tuple[str, str]]]
    unit_rows: list[int]
    problems: list[str]
    num_orphans: int


@dataclass(slots=True, kw_only=True)
class Running:
    """A command that runs, with all that comes of it.

    Attributes:
        process: Its driver.
        tag: Stands in the environment of every process that comes of it.
        folder: Of the case.
        started_s: Monotonic.
    """

    process: subprocess.Popen[bytes]
    tag: str
    folder: Path
    started_s: float = field(default_factory=time.monotonic)

    def wait(self, timeout_s: float = RUN_TIMEOUT_S) -> Ended:
        """Wait for the end and for what came of it to be gone; kill what is left."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(timeout_s)
        wall_s = time.monotonic() - self.started_s
        timed_out = self.process.poll() is None
        if timed_out:
            self.process.kill()
            self.process.wait()
        deadline_s = time.monotonic() + GONE_WITHIN_S
        while (left := tagged([self.tag])) and time.monotonic() < deadline_s:
            time.sleep(0.1)
        titles = [title(pid) for pid in left]
        kill_tagged([self.tag])
        said = (self.folder / f"{self.tag}.err").read_text()[-3000:]
        lines = [line for line in (self.folder / f"{self.tag}.out").read_text().splitlines() if line.startswith("{")]
        return Ended(
            exit_code=124 if timed_out else self.process.returncode,
            wall_s=round(wall_s, 1),
            result=json.loads(lines[-1]) if lines else {},
            said=said,
            left=titles,
        )

    def workers(self) -> list[int]:
        """Return the process ids of its workers."""
        return [pid for pid in descendants(self.process.pid) if "SdbatchWorker" in title(pid)]

    def raylets(self) -> list[int]:
        """Return the process ids of its raylets."""
        return [pid for pid in descendants(self.process.pid) if title(pid).partition(" ")[0].endswith("/raylet")]


def title(pid: int) -> str:
    """Return a process's command line; "" when it is gone."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()[:200]
    except OSError:
        return ""


def tagged(tags: list[str]) -> list[int]:
    """Return the processes whose environment holds one of the tags; the dead that nobody has reaped have none."""
    found = []
    for environ in Path("/proc").glob("[0-9]*/environ"):
        with contextlib.suppress(OSError):
            values = environ.read_bytes()
            if any(tag.encode() in values for tag in tags):
                found.append(int(environ.parent.name))
    return found


def kill_tagged(tags: list[str]) -> None:
    """Kill what came of some commands, by process id."""
    for pid in tagged(tags):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


class Lab:
    """Starts commands and the S3 server; a context manager.

    Args:
        folder: Where everything lies.

    Attributes:
        ray_folder: For Ray's own files.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder.resolve()
        self._server: S3Server | None = None
        self._environment = dict(os.environ)
        self._tags: list[str] = []
        # Ray's socket names are cut at 107 bytes, so its folder is short.
        self.ray_folder = tempfile.mkdtemp(prefix="sdb", dir="/tmp")

    def __enter__(self) -> Self:
        self.folder.mkdir(parents=True, exist_ok=True)
        os.environ["SDBATCH_CACHE"] = str(self.folder / "cache")
        os.environ["AWS_EC2_METADATA_DISABLED"] = "true"
        os.environ["SDBATCH_DEVICE"] = "cpu"  # the GPUs of a case are numbers alone
        return self

    def __exit__(self, *_: object) -> None:
        kill_tagged(self._tags)
        if self._server is not None:
            self._server.end()
        for name in os.environ.keys() - self._environment.keys():
            del os.environ[name]
        os.environ.update(self._environment)
        shutil.rmtree(self.ray_folder, ignore_errors=True)

    def s3_pid(self) -> int:
        """Return the S3 server's process id, starting it when it does not run yet."""
        if self._server is None:
            data = self.folder / "s3"
            shutil.rmtree(data, ignore_errors=True)
            data.mkdir()
            self._server = S3Server(data, back_after_s=S3_BACK_AFTER_S)
            os.environ.update(
                AWS_ACCESS_KEY_ID=KEY, AWS_SECRET_ACCESS_KEY=SECRET, AWS_ENDPOINT_URL=self._server.endpoint
            )
        return self._server.pid

    def case_folder(self, name: str) -> Path:
        """Return an empty folder for a case."""
        path = self.folder / "work" / name.replace("/", "-")
        shutil.rmtree(path, ignore_errors=True)
        path.mkdir(parents=True)
        return path

    def output(self, folder: Path, store: str) -> str:
        """Return a fresh campaign for a case."""
        if store == "local":
            return str(folder / "campaign")
        self.s3_pid()
        return f"s3://{BUCKET}/{folder.name}-{uuid.uuid4().hex[:8]}"

    def write_job(self, folder: Path, rows: Rows, output: str, **changes: Any) -> Path:
        """Write a manifest and a small job; return the job's path."""
        names = list(dict.fromkeys(key for row in rows for key in row))
        (folder / "manifest").mkdir(exist_ok=True)
        table = pa.table({key: [row.get(key) for row in rows] for key in names})
        pq.write_table(table, folder / "manifest" / "part-0.parquet")
        job = {
            "manifest": str(folder / "manifest"),
            "output": output,
            "models": {"tiny": {"path": "builtin:tiny-random", "batch_size": BATCH_SIZE}},
            "defaults": {"task": "text-to-image", "num_inference_steps": 2, "guidance_scale": 3.0},
            "sources": {"allow": [str(self.folder)]},
            "workers": {"count": WORKERS},
            "determinism": "exact",
            "seed": 11,
            "limits": {"start_timeout_s": START_TIMEOUT_S},
            **changes,
        }
        path = folder / "job.yaml"
        path.write_text(json.dumps(job))  # JSON is YAML
        return path

    def draw_source(self) -> str:
        """Return a picture for image-to-image rows."""
        path = self.folder / "source.png"
        if not path.is_file():
            values = np.linspace(0, 255, 96 * 80 * 3).reshape(80, 96, 3)
            Image.fromarray(values.astype(np.uint8)).save(path)
        return str(path)

    def rows(self, count: int) -> Rows:
        """Return `count` distinct rows, every fourth an image-to-image one."""
        edit = {"task": "image-to-image", "images": [self.draw_source()], "strength": 0.8, "num_inference_steps": 3}
        return [
            {"id": f"row-{n:04d}", "prompt": f"scene number {n}", **(edit if n % 4 == 3 else {})} for n in range(count)
        ]

    def start(self, job: Path, plan: Mapping[str, Any] | None = None, *options: str, **environment: str) -> Running:
        """Start `sdbatch run` with faults; the plan's files lie beside the job."""
        tag = f"chaos-{uuid.uuid4().hex}"
        self._tags.append(tag)
        folder = job.parent
        values = {
            **os.environ,
            "PYTHONPATH": os.pathsep.join([str(INJECT), str(INJECT.parents[1]), str(ROOT)]),
            "RAY_TMPDIR": self.ray_folder,
            "OMP_NUM_THREADS": "1",
            "MKL_NUM_THREADS": "1",
            "SDBATCH_CHAOS": json.dumps({"folder": str(folder), **(plan or {})}),
            "SDBATCH_CHAOS_TAG": tag,
            **environment,
        }
        values.pop("SDBATCH_CHAOS_DRIVER", None)
        command = [sys.executable, "-m", "sdbatch", "run", str(job), "--json", *options]
        with (folder / f"{tag}.out").open("wb") as out, (folder / f"{tag}.err").open("wb") as err:
            process = subprocess.Popen(command, env=values, stdout=out, stderr=err, start_new_session=True)
        return Running(process=process, tag=tag, folder=folder)

    def run(self, job: Path, plan: Mapping[str, Any] | None = None, *options: str) -> Ended:
        """Start `sdbatch run` and wait for its end."""
        return self.start(job, plan, *options).wait()


def plan_of(point: Point, victim: str, s3_pid: int | None, signal_number: int = signal.SIGKILL) -> dict[str, Any]:
    """Return the plan by which a victim is struck at a point."""
    return {
        "point": {"name": point.name, "process": point.process, "passage": point.passage},
        "victim": victim,
        "signal": int(signal_number),
        "s3_pid": s3_pid,
        "constants": {"sdbatch.campaign.index:INDEX_EVERY_COMMITS": 2},
    }


def made_seeds(folder: Path) -> list[str]:
    """Return the seed of every output that ever came out of a pipeline in a case."""
    path = folder / "made"
    return [seed for line in path.read_text().splitlines() for seed in line.split()[2:]] if path.is_file() else []


def wait_for_made(running: Running, count: int) -> None:
    """Wait until so many outputs came out of the pipelines of a run's case.

    Raises:
        TimeoutError: When the run ended, or hangs, before that.
    """
    deadline_s = time.monotonic() + RUN_TIMEOUT_S
    while len(made_seeds(running.folder)) < count:
        if running.process.poll() is not None or time.monotonic() > deadline_s:
            raise TimeoutError(f"{count} outputs were not made: exit code {running.process.poll()}")
        time.sleep(0.02)


def end_state(output: str) -> State:
    """Read back what a campaign holds, and verify it."""
    store = open_store(output, {})
    assets = {entry.path: hashlib.sha256(store.read(entry.path)).hexdigest() for entry in store.list("assets")}
    commits = [entry.path for entry in store.list("runs") if layout.is_commit(entry.path)]
    rows = sdbatch.metadata(output).select(["id", "request_key", "n", "status", "sha256", "error_type"]).to_pylist()
    report = sdbatch.verify(output)
    return State(
        assets=assets,
        rows=[
            ((row["id"], row["request_key"], row["n"]), (row["status"], row["sha256"] or row["error_type"] or ""))
            for row in rows
        ],
        unit_rows=[read_commit(store, path, ["id"]).num_rows for path in commits],
        problems=[f"{finding.kind} {finding.asset} {finding.detail}" for finding in report.findings],
        num_orphans=len(report.orphans),
    )


def counts_of(output: str, name: str) -> int:
    """Return a count summed over all runs of a campaign that lived to write it down."""
    store = open_store(output, {})
    paths = [entry.path for entry in store.list("runs") if entry.path.endswith("/run.json")]
    return sum(int(json.loads(store.read(path))["counts"][name]) for path in paths)


def differences(reference: State, found: State) -> dict[str, int]:
    """Return how many outputs are missing, doubled, other or half against an undisturbed run."""
    wanted, there = dict(reference.rows), dict(found.rows)
    return {
        "missing": len(wanted.keys() - there.keys()) + len(reference.assets.keys() - found.assets.keys()),
        "doubled": len(found.rows) - len(there) + len(found.assets.keys() - reference.assets.keys()),
        "other": sum(there[key] != value for key, value in wanted.items() if key in there)
        + sum(found.assets[path] != digest for path, digest in reference.assets.items() if path in found.assets),
        "half": len(found.problems),
    }
