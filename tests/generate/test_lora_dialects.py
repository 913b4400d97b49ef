"""A LoRA in any dialect that diffusers converts is attached whole, each module with the change that the file states."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import diffusers
import pytest
import support.toy_clips
import support.toy_models
import support.toy_newer
import torch
from support.toy_loras import ATTENTION, CLIP, layers_of, write_lora

from sdbatch.checkpoints import describe_lora
from sdbatch.checkpoints.lora_modules import strange_keys
from sdbatch.errors import LoraRefused
from sdbatch.families import FAMILIES
from sdbatch.generate.load.loras import LoraFile, attach_lora
from sdbatch.generate.random_weights import make_tiny_random
from sdbatch.job import Lora

RANK, ALPHA, ADAPTER = 4, 2.0, "5d" * 32
Tensors = dict[str, torch.Tensor]
Name = Callable[[str], str]

MAKERS: Mapping[str, Callable[[Path], None]] = {
    "sd": make_tiny_random,
    "sdxl": support.toy_models.make_tiny_sdxl,
    "sd3": support.toy_models.make_tiny_sd3,
    "flux": support.toy_models.make_tiny_flux,
    "klein": support.toy_models.make_tiny_klein,
    "qwen": support.toy_models.make_tiny_qwen,
    "zimage": support.toy_models.make_tiny_zimage,
    "sana": support.toy_models.make_tiny_sana,
    "aura-flow": support.toy_newer.make_tiny_aura_flow,
    "wan": support.toy_clips.make_wan_t2v,
    "wan-i2v": support.toy_clips.make_wan_i2v,
    "ltx": support.toy_clips.make_ltx,
    "ltx2": support.toy_clips.make_ltx2,
}


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    return support.toy_models.folders_of(MAKERS, tmp_path_factory)


@dataclass(frozen=True)
class Dialect:
    """How trainers write the layers of one component.

    Attributes:
        model: Tiny model.
        component: Component that the layers lie in.
        name: Turns a layer's path into the key's stem.
        factors: Names of the two factors.
        has_alpha: Whether an alpha stands beside them; without one a change has the scale 1.
        layers: Endings of the layers' paths.
        fused: Stem of a layer that trainers keep as one, by the paths that diffusers splits it into.
    """

    model: str
    component: str
    name: Name
    factors: tuple[str, str] = ("lora_A.weight", "lora_B.weight")
    has_alpha: bool = False
    layers: tuple[str, ...] = ATTENTION
    fused: Mapping[str, tuple[str, ...]] | None = None


def _kohya(prefix: str) -> Name:
    return lambda path: f"{prefix}_{path.replace('.', '_')}"


def _clip(prefix: str) -> Name:
    return lambda path: _kohya(prefix)(f"text_model.{path.removeprefix('text_model.')}")


def _dotted(prefix: str) -> Name:
    return lambda path: f"{prefix}{path}"


def _processor(prefix: str) -> Name:
    """Name layers as diffusers did until 2023: `attn1.processor.to_q_lora`."""

    def name(path: str) -> str:
        attention, _, layer = path.removesuffix(".0").rpartition(".")
        return f"{prefix}{attention}.processor.{layer}_lora"

    return name


def _wan(path: str) -> str:
    for ours, theirs in (("attn1", "self_attn"), ("attn2", "cross_attn"), ("to_out.0", "o"), ("to_", "")):
        path = path.replace(ours, theirs)
    return path


def _z_image(path: str) -> str:
    return path.replace("to_out.0", "out")


def _flux(path: str) -> str:
    """Name a layer of Flux outside the fused ones as its authors do."""
    names = {"to_out.0": "img_attn_proj", "to_add_out": "txt_attn_proj"}
    return f"lora_unet_double_blocks_0_{names[path.removeprefix('transformer_blocks.0.attn.')]}"


def _flux_dotted(prefix: str) -> Name:
    """Name a layer of Flux outside the fused ones as its authors do, behind a trainer's prefix."""
    return lambda path: f"{prefix}double_blocks.0.{FLUX_NAMES[path.removeprefix('transformer_blocks.0.attn.')]}"


def _fused(prefix: str) -> Mapping[str, tuple[str, ...]]:
    return {f"{prefix}double_blocks.0.{name}_attn.qkv": paths for name, paths in (("img", IMAGE), ("txt", TEXT))}


FLUX_NAMES = {"to_out.0": "img_attn.proj", "to_add_out": "txt_attn.proj"}
KOHYA = ("lora_down.weight", "lora_up.weight")
OLD = ("down.weight", "up.weight")
OF_2023 = ("lora.down.weight", "lora.up.weight")
OF_ADAPTER = ("lora_A.default.weight", "lora_B.default.weight")
DOUBLE = "transformer_blocks.0.attn."
IMAGE, TEXT = (tuple(DOUBLE + name.format(one) for one in "qkv") for name in ("to_{}", "add_{}_proj"))
FLUX_FUSED = {"lora_unet_double_blocks_0_img_attn_qkv": IMAGE, "lora_unet_double_blocks_0_txt_attn_qkv": TEXT}
XLABS_FUSED = {"double_blocks.0.processor.qkv_lora1": IMAGE, "double_blocks.0.processor.qkv_lora2": TEXT}
XLABS = {f"{DOUBLE}to_out.0": "proj_lora1", f"{DOUBLE}to_add_out": "proj_lora2"}
PROJECTIONS = (f"{DOUBLE}to_out.0", f"{DOUBLE}to_add_out")

DIFFUSION = "diffusion_model."
Z_IMAGE_FUSED = {
    f"{DIFFUSION}layers.0.attention.qkv": tuple(f"layers.0.attention.to_{name}" for name in "qkv"),
}

DIALECTS = {
    "sd kohya": Dialect("sd", "unet", _kohya("lora_unet"), KOHYA, True),
    "sd kohya text": Dialect("sd", "text_encoder", _clip("lora_te"), KOHYA, True, CLIP),
    "sd diffusers": Dialect("sd", "unet", _dotted("unet."), ("lora.down.weight", "lora.up.weight")),
    "sd diffusers of 2023": Dialect("sd", "unet", _processor("unet."), OLD),
    "sd peft": Dialect("sd", "unet", _dotted("unet.")),
    "sd peft with alpha": Dialect("sd", "unet", _dotted("unet."), has_alpha=True),
    "sd peft text": Dialect("sd", "text_encoder", lambda path: f"text_encoder.text_model.{path}", layers=CLIP),
    "sdxl kohya": Dialect("sdxl", "unet", _kohya("lora_unet"), KOHYA, True),
    "sdxl kohya text 1": Dialect("sdxl", "text_encoder", _clip("lora_te1"), KOHYA, True, CLIP),
    "sdxl kohya text 2": Dialect("sdxl", "text_encoder_2", _clip("lora_te2"), KOHYA, True, CLIP),
    "sdxl peft": Dialect("sdxl", "unet", _dotted("unet.")),
    "sd3 peft": Dialect("sd3", "transformer", _dotted("transformer.")),
    "sd3 peft with alpha": Dialect("sd3", "transformer", _dotted("transformer."), has_alpha=True),
    "sd3 peft text": Dialect("sd3", "text_encoder_2", _dotted("text_encoder_2."), layers=CLIP),
    "flux peft": Dialect("flux", "transformer", _dotted("transformer.")),
    "flux kohya": Dialect("flux", "transformer", _flux, KOHYA, True, PROJECTIONS, FLUX_FUSED),
    "flux kohya text": Dialect("flux", "text_encoder", _clip("lora_te1"), KOHYA, True, CLIP),
    "flux xlabs": Dialect(
        "flux",
        "transformer",
        lambda path: f"double_blocks.0.processor.{XLABS[path]}",
        OLD,
        False,
        PROJECTIONS,
        XLABS_FUSED,
    ),
    "klein peft": Dialect("klein", "transformer", _dotted("transformer.")),
    "klein with alpha": Dialect("klein", "transformer", _dotted("diffusion_model."), has_alpha=True),
    "qwen peft": Dialect("qwen", "transformer", _dotted("transformer.")),
    "qwen kohya": Dialect("qwen", "transformer", _kohya("lora_unet"), KOHYA, True),
    "qwen of its authors": Dialect("qwen", "transformer", _dotted("diffusion_model."), KOHYA, True),
    "z-image peft": Dialect("zimage", "transformer", _dotted("transformer.")),
    "sana peft": Dialect("sana", "transformer", _dotted("transformer.")),
    "aura flow peft": Dialect("aura-flow", "transformer", _dotted("transformer.")),
    "wan peft": Dialect("wan", "transformer", _dotted("transformer.")),
    "wan of its authors": Dialect("wan", "transformer", lambda path: f"diffusion_model.{_wan(path)}"),
    "wan with alpha": Dialect("wan", "transformer", lambda path: f"diffusion_model.{_wan(path)}", KOHYA, True),
    "wan musubi": Dialect(
        "wan",
        "transformer",
        lambda path: _kohya("lora_unet")(_wan(_ffn(path))),
        KOHYA,
        True,
        (*ATTENTION, "net.0.proj", "net.2"),
    ),
    "wan text on image": Dialect("wan-i2v", "transformer", _dotted("transformer.")),
    "ltx peft": Dialect("ltx", "transformer", _dotted("transformer.")),
    "ltx of its authors": Dialect("ltx", "transformer", _dotted("diffusion_model.")),
    "ltx with alpha": Dialect("ltx", "transformer", _dotted("diffusion_model."), has_alpha=True),
    "ltx-2 peft": Dialect("ltx2", "transformer", _dotted("transformer.")),
    "qwen peft with alpha": Dialect("qwen", "transformer", _dotted("transformer."), has_alpha=True),
    "qwen peft, kohya's factors": Dialect("qwen", "transformer", _dotted("transformer."), KOHYA, True),
    "z-image peft with alpha": Dialect("zimage", "transformer", _dotted("transformer."), has_alpha=True),
    "z-image peft, kohya's factors": Dialect("zimage", "transformer", _dotted("transformer."), KOHYA, True),
    "sd3 behind a model's prefix": Dialect("sd3", "transformer", _dotted("model.diffusion_model."), has_alpha=True),
    "sd3 of diffusers with alpha": Dialect("sd3", "transformer", _dotted("transformer."), OF_2023, True),
    "sdxl of diffusers with alpha": Dialect("sdxl", "unet", _dotted("unet."), OF_2023, True),
    "ltx flat, diffusers' factors": Dialect("ltx", "transformer", _kohya("lora_unet"), OF_2023, True),
    "qwen bare, diffusers' factors": Dialect("qwen", "transformer", _dotted(""), OF_2023),
    "sd3 bare": Dialect("sd3", "transformer", _dotted("")),
    "sd3 of trainers": Dialect("sd3", "transformer", _dotted("diffusion_model."), KOHYA, True),
    "sd3 flat": Dialect("sd3", "transformer", _kohya("lora_transformer"), KOHYA, True),
    "sdxl bare": Dialect("sdxl", "unet", _dotted(""), has_alpha=True),
    "flux bare": Dialect("flux", "transformer", _dotted(""), KOHYA, True),
    "flux of an adapter": Dialect("flux", "transformer", _dotted("transformer."), OF_ADAPTER),
    "ltx flat": Dialect("ltx", "transformer", _kohya("lora_unet"), KOHYA, True),
    "flux of its authors": Dialect(
        "flux", "transformer", _flux_dotted(DIFFUSION), layers=PROJECTIONS, fused=_fused(DIFFUSION)
    ),
    "flux of its authors with alpha": Dialect(
        "flux", "transformer", _flux_dotted(""), OF_ADAPTER, True, PROJECTIONS, _fused("")
    ),
    "flux of its authors, kohya's factors": Dialect(
        "flux", "transformer", _flux_dotted("transformer."), KOHYA, True, PROJECTIONS, _fused("transformer.")
    ),
    "flux of its authors by peft": Dialect(
        "flux",
        "transformer",
        _flux_dotted("base_model.model."),
        layers=PROJECTIONS,
        fused=_fused("base_model.model."),
    ),
    "klein of its authors": Dialect(
        "klein", "transformer", _flux_dotted("transformer."), layers=PROJECTIONS, fused=_fused("transformer.")
    ),
    "klein of its authors with alpha": Dialect(
        "klein", "transformer", _flux_dotted(DIFFUSION), KOHYA, True, PROJECTIONS, _fused(DIFFUSION)
    ),
    "klein by peft": Dialect("klein", "transformer", _dotted("base_model.model."), layers=(*ATTENTION, "linear")),
    "klein flat": Dialect(
        "klein",
        "transformer",
        _flux,
        layers=PROJECTIONS,
        fused=FLUX_FUSED,
    ),
    "z-image of its authors": Dialect(
        "zimage", "transformer", lambda path: f"{DIFFUSION}{_z_image(path)}", layers=("to_out.0",), fused=Z_IMAGE_FUSED
    ),
    "z-image of its authors with alpha": Dialect(
        "zimage",
        "transformer",
        lambda path: f"{DIFFUSION}{_z_image(path)}",
        KOHYA,
        True,
        ("to_out.0",),
        Z_IMAGE_FUSED,
    ),
    "wan behind transformer": Dialect("wan", "transformer", lambda path: f"transformer.{_wan(path)}", KOHYA, True),
    "wan musubi, attention alone": Dialect("wan", "transformer", lambda path: _kohya("lora_unet")(_wan(path)), KOHYA),
    "wan bare": Dialect("wan", "transformer", _wan, OF_ADAPTER),
}


def _ffn(path: str) -> str:
    return path.replace("ffn.net.0.proj", "ffn.0").replace("ffn.net.2", "ffn.2")


def _file_of(dialect: Dialect, pipeline: Any) -> tuple[Tensors, Tensors]:
    """Return a LoRA's tensors, and the change of every module's weight that they state."""
    torch.manual_seed(3)
    module = getattr(pipeline, dialect.component)
    fused = dialect.fused or {}
    parts = {part for paths in fused.values() for part in paths}
    stems: dict[str, tuple[str, ...]] = {
        dialect.name(path): (path,) for path in layers_of(module, dialect.layers) if path not in parts
    }
    stems |= fused
    scale = ALPHA / RANK if dialect.has_alpha else 1.0
    tensors: Tensors = {}
    changes: Tensors = {}
    for stem, paths in stems.items():
        layers = [module.get_submodule(path) for path in paths]
        down = torch.randn(RANK, layers[0].in_features)
        ups = [torch.randn(layer.out_features, RANK) for layer in layers]
        tensors |= {f"{stem}.{dialect.factors[0]}": down, f"{stem}.{dialect.factors[1]}": torch.cat(ups)}
        if dialect.has_alpha:
            tensors[f"{stem}.alpha"] = torch.tensor(ALPHA)
        changes |= {path: scale * up @ down for path, up in zip(paths, ups, strict=True)}
    return tensors, changes


def _changes(module: Any) -> Tensors:
    """Return the change of every module's weight that is attached and felt."""
    changes = {
        path: layer.get_delta_weight(ADAPTER).detach()
        for path, layer in module.named_modules()
        if ADAPTER in getattr(layer, "scaling", {})
    }
    return {path: change for path, change in changes.items() if change.count_nonzero()}


@pytest.mark.fault("F12", "a good LoRA in any dialect that diffusers converts", "attached whole, as the file states it")
@pytest.mark.parametrize("name", DIALECTS)
def test_every_module_gets_the_change_that_the_file_states(
    name: str, folders: Callable[[str], Path], tmp_path: Path
) -> None:
    dialect = DIALECTS[name]
    pipeline = diffusers.DiffusionPipeline.from_pretrained(str(folders(dialect.model)))
    tensors, stated = _file_of(dialect, pipeline)
    assert stated

    file = write_lora(tmp_path / "l.safetensors", tensors)
    attach_lora(pipeline, LoraFile(name="ink", path=file), ADAPTER)

    looked_into = Lora(path=str(tmp_path), weight_name=file.name, base=type(pipeline).__name__)

    assert not describe_lora("ink", looked_into, {}).left_out
    attached = _changes(getattr(pipeline, dialect.component))
    assert attached.keys() == stated.keys()
    assert max(float((attached[path] - stated[path]).abs().max()) for path in stated) < 1e-5
    assert "lora_state_dict" not in vars(pipeline), "the pipeline's own loader is not back"


@pytest.mark.parametrize("name", ["sd3", "flux", "klein", "qwen", "zimage", "sana", "aura-flow", "wan", "ltx", "ltx2"])
def test_the_table_of_modules_knows_those_of_the_denoiser(name: str, folders: Callable[[str], Path]) -> None:
    pipeline = diffusers.DiffusionPipeline.from_pretrained(str(folders(name)))
    title = next(title for title, one in FAMILIES.items() if one.class_name == type(pipeline).__name__)
    layers = (torch.nn.Linear, torch.nn.Conv2d, torch.nn.Conv3d, torch.nn.Embedding)
    paths = [path for path, layer in pipeline.transformer.named_modules() if isinstance(layer, layers)]

    assert strange_keys([f"transformer.{path}.lora_A.weight" for path in paths], title) == []
    assert len(strange_keys([f"transformer.x{path}.lora_A.weight" for path in paths], title)) == len(paths)


@pytest.mark.fault("F12", "DoRA in peft's dialect, which peft applies", "applied as plain diffusers applies it")
@pytest.mark.parametrize("ending", ["", ".weight"])
def test_dora_that_peft_knows_is_applied_with_its_magnitudes(
    ending: str, folders: Callable[[str], Path], tmp_path: Path
) -> None:
    ours, plain = (diffusers.DiffusionPipeline.from_pretrained(str(folders("sd"))) for _ in range(2))
    layers = layers_of(ours.unet)
    tensors, _ = _file_of(DIALECTS["sd peft"], ours)
    tensors |= {
        f"unet.{path}.lora_magnitude_vector{ending}": torch.rand(shape[1]) + 1.0 for path, shape in layers.items()
    }
    file = write_lora(tmp_path / "l.safetensors", tensors)

    attach_lora(ours, LoraFile(name="ink", path=file), ADAPTER)
    plain.load_lora_weights(str(tmp_path), weight_name=file.name, adapter_name=ADAPTER)

    for path, (inputs, _) in layers.items():
        values = torch.randn(3, inputs)
        one, two, base = (pipeline.unet.get_submodule(path) for pipeline in (ours, plain, ours))
        assert one.use_dora[ADAPTER], path
        assert torch.equal(one(values), two(values)), path
        assert not torch.allclose(one(values), base.base_layer(values)), path


def test_a_bias_that_some_modules_of_wan_have_leaves_the_others_as_they_are(
    folders: Callable[[str], Path], tmp_path: Path
) -> None:
    """peft makes one for each module; plain diffusers leaves the others without memory, and no row runs."""
    ours, plain = (diffusers.DiffusionPipeline.from_pretrained(str(folders("wan"))) for _ in range(2))
    tensors, stated = _file_of(DIALECTS["wan of its authors"], ours)
    bias = torch.randn(ours.transformer.blocks[0].attn1.to_q.out_features)
    file = write_lora(tmp_path / "l.safetensors", {**tensors, "diffusion_model.blocks.0.self_attn.q.diff_b": bias})

    attach_lora(ours, LoraFile(name="ink", path=file), ADAPTER)
    plain.load_lora_weights(str(tmp_path), weight_name=file.name, adapter_name=ADAPTER)

    def biases(pipeline: Any) -> Tensors:
        named = pipeline.transformer.named_parameters()
        return {name.partition(".lora_B")[0]: value for name, value in named if name.endswith(f"lora_B.{ADAPTER}.bias")}

    assert any(value.is_meta for value in biases(plain).values()), "the trap is gone"
    found = biases(ours)
    assert found.keys() == stated.keys()
    assert torch.equal(found.pop("blocks.0.attn1.to_q"), bias)
    assert not any(value.count_nonzero() for value in found.values())


def _lokr(stem: str, alpha: float | None = None) -> Tensors:
    """Return LoKr factors of a layer of 32 inputs and 32 outputs."""
    tensors = {f"{stem}.lokr_w1": torch.randn(4, 4), f"{stem}.lokr_w2": torch.randn(8, 8)}
    return tensors if alpha is None else tensors | {f"{stem}.alpha": torch.tensor(alpha)}


@pytest.mark.fault("F12", "LoKr in LyCORIS' dialect on Flux.2 Klein", "applied as plain diffusers applies it")
def test_lokr_that_diffusers_knows_is_applied(folders: Callable[[str], Path], tmp_path: Path) -> None:
    ours, plain = (diffusers.DiffusionPipeline.from_pretrained(str(folders("klein"))) for _ in range(2))
    tensors: Tensors = {}
    for layer in "qkv":
        tensors |= _lokr(f"lycoris_transformer_blocks_0_attn_to_{layer}", 4.0)
    file = write_lora(tmp_path / "l.safetensors", tensors)

    attach_lora(ours, LoraFile(name="ink", path=file), ADAPTER)
    plain.load_lora_weights(str(tmp_path), weight_name=file.name, adapter_name=ADAPTER)

    values = torch.randn(3, 32)
    for layer in "qkv":
        one, two = (pipe.transformer.get_submodule(f"transformer_blocks.0.attn.to_{layer}") for pipe in (ours, plain))
        assert torch.equal(one(values), two(values))
        assert not torch.allclose(one(values), one.base_layer(values))


@pytest.mark.fault(
    "F12", "LoKr over joined projections, for which diffusers would rebuild the model", "refused by name"
)
def test_lokr_that_would_change_the_model_for_all_rows_is_refused(
    folders: Callable[[str], Path], tmp_path: Path
) -> None:
    pipeline = diffusers.DiffusionPipeline.from_pretrained(str(folders("klein")))
    before = [name for name, _ in pipeline.transformer.named_modules()]
    file = write_lora(tmp_path / "l.safetensors", _lokr("transformer.transformer_blocks.0.attn.to_qkv"))

    with pytest.raises(LoraRefused, match=r"LoRA ink .* fit no module of the model \(.*to_qkv.lokr_w1"):
        attach_lora(pipeline, LoraFile(name="ink", path=file), ADAPTER)
    assert [name for name, _ in pipeline.transformer.named_modules()] == before
