"""Whether a model fits a card: the memory that it is predicted to take, as a plan prints it. Torch is not needed.

    ModelInfo + parameters by module + size of an output + rows --> predicted_peak() --> Peak --> card_for()

Weights are counted; activations are those of the published architecture (`sdbatch.families.peaks`).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from sdbatch.checkpoints.info import ModelInfo
from sdbatch.families.peaks import OutputSize, Peaks, peaks_of
from sdbatch.job import Model, VaeOptions

DECODED_PIXELS_MAX: Final = 8 * 1024 * 1024
"""Pixels that the VAE decodes at a time: 8 pictures of 1024 px, as the fastest SDXL of MLPerf Inference 5.1 does."""

CARDS_GIB: Final[Mapping[int, float]] = {16: 15.5, 24: 23.5, 48: 44.4, 80: 79.0, 141: 139.0}
"""GiB that torch finds on a card, by the gigabytes it is sold with."""

CONTEXT_BYTES: Final = 768 << 20
"""What CUDA and the workspaces of its libraries take beside every tensor."""

UNUSABLE_SHARE: Final = 0.05
"""Part of the memory at its peak that lies between blocks of the allocator."""

DECODER_WORKSPACE: Final = 1 / 3
"""Bytes that a card takes for a decoder beside its activations, as a share of these: the workspaces of convolutions. On
an H200 SDXL's took 2.38, 8.00 and 16.00 GiB for 1, 4 and 8 rows of 1024 px, of which 1.50 a row are activations."""

DECODER_WORKSPACE_ALONE: Final = 0.6
"""The same for a picture that is decoded alone: cuDNN picks other convolutions there, by SDXL's and by Flux.1's VAE."""

_NUMBER_BYTES: Final[Mapping[str, float]] = {"float32": 4.0, "float16": 2.0, "bfloat16": 2.0}
_QUANTISED_BYTES: Final[Mapping[str, float]] = {
    "int8wo": 1.02,
    "int8dq": 1.02,
    "int8": 1.02,
    "float8wo": 1.01,
    "float8dq": 1.01,
    "float8": 1.01,
    "int4wo": 0.58,
    "int4": 0.58,
    "nf4": 0.57,
    "fp4": 0.57,
    "int2": 0.33,
}
"""Bytes of a quantised weight with its share of the scales."""

GGUF_BYTES: Final = 1.07
"""Bytes of a weight of a GGUF file, taken as Q8_0; the smaller types take less."""

GROUPED: Final = ("unet", "transformer", "text_encoder", "controlnet", "motion_adapter")
"""Beginnings of the names of modules whose layers are offloaded in groups. The others, such as a VAE, are small, and
their encoder and decoder are called apart, so that no order of layers could be foreseen."""

LEAVES_AT_ONCE: Final = 2
"""Layers of a group-offloaded module that are on the device: the one that computes, and the one being copied."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Peak:
    """The memory of a device at the peak of a call, in bytes.

    Attributes:
        weights: Weights of all modules, wherever they lie.
        denoising: While it denoises: the weights on the device and the activations.
        decoding: While the VAE decodes.
        encoding: While a text encoder runs.
        workspace: What a card takes beside it while the VAE decodes.
    """

    weights: int
    denoising: int
    decoding: int
    encoding: int
    workspace: int = 0

    @property
    def peak(self) -> int:
        """Most bytes at a time."""
        return max(self.denoising, self.decoding, self.encoding)

    @property
    def needed(self) -> int:
        """Bytes that a card must have for it."""
        most = max(self.denoising, self.decoding + self.workspace, self.encoding)
        return math.ceil(most * (1 + UNUSABLE_SHARE)) + CONTEXT_BYTES

    @property
    def card_gb(self) -> int | None:
        """The smallest card that it fits, by the gigabytes it is sold with; None where none is large enough."""
        return next((gb for gb, gib in CARDS_GIB.items() if self.needed <= gib * 2**30), None)


def weight_bytes(model: ModelInfo, parameters: Mapping[str, int], peaks: Peaks | None = None) -> dict[str, int]:
    """Return the bytes of each module as it lies in memory.

    Args:
        model: The model, described.
        parameters: Parameters by module; see `module_parameters`.
        peaks: What its architecture takes; None for what the table says.
    """
    peaks = peaks or peaks_of(model.family.title, model.parameters)
    return {name: math.ceil(count * number_bytes(name, model, peaks)) for name, count in parameters.items()}


def number_bytes(name: str, model: ModelInfo, peaks: Peaks | None) -> float:
    """Return the bytes of one weight of a module."""
    options = model.options
    laid_over = options.laid_over.get(name)
    if laid_over is not None and laid_over.path.endswith(".gguf"):
        return GGUF_BYTES
    if name in options.quantized:
        return _QUANTISED_BYTES[options.quantized[name].type]
    if options.layerwise_casting is not None and name in {model.family.denoiser, f"{model.family.denoiser}_2"}:
        return peaks.cast_bytes if peaks is not None else 1.0
    if laid_over is not None and laid_over.dtype is not None:
        return _NUMBER_BYTES[laid_over.dtype]
    if name == "vae" and peaks is not None and peaks.vae_bytes == 4:
        return 4.0
    return _run_bytes(options)


def _run_bytes(options: Model) -> float:
    return _NUMBER_BYTES.get(options.dtype, 2.0)  # auto is what is stored, which has 16 bits with most


def predicted_peak(
    model: ModelInfo, parameters: Mapping[str, int], size: OutputSize, rows: int, peaks: Peaks | None = None
) -> Peak | None:
    """Predict the memory of a call.

    Args:
        model: The model, described.
        parameters: Parameters by module; see `module_parameters`.
        size: Of every output.
        rows: Outputs of the call.
        peaks: What its architecture takes; None for what the table says.

    Returns:
        None for a family, or for clips of one, whose activations are in no table.
    """
    peaks = peaks or peaks_of(model.family.title, model.parameters)
    if peaks is None or (size.num_frames > 1 and not peaks.makes_clips):
        return None
    options = model.options
    weights = weight_bytes(model, parameters, peaks)
    decoded = decoding_bytes(model, peaks, size, rows)
    is_alone = size.num_frames == 1 and decoded_rows(size, rows, options.vae) == 1
    return Peak(
        weights=sum(weights.values()),
        denoising=_resident(weights, model, model.family.denoiser, peaks) + _denoising(model, peaks, size, rows),
        decoding=_resident(weights, model, "vae", peaks) + decoded,
        workspace=math.ceil((DECODER_WORKSPACE_ALONE if is_alone else DECODER_WORKSPACE) * decoded),
        encoding=_resident(weights, model, "text_encoder", peaks) if options.offload != "group" else 0,
    )


def resident_bytes(model: ModelInfo, parameters: Mapping[str, int]) -> int:
    """Return the bytes of weights that lie on the device at a time, whatever is rendered."""
    peaks = peaks_of(model.family.title, model.parameters)
    weights = weight_bytes(model, parameters, peaks)
    return max(_resident(weights, model, running, peaks) for running in (model.family.denoiser, "vae", "text_encoder"))


def kept_on_host(model: ModelInfo, weights: Mapping[str, int]) -> int:
    """Return the bytes of weights that stay in host memory beside a device."""
    options = model.options
    if options.offload == "model":
        return sum(weights.values())
    names = GROUPED if options.offload == "group" else ("text_encoder",) if options.offload_text_encoder else ()
    return sum(size for name, size in weights.items() if name.startswith(names))


def _resident(weights: Mapping[str, int], model: ModelInfo, running: str, peaks: Peaks | None) -> int:
    """Return the bytes of weights on the device while the modules whose names begin with `running` run."""
    options, denoiser = model.options, model.family.denoiser
    if options.offload == "model":
        together = {name: size for name, size in weights.items() if name.startswith(running)}
        return max(together.values(), default=0)
    if options.offload == "group":
        leaf = peaks.leaf * number_bytes(denoiser, model, peaks) if peaks is not None else 0
        others = sum(size for name, size in weights.items() if not name.startswith(GROUPED))
        return others + (LEAVES_AT_ONCE * math.ceil(leaf) if running == denoiser else 0)
    # Text encoders that visit the device stay there, all of them, until the denoiser runs.
    are_away = options.offload_text_encoder and running != "text_encoder"
    return sum(size for name, size in weights.items() if not (are_away and name.startswith("text_encoder")))


def _denoising(model: ModelInfo, peaks: Peaks, size: OutputSize, rows: int) -> int:
    rows_of_pass = rows * (peaks.guided_rows if size.is_guided else 1)
    of_row = peaks.denoiser.num_bytes(size.pixels, size.num_frames)
    return math.ceil(rows_of_pass * of_row * _run_bytes(model.options) / 2)


def decoding_bytes(model: ModelInfo, peaks: Peaks, size: OutputSize, rows: int) -> int:
    """Return the bytes of a decoder's activations, and of the outputs that wait beside them."""
    options = model.options
    laid_over = options.laid_over.get("vae")
    own = peaks.vae_bytes or _run_bytes(options)
    of_number = own if laid_over is None or laid_over.dtype is None else _NUMBER_BYTES[laid_over.dtype]
    is_tiled = model.family.is_tiled(
        options.vae.tiling, height=size.height, width=size.width, num_frames=size.num_frames
    )
    activations = peaks.decoder if peaks.tiled is None or not is_tiled else peaks.tiled
    at_once = decoded_rows(size, rows, options.vae)
    of_row = activations.num_bytes(size.pixels, size.num_frames) * of_number / 2
    numbers = rows * size.pixels * size.num_frames * 3
    waiting = 0 if at_once == rows else numbers * of_number
    # Pixels become bytes by way of two more copies in float32.
    return math.ceil(max(at_once * of_row + waiting, numbers * (of_number + 2 * 4)))


def decoded_rows(size: OutputSize, rows: int, options: VaeOptions) -> int:
    """Return how many rows of a call the VAE decodes at a time, in parts of about one size."""
    most = (
        1 if options.slicing else options.decode_batch or max(1, DECODED_PIXELS_MAX // (size.pixels * size.num_frames))
    )
    return math.ceil(rows / math.ceil(rows / most))
