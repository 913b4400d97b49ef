r"""One command, one table.

    GROUPS --> a process each --> parts (a run that was ended goes on) --> latest.json, latest.md, the screen

A group is `function(lab) -> list[Row]`. Threads are pinned before anything is imported; the load is printed and kept.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import multiprocessing
import os
import re
import shutil
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.groups import GROUPS, run_group
from benchmarks.lab import ALIKE, Lab, load, machine, versions
from benchmarks.table import Row, from_json, full, in_page, in_readme, to_json, to_markdown

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks" / "results"
PARTS = ROOT / "out" / "bench"
GROUP_MAX_S = 1800.0
PAIRS = 5
QUIET_LOAD_A_CORE = 2.0
"""Load average a core up to which times are relied on; the arms themselves make one and a half."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure; return 1 when a group failed, 0 otherwise: a missed bound is a figure, not an error."""
    options = _options(arguments)
    _prepare()
    names = [name for name in GROUPS if re.search(options.only, name)]
    run = _fingerprint(options.pairs, options.seed, options.quick)
    failed = [name for name in names if not _measure(name, run, options)]
    groups = {name: json.loads(_part(run, name).read_text()) for name in names if name not in failed}
    _write(groups, options)
    if not failed:
        shutil.rmtree(PARTS / run, ignore_errors=True)
    for name in failed:
        print(f"{name}: failed; what it said stands above. The other groups are kept: run again to go on.")
    return 1 if failed else 0


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=main.__doc__)
    parser.add_argument("--only", default="", metavar="REGEX", help=f"groups to run, of {', '.join(GROUPS)}")
    parser.add_argument("--pairs", type=int, default=PAIRS, help="how often every arm runs, in turns")
    parser.add_argument("--seed", type=int, default=20261121)
    parser.add_argument("--quick", action="store_true", help="counts and equal outputs at the smallest size; no times")
    parser.add_argument("--out", type=Path, default=RESULTS)
    return parser.parse_args(arguments)


def _prepare() -> None:
    """Pin threads and niceness, let Ray's workers import the benchmarks, and let Python keep what it compiles."""
    os.environ.update(ALIKE)
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)  # an installed sdbatch is compiled: 0.4 s of every command
    os.environ["AWS_EC2_METADATA_DISABLED"] = "true"  # without keys, botocore would look for an EC2 host


def _fingerprint(*options: object) -> str:
    """Return a digest of the code and the options: parts of other ones are not taken."""
    digest = hashlib.sha256(repr(options).encode())
    for file in sorted([*(ROOT / "sdbatch").rglob("*.py"), *(ROOT / "benchmarks").rglob("*.py")]):
        digest.update(file.read_bytes())
    return digest.hexdigest()[:12]


def _part(run: str, name: str) -> Path:
    return PARTS / run / f"{name}.json"


def _measure(name: str, run: str, options: argparse.Namespace) -> bool:
    """Measure one group in a process of its own, unless an ended run has; return whether its part is there."""
    part = _part(run, name)
    if part.is_file():
        print(f"{name}: taken from the run that was ended")
        return True
    part.parent.mkdir(parents=True, exist_ok=True)
    # Ray's socket names are cut at 107 bytes, so the folder is short.
    folder = Path(tempfile.mkdtemp(prefix="sdb", dir="/tmp"))
    lab = Lab(folder=folder, pairs=options.pairs, seed=options.seed, is_quick=options.quick)
    measured = folder / "measured.json"
    started_s, before = time.perf_counter(), load()
    print(f"{name}: load {before}", flush=True)
    process = multiprocessing.get_context("spawn").Process(target=run_group, args=(name, lab, measured))
    process.start()
    process.join(GROUP_MAX_S)
    if process.is_alive():
        print(f"{name}: ended after {GROUP_MAX_S:.0f} s")
        process.terminate()
        process.join()
    wall_s, after = time.perf_counter() - started_s, load()
    found = json.loads(measured.read_text()) if measured.is_file() else None
    shutil.rmtree(folder, ignore_errors=True)
    if found is None:
        return False
    part.write_text(json.dumps({**found, "wall_s": round(wall_s, 1), "load": [before, after]}))
    print(f"{name}: {wall_s:.0f} s, load {after}", flush=True)
    return True


def _write(groups: Mapping[str, Mapping[str, Any]], options: argparse.Namespace) -> None:
    """Write and print the table; groups not asked for keep theirs where machine, versions and pairs are the same."""
    where: dict[str, Any] = {
        "quick": options.quick,
        "pairs": options.pairs,
        "machine": machine(),
        "versions": versions(),
    }
    latest = options.out / "latest.json"
    kept = json.loads(latest.read_text()) if latest.is_file() else {}
    is_same = all(kept.get(key) == value for key, value in where.items())
    load_of: dict[str, Any] = dict(kept["load"]) if is_same else {}
    found: dict[str, Row] = {one["name"]: from_json(one) for one in kept["rows"]} if is_same else {}
    gpu = options.out / "gpu.json"
    if gpu.is_file():  # of another machine, mostly; the rows' notes name it
        found.update({one["name"]: from_json(one) for one in json.loads(gpu.read_text())["rows"]})
    for name, group in groups.items():
        load_of[name] = group["load"]
        found.update({one["name"]: from_json(one) for one in group["rows"]})
    rows = full(one for one in found.values() if one.judged is not None)
    text = to_markdown(rows)
    options.out.mkdir(parents=True, exist_ok=True)
    result = {**where, "load": load_of, "rows": [to_json(one) for one in rows]}
    latest.write_text(json.dumps(result, indent=1) + "\n")
    (options.out / "latest.md").write_text(_head(result) + text)
    if options.out == RESULTS and not options.quick:
        page = ROOT / "docs/how/speed.md"
        page.write_text(in_page(page.read_text(), rows, circumstances(result)))
        readme = ROOT / "README.md"
        readme.write_text(in_readme(readme.read_text(), rows))
    print("\n" + text)


def circumstances(result: Mapping[str, Any]) -> str:
    """Return what stands above the documentation's table: machine, load, how often."""
    loads = [value for before_and_after in result["load"].values() for value in before_and_after]
    here, pairs, highest = result["machine"], result["pairs"], max(loads, default=0.0)
    is_quiet = pairs >= PAIRS and highest <= QUIET_LOAD_A_CORE * here["cores"]
    doubt = "" if is_quiet else " Too few pairs, or too busy a machine, to rely on times; counts hold."
    return (
        f"{here['cpu']}, {here['cores']} cores, GPU: {here['gpu']}; arms in turns, {pairs} of each; "
        f"load average {min(loads, default=0.0)} to {highest}.{doubt}"
    )


def _head(result: Mapping[str, Any]) -> str:
    """Return what stands above the whole table: also the versions, and each group's load."""
    libraries = ", ".join(f"{name} {version}" for name, version in result["versions"].items())
    loads = ", ".join(f"{name} {before} to {after}" for name, (before, after) in result["load"].items())
    return f"{circumstances(result)}\n\n{libraries}. Load before and after each group: {loads}.\n\n"


if __name__ == "__main__":
    sys.exit(main())
