"""Reads the modules that are passed to a pipeline, instead of being read by it: components, and quantised ones.

    folder --> from_pretrained of its class      \
    .safetensors, .gguf --> from_single_file      > every weight was there --> module
    .safetensors of transformers --> state_dict  /

Only safetensors and GGUF, only local files, never a hub: each file comes with a configuration of its own.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import diffusers
import torch
import transformers
from diffusers.loaders.single_file_model import SINGLE_FILE_LOADABLE_CLASSES
from diffusers.loaders.single_file_utils import SingleFileComponentError
from safetensors.torch import load_file

from sdbatch.checkpoints import ModelInfo, has_weights, is_file
from sdbatch.checkpoints.ip_adapters import ADAPTER, ENCODER_CLASS, adapter_parts
from sdbatch.checkpoints.layouts import OF_ENCODERS, behind_prefix
from sdbatch.errors import ModelLoadFailed
from sdbatch.generate.faults import failure_kind
from sdbatch.generate.load.copies import component_config, component_path
from sdbatch.generate.load.file_tensors import (
    controlnet_in_diffusers_names,
    in_diffusers_names,
    made_in,
    tensors_in,
    tensors_of_denoiser,
    tensors_of_other,
    unpack_outside_linear,
)
from sdbatch.generate.load.lora_keys import CONVERSION_ERRORS
from sdbatch.generate.load.quantizing import config_of, quantise, refuse_device, refuse_missing, refuse_unquantised
from sdbatch.generate.load.whole import (
    read_whole,
    refuse_further_layers,
    refuse_lacking,
    refuse_left_over,
    said_by,
    shape_of,
)
from sdbatch.job import Component, Model, Storage
from sdbatch.job.weights import Quantize

DTYPES: Final = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}

FLOAT32_VAES: Final = frozenset({"AutoencoderKLWan"})
"""Autoencoders that are kept in float32 beside a denoiser in 16 bit, as their authors do: in bfloat16 clips flicker."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AdapterFiles:
    """An IP-Adapter, read.

    Attributes:
        weights: Its tensors by the keys of the file.
        image_encoder: Module that reads reference pictures.
    """

    weights: Mapping[str, torch.Tensor]
    image_encoder: Any


class ModuleReader:
    """Reads single modules of one model.

    Args:
        info: What the model is.
        model: The job's entry; its dtype is no longer `auto`.
        folder: The model's folder on this machine.
        storage: The job's options by URL prefix.
        device: Device that computes: `cuda` or `cpu`.
    """

    def __init__(
        self, info: ModelInfo, model: Model, folder: Path, storage: Mapping[str, Storage], device: str
    ) -> None:
        self._info = info
        self._model = model
        self._folder = folder
        self._storage = storage
        self._device = device

    def laid_over(self) -> dict[str, Any]:
        """Read every component that the entry names.

        Raises:
            ModelLoadFailed: When one lacks weights, or this machine cannot compute with it.
        """
        return {
            name: self._component(name, component)
            for name, component in self._model.laid_over.items()
            if name != ADAPTER
        }

    def ip_adapter(self) -> AdapterFiles | None:
        """Read the entry's IP-Adapter; None where it names none.

        Raises:
            ModelLoadFailed: See `laid_over`.
        """
        component = self._model.laid_over.get(ADAPTER)
        if component is None:
            return None
        dtype = self._model.dtype
        parts, _ = adapter_parts(f"models.{self._info.name}.components.ip_adapter", component, self._storage, dtype)
        encoder = component_path(parts.image_encoder, parts.encoder_revision, self._storage, dtype)
        return AdapterFiles(
            weights=load_file(component_path(parts.weights, parts.revision, self._storage, dtype)),
            image_encoder=self._from_folder("image_encoder", encoder, ENCODER_CLASS, DTYPES[dtype], None),
        )

    def quantised(self) -> dict[str, Any]:
        """Read the modules of the model's own folder that are quantised.

        Raises:
            ModelLoadFailed: See `laid_over`; also when the folder has no such module.
        """
        own = {name: one for name, one in self._model.quantized.items() if name not in self._model.laid_over}
        if not own:
            return {}
        index = json.loads((self._folder / "model_index.json").read_text())
        modules = {}
        for name, quantize in own.items():
            class_name = (index.get(name) or [None, None])[1]
            if class_name is None:
                raise ModelLoadFailed(f"{self._place(name)}: {self._folder} has no {name}")
            dtype = DTYPES[self._model.dtype]
            modules[name] = self._from_folder(name, self._folder / name, class_name, dtype, quantize)
        return modules

    def quantise_own(self, pipeline: Any) -> None:
        """Quantise modules of a pipeline that were read from the model's one file.

        Raises:
            ModelLoadFailed: See `laid_over`; also when the pipeline has no such module.
        """
        for name, quantize in self._model.quantized.items():
            if name in self._model.laid_over:
                continue
            module = pipeline.components.get(name)
            if module is None:
                raise ModelLoadFailed(f"{self._place(name)}: {type(pipeline).__name__} has no {name}")
            refuse_device(self._place(name), quantize, self._device)
            quantise(module, quantize)
            self._checked(name, module, quantize)

    def _component(self, name: str, component: Component) -> Any:
        dtype_name = component.dtype or self._model.dtype
        path = component_path(component, self._info.component_revisions[name], self._storage, dtype_name)
        class_name = self._info.components[name]
        dtype = DTYPES[dtype_name]
        if component.dtype is None and class_name in FLOAT32_VAES:
            dtype = torch.float32
        quantize = self._model.quantized.get(name)
        if not is_file(component):
            return self._from_folder(name, path, class_name, dtype, quantize)
        config = (
            component_config(component, self._storage)
            if component.config is not None
            else json.loads((self._folder / name / "config.json").read_text())
        )
        return self._from_file(name, path, class_name, config, dtype, quantize)

    def _from_folder(
        self, name: str, folder: Path, class_name: str, dtype: torch.dtype, quantize: Quantize | None
    ) -> Any:
        cls = class_of(class_name)
        if not has_weights(name):
            return cls.from_pretrained(str(folder), local_files_only=True)
        if not (folder / "config.json").is_file():
            raise ModelLoadFailed(f"{folder}: no config.json there")
        module = read_whole(
            cls,
            name,
            folder,
            dtype=dtype,
            use_safetensors=True,
            local_files_only=True,
            **self._quantised(name, cls, dtype, quantize),
        )
        return self._checked(name, module, quantize)

    def _from_file(
        self,
        name: str,
        path: Path,
        class_name: str,
        config: Mapping[str, Any],
        dtype: torch.dtype,
        quantize: Quantize | None,
    ) -> Any:
        cls = class_of(class_name)
        if quantize is not None:
            refuse_device(self._place(name), quantize, self._device)
        if issubclass(cls, transformers.PreTrainedModel):
            module = _from_state_of_transformers(name, cls, path, config, dtype)
        else:
            module = self._from_file_of_diffusers(name, path, cls, config, dtype)
        refuse_lacking(name, path, [key for key, weight in module.named_parameters() if weight.is_meta])
        if quantize is not None:
            quantise(module, quantize)
        return self._checked(name, module, quantize)

    def _from_file_of_diffusers(
        self, name: str, path: Path, cls: Any, config: Mapping[str, Any], dtype: torch.dtype
    ) -> Any:
        if path.suffix == ".gguf":
            refuse_missing(f"models.{self._info.name}.components.{name}", "gguf")
        weights = tensors_in(path)
        is_denoiser = name.startswith(self._info.family.denoiser)
        tensors = tensors_of_denoiser(weights) if is_denoiser else tensors_of_other(name, weights)
        if cls.__name__ == "ControlNetModel":
            tensors = controlnet_in_diffusers_names(tensors, config)
        shapes = {key: shape_of(value) for key, value in tensors.items()}
        if cls.__name__ in SINGLE_FILE_LOADABLE_CLASSES and hasattr(cls, "from_single_file"):
            module = _from_single_file(cls, path, tensors, config, dtype)
        else:
            tensors = in_diffusers_names(cls.__name__, tensors, config)
            module = made_in(cls, dtype).from_config(dict(config)).eval()
            refuse_lacking(name, path, module.load_state_dict(tensors, strict=False).missing_keys)
        refuse_left_over(path, name, shapes, module, "the config.json that describes it")
        return module

    def _quantised(self, name: str, cls: Any, dtype: torch.dtype, quantize: Quantize | None) -> dict[str, Any]:
        """Return the arguments by which a module is quantised as it is read, where it can be on its device."""
        if quantize is None:
            return {}
        refuse_device(self._place(name), quantize, self._device)
        is_diffusers = issubclass(cls, diffusers.ModelMixin)
        options = {"quantization_config": config_of(quantize, dtype, is_diffusers=is_diffusers)}
        is_on_host = self._model.offload != "none" or self._model.offload_text_encoder
        if self._device == "cuda" and not is_on_host:
            options["device_map"] = {"": torch.cuda.current_device()}
        return options

    def _checked(self, name: str, module: Any, quantize: Quantize | None) -> Any:
        if quantize is not None:
            refuse_unquantised(self._place(name), module, quantize)
        return module.eval()

    def _place(self, name: str) -> str:
        return f"models.{self._info.name}.quantize.{name}"


def class_of(class_name: str) -> Any:
    """Return a class of diffusers or transformers, and of no other library.

    Raises:
        ModelLoadFailed: When neither has it.
    """
    # Classes of one family's modules, such as a safety checker, lie beside its pipelines.
    for library in (diffusers, transformers, diffusers.pipelines.stable_diffusion, diffusers.pipelines.ltx2):
        cls = getattr(library, class_name, None)
        if isinstance(cls, type) and hasattr(cls, "from_pretrained"):
            return cls
    raise ModelLoadFailed(f"diffusers and transformers, as they are installed, have no {class_name}")


def _from_single_file(
    cls: Any, path: Path, tensors: dict[str, torch.Tensor], config: Mapping[str, Any], dtype: torch.dtype
) -> Any:
    """Read one file by diffusers' converters, which take one that lacks weights for another program's layout."""
    options: dict[str, Any] = {}
    if path.suffix == ".gguf":
        options = {"dtype": dtype, "quantization_config": diffusers.GGUFQuantizationConfig(compute_dtype=dtype)}
    reader = cls if path.suffix == ".gguf" else made_in(cls, dtype)
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "config.json").write_text(json.dumps(dict(config)))
        try:
            module = reader.from_single_file(tensors, config=folder, local_files_only=True, **options)
        except NotImplementedError as error:  # torch's word for a module that stayed empty
            raise ModelLoadFailed(
                f"{path}: lacks weights that a {cls.__name__} of its config.json has places for; is it another model's?"
            ) from error
        except (*CONVERSION_ERRORS, SingleFileComponentError) as error:
            if failure_kind(error) != "Raised":  # the device's matter, not the file's
                raise
            raise ModelLoadFailed(
                f"{path}: is not read as a {cls.__name__}: {type(error).__name__}: {said_by(error)}; it lacks "
                "weights, or is another model's"
            ) from error
    if path.suffix == ".gguf":
        unpack_outside_linear(module, dtype)
    return module


def _from_state_of_transformers(name: str, cls: Any, path: Path, config: Mapping[str, Any], dtype: torch.dtype) -> Any:
    """Read a text encoder, or an image encoder, from one file in transformers' layout."""
    weights = load_file(path)
    module, found = cls.from_pretrained(
        None,
        config=cls.config_class.from_dict(dict(config)),
        state_dict=behind_prefix(weights, OF_ENCODERS) or weights,
        dtype=dtype,
        output_loading_info=True,
    )
    refuse_lacking(name, path, found["missing_keys"])
    refuse_further_layers(path, name, found["unexpected_keys"], module)
    return module
