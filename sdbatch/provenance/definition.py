"""What a C2PA manifest claims of a delivered file: how it came to be, and what was done to it since.

    task, source type, steps, ingredients --> definition() --> values as the C2PA library reads them

The first action says where the picture begins: created, or opened from the source whose credentials came with it. A
prompt and a recipe are not in it.
"""

from __future__ import annotations

import importlib.metadata
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

SOFT_BINDING: Final = "sdbatch.dct64.1"
"""Name of the fingerprint by which a file is found again that lost its credentials."""
EDITS: Final = frozenset({"image-to-image", "inpainting", "video-to-video"})
"""Tasks whose output is their first source, changed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ingredient:
    """A source that came with credentials.

    Attributes:
        label: Its name in the archive: the hex digits of its digest.
        relation: `parentOf` for what was edited, `inputTo` for what guided.
        archive: Bytes of its archive, as kept at render.
    """

    label: str
    relation: Literal["parentOf", "inputTo"]
    archive: bytes


def relation_of(task: str, role: str, number: int) -> Literal["parentOf", "inputTo"]:
    """Return what a source is to an output.

    Args:
        task: By its Hugging Face name.
        role: Manifest column that names the source.
        number: Its place among the sources of that column, from 0.
    """
    edited = "video" if task == "video-to-video" else "images"
    return "parentOf" if task in EDITS and number == 0 and role == edited else "inputTo"


def definition(
    *,
    title: str,
    media_type: str,
    source_type: str,
    system: str,
    system_version: str,
    steps: Sequence[str],
    fingerprint: str,
    ingredients: Sequence[Ingredient] = (),
) -> dict[str, Any]:
    """Return the manifest's definition.

    Args:
        title: Name of the file.
        media_type: Its media type.
        source_type: Its digital source type.
        system: What generated it.
        system_version: Its version.
        steps: What the delivery did, of `cropped`, `resized` and `transcoded`.
        fingerprint: Of what it shows; "" for none.
        ingredients: Sources with credentials.
    """
    agent = {"name": system, **({"version": system_version} if system_version else {})}
    parents = [one.label for one in ingredients if one.relation == "parentOf"]
    inputs = [one.label for one in ingredients if one.relation == "inputTo"]
    generated: dict[str, Any] = {"digitalSourceType": source_type, "softwareAgent": agent}
    if inputs:
        generated["parameters"] = {"ingredientIds": inputs}
    if parents:
        opened = {"action": "c2pa.opened", "parameters": {"ingredientIds": parents[:1]}}
        actions = [opened, {"action": "c2pa.edited", **generated}]
    else:
        actions = [{"action": "c2pa.created", **generated}]
    actions += [{"action": f"c2pa.{step}"} for step in steps]
    assertions = [{"label": "c2pa.actions.v2", "data": {"actions": actions}}]
    if fingerprint:
        block = {"scope": {}, "value": fingerprint}
        assertions.append({"label": "c2pa.soft-binding", "data": {"alg": SOFT_BINDING, "blocks": [block]}})
    return {
        "claim_generator_info": [{"name": "sdbatch", "version": importlib.metadata.version("sdbatch")}],
        "title": title,
        "format": media_type,
        "assertions": assertions,
    }
