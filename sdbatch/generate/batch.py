"""One pipeline call: recipes and sources in, pixels out.

    Item (recipe, n, source pixels) x B --> make_batch() --> Generated x B

Every row has its own CPU generator, so its noise depends on its seed alone; every call gets fresh lists, because some
pipelines write into them. In `exact` the batch is padded to its full size with copies of its last row: at a fixed batch
size a row is bitwise independent of its neighbours, at another size it is not.
"""

# B rows in the batch, C = 3 channels, H and W pixels.

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray

from sdbatch.errors import DeadlineExceeded
from sdbatch.families import FAMILIES
from sdbatch.generate.tasks import CALLS

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sdbatch.generate.loading import LoadedModel


@dataclass(frozen=True, slots=True, kw_only=True)
class Item:
    """One output to make.

    Attributes:
        recipe: The request's recipe, parsed.
        seed: Of this output.
        images: Source pixels, each image_HWC at the recipe's size.
    """

    recipe: dict[str, Any]
    seed: int
    images: tuple[NDArray[np.uint8], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Generated:
    """One output that was made.

    Attributes:
        image_HWC: uint8.
        is_finite: Whether the model's floats held neither NaN nor infinity.
        is_blocked: Whether the model's own safety checker blanked it.
        prompt_tokens: Tokens of the prompt, the two end marks included.
        prompt_truncated: Whether the text encoder reads fewer.
    """

    image_HWC: NDArray[np.uint8]
    is_finite: bool
    is_blocked: bool
    prompt_tokens: int
    prompt_truncated: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchResult:
    """What one pipeline call gave.

    Attributes:
        outputs: One per item, padding dropped.
        generate_s: Wall seconds of the whole call.
        decode_s: Of these, in the VAE's decoder.
        pipeline_class: diffusers class that ran.
        scheduler: diffusers class that ran.
        device: `cuda` or `cpu`.
    """

    outputs: list[Generated]
    generate_s: float
    decode_s: float
    pipeline_class: str
    scheduler: str
    device: str


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that the device's memory ran out (torch's CPU allocator raises RuntimeError)."""
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or "DefaultCPUAllocator" in str(error)


def set_threads(num_threads: int) -> None:
    """Set torch's threads for the calling thread; their number decides the last bits of a float."""
    torch.set_num_threads(num_threads)


def count_tokens(model: LoadedModel, prompt: str) -> tuple[int, bool]:
    """Return a prompt's tokens and whether the text encoder cuts some off."""
    tokenizer = model.pipeline(model.class_name, "").tokenizer
    tokens = len(tokenizer(prompt, truncation=False, add_special_tokens=True).input_ids)
    return tokens, tokens > tokenizer.model_max_length


def failure_kind(error: Exception) -> str:
    """Return the key of the table of outcomes for what a pipeline call raised."""
    if is_out_of_memory(error):
        return "OutOfMemory"
    if isinstance(error, DeadlineExceeded):
        return "DeadlineExceeded"
    # After these the driver fails every call of the process: "sticky" errors, CUDA programming guide, error checking.
    if isinstance(error, torch.AcceleratorError) or "CUDA error" in str(error):
        return "DeviceLost"
    return "Raised"


def make_batch(
    model: LoadedModel, items: Sequence[Item], pad_to: int | None, on_step: Callable[[], None] = lambda: None
) -> BatchResult:
    """Run one pipeline call for items that share a batch key.

    Args:
        model: Loaded model.
        items: At least one; all of one task, size, steps, guidance, strength and scheduler.
        pad_to: Batch size to fill up with copies of the last item, None for no padding.
        on_step: Called before every pass of the denoiser; what it raises ends the call, and the model stays usable.
    """
    recipe = items[0].recipe
    rows = [*items, *[items[-1]] * ((pad_to or len(items)) - len(items))]
    task = FAMILIES[model.class_name].tasks[recipe["task"]]
    pipeline = model.pipeline(task.pipeline, recipe.get("scheduler", ""))
    arguments = CALLS[recipe["task"]](rows)
    generators = [torch.Generator("cpu").manual_seed(row.seed) for row in rows]
    started_s = time.perf_counter()
    denoiser = getattr(pipeline, FAMILIES[model.class_name].denoiser)
    # A hook on the denoiser works for every pipeline; some know no callback_on_step_end.
    ticking = denoiser.register_forward_pre_hook(lambda *_: on_step())
    with ticking, torch.inference_mode(), _timed_decode(pipeline.vae) as decode:
        output = pipeline(**arguments, generator=generators, output_type="pt")
        images_BHWC, finite_B = _to_uint8(output.images)
    generate_s = time.perf_counter() - started_s
    blocked = getattr(output, "nsfw_content_detected", None) or [False] * len(rows)
    tokens = [count_tokens(model, item.recipe["prompt"]) for item in items]
    return BatchResult(
        outputs=[
            Generated(
                image_HWC=images_BHWC[index],
                is_finite=bool(finite_B[index]),
                is_blocked=bool(blocked[index]),
                prompt_tokens=tokens[index][0],
                prompt_truncated=tokens[index][1],
            )
            for index in range(len(items))
        ],
        generate_s=generate_s,
        decode_s=decode[0],
        pipeline_class=task.pipeline,
        scheduler=model.scheduler_name(recipe.get("scheduler", "")),
        device=model.device,
    )


def _to_uint8(images_BCHW: torch.Tensor) -> tuple[NDArray[np.uint8], list[bool]]:
    """Scale floats in 0..1 to 0..255 on their device, rounding to nearest, channels last; NaN becomes 0."""
    finite_B = torch.isfinite(images_BCHW).flatten(1).all(dim=1).tolist()
    scaled = images_BCHW.float().nan_to_num(0.0).clamp(0, 1).mul(255).round().to(torch.uint8)
    return scaled.permute(0, 2, 3, 1).contiguous().cpu().numpy(), finite_B


@contextmanager
def _timed_decode(vae: Any) -> Iterator[list[float]]:
    """Measure the seconds inside `vae.decode` while the block runs."""
    spent = [0.0]
    decode = vae.decode

    def timed(*args: Any, **kwargs: Any) -> Any:
        started_s = time.perf_counter()
        try:
            return decode(*args, **kwargs)
        finally:
            spent[0] += time.perf_counter() - started_s

    vae.decode = timed
    try:
        yield spent
    finally:
        del vae.decode
