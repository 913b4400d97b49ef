"""Weights as a model entry names them: folders and files, what is laid over a model, and how weights are stored."""

from __future__ import annotations

import re
from typing import Annotated, Any, Final, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

DTYPES: Final = ("float32", "float16", "bfloat16")
"""Numbers that a module may be run in."""

_REVISION = re.compile(r"[0-9a-f]{40,64}")


class Strict(BaseModel):
    """Refuses unknown keys and values of another type."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


def is_fixed(revision: str) -> bool:
    """Whether a revision names one content for ever: a commit or a digest of 40 to 64 hex digits."""
    return _REVISION.fullmatch(revision) is not None


def _refuse_moving(revision: Any) -> Any:
    """Refuse a name that may stand for other weights tomorrow, while the request keys stay as they are."""
    if not isinstance(revision, str):
        return revision
    if not is_fixed(revision.lower()):
        raise ValueError(
            f"{revision!r} is a name that can move, not a commit or a digest of 40 to 64 hex digits; "
            "`sdbatch models pin JOB` prints the digest to paste, and without a revision the files are digested"
        )
    return revision.lower()


Revision = Annotated[str, BeforeValidator(_refuse_moving), Field(pattern=r"^[0-9a-fA-F]{40,64}$")]


Dtype = Literal["float32", "float16", "bfloat16"]

QUANTIZE_TYPES: Final = {
    "torchao": (
        "int8wo",
        "int8dq",
        "int4wo",
        "float8wo",
        "float8dq",
    ),
    "bitsandbytes": ("nf4", "fp4", "int8"),
    "quanto": ("int8", "int4", "int2", "float8"),
}
"""Types of quantised weights, by the package that computes with them: `wo` quantises weights only, `dq` the
activations of a call as well."""


class Quantize(Strict):
    """How the weights of one module are quantised as they are loaded. Lossy."""

    backend: Literal["torchao", "bitsandbytes", "quanto"] = Field(
        description="Python package. A GGUF file is quantised already: name it as components.NAME.path."
    )
    type: str = Field(description="One of the backend's.")
    skip_modules: list[Annotated[str, Field(min_length=1)]] = Field(
        default=[], description="Names of submodules that stay as they are."
    )

    @model_validator(mode="after")
    def _type_of_its_backend(self) -> Quantize:
        known = QUANTIZE_TYPES[self.backend]
        if self.type not in known:
            raise ValueError(f"type: {self.type!r} is none of {self.backend}'s; it has {', '.join(known)}")
        return self


class Component(Strict):
    """One module that is laid over a model's own, or that it lacks; a plain path stands for one without a revision."""

    path: str = Field(description="Local folder, or fsspec URL of a folder; or one file, .safetensors or .gguf.")
    revision: Revision | None = Field(default=None, description="Names the content; see a model's.")
    config: str | None = Field(
        default=None, description="Folder of a file's config.json; without it the model's own of that module counts."
    )
    dtype: Dtype | None = Field(default=None, description="Numbers it is run in; null is the model's dtype.")
    quantize: Quantize | None = Field(default=None, description="How its weights are quantised.")
    image_encoder: str | None = Field(
        default=None,
        description="Folder of an ip_adapter's image encoder; without it, image_encoder beside its weights.",
    )


SEVERAL: Final = ("controlnet",)
"""Components of which a model entry may name several, as a list."""

SEVERAL_MAX: Final = 8
"""Most of them."""


def base_of(component: str) -> str:
    """Return what a component is, without its number among several: `controlnet` of `controlnet_2`."""
    base, _, number = component.rpartition("_")
    return base if base in SEVERAL and number.isdecimal() else component


def numbered(entry: Any) -> Any:
    """Return a model entry in which each component of a list has a name: `controlnet`, `controlnet_2`, and so on."""
    if not isinstance(entry, dict):
        return entry
    entry = dict(entry)
    named = entry.get("components")
    further: dict[str, Any] = dict(named) if isinstance(named, dict) else {}
    for name in SEVERAL:
        for place in (entry, further):
            if not isinstance(place.get(name), list | tuple):
                continue
            parts = list(place[name])
            if not 1 <= len(parts) <= SEVERAL_MAX:
                raise ValueError(f"{name}: a list of {len(parts)} folders; 1 to {SEVERAL_MAX} can be named")
            place[name] = parts[0]
            for number, part in enumerate(parts[1:], 2):
                if f"{name}_{number}" in further:
                    raise ValueError(f"{name}_{number} stands in components beside a list of {name}; say it once")
                further[f"{name}_{number}"] = part
    return {**entry, "components": further} if further else entry


InversionWord = Annotated[str, Field(pattern=r"^[^\s()\[\]{}:,\"\\+|]{2,64}$")]
"""A word that stands for a textual inversion: none of what weights and other syntax of prompts are written with."""


class Embedding(Strict):
    """Weights of a textual inversion: vectors that stand for one word of a prompt; a plain path stands for one."""

    path: Annotated[str, Field(pattern=r"^(.*/)?[A-Za-z0-9][A-Za-z0-9._-]*\.safetensors$")] = Field(
        description="Local file or fsspec URL of a file, .safetensors."
    )
    revision: Revision | None = Field(default=None, description="Names the content; see a model's.")

    def as_lora(self, base: str) -> Lora:
        """Return it as a file that is looked into and copied as a LoRA's is.

        Args:
            base: Title of its model's family.
        """
        folder, slash, name = self.path.rpartition("/")
        return Lora(path=folder or ("/" if slash else "."), base=base, weight_name=name, revision=self.revision)


class VaeOptions(Strict):
    """How a VAE decodes what does not fit at once."""

    tiling: bool | Literal["auto"] = Field(
        default="auto", description="Decode in tiles that overlap; auto tiles what is larger than its family allows."
    )
    slicing: bool = Field(default=False, description="Decode the rows of a call one by one.")
    decode_batch: Annotated[int, Field(ge=1, le=256)] | None = Field(
        default=None, description="Rows that are decoded at once; null is all rows of a call."
    )


def folder_of(value: Any) -> Any:
    """Return a component's values where a plain path stands for it."""
    return {"path": value} if isinstance(value, str) else value


def or_several(schema: dict[str, Any]) -> None:
    """Let a JSON Schema take a plain path, or a list of what it takes."""
    or_string(schema)
    one = [kind for kind in schema["anyOf"] if kind.get("type") != "null"]
    schema["anyOf"].append({"type": "array", "items": {"anyOf": one}, "minItems": 1, "maxItems": SEVERAL_MAX})


def or_string(schema: dict[str, Any]) -> None:
    """Let a JSON Schema take a plain path as well."""
    schema["anyOf"] = [{"type": "string"}, *schema.get("anyOf", [])]


class Lora(Strict):
    """Weights that a row may lay over a model, by name."""

    path: str = Field(description="Local folder or fsspec URL of a folder.")
    base: str = Field(description="Family it was trained for: its title, or the class name in model_index.json.")
    weight_name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*\.safetensors$")] = Field(
        default="pytorch_lora_weights.safetensors", description="File in the folder."
    )
    revision: Revision | None = Field(default=None, description="Names the content; see a model's.")
    load_into_transformer_2: bool = Field(
        default=False,
        description="Whether it is for the second transformer of Wan 2.2 A14B, that of the later steps (low noise).",
    )
    partial: Literal["refuse", "allow"] = Field(
        default="refuse", description="What becomes of rows when some of its keys fit nothing in the model."
    )
