"""What delivered files say of themselves, as the delivery's YAML has it: constants, and columns in braces.

`metadata: {title: "{x_product} in {x_scene}", rights: "(c) ACME"}` + a row --> Metadata.words() --> texts by name

A text of which a column is null says nothing: half a title is worse than none.
"""

from __future__ import annotations

import re
import string
from collections.abc import Iterable, Iterator, Mapping
from typing import Annotated, Any, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

from sdbatch.errors import JobError
from sdbatch.hints import did_you_mean

TEXTS: Final = ("creator", "credit", "rights", "title", "alt_text", "prompt_writer")
TEXT_CHARACTERS_MAX: Final = 8_000
"""Longest text of a file's metadata; more of a column's text is an error, since no program shows it."""
PERFORMER: Final = "x_synthetic_performer"
_COLUMN: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_YES: Final = frozenset({"true", "yes", "1"})
_NO: Final = frozenset({"false", "no", "0", ""})


class _Strict(BaseModel):
    """Refuses unknown keys and values of another type."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


class Metadata(_Strict):
    """What each file says; a text may name columns in braces."""

    creator: str = Field(default="", description="Who is named as its creator; {column} stands for a column.")
    credit: str = Field(default="", description="Line of credit.")
    rights: str = Field(default="", description="Notice of rights.")
    title: str = Field(default="", description="Title.")
    alt_text: str = Field(default="", description="What it shows, for those who do not see it.")
    keywords: list[str] = Field(default=[], description="Words by which it is found, a text each.")
    prompt: bool = Field(default=False, description="Whether it tells the prompt.")
    prompt_writer: str = Field(default="", description="Who wrote the prompt.")
    recipe: bool = Field(default=False, description="Whether it tells the whole recipe.")

    @field_validator(*TEXTS)
    @classmethod
    def _a_wording(cls, text: str) -> str:
        _checked_pieces(text)
        return text

    @field_validator("keywords")
    @classmethod
    def _wordings(cls, texts: list[str]) -> list[str]:
        for text in texts:
            _checked_pieces(text)
        return texts

    @property
    def columns(self) -> frozenset[str]:
        """Columns that the texts name."""
        return frozenset(field for _, text in self._texts() for _, field in _pieces(text) if field is not None)

    def check_columns(self, known: Iterable[str]) -> None:
        """Refuse texts that name columns which a campaign does not have.

        Raises:
            JobError: With the nearest column.
        """
        names = list(known)
        for place, text in self._texts():
            for _, field in _pieces(text):
                if field is not None and field not in names:
                    hint = did_you_mean(field, names) or f"known are {', '.join(names)}"
                    raise JobError(f"metadata.{place}: {text!r}: the campaign has no column {field}; {hint}")

    def words(self, row: Mapping[str, Any]) -> dict[str, Any]:
        """Return the texts for a row, those that say something.

        Raises:
            JobError: When a column's text is too long, or `x_synthetic_performer` is neither yes nor no.
        """
        words: dict[str, Any] = {name: _filled(name, getattr(self, name), row) for name in TEXTS}
        words["keywords"] = [word for text in self.keywords if (word := _filled("keywords", text, row))]
        if self.prompt:
            words["prompt"] = row.get("prompt") or ""
        if self.recipe:
            words["recipe"] = row.get("recipe") or ""
        words = {name: value for name, value in words.items() if value}
        performer = _yes_or_no(row)
        return words if performer is None else {**words, "synthetic_performer": performer}

    def unsaid(self, row: Mapping[str, Any]) -> list[str]:
        """Return the names of the texts that say nothing for a row because a column of theirs is null or empty."""
        return [name for name in TEXTS if getattr(self, name) and not _filled(name, getattr(self, name), row)]

    def _texts(self) -> Iterator[tuple[str, str]]:
        yield from ((name, getattr(self, name)) for name in TEXTS)
        yield from (("keywords", text) for text in self.keywords)


class Label(_Strict):
    """Words that are seen on the picture itself."""

    text: Annotated[str, Field(min_length=1, max_length=80)] = Field(
        description="The words: one line, the same on every file."
    )
    place: Literal["top-left", "top-right", "bottom-left", "bottom-right"] = Field(
        default="bottom-right", description="Corner of the picture."
    )
    height: Annotated[float, Field(ge=0.01, le=0.25)] = Field(
        default=0.04, description="Height of the letters, as a share of the shorter side."
    )
    font: str | None = Field(
        default=None, description="File of a font (TTF, OTF, TTC), for letters that Pillow's own font does not have."
    )


def _checked_pieces(text: str) -> None:
    if len(text) > TEXT_CHARACTERS_MAX:
        raise ValueError(f"{len(text)} characters are over {TEXT_CHARACTERS_MAX}")
    try:
        pieces = list(_pieces(text))
    except ValueError as error:
        raise ValueError(f"{text!r} is no text with columns in braces: {error}") from error
    for _, field in pieces:
        if field is not None and not _COLUMN.fullmatch(field):
            raise ValueError(f"{text!r}: {{{field}}} is not the name of a column, and braces hold nothing else")


def _pieces(text: str) -> Iterator[tuple[str, str | None]]:
    for literal, field, form, conversion in string.Formatter().parse(text):
        # A form or a conversion belongs to no column's name, so that the name is refused with it.
        yield literal, field if field is None or not (form or conversion) else f"{field}!{conversion}:{form}"


def _filled(name: str, text: str, row: Mapping[str, Any]) -> str:
    parts = []
    for literal, field in _pieces(text):
        parts.append(literal)
        if field is not None:
            value = row.get(field)
            if value is None or value == "":
                return ""
            parts.append(str(value).lower() if isinstance(value, bool) else str(value))
    filled = "".join(parts).strip()
    if len(filled) > TEXT_CHARACTERS_MAX:
        raise JobError(f"metadata.{name}: {row['id']} has {len(filled)} characters, over {TEXT_CHARACTERS_MAX}")
    return filled


def _yes_or_no(row: Mapping[str, Any]) -> bool | None:
    value = row.get(PERFORMER)
    if value is None or isinstance(value, bool):
        return value
    word = str(value).strip().lower()
    if word not in _YES | _NO:
        raise JobError(f"{row['id']}: {PERFORMER} {value!r} is neither yes nor no (true, yes, 1, false, no, 0)")
    return None if word == "" else word in _YES
