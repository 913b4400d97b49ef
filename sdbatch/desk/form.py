"""The form of a brief: its keys, with their types and bounds (pydantic, strict).

brief.yaml --> read_form() --> Form
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Final

from pydantic import BeforeValidator, Field, ValidationError, field_validator, model_validator

from sdbatch.errors import JobError
from sdbatch.hints import did_you_mean
from sdbatch.job.read import load_yaml, refuse_other_kind
from sdbatch.job.weights import Strict

BRIEF_BYTES_MAX: Final = 1 << 20
KEY_CHARS_MAX: Final = 40
KEY: Final = re.compile(rf"[A-Za-z0-9][A-Za-z0-9_-]{{0,{KEY_CHARS_MAX - 1}}}")
SHAPE: Final = "shape"
"""The axis that a brief's formats make."""
MADE: Final = ("id", "seed_group", "num_outputs")
"""Columns that a brief makes itself."""

Name = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]{0,39}$")]


class BriefRefused(JobError):
    """A brief is wrong, or asks for what cannot be."""


def _texts(value: Any) -> Any:
    """Return a list; a text alone is one of one."""
    return [value] if isinstance(value, str) else value


def _no_booleans(value: Any) -> Any:
    """Refuse what YAML takes for true or false: the locale `no` is meant as a text."""
    if isinstance(value, bool):
        word = "yes, on or true" if value else "no, off or false"
        raise ValueError(  # noqa: TRY004 -- pydantic reports this one
            f"YAML reads {word} without quotes as a truth value; put the word in quotes"
        )
    return value


Texts = Annotated[list[str], BeforeValidator(_texts, json_schema_input_type=str | list[str])]
Plain = Annotated[str | int, BeforeValidator(_no_booleans)]


class AxisForm(Strict):
    """Where the values of an axis come from."""

    table: str | None = Field(
        default=None, description="A CSV, TSV, XLSX or JSONL file beside the brief, one value a row."
    )
    key: str | None = Field(default=None, description="Column of the table that names each row, and stands in ids.")
    sheet: str | None = Field(default=None, description="Sheet of a workbook.")
    where: Texts = Field(default=[], description="Rows of the table that count, as expressions over its columns.")
    values: list[Annotated[str | int | dict[str, Any], BeforeValidator(_no_booleans)]] | None = Field(
        default=None, description="The values themselves: texts, or mappings with a key."
    )
    lines: str | None = Field(default=None, description="A text file, one value a line.")
    default: Plain | None = Field(
        default=None, description="Value of rows that do not say; it is left out of ids, so an axis can be added later."
    )

    @model_validator(mode="after")
    def _one_origin(self) -> AxisForm:
        given = [name for name in ("table", "values", "lines") if getattr(self, name) is not None]
        if len(given) != 1:
            raise ValueError(f"has {' and '.join(given) or 'none of table, values and lines'}; one of them is needed")
        if (self.table is None) != (self.key is None):
            raise ValueError("a table needs key, the column that names each row, and only a table takes one")
        if "\0" in (self.table or self.lines or ""):
            raise ValueError("a path holds no NUL")
        if self.sheet is not None and self.table is None:
            raise ValueError("sheet is for a table")
        return self


class SampleForm(Strict):
    """Some rows of a block, chosen at random and for ever."""

    count: Annotated[int, Field(ge=1, le=1_000_000)] = Field(description="Rows.")
    per: list[Name] = Field(default=[], description="Axes: so many rows for each of their values.")


class BlockForm(Strict):
    """Rows: the product of some axes, less what `where` leaves out."""

    axes: Annotated[list[Name], Field(alias="for", min_length=1, description="Axes whose product it is.")]
    where: Texts = Field(default=[], description="Combinations that are wanted, as expressions; all of them hold.")
    fixed: dict[Name, Plain] = Field(default={}, alias="with", description="Values of other axes.")
    zip: list[Annotated[list[Name], Field(min_length=2)]] = Field(
        default=[], description="Axes that go side by side, not crosswise."
    )
    sample: SampleForm | None = None
    outputs: Annotated[int, Field(ge=1, le=1024)] | None = Field(
        default=None, description="Pictures or clips of each row."
    )


class Form(Strict):
    """A whole brief."""

    brief: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]{0,39}$")] = Field(
        description="First part of every id."
    )
    axes: Annotated[dict[Name, AxisForm], Field(min_length=1)]
    formats: list[str | dict[str, Any]] = Field(
        default=[], description="Named formats or your own; they make the axis shape."
    )
    rows: Annotated[list[BlockForm], Field(min_length=1)]
    same_seed: list[Name] = Field(default=[], description="Axes in which rows of one seed differ.")
    columns: dict[str, Any] = Field(
        description="Columns of the manifest: values, templates, or {by: AXIS, VALUE: ..., else: ...}."
    )
    seed: Annotated[int, Field(ge=0)] = Field(default=0, description="Of the samples.")
    crop_max: Annotated[float, Field(ge=0, lt=1)] = Field(
        default=0.15, description="Largest share of a master that a format may crop; more is refused."
    )
    enlarge_max: Annotated[float, Field(ge=1)] = Field(
        default=1.5, description="Largest factor by which a format may enlarge its master; more is refused."
    )

    @field_validator("axes")
    @classmethod
    def _shape_is_ours(cls, axes: dict[str, AxisForm]) -> dict[str, AxisForm]:
        if SHAPE in axes:
            raise ValueError(f"the axis {SHAPE} is made from formats; name yours otherwise")
        return axes


def brief_schema() -> dict[str, Any]:
    """Return the JSON Schema of a brief, for editors; `jobs/brief.schema.json` holds it."""
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **Form.model_json_schema()}


def read_form(path: Path, label: str) -> Form:
    """Read a brief.

    Raises:
        BriefRefused: Naming every key that is wrong.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise BriefRefused(f"brief {label}: {error.strerror or error}") from error
    if len(data) > BRIEF_BYTES_MAX:
        raise BriefRefused(f"brief {label}: {len(data)} bytes is over {BRIEF_BYTES_MAX}")
    return parse_form(load_yaml(data, f"brief {label}", is_of_texts=True), label)


def parse_form(values: Any, label: str = "brief") -> Form:
    """Check a brief given as plain values. See `read_form`."""
    if not isinstance(values, dict):
        raise BriefRefused(f"brief {label}: a brief is a mapping of keys, not {type(values).__name__}")
    refuse_other_kind(values, label, "brief")
    try:
        return Form.model_validate(values)
    except ValidationError as error:
        lines: dict[str, list[str]] = {}
        for problem in error.errors():
            place, message = _explained(problem)
            lines.setdefault(place, []).append(message)
        text = [f"brief {label}: {place}: {' or '.join(dict.fromkeys(said))}" for place, said in lines.items()]
        raise BriefRefused("\n".join(text)) from error


def _explained(problem: Mapping[str, Any]) -> tuple[str, str]:
    """Return the key that one pydantic error is about, and what is wrong with it."""
    loc = [part for part in problem["loc"] if part not in {"[key]", "str", "int", "dict[str,any]"}]
    loc = [part for part in loc if not str(part).startswith("function-")]
    place = ".".join(map(str, loc))[:200] or "brief"
    if problem["type"] == "extra_forbidden":
        known = _known_keys(loc)
        hint = did_you_mean(loc[-1], known) or f"known are {', '.join(known)}"
        return place, f"unknown key; {hint}"
    if problem["type"] == "missing":
        return place, "missing"
    message = problem["msg"]
    if problem["type"] == "value_error":
        return place, message.removeprefix("Value error, ")
    for given, ours in _WORDS:
        message = re.sub(given, ours, message)
    is_plain = not isinstance(problem["input"], dict | list)
    return place, f"{problem['input']!r:.80} should {message}" if is_plain else f"should {message}"


_WORDS: Final = (
    (r"^(?:Input|String|List|Dictionary) should ", ""),
    (r" after validation", ""),
    (r"be a valid dictionary(?: or instance of \w+)?", "be a mapping of keys"),
    (r"be a valid string", "be text"),
    (r"be a valid integer", "be a whole number"),
    (r"be a valid list", "be a list"),
)
"""What pydantic says, in the words of this project."""


def _known_keys(loc: list[Any]) -> list[str]:
    """Return the keys that may stand where one does that is not known."""
    forms: dict[tuple[str, int], type[Strict]] = {
        ("axes", 3): AxisForm,
        ("rows", 3): BlockForm,
        ("rows", 4): SampleForm,
    }
    form = forms.get((str(loc[0]), len(loc)), Form)
    return [field.alias or name for name, field in form.model_fields.items()]


_FORMS: Final[Mapping[tuple[Any, int], type[Strict]]] = {
    ("axes", 3): AxisForm,
    ("rows", 3): BlockForm,
    ("rows", 4): SampleForm,
}
"""What stands at a place of a brief, by its first key and its depth."""
