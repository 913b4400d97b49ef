"""Encodes nothing twice: the outputs of the frozen encoders are kept by row, bounded in bytes.

    rows of a call --> known ones are looked up, new ones encoded --> joined as the encoder itself would return them

Text encoders, image encoders and the VAE's encoder are frozen, so equal inputs give equal outputs, as long as the
number of rows in a call is the same: another number can change their last bits. In `exact`, new rows are therefore
encoded a fixed number at a time, and bytes are the same with and without the memo. Otherwise nothing is filled up.
"""

# B rows of a call.

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Final, overload

import torch
from diffusers.models.autoencoders.vae import DiagonalGaussianDistribution
from diffusers.models.modeling_outputs import AutoencoderKLOutput

from sdbatch.generate.visiting import Visits

MEMO_BYTES_MAX: Final = 256 << 20
"""Bytes kept on the model's device: 800 prompts of SDXL, 60 of Flux, 500 sources of 1024 px."""

ROWS_MAX: Final = 65_536
"""Rows that have an entry, kept or not: a few MiB of digests in a run of days."""

TEXTS_AT_ONCE: Final = 8
"""Texts encoded at a time for pictures: one at a time is slower, and more at a time are hardly faster."""

ENCODERS: Final = ("text_encoder", "text_encoder_2", "text_encoder_3", "text_encoder_4", "image_encoder")

_LEFT_ALONE: Final = frozenset(
    {"Gemma3ForConditionalGeneration", "LlamaForCausalLM", "Qwen3VLForConditionalGeneration"}
)
"""Text encoders of which nothing is kept.

Of Gemma's a pipeline stacks all layers (LTX-2), so that one prompt would take more than the whole memo; of Llama's as
well (HiDream), where eight would fill it. Qwen3-VL's is called under a hook that is gone when a field is read
(Qwen-Image 2.1, 0.42.1).
"""

Path = tuple[str, int | None]
"""Name of a field of an encoder's output, and the layer where the field holds several."""

Parts = dict[Path, torch.Tensor]
"""Tensors that are kept for one row, each with a leading dimension of 1."""


class Memo:
    """Keeps encoded rows; the one that was unused for longest is dropped first.

    Attributes:
        rows_encoded: Rows by component since the model was loaded, padding excluded.

    Args:
        bytes_max: Most bytes that are kept between calls.
        rows_max: Most rows that have an entry, also rows of which nothing is kept.
    """

    def __init__(self, bytes_max: int = MEMO_BYTES_MAX, rows_max: int = ROWS_MAX) -> None:
        self.rows_encoded: dict[str, int] = {}
        self.fields: dict[Hashable, dict[str, int | None]] = {}
        self._bytes_max = bytes_max
        self._rows_max = rows_max
        self._bytes = 0
        self._rows: OrderedDict[Hashable, Parts] = OrderedDict()
        self._fresh: list[tuple[Hashable, Path]] = []

    @property
    def texts_encoded(self) -> int:
        """Texts that went through the text encoders; where there are several, each saw the same ones."""
        return max((count for name, count in self.rows_encoded.items() if name.startswith("text")), default=0)

    @property
    def sources_encoded(self) -> int:
        """Sources that went through the VAE's encoder."""
        return self.rows_encoded.get("vae", 0)

    def parts(self, key: Hashable) -> Parts:
        """Return the tensors that are kept for a row; a new row has none yet."""
        parts = self._rows.setdefault(key, {})
        self._rows.move_to_end(key)
        return parts

    def keep(self, key: Hashable, path: Path, part: torch.Tensor) -> None:
        """Keep one part of a row."""
        self.parts(key)[path] = part
        self._bytes += part.nbytes
        self._fresh.append((key, path))

    def forget_fresh(self) -> None:
        """Drop what was kept since the last `trim`: a call that failed leaves as much memory as it found."""
        for key, path in self._fresh:
            part = self._rows[key].pop(path, None)
            self._bytes -= 0 if part is None else part.nbytes
        self._fresh.clear()

    def trim(self) -> None:
        """Drop rows that are over the bounds. It runs between calls, so that no call loses a row it began with."""
        self._fresh.clear()
        while self._bytes > self._bytes_max or len(self._rows) > self._rows_max:
            _, parts = self._rows.popitem(last=False)
            self._bytes -= sum(part.nbytes for part in parts.values())

    def count(self, component: str, rows: int) -> None:
        """Count rows that went through an encoder."""
        self.rows_encoded[component] = self.rows_encoded.get(component, 0) + rows


@contextmanager
def remembered(
    pipeline: Any, memo: Memo, context: str, texts_at_once: int, *, pads: bool = True, visits: Visits | None = None
) -> Iterator[None]:
    """Let a pipeline's encoders look into the memo while the block runs.

    Args:
        pipeline: Pipeline with the encoders; pipelines of one model share them, and the memo.
        memo: Memo of the model.
        context: Adapters that are laid over the text encoders and change their outputs.
        texts_at_once: Most rows that a text encoder is given at a time.
        pads: Whether it is always given so many, so that their number moves no bit of a row.
        visits: Brings text encoders that lie in host memory to the device; None where they are on it.
    """
    replaced: list[tuple[Any, str, Any]] = []
    for name in ENCODERS:
        encoder = getattr(pipeline, name, None)
        if not isinstance(encoder, torch.nn.Module):
            continue
        is_text = name.startswith("text")
        forward = visits.forward(encoder) if visits and is_text else encoder.forward
        if type(encoder).__name__ not in _LEFT_ALONE:
            forward = _Encoder(forward, memo, (name, context), texts_at_once if is_text else 1, pads=pads)
        replaced.append((encoder, "forward", vars(encoder).get("forward")))
        encoder.forward = forward
    replaced.append((pipeline.vae, "encode", vars(pipeline.vae).get("encode")))
    pipeline.vae.encode = _SourceEncoder(pipeline.vae, memo)
    try:
        yield
    except BaseException:
        memo.forget_fresh()
        raise
    finally:
        for owner, attribute, before in replaced:
            delattr(owner, attribute)
            if before is not None:  # another hook had replaced it before
                setattr(owner, attribute, before)
        memo.trim()


class _Encoder:
    """Replaces the `forward` of a text or image encoder.

    Args:
        forward: The encoder's own `forward`.
        memo: Memo of the model.
        kind: Name of the component, then the context.
        at_once: Most rows that it is given at a time.
        pads: Whether the last one is repeated where there are fewer.
    """

    def __init__(
        self, forward: Callable[..., Any], memo: Memo, kind: tuple[str, ...], at_once: int, *, pads: bool
    ) -> None:
        self.memo = memo
        self._forward = forward
        self._kind = kind
        self._at_once = at_once
        self._pads = pads

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        values: dict[Any, Any] = {**dict(enumerate(args)), **kwargs}
        tensors = {name: value for name, value in values.items() if isinstance(value, torch.Tensor)}
        rest = [(name, repr(value)) for name, value in values.items() if name not in tensors]
        sizes = {value.shape[:1] for value in tensors.values()}
        if len(sizes) != 1 or ("return_dict", "False") in rest:
            # Inputs of different lengths cannot be split by row: patches of pictures beside tokens of a text.
            return self._forward(*args, **kwargs)
        shapes = [(name, str(value.dtype), value.shape[1:]) for name, value in tensors.items()]
        kind = (*self._kind, self._at_once, *rest, *shapes)
        keys = [(kind, *marks) for marks in zip(*(_marks(value) for value in tensors.values()), strict=True)]
        return _Output(self, kind, keys, values)

    def encode(self, values: dict[Any, Any], indices: Sequence[int]) -> Iterator[tuple[int, Any, int]]:
        """Encode some rows of a call's arguments; yields the row, an output that holds it, and its place there."""
        self.memo.count(self._kind[0], len(indices))
        for start in range(0, len(indices), self._at_once):
            some = list(indices[start : start + self._at_once])
            chosen = some + some[-1:] * (self._at_once - len(some) if self._pads else 0)
            picked = {
                name: value[chosen] if isinstance(value, torch.Tensor) else value for name, value in values.items()
            }
            args = [picked.pop(name) for name in list(picked) if isinstance(name, int)]
            output = self._forward(*args, **picked)
            yield from ((index, output, place) for place, index in enumerate(some))


class _Output:
    """The output of an encoder for the rows of a call; a field is joined from its rows when it is read.

    A field that nobody reads is not kept: a pipeline reads few of a language model's layers, and never its logits.
    """

    def __init__(self, encoder: _Encoder, kind: Hashable, keys: Sequence[Hashable], values: dict[Any, Any]) -> None:
        self._encoder = encoder
        self._memo = encoder.memo
        self._kind = kind
        self._keys = keys
        self._values = values
        self._fresh: dict[Hashable, tuple[Any, int]] = {}
        if kind not in self._memo.fields:
            self._encode(keys)

    def __getattr__(self, name: str) -> Any:
        fields = self._memo.fields[self._kind]
        if name not in fields:
            raise AttributeError(name)
        layers = fields[name]
        return self._joined((name, None)) if layers is None else _Layers(self._joined, name, layers)

    def __getitem__(self, index: int | str) -> Any:
        return getattr(self, index if isinstance(index, str) else list(self._memo.fields[self._kind])[index])

    def _joined(self, path: Path) -> torch.Tensor:
        lacking = [key for key in dict.fromkeys(self._keys) if path not in self._memo.parts(key)]
        self._encode([key for key in lacking if key not in self._fresh])
        for key in lacking:
            output, place = self._fresh[key]
            value = output[path[0]] if path[1] is None else output[path[0]][path[1]]
            self._memo.keep(key, path, value[place : place + 1].clone())
        return torch.cat([self._memo.parts(key)[path] for key in self._keys])

    def _encode(self, keys: Sequence[Hashable]) -> None:
        first = {key: self._keys.index(key) for key in keys}
        by_index = {index: key for key, index in first.items()}
        for index, output, place in self._encoder.encode(self._values, list(by_index)):
            self._fresh[by_index[index]] = (output, place)
            layers = {name: len(value) if isinstance(value, tuple) else None for name, value in output.items()}
            self._memo.fields[self._kind] = layers


class _Layers(Sequence[torch.Tensor]):
    """A field that holds one tensor per layer; each is joined when it is read."""

    def __init__(self, joined: Callable[[Path], torch.Tensor], name: str, count: int) -> None:
        self._joined = joined
        self._name = name
        self._count = count

    def __len__(self) -> int:
        return self._count

    @overload
    def __getitem__(self, index: int) -> torch.Tensor: ...
    @overload
    def __getitem__(self, index: slice) -> list[torch.Tensor]: ...
    def __getitem__(self, index: int | slice) -> torch.Tensor | list[torch.Tensor]:
        chosen = range(self._count)[index]
        if isinstance(chosen, range):
            return [self._joined((self._name, layer)) for layer in chosen]
        return self._joined((self._name, chosen))


class _SourceEncoder:
    """Replaces a VAE's `encode`; pipelines call it once per row, because every row has a generator of its own."""

    def __init__(self, vae: Any, memo: Memo) -> None:
        self._vae = vae
        self._encode = vae.encode
        self._memo = memo

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if kwargs or len(args) != 1 or len(args[0]) != 1:
            return self._encode(*args, **kwargs)
        (source,) = args
        key = ("vae", getattr(self._vae, "use_tiling", False), str(source.dtype), source.shape, *_marks(source))
        kept = self._memo.parts(key)
        path = ("parameters", None)
        if path not in kept:
            self._memo.count("vae", 1)
            output = self._encode(source)
            if isinstance(getattr(output, "latent_dist", None), DiagonalGaussianDistribution):
                self._memo.keep(key, path, output.latent_dist.parameters)
            return output
        return AutoencoderKLOutput(latent_dist=DiagonalGaussianDistribution(kept[path]))


def _marks(value: torch.Tensor) -> list[bytes]:
    """Return a digest of every row of a tensor."""
    rows = value.detach().reshape(len(value), -1).contiguous().view(torch.uint8).cpu().numpy()
    return [hashlib.sha256(row).digest() for row in rows]
