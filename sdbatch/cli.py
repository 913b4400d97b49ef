"""The command line: parses, calls a verb, prints. Nothing is decided here.

Exit codes: 0 all done; 2 the job, manifest or credentials are wrong (nothing started); 3 finished with failed rows;
4 another driver holds the campaign; 5 verify or reproduce found a mismatch; 130 interrupted (resumable); 1 any other.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer
from rich.console import Console
from rich.table import Table

from sdbatch import api
from sdbatch.driver import RunResult, Selection
from sdbatch.errors import JobError, ManifestError, SdbatchError
from sdbatch.logs import configure, log_format, redacted
from sdbatch.report.progress import Lines, Progress, Terminal, duration, per_time
from sdbatch.storage import joined

app = typer.Typer(add_completion=False, no_args_is_help=True, pretty_exceptions_enable=False, help=__doc__)
manifest_app = typer.Typer(no_args_is_help=True, help="Build manifests.")
models_app = typer.Typer(no_args_is_help=True, help="Look at models.")
app.add_typer(manifest_app, name="manifest")
app.add_typer(models_app, name="models")

VERIFY_EXIT_CODE = 5
_MISSING_SHOWN = 10
_EVERY_CLASS = "*"
_AGE = re.compile(r"(\d+(?:\.\d+)?)([smhd])")
_CLASS_NAME = re.compile(r"[A-Z][A-Za-z]+")

JobFile = Annotated[str, typer.Argument(metavar="JOB", help="Job file (YAML).")]
CampaignUrl = Annotated[str, typer.Argument(metavar="OUTPUT", help="Campaign folder or URL, or a job file.")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]
Set = Annotated[list[str] | None, typer.Option("--set", metavar="KEY.KEY=VALUE", help="Override a value of the job.")]
Date = Annotated[
    str | None,
    typer.Option("--date", metavar="YYYY-MM-DD", help="${date} in the manifest's path; today (UTC) without."),
]
Limit = Annotated[int | None, typer.Option("--limit", min=1, help="Make at most so many requests.")]
Only = Annotated[list[str] | None, typer.Option("--only", metavar="ID", help="Make only this request (repeatable).")]
RetryFailed = Annotated[
    str | None,
    typer.Option("--retry-failed", metavar="[CLASS]", help="Try failed requests again: all, or those of one class."),
]
InProcess = Annotated[bool, typer.Option("--in-process", help="One worker in this process, without Ray.")]
AcceptFailed = Annotated[bool, typer.Option("--accept-failed", help="Exit 0 although rows failed.")]


@app.command()
def check(job: JobFile, overrides: Set = None, date: Date = None, as_json: Json = False) -> None:
    """Check a job and every row of its manifest. Writes nothing, loads nothing."""
    found = _guarded(lambda: api.check(api.load_job(job, overrides or (), date)), as_json)
    models = ", ".join(f"{name} ({title})" for name, title in found.models.items())
    _say(asdict(found), as_json, f"ok: {found.rows} rows in {found.shards} shard(s), {found.assets} assets, {models}")


@app.command()
def plan(
    job: JobFile,
    overrides: Set = None,
    date: Date = None,
    limit: Limit = None,
    only: Only = None,
    retry_failed: RetryFailed = None,
    as_json: Json = False,
) -> None:
    """Say what a run would make, and why. Writes nothing, loads nothing."""
    selection = _selection(limit, only, retry_failed)
    found = _guarded(lambda: api.plan(api.load_job(job, overrides or (), date), selection), as_json)
    if as_json:
        _say(asdict(found), as_json, "")
        return
    table = Table("rows", "number", title="plan", title_justify="left")
    for reason, number in sorted(found.rows.items()):
        table.add_row(reason, str(number))
    Console().print(table)
    if found.changed:
        print("changed in: " + ", ".join(f"{name} ({number})" for name, number in found.changed.items()))
    basis = "measured here" if found.rate_measured else "assumed rate"
    for url in found.sources_missing[:_MISSING_SHOWN]:
        print(redacted(f"missing source, its rows will fail: {url}"))
    if len(found.sources_missing) > _MISSING_SHOWN:
        print(f"... and {len(found.sources_missing) - _MISSING_SHOWN} more missing sources")
    if found.unpinned:
        print(f"unpinned, known by size and ETag: {', '.join(found.unpinned)}; `sdbatch models pin` prints the digests")
    print(f"{found.assets} assets to make, about {duration(found.predicted_gpu_s)} in the model ({basis})")


@app.command()
def run(
    job: JobFile,
    overrides: Set = None,
    date: Date = None,
    limit: Limit = None,
    only: Only = None,
    retry_failed: RetryFailed = None,
    in_process: InProcess = False,
    accept_failed: AcceptFailed = False,
    as_json: Json = False,
) -> None:
    """Make what is missing of a campaign."""
    selection = _selection(limit, only, retry_failed)

    def call() -> RunResult:
        checked = api.load_job(job, overrides or (), date)
        return api.run(checked, selection, in_process=in_process, progress=_progress())

    _end_run(_guarded(call, as_json), accept_failed, as_json)


@app.command()
def redo(
    job: JobFile,
    ids: Annotated[
        list[str] | None, typer.Argument(metavar="[ID]...", help="Requests; all damaged ones by default.")
    ] = None,
    overrides: Set = None,
    date: Date = None,
    in_process: InProcess = False,
    as_json: Json = False,
) -> None:
    """Make assets again that `verify` finds missing or damaged."""

    def call() -> RunResult | None:
        checked = api.load_job(job, overrides or (), date)
        return api.redo(checked, ids or (), in_process=in_process, progress=_progress())

    result = _guarded(call, as_json)
    if result is None:
        _say({"state": "done", "counts": {}}, as_json, "nothing is missing or damaged")
    else:
        _end_run(result, False, as_json)


@app.command()
def status(output: CampaignUrl, as_json: Json = False) -> None:
    """Show where the newest run of a campaign stands. Needs no Ray."""
    found = _guarded(lambda: api.status(output), as_json)
    eta = "" if found["eta_s"] is None or found["state"] == "dead" else f", {duration(found['eta_s'])} to go"
    rate = "" if found["rate_per_s"] is None else f", {per_time(found['rate_per_s'])}"
    counts = found["counts"]
    _say(
        found,
        as_json,
        f"{found['run_id']} {found['state']}: {counts['rows_ok']} ok, {counts['rows_failed']} failed, "
        f"{counts['rows_reused']} reused of {found['rows']} rows{rate}{eta} (as of {found['updated_at']})"
        + ("; its driver is gone, run again to go on" if found["state"] == "dead" else ""),
    )


@app.command()
def cancel(output: CampaignUrl, as_json: Json = False) -> None:
    """Ask the run that drives a campaign to stop, from any machine, through the store alone."""
    holder = _guarded(lambda: api.cancel(output), as_json)
    _say({"asked": holder}, as_json, f"asked {holder} to stop; what is in flight may end, then it exits with 130")


@app.command()
def submit(
    job: JobFile,
    address: Annotated[str, typer.Option("--address", envvar="RAY_API_SERVER_ADDRESS", help="Of Ray's job server.")],
    overrides: Set = None,
    date: Date = None,
    no_wait: Annotated[bool, typer.Option("--no-wait", help="Do not follow the log.")] = False,
    working_dir: Annotated[Path, typer.Option(help="Folder to send along; the job file lies in it.")] = Path(),
    installed: Annotated[
        bool, typer.Option("--installed", help="Send nothing: the cluster's image has the job file at this path.")
    ] = False,
    environment: Annotated[
        list[str] | None, typer.Option("--env", metavar="NAME=VALUE", help="Variable of the driver; never a secret.")
    ] = None,
    accept_failed: AcceptFailed = False,
    as_json: Json = False,
) -> None:
    """Run a job on a cluster through Ray's job server; ends with the job's exit code."""
    variables = _pairs("--env", environment)

    def call() -> Any:
        return api.submit(
            job,
            address,
            overrides or (),
            date=date,
            working_dir=None if installed else working_dir,
            environment=variables,
            accept_failed=accept_failed,
            write=None if no_wait else lambda text: print(text, end="", file=sys.stderr, flush=True),
        )

    found = _guarded(call, as_json)
    ended = "" if found.exit_code is None else f" ended with exit code {found.exit_code}"
    word = "submitted" if found.is_new else "runs already; followed"
    _say(asdict(found), as_json, f"{found.submission_id} {word}{ended}; campaign {found.output}")
    raise typer.Exit(found.exit_code or 0)


@app.command()
def metadata(
    output: CampaignUrl,
    to: Annotated[Path | None, typer.Option("--to", metavar="FILE.parquet", help="Write the rows there.")] = None,
    as_json: Json = False,
) -> None:
    """Give the effective metadata: one row per asset, or per failure. Works while a run is going on."""
    table = _guarded(lambda: api.metadata(output), as_json)
    if to is not None:
        _guarded(lambda: _write_table(table, to), as_json)
    states = table.column("status").to_pylist()
    counts = {state: states.count(state) for state in sorted(set(states))}
    where = f", written to {to}" if to else ""
    text = ", ".join(f"{number} {state}" for state, number in counts.items()) or "none"
    _say({"rows": table.num_rows, "status": counts, "to": str(to) if to else None}, as_json, f"rows: {text}{where}")


@app.command()
def verify(
    output: CampaignUrl,
    sample: Annotated[
        str | None, typer.Option(metavar="N|FRACTION", help="Hash only so many assets, or (0.1) that share of them.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Compare commits, metadata and assets both ways. Exits 5 when they do not agree."""
    share = _guarded(lambda: _sample(sample), as_json)
    found = _guarded(lambda: api.verify(output, share), as_json)
    lines = [f"{finding.kind}: {finding.asset} {finding.detail}" for finding in found.findings]
    lines += [f"orphan (harmless): {asset}" for asset in found.orphans]
    word = "good" if found.is_good else f"{len(found.findings)} do not agree"
    lines.append(
        f"{word}: {found.rows_ok} assets committed, {found.assets_hashed} hashed, "
        f"{found.metadata_rows} rows of metadata, {len(found.orphans)} orphans"
    )
    _say({"good": found.is_good, **asdict(found)}, as_json, "\n".join(lines))
    raise typer.Exit(0 if found.is_good else VERIFY_EXIT_CODE)


@app.command()
def gc(
    output: CampaignUrl,
    delete: Annotated[bool, typer.Option("--delete", help="Remove them; without it they are listed.")] = False,
    older_than: Annotated[
        str, typer.Option(metavar="AGE", help="What changed more recently stays: 90s, 30m, 12h, 7d.")
    ] = "1d",
    as_json: Json = False,
) -> None:
    """Remove what no commit names: orphans, halves of files, old beats. Lists them unless told to delete."""
    age_s = _guarded(lambda: _age_s(older_than), as_json)
    found = _guarded(lambda: api.gc(output, delete=delete, older_than_s=age_s), as_json)
    word = "removed" if found.is_deleted else "would remove (--delete does)"
    paths = [*found.orphans, *found.temporary, *found.beats]
    lines = [f"{word}: {path}" for path in paths]
    lines.append(
        f"{word}: {len(paths)} files, {found.freed_bytes} bytes; {found.num_younger} younger than {older_than} stay"
    )
    _say(asdict(found), as_json, "\n".join(lines))


@app.command()
def reproduce(
    output: CampaignUrl,
    request_id: Annotated[str, typer.Argument(metavar="ID", help="Of the request.")],
    n: Annotated[int, typer.Option("--n", min=0, help="Output number.")] = 0,
    model_path: Annotated[str | None, typer.Option(help="Where the model lies now.")] = None,
    tolerance: Annotated[int, typer.Option(min=0, max=255, help="Difference, of 255, that counts as equal.")] = 1,
    as_json: Json = False,
) -> None:
    """Render one asset again from its metadata alone and compare. Exits 5 when it is further off than the tolerance."""
    found = _guarded(lambda: api.reproduce(output, request_id, n, model_path=model_path, tolerance=tolerance), as_json)
    lines = [f"{name}: {then} then, {now} now" for name, (then, now) in found.changed.items()]
    if not found.is_as_committed:
        lines.append(f"the stored file is not the one that was committed: its sha256 is {found.sha256}")
    if found.fault:
        lines.append(f"not compared: {found.fault}")
    else:
        psnr = "" if found.psnr_db is None else f", PSNR {found.psnr_db:.1f} dB"
        files = "same file" if found.is_same_file else "other bytes"
        apart = f"largest difference {found.difference_max} of 255, {found.differing_share:.2%} of values differ{psnr}"
        lines.append(f"{found.asset}: {files}, {apart}")
    _say({"equal": found.is_equal, **asdict(found)}, as_json, "\n".join(lines))
    raise typer.Exit(0 if found.is_equal else VERIFY_EXIT_CODE)


@app.command()
def report(output: CampaignUrl, as_json: Json = False) -> None:
    """Write the gallery anew."""
    url = _guarded(lambda: api.report(output), as_json)
    _say({"gallery": url}, as_json, url)


@manifest_app.command("build")
def manifest_build(
    source: Annotated[Path, typer.Argument(help="File: .csv, .tsv, .jsonl or .parquet.")],
    to: Annotated[Path, typer.Option("--to", help="Folder for the shards.")],
    shards: Annotated[int, typer.Option(min=1)] = 1,
    rename: Annotated[list[str] | None, typer.Option(metavar="OLD=NEW", help="Rename a column.")] = None,
    drop: Annotated[list[str] | None, typer.Option(metavar="COLUMN", help="Leave a column out.")] = None,
    id_format: Annotated[str | None, typer.Option("--id", help="Make ids, as in 'scene-{row:05d}'.")] = None,
    as_json: Json = False,
) -> None:
    """Build a Parquet manifest from CSV, TSV, JSONL or Parquet."""
    names = _pairs("--rename", rename)

    def call() -> api.BuildReport:
        return api.build_manifest(source, to, shards=shards, rename=names, drop=drop or (), id_format=id_format)

    found = _guarded(call, as_json)
    _say(asdict(found), as_json, f"{found.rows} rows in {len(found.files)} shard(s) under {to}")


@models_app.command("list")
def models_list(
    job: Annotated[str | None, typer.Argument(metavar="[JOB]", help="Job file; without one, the builtins.")] = None,
    overrides: Set = None,
    as_json: Json = False,
) -> None:
    """Say of each model: family, tasks, sizes, frames, and what is lacking for more."""
    found = _guarded(lambda: api.list_models(job, overrides or ()), as_json)
    if as_json:
        _say({"models": [asdict(model) for model in found]}, as_json, "")
        return
    for model in found:
        print(f"{model.name}: {model.family}, {model.path}")
        print(f"  tasks: {', '.join(model.tasks)}")
        print(f"  size: {model.width} x {model.height} native, multiples of {model.size_multiple}; {model.dtype}")
        if model.frame_rule:
            print(f"  frames: {model.frame_rule}; by default {model.num_frames} at {model.fps:g} a second")
        for reason in model.lacking:
            print(f"  not here: {reason}")


@models_app.command("pin")
def models_pin(job: JobFile, overrides: Set = None, as_json: Json = False) -> None:
    """Print the digest of every model, further folder and LoRA, to paste as its `revision`. Reads all their files."""
    digests = _guarded(lambda: api.pin_models(job, overrides or ()), as_json)
    lines = [f"{pin.place}: {pin.path}\n  revision: {pin.revision}" for pin in digests]
    _say({"models": [asdict(pin) for pin in digests]}, as_json, "\n".join(lines))


def main() -> None:
    """Run the command line."""
    configure(log_format())
    app(args=_with_optional_class(sys.argv[1:]))


def _write_table(table: Any, path: Path) -> None:
    import pyarrow.parquet as pq

    try:
        pq.write_table(table, path, compression="zstd")
    except OSError as error:
        raise JobError(f"--to {path}: {error.strerror or error}") from error


def _pairs(option: str, values: list[str] | None) -> dict[str, str]:
    """Split `A=B` values of an option."""
    for value in values or ():
        if "=" not in value:
            raise typer.BadParameter(f"{option} {value}: not of the form A=B")
    return dict(value.split("=", 1) for value in values or ())


def _sample(text: str | None) -> float | None:
    """Read `--sample`: a count, or with a point a share of all."""
    try:
        value = None if text is None else float(text) if "." in text else int(text)
    except ValueError:
        value = 0
    if value is None or (value > 0 and (isinstance(value, int) or value <= 1)):
        return value
    raise JobError(f"--sample {text}: a whole number from 1, or a fraction over 0.0 up to 1.0")


def _age_s(text: str) -> float:
    """Read an age such as 90s, 30m, 12h or 7d."""
    found = _AGE.fullmatch(text)
    if not found:
        raise JobError(f"--older-than {text}: an age such as 90s, 30m, 12h or 7d")
    return float(found[1]) * {"s": 1, "m": 60, "h": 3600, "d": 86400}[found[2]]


def _selection(limit: int | None, only: list[str] | None, retry_failed: str | None) -> Selection:
    every = "" if retry_failed == _EVERY_CLASS else retry_failed
    return Selection(limit=limit, only=frozenset(only or ()), retry_failed=every)


def _with_optional_class(arguments: list[str]) -> list[str]:
    """Let `--retry-failed` stand alone or before a class name; the parser only knows options that take a value."""
    result: list[str] = []
    for argument in arguments:
        if result and result[-1] == "--retry-failed":
            if _CLASS_NAME.fullmatch(argument):
                result[-1] = f"--retry-failed={argument}"
                continue
            result[-1] = f"--retry-failed={_EVERY_CLASS}"
        result.append(argument)
    if result and result[-1] == "--retry-failed":
        result[-1] = f"--retry-failed={_EVERY_CLASS}"
    return result


def _progress() -> Progress:
    return Terminal() if sys.stderr.isatty() else Lines()


def _end_run(result: RunResult, accept_failed: bool, as_json: bool) -> NoReturn:
    """Print how a run ended and exit with its code."""
    if as_json:
        _say({**asdict(result), "gallery": joined(result.output, "report/index.html")}, as_json, "")
    else:
        _summary(result)
    raise typer.Exit(0 if accept_failed and result.state == "failed" else result.exit_code)


def _summary(result: RunResult) -> None:
    print(f"{result.run_id} {result.state}")
    table = Table(show_header=False)
    for name, number in result.counts.items():
        table.add_row(name, str(number))
    for kind, number in result.failures.items():
        table.add_row(f"failed: {kind}", str(number))
    Console().print(table)
    if result.message:
        print(redacted(result.message), file=sys.stderr)
    if result.state in {"done", "failed"}:
        filtered = "#status=failed" if result.state == "failed" else ""
        print(f"gallery: {joined(result.output, 'report/index.html')}{filtered}")


def _guarded(call: Callable[[], Any], as_json: bool) -> Any:
    """Call a verb; an error that was raised on purpose becomes its lines and its exit code."""
    try:
        return call()
    except SdbatchError as error:
        if as_json:
            problems = [asdict(problem) for problem in error.problems] if isinstance(error, ManifestError) else []
            _say({"error": type(error).__name__, "message": str(error), "problems": problems}, as_json, "")
        else:
            print(redacted(f"sdbatch: {error}"), file=sys.stderr)
        raise typer.Exit(error.exit_code) from error


def _say(value: dict[str, Any], as_json: bool, text: str) -> None:
    print(redacted(json.dumps(value, ensure_ascii=False, default=str) if as_json else text))
