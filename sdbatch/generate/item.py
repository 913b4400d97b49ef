"""The values that go into a pipeline call and come out of it.

Item x B --> make_batch() --> BatchResult (Generated x B)
"""

# F frames (1 for a picture), C = 3 channels, H and W pixels.

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from sdbatch.recipe import Recipe
from sdbatch.types import Sound

Pixels = NDArray[np.uint8]


@dataclass(frozen=True, slots=True, kw_only=True)
class Item:
    """One output to render.

    Attributes:
        recipe: The request's recipe.
        seed: This output's seed.
        images: Source pixels, each image_HWC at the recipe's size.
        mask: Mask pixels, mask_HW at the recipe's size, 255 where the model paints.
        video: Source clip, video_FHWC at the recipe's size and number of frames.
        control_image: Control pictures, each image_HWC at the recipe's size.
        ip_adapter_images: Reference pictures, each image_HWC and a square.
    """

    recipe: Recipe
    seed: int
    images: tuple[Pixels, ...] = ()
    mask: Pixels | None = None
    video: Pixels | None = None
    control_image: tuple[Pixels, ...] = ()
    ip_adapter_images: tuple[Pixels, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Generated:
    """One output that came out of a pipeline.

    Attributes:
        frames_FHWC: Pixels, uint8; one frame for a picture.
        sound: Sound of the output; None where the model makes none.
        is_finite: Whether the model's floats held neither NaN nor infinity.
        is_blocked: Whether the model's own safety checker blanked it.
    """

    frames_FHWC: Pixels
    sound: Sound | None = None
    is_finite: bool
    is_blocked: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Memory:
    """A device's memory around a pipeline call, in bytes.

    Attributes:
        before: Bytes that this process had allocated before the call.
        peak: Most that it had allocated during the call.
        at_hand: Bytes that it could have allocated.
    """

    before: int
    peak: int
    at_hand: int

    def holds_twice(self, part_max: float) -> bool:
        """Return whether a call of twice the rows would stay within a part of what is at hand."""
        return self.before + 2 * (self.peak - self.before) <= part_max * self.at_hand


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchResult:
    """The result of one pipeline call.

    Attributes:
        outputs: One per item, padding dropped.
        generate_s: Wall seconds of the whole call, or of all calls whose clips were joined.
        decode_s: Those of these seconds that were spent in the VAE's decoder.
        pipeline_class: diffusers class that ran.
        scheduler: diffusers class that ran.
        device: `cuda` or `cpu`.
        memory: The GPU's memory around the call; None on a CPU.
        decode_retries: Times that the VAE's decoder ran out of memory and went on in smaller parts.
        recompile_limits: Times that torch gave up compiling a block anew, and ran it as it is.
    """

    outputs: list[Generated]
    generate_s: float
    decode_s: float
    pipeline_class: str
    scheduler: str
    device: str
    memory: Memory | None = None
    decode_retries: int = 0
    recompile_limits: int = 0


def joined_results(results: Sequence[BatchResult], places: Sequence[Sequence[int]]) -> BatchResult:
    """Return the results of several calls as that of one.

    Args:
        results: At least one.
        places: Place of each output among all of them, by result.
    """
    if len(results) == 1:
        return results[0]
    outputs = {
        place: output
        for result, of_result in zip(results, places, strict=True)
        for place, output in zip(of_result, result.outputs, strict=True)
    }
    return replace(
        results[-1],
        outputs=[outputs[place] for place in sorted(outputs)],
        generate_s=sum(result.generate_s for result in results),
        decode_s=sum(result.decode_s for result in results),
        decode_retries=sum(result.decode_retries for result in results),
        memory=max((result.memory for result in results if result.memory), key=lambda one: one.peak, default=None),
        recompile_limits=sum(result.recompile_limits for result in results),
    )
