"""Nodes come and go: a cluster of several on this machine, each with processes of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

SCRIPT = """
import json, sys, threading, time
from pathlib import Path

import ray
from ray._raylet import GcsClient
from ray.cluster_utils import Cluster
from ray.core.generated import autoscaler_pb2

sys.path.insert(0, {tests!r})
from test_dispatcher import Job, _request
from sdbatch.dispatch.executor import Shape
from sdbatch.dispatch import ray_cluster
from sdbatch.dispatch.ray_cluster import RayExecutor
from sdbatch.types import WorkerSpec

ray_cluster.NODES_POLL_S = 0.5
folder = Path({folder!r})
cluster = Cluster(initialize_head=True, head_node_args={{"num_cpus": 0, "include_dashboard": False}})
cluster.connect(namespace="sdbatch")  # while there is the head alone: the node a driver joined takes it along
for _ in range(3):
    cluster.add_node(num_cpus=1, num_gpus=1)
spec = WorkerSpec(job={{}}, output=str(folder), run_id="nodes", lease_epoch=1, lease_token="", revisions={{}})
executor = RayExecutor(spec, "support.workers:FollowedWorker")
shape = Shape(num_gpus=1, num_cpus=1, memory_gib=None)
job = Job(executor, [_request(f"nap-{{n:03d}}") for n in range(150)], shapes={{"a": shape}})
story = {{}}

def drain():
    while len(job.done) < 20 or "w0" not in job.dispatcher.facts:
        time.sleep(0.1)
    reason = autoscaler_pb2.DrainNodeReason.Value("DRAIN_NODE_REASON_PREEMPTION")
    story["drained"] = job.dispatcher.facts["w0"]["node"]
    deadline_ms = int((time.time() + 300) * 1000)
    GcsClient(address=cluster.address).drain_node(story["drained"], reason, "spot", deadline_ms)
    (folder / "drained").touch()

threading.Thread(target=drain, daemon=True).start()
job.dispatcher.run()
story["done"] = sorted(job.done)
story["set_aside"] = job.set_aside
story["deaths"] = job.dispatcher.worker_deaths
story["retries"] = job.dispatcher.retries
story["node_of"] = {{name: facts["node"] for name, facts in job.dispatcher.facts.items()}}
story["log"] = (folder / "log").read_text().splitlines()
executor.close()
ray.shutdown()
cluster.shutdown()
print("STORY", json.dumps(story))
"""


def _story(script: str, folder: Path, *, timeout_s: float) -> dict[str, Any]:
    """Run a script with a cluster of several nodes in a process of its own; return what it tells."""
    text = script.format(tests=str(Path(__file__).parent), folder=str(folder))
    environment = {"PYTHONPATH": ":".join(sys.path), "RAY_AUTH_MODE": "disabled", "HOME": str(folder)}
    done = subprocess.run(
        [sys.executable, "-c", text],
        capture_output=True,
        text=True,
        timeout=timeout_s,
        env={**os.environ, **environment},
    )
    told = [line for line in done.stdout.splitlines() if line.startswith("STORY ")]
    assert told, done.stderr[-3000:]
    assert done.returncode == 0, done.stderr[-3000:]
    story: dict[str, Any] = json.loads(told[0].removeprefix("STORY "))
    return story


@pytest.mark.ray
@pytest.mark.slow
def test_a_draining_node_ends_what_it_has_is_fed_no_more_and_its_worker_moves(tmp_path: Path) -> None:
    story = _story(SCRIPT, tmp_path, timeout_s=540)

    assert story["done"] == [f"nap-{n:03d}" for n in range(150)]
    assert (story["set_aside"], story["deaths"], story["retries"]) == ([], 0, 0)
    assert len(story["node_of"]) == 3
    assert len(set(story["node_of"].values())) == 3
    workers = [line.split()[1] for line in story["log"]]
    assert "w2" in workers
    assert "w0" not in workers[workers.index("w2") :]


SIGHTLESS = """
import json, sys
from pathlib import Path

import ray
from ray.cluster_utils import Cluster

sys.path.insert(0, {tests!r})
from test_dispatcher import Job, _requests
from sdbatch.dispatch.executor import Shape
from sdbatch.dispatch.ray_cluster import RayExecutor
from sdbatch.types import WorkerSpec

folder = Path({folder!r})
cluster = Cluster(initialize_head=True, head_node_args={{"num_cpus": 0, "include_dashboard": False}})
cluster.connect(namespace="sdbatch")  # to the head, as above
for _ in range(2):
    cluster.add_node(num_cpus=2, num_gpus=2)
spec = WorkerSpec(job={{}}, output=str(folder), run_id="nodes", lease_epoch=1, lease_token="", revisions={{}})
executor = RayExecutor(spec, "support.workers:SightlessWorker")
shape = Shape(num_gpus=1, num_cpus=1, memory_gib=None)
job = Job(executor, _requests(40), shapes={{"a": shape}}, worker_count=2)
job.dispatcher.run()
facts = job.dispatcher.facts.values()
story = {{
    "done": len(job.done),
    "set_aside": job.set_aside,
    "nodes": sorted({{fact["node"] for fact in facts}}),
    "gpu_ids": sorted({{fact["gpu_ids"] for fact in facts}}),
    "broken": (folder / "broken").read_text(),
    "starts": (folder / "starts").read_text().split(),
}}
executor.close()
ray.shutdown()
cluster.shutdown()
print("STORY", json.dumps(story))
"""


@pytest.mark.long
@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.fault(
    "A4", "one of two nodes has a GPU that torch cannot use", "its workers are replaced, on the other node"
)
def test_a_node_whose_gpu_cannot_be_used_is_given_no_further_worker(tmp_path: Path) -> None:
    story = _story(SIGHTLESS, tmp_path, timeout_s=600)

    assert (story["done"], story["set_aside"]) == (40, [])
    assert story["broken"] not in story["nodes"]
    assert 1 <= story["starts"].count(story["broken"]) <= 2, "only those that were asked for before it was known"
    assert set(story["gpu_ids"]) <= {"0", "1"}
    assert story["gpu_ids"] != []
