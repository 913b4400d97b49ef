"""Real processes that tests start: an S3 server that can be killed and comes back, and what came of any process.

Everything listens on loopback, on free ports, and is ended by its process id.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

BUCKET = "campaigns"
KEY, SECRET = "test-driver", "test-driver-secret"
S3_READY_S = 60.0
S3_STOP_S = 3.0


class S3Server:
    """SeaweedFS with one bucket.

    Args:
        folder: Empty; its data, configuration and log.
        back_after_s: How long after its death it is started again; None leaves it dead.
    """

    def __init__(self, folder: Path, back_after_s: float | None = None) -> None:
        self._folder = folder
        self._back_after_s = back_after_s
        identity = {"name": "driver", "credentials": [{"accessKey": KEY, "secretKey": SECRET}]}
        rights = [f"{right}:{BUCKET}" for right in ("Read", "List", "Tagging", "Write")]
        (folder / "s3.json").write_text(json.dumps({"identities": [{**identity, "actions": rights}]}))
        self._ports = free_ports(5)
        self._ender: subprocess.Popen[bytes] | None = None
        self.endpoint = f"http://127.0.0.1:{self._ports[0]}"
        self.deaths = 0
        self._ending = threading.Event()
        self._process = self._start()
        try:
            self._wait_for_bucket()
        except RuntimeError:
            self.end()
            raise
        if back_after_s is not None:
            threading.Thread(target=self._revive, daemon=True).start()

    @property
    def pid(self) -> int:
        """Process id of the server that runs now."""
        return self._process.pid

    def end(self) -> None:
        """Stop for good. It waits for open connections, so a kill follows; its store survives that."""
        self._ending.set()
        self._dismiss_ender()
        self._process.terminate()
        try:
            self._process.wait(S3_STOP_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def _start(self) -> subprocess.Popen[bytes]:
        port, *others = self._ports
        names = ("master", "volume", "filer", "admin")
        command = [
            str(Path(sys.executable).parent / "weed"),
            "mini",
            f"-dir={self._folder}",
            "-ip=127.0.0.1",
            "-ip.bind=127.0.0.1",
            "-master.telemetry=false",
            "-admin.ui=false",
            "-webdav=false",
            f"-s3.port={port}",
            "-s3.port.iceberg=0",
            "-s3.port.lance=0",
            f"-s3.config={self._folder}/s3.json",
            f"-bucket={BUCKET}",
            *(f"-{name}.port={other}" for name, other in zip(names, others, strict=True)),
        ]
        # Keys in its environment would make the server a second identity, with all rights.
        clean = {name: value for name, value in os.environ.items() if not name.startswith("AWS_")}
        with (self._folder / "log").open("ab") as log:
            server = subprocess.Popen(
                command, stdout=log, stderr=log, cwd=self._folder, env=clean, start_new_session=True
            )
        self._dismiss_ender()
        self._ender = _ended_with_us(server.pid)
        return server

    def _dismiss_ender(self) -> None:
        if self._ender is not None:
            self._ender.kill()
            self._ender.communicate()

    def _revive(self) -> None:
        assert self._back_after_s is not None, "a server that stays dead has nobody to revive it"
        while not self._ending.is_set():
            self._process.wait()
            if self._ending.wait(self._back_after_s):
                return
            self.deaths += 1
            self._process = self._start()

    def _wait_for_bucket(self) -> None:
        """Ready is when a signed write works, not when the health page answers."""
        import s3fs

        deadline_s = time.monotonic() + S3_READY_S
        while True:
            try:
                store = s3fs.S3FileSystem(key=KEY, secret=SECRET, endpoint_url=self.endpoint, skip_instance_cache=True)
                store.pipe_file(f"{BUCKET}/ready", b"yes")
            except OSError:
                if time.monotonic() > deadline_s:
                    said = (self._folder / "log").read_text()[-2000:]
                    raise RuntimeError(f"no S3 server after {S3_READY_S} s: {said}") from None
                time.sleep(0.3)
            else:
                return


def _ended_with_us(pid: int) -> subprocess.Popen[bytes]:
    """Start a process that kills another one when this one is gone, however it ended: its standard input then ends."""
    command = ["sh", "-c", f"read -r _; kill -9 {pid}"]
    return subprocess.Popen(command, stdin=subprocess.PIPE, start_new_session=True)


def free_ports(count: int) -> list[int]:
    """Return free ports below 55536: gRPC takes the port + 10000."""
    ports: list[int] = []
    for candidate in range(random.randrange(20_000, 30_000), 55_000, 7):  # others look for ports as well
        with socket.socket() as one, socket.socket() as two:
            try:
                one.bind(("127.0.0.1", candidate))
                two.bind(("127.0.0.1", candidate + 10_000))
            except OSError:
                continue
        ports.append(candidate)
        if len(ports) == count:
            return ports
    raise RuntimeError(f"no {count} free ports")


def end(process: subprocess.Popen[bytes]) -> None:
    """Kill a process and all that came of it (Ray puts its workers into groups of their own), by their ids."""
    for pid in [process.pid, *descendants(process.pid)]:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    process.wait()


def descendants(root: int) -> list[int]:
    """Return the ids of all processes that came of one."""
    children: dict[int, list[int]] = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            parent = int(stat.read_text().rpartition(")")[2].split()[1])
            children.setdefault(parent, []).append(int(stat.parent.name))
    found = list(children.get(root, []))
    for pid in found:
        found.extend(children.get(pid, []))
    return found
