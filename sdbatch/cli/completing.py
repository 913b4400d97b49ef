"""What a shell offers after a tab, and the scripts that make it ask: ids, classes of failure, columns, keys of the job.

Only files of this machine are looked at, and of each only some rows: nobody waits at a prompt for a bucket.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import suppress
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Final

import pyarrow as pa
import pyarrow.parquet as pq
import typer
from typer.completion import get_completion_script  # type: ignore[attr-defined]  # it is imported there

from sdbatch.cli.shown import show
from sdbatch.columns import MANIFEST
from sdbatch.errors import ROW_ERRORS, SdbatchError

PROGRAM: Final = "sdbatch"
VARIABLE: Final = "_SDBATCH_COMPLETE"
"""Environment variable by which a shell asks."""
OFFERED_MAX: Final = 200
ROWS_LOOKED_AT: Final = 200_000


class Shell(StrEnum):
    """Shells that ask."""

    BASH = "bash"
    ZSH = "zsh"
    FISH = "fish"


def completion(
    shell: Annotated[Shell, typer.Argument(help="Your shell: bash, zsh or fish.")],
) -> None:
    """Print the script that completes commands, options, ids and names: eval "$(sdbatch completion bash)"."""
    show(get_completion_script(prog_name=PROGRAM, complete_var=VARIABLE, shell=shell.value))


def ids(ctx: typer.Context, incomplete: str) -> list[str]:
    """Offer ids of the job's manifest, or of the campaign."""
    with suppress(SdbatchError, OSError, pa.ArrowException):
        return _starting(incomplete, _ids_of(_place(ctx)))
    return []


def failure_classes(incomplete: str) -> list[str]:
    """Offer the classes of failures."""
    return _starting(incomplete, sorted(ROW_ERRORS))


def columns(ctx: typer.Context, incomplete: str) -> list[str]:
    """Offer columns of a manifest, those that the campaign's own has among them."""
    own: list[str] = []
    with suppress(SdbatchError, OSError, pa.ArrowException):
        parts = _parts(_place(ctx))
        own = [name for path in parts[:1] for name in pq.read_schema(path).names if name.startswith("x_")]
    return _starting(incomplete, [*own, *MANIFEST])


def job_keys(ctx: typer.Context, incomplete: str) -> list[str]:
    """Offer keys of the job for --set, and the names of its models where one is meant."""
    from sdbatch.job import Job, read_job

    keys = list(Job.model_fields)
    with suppress(SdbatchError, OSError):
        models = list(read_job(_place(ctx)).models)
        keys += [f"models.{name}." for name in models]
        keys += [f"defaults.model={name}" for name in models]
    return _starting(incomplete, keys)


def _place(ctx: typer.Context) -> str:
    """Return the job or the campaign that stands on the line so far."""
    named = ctx.params.get("job") or ctx.params.get("output")
    # After an option that still lacks its value, what was read before it is left over and nobody's yet.
    return str(named or next(iter(ctx.args), ""))


def _ids_of(place: str) -> Iterator[str]:
    num_rows = 0
    for path in _parts(place):
        with pq.ParquetFile(path) as file:
            for batch in file.iter_batches(16_384, columns=["id"], use_threads=False):
                yield from (str(value) for value in batch.column(0).to_pylist())
                num_rows += batch.num_rows
                if num_rows >= ROWS_LOOKED_AT:
                    return


def _parts(place: str) -> list[Path]:
    """Return local Parquet files with a column `id`: the campaign's newest manifest, else the job's own."""
    if not place:
        return []
    manifest = ""
    if place.endswith((".yaml", ".yml")):
        from sdbatch.job import read_job

        job = read_job(place)
        place, manifest = job.output, job.manifest_path
    for run in sorted(Path(place).glob("runs/r*"), reverse=True):
        if parts := sorted(run.glob("requests/*.parquet")):
            return parts
    here = Path(manifest) if manifest else None
    if here is None:
        return []
    return sorted(here.glob("*.parquet")) if here.is_dir() else [here] if here.suffix == ".parquet" else []


def _starting(incomplete: str, names: Iterable[str]) -> list[str]:
    found: dict[str, None] = {}
    for name in names:
        if name.startswith(incomplete):
            found[name] = None
            if len(found) == OFFERED_MAX:
                break
    return list(found)
