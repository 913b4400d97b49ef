"""An IP-Adapter that a model entry names: weights of its own beside an image encoder, as diffusers' loader has them.

    components.ip_adapter --> adapter_parts() --> weights (one .safetensors file) and image encoder (a folder)
                          --> look_into_adapter() --> LaidOver, or ModelError: what is wrong and what would be read

The image encoder is part of the adapter and not of the model: rows without reference pictures never run it, and their
keys do not hold it.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from sdbatch.checkpoints.components import LaidOver, look_into, naming
from sdbatch.checkpoints.files import content_revision, lora_files
from sdbatch.checkpoints.headers import Header, read_header
from sdbatch.checkpoints.identity import identity, is_content_digest
from sdbatch.checkpoints.parameters import num_parameters
from sdbatch.errors import ModelError
from sdbatch.families import READ_BY, Family
from sdbatch.job import Component, Model, Storage
from sdbatch.storage import Entry, Store, open_store, parse_url
from sdbatch.storage.locations import split

ADAPTER, CLASS_NAME = READ_BY["ip_adapter_images"]
"""Name of the component, and what stands for its class: diffusers has none, it lays the weights into the denoiser."""

ENCODER_CLASS: Final = "CLIPVisionModelWithProjection"

_SUFFIX: Final = ".safetensors"

_PREFIXES: Final[Mapping[str, tuple[tuple[str, ...], tuple[str, ...]]]] = {
    "unet": (("image_proj.",), ("ip_adapter.",)),
    "transformer": (("image_proj.", "ip_adapter_proj_model."), ("ip_adapter.", "double_blocks.")),
}
"""How the keys of the projection and of the attention begin, by denoiser (diffusers 0.42.1, loaders/ip_adapter.py)."""

_WIDTHS: Final = {"unet": "cross_attention_dim", "transformer": "joint_attention_dim"}
"""Entry of a denoiser's config.json that says how wide its texts are; the adapter's keys and values are as wide."""

_ATTENTION: Final = re.compile(
    r"(ip_adapter|double_blocks)\.(?P<number>\d+)\."
    r"(processor\.ip_adapter_double_stream_(?P<part>[kv])_proj|to_(?P<of_unet>[kv])_ip)\.weight"
)
"""Keys of the weights that an attention is given."""
_COUNTED: Final = {"unet": (1, 2), "transformer": (0, 1)}
"""Number of a denoiser's first attention in the keys, and the step to the next one."""

_READS_PICTURES: Final = ("proj.weight", "proj.3.weight", "latents")
"""Tensors of which a projection that reads pictures has one. Face ID has none of them: it reads a face's embedding of
another program."""

_READS: Final = (
    ("proj.weight", "projection_dim", 512),
    ("proj.0.weight", "hidden_size", 768),
    ("proj_in.weight", "hidden_size", 768),
)
"""First layer of a projection, the entry of an image encoder's config.json that says how wide what it reads is, and
what that is where none is said."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AdapterParts:
    """Where an adapter lies.

    Attributes:
        weights: One file.
        image_encoder: A folder.
        revision: Identity of the weights; "" when it was not asked for.
        encoder_revision: Identity of the image encoder.
    """

    weights: Component
    image_encoder: Component
    revision: str
    encoder_revision: str

    @property
    def combined(self) -> str:
        """Identity of both in one digest."""
        if not self.revision:
            return ""
        return hashlib.sha256(f"{self.revision}\nimage_encoder {self.encoder_revision}".encode()).hexdigest()


def weights_of(place: str, component: Component, storage: Mapping[str, Storage]) -> Component:
    """Return an adapter's weights as a component of one file.

    Raises:
        ModelError: When a folder has none, or several of which none is named.
    """
    if component.path.endswith(_SUFFIX):
        return component.model_copy(update={"image_encoder": None})
    store = open_store(parse_url(component.path).url, storage)
    names = sorted(entry.path for entry in store.list("", deep=False))
    found = [name for name in names if name.endswith(_SUFFIX)]
    if len(found) == 1:
        path = f"{component.path.rstrip('/')}/{found[0]}"
        return component.model_copy(update={"path": path, "image_encoder": None})
    if found:
        raise ModelError(f"{place}: {store.url} has {len(found)} files of weights; name one: {', '.join(found)}")
    pickles = [name for name in names if name.endswith((".bin", ".pt", ".ckpt"))]
    why = f"only {pickles[0]}, which is a pickle and is never opened" if pickles else "and no file of weights"
    raise ModelError(f"{place}: {store.url} has no {_SUFFIX} file, {why}; name the folder with one, or the file")


def adapter_parts(
    place: str, component: Component, storage: Mapping[str, Storage], dtype: str, *, with_revision: bool = True
) -> tuple[AdapterParts, LaidOver]:
    """Return where both parts of an adapter lie, and what its image encoder is.

    Args:
        place: Key in the job, for messages.
        component: The job's entry.
        storage: The job's options by URL prefix.
        dtype: Numbers that it is run in.
        with_revision: Whether files without a stated revision are digested.

    Raises:
        ModelError: When one is not there, or cannot be read.
    """
    weights = weights_of(place, component, storage)
    folder, name = split(parse_url(weights.path).url)
    store, entry = _file(place, weights, storage)
    # A commit names the encoder beside the weights as well; what lies elsewhere is known by its content.
    is_commit = component.revision is not None and not is_content_digest(component.revision)
    encoder = Component(
        path=component.image_encoder or f"{folder}/image_encoder",
        revision=component.revision if is_commit and component.image_encoder is None else None,
    )
    looked = look_into(
        f"{place}.image_encoder",
        "image_encoder",
        encoder,
        dtype=dtype,
        expected=ENCODER_CLASS,
        own_config=None,
        schedulers=(),
        storage=storage,
        with_revision=with_revision,
    )
    if component.revision is not None:
        revision = identity(component.revision, file=name)
    else:
        revision = content_revision(store, [entry]) if with_revision else ""
    parts = AdapterParts(
        weights=weights, image_encoder=encoder, revision=revision, encoder_revision=_encoder_revision(looked, encoder)
    )
    return parts, looked


def _file(place: str, weights: Component, storage: Mapping[str, Storage]) -> tuple[Store, Entry]:
    folder, name = split(parse_url(weights.path).url)
    store = open_store(folder, storage)
    with naming(place):
        (entry,) = lora_files(store, name)
    return store, entry


def _encoder_revision(looked: LaidOver, encoder: Component) -> str:
    """Return the identity of an image encoder; a commit names a whole repository, so its folder is named as well."""
    return identity(encoder.revision, subfolder="image_encoder") if encoder.revision else looked.revision


def look_into_adapter(
    place: str,
    component: Component,
    model: Model,
    family: Family,
    own_config: Mapping[str, Any] | None,
    storage: Mapping[str, Storage],
    *,
    with_revision: bool,
) -> LaidOver:
    """Look into an entry's IP-Adapter.

    Args:
        place: Key in the job, for messages.
        component: The job's entry of it.
        model: The job's entry of the model.
        family: The model's.
        own_config: The denoiser's config.json; None where it is not at hand.
        storage: The job's options by URL prefix.
        with_revision: Whether files without a stated revision are digested.

    Raises:
        ModelError: When it is not there, is another model's, or the entry asks for what it cannot be combined with.
    """
    _refuse_options(place, component, model, family)
    dtype = component.dtype or model.dtype
    weights = weights_of(place, component, storage)
    store, entry = _file(place, weights, storage)
    with naming(place):
        header = read_header(store, entry)
    _refuse_others(f"{place}: {weights.path}", header, family, own_config)
    _refuse_other_attention(f"{place}: {weights.path}", header, family, own_config or {})
    parts, encoder = adapter_parts(place, component, storage, dtype, with_revision=with_revision)
    _refuse_other_encoder(f"{place}: {weights.path}", header, family, parts.image_encoder.path, encoder.config)
    return LaidOver(
        class_name=CLASS_NAME,
        revision=parts.combined,
        is_pinned=(component.revision is not None or store.is_local) and encoder.is_pinned,
        parameters=num_parameters([header]) + encoder.parameters,
        quantized_by="",
        config={},
    )


def _refuse_options(place: str, component: Component, model: Model, family: Family) -> None:
    """Refuse what would run the denoiser by other attention than the adapter's, or leave its weights behind."""
    taking = [route for route in family.routes if "ip_adapter_images" in route.optional]
    if not taking:
        raise ModelError(f"{place}: {family.title} takes no reference pictures; leave it out")
    denoiser = family.denoiser
    options = {
        "compile": model.compile,
        "attention_backend": model.attention_backend is not None,
        "layerwise_casting": model.layerwise_casting is not None,
        "offload: group": model.offload == "group",
        f"quantize.{denoiser}": denoiser in model.quantized,
        "components.ip_adapter.config": component.config is not None,
        "components.ip_adapter.quantize": component.quantize is not None,
        "components.ip_adapter.dtype": component.dtype is not None,
    }
    if chosen := [name for name, is_chosen in options.items() if is_chosen]:
        raise ModelError(
            f"{place}: an adapter is laid into the {denoiser} and taken out again between calls, which does not go "
            f"with {chosen[0]}; leave it out, or name the adapter in a model entry without it"
        )


def _refuse_others(name: str, header: Header, family: Family, own_config: Mapping[str, Any] | None) -> None:
    """Refuse weights that are none of an adapter, or those of an adapter of another model."""
    denoiser = family.denoiser
    for prefixes in _PREFIXES[denoiser]:
        if not any(tensor.startswith(prefixes) for tensor in header.tensors):
            raise ModelError(
                f"{name}: is not an IP-Adapter for a {denoiser}: no tensor begins with {' or '.join(prefixes)}"
            )
    if _projection(header, family).keys().isdisjoint(_READS_PICTURES):
        raise ModelError(
            f"{name}: is a Face ID adapter, which reads another program's embedding of a face; name one that reads "
            "pictures, such as ip-adapter-plus-face"
        )
    width = (own_config or {}).get(_WIDTHS[denoiser])
    found = {
        int(tensor["shape"][-1])
        for key, tensor in header.tensors.items()
        if key.endswith(("to_k_ip.weight", "k_proj.weight")) and len(tensor["shape"]) == 2
    }
    if isinstance(width, int) and found and found != {width}:
        raise ModelError(
            f"{name}: was made for a model whose texts are {min(found)} wide; those of this {family.title} are {width} "
            "wide; name the adapter of its family"
        )


def _refuse_other_attention(name: str, header: Header, family: Family, config: Mapping[str, Any]) -> None:
    """Refuse weights for more or fewer attentions than the denoiser has: they are laid into it in their order."""
    found: dict[str, set[int]] = {"k": set(), "v": set()}
    for key in header.tensors:
        if matched := _ATTENTION.fullmatch(key):
            found[matched["part"] or matched["of_unet"]].add(int(matched["number"]))
    first, step = _COUNTED[family.denoiser]
    number = config.get("num_layers") if family.denoiser == "transformer" else num_cross_attentions(config)
    number = number if isinstance(number, int) else len(found["k"])
    wanted = set(range(first, first + step * number, step))
    for part, numbers in found.items():
        if numbers != wanted:
            raise ModelError(
                f"{name}: was made for another {family.denoiser}: it has to_{part} for {len(numbers & wanted)} of its "
                f"{number} attentions and {len(numbers - wanted)} more; name the adapter of this model"
            )


def num_cross_attentions(config: Mapping[str, Any]) -> int | None:
    """Return how many attentions of a UNet read texts, None where its configuration is of another form."""
    down, up = config.get("down_block_types"), config.get("up_block_types")
    layers, depths = config.get("layers_per_block", 2), config.get("transformer_layers_per_block", 1)
    if not (isinstance(down, list) and isinstance(up, list)) or config.get("dual_cross_attention"):
        return None
    of_layers = layers if isinstance(layers, list) else [layers] * len(down)
    of_depths = depths if isinstance(depths, list) else [depths] * len(down)
    upwards = config.get("reverse_transformer_layers_per_block") or of_depths[::-1]
    blocks = [
        *zip(down, of_depths, of_layers, strict=False),
        *zip(up, upwards, [count + 1 for count in of_layers[::-1]], strict=False),
        (config.get("mid_block_type", "UNetMidBlock2DCrossAttn"), of_depths[-1], 1),
    ]
    reading = [(depth, count) for kind, depth, count in blocks if "CrossAttn" in str(kind)]
    return sum(sum(depth) if isinstance(depth, list) else depth * count for depth, count in reading)


def _projection(header: Header, family: Family) -> dict[str, list[int]]:
    """Return the shapes of the projection's tensors, by name."""
    before = _PREFIXES[family.denoiser][0]
    tensors = {key: tensor["shape"] for key, tensor in header.tensors.items() if key.startswith(before)}
    return {key.partition(".")[2]: shape for key, shape in tensors.items()}


def _refuse_other_encoder(name: str, header: Header, family: Family, encoder: str, config: Mapping[str, Any]) -> None:
    """Refuse an image encoder whose embeddings the projection does not read: adapters of one folder may read others."""
    shapes = _projection(header, family)
    inside = config.get("vision_config", config)
    for tensor, key, usual in _READS:
        shape, width = shapes.get(tensor), inside.get(key, usual)
        if shape is not None and len(shape) == 2 and shape[1] != width:
            raise ModelError(
                f"{name}: reads embeddings {shape[1]} wide ({tensor}), and those of the image encoder {encoder} are "
                f"{width} wide ({key}); name the one that it was trained with as image_encoder"
            )
