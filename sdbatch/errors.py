"""Everything that can go wrong, by what to do about it.

    SdbatchError
    |-- UserError            tell the user; nothing was started (exit 2)
    |   |-- JobError             the job file or an override is wrong
    |   |-- ManifestError        rows are wrong; carries every problem found
    |   |-- ModelError           a model folder is missing, unsafe or of no known family
    |   |-- NewerFormat          a file of the campaign was written by a later version
    |   |-- ClusterRefused       a cluster does not take our token
    |   `-- StoreRefused         credentials, bucket, or a store that cannot promise "exactly once"
    |-- CampaignHeld         another driver holds the campaign (exit 4)
    |-- Interrupted          a signal came before anything was started (exit 130)
    |-- RowError             set the request aside, record it, go on (exit 3 at the end)
    |   |-- SourceMissing, SourceUnreadable, SourceTooLarge, SourceTooShort, SourceChanged
    |   |-- PromptTooLong, LoraRefused, BlankOutput, GenerationFailed, OutOfMemory
    |   |-- DeadlineExceeded, EncodeFailed, WatermarkFailed, AssetConflict
    |   `-- WorkerCrash          a row whose process died twice while it ran alone
    `-- MachineError         try elsewhere, or later; blames no row
        |-- ModelLoadFailed      the folder was right at plan time, the load was not
        |-- DeviceLost           the device refuses every further call; its process must end
        |-- GpuUnusable          a GPU that torch cannot use; its node is left out
        |-- StoreUnavailable     bounded retries were used up
        |-- LocalFault           this machine is out of disk, quota or open files, or its disk fails
        |-- DecoderUnavailable   no process that decodes sources can be started
        |-- LeaseLost            another driver took over; stop before the next commit
        |-- WorkersUnavailable   no worker became ready, or none is left
        `-- WorkersUnlike        a worker has other versions or another device than `determinism: exact` allows

Anything else is a bug and ends the run.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import ClassVar

LINES_MAX = 50
"""Lines of a ManifestError's text, each a group of equal problems; all that were kept are in its `problems`."""
IDS_SHOWN = 5
"""Ids that a group of equal problems names."""


class SdbatchError(Exception):
    """Root of every error this package raises on purpose."""

    exit_code: ClassVar[int] = 1


class UserError(SdbatchError):
    """The job, the manifest or the credentials are wrong; nothing was started."""

    exit_code = 2


class JobError(UserError):
    """The job file or an override of it is wrong."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """One thing wrong with a manifest.

    Attributes:
        shard: File the row stands in.
        row: Row number in the shard, from 0; None when the whole shard is meant, or when it is not known.
        column: Column name; None when the whole row is meant.
        value: The value, shortened for people.
        message: What is wrong, with the bound.
        id: Id of the row, also where its number is not known; None when it has none, or when the whole shard is meant.
        source: Table that the shard was built from; None when the shard is what a person opens.
        line: Line of that table, or of a table of text, from 1; None in a Parquet file, which has no lines.
    """

    shard: str
    row: int | None
    column: str | None
    value: str | None
    message: str
    id: str | None = None
    source: str | None = None
    line: int | None = None

    def __str__(self) -> str:
        return f"{self.place}: {self.statement(with_value=True)}"

    @property
    def place(self) -> str:
        """Where a person finds the row: the line of a table, else the row of a Parquet file from 1, and its id."""
        named = "" if self.id is None else f" ({self.id})"
        if self.row is None:
            return f"{self.shard}{named}"
        if self.line is not None:
            return f"line {self.line} of {self.source or self.shard}{named}"
        return f"row {self.row + 1} of {self.source or self.shard}{named}"

    def statement(self, *, with_value: bool) -> str:
        """Return what is wrong, without the place."""
        value = self.value if with_value else None
        return " ".join(part for part in (self.column, value, self.message) if part)


def grouped(problems: Iterable[Problem], num_lines: int = LINES_MAX) -> list[str]:
    """Return a line for each group of equal problems, in the order in which they were met.

    Problems are equal when column and message are. A group names its number of rows, the first ids, and the place of
    its first row; what else there is stands in the problems themselves.
    """
    groups: dict[tuple[str | None, str], list[Problem]] = {}
    for problem in problems:
        groups.setdefault((problem.column, problem.message), []).append(problem)
    return [_group_line(group) for group in islice(groups.values(), num_lines)]


def _group_line(group: list[Problem]) -> str:
    first = group[0]
    if len(group) == 1:
        return str(first)
    values = list(dict.fromkeys(problem.value for problem in group if problem.value is not None))
    statement = first.statement(with_value=len(values) == 1)
    shown = [problem.id or problem.place.split(" of ")[0] for problem in group[:IDS_SHOWN]]
    more = ", ..." if len(group) > len(shown) else ""
    others = f"; such as {', '.join(values[:2])}" if len(values) > 1 else ""
    return f"{len(group)} rows: {statement} ({', '.join(shown)}{more}{others}; the first is {first.place})"


class ManifestError(UserError):
    """The manifest cannot be run as it is.

    Attributes:
        problems: The first problems, in the order of the rows.
        num_problems: Number of all problems; `problems` is cut at a bound.
    """

    KIND: ClassVar[str] = "problem(s) in the manifest"

    def __init__(self, problems: list[Problem], num_problems: int | None = None) -> None:
        self.problems = problems
        self.num_problems = len(problems) if num_problems is None else num_problems
        lines = grouped(problems)
        told = len(problems) if len(lines) < LINES_MAX else len(lines)
        if self.num_problems > told:
            lines.append(f"... and {self.num_problems - told} more (--json gives up to 1000)")
        super().__init__(f"{self.num_problems} {self.KIND}:\n" + "\n".join(lines))


class WarningsRefused(ManifestError):
    """The manifest has warnings, and the caller takes them for errors."""

    KIND = "warning(s) about the manifest, which --strict takes for errors"


class ModelError(UserError):
    """A model folder is missing, unsafe or of no known family."""


class NewerFormat(UserError):
    """A file of the campaign was written by a later version of this package."""


class ClusterRefused(UserError):
    """A cluster does not take our token."""


class StoreRefused(UserError):
    """The store says no, or nothing listens there: credentials, bucket, address, or no conditional writes."""


class CampaignHeld(SdbatchError):
    """Another driver holds the campaign."""

    exit_code = 4


class Interrupted(SdbatchError):
    """A signal came before anything was started."""

    exit_code = 130


class RowError(SdbatchError):
    """One request cannot be made; the others go on.

    Attributes:
        retryable: Whether a later run tries the request again by itself.
    """

    exit_code = 3
    retryable: ClassVar[bool] = False


class SourceMissing(RowError):
    """A source is not where the manifest says."""


class SourceUnreadable(RowError):
    """A source is not a whole picture or clip of a format we take."""


class SourceTooLarge(RowError):
    """A source is over a cap of bytes or pixels."""


class SourceTooShort(RowError):
    """A source clip ends before the frames that are needed."""


class SourceChanged(RowError):
    """A source is not what it was when the run was planned."""

    retryable = True


class PromptTooLong(RowError):
    """A prompt is longer than the text encoder reads, and the job says `long_prompt: error` or it cannot be cut."""


class LoraRefused(RowError):
    """Some of a LoRA that the request names fits nothing in the model, and the job does not allow that."""


class BlankOutput(RowError):
    """The model gave NaN, or an image without any variance."""

    retryable = True


class GenerationFailed(RowError):
    """The pipeline raised on this request alone."""


class OutOfMemory(RowError):
    """The request does not fit the device, even alone."""

    retryable = True


class EncodeFailed(RowError):
    """A clip could not be encoded, or its file is not what was handed to the encoder."""

    retryable = True


class WatermarkFailed(RowError):
    """The job's own watermark is not there, raised, or returned no picture of the same size and type."""

    retryable = True


class DeadlineExceeded(RowError):
    """The pipeline call of this request alone took longer than its deadline."""

    retryable = True


class AssetConflict(RowError):
    """An asset of this name is stored and is not this request's, or not whole."""

    retryable = True


class WorkerCrash(RowError):
    """The worker's process died twice while this request ran alone."""


class MachineError(SdbatchError):
    """Something around the rows failed; they may go well elsewhere or later."""


class ModelLoadFailed(MachineError):
    """A worker could not load a model."""


class DeviceLost(MachineError):
    """The device refuses every further call; the process that holds it must end."""


class GpuUnusable(MachineError):
    """A GPU was reserved and torch cannot use it; its node is given no further worker."""


class StoreUnavailable(MachineError):
    """The store did not answer within the bounded retries."""


class LocalFault(MachineError):
    """This machine is out of disk, quota or open files, or its disk fails."""


class DecoderUnavailable(MachineError):
    """No process that decodes sources can be started."""


class LeaseLost(MachineError):
    """Another driver took the campaign over."""


class WorkersUnavailable(MachineError):
    """No worker became ready in time, or none is left."""


class WorkersUnlike(MachineError):
    """A worker has other versions or another device than those that made a campaign's exact outputs."""


ROW_FAILURES = {cls.__name__: cls for cls in RowError.__subclasses__()}
ROW_ERRORS = frozenset({*ROW_FAILURES, "SafetyChecker"})
"""Classes a failed row may be recorded with; `SafetyChecker` is a model's own, for blocked ones."""


def causes(error: BaseException) -> Iterator[BaseException]:
    """Yield an error and its causes, the outermost first."""
    part: BaseException | None = error
    while part is not None:
        yield part
        part = part.__cause__ or part.__context__
