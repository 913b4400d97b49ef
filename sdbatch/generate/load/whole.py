"""Refuses modules that were read in part: weights that their files lack, and layers that their configuration has not.

    folder --> read_whole(), or a pipeline's from_pretrained while told_of_parts() --> module, or ModelLoadFailed

transformers fills weights that are not there with random numbers, and diffusers passes over layers that the
configuration has no place for. Either says so in a log alone, and makes other pictures.
"""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, Final

import diffusers
import torch
import transformers
from huggingface_hub.errors import StrictDataclassError
from safetensors import safe_open

from sdbatch.errors import ModelLoadFailed

_READERS: Final = (diffusers.ModelMixin, transformers.PreTrainedModel)
"""Classes whose `from_pretrained` reads the weights of one module."""

_OF_WORDS: Final = frozenset({"lm_head.weight"})
"""What makes words of what a language model has read. Files of text encoders leave it out; pipelines read no words."""

READ_ERRORS: Final = (AttributeError, IndexError, KeyError, TypeError, ValueError, StrictDataclassError)
"""What libraries raise on configurations that say other things than they expect."""


@contextmanager
def told_of_parts() -> Iterator[None]:
    """Let every module that is read from a folder while the block runs be refused where it was read in part.

    diffusers' pipelines read their modules by `from_pretrained` and ask it for no account; here it gives one.
    """
    own = {reader: reader.__dict__["from_pretrained"] for reader in _READERS}
    for reader, method in own.items():
        reader.from_pretrained = classmethod(_telling(method.__func__))
    try:
        yield
    finally:
        for reader, method in own.items():
            reader.from_pretrained = method


def _telling(method: Any) -> Any:
    def from_pretrained(cls: Any, folder: Any = None, *arguments: Any, **options: Any) -> Any:
        if options.get("output_loading_info") or not Path(str(folder)).is_dir():
            return method(cls, folder, *arguments, **options)
        return _read(cls, partial(method, cls), Path(folder).name, Path(folder), options)

    return from_pretrained


def read_whole(cls: Any, name: str, folder: Path, **options: Any) -> Any:
    """Return a module that was read from its folder, as a whole.

    Args:
        cls: Its class, of diffusers or transformers.
        name: What messages call it.
        folder: Where its weights and its config.json lie.
        options: Arguments of its `from_pretrained`.

    Raises:
        ModelLoadFailed: When its files lack weights, or hold layers that its configuration has no place for.
    """
    return _read(cls, cls.from_pretrained, name, folder, options)


def _read(cls: Any, from_pretrained: Any, name: str, folder: Path, options: Mapping[str, Any]) -> Any:
    try:
        module, found = from_pretrained(str(folder), **options, output_loading_info=True)
    except NotImplementedError as error:  # torch's word for a module that stayed empty
        refuse_lacking(name, folder, _without_weights(cls, folder))
        raise ModelLoadFailed(f"{folder}: is not read as a {cls.__name__}: {error}") from error
    except READ_ERRORS as error:
        kind = "" if isinstance(error, ValueError) else f"{type(error).__name__}: "
        raise ModelLoadFailed(f"{folder}: is not read as a {cls.__name__}: {kind}{said_by(error)}") from error
    refuse_lacking(name, folder, found["missing_keys"])
    unread = set(found["unexpected_keys"])
    if not isinstance(module, diffusers.ModelMixin):
        refuse_further_layers(folder, name, unread, module)
    elif not _was_quantised(module):  # what lies beside packed weights has no place of its own
        _refuse_unread(folder, name, _layers(folder, unread))
    return module


def _was_quantised(module: diffusers.ModelMixin) -> bool:
    """Whether the files of a module hold quantised weights, rather than that they were quantised as they were read."""
    quantizer = getattr(module, "hf_quantizer", None)
    return quantizer is not None and quantizer.pre_quantized


def refuse_further_layers(path: Path, name: str, unread: Collection[str], module: torch.nn.Module) -> None:
    """Refuse a text encoder whose stacks of layers are longer in its files than by its configuration.

    Weights of the other half of its network may well lie beside it.

    Args:
        path: Its folder or file.
        name: Name of the module.
        unread: Names of weights in its files that it has no place for.
        module: The module that was made of the rest.

    Raises:
        ModelLoadFailed: When there are any, naming one of them.
    """
    stacks = {path for path, part in module.named_modules() if isinstance(part, torch.nn.ModuleList)}
    layers = [key for key in unread if (found := _IN_A_STACK.match(key)) and found[1] in stacks]
    _refuse_unread(path, name, layers)


_IN_A_STACK: Final = re.compile(r"(.+?)\.\d+\..*weight$")


def _refuse_unread(path: Path, name: str, layers: Collection[str]) -> None:
    if layers:
        raise ModelLoadFailed(
            f"{path}: its files hold {len(layers)} layers of {name} that its config.json has no place for, such "
            f"as {min(layers)}; take the config.json that belongs to these weights"
        )


def said_by(error: Exception) -> str:
    """Return what diffusers says of weights that do not fit, without its advice on how to load them all the same."""
    return str(error).partition(". If you want")[0]


def shapes_in(file: Path) -> dict[str, Sequence[int]]:
    """Return the shape of each tensor in a file, by its name."""
    with safe_open(file, "np") as opened:
        return {key: opened.get_slice(key).get_shape() for key in opened.keys()}  # noqa: SIM118 -- it is no mapping


def shape_of(tensor: torch.Tensor) -> Sequence[int]:
    """Return the shape of a tensor's numbers, which are packed in one of GGUF."""
    shape: Sequence[int] = getattr(tensor, "quant_shape", tensor.shape)
    return shape


def refuse_lacking(name: str, path: Path, missing: Collection[str]) -> None:
    """Refuse weights that are not there, but for those that decide no pixels.

    Raises:
        ModelLoadFailed: Naming the module and one of them.
    """
    if felt := set(missing) - _OF_WORDS:
        raise ModelLoadFailed(
            f"{path}: lacks {len(felt)} weights of {name}, such as {min(felt)}; is it another model's?"
        )


def refuse_left_over(
    file: Path, name: str, shapes: Mapping[str, Sequence[int]], module: torch.nn.Module, by: str
) -> None:
    """Refuse a module that was made of a part of what its file holds.

    Layers alone are counted: converters join and split them, and Z-Image's files hold a norm that nothing reads.

    Args:
        file: The file.
        name: Name of the module.
        shapes: Of the module's tensors in the file.
        module: The module that was made of them.
        by: What decided which layers it has, for the message.

    Raises:
        ModelLoadFailed: With both counts.
    """
    in_file = sum(math.prod(shape) for shape in shapes.values() if len(shape) > 1)
    read = sum(math.prod(shape_of(value)) for value in module.state_dict().values() if value.ndim > 1)
    if in_file > read:
        raise ModelLoadFailed(
            f"{file}: its {name} has {in_file} numbers in layers, and by {by} it has {read}; name a folder of its own "
            "configs with config:"
        )


def _without_weights(cls: Any, folder: Path) -> set[str]:
    """Return the weights of a module of diffusers that no file in its folder has."""
    with torch.device("meta"):
        module = cls.from_config(cls.load_config(str(folder)))
    there = {key for file in folder.glob("*.safetensors") for key in shapes_in(file)}
    return set(module.state_dict().keys() - there)


def _layers(folder: Path, keys: set[str]) -> list[str]:
    """Return which tensors among some are layers' matrices, as norms, counters and tables of places are not."""
    layers = {key for key in keys if key.endswith(".weight")}
    files = sorted(folder.glob("*.safetensors")) if layers else []
    return [key for file in files for key, shape in shapes_in(file).items() if key in layers and len(shape) > 1]
