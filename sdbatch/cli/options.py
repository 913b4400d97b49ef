"""The options that several commands share, and how their texts are read."""

from __future__ import annotations

import re
import sys
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from sdbatch.cli.completing import columns, failure_classes, ids, job_keys
from sdbatch.driver.id_lists import read_ids
from sdbatch.driver.picking import Selection
from sdbatch.errors import JobError

_EVERY_CLASS = "*"

_AGE = re.compile(r"(\d+(?:\.\d+)?)([smhd])")

_CLASS_NAME = re.compile(r"[A-Z][A-Za-z]+")

JobFile = Annotated[str, typer.Argument(metavar="JOB", help="Job file (YAML).")]

CampaignUrl = Annotated[str, typer.Argument(metavar="OUTPUT", help="Campaign folder or URL, or a job file.")]

Json = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]

Set = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY.KEY=VALUE", help="Override a value of the job.", autocompletion=job_keys),
]

Date = Annotated[
    str | None,
    typer.Option("--date", metavar="YYYY-MM-DD", help="${date} in the manifest's path; today (UTC) without."),
]


class SourceScope(StrEnum):
    """The remote sources whose headers `check` reads."""

    SAMPLE = "sample"
    ALL = "all"


Sources = Annotated[
    SourceScope,
    typer.Option("--sources", help="Read the headers of all remote sources, or of a sample; local ones are all read."),
]

Limit = Annotated[int | None, typer.Option("--limit", min=1, help="Make at most so many requests.")]

Only = Annotated[
    list[str] | None,
    typer.Option(
        "--only",
        metavar="ID_OR_GLOB",
        help="Only this request, or those that mug-* fits (repeatable).",
        autocompletion=ids,
    ),
]

OnlyFrom = Annotated[
    str | None,
    typer.Option("--only-from", metavar="FILE", help="Only ids of a file: one a line, or a table with id; - is stdin."),
]

Where = Annotated[
    str | None,
    typer.Option("--where", metavar="EXPR", help="Only rows for which this holds: \"x_locale in ['de-DE', 'fr-FR']\"."),
]

Sample = Annotated[
    int | None, typer.Option("--sample", metavar="N", min=1, help="Only N of these rows, the same ones each time.")
]

Per = Annotated[
    list[str] | None,
    typer.Option(
        "--per", metavar="COLUMN", help="--sample N for each value of this column (repeatable).", autocompletion=columns
    ),
]

RetryFailed = Annotated[
    str | None,
    typer.Option(
        "--retry-failed",
        metavar="[CLASS]",
        help="Try failed requests again: all, or those of one class.",
        autocompletion=failure_classes,
    ),
]

Reroll = Annotated[
    bool, typer.Option("--reroll", help="Replace rejected and blocked outputs by further ones (limits.rerolls).")
]

InProcess = Annotated[bool, typer.Option("--in-process", help="One worker in this process, without Ray.")]

AcceptNewKeys = Annotated[
    bool, typer.Option("--accept-new-keys", help="Render outputs again whose keys an older version made.")
]

Strict = Annotated[bool, typer.Option("--strict", help="Take warnings for errors.")]

Verbose = Annotated[bool, typer.Option("--verbose", help="Show the run's counters too.")]

Yes = Annotated[
    bool, typer.Option("--yes", help="Let more rows leave the campaign than limits.leaving_fraction allows.")
]

AllowOpenRay = Annotated[
    bool, typer.Option("--allow-open-ray", help="Use a Ray cluster that asks for no token; refused without.")
]

AllowCode = Annotated[
    bool, typer.Option("--allow-code", help="Let the run call a function that the job names (watermark.call).")
]

AcceptFailed = Annotated[bool, typer.Option("--accept-failed", help="Exit 0 although rows failed.")]


def split_pairs(option: str, values: list[str] | None) -> dict[str, str]:
    """Split `A=B` values of an option."""
    for value in values or ():
        if "=" not in value:
            raise typer.BadParameter(f"{option} {value}: not of the form A=B")
    return dict(value.split("=", 1) for value in values or ())


def sample_share(text: str | None) -> float | None:
    """Read `--sample`: a count, or with a point a share of all."""
    try:
        value = None if text is None else float(text) if "." in text else int(text)
    except ValueError:
        value = 0
    if value is None or (value > 0 and (isinstance(value, int) or value <= 1)):
        return value
    raise JobError(f"--sample {text}: a whole number from 1, or a fraction over 0.0 up to 1.0")


def refuse_of_other_kind(output: str, *, is_delivery: bool, sample: str | None, trust: Path | None) -> None:
    """Raise JobError for an option of `verify` that does not go with what lies at a place."""
    if is_delivery and sample is not None:
        raise JobError(f"--sample {sample}: {output} is a delivery, of which every file is hashed; leave --sample out")
    if not is_delivery and trust is not None:
        raise JobError(
            f"--trust {trust}: {output} holds no delivery, and masters are not signed; name the place of a delivery, "
            "or leave --trust out"
        )


def parse_age_s(text: str) -> float:
    """Read an age such as 90s, 30m, 12h or 7d."""
    match = _AGE.fullmatch(text)
    if not match:
        raise JobError(f"--older-than {text}: an age such as 90s, 30m, 12h or 7d")
    return float(match[1]) * {"s": 1, "m": 60, "h": 3600, "d": 86400}[match[2]]


def selection_of(
    only: list[str] | None = None,
    only_from: str | None = None,
    where: str | None = None,
    sample: int | None = None,
    per: list[str] | None = None,
    *,
    limit: int | None = None,
    retry_failed: str | None = None,
    reroll: bool = False,
) -> Selection:
    """Return which rows the options mean; the list of `--only-from` is read here.

    Raises:
        JobError: When the list cannot be read, or the options do not go together.
    """
    return Selection(
        limit=limit,
        only=frozenset(only or ()),
        only_from=None if only_from is None else read_ids(only_from, sys.stdin),
        where=where,
        sample=sample,
        per=tuple(per or ()),
        retry_failed="" if retry_failed == _EVERY_CLASS else retry_failed,
        is_rerolling=reroll,
    )


def with_optional_class(arguments: list[str]) -> list[str]:
    """Allow `--retry-failed` without a class name; the parser only knows options that take a value."""
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
