"""The keys of the files that people write, from their JSON Schemas.

job_schema() --> a table of the top level's keys, then one for each mapping inside it
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

from docs.generator.tables import markdown_table
from sdbatch.deliver.settings import delivery_schema
from sdbatch.desk.form import brief_schema
from sdbatch.job import job_schema

Schema = Mapping[str, Any]
_HEAD: Final = ("key", "value", "default", "meaning")
_BOUNDS: Final = (
    ("minimum", "from {}"),
    ("exclusiveMinimum", "over {}"),
    ("maximum", "to {}"),
    ("exclusiveMaximum", "under {}"),
)
_NAMES: Final = {"string": "text", "integer": "whole number", "number": "number", "boolean": "true, false"}


def job() -> str:
    """Return every key of a job file."""
    return _sections(job_schema(), "A job")


def brief() -> str:
    """Return every key of a brief."""
    return _sections(brief_schema(), "A brief")


def delivery() -> str:
    """Return every key of a delivery."""
    return _sections(delivery_schema(), "A delivery")


def _sections(schema: Schema, title: str) -> str:
    """Return a table for the file and one for each mapping inside it, in the order in which keys lead to them."""
    parts = [f"## {title}\n\n{_table(schema, schema['$defs'])}"]
    for name in _reached(schema, schema["$defs"]):
        inner = schema["$defs"][name]
        if inner.get("properties"):
            said = " ".join(inner.get("description", "").split())
            parts.append(f"## {name}\n\n" + (f"{said}\n\n" if said else "") + _table(inner, schema["$defs"]))
    return "\n\n".join(parts)


def _table(schema: Schema, definitions: Schema) -> str:
    required = set(schema.get("required", ()))
    rows = [
        (f"`{key}`", _value(value), _default(value, key in required), _meaning(value, definitions))
        for key, value in schema["properties"].items()
    ]
    return markdown_table(_HEAD, rows)


def _meaning(schema: Schema, definitions: Schema) -> str:
    """Return what a key says of itself, else what the mapping that it holds says."""
    said = schema.get("description")
    if said is None:
        inner = [definitions[name].get("description", "") for name in _references(schema)]
        said = inner[0].split("\n\n")[0] if inner else ""
    return " ".join(said.split())


def _value(schema: Schema) -> str:
    """Return what a value may be, as text."""
    if "$ref" in schema:
        name = schema["$ref"].rsplit("/", 1)[1]
        return f"[{name}](#{name.lower()})"
    alternatives = schema.get("anyOf") or schema.get("oneOf")
    if alternatives:
        return " or ".join(dict.fromkeys(_value(one) for one in alternatives if one.get("type") != "null")) or "null"
    if "const" in schema:
        return f"`{schema['const']}`"
    if "enum" in schema:
        return ", ".join(f"`{one}`" for one in schema["enum"])
    if schema.get("type") == "array":
        return f"list of {_value(schema.get('items', {}))}"
    if schema.get("type") == "object":
        inner = [*schema.get("patternProperties", {}).values(), schema.get("additionalProperties")]
        kinds = [_value(one) for one in inner if isinstance(one, Mapping)]
        return f"mapping of names to {kinds[0]}" if kinds else "mapping"
    if schema.get("minimum") == schema.get("maximum") is not None:
        return f"`{schema['minimum']}`"
    bounds = [form.format(f"{schema[key]:,}") for key, form in _BOUNDS if key in schema]
    return " ".join([_NAMES.get(schema.get("type", ""), "any value"), *bounds])


def _default(schema: Schema, is_required: bool) -> str:
    if is_required:
        return "needed"
    default = schema.get("default")
    if default is None or default == {} or default == [] or isinstance(default, Mapping):
        return "-"
    return f"`{str(default).lower() if isinstance(default, bool) else default}`" if default != "" else '`""`'


def _reached(schema: Schema, definitions: Schema) -> list[str]:
    """Return the names of the mappings inside a schema, those nearer to its top first."""
    found: list[str] = []
    waiting = list(_references(schema.get("properties", {})))
    while waiting:
        name = waiting.pop(0)
        if name not in found:
            found.append(name)
            waiting += _references(definitions[name].get("properties", {}))
    return found


def _references(value: Any) -> Iterator[str]:
    if isinstance(value, Mapping):
        if isinstance(value.get("$ref"), str):
            yield value["$ref"].rsplit("/", 1)[1]
        for inner in value.values():
            yield from _references(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _references(inner)
