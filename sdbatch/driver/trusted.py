r"""The job that an asset is rendered again with: what decides where anything is read comes from the caller alone.

    the caller's job, model path, prefixes  --> storage options, model, LoRAs, sources.allow  \
                                                                                               |-> Job
    the asset's metadata row, its run's record --> settings that name no place               /

A campaign may come from a stranger. Its run.json could name an address that would be sent our access key, and its rows
any file of this machine.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from sdbatch.campaign import layout
from sdbatch.checkpoints import BUILTINS, SHIPPED
from sdbatch.columns import IN_RECIPE, SOURCE_ROLES
from sdbatch.errors import UserError
from sdbatch.families import ENLARGES
from sdbatch.families.scheduler_options import is_written
from sdbatch.job import ENTRY_COMPONENTS, Job, job_of_record
from sdbatch.plan.sources import ASSET_SCHEME
from sdbatch.recipe import Recipe, parse_recipe
from sdbatch.storage import AllowList

SIDE_MAX: Final = 16_384
VALUES_MAX: Final = 1 << 31
"""Most pixels of all frames together of an asset that is rendered again."""
BATCH_SIZE_MAX: Final = 256
_SETTINGS: Final = (
    "revision",
    "family",
    "variant",
    "num_gpus",
    "num_cpus",
    "long_prompt",
    "offload_text_encoder",
    "compile",
    "channels_last",
    "attention_backend",
    "layerwise_casting",
    "step_cache",
    "guidance_interval",
)
"""Keys of a model's entry that are taken as its run wrote them down: none of them names a place."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Trust:
    """What the caller vouches for.

    Attributes:
        job: Their job; its models, LoRAs, `storage` and `sources` hold.
        model_path: Where the model lies now.
        allow: Prefixes that sources may be read from, beside those of the job.
    """

    job: Job | None = None
    model_path: str | None = None
    allow: Sequence[str] = ()


NOBODY: Final = Trust()
"""The caller says nothing: builtins alone can be rendered again."""


def trusted_job(row: Mapping[str, Any], recipe: Recipe, record: Mapping[str, Any] | None, trust: Trust) -> Job:
    """Return the job that renders a row's asset again.

    Args:
        row: Metadata row of the asset.
        recipe: Its recipe.
        record: The `run.json` of its run; None where there is none.
        trust: What the caller vouches for.

    Raises:
        UserError: When the caller does not say where the model, a LoRA or a source lies.
    """
    recorded = (record or {}).get("job", {})
    if watermark := recipe.more.get("watermark"):
        raise UserError(f"{row['id']}: bears the watermark of {watermark}, which is code; reproduce runs none")
    _refuse_untrusted_parts(row, recipe, trust)
    sources = trust.job.sources.model_dump(mode="json") if trust.job else {}
    sources["allow"] = [*sources.get("allow", []), *trust.allow]
    _refuse_sources(row, sources["allow"])
    values = trust.job.model_dump(mode="json", include={"storage", "loras"}) if trust.job else {}
    values |= {
        "manifest": ".",
        "output": ".",
        "models": {
            row["model"]: _entry(row, recipe, _mapping(_mapping(recorded.get("models")).get(row["model"])), trust)
        },
        "sources": sources,
        "encode": _mapping(recorded.get("encode")),
        "after": [],  # no stage changes pixels, and what may block has passed this asset already
        "determinism": "exact" if recipe.is_exact else "fast",
    }
    return job_of_record(values)


def checked_recipe(row: Mapping[str, Any], name: str) -> Recipe:
    """Return the recipe of a row whose asset may be rendered again.

    Args:
        row: Metadata row.
        name: Commit that it stands in, for the message.

    Raises:
        UserError: When a value of the row is none that a run writes.
    """
    try:
        recipe = parse_recipe(row["recipe"])
        follows = {"height", "width"} if recipe.route in ENLARGES and not recipe.height else set()
        bounded = {column: getattr(recipe, column, None) for column in IN_RECIPE if column not in follows}
        faults = [
            f"{key} {value!r} {IN_RECIPE[key].problem(value)}" for key, value in bounded.items() if _is_out(key, value)
        ]
        options = recipe.more.get("scheduler_options", {})
        if not is_written(recipe.scheduler, options):
            faults.append(f"scheduler {recipe.scheduler!r} with {options!r} is none that a row can have")
        asked = [recipe.height or row["height"], recipe.width or row["width"]]
        sides = [row["height"], row["width"], *asked]
        num_values = asked[0] * asked[1] * (recipe.num_frames or 1)
        is_bounded = all(0 < side <= SIDE_MAX for side in sides) and 0 < num_values <= VALUES_MAX
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise UserError(f"{name}: the recipe of {row['id']} is none that sdbatch wrote ({error})") from error
    if not is_bounded:
        faults.append(f"{recipe.width} x {recipe.height}, {recipe.num_frames or 1} frames, is over {VALUES_MAX} pixels")
    if not 1 <= (row["batch_size"] or 1) <= BATCH_SIZE_MAX or not 1 <= (recipe.batch_size or 1) <= BATCH_SIZE_MAX:
        faults.append(f"batch_size is not in 1..{BATCH_SIZE_MAX}")
    if layout.asset_parts(row["asset"] or "") != (row["id"], row["request_key"][:8], row["n"]):
        faults.append(f"asset {row['asset']!r} is not its file")
    if faults:
        raise UserError(f"{name}: {row['id']}: {faults[0]}; no run of sdbatch wrote this row")
    return recipe


def _is_out(key: str, value: Any) -> bool:
    return value is not None and IN_RECIPE[key].problem(value) is not None


def _entry(row: Mapping[str, Any], recipe: Recipe, recorded: Mapping[str, Any], trust: Trust) -> dict[str, Any]:
    """Return the model's entry: its place and folders as the caller says, its settings as the run had them."""
    own = trust.job.models.get(row["model"]) if trust.job else None
    entry = own.model_dump(mode="json", exclude={"defaults"}) if own else {}
    taken = _SETTINGS[2:] if own else _SETTINGS
    entry |= {name: recorded[name] for name in taken if name in recorded}
    if trust.model_path is not None:
        entry["path"] = trust.model_path
    elif own is None:
        entry["path"] = _builtin(row, recorded)
    entry["dtype"] = row["dtype"]
    _set_numbers(entry, recipe)
    if recipe.batch_size is not None:
        entry["batch_size"] = recipe.batch_size
    return entry


def _set_numbers(entry: dict[str, Any], recipe: Recipe) -> None:
    """Set how weights are quantised, and the formats of components, as the recipe has them."""
    dtypes = _mapping(recipe.accelerators.get("dtypes"))
    entry["quantize"] = _mapping(recipe.accelerators.get("quantize"))
    named = _mapping(entry.get("components"))
    if named:
        entry["components"] = {
            name: {**one, "quantize": None, "dtype": dtypes.get(name)} for name, one in named.items()
        }
    for name in ENTRY_COMPONENTS:
        if isinstance(entry.get(name), Mapping):
            entry[name] = {**entry[name], "quantize": None, "dtype": dtypes.get(name)}


def _builtin(row: Mapping[str, Any], recorded: Mapping[str, Any]) -> str:
    """Return the recorded path of a builtin, which comes with the package; no other recorded path is taken."""
    path = str(recorded.get("path"))
    if path.removeprefix("builtin:") in {*SHIPPED, *BUILTINS} and path.startswith("builtin:"):
        return path
    raise UserError(
        f"where the model {row['model']} lies is not taken from a campaign, which anybody may have made; "
        "say it with --job JOB or --model-path"
    )


def _refuse_untrusted_parts(row: Mapping[str, Any], recipe: Recipe, trust: Trust) -> None:
    has_entry = trust.job is not None and row["model"] in trust.job.models
    inversions = ["textual inversion"] if recipe.more.get("embeddings") else []
    needed = [*recipe.components, *inversions, *(["LoRA"] if recipe.loras else [])]
    is_named = has_entry if recipe.components or inversions else trust.job is not None
    if needed and not is_named:
        raise UserError(f"{row['id']} was made with a {needed[0]}; where it lies is said by --job JOB alone")


def _refuse_sources(row: Mapping[str, Any], allow: Sequence[str]) -> None:
    listed = AllowList(list(allow))
    for role in SOURCE_ROLES:
        urls = row[role] if isinstance(row[role], list) else [row[role]] if row[role] else []
        for url in urls:
            if url.startswith(ASSET_SCHEME):
                continue  # the campaign itself, whose file counts when its digest is the recorded one
            if problem := listed.problem(url):
                raise UserError(
                    f"{row['id']}: {role} {url!r} {problem}; --job JOB or --allow PREFIX says what may be read"
                )


def _mapping(value: Any) -> dict[str, Any]:
    return dict(value) if isinstance(value, Mapping) else {}
