"""The command line: parses, calls a verb, prints. Nothing is decided here.

Exit codes: 0 all done; 2 the job, manifest or credentials are wrong (nothing started); 3 finished with failed rows;
4 another driver holds the campaign; 5 verify or reproduce found a mismatch, or trace nothing; 6 a budget is reached
(resumable); 130 interrupted (resumable); 1 any other.
"""

from __future__ import annotations

import importlib.metadata
import os
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.completion import completion_init  # type: ignore[attr-defined]  # it is imported there

from sdbatch import api
from sdbatch.cli.brief import brief_app
from sdbatch.cli.completing import PROGRAM, VARIABLE, completion
from sdbatch.cli.completing import ids as ids_of
from sdbatch.cli.gc import gc
from sdbatch.cli.grid import grid
from sdbatch.cli.init import init
from sdbatch.cli.money import BudgetText, By, columns_of, cost, show_forecast, spent_line
from sdbatch.cli.options import (
    AcceptFailed,
    AcceptNewKeys,
    AllowCode,
    AllowOpenRay,
    CampaignUrl,
    Date,
    InProcess,
    JobFile,
    Json,
    Limit,
    Only,
    OnlyFrom,
    Per,
    Reroll,
    RetryFailed,
    Sample,
    Set,
    Sources,
    SourceScope,
    Strict,
    Verbose,
    Where,
    Yes,
    refuse_of_other_kind,
    sample_share,
    selection_of,
    split_pairs,
    with_optional_class,
)
from sdbatch.cli.output import end_run, guarded, note, progress, say, say_built, show_delivery, show_plan, warn
from sdbatch.cli.process import last_line, prepare_command, prepare_generation
from sdbatch.cli.provenance import audit, credentials_app, show_delivery_verified, trace
from sdbatch.cli.review import review
from sdbatch.cli.shown import show
from sdbatch.cli.streams import end_output
from sdbatch.cli.submit import submit
from sdbatch.cli.summary import counted
from sdbatch.cli.takedown import takedown
from sdbatch.cli.usage import Commands
from sdbatch.cli.watching import INTERRUPTED, watching_app
from sdbatch.driver.forecast import PlanReport
from sdbatch.driver.one_run.records import RunResult
from sdbatch.report.tables import check_target, write_rows

_EXIT_CODES = (__doc__ or "").partition("\n\n")[2]
_HELP = f"Turn a table of prompts and sources into pictures and clips.\n\n{_EXIT_CODES}"

app = typer.Typer(add_completion=False, no_args_is_help=True, pretty_exceptions_enable=False, help=_HELP, cls=Commands)

manifest_app = typer.Typer(no_args_is_help=True, help="Build manifests.")

models_app = typer.Typer(no_args_is_help=True, help="Look at models.")

app.add_typer(manifest_app, name="manifest")

app.add_typer(models_app, name="models")

app.add_typer(brief_app, name="brief")

app.command("review")(review)
app.add_typer(credentials_app, name="credentials")

app.command()(trace)

app.command()(audit)

app.command()(takedown)

app.command()(gc)
app.command()(init)

app.command()(grid)
app.command()(submit)
app.command()(cost)

app.add_typer(watching_app)  # without a name: its commands stand beside the others

app.command()(completion)

VERIFY_EXIT_CODE = 5

FOR_TESTS = "builtin:tiny-random"
"""A builtin that paints noise; nobody looks for it in a list."""


def _show_version(is_asked: bool) -> None:
    if is_asked:
        show(f"sdbatch {importlib.metadata.version('sdbatch')}")
        raise typer.Exit


@app.callback()
def every_command(
    version: Annotated[
        bool, typer.Option("--version", help="Show the version.", callback=_show_version, is_eager=True)
    ] = False,
) -> None:
    """Take the options that stand before a command."""


@app.command()
def check(
    job: JobFile,
    overrides: Set = None,
    date: Date = None,
    sources: Sources = SourceScope.SAMPLE,
    strict: Strict = False,
    as_json: Json = False,
) -> None:
    """Check a job, every row of its manifest and the headers of its sources. Writes nothing, loads nothing."""
    is_all = sources is SourceScope.ALL
    checked = guarded(
        lambda: api.check(api.load_job(job, overrides or (), date), all_sources=is_all, strict=strict), as_json
    )
    models = ", ".join(f"{name} ({title})" for name, title in checked.models.items())
    size = f"{checked.rows} rows in {checked.shards} shard(s), {checked.assets} assets"
    if checked.sources_read < checked.sources:
        size += f", headers of {checked.sources_read} of {checked.sources} sources (--sources all reads all)"
    warnings = f"; {counted(checked.num_warnings, 'warning', 'warnings')}" if checked.num_warnings else ""
    note(checked.notes, as_json)
    warn(checked.lines(), as_json)
    say(asdict(checked), as_json, f"ok: {size}, {models}{warnings}")


@app.command()
def plan(
    job: JobFile,
    overrides: Set = None,
    date: Date = None,
    limit: Limit = None,
    only: Only = None,
    only_from: OnlyFrom = None,
    where: Where = None,
    sample: Sample = None,
    per: Per = None,
    retry_failed: RetryFailed = None,
    reroll: Reroll = False,
    by: By = None,
    as_json: Json = False,
) -> None:
    """Show what a run would make, and why, and what it would cost. Writes nothing, loads nothing."""
    columns = columns_of(by)

    def call() -> PlanReport:
        selection = selection_of(
            only, only_from, where, sample, per, limit=limit, retry_failed=retry_failed, reroll=reroll
        )
        return api.plan(api.load_job(job, overrides or (), date), selection, by=columns)

    forecast = guarded(call, as_json)
    if as_json:
        say(asdict(forecast), as_json, "")
    else:
        show_plan(forecast)
        show_forecast(forecast)


@app.command()
def run(
    job: JobFile,
    overrides: Set = None,
    date: Date = None,
    limit: Limit = None,
    only: Only = None,
    only_from: OnlyFrom = None,
    where: Where = None,
    sample: Sample = None,
    per: Per = None,
    retry_failed: RetryFailed = None,
    reroll: Reroll = False,
    budget: BudgetText = None,
    in_process: InProcess = False,
    accept_failed: AcceptFailed = False,
    accept_new_keys: AcceptNewKeys = False,
    allow_open_ray: AllowOpenRay = False,
    allow_code: AllowCode = False,
    yes: Yes = False,
    verbose: Verbose = False,
    as_json: Json = False,
) -> None:
    """Make what is missing of a campaign."""

    def call() -> RunResult:
        selection = selection_of(
            only, only_from, where, sample, per, limit=limit, retry_failed=retry_failed, reroll=reroll
        )
        checked = api.load_job(job, overrides or (), date)
        if in_process:
            prepare_generation(is_exact=checked.determinism == "exact")
        return api.run(
            checked,
            selection,
            in_process=in_process,
            progress=progress(),
            accept_new_keys=accept_new_keys,
            allow_open_ray=allow_open_ray,
            allow_code=allow_code,
            yes=yes,
            budget=budget,
        )

    with last_line():
        result = guarded(call, as_json)
    end_run(result, accept_failed, as_json, spent_line(result), verbose=verbose)


@app.command()
def redo(
    job: JobFile,
    ids: Annotated[
        list[str] | None,
        typer.Argument(metavar="[ID]...", help="Requests; all damaged ones by default.", autocompletion=ids_of),
    ] = None,
    overrides: Set = None,
    date: Date = None,
    only: Only = None,
    only_from: OnlyFrom = None,
    where: Where = None,
    sample: Sample = None,
    per: Per = None,
    force: Annotated[
        bool, typer.Option("--force", help="Make whole assets of these requests again too; the old files are removed.")
    ] = False,
    in_process: InProcess = False,
    accept_new_keys: AcceptNewKeys = False,
    allow_open_ray: AllowOpenRay = False,
    allow_code: AllowCode = False,
    yes: Yes = False,
    verbose: Verbose = False,
    as_json: Json = False,
) -> None:
    """Make assets again that `verify` finds missing or damaged, or with --force all of the requests that are named."""

    def call() -> RunResult | None:
        checked = api.load_job(job, overrides or (), date)
        if in_process:
            prepare_generation(is_exact=checked.determinism == "exact")
        return api.redo(
            checked,
            ids or (),
            selection=selection_of(only, only_from, where, sample, per),
            force=force,
            in_process=in_process,
            progress=progress(),
            accept_new_keys=accept_new_keys,
            allow_open_ray=allow_open_ray,
            allow_code=allow_code,
            yes=yes,
        )

    with last_line():
        result = guarded(call, as_json)
    if result is None:
        nothing = (
            "no asset of these requests is there yet; run makes them" if force else "nothing is missing or damaged"
        )
        say({"state": "done", "counts": {}}, as_json, nothing)
    else:
        end_run(result, False, as_json, spent_line(result), verbose=verbose)


@app.command()
def cancel(output: CampaignUrl, as_json: Json = False) -> None:
    """Ask the run that drives a campaign to stop, from any machine, through the store alone."""
    holder = guarded(lambda: api.cancel(output), as_json)
    say({"asked": holder}, as_json, f"asked {holder} to stop; what is in flight may end, then it exits with 130")


@app.command()
def metadata(
    output: CampaignUrl,
    to: Annotated[
        Path | None,
        typer.Option("--to", metavar="FILE", help="Write the rows there, as .parquet, .csv, .tsv, .jsonl or .xlsx."),
    ] = None,
    only: Only = None,
    only_from: OnlyFrom = None,
    where: Where = None,
    sample: Sample = None,
    per: Per = None,
    as_json: Json = False,
) -> None:
    """Print or write the effective metadata: one row per asset or failed request. Works while a run goes on."""
    if to is not None:
        guarded(lambda: check_target(to), as_json)
    table = guarded(lambda: api.metadata(output, selection_of(only, only_from, where, sample, per)), as_json)
    if to is not None:
        guarded(lambda: write_rows(table, to), as_json)
    states = table.column("status").to_pylist()
    counts = {state: states.count(state) for state in sorted(set(states))}
    text = ", ".join(f"{number} {state}" for state, number in counts.items()) or "none"
    written = f", written to {to}" if to else ""
    say({"rows": table.num_rows, "status": counts, "to": str(to) if to else None}, as_json, f"rows: {text}{written}")


@app.command()
def verify(
    output: CampaignUrl,
    sample: Annotated[
        str | None, typer.Option(metavar="N|FRACTION", help="Hash only so many assets, or (0.1) that share of them.")
    ] = None,
    trust: Annotated[
        Path | None, typer.Option("--trust", metavar="FILE", help="Root certificates that a delivery is verified with.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Compare a campaign's commits, metadata and assets, or a delivery's files and ledger. Exits 5 on a mismatch."""
    share = guarded(lambda: sample_share(sample), as_json)
    is_delivery = guarded(lambda: api.is_delivery(output), as_json)
    guarded(lambda: refuse_of_other_kind(output, is_delivery=is_delivery, sample=sample, trust=trust), as_json)
    if is_delivery:
        delivered = guarded(lambda: api.verify_delivery(output, trust_file=trust), as_json)
        show_delivery_verified(delivered, as_json)
        raise typer.Exit(0 if delivered.is_good else VERIFY_EXIT_CODE)
    verified = guarded(lambda: api.verify(output, share), as_json)
    lines = [f"{finding.kind}: {finding.asset} {finding.detail}" for finding in verified.findings]
    lines += [f"orphan (harmless): {asset}" for asset in verified.orphans]
    lines += [f"late (counts nowhere): {commit}" for commit in verified.late]
    word = "good" if verified.is_good else counted(len(verified.findings), "mismatch", "mismatches")
    lines.append(
        f"{word}: {verified.rows_ok} assets committed, {verified.assets_hashed} hashed, "
        f"{verified.metadata_rows} rows of metadata, {len(verified.orphans)} orphans"
        + (f", {verified.withdrawn} taken down" if verified.withdrawn else "")
    )
    say({"good": verified.is_good, **asdict(verified)}, as_json, "\n".join(lines))
    raise typer.Exit(0 if verified.is_good else VERIFY_EXIT_CODE)


@app.command()
def reproduce(
    output: CampaignUrl,
    request_id: Annotated[str, typer.Argument(metavar="ID", help="Id of the request.", autocompletion=ids_of)],
    n: Annotated[int, typer.Option("--n", min=0, help="Output number.")] = 0,
    job: Annotated[
        str | None, typer.Option("--job", metavar="JOB", help="Your job file: its models, storage and sources hold.")
    ] = None,
    model_path: Annotated[str | None, typer.Option(help="Where the model lies now.")] = None,
    allow: Annotated[
        list[str] | None, typer.Option("--allow", metavar="PREFIX", help="Sources may be read from there (repeatable).")
    ] = None,
    tolerance: Annotated[int, typer.Option(min=0, max=255, help="Difference, of 255, that counts as equal.")] = 1,
    as_json: Json = False,
) -> None:
    """Render one asset again from its metadata alone and compare. Exits 5 when it is further off than the tolerance."""

    def call() -> Any:
        prepare_generation(is_exact=True)  # as good as any for an output of `fast`, and needed for one of `exact`
        return api.reproduce(
            output, request_id, n, job=job, model_path=model_path, allow=allow or (), tolerance=tolerance
        )

    comparison = guarded(call, as_json)
    lines = [f"{name}: {then} then, {now} now" for name, (then, now) in comparison.changed.items()]
    if not comparison.is_as_committed:
        lines.append(f"the stored file is not the one that was committed: its sha256 is {comparison.sha256}")
    if comparison.fault:
        lines.append(f"not compared: {comparison.fault}")
    else:
        psnr = "" if comparison.psnr_db is None else f", PSNR {comparison.psnr_db:.1f} dB"
        files = "same file" if comparison.is_same_file else "other bytes"
        largest = f"largest difference {comparison.difference_max} of 255"
        share = f"{comparison.differing_share:.2%} of values differ"
        lines.append(f"{comparison.asset}: {files}, {largest}, {share}{psnr}")
    say({"equal": comparison.is_equal, **asdict(comparison)}, as_json, "\n".join(lines))
    raise typer.Exit(0 if comparison.is_equal else VERIFY_EXIT_CODE)


@app.command()
def report(
    output: CampaignUrl,
    only: Only = None,
    only_from: OnlyFrom = None,
    where: Where = None,
    sample: Sample = None,
    per: Per = None,
    as_json: Json = False,
) -> None:
    """Write the gallery anew, of all rows or of those that are picked."""
    url = guarded(lambda: api.report(output, selection_of(only, only_from, where, sample, per)), as_json)
    say({"gallery": url}, as_json, url)


@app.command()
def deliver(
    delivery: Annotated[str, typer.Argument(metavar="DELIVERY", help="Delivery file (YAML).")],
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show what would be made; write nothing.")] = False,
    prune: Annotated[
        bool, typer.Option("--prune", help="Remove files that this delivery made and does not ask for any more.")
    ] = False,
    allow_code: Annotated[
        bool, typer.Option("--allow-code", help="Let the delivery run a function that it names (sign.call).")
    ] = False,
    only: Only = None,
    only_from: OnlyFrom = None,
    where: Where = None,
    sample: Sample = None,
    per: Per = None,
    as_json: Json = False,
) -> None:
    """Make the files that people asked for from a campaign's masters. Renders nothing, needs no GPU."""

    def call() -> Any:
        selection = selection_of(only, only_from, where, sample, per)
        return api.deliver(
            delivery,
            selection=selection,
            dry_run=dry_run,
            prune=prune,
            allow_code=allow_code,
            progress=progress(),
        )

    report = guarded(call, as_json)
    if as_json:
        say({**asdict(report), "exit_code": report.exit_code}, as_json, "")
    else:
        show_delivery(report)
    raise typer.Exit(report.exit_code)


@manifest_app.command("build")
def manifest_build(
    source: Annotated[Path, typer.Argument(help="File: .csv, .tsv, .txt, .xlsx, .jsonl or .parquet.")],
    to: Annotated[Path, typer.Option("--to", help="Folder for the shards.")],
    shards: Annotated[int, typer.Option(min=1, help="Number of files.")] = 1,
    rename: Annotated[list[str] | None, typer.Option(metavar="OLD=NEW", help="Rename a column.")] = None,
    drop: Annotated[list[str] | None, typer.Option(metavar="COLUMN", help="Leave a column out.")] = None,
    id_format: Annotated[str | None, typer.Option("--id", help="Make ids from columns, as in '{sku}-{scene}'.")] = None,
    sheet: Annotated[str | None, typer.Option(help="Sheet of a workbook, by name.")] = None,
    own: Annotated[bool, typer.Option("--own", help="Other columns become your own: x_NAME.")] = False,
    as_json: Json = False,
) -> None:
    """Build a Parquet manifest from CSV, TSV, a workbook, JSONL or Parquet."""
    names = split_pairs("--rename", rename)

    def call() -> api.BuildReport:
        return api.build_manifest(
            source, to, shards=shards, rename=names, drop=drop or (), id_format=id_format, sheet=sheet, own=own
        )

    say_built(guarded(call, as_json), to, as_json)


@models_app.command("list")
def models_list(
    job: Annotated[str | None, typer.Argument(metavar="[JOB]", help="Job file; without one, the builtins.")] = None,
    overrides: Set = None,
    every: Annotated[bool, typer.Option("--all", help="Show all builtins, and what further tasks would need.")] = False,
    as_json: Json = False,
) -> None:
    """Show each model: its family, tasks, sizes and frames."""
    models = guarded(lambda: api.list_models(job, overrides or ()), as_json)
    if as_json:
        say({"models": [asdict(model) for model in models]}, as_json, "")
        return
    for model in models:
        if job is None and not every and model.path == FOR_TESTS:
            continue
        show(f"{model.name}: {model.family}, {model.path}")
        if model.laid_out_as:
            show(f"  one file: {model.assumed or model.laid_out_as}")
        show(f"  tasks: {', '.join(model.tasks)}")
        show(f"  size: {model.width} x {model.height} native, {model.size_rule}; {model.dtype}")
        if model.frame_rule:
            show(f"  frames: {model.frame_rule}; by default {model.num_frames} at {model.fps:g} a second")
        show(f"  memory: {model.memory}")
        for reason in model.lacking if every else ():
            show(f"  not here: {reason}")


@models_app.command("pin")
def models_pin(job: JobFile, overrides: Set = None, as_json: Json = False) -> None:
    """Print the digest of every model, further folder and LoRA, to paste as its `revision`. Reads all their files."""
    digests = guarded(lambda: api.pin_models(job, overrides or ()), as_json)
    lines = [f"{pin.place}: {pin.path}\n  revision: {pin.revision}" for pin in digests]
    say({"models": [asdict(pin) for pin in digests]}, as_json, "\n".join(lines))


def main() -> None:
    """Run the command line."""
    prepare_command()
    if VARIABLE in os.environ:  # a shell asks
        completion_init()
    try:
        app(args=with_optional_class(sys.argv[1:]), prog_name=PROGRAM)
    except SystemExit as ended:
        unwritten = end_output()
        sys.exit(ended.code or unwritten)
    except KeyboardInterrupt:  # it came while the commands were put together
        sys.exit(INTERRUPTED)
