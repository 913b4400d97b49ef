"""A run that somebody watches: its page in chromium, `status --watch` beside it, and what both cost its driver.

    python benchmarks/watched.py [--rows 2000] [--steps 8] [--in-process] [--pictures FOLDER]

    sdbatch.run, in a process of its own --> report/*.js --> the page, from the disk, never loaded anew
                    status.json --> `sdbatch status --watch`, a third process

The page must grow by itself and say nothing on its console. The driver's processor seconds are those of its threads
inside the functions that write the gallery and the status; shares are of its wall time and of its own processor time.
"""

from __future__ import annotations

import argparse
import functools
import itertools
import json
import os
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tests"))

from support.browser import Page, browser  # noqa: E402

PRODUCTS = ("mug", "lamp", "chair", "boot", "kite", "clock", "drum", "vase")
SCENES = ("beach", "desert", "kitchen", "forest", "street")
LOCALES = ("de-DE", "en-GB", "fr-FR", "ja-JP")
LOOK_S = 0.5
ENDS_WITHIN_S = 3600.0


def rows_of(number: int) -> list[dict[str, Any]]:
    """Return distinct rows: products in scenes for locales, and as many takes as it needs."""
    kinds = itertools.cycle(itertools.product(PRODUCTS, SCENES, LOCALES))
    return [
        {
            "id": f"{product}.{scene}.{locale}.{place:05d}",
            "prompt": f"a {product} in the {scene}, number {place}",
            "x_product": product,
            "x_scene": scene,
            "x_locale": locale,
        }
        for place, (product, scene, locale) in zip(range(number), kinds, strict=False)
    ]


def job_of(folder: Path, rows: int, model: str, steps: int) -> dict[str, Any]:
    """Write a manifest into a folder, and return its job as plain values."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    (folder / "manifest").mkdir()
    pq.write_table(pa.Table.from_pylist(rows_of(rows)), folder / "manifest" / "part-0.parquet")
    return {
        "manifest": str(folder / "manifest"),
        "output": str(folder / "campaign"),
        "models": {"tiny": {"path": model, "batch_size": 4}},
        "defaults": {"task": "text-to-image", "num_inference_steps": steps, "guidance_scale": 4.0},
        "workers": {"count": 2},
        "seed": 11,
    }


def drive(job: dict[str, Any], every_s: float | None, *, in_process: bool) -> dict[str, Any]:
    """Run the job in this process, and return what its gallery and its status took of it."""
    import sdbatch
    from sdbatch.driver import compact, gallery
    from sdbatch.driver.one_run import records

    spent_s: defaultdict[str, float] = defaultdict(float)
    times: defaultdict[str, int] = defaultdict(int)

    def counted(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(function)
        def call(*arguments: Any, **named: Any) -> Any:
            started_s = time.thread_time()
            try:
                return function(*arguments, **named)
            finally:
                spent_s[name] += time.thread_time() - started_s
                times[name] += 1

        return call

    live = gallery.LiveGallery
    live._write_quietly = counted("gallery", live._write_quietly)  # type: ignore[method-assign]  # noqa: SLF001
    # At the end rows are read once for both; what is read and written for the metadata counts as the gallery's too.
    vars(compact)["write_gallery"] = counted("last gallery", gallery.write_gallery)
    records.RunRecords.write_status = counted("status", records.RunRecords.write_status)  # type: ignore[method-assign]
    if every_s is not None:
        gallery.GALLERY_EVERY_S = every_s  # type: ignore[misc]
    before_s, started_s = time.process_time(), time.monotonic()
    result = sdbatch.run(job, in_process=in_process)
    return {
        "state": result.state,
        "counts": result.counts,
        "wall_s": time.monotonic() - started_s,
        "driver_cpu_s": time.process_time() - before_s,
        "spent_s": dict(spent_s),
        "times": dict(times),
    }


def watch(
    page: Page, driver: subprocess.Popen[str], report: Path, pictures: Path, rows: int
) -> list[tuple[float, int]]:
    """Look at the page until it shows the whole run; return when it showed how many assets.

    Pictures are taken as soon as there is something, at the middle and at the end.
    """
    started_s = time.monotonic()
    while not (report / "state.js").exists():
        assert driver.poll() is None, "the run ended before its gallery was written"
        time.sleep(LOOK_S)
    page.open((report / "index.html").as_uri())
    page.ask("window.isTheSamePage = true")
    grown: list[tuple[float, int]] = []
    wanted = ["start", "middle"]
    while time.monotonic() - started_s < ENDS_WITHIN_S:
        num, state = page.ask("[sdbatch.filter.shown.length, sdbatch.data.head.state]")
        if not grown or num != grown[-1][1]:
            grown.append((round(time.monotonic() - started_s, 1), num))
        if num and wanted and (wanted[0] == "start" or num >= rows // 2):
            _picture(page, pictures / f"{wanted.pop(0)}.png")
        if state != "running":
            break
        assert driver.poll() in {None, 0}, "the run failed"
        time.sleep(LOOK_S)
    page.wait(f"sdbatch.filter.shown.length === {rows}")
    grown.append((round(time.monotonic() - started_s, 1), rows))
    _picture(page, pictures / "end.png")
    page.ask("document.getElementById('view').scrollTop = 1e9")
    _picture(page, pictures / "end-below.png")
    assert page.ask("window.isTheSamePage"), "the page was loaded anew"
    return grown


def _picture(page: Page, path: Path) -> None:
    page.wait("[...document.querySelectorAll('.tile img')].every(image => image.complete && image.src)")
    page.picture(path)


def measure(folder: Path, pictures: Path, options: argparse.Namespace) -> dict[str, Any]:
    """Run and watch a job in a folder; return the figures."""
    job = job_of(folder, options.rows, options.model, options.steps)
    (folder / "job.json").write_text(json.dumps(job))
    command = [sys.executable, str(Path(__file__).resolve()), "--drive", str(folder / "job.json")]
    command += ["--in-process"] if options.in_process else []
    command += ["--every-s", str(options.every_s)] if options.every_s is not None else []
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as driver:
        try:
            with browser(folder) as page, _terminal(driver, job["output"], environment) as lines:
                page.said.clear()
                grown = watch(page, driver, Path(job["output"], "report"), pictures, options.rows)
                said = list(page.said)
                told, _ = driver.communicate(timeout=120)
        finally:
            driver.kill()
    figures: dict[str, Any] = json.loads(told.splitlines()[-1])
    spent_s = figures["spent_s"]
    gallery_s = spent_s.get("gallery", 0.0) + spent_s.get("last gallery", 0.0)
    both_s = gallery_s + spent_s["status"]
    shares = {
        f"{name} of {of}": round(seconds / figures[f"{key}_s"], 5)
        for name, seconds in (("gallery", gallery_s), ("gallery and status", both_s))
        for of, key in (("wall", "wall"), ("driver", "driver_cpu"))
    }
    return {**figures, "shares": shares, "grown": grown, "said": said, "watched": lines}


@contextmanager
def _terminal(driver: subprocess.Popen[str], output: str, environment: dict[str, str]) -> Iterator[list[str]]:
    """Watch a run by `status --watch` while the block goes on; yield a list that holds its lines at the end."""
    until_s = time.monotonic() + ENDS_WITHIN_S
    while not list(Path(output).glob("runs/*/status.json")):
        assert driver.poll() is None, "the run failed"
        assert time.monotonic() < until_s
        time.sleep(LOOK_S)
    command = [sys.executable, "-m", "sdbatch", "status", output, "--watch"]
    lines: list[str] = []
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as watching:
        try:
            yield lines
            lines += watching.communicate(timeout=60)[0].splitlines()
            assert watching.returncode == 0
        finally:
            watching.kill()


def arguments() -> argparse.ArgumentParser:
    """Return what reads the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=2000)
    parser.add_argument("--steps", type=int, default=8)
    parser.add_argument("--model", default="builtin:tiny-sd")
    parser.add_argument("--in-process", action="store_true", help="without Ray")
    parser.add_argument(
        "--every-s", type=float, help="seconds between two writes of the gallery; as shipped by default"
    )
    parser.add_argument("--pictures", type=Path, help="folder of the screenshots")
    parser.add_argument("--drive", type=Path, help=argparse.SUPPRESS)
    return parser


def main() -> None:
    """Measure, and print one JSON object."""
    options = arguments().parse_args()
    if options.drive:
        job = json.loads(options.drive.read_text())
        print(json.dumps(drive(job, options.every_s, in_process=options.in_process)))
        return
    with tempfile.TemporaryDirectory(prefix="sdbatch-watched-") as folder:
        pictures = options.pictures or Path(folder)
        pictures.mkdir(parents=True, exist_ok=True)
        print(json.dumps(measure(Path(folder), pictures, options), indent=1))


if __name__ == "__main__":
    main()
