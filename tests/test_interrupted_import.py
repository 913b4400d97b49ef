"""Ctrl-C in the half second in which the command is imported."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from support.signals import hear_ctrl_c

CALL = "from sdbatch.cli import main; main()"


def _interrupted(arguments: list[str], under: Sequence[str] = ()) -> tuple[int, str]:
    """Send SIGINT to a Python once it imports the package; return its exit status and what it said thereafter."""
    with subprocess.Popen(
        [*under, sys.executable, "-X", "importtime", *arguments],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=hear_ctrl_c,  # noqa: PLW1509
    ) as process:
        assert process.stderr is not None
        while "sdbatch.interrupted_import" not in process.stderr.readline():
            assert process.poll() is None
        while "sdbatch.errors" not in process.stderr.readline():
            assert process.poll() is None
        process.send_signal(signal.SIGINT)
        said = process.communicate(timeout=60)[1]
    return process.returncode, said


def test_the_command_ends_at_once_and_without_a_traceback(tmp_path: Path) -> None:
    script = tmp_path / "sdbatch"
    script.write_text(CALL)
    for arguments in (["-m", "sdbatch", "--version"], [str(script), "--version"]):
        status, said = _interrupted(arguments)
        assert (status, "Traceback" in said) == (-signal.SIGINT, False), arguments


def test_a_program_that_imports_the_package_keeps_its_handler() -> None:
    status, said = _interrupted(["-c", "from sdbatch import run"])
    assert (status, "KeyboardInterrupt" in said) == (-signal.SIGINT, True)


def test_a_command_that_ignores_the_signal_goes_on() -> None:
    ignoring = ["/bin/sh", "-c", "trap '' INT; exec \"$@\"", "sh"]
    status, said = _interrupted(["-m", "sdbatch", "--version"], ignoring)
    assert (status, "Traceback" in said) == (0, False)


def test_once_it_is_imported_the_command_hears_the_signal_again() -> None:
    told = (
        "import signal, sys; sys.argv = ['sdbatch', '--version']; import sdbatch.cli.commands as commands\n"
        "assert signal.getsignal(signal.SIGINT) is signal.SIG_DFL\n"
        "def stop(**_): assert signal.getsignal(signal.SIGINT) is signal.default_int_handler; raise KeyboardInterrupt\n"
        "commands.app = stop; commands.main()"
    )
    done = subprocess.run(
        [sys.executable, "-c", told], capture_output=True, text=True, timeout=60, preexec_fn=hear_ctrl_c
    )
    assert (done.returncode, done.stderr) == (130, "")
