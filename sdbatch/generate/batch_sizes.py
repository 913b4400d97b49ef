"""Chooses how many rows share a call: probed, halved when memory runs out, and remembered on this machine.

    choose() --> a call --> ran() or failed() --> batch_sizes.json in the cache folder --> choose() of any later worker

On a GPU the size is doubled while twice the rows fit and a row still gets cheaper. On a CPU the planned size stays,
because a larger one is not faster there.
"""

from __future__ import annotations

import fcntl
import json
import os
import platform
import time
import uuid
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Final

import torch

from sdbatch.recipe import Recipe
from sdbatch.storage.cache import cache_folder

if TYPE_CHECKING:
    from sdbatch.generate.item import Memory
    from sdbatch.generate.load import LoadedModel

BATCH_MAX: Final = 64
CALLS_PER_SIZE: Final = 2
"""Calls before a size is judged: the first one may compile or tune."""

GAIN_MIN: Final = 0.03
"""Part of the seconds for a piece of work that twice the rows must save."""

MEMORY_MAX: Final = 0.9
"""Part of the memory at hand that a call may be expected to take."""

LARGE_PARAMETERS: Final = 4_000_000_000
"""Parameters of a denoiser from which on one row of 1024 px fills a GPU: two gain 3 % there, and take their memory."""

FAILED_FOR_S: Final = 3600.0
"""Seconds for which a size is not tried again after memory ran out: a neighbour on the card may have had it."""


@dataclass(slots=True)
class Known:
    """Measurements of one shape on one device.

    Attributes:
        cost_s: Least seconds per TFLOP of predicted work, by size of full batches. Rows of one shape differ in steps,
            so that seconds per row would tell of the rows that came and not of the size.
        failed: Smallest size at which memory ran out; 0 for none.
        failed_at_s: When it did so last, by the clock of this machine.
        is_dearer: Whether a larger size was tried that gained nothing.
    """

    cost_s: dict[int, float] = field(default_factory=dict)
    failed: int = 0
    failed_at_s: float = 0.0
    is_dearer: bool = False

    def limit(self, now_s: float) -> int:
        """Return the smallest size that is known not to fit; 0 for none, or none any longer."""
        return self.failed if self.failed and now_s - self.failed_at_s < FAILED_FOR_S else 0

    def is_settled(self, now_s: float) -> bool:
        """Whether no larger size is worth a try."""
        return self.is_dearer or self.limit(now_s) > 0

    def best(self, planned: int, now_s: float) -> int:
        """Return the size with the fewest seconds for its work that fits; the planned one where none was tried."""
        limit = self.limit(now_s)
        fitting = [size for size in self.cost_s if not limit or size < limit]
        if fitting:
            return min(fitting, key=lambda size: (self.cost_s[size], size))
        return min(planned, max(1, limit // 2)) if limit else planned

    def add(self, size: int, cost_s: float) -> None:
        """Add a measurement: the seconds per TFLOP of one size."""
        self.cost_s[size] = min(cost_s, self.cost_s.get(size, cost_s))
        half = self.cost_s.get(size // 2)
        self.is_dearer = self.is_dearer or (half is not None and self.cost_s[size] > (1 - GAIN_MIN) * half)

    def add_failure(self, size: int, now_s: float) -> None:
        """Note that memory ran out at a size."""
        self.failed = min(size, self.limit(now_s) or size)
        self.failed_at_s = now_s


class BatchSizes:
    """Chooses batch sizes; what it learns is shared with the other workers of this machine, now and later."""

    def __init__(self) -> None:
        self._file = cache_folder() / "batch_sizes.json"
        self._known = self._read()
        self._chosen: dict[str, int] = {}
        self._calls: dict[tuple[str, int], int] = {}
        self._has_room: dict[str, bool] = {}

    def choose(self, shape: str, planned: int, most: int) -> int:
        """Return the size of the next call.

        Args:
            shape: Shape of the call, from `shape_of`.
            planned: Size to begin with.
            most: Largest size: the job's own number, or `BATCH_MAX` where it says `auto`.
        """
        now_s = time.time()
        known = self._known.get(shape, Known())
        size = known.best(planned, now_s)
        is_judged = self._calls.get((shape, size), 0) >= CALLS_PER_SIZE
        if is_judged and self._has_room.get(shape) and not known.is_settled(now_s):
            size *= 2
        self._chosen[shape] = min(size, most)
        return self._chosen[shape]

    def is_settled(self, shape: str) -> bool:
        """Return whether no other size will be tried, so that calls need not be of the full size to be measured."""
        known = self._known.get(shape)
        return self._has_room.get(shape) is False or (known is not None and known.is_settled(time.time()))

    def ran(self, shape: str, size: int, seconds: float, memory: Memory | None, *, cost_tflop: float = 0.0) -> None:
        """Add a call that went well. A call of fewer rows than were chosen, the last of a unit, is not counted.

        Args:
            shape: Shape of the call, from `shape_of`.
            size: Rows of the call.
            seconds: Wall seconds of the call.
            memory: The device's memory around the call; None where it is not known.
            cost_tflop: Predicted work of the call; 0 where it is not known, and each row counts as 1.
        """
        if size != self._chosen.get(shape):
            return
        calls = self._calls[shape, size] = self._calls.get((shape, size), 0) + 1
        if memory is None or calls < CALLS_PER_SIZE:
            return
        self._has_room[shape] = memory.holds_twice(MEMORY_MAX)
        known = self._known.setdefault(shape, Known())
        was_new = size not in known.cost_s
        known.add(size, seconds / (cost_tflop or size))
        if was_new:
            self._write(shape)

    def failed(self, shape: str, size: int) -> None:
        """Note that memory ran out at a size."""
        self._known.setdefault(shape, Known()).add_failure(size, time.time())
        self._write(shape)

    def _read(self) -> dict[str, Known]:
        try:
            sizes = json.loads(self._file.read_text())
            return {
                shape: Known(
                    cost_s={int(size): cost_s for size, cost_s in one["cost_s"].items()},
                    failed=one["failed"],
                    failed_at_s=one["failed_at_s"],
                    is_dearer=one["is_dearer"],
                )
                for shape, one in sizes.items()
            }
        except (FileNotFoundError, ValueError, KeyError, TypeError, AttributeError):
            return {}  # no file yet, or one of another version: sizes are measured anew

    def _write(self, shape: str) -> None:
        """Write one shape to the file, and keep the other shapes that it holds by now."""
        with self._file.with_suffix(".lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            known_by_shape = {**self._read(), shape: self._known[shape]}
            partial = self._file.with_suffix(f".{uuid.uuid4().hex}")
            partial.write_text(json.dumps({name: asdict(known) for name, known in known_by_shape.items()}))
            partial.replace(self._file)


def first_size(planned: int, parameters: int, device: str) -> int:
    """Return the rows that `batch_size: auto` begins with.

    A large denoiser begins with one row, and goes up from there as any other one, by what its work costs. On a CPU the
    planned size stays, since none is measured there.

    Args:
        planned: Size that the plan begins with.
        parameters: Of the denoiser.
        device: `cuda` or `cpu`.
    """
    return 1 if device == "cuda" and parameters >= LARGE_PARAMETERS else planned


def shape_of(model: LoadedModel, recipe: Recipe) -> str:
    """Return the key that a batch size is remembered by: model, pipeline, size, frames and device."""
    options = model.options
    return json.dumps(
        [
            recipe.model,
            options.batch_size,
            options.dtype,
            {**options.accelerators, **recipe.accelerators},
            options.offload_text_encoder if options.offload == "none" else options.offload,
            options.num_gpus,
            model.family.route_of(recipe).pipeline,
            recipe.height,
            recipe.width,
            recipe.num_frames or 1,
            (recipe.guidance_scale or 1.0) > 1,
            _device(model.device),
        ]
    )


def _device(device: str) -> str:
    if device == "cuda":
        gpu = torch.cuda.get_device_properties(torch.cuda.current_device())
        return f"{gpu.name} {gpu.total_memory}"
    return f"{platform.processor() or platform.machine()} {os.cpu_count()}"
