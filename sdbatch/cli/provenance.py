"""`sdbatch trace`, `audit`, `credentials selfsign`, and what `verify` says of a delivery."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from sdbatch import api
from sdbatch.cli.options import CampaignUrl, Json
from sdbatch.cli.output import guarded, say
from sdbatch.cli.shown import show
from sdbatch.cli.summary import counted

credentials_app = typer.Typer(no_args_is_help=True, help="Certificates that deliveries are signed with.")

_HOW = {"sha256": "by its bytes", "key": "by the key inside it", "fingerprint": "by what it shows; it is one of these"}
FOUND_NOTHING = 5


def trace(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="A picture or clip.")],
    places: Annotated[
        list[str], typer.Argument(metavar="WHERE...", help="Campaigns and targets of deliveries to look in.")
    ],
    as_json: Json = False,
) -> None:
    """Tell which output a file comes from, with recipe, sources, run and decision. Exits 5 when none is found."""
    found = guarded(lambda: api.trace(file, places), as_json)
    if as_json:
        say(asdict(found), as_json, "")
    elif not found.candidates:
        show(f"{file}: nothing like it is there")
    else:
        show(f"{file}: found {_HOW[found.by]}")
        for one in found.candidates:
            apart = "" if one.bits_apart is None else f" ({one.bits_apart} of 64 bits apart)"
            show(f"{one.place}{apart}")
            for name, value in one.values.items():
                show(f"  {name}: {value}")
    raise typer.Exit(0 if found.candidates else FOUND_NOTHING)


def audit(
    output: CampaignUrl,
    to: Annotated[Path, typer.Option("--to", help="File to write: .csv, .tsv, .jsonl or .parquet.")],
    delivered: Annotated[
        list[str] | None, typer.Option("--delivered", metavar="TARGET", help="A delivery's files too (repeatable).")
    ] = None,
    as_json: Json = False,
) -> None:
    """Write one line a file: model and revision, prompt, sources and their licence, approver, time, mark, signature."""
    written = guarded(lambda: api.audit(output, to, delivered or ()), as_json)
    files = counted(written.delivered, "delivered file", "delivered files")
    counts = {
        "unmarked": written.unmarked,
        "missing or damaged": written.missing,
        "withdrawn": written.withdrawn,
    }
    told = [f"{number} {word}" for word, number in counts.items() if number]
    text = f"{to}: {counted(written.masters, 'master', 'masters')}, {files}"
    say(asdict(written), as_json, "; ".join([text, *told]))


@credentials_app.command("selfsign")
def credentials_selfsign(
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="Where to.")],
    name: Annotated[str, typer.Option("--name", help="Name of the signer.")] = "sdbatch trial",
    as_json: Json = False,
) -> None:
    """Make a certificate chain and its key for trying; no program trusts it."""
    files = guarded(lambda: api.make_credentials(folder, name), as_json)
    text = "\n".join([*map(str, files), "for trying: programs that read credentials will call the signer unknown"])
    say({"files": list(map(str, files))}, as_json, text)


def show_delivery_verified(found: Any, as_json: bool) -> None:
    """Print what `verify` found at a target."""
    lines = [*found.findings, *(f"fork of the ledger (harmless): {name}" for name in found.forks)]
    if any(": is not the file that was delivered" in finding for finding in found.findings):
        lines.append("`sdbatch deliver` makes missing files anew; remove those first that are not what was delivered")
    states = ", ".join(f"{number} {state}" for state, number in sorted(found.credentials.items())) or "none"
    word = "good" if found.is_good else counted(len(found.findings), "mismatch", "mismatches")
    ledger = f"{counted(found.ledger_files, 'file', 'files')}, {counted(found.ledger_lines, 'line', 'lines')}"
    files = f"{counted(found.files, 'file', 'files')}, {found.marked} marked in XMP"
    lines.append(f"{word}: {files}; content credentials: {states}; ledger: {ledger}")
    say({"good": found.is_good, **asdict(found)}, as_json, "\n".join(lines))
