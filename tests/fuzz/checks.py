"""`sdbatch check`, many times: whether the process ever ends otherwise than it should.

    make_job(folder) --> check_many(count, folder) --> {exit code: how often}

Arrow's threads once held Python files when the interpreter had already ended, and some 5 in 100 checks aborted (exit
134) on a busy machine. `check_many` is what `run_fuzz.py` and the tests call; from the command line:
`python tests/fuzz/checks.py 500`.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

_ROWS = 300
_SHARDS = 4
_TIMEOUT_S = 600


def make_job(folder: Path) -> Path:
    """Write a job with a manifest of several shards; return the job file."""
    manifest = folder / "manifest"
    manifest.mkdir(parents=True, exist_ok=True)
    for shard in range(_SHARDS):
        ids = [f"row-{shard}-{number}" for number in range(_ROWS)]
        columns = {
            "id": ids,
            "prompt": [f"a house number {number} by the sea" for number in range(_ROWS)],
            "x_sku": [f"sku-{number % 7}" for number in range(_ROWS)],
        }
        pq.write_table(pa.table(columns), manifest / f"part-{shard}.parquet", row_group_size=100)
    job = folder / "job.yaml"
    job.write_text(
        f"manifest: {manifest}\noutput: {folder / 'out'}\n"
        'models: {tiny: {path: "builtin:tiny-sd"}}\ndefaults: {model: tiny, task: text-to-image}\n'
    )
    return job


def check_many(count: int, folder: Path, tell: Callable[[str], None] = lambda _: None) -> Counter[int]:
    """Run `sdbatch check` so many times, each in a process of its own.

    Args:
        count: Number of runs.
        folder: Gets the job.
        tell: Given a line for each run that did not exit with 0, and now and then how far it is.

    Returns:
        How often each exit code came; a process that was ended by a signal has its negative number.
    """
    job = make_job(folder)
    codes: Counter[int] = Counter()
    for number in range(1, count + 1):
        command = [sys.executable, "-m", "sdbatch", "check", str(job)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=_TIMEOUT_S)
        codes[done.returncode] += 1
        if done.returncode:
            tell(f"run {number}: exit {done.returncode}: {done.stderr[-400:]}")
        if number % 50 == 0:
            tell(f"{number} of {count}: {dict(codes)}")
    return codes


def main(count: int) -> int:
    """Check so often; return 0 when every check exited with 0."""
    with tempfile.TemporaryDirectory(prefix="sdbatch-checks-") as folder:
        codes = check_many(count, Path(folder), _say)
    _say(f"{codes[0]} of {count} exited with 0; {dict(codes)}")
    return 0 if codes == {0: count} else 1


def _say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]) if len(sys.argv) > 1 else 500))
