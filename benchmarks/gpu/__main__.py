r"""The command: parts in their order, each in a process of its own, within a bound of seconds.

this process (libraries imported, the GPU untouched) --> fork --> part --> gpu.json at every step
                                                    \-> too long: killed; the next part begins
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import re
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from sdbatch.worker.environment import prepare_environment
from sdbatch.worker.process import prepare_generation

ROOT = Path(__file__).parents[2]
Figures = dict[str, Any]
BY_NVML: Final = "PYTORCH_NVML_BASED_CUDA_CHECK"
"""Lets torch ask the driver's library whether there is a GPU: a process that began with CUDA has forks without one."""

GRACE_S: Final = 5.0
"""Seconds that a part may take beyond its bound before it is killed: its steps look at the clock themselves."""

LEAST_S: Final = 8.0
"""Seconds below which no part is begun."""

COMPILERS: Final = 12
"""Processes that compile at most."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """One part of the benchmark.

    Attributes:
        name: Its name.
        measure: Function that measures it: `module:name` in this package; it is given a `Bench`.
        limit_s: Seconds it may take on a card.
        is_asked: Whether it runs only when `--only` names it.
        is_fresh: Whether it needs an interpreter of its own, as a package that it uses begins with the GPU on import.
    """

    name: str
    measure: str
    limit_s: float
    is_asked: bool = False
    is_fresh: bool = False


PARTS: Final = (
    Part(name="card", measure="card:measure", limit_s=20),
    Part(name="no-card", measure="card:measure_hidden", limit_s=10),
    Part(name="correct", measure="correct:measure", limit_s=70),
    Part(name="faults", measure="faults:measure", limit_s=30),
    Part(name="exact", measure="exact:measure", limit_s=60),
    Part(name="sdxl", measure="sdxl:measure", limit_s=130),
    Part(name="sdxl-4-steps", measure="campaign:measure", limit_s=240),
    Part(name="sd15", measure="campaign:measure", limit_s=180),
    Part(name="flux-few", measure="flux:measure", limit_s=70),
    Part(name="files", measure="files:measure", limit_s=25),
    Part(name="quantized", measure="flux:measure_quantized", limit_s=60, is_fresh=True),
    Part(name="sdxl-whole", measure="sdxl:measure_whole", limit_s=120),
    Part(name="peaks", measure="peaks:measure", limit_s=120, is_fresh=True),
    Part(name="sdxl-campaign", measure="campaign:measure", limit_s=240, is_asked=True),
    Part(name="flux", measure="campaign:measure", limit_s=240, is_asked=True),
    Part(name="wan", measure="campaign:measure", limit_s=300, is_asked=True),
)
"""In the order of what is worth most; what the whole bound leaves no time for is said and left out."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the parts, write gpu.json and gpu.md, print the table."""
    options = _options(arguments)
    device = "cpu" if options.toy else "cuda"
    folder = options.folder or Path(tempfile.mkdtemp(prefix="sdb"))
    _set_environment(folder)  # before torch is imported, as in a worker
    try:
        if device == "cuda" and not _has_gpu():
            print("no GPU here; --toy runs the same at toy size on a CPU")
            return 2
        options.out.mkdir(parents=True, exist_ok=True)
        prepare_generation()
        if options.part:
            _measure(_part(options.part), options, device, folder, options.part_limit_s)
            return 0
        return _run(options, device, folder)
    finally:
        if options.folder is None:
            shutil.rmtree(folder, ignore_errors=True)


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu", description=main.__doc__)
    names = ", ".join(part.name for part in PARTS)
    parser.add_argument("--only", metavar="REGEX", help=f"of {names}; without it all that fit one run")
    parser.add_argument("--steps", metavar="REGEX", help="of the parts' steps, by their names in gpu.json")
    parser.add_argument("--limit-s", type=float, default=420.0, help="of all parts together")
    parser.add_argument("--seconds", type=float, default=10.0, help="of each measured campaign, after warm-up")
    parser.add_argument(
        "--options", type=json.loads, default={}, metavar="JSON", help="further keys of every job's model"
    )
    parser.add_argument("--toy", action="store_true", help="toy sizes on a CPU; what compiles is left out")
    parser.add_argument("--toy-compile", action="store_true", help="nothing is left out: takes minutes")
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks" / "results")
    parser.add_argument("--folder", type=Path, help="for models and what is made; kept, where it is named")
    parser.add_argument("--part", help=argparse.SUPPRESS)
    parser.add_argument("--part-limit-s", type=float, help=argparse.SUPPRESS)
    return parser.parse_args(arguments)


def _has_gpu() -> bool:
    import torch

    return torch.cuda.is_available()


def _run(options: argparse.Namespace, device: str, folder: Path) -> int:
    """Run every part that is asked for; return 1 when one was killed or ended badly."""
    begin_s = time.monotonic()
    results = _begin(options, device)
    _import_libraries()
    results.put("imported_s", value=round(time.monotonic() - begin_s, 1))
    ends = {}
    for part in PARTS:
        left_s = options.limit_s - (time.monotonic() - begin_s)
        is_chosen = re.search(options.only, part.name) is not None if options.only else not part.is_asked
        if is_chosen:
            limit_s = part.limit_s * (10 if options.toy else 1)
            ends[part.name] = _in_process(part, options, device, folder, min(limit_s, left_s))
            results.put("ends", value=ends)
            _write_table(results, options.out)
    print(json.dumps(ends, indent=1))
    return 0 if all(end["status"] == 0 for end in ends.values()) else 1


def _set_environment(folder: Path) -> None:
    os.environ["SDBATCH_CACHE"] = str(folder / "cache")  # what a machine learned of batch sizes is not our figure
    os.environ.setdefault("TORCHINDUCTOR_COMPILE_THREADS", str(min(COMPILERS, len(os.sched_getaffinity(0)))))
    os.environ[BY_NVML] = "1"
    prepare_environment()


def _begin(options: argparse.Namespace, device: str) -> Any:
    """Begin the file of results, with machine and versions first."""
    from benchmarks.gpu.bench import Results
    from benchmarks.lab import load, machine, versions

    results = Results(file=options.out / "gpu.json")
    results.file.unlink(missing_ok=True)
    gpu = "none"
    if device == "cuda":
        import torch

        gpu = f"{torch.cuda.device_count()} by NVML"  # its name needs CUDA itself: the part `card` says it
    results.put("machine", value={**machine(), "gpu": gpu, "load": load()})
    results.put("versions", value=versions())
    results.put("is_toy", value=options.toy)
    return results


def _import_libraries() -> None:
    """Import once what every part needs; a fork has it at once."""
    for name in ("card", "faults", "correct", "exact", "sdxl", "campaign", "flux", "files"):
        importlib.import_module(f"benchmarks.gpu.{name}")
    importlib.import_module("sdbatch.generate.batch")


def _in_process(part: Part, options: argparse.Namespace, device: str, folder: Path, limit_s: float) -> Figures:
    """Run a part in a child; return how it ended."""
    if limit_s < LEAST_S:
        return {"status": 0, "said": "left out: no time is left"}

    def measure() -> None:
        if part.is_fresh or (device == "cuda" and _is_spoilt()):
            _replace_process(part, options, folder, limit_s)
        _measure(part, options, device, folder, limit_s)

    end = run_part(measure, limit_s)
    print(f"--- {part.name}: {json.dumps(end)}", flush=True)
    return end


def run_part(measure: Callable[[], None], limit_s: float, grace_s: float = GRACE_S) -> Figures:
    """Run a function in a fork of this process, which is killed when it takes too long.

    Args:
        measure: The function.
        limit_s: Seconds that it may take.
        grace_s: Seconds after these, in which it is to end by itself.

    Returns:
        Its exit status, and the seconds it took.
    """
    begin_s = time.monotonic()
    sys.stdout.flush()
    child = os.fork()
    if not child:
        _in_child(measure)
    with suppress(OSError):  # the child does so too; whoever is first
        os.setpgid(child, child)
    done, status = 0, 0
    while not done:
        done, status = os.waitpid(child, os.WNOHANG)
        if not done and time.monotonic() > begin_s + limit_s + grace_s:
            os.killpg(child, signal.SIGKILL)
            done, status = os.waitpid(child, 0)
        time.sleep(0.02)
    return {
        "status": os.waitstatus_to_exitcode(status),
        "took_s": round(time.monotonic() - begin_s, 1),
        "limit_s": round(limit_s, 1),
    }


def _in_child(measure: Callable[[], None]) -> None:
    """Run the function and end this process; what its libraries leave running is not waited for."""
    status = 1
    try:
        os.setpgid(0, 0)
        measure()
        status = 0
    except BaseException:  # noqa: BLE001 -- a child never returns into its parent's code
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


def _is_spoilt() -> bool:
    """Whether the parent touched the GPU, so that its fork cannot use it."""
    import torch

    return bool(getattr(torch._C, "_cuda_isInBadFork", bool)())  # noqa: SLF001 -- torch.cuda says it by raising only


def _replace_process(part: Part, options: argparse.Namespace, folder: Path, limit_s: float) -> None:
    """Become a new interpreter that measures one part; what it may import in addition lies in SDBATCH_BENCH_MORE."""
    environment = dict(os.environ)
    environment.pop(BY_NVML, None)
    if (more := environment.get("SDBATCH_BENCH_MORE")) and part.is_fresh:
        environment["PYTHONPATH"] = os.pathsep.join(filter(None, (environment.get("PYTHONPATH"), more)))
    arguments = ["--part", part.name, "--part-limit-s", str(limit_s), "--folder", str(folder)]
    arguments += [
        "--out",
        str(options.out),
        "--seconds",
        str(options.seconds),
        "--options",
        json.dumps(options.options),
        "--steps",
        options.steps or "",
    ]
    arguments += [name for name, is_set in (("--toy", options.toy), ("--toy-compile", options.toy_compile)) if is_set]
    os.execve(sys.executable, [sys.executable, "-m", "benchmarks.gpu", *arguments], environment)  # noqa: S606 -- our own command


def _measure(part: Part, options: argparse.Namespace, device: str, folder: Path, limit_s: float) -> None:
    """Measure a part in this process."""
    os.environ.pop(BY_NVML, None)  # from here on torch is to ask the driver, as in a worker
    from benchmarks.gpu.bench import Bench, Results

    module, _, name = part.measure.partition(":")
    bench = Bench(
        part=part.name,
        device=device,
        is_toy=options.toy,
        folder=folder,
        results=Results(file=options.out / "gpu.json"),
        limit_s=limit_s,
        seconds=options.seconds,
        options=options.options,
        steps=options.steps or "",
        is_compiling=options.toy_compile or not options.toy,
    )
    getattr(importlib.import_module(f"benchmarks.gpu.{module}"), name)(bench)


def _part(name: str) -> Part:
    return next(part for part in PARTS if part.name == name)


def _write_table(results: Any, out: Path) -> None:
    """Write the promised rows that were measured so far; a toy's times stand in no table."""
    from benchmarks.gpu.campaign import table_rows
    from benchmarks.table import full, to_json, to_markdown

    found = results.read()
    parts = found.get("parts", {})
    gpu = parts.get("card", {}).get("card", {}).get("name", "none")
    measured = [part["compared"] for part in parts.values() if "rate_per_s" in part.get("compared", {})]
    rows = [] if found["is_toy"] else table_rows(measured, gpu)
    results.put("rows", value=[to_json(one) for one in rows])
    text = to_markdown([one for one in full(rows) if one.name.startswith("gpu_")])
    (out / "gpu.md").write_text(f"{gpu}, torch {found['versions']['torch']}\n\n{text}")


if __name__ == "__main__":
    sys.exit(main())
