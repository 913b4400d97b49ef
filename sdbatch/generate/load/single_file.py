"""Reads a pipeline from one file of weights and a local folder of configs.

    file --> denoiser, and the text encoders and VAE that it holds \
    configs --> scheduler, tokenizers                               --> pipeline
    modules of the entry's components, already loaded              /

Only diffusers' `from_single_file` with a local config converts, and no hub is asked. diffusers passes over tensors that
its config has no place for and leaves modules empty that the file has no tensors for; both are refused here, since
either makes other pictures without a word.
"""

from __future__ import annotations

import inspect
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import diffusers
import torch
from safetensors.torch import load_file
from transformers import CLIPTokenizer, PreTrainedModel

from sdbatch.checkpoints.single_files import CLIP_WORDS
from sdbatch.errors import ModelLoadFailed
from sdbatch.families import Family
from sdbatch.generate.load.file_tensors import converts_no_vae, made_in, tensors_of_denoiser, tensors_of_other
from sdbatch.generate.load.loaded import OPTIONS
from sdbatch.generate.load.whole import refuse_left_over, shapes_in

_CONVERSION_ERRORS: Final = (AttributeError, IndexError, KeyError, TypeError)
"""What diffusers' conversions raise on a file that lacks tensors."""


def pipeline_from_file(
    file: Path, configs: Path, family: Family, dtype: torch.dtype, modules: Mapping[str, Any]
) -> Any:
    """Return the pipeline of a single file, in host memory.

    Args:
        file: The weights, a safetensors file.
        configs: Folder in diffusers' layout; weights in it are not read.
        family: Family of the model.
        dtype: Numbers it is run in; modules that are given keep theirs.
        modules: Modules by name that are laid over it, or that the file lacks.

    Raises:
        ModelLoadFailed: When the file does not fit its configs.
    """
    index: dict[str, Any] = json.loads((configs / "model_index.json").read_text())
    cls = getattr(diffusers, family.class_name)
    taken = inspect.signature(cls.__init__).parameters
    options: dict[str, Any] = {name: value for name, value in OPTIONS.items() if name in taken}
    if "safety_checker" in taken and "safety_checker" not in modules:
        options |= {"safety_checker": None, "requires_safety_checker": False}
    given = {name: module for name, module in modules.items() if name in index or name in taken}
    try:
        shapes = shapes_in(file)
        if family.denoiser not in given:
            given[family.denoiser] = _denoiser(file, configs, family.denoiser, index[family.denoiser][-1], dtype)
        if "vae" not in given and converts_no_vae(shapes):
            given["vae"] = _vae(file, configs, index["vae"][-1], dtype)
        given = {**_tokenizers(configs, index, given), **given, **options}
        if hasattr(cls, "from_single_file"):
            pipeline = cls.from_single_file(str(file), config=str(configs), local_files_only=True, dtype=dtype, **given)
        else:  # its files hold the denoiser alone, and the folder gives what has no weights
            pipeline = cls.from_pretrained(str(configs), local_files_only=True, dtype=dtype, **given)
    except NotImplementedError as error:  # torch's word for a module that stayed empty
        raise ModelLoadFailed(f"{file}: lacks tensors that its configs {configs} have places for: {error}") from error
    except _CONVERSION_ERRORS as error:
        raise ModelLoadFailed(f"{file}: cannot be converted: {type(error).__name__}: {error}") from error
    own = {
        name: module
        for name, module in pipeline.components.items()
        if isinstance(module, torch.nn.Module) and name not in modules
    }
    are_encoders_own = not any(name.startswith("text_encoder") for name in modules)
    _refuse_further(file, configs, shapes, own, are_encoders_own=are_encoders_own)
    for name, module in own.items():
        _refuse_empty(file, name, module)
        module.eval()  # diffusers leaves text encoders in training, with dropout
    return pipeline


def _tokenizers(configs: Path, index: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
    """Return the CLIP tokenizers whose folder has settings alone: their vocabulary is one and the same."""
    found = {}
    for name, value in index.items():
        settings = configs / name / "tokenizer_config.json"
        is_clip = isinstance(value, list) and str(value[-1]).startswith("CLIPTokenizer")
        if is_clip and name not in given and settings.is_file() and len(list(settings.parent.iterdir())) == 1:
            found[name] = CLIPTokenizer.from_pretrained(
                str(CLIP_WORDS), local_files_only=True, **json.loads(settings.read_text())
            )
    return found


def _denoiser(file: Path, configs: Path, name: str, class_name: str, dtype: torch.dtype) -> torch.nn.Module:
    own = tensors_of_denoiser(load_file(file))
    shapes = {key: value.shape for key, value in own.items()}
    module: torch.nn.Module = made_in(getattr(diffusers, class_name), dtype).from_single_file(
        own, config=str(configs), subfolder=name, local_files_only=True
    )
    refuse_left_over(file, name, shapes, module, f"its config {configs}")
    return module


def _vae(file: Path, configs: Path, class_name: str, dtype: torch.dtype) -> torch.nn.Module:
    reader = made_in(getattr(diffusers, class_name), dtype)
    tensors = tensors_of_other("vae", load_file(file))
    module: torch.nn.Module = reader.from_single_file(
        tensors, config=str(configs), subfolder="vae", local_files_only=True
    )
    return module


_OF_VAE: Final = ("first_stage_model.", "vae.")
_IN_A_STACK: Final = re.compile(r"(?!.*vision)(.*\.)(?:encoder\.layers|encoder\.block)\.(\d+)\.")
"""Names of weights in the layers of a text encoder as transformers has them. OpenCLIP has others: of a file of Stable
Diffusion 2 the last layer is left out, as its authors do."""


def _refuse_further(
    file: Path,
    configs: Path,
    shapes: Mapping[str, Sequence[int]],
    own: Mapping[str, torch.nn.Module],
    *,
    are_encoders_own: bool,
) -> None:
    """Refuse a VAE and text encoders that are longer in the file than by its configs.

    Args:
        file: The weights.
        configs: Folder that says how long they are.
        shapes: Of the tensors in the file, by name.
        own: Modules by name that were made of the file.
        are_encoders_own: Whether its text encoders are read; others are laid over them elsewise.
    """
    if isinstance(vae := own.get("vae"), diffusers.AutoencoderKL):
        of_vae = {key: shape for key, shape in shapes.items() if key.startswith(_OF_VAE) and ".loss." not in key}
        refuse_left_over(file, "vae", of_vae, vae, f"its config {configs}")
    lengths = {
        len(part)
        for name, module in own.items()
        if name.startswith("text_encoder")
        for path, part in module.named_modules()
        if path.endswith(("encoder.layers", "encoder.block")) and isinstance(part, torch.nn.ModuleList)
    }
    found: dict[str, int] = {}
    for matched in filter(None, map(_IN_A_STACK.match, shapes if are_encoders_own else ())):
        found[matched[1]] = max(found.get(matched[1], 0), int(matched[2]) + 1)
    for before, length in found.items():
        if lengths and length > max(lengths):
            raise ModelLoadFailed(
                f"{file}: has {length} layers of a text encoder ({before}...), and by its config {configs} there are "
                f"{max(lengths)}; name a folder of its own configs with config:"
            )


def _refuse_empty(file: Path, name: str, module: torch.nn.Module) -> None:
    if isinstance(module, PreTrainedModel):
        module.tie_weights()
    empty = [key for key, value in module.named_parameters() if value.is_meta]
    if empty:
        raise ModelLoadFailed(
            f"{file}: lacks {len(empty)} tensors of its {name} ({', '.join(empty[:3])}); name it in components"
        )
