"""Describes a model folder from its own files, without torch.

    job's models --> describe()      --> ModelInfo (family, native size, identity of the content)
    job's loras  --> describe_lora() --> LoraInfo (identity of the content)

A folder is diffusers' own layout: model_index.json beside one folder per component. Its identity goes into every
request key, so a changed weight makes every asset of that model anew. A stated revision is believed here; whether the
files are those of a stated content digest is looked at where they are loaded (`sdbatch.generate.load`).
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from sdbatch.checkpoints.bounds import bounded
from sdbatch.checkpoints.builtins import BUILTINS, SHIPPED, SHIPPED_DEFAULTS, builtin_folder
from sdbatch.checkpoints.components import (
    LaidOver,
    config_file,
    expected_class,
    folder_config,
    has_weights,
    is_file,
    look_into,
    method_of,
    modules_of,
    naming,
    place_of,
)
from sdbatch.checkpoints.embeddings import describe_embeddings
from sdbatch.checkpoints.entries import refuse_accelerators
from sdbatch.checkpoints.facts import facts_of, native_size, own_guidance
from sdbatch.checkpoints.files import (
    content_revision,
    lora_files,
    model_files,
    named_components,
    read_json,
    variant_in,
)
from sdbatch.checkpoints.fitting import refuse_misfit, refuse_other_prediction, refuse_unscaled
from sdbatch.checkpoints.headers import Header, read_headers
from sdbatch.checkpoints.identity import identity, is_content_digest
from sdbatch.checkpoints.indexes import faults_of_index, refuse_other_inputs, refuse_other_noise
from sdbatch.checkpoints.info import LoraInfo, ModelInfo
from sdbatch.checkpoints.ip_adapters import ADAPTER, look_into_adapter
from sdbatch.checkpoints.lacks import faults_of_model, faults_of_numbers
from sdbatch.checkpoints.lora_forms import left_out, misplaced, unscaled
from sdbatch.checkpoints.lora_modules import misfit
from sdbatch.checkpoints.parameters import num_parameters, stored_dtype
from sdbatch.checkpoints.quantizing import refuse_quantize
from sdbatch.checkpoints.refusals import refuse_code, refuse_libraries
from sdbatch.checkpoints.single_files import describe_file, is_single_file
from sdbatch.errors import ModelError
from sdbatch.families import FAMILIES, find_family, not_served, routes_unserved
from sdbatch.families.scheduler_options import REQUIRES, zero_snr_schedulers
from sdbatch.families.schedulers import SAY_NO_SHIFT
from sdbatch.hints import did_you_mean
from sdbatch.job import Lora, Model, Storage, base_of
from sdbatch.storage import Entry, Store, open_store, parse_url


def describe(name: str, model: Model, storage: Mapping[str, Storage], *, with_revision: bool = True) -> ModelInfo:
    """Look into one model folder, or take what the job states of it.

    Args:
        name: Name in the job's `models`.
        model: The job's entry.
        storage: The job's options by URL prefix.
        with_revision: Digest the files too where no revision is stated, which reads every weight on a local disk once
            (remembered afterwards).

    Raises:
        ModelError: When there is no such folder, or its class is in no family row.
    """
    if not is_single_file(model.path):
        for option in ("like", "config"):
            if getattr(model, option) is not None:
                raise ModelError(
                    f"models.{name}.{option}: is for a model in one file, and {model.path} is a folder; leave it out"
                )
    if model.path.startswith("builtin:"):
        info = _describe_builtin(name, model, storage, with_revision)
    elif is_single_file(model.path):
        info = describe_file(name, model, storage, with_revision=with_revision)
    elif model.family is not None:
        info = _describe_stated(name, model, model.family)
    else:
        info = _describe_folder(name, model, storage, with_revision)
    found = dict(_components(name, info, storage, with_revision))
    _refuse_misfits(name, info, found, storage)
    _refuse_no_checker(name, info, found)
    refuse_accelerators(name, model, info.family)
    classes = {module: one.class_name for module, one in found.items()}
    already = {**info.quantized_by, **{module: one.quantized_by for module, one in found.items() if one.quantized_by}}
    refuse_quantize(name, info.options, info.family, info.modules, already, classes)
    embeddings = describe_embeddings(
        name,
        model,
        info.family,
        lambda module: _own_config(info, module, storage),
        storage,
        with_revision=with_revision,
    )
    denoiser = found.get(info.family.denoiser)
    scheduler = _config_of(info, "scheduler", found, storage) or {}
    info = replace(
        info,
        base_revision=info.revision,
        components=classes,
        component_revisions={module: one.revision for module, one in found.items()},
        net_configs={module: one.config for module, one in found.items() if base_of(module) == "controlnet"},
        is_pinned=info.is_pinned
        and all(one.is_pinned for one in found.values())
        and all(one.is_pinned for one in embeddings.values()),
        embeddings={word: one.revision for word, one in embeddings.items()},
        embedding_vectors={word: one.num_vectors for word, one in embeddings.items()},
        **_of_scheduler(info, classes.get("scheduler") or info.scheduler, scheduler),
        parameters=denoiser.parameters if denoiser is not None else info.parameters,
        module_parameters={
            **info.module_parameters,
            **{module: one.parameters for module, one in found.items() if one.parameters},
        },
        quantized_by={**already, **{module: one.backend for module, one in model.quantized.items()}},
    )
    family = bounded(info.family, found, lambda module: _config_of(info, module, found, storage))
    # Request keys of version 1 take the digest of the folder and its components as one.
    return replace(info, family=family, revision=info.combined_revision)


def _components(
    name: str, info: ModelInfo, storage: Mapping[str, Storage], with_revision: bool
) -> Iterator[tuple[str, LaidOver]]:
    """Yield every component of an entry, looked into."""
    model = info.options
    for module, component in model.laid_over.items():
        place = place_of(name, module, is_top=module not in model.components)
        if module == "safety_checker" and not model.safety_checker:
            raise ModelError(f"{place}: the checker is left out; say safety_checker: true")
        if module == ADAPTER:
            own_config = _own_config(info, info.family.denoiser, storage)
            yield (
                module,
                look_into_adapter(
                    place, component, model, info.family, own_config, storage, with_revision=with_revision
                ),
            )
            continue
        yield (
            module,
            look_into(
                place,
                module,
                component,
                dtype=component.dtype or model.dtype,
                expected=expected_class(place, module, info.family, info.modules),
                own_config=_own_config(info, module, storage) if is_file(component) else None,
                schedulers=info.family.schedulers,
                storage=storage,
                with_revision=with_revision,
            ),
        )


def _refuse_misfits(name: str, info: ModelInfo, found: Mapping[str, LaidOver], storage: Mapping[str, Storage]) -> None:
    """Refuse components whose sizes are not those that the other modules were made for."""

    def own(module: str) -> Mapping[str, Any] | None:
        return _config_of(info, module, {} if module == asked else found, storage)

    if "vae" in info.modules and "vae" not in found:
        config = _own_config(info, "vae", storage) or {}
        refuse_unscaled(f"models.{name}.path: {info.path}: vae", info.modules["vae"][1], config, info.family)
    for asked, one in found.items():
        component = info.options.laid_over[asked]
        place = place_of(name, asked, is_top=asked not in info.options.components)
        if asked == info.family.denoiser and not _says_predictions(info.options):
            refuse_other_prediction(f"{place}: {component.path}", one.predicts, own("scheduler") or {})
        if asked == "scheduler":
            refuse_other_noise(f"{place}: {component.path}", info.family, one.class_name, one.config)
        if has_weights(asked) and asked != ADAPTER:
            refuse_misfit(f"{place}: {component.path}", asked, one.class_name, one.config, info.family, own, found)


def _refuse_no_checker(name: str, info: ModelInfo, found: Collection[str]) -> None:
    """Refuse a model that is to be asked for its safety checker and has none, or nothing that prepares its pictures."""
    if not info.options.safety_checker or info.options.family is not None:  # a stated family leaves the folder unread
        return
    for module in ("safety_checker", "feature_extractor"):
        if module not in found and info.modules.get(module, (None, None))[1] is None:
            can_take = "safety_checker" in info.modules
            remedy = f"name a folder as components.{module}" if can_take else "let the stage `safety` of `after` judge"
            raise ModelError(
                f"models.{name}.safety_checker: {info.path} has no {module}, so that nothing would be blanked; "
                f"{remedy}, or leave it out"
            )


def _config_of(
    info: ModelInfo, module: str, found: Mapping[str, LaidOver], storage: Mapping[str, Storage]
) -> Mapping[str, Any] | None:
    """Return the configuration of a module, a component's where one is laid over it; None where none is known."""
    if module in found:
        return found[module].config
    return _own_config(info, module, storage) if info.modules else None  # a stated family leaves the folder unread


def _of_scheduler(info: ModelInfo, class_name: str, config: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a model's own scheduler says of it, by the names in `ModelInfo`."""
    zero_snr = zero_snr_schedulers(info.family.schedulers)
    pipelines = {route.pipeline for route in info.family.routes}
    needing = (class_name, *(key for key, value in config.items() if value is True))
    return {
        "ends_in_noise": bool(zero_snr) and config.get("rescale_betas_zero_snr") is True,
        "shifts_by_size": not SAY_NO_SHIFT.isdisjoint(pipelines) and config.get("use_dynamic_shifting") is True,
        "has_own_noise": len(info.family.schedulers) > 1 and config.get("timestep_type") == "continuous",
        "scheduler_requires": tuple(sorted({REQUIRES[name] for name in needing if name in REQUIRES})),
    }


def _says_predictions(model: Model) -> bool:
    """Whether a preset of the entry says what its rows' model predicts."""
    return any("prediction_type" in preset for preset in model.schedulers.values())


def _own_config(info: ModelInfo, module: str, storage: Mapping[str, Storage]) -> Mapping[str, Any] | None:
    """Return the configuration that a model's own folder has of a module; None where it has none, or none is known."""
    title = info.path.removeprefix("builtin:")
    if title in BUILTINS and title != info.path:
        path = builtin_folder(title)
    elif info.single_file is not None:
        path = info.single_file.configs
    else:
        path = str(SHIPPED[title]) if title in SHIPPED and title != info.path else info.path
    try:
        return read_json(open_store(path, storage), f"{module}/{config_file(module)}", info.path)
    except ModelError:
        return None


def with_dtype(name: str, model: Model, storage: Mapping[str, Storage]) -> Model:
    """Return an entry whose dtype is looked up in its folder where it is `auto`."""
    return model if model.dtype != "auto" else describe(name, model, storage, with_revision=False).options


def describe_lora(name: str, lora: Lora, storage: Mapping[str, Storage], *, with_revision: bool = True) -> LoraInfo:
    """Look into one entry of the job's `loras`. See `describe`.

    Raises:
        ModelError: When its file is not there, or it is for no family served.
    """
    store = open_store(parse_url(lora.path).url, storage)
    try:
        entries = lora_files(store, lora.weight_name)
    except ModelError as error:
        raise ModelError(f"loras.{name}: {error}") from error
    read = read_headers(store, entries)
    _refuse(f"loras.{name}", [str(fault) for fault in read.values() if not isinstance(fault, Header)])
    headers = {path: header for path, header in read.items() if isinstance(header, Header)}
    keys = [key for header in headers.values() for key in header.tensors]
    bases = [family for family in FAMILIES.values() if lora.base in {family.title, family.class_name}]
    if not bases:
        raise ModelError(f"loras.{name}: base {lora.base!r} is not a family; there are {', '.join(FAMILIES)}")
    title, is_partial = bases[0].title, lora.partial == "allow"
    if lora.revision is not None:
        revision = identity(lora.revision, file=lora.weight_name)
    else:
        revision = content_revision(store, entries) if with_revision else ""
    # The same weights in the other denoiser give other pixels.
    is_second = lora.load_into_transformer_2
    named = hashlib.sha256(f"{revision}\ntransformer_2".encode()).hexdigest() if is_second and revision else revision
    misfits = (misfit(header, store, path, title, partial=is_partial) for path, header in headers.items())
    info = LoraInfo(
        name=name,
        base=lora.base,
        revision=named,
        is_pinned=_is_pinned(lora, store),
        weights_revision=revision,
        is_second=is_second,
        left_out=left_out(keys, partial=is_partial) or next(filter(None, misfits), ""),
    )
    shapes = {key: tensor["shape"] for header in headers.values() for key, tensor in header.tensors.items()}
    if fault := misplaced(shapes, title, bases[0].denoiser) or unscaled(shapes, title):
        raise ModelError(f"loras.{name}: {store.url}/{lora.weight_name} {fault}")
    if not any(info.fits(family) for family in bases):
        able = ", ".join(title for title, family in FAMILIES.items() if family.has_second_denoiser)
        raise ModelError(f"loras.{name}.load_into_transformer_2: {lora.base!r} has one denoiser; two have {able}")
    return info


def _revision(entry: Model, store: Store, entries: list[Entry], with_revision: bool) -> str:
    """Return the identity of a folder: the stated revision, else that of its files."""
    if entry.revision is not None:
        return identity(entry.revision, variant=variant_in(entry.path for entry in entries))
    return content_revision(store, entries) if with_revision else ""


def _is_pinned(entry: Model | Lora, store: Store) -> bool:
    return entry.revision is not None or store.is_local


def _refuse(place: str, faults: Sequence[str]) -> None:
    if faults:
        raise ModelError("\n".join(f"{place}: {fault}" for fault in faults))


def _describe_folder(name: str, model: Model, storage: Mapping[str, Storage], with_revision: bool) -> ModelInfo:
    location = parse_url(model.path)
    store = open_store(location.url, storage)
    index = _index(store, f"models.{name}: {location.url}")
    fact = facts_of(index, lambda file: _config(store, file, name, model, storage))
    class_name = index.get("_class_name")
    if not isinstance(class_name, str):
        raise ModelError(f"models.{name}: {location.url}/model_index.json names no _class_name; copy the file again")
    family = find_family(class_name, fact)
    if family is None:
        if reason := not_served(class_name, fact):
            raise ModelError(f"models.{name}: {location.url} is a {class_name} with {reason}, which is not served")
        served = sorted({family.class_name for family in FAMILIES.values()})
        raise ModelError(f"models.{name}: {location.url} is a {class_name}; families served: {', '.join(served)}")
    with naming(f"models.{name}"):
        entries = model_files(store, index, model)
    refuse_libraries(index, f"models.{name}: {location.url}/model_index.json")
    refuse_code(store, entries, f"models.{name}: {location.url}")
    headers = read_headers(store, entries)
    # diffusers does not read a checker that the job does not ask for, and many a folder lacks it.
    unread = {*model.components, *(() if model.safety_checker else ("safety_checker",))}
    _refuse(f"models.{name}: {location.url}/model_index.json", [*faults_of_index(index, family, unread)])
    _refuse(f"models.{name}", faults_of_model(store, index, entries, headers, unread))
    by_module: dict[str, list[Header]] = {}
    for path, header in headers.items():
        if isinstance(header, Header):
            by_module.setdefault(path.partition("/")[0], []).append(header)
    methods = {
        module: method_of(_config_if_there(store, entries, module))
        for module in sorted(named_components(index) - unread)
        if has_weights(module)
    }
    for module, method in methods.items():
        of_module = {path: header for path, header in headers.items() if path.startswith(f"{module}/")}
        _refuse(f"models.{name}", faults_of_numbers(store, of_module, method))
    denoiser = by_module.get(family.denoiser, [])
    if model.dtype == "auto":
        if family.denoiser in model.components:
            raise ModelError(
                f"models.{name}.dtype: auto is read from the model's own {family.denoiser}, and another is laid over "
                "it; say float32, float16 or bfloat16"
            )
        # The files are chosen by the numbers that were found, as they are wherever those are said.
        found = model.model_copy(update={"dtype": stored_dtype(denoiser)})
        return _describe_folder(name, found, storage, with_revision)
    refuse_other_inputs(f"models.{name}: {location.url}", family, fact, model.components)
    with naming(f"models.{name}: {location.url}"):
        height, width = native_size(family, fact)
    return ModelInfo(
        name=name,
        path=location.url,
        family=family,
        revision=_revision(model, store, entries, with_revision),
        is_pinned=_is_pinned(model, store),
        height=height,
        width=width,
        parameters=num_parameters(denoiser),
        options=model,
        modules=modules_of(index),
        module_parameters={module: num_parameters(of_module) for module, of_module in by_module.items()},
        quantized_by={module: method for module, method in methods.items() if method},
        defaults=own_guidance(family, fact),
        unserved=routes_unserved(family, fact),
    )


def _index(store: Store, place: str) -> dict[str, Any]:
    """Return the model_index.json of a folder; where there is none, say what the folder is instead."""
    try:
        return read_json(store, "model_index.json", place)
    except ModelError as error:
        if not isinstance(error.__cause__, OSError):  # it is there, and is not as it should be
            raise
        paths = sorted(entry.path for entry in store.list("", deep=False))
        files = [path for path in paths if path.endswith(".safetensors")]
        inside = sorted(entry.path for entry in store.list("snapshots")) if not paths else []
        if not store.list(""):
            hint = "the folder is missing or empty; a hub's model is fetched first (`hf download NAME --local-dir DIR`)"
        elif inside:
            hint = f"a hub's cache has it in {'/'.join(inside[0].split('/')[:2])}; name that folder"
        elif "config.json" in paths:
            hint = "it is one module of a model; name the folder that it lies in, or it as a component"
        elif files:
            hint = f"for a model in one file name the file, such as {store.url}/{files[0]}"
        else:
            raise
        raise ModelError(f"{place}: no model_index.json there; {hint}") from error


def _config(store: Store, file: str, name: str, model: Model, storage: Mapping[str, Storage]) -> dict[str, Any]:
    """Return a configuration of a model: that of a module's component, where one is laid over it."""
    module, _, tail = file.partition("/")
    component = model.components.get(module)
    folder = component and (component.config if is_file(component) else component.path)
    if not folder or tail != "config.json":
        return read_json(store, file, store.url)
    other = open_store(parse_url(folder).url, storage)
    return folder_config(other, module, f"models.{name}.components.{module}: {other.url}")


def _config_if_there(store: Store, entries: Sequence[Entry], module: str) -> dict[str, Any]:
    path = f"{module}/config.json"
    return read_json(store, path, store.url) if any(entry.path == path for entry in entries) else {}


def _describe_stated(name: str, model: Model, title: str) -> ModelInfo:
    """Return what the job says of a model whose folder lies elsewhere; a worker's load looks whether it is so."""
    family = FAMILIES.get(title)
    if family is None:
        hint = did_you_mean(title, FAMILIES) or f"there are {', '.join(FAMILIES)}"
        raise ModelError(f"models.{name}.family: {title!r} is not a family; {hint}")
    if model.dtype == "auto":
        raise ModelError(f"models.{name}.dtype: auto is read from the folder, and a stated family leaves it unread")
    height = model.defaults.height or family.defaults.get("height")
    width = model.defaults.width or family.defaults.get("width")
    if height is None or width is None:
        raise ModelError(f"models.{name}: {title} has no size of its own; say defaults.height and defaults.width")
    return ModelInfo(
        name=name,
        path=parse_url(model.path).url,
        family=family,
        revision=identity(model.revision or "", variant=None if model.variant == "auto" else model.variant),
        height=height,
        width=width,
        parameters=0,
        options=model,
    )


def _describe_builtin(name: str, model: Model, storage: Mapping[str, Storage], with_revision: bool) -> ModelInfo:
    title = model.path.removeprefix("builtin:")
    if title in SHIPPED:
        shipped = model.model_copy(update={"path": str(SHIPPED[title])})
        info = _describe_folder(name, shipped, storage, with_revision)
        own = SHIPPED_DEFAULTS.get(title, {})
        height, width = own.get("height", info.height), own.get("width", info.width)
        options = model.model_copy(update={"dtype": info.options.dtype})
        return replace(info, path=model.path, options=options, height=height, width=width, defaults=own)
    builtin = BUILTINS.get(title)
    if builtin is None:
        known = ", ".join(f"builtin:{key}" for key in (*SHIPPED, *BUILTINS))
        raise ModelError(f"models.{name}: {model.path} is not a builtin; there are {known}")
    if model.revision is not None and is_content_digest(model.revision) and model.revision != builtin.identity:
        raise ModelError(f"models.{name}: revision {model.revision} is not that of {model.path}, {builtin.identity}")
    return ModelInfo(
        name=name,
        path=model.path,
        family=FAMILIES[builtin.family],
        revision=model.revision or builtin.revision,  # request keys of version 2 take builtin.identity
        height=builtin.height,
        width=builtin.width,
        parameters=builtin.parameters,
        module_parameters={FAMILIES[builtin.family].denoiser: builtin.parameters},
        options=model if model.dtype != "auto" else model.model_copy(update={"dtype": "float32"}),
    )
