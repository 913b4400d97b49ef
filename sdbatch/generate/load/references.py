"""Reference pictures of rows, read by an IP-Adapter that is in the denoiser only while a call has them.

    weights of the adapter --> References: laid into the denoiser once, taken out, put in around a call
    pictures of each row   --> encoded row by row --> embeddings of the call, in the row's own place

diffusers' pipelines encode the pictures of one row and repeat them for every other (0.42.1). Each row of a batch has
its own here: the function that prepares embeddings is replaced while a call runs. Without the adapter the denoiser has
the attention that it was read with, so that rows without reference pictures are those of the plain model, bit for bit.
"""

# B rows of a call, N reference pictures of each.

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Final

import torch
from diffusers.models.embeddings import ImageProjection
from PIL import Image
from transformers import CLIPImageProcessor

from sdbatch.errors import ModelLoadFailed
from sdbatch.families import Family
from sdbatch.generate.load.components import AdapterFiles
from sdbatch.recipe import Recipe

_RENAMED: Final = (
    ("ip_adapter_double_stream_k_proj", "to_k_ip"),
    ("ip_adapter_double_stream_v_proj", "to_v_ip"),
    ("processor.", ""),
)
"""Parts of Flux's keys, and what diffusers calls them (0.42.1, FluxIPAdapterMixin)."""


class References:
    """An IP-Adapter and the denoiser that it is laid into.

    Args:
        pipeline: Pipeline of the model; it is given the image encoder.
        family: The model's.
        adapter: The adapter's weights and image encoder.

    Raises:
        ModelLoadFailed: When the weights do not fit the denoiser.
    """

    def __init__(self, pipeline: Any, family: Family, adapter: AdapterFiles) -> None:
        self._denoiser = getattr(pipeline, family.denoiser)
        self._plain = dict(self._denoiser.attn_processors)
        self._plain_kind = self._denoiser.config.get("encoder_hid_dim_type")
        state = _by_part(adapter.weights, self._denoiser.dtype)
        try:  # with little memory, weights that are not in the file would be left without a word
            self._denoiser._load_ip_adapter_weights([state], low_cpu_mem_usage=False)  # noqa: SLF001
        except (KeyError, RuntimeError, ValueError) as error:
            raise ModelLoadFailed(
                f"the ip_adapter does not fit the {family.denoiser}: {type(error).__name__}: {error}"
            ) from error
        # A projection may have attention of its own, which stays as it is.
        self._laid_in = {name: one for name, one in self._denoiser.attn_processors.items() if name in self._plain}
        self._projection = self._denoiser.encoder_hid_proj
        self._denoiser.to(device=self._denoiser.device, dtype=self._denoiser.dtype)
        side = adapter.image_encoder.config.image_size
        self._processor = CLIPImageProcessor(size=side, crop_size=side)
        pipeline.register_modules(image_encoder=adapter.image_encoder)

    def take_out(self) -> None:
        """Leave the denoiser as it was read."""
        self._denoiser.encoder_hid_proj = None
        self._denoiser.set_attn_processor(dict(self._plain))
        self._denoiser.config.encoder_hid_dim_type = self._plain_kind

    def put_in(self, scale: float) -> None:
        """Lay the adapter into the denoiser, with a weight."""
        for processor in self._laid_in.values():
            if hasattr(processor, "to_k_ip"):
                processor.scale = [scale] * len(processor.to_k_ip)
        self._denoiser.set_attn_processor(dict(self._laid_in))
        self._denoiser.encoder_hid_proj = self._projection
        self._denoiser.config.encoder_hid_dim_type = "ip_image_proj"

    @contextmanager
    def reading(self, pipeline: Any, recipe: Recipe) -> Iterator[None]:
        """Let a pipeline read the reference pictures of each row while the block runs; none, where a row has none.

        Args:
            pipeline: Pipeline that will be called.
            recipe: A recipe of the call; what is read of it is equal in all rows.
        """
        if not recipe.ip_adapter_images or recipe.ip_adapter_scale is None:
            yield
            return
        self.put_in(recipe.ip_adapter_scale)
        pipeline.prepare_ip_adapter_image_embeds = _Prepare(pipeline, self._processor, self._projection)
        try:
            yield
        finally:
            del pipeline.prepare_ip_adapter_image_embeds
            self.take_out()


class _Prepare:
    """Takes the place of a pipeline's `prepare_ip_adapter_image_embeds`."""

    def __init__(self, pipeline: Any, processor: Any, projection: Any) -> None:
        self._encoder = pipeline.image_encoder
        self._device = pipeline._execution_device  # noqa: SLF001 -- an offloaded encoder lies elsewhere by then
        self._processor = processor
        (layer,) = projection.image_projection_layers
        self._reads_layers = not isinstance(layer, ImageProjection)

    def __call__(
        self, images: Any, _embeds: Any, _device: Any, num_rows: int, is_guided: bool = False
    ) -> list[torch.Tensor]:
        """Return the embeddings of a call's rows, those without a picture before them where it is guided in one pass.

        Args:
            images: A list of pictures for each row; Flux asks for one black array for all rows as well.
            num_rows: Rows of the call.
            is_guided: Whether the pass has every row twice.
        """
        is_by_row = isinstance(images[0], list)
        pairs = [self._encoded(of_row) for of_row in (images if is_by_row else [images])]
        rows, blank = (torch.stack(each) for each in zip(*pairs, strict=True))
        if not is_by_row:
            rows = rows.expand(num_rows, *rows.shape[1:])
        return [torch.cat([blank, rows]) if is_guided else rows]

    def _encoded(self, images: Sequence[Any]) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the embedding of each picture, and that of no picture as often."""
        pictures = [image if isinstance(image, Image.Image) else Image.fromarray(image) for image in images]
        pixels = self._processor(pictures, return_tensors="pt").pixel_values
        pixels = pixels.to(self._device, next(self._encoder.parameters()).dtype)
        if self._reads_layers:
            layers = [self._encoder(one, output_hidden_states=True) for one in (pixels, torch.zeros_like(pixels))]
            found, blank = (one.hidden_states[-2] for one in layers)
            return found, blank
        embeds = self._encoder(pixels).image_embeds
        return embeds, torch.zeros_like(embeds)


def _by_part(weights: Mapping[str, torch.Tensor], dtype: torch.dtype) -> dict[str, dict[str, torch.Tensor]]:
    """Return an adapter's tensors by part, under diffusers' names."""
    parts: dict[str, dict[str, torch.Tensor]] = {"image_proj": {}, "ip_adapter": {}}
    for key, tensor in weights.items():
        start, _, name = key.partition(".")
        if start in {"image_proj", "ip_adapter_proj_model"}:
            parts["image_proj"][name] = tensor.to(dtype)
        elif start in {"ip_adapter", "double_blocks"}:
            for part, called in _RENAMED:
                name = name.replace(part, called)
            parts["ip_adapter"][name] = tensor.to(dtype)
    return parts
