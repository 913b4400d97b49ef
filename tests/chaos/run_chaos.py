"""`make chaos`: kill everything that can be killed, everywhere, and compare what is left with an undisturbed run.

    cases() --> those without a good result for this code --> act --> results.jsonl --> table (printed, .md, .json)

Resumable: a case that passed is not run again until the code or the case changes. See --help.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import re
import shutil
import signal
import subprocess
import sys
import time
import traceback
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
sys.path[:0] = [str(ROOT), str(HERE), str(HERE.parent)]

from chaos_cases import Case, Found, cases  # noqa: E402 -- they lie beside this script
from chaos_lab import Lab  # noqa: E402
from chaos_points import POINTS, STORES, VICTIMS, senseless  # noqa: E402

Record = dict[str, Any]


def code_digest() -> str:
    """Return a digest of the product and of the cases: a result holds for these alone."""
    digest = hashlib.sha256()
    for file in sorted([*(ROOT / "sdbatch").rglob("*.py"), *HERE.rglob("*.py")]):
        digest.update(str(file.relative_to(ROOT)).encode() + b"\0" + file.read_bytes())
    return digest.hexdigest()[:12]


def commit() -> str:
    """Return the commit that is checked out, for people; "" outside a repository."""
    done = subprocess.run(["git", "describe", "--always", "--dirty"], cwd=ROOT, capture_output=True, text=True)
    return done.stdout.strip()


def run_case(lab: Lab, case: Case) -> Found:
    """Run one case; whatever it raises is a problem of it. What it leaves is kept only when it failed."""
    folder = lab.case_folder(case.name)
    try:
        found = case.act(lab, folder)
    except Exception:  # noqa: BLE001 -- one case must not end the others
        found = Found(problems=[traceback.format_exc(limit=-4)], figures={})
    if not found.problems:
        shutil.rmtree(folder)
    return found


def read_results(path: Path) -> dict[str, Record]:
    """Return the newest record of each case."""
    lines = path.read_text().splitlines() if path.is_file() else []
    return {record["case"]: record for record in map(json.loads, lines)}


def line(record: Record) -> str:
    """Return one row of the table, in Markdown."""
    figures = ", ".join(f"{name} {value}" for name, value in record["figures"].items())
    word = "pass" if record["passed"] else "FAIL: " + "; ".join(record["problems"]).replace("\n", " ")[:500]
    return f"| {record['case']} | {word} | {figures} | {record['seconds']:g} |"


def write_tables(folder: Path, records: list[Record]) -> None:
    """Write the table as Markdown and JSON."""
    (folder / "table.json").write_text(json.dumps(records, indent=1) + "\n")
    left_out = [
        f"| {store} | {point.name} | {victim} | {reason} |"
        for store in STORES
        for point in POINTS
        for victim in VICTIMS
        if (reason := senseless(point, victim, store))
    ]
    text = [
        f"{summary(records)}, code {code_digest()}, {commit()}\n",
        "| case | result | figures | s |\n|---|---|---|---|",
        *map(line, records),
        "\nLeft out:\n\n| store | point | victim | reason |\n|---|---|---|---|",
        *left_out,
    ]
    (folder / "table.md").write_text("\n".join(text) + "\n")


def summary(records: list[Record]) -> str:
    """Return the counts over all records."""
    passed = sum(record["passed"] for record in records)
    sums = {
        name: sum(int(record["figures"].get(name, 0)) for record in records)
        for name in ("missing", "doubled", "other", "half")
    }
    seconds = sum(record["seconds"] for record in records)
    said = ", ".join(f"{number} {name}" for name, number in sums.items())
    return f"{passed} of {len(records)} cases passed in {seconds / 60:.1f} min: {said}"


def main() -> int:
    """Run what is asked for; 0 when all of it passed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", metavar="REGEX", default="", help="cases whose name holds this")
    parser.add_argument("--out", type=Path, default=ROOT / "out" / "chaos")
    parser.add_argument("--list", action="store_true", help="name the cases and end")
    parser.add_argument("--again", action="store_true", help="run those too that passed before")
    options = parser.parse_args()
    chosen = [case for case in cases() if re.search(options.only, case.name)]
    if options.list:
        sys.stdout.write("".join(f"{case.name}\n" for case in chosen))
        return 0
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that what was started is ended
    options.out.mkdir(parents=True, exist_ok=True)
    path = options.out / "results.jsonl"
    code = code_digest()
    known = {} if options.again else read_results(path)
    records: list[Record] = []
    with Lab(options.out) as lab:
        for case in chosen:
            record = known.get(case.name)
            if record is None or record["code"] != code or not record["passed"]:
                started_s = time.monotonic()
                found = run_case(lab, case)
                record = {
                    "case": case.name,
                    "code": code,
                    "commit": commit(),
                    "passed": not found.problems,
                    "problems": found.problems,
                    "figures": found.figures,
                    "seconds": round(time.monotonic() - started_s, 1),
                }
                with path.open("a") as results:
                    results.write(json.dumps(record) + "\n")
            records.append(record)
            sys.stdout.write(line(record) + "\n")
            sys.stdout.flush()
            write_tables(options.out, records)
    sys.stdout.write(summary(records) + f"\n{options.out / 'table.md'}\n")
    return 0 if all(record["passed"] for record in records) else 1


if __name__ == "__main__":
    sys.exit(main())
