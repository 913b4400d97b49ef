"""Every fault of real inputs that was found has a test that is marked with its number.

The marks are read from the tests' source, so that nothing has to be collected or run.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

TESTS = Path(__file__).parents[1]
NUMBERS = (
    *(f"F{number}" for number in range(1, 39)),
    *(f"A{number}" for number in (1, 2, 3, 4, 10, 11, 12, 13)),
    *(f"S{number}" for number in range(1, 16)),
)


def _marks(file: Path) -> Iterator[list[ast.expr]]:
    """Yield the arguments of every `pytest.mark.fault(...)` in a file, also by the shorter name `fault`."""
    text = file.read_text(encoding="utf-8")
    if "mark.fault" not in text:
        return
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Call) and "fault" in {getattr(node.func, "attr", ""), getattr(node.func, "id", "")}:
            yield [*node.args, *(keyword.value for keyword in node.keywords)]


@cache
def _marked() -> dict[str, list[str]]:
    """Return the files that have a mark, by its number; numbers that are no plain text are not counted."""
    found: dict[str, list[str]] = {}
    for file in sorted(TESTS.rglob("test_*.py")):
        for arguments in _marks(file):
            if arguments and isinstance(arguments[0], ast.Constant):
                found.setdefault(str(arguments[0].value), []).append(str(file.relative_to(TESTS)))
    return found


def test_every_fault_has_a_test() -> None:
    missing = [number for number in NUMBERS if number not in _marked()]

    assert missing == []


def test_no_mark_has_a_number_that_is_not_in_the_list() -> None:
    assert sorted(_marked().keys() - set(NUMBERS)) == []


def test_every_mark_says_number_input_and_right_value() -> None:
    wrong = [
        f"{file.relative_to(TESTS)}:{arguments[0].lineno if arguments else 0}"
        for file in sorted(TESTS.rglob("test_*.py"))
        for arguments in _marks(file)
        if len(arguments) != 3
    ]

    assert wrong == []


def test_the_reading_finds_marks_on_tests_and_on_parameters(tmp_path: Path) -> None:
    file = tmp_path / "test_x.py"
    file.write_text(
        '@pytest.mark.fault("F1", "a", "b")\n'
        '@pytest.mark.parametrize("x", [pytest.param(1, marks=pytest.mark.fault("F2", "c", right="d"))])\n'
        "def test_x(x): ...\n"
    )

    assert sorted(str(arguments[0].value) for arguments in _marks(file) if isinstance(arguments[0], ast.Constant)) == [
        "F1",
        "F2",
    ]


@pytest.mark.parametrize("option", [[], ["--faults"]])
def test_a_run_with_the_option_ends_with_the_table(option: list[str], tmp_path: Path) -> None:
    import subprocess
    import sys

    (tmp_path / "test_x.py").write_text(
        "import pytest\n"
        '@pytest.mark.fault("F2", "an input", "a value")\ndef test_a(): ...\n'
        '@pytest.mark.fault("F10", "another", "another value")\ndef test_b(): assert False\n'
        '@pytest.mark.fault("F3", "a third", "it")\ndef test_c(): pytest.skip("no")\n'
        "def test_d(): ...\n"
    )
    (tmp_path / "conftest.py").write_text("from support.fault_table import *\n")
    (tmp_path / "pytest.ini").write_text("[pytest]\nmarkers = fault(number, input, right): x\n")
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *option, str(tmp_path)]
    done = subprocess.run(
        command, capture_output=True, text=True, cwd=tmp_path, env={"PYTHONPATH": str(TESTS), "PATH": ""}, timeout=240
    )
    rows = [line for line in done.stdout.splitlines() if line.startswith("| F")]

    assert done.returncode == 1
    assert rows == (
        [
            "| F2 | an input | a value | passed |",
            "| F3 | a third | it | skipped |",
            "| F10 | another | another value | failed |",
        ]
        if option
        else []
    )
