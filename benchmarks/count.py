"""Counts one family's published model: the figures of its row in the table of families, and its row of memory.

python -m benchmarks.count FAMILY      prints tflop_reference and parameters_reference, writes its row of peaks.json

published architecture --> one pass of the denoiser on torch's meta device --> operations, parameters, bytes
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch.utils.flop_counter import FlopCounterMode

from benchmarks import peaks
from benchmarks.passes import pass_of
from benchmarks.published import PUBLISHED, Published
from sdbatch.families import FAMILIES


class Count(NamedTuple):
    """What one pass of a published denoiser is.

    Attributes:
        tflop: 10^12 operations of a row, attention included.
        parameters: Of the denoiser.
        pixels: Height times width times frames of the output.
    """

    tflop: float
    parameters: int
    pixels: int


def counted(published: Published) -> Count:
    """Return the count of a published model at the size that it was made for."""
    with torch.device("meta"):
        denoiser, vae = (peaks.module(*each) for each in (published.denoiser, published.vae))
    height, width, frames = published.size
    arguments = pass_of(denoiser, peaks.latent_shape(vae, height, width, frames))
    with torch.inference_mode(), FlopCounterMode(display=False) as counter:
        denoiser(**arguments, return_dict=False)
    parameters = sum(weight.numel() for weight in denoiser.parameters())
    return Count(counter.get_total_flops() / 1e12, parameters, height * width * frames)


def main(arguments: Sequence[str]) -> None:
    """Print the figures of a family, and write its row of memory.

    Raises:
        SystemExit: When it is no family, or none whose published architecture, and a call of it, are at hand.
    """
    known = sorted({title for published in PUBLISHED for title in published.titles})
    if len(arguments) != 1 or arguments[0] not in known:
        raise SystemExit(
            f"python -m benchmarks.count FAMILY; published architectures are at hand of {', '.join(known)}"
        )
    (title,) = arguments
    chosen = [published for published in PUBLISHED if title in published.titles]
    for published in chosen:
        try:
            count = counted(published)
        except ValueError as error:
            raise SystemExit(str(error)) from error
        print(f"{published.name}: tflop_reference={count.tflop:.4g}, pixels_reference={count.pixels}")
        print(f"    parameters_reference={count.parameters:_}; the table has {FAMILIES[title].parameters_reference:_}")
    peaks.main([published.name for published in chosen])


if __name__ == "__main__":
    main(sys.argv[1:])
