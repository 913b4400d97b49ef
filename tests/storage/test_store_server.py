"""The S3 server of the tests ends with the process that started it, also where that one is killed."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

STARTS_ONE = """
import sys, time
from pathlib import Path
from support.servers import S3Server
print(S3Server(Path(sys.argv[1])).pid, flush=True)
time.sleep(60)
"""


@pytest.mark.usefixtures("s3_endpoint")  # skips where there is no server
def test_server_ends_with_its_killed_starter(tmp_path: Path) -> None:
    tests = str(Path(__file__).parents[1])
    with subprocess.Popen(
        [sys.executable, "-c", STARTS_ONE, str(tmp_path)],
        env={**os.environ, "PYTHONPATH": os.pathsep.join([tests, *sys.path])},
        stdout=subprocess.PIPE,
    ) as starter:
        assert starter.stdout is not None
        pid = int(starter.stdout.readline())
        os.kill(pid, 0)
        starter.send_signal(signal.SIGKILL)
    deadline_s = time.monotonic() + 10
    while _runs(pid):
        assert time.monotonic() < deadline_s, f"process {pid} runs on"
        time.sleep(0.05)


def _runs(pid: int) -> bool:
    """Whether a process is there; one that only waits for its parent is not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False
