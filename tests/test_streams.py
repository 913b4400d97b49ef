"""A command goes on, and keeps its exit code, where nobody reads its standard streams any more."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from conftest import prompts

import sdbatch

UNBUFFERED = "PYTHONUNBUFFERED"
FULL = Path("/dev/full")


@pytest.fixture
def job(tmp_path: Path, write_manifest: Callable[..., str], job_of: Callable[..., dict[str, Any]]) -> str:
    path = tmp_path / "job.yaml"
    path.write_text(json.dumps(job_of(write_manifest(prompts(3)))))
    return str(path)


@pytest.fixture
def output(job: str) -> str:
    return sdbatch.run(job, in_process=True).output


def _unread() -> int:
    """Return the end of a pipe whose reader is gone."""
    reader, writer = os.pipe()
    os.close(reader)
    return writer


def _sdbatch(*arguments: str, stdout: int | Any = subprocess.PIPE, stderr: int | Any = subprocess.PIPE) -> Any:
    environment = {name: value for name, value in os.environ.items() if name != UNBUFFERED}
    command = [sys.executable, "-m", "sdbatch", *arguments]
    return subprocess.run(command, stdout=stdout, stderr=stderr, text=True, env=environment, timeout=120)


def test_a_run_whose_log_nobody_reads_makes_all_of_its_rows(job: str) -> None:
    writer = _unread()
    done = _sdbatch("run", job, "--in-process", "--json", stderr=writer)
    os.close(writer)

    assert done.returncode == 0
    assert json.loads(done.stdout)["state"] == "done"


@pytest.mark.skipif(not FULL.exists(), reason="no device that is full")
def test_a_run_whose_log_has_no_space_left_makes_all_of_its_rows(job: str) -> None:
    with FULL.open("w") as log:
        done = _sdbatch("run", job, "--in-process", "--json", stderr=log)

    assert done.returncode == 0
    assert json.loads(done.stdout)["counts"]["rows_ok"] == 3


def test_no_file_of_a_command_gets_the_descriptor_of_a_closed_stream(tmp_path: Path) -> None:
    code = (
        "import os, sys\n"
        "from sdbatch.cli import prepare_command\n"
        "prepare_command()\n"
        "os._exit(open(sys.argv[1], 'x').fileno())"
    )
    closed = ["sh", "-c", 'exec "$@" <&- >&- 2>&-', "sh", sys.executable, "-c", code, str(tmp_path / "a file")]

    assert subprocess.run(closed, timeout=60).returncode > 2


def test_a_signal_ends_a_run_in_order_where_the_same_signal_took_its_reader() -> None:
    script = (
        "import os, signal\n"
        "from sdbatch.driver.signals import Interrupt\n"
        "interrupt = Interrupt()\n"
        "with interrupt.installed():\n"
        "    signal.raise_signal(signal.SIGINT)\n"
        "os._exit(40 + interrupt.count)"
    )
    writer = _unread()
    assert subprocess.run([sys.executable, "-c", script], stderr=writer, timeout=60).returncode == 41
    os.close(writer)


@pytest.mark.parametrize("verb", [["metadata", "--json"], ["runs"], ["status"]], ids=" ".join)
def test_output_that_nobody_reads_is_exit_code_1_and_no_word(output: str, verb: list[str]) -> None:
    writer = _unread()
    done = _sdbatch(verb[0], output, *verb[1:], stdout=writer)
    os.close(writer)

    assert (done.returncode, done.stderr) == (1, "")


@pytest.mark.skipif(not FULL.exists(), reason="no device that is full")
@pytest.mark.parametrize("verb", [["metadata", "--json"], ["runs"]], ids=" ".join)
def test_output_that_finds_no_space_is_a_line_and_exit_code_1(output: str, verb: list[str]) -> None:
    with FULL.open("w") as full:
        done = _sdbatch(verb[0], output, *verb[1:], stdout=full)

    assert done.returncode == 1
    assert done.stderr == "sdbatch: standard output could not be written: No space left on device\n"


def test_a_mismatch_keeps_its_exit_code_where_nobody_reads_of_it(output: str) -> None:
    next(Path(output, "assets").iterdir()).write_bytes(b"damaged")
    writer = _unread()
    done = _sdbatch("verify", output, stdout=writer)
    os.close(writer)

    assert done.returncode == 5


def test_lines_go_into_a_pipe_as_they_are_written() -> None:
    script = (
        "import os, sys\n"
        "from sdbatch.cli import prepare_command\n"
        "from sdbatch.cli.shown import show\n"
        "prepare_command()\n"
        "show('a line')\n"
        "os.kill(os.getpid(), 9)"
    )
    environment = {name: value for name, value in os.environ.items() if name != UNBUFFERED}
    command = [sys.executable, "-c", script]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=60)

    assert (done.returncode, done.stdout) == (-signal.SIGKILL, "a line\n")


WATCHED = """
import os, signal, sys
from sdbatch.cli.process import last_line
with last_line():
    (watch,) = map(int, open(f"/proc/self/task/{os.getpid()}/children").read().split())
    print(os.getsid(watch) == watch, flush=True)
    os.kill(watch, int(sys.argv[1]))
    if int(sys.argv[1]):
        os.waitid(os.P_PID, watch, os.WEXITED | os.WNOWAIT)
"""


@pytest.mark.parametrize("signum", [0, signal.SIGKILL])
def test_a_run_ends_as_it_would_have_also_without_what_waits_to_say_its_last_line(signum: int) -> None:
    done = subprocess.run([sys.executable, "-c", WATCHED, str(int(signum))], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout, done.stderr) == (0, "True\n", ""), "no Ctrl-C reaches another session"
