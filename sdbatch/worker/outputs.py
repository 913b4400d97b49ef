"""The values that go through a renderer: outputs that are pending, rendered or failed, and the tally."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from sdbatch.after import Verdict
from sdbatch.errors import RowError
from sdbatch.recipe import Recipe
from sdbatch.types import Request

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from sdbatch.generate.item import Generated
    from sdbatch.generate.tokens import TokenCounter


@dataclass(frozen=True, slots=True, kw_only=True)
class FetchedSources:
    """The sources of a request as its model sees them; requests with the same ones share it.

    Attributes:
        pixels: By the names that an `Item` gives them; nothing writes to the arrays.
        notes: What is to be known of how they were read, such as a colour profile that is broken.
        source_types: What pictures and clip say of how they came to be, "" for nothing.
        credentials: Archives of the credentials that they came with, by their path in the campaign.
        thumbnail: The first picture, or the first frame of the clip, as a JPEG; None where there is neither.
    """

    pixels: Mapping[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    source_types: tuple[str, ...] = ()
    credentials: Mapping[str, bytes] = field(default_factory=dict)
    thumbnail: bytes | None = None

    @property
    def size_bytes(self) -> int:
        """Bytes of the pixels."""
        return sum(array.nbytes for array in arrays_of(self.pixels))


NO_SOURCES: Final = FetchedSources()


def arrays_of(pixels: Mapping[str, Any]) -> Iterator[NDArray[np.uint8]]:
    """Yield the arrays of pixels by role; a role has one, or a tuple of them."""
    for value in pixels.values():
        yield from value if isinstance(value, tuple) else (value,)


@dataclass(frozen=True, slots=True, kw_only=True)
class PendingOutput:
    """One output that is still to be rendered.

    Attributes:
        request: What it belongs to.
        n: Output number.
        recipe: The request's recipe, parsed.
        sources: The request's.
        fetch_s: This output's share of the seconds that reading its sources took.
        attempts: Pipeline calls that it was part of.
    """

    request: Request
    n: int
    recipe: Recipe
    sources: FetchedSources = NO_SOURCES
    fetch_s: float = 0.0
    attempts: int = 0

    @property
    def seed(self) -> int:
        """Return the seed of this output."""
        return self.recipe.output_seed(self.n)


@dataclass(frozen=True, slots=True, kw_only=True)
class FailedOutput:
    """One output, or a whole request, that cannot be rendered.

    Attributes:
        request: What it belongs to.
        n: Output number; None for a whole request.
        recipe: The request's recipe, parsed.
        error: Why.
        attempts: Times it was tried.
        traceback: Traceback of the pipeline call that failed; "" where `error` carries its own.
    """

    request: Request
    n: int | None
    recipe: Recipe
    error: RowError
    attempts: int
    traceback: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class CallPlan:
    """The division of outputs into pipeline calls.

    Attributes:
        batch_size: Outputs per call; in `exact` the last call is padded to it.
        is_fixed: Whether no other size is tried, as for the suspects of a crash.
        rate_tflop_per_s: What one worker did on this model so far; None when nothing is known yet.
    """

    batch_size: int
    is_fixed: bool = False
    rate_tflop_per_s: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class PipelineCall:
    """The pipeline call that an output came out of, as it is recorded.

    Attributes:
        pipeline_class: diffusers class that ran.
        scheduler: diffusers class that ran.
        device: `cuda` or `cpu`.
        batch_size: Rows of the call; in `exact` the padding counts.
        denoise_s: One output's share of the wall seconds outside the VAE's decoder.
        decode_s: One output's share of the wall seconds in the VAE's decoder.
    """

    pipeline_class: str
    scheduler: str
    device: str
    batch_size: int
    denoise_s: float
    decode_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class RenderedOutput:
    """One output that came out of the model.

    Attributes:
        pending: What was asked for.
        generated: Its pixels and sound.
        call: The pipeline call it came out of.
        tokens: Counts the tokens of its prompt.
        verdicts: Those of the stages on the device.
        stages_digest: Digest of the settings of the stages that may block; None without any.
    """

    pending: PendingOutput
    generated: Generated
    call: PipelineCall
    tokens: TokenCounter
    verdicts: tuple[Verdict, ...] = ()
    stages_digest: str | None = None


@dataclass(slots=True, kw_only=True)
class RenderTally:
    """The work done to render some outputs, counted while they come out.

    Attributes:
        model_calls: Pipeline calls, failed ones too.
        rows_generated: Outputs that came out, padding excluded.
        generate_s: Wall seconds inside pipeline calls that went well.
        load_s: Wall seconds spent on loading the model; 0 when it was warm.
        batch_size: Outputs of the largest call that went well.
        batch_wanted: Outputs of the largest call that this machine would make or try; 0 where the plan's is as good.
        texts_encoded: Texts that went through a text encoder.
        sources_encoded: Source pictures and clips that went through the VAE's encoder.
        decode_retries: Times that the VAE's decoder ran out of memory and went on in smaller parts.
        recompile_limits: Times that torch gave up compiling a block anew, and ran it as it is.
    """

    model_calls: int = 0
    rows_generated: int = 0
    generate_s: float = 0.0
    load_s: float = 0.0
    batch_size: int = 0
    batch_wanted: int = 0
    texts_encoded: int = 0
    sources_encoded: int = 0
    decode_retries: int = 0
    recompile_limits: int = 0
