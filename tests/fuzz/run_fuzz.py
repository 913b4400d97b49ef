"""`make fuzz`: files that are damaged, and commands run many times; whether anything but the file itself is to blame.

    part --> so many tries --> answers counted, faults listed --> exit 0 when there is no fault

The parts are `pictures`, `clips`, `shards`, `checks` and `rows`; see --help. The tests run a hundredth of it.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Callable
from importlib import import_module
from pathlib import Path

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE.parents[1]), str(HERE)]

from sources import fuzz_clips, fuzz_pictures  # noqa: E402 -- it lies beside this script

FULL = {"pictures": 50_000, "clips": 1_000, "shards": 3_000, "checks": 500, "rows": 600}
"""Tries of each part."""

Part = Callable[[int, int], tuple[str, list[str]]]


def _say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def pictures(count: int, seed: int) -> tuple[str, list[str]]:
    """Decode damaged pictures; return a summary, and the faults."""
    found = fuzz_pictures(count, seed, _say)
    return f"{dict(found.answers)}, {found.children} decoding processes replaced", found.faults


def clips(count: int, seed: int) -> tuple[str, list[str]]:
    """Decode damaged clips; return a summary, and the faults."""
    found = fuzz_clips(count, seed, _say)
    return f"{dict(found.answers)}, {found.children} decoding processes replaced", found.faults


def shards(count: int, seed: int) -> tuple[str, list[str]]:
    """Check damaged shards; return a summary, and the faults."""
    with tempfile.TemporaryDirectory(prefix="sdbatch-shards-") as folder:
        answers = import_module("shards").check_shards(count, Path(folder), seed, _say)
    return f"{dict(answers)}", [answer for answer in answers if answer not in {"fine", "refused"}]


def checks(count: int, _: int) -> tuple[str, list[str]]:
    """Run `sdbatch check` many times; return a summary, and the exit codes that were not 0."""
    with tempfile.TemporaryDirectory(prefix="sdbatch-checks-") as folder:
        codes = import_module("checks").check_many(count, Path(folder), _say)
    return f"{dict(codes)}", [f"exit {code}, {times} times" for code, times in codes.items() if code]


def rows(count: int, seed: int) -> tuple[str, list[str]]:
    """Make rows of chance in a run and by plain diffusers; return a summary, and the rows that differ."""
    with tempfile.TemporaryDirectory(prefix="sdbatch-rows-") as folder:
        num_compared, faults = import_module("rows").compare_rows(count, Path(folder), seed, _say)
    return f"{num_compared} outputs compared", faults


PARTS: dict[str, Part] = {"pictures": pictures, "clips": clips, "shards": shards, "checks": checks, "rows": rows}


def main() -> int:
    """Run the parts that were asked for; return 0 when there is no fault."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", choices=[[], *PARTS], help="all of them when none is named")
    parser.add_argument("--share", type=float, default=1.0, help="part of the full number of tries, such as 0.01")
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    num_faults = 0
    for name in arguments.parts or PARTS:
        started_s = time.monotonic()
        count = max(1, round(FULL[name] * arguments.share))
        summary, faults = PARTS[name](count, arguments.seed)
        for fault in faults[:20]:
            _say(f"FAULT in {name} {fault}")
        _say(f"{name}: {count} in {time.monotonic() - started_s:.0f} s: {summary}; {len(faults)} faults")
        num_faults += len(faults)
    return 1 if num_faults else 0


if __name__ == "__main__":
    sys.exit(main())
