"""The memory that published models take, computed ahead and read without torch.

    python -m benchmarks.peaks --> peaks.json --> peaks_of(family, parameters) --> Peaks

Bytes of activations are those of tensors in 16 bits that are alive at a time, counted on torch's meta device with the
published architectures. What kernels take inside themselves, and what an allocator cannot use, is not in them.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any, Final, NamedTuple

TABLE: Final = Path(__file__).with_name("peaks.json")


class OutputSize(NamedTuple):
    """Size of an output, as far as it decides memory.

    Attributes:
        height: Pixels.
        width: Pixels.
        num_frames: 1 for a picture.
        is_guided: Whether guidance doubles what is denoised.
    """

    height: int
    width: int
    num_frames: int = 1
    is_guided: bool = True

    @property
    def pixels(self) -> int:
        """Pixels of a frame."""
        return self.height * self.width


@dataclass(frozen=True, slots=True, kw_only=True)
class Activations:
    """Bytes of one row's activations in 16 bits: `row + pixel * P + time * F + pixel_time * P * F`.

    P are pixels of a frame, F frames.
    """

    row: float = 0.0
    pixel: float = 0.0
    time: float = 0.0
    pixel_time: float = 0.0

    def num_bytes(self, pixels: int, num_frames: int) -> float:
        """Return the bytes for a size."""
        return max(0.0, self.row + self.pixel * pixels + self.time * num_frames + self.pixel_time * pixels * num_frames)

    def scaled(self, factor: float) -> Activations:
        """Return those of a model that is so many times as wide."""
        return Activations(**{name: getattr(self, name) * factor for name in self.__slots__})


@dataclass(frozen=True, slots=True, kw_only=True)
class Peaks:
    """What one published model takes.

    Attributes:
        name: Name for people.
        titles: Families it is of.
        denoiser_name: Module that denoises.
        modules: Parameters by module.
        leaf: Parameters of the denoiser's largest layer.
        cast_bytes: Bytes of one of its weights with `layerwise_casting`, on average: norms and embeddings keep 16 bits.
        guided_rows: Rows in a pass of the denoiser for each guided output.
        vae_bytes: Bytes of a number in the VAE; 0 for those of the model.
        denoiser: Activations of a pass, for one row of it.
        decoder: Activations of the VAE's decoder, for one row.
        tiled: The same where it decodes in tiles; None where it cannot.
    """

    name: str
    titles: tuple[str, ...]
    denoiser_name: str
    modules: Mapping[str, int]
    leaf: int
    cast_bytes: float
    guided_rows: int
    vae_bytes: int
    denoiser: Activations
    decoder: Activations
    tiled: Activations | None

    @property
    def makes_clips(self) -> bool:
        """Whether frames are in its figures."""
        return self.decoder.pixel_time > 0

    @property
    def parameters(self) -> int:
        """Parameters of the denoiser."""
        return self.modules[self.denoiser_name]


def peaks_of(title: str, parameters: int) -> Peaks | None:
    """Return what a model of a family takes, by the published one whose denoiser is the nearest in size.

    A model whose denoiser has other than about as many parameters is taken for one of the same depth: activations grow
    with the width, and so with the root of the parameters.

    Args:
        title: The family's.
        parameters: Of its denoiser; 0 when unknown, which stands for the first one of the table.
    """
    known = [peaks for peaks in _table() if title in peaks.titles]
    if not known:
        return None
    if not parameters:
        return known[0]
    nearest = min(known, key=lambda peaks: abs(math.log(peaks.parameters / parameters)))
    ratio = parameters / nearest.parameters
    if 1 / SAME_SIZE <= ratio <= SAME_SIZE:
        return nearest
    factor = math.sqrt(ratio)
    return replace(
        nearest,
        denoiser=nearest.denoiser.scaled(factor),
        decoder=nearest.decoder.scaled(min(1.0, factor)),
        tiled=nearest.tiled and nearest.tiled.scaled(min(1.0, factor)),
    )


SAME_SIZE: Final = 1.25
"""Ratio of parameters up to which two denoisers are taken for one architecture."""


@cache
def _table() -> tuple[Peaks, ...]:
    return tuple(peaks_from(row) for row in json.loads(TABLE.read_text(encoding="utf-8")))


def peaks_from(row: Mapping[str, Any]) -> Peaks:
    """Return a row of the table."""
    activations = {
        name: None if row[name] is None else Activations(**row[name]) for name in ("denoiser", "decoder", "tiled")
    }
    return Peaks(**{**row, "titles": tuple(row["titles"]), **activations})
