"""Says what memory the models of a job take, and which card they need; computed, nothing is loaded.

ModelInfo + sizes of its outputs --> memory_of() --> ModelMemory --> the lines of `plan` and `models list`
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from sdbatch.checkpoints import ModelInfo
from sdbatch.checkpoints.fits import CARDS_GIB, Peak, predicted_peak, weight_bytes
from sdbatch.checkpoints.module_weights import module_parameters
from sdbatch.families.peaks import OutputSize
from sdbatch.recipe import is_clip


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelMemory:
    """The memory that a model is predicted to take for its largest outputs.

    Attributes:
        model: Name in the job.
        weights_bytes: Weights of all modules, wherever they lie; 0 where they are not known.
        height: Pixels of the outputs that take the most.
        width: Pixels.
        num_frames: 1 for a picture.
        rows: Outputs of a call: the job's batch size, 1 where it says `auto`, which begins small where it must.
        peak_bytes: Bytes of tensors on the device at a time; None for a family that is in no table.
        peak_in: What runs then: `encoding`, `denoising` or `decoding`.
        card_gb: The smallest card that it fits, by the gigabytes it is sold with; None where none is large enough.
        is_on_gpu: Whether the job lets it run on a GPU.
    """

    model: str
    weights_bytes: int
    height: int
    width: int
    num_frames: int
    rows: int
    peak_bytes: int | None
    peak_in: str | None
    card_gb: int | None
    is_on_gpu: bool

    def __str__(self) -> str:
        frames = f" x {self.num_frames} frames" if self.num_frames > 1 else ""
        weights = f"weights {_gib(self.weights_bytes)}" if self.weights_bytes else "weights not known"
        if self.peak_bytes is None:
            return f"{weights}; its peak is in no table"
        peak = f"{self.width} x {self.height}{frames} at batch {self.rows} peaks at {_gib(self.peak_bytes)}"
        said = f"{weights}; {peak} while {self.peak_in} (computed)"
        if not self.is_on_gpu:
            return said
        if self.card_gb is None:
            most = max(CARDS_GIB)
            return f"{said}: over a card of {most} GB; offload: group, quantize or vae: {{tiling: true}} lower it"
        return f"{said}: fits a card of {self.card_gb} GB"


def default_size(model: ModelInfo) -> OutputSize:
    """Return the size of a model's outputs where a row says nothing; a picture's where it makes pictures too."""
    defaults = {**model.family.defaults, **model.defaults}
    makes_pictures = not all(map(is_clip, model.family.tasks))
    return OutputSize(model.height, model.width, 1 if makes_pictures else defaults["num_frames"])


def memory_of(model: ModelInfo, sizes: Iterable[OutputSize]) -> ModelMemory:
    """Return what a model takes for the outputs, of some sizes, that take the most."""
    return memory_with(model, sizes, module_parameters(model))


def memory_with(model: ModelInfo, sizes: Iterable[OutputSize], parameters: Mapping[str, int]) -> ModelMemory:
    """Return the same where the parameters of each module are known."""
    rows = model.options.batch_size if isinstance(model.options.batch_size, int) else 1
    peaks = {size: predicted_peak(model, parameters, size, rows) for size in sizes}
    known: dict[OutputSize, Peak] = {size: peak for size, peak in peaks.items() if peak is not None}
    size = max(known, key=lambda size: known[size].peak, default=default_size(model))
    peak = known.get(size)
    phases = {} if peak is None else {name: getattr(peak, name) for name in ("encoding", "denoising", "decoding")}
    return ModelMemory(
        model=model.name,
        weights_bytes=sum(weight_bytes(model, parameters).values()),
        height=size.height,
        width=size.width,
        num_frames=size.num_frames,
        rows=rows,
        peak_bytes=None if peak is None else peak.peak,
        peak_in=max(phases, key=lambda name: phases[name], default=None),
        card_gb=None if peak is None else peak.card_gb,
        is_on_gpu=model.options.num_gpus != 0,
    )


def _gib(num_bytes: int) -> str:
    return f"{num_bytes / 2**30:.1f} GiB" if num_bytes >= 2**30 else f"{num_bytes / 2**20:.0f} MiB"
