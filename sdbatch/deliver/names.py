r"""Names of delivered files: a template over columns, made safe for every file system and bucket.

    "{x_locale}/{format}/{id}_{n}.{ext}" + a row's values --> Template.filled() --> de-DE/instagram-story/mug_0.jpg

A template has names of columns and nothing else, so that it can neither compute nor reach into values. In a value, what
separates folders, what Windows does not take and what cannot be seen becomes `-`; the text is in NFC.
"""

from __future__ import annotations

import re
import string
import unicodedata
from collections.abc import Iterable, Mapping
from typing import Any, Final

from sdbatch.errors import JobError
from sdbatch.hints import did_you_mean

DEFAULT_TEMPLATE: Final = "{format}/{id}_{format}_{n}.{ext}"
NAME_BYTES_MAX: Final = 512
PART_BYTES_MAX: Final = 255
"""Longest name of one file or folder on Linux, macOS and Windows."""
OWN_FIELDS: Final = ("format", "ext", "width", "height", "id", "n")
"""Names that mean the delivered file, whatever columns a campaign has; `width` and `height` are the file's pixels."""
RESERVED: Final = ("delivered.parquet", "delivered.csv", "deliveries", ".tmp")
"""First parts of a name that are the delivery's own."""

_UNSAFE = re.compile(r'[\\/:*?"<>|\x00-\x1f\x7f-\x9f\u200b\u200e\u200f\u2028-\u202e\u2060-\u2069\ufeff\ud800-\udfff]')
_DEVICES = frozenset(
    {
        "con",
        "prn",
        "aux",
        "nul",
        "conin$",
        "conout$",
        *(f"{port}{n}" for port in ("com", "lpt") for n in "123456789¹²³"),
    }
)
_COLUMN = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


class Template:
    """A template of names.

    Args:
        text: Parts with `/` between them; `{column}` stands for a value.

    Attributes:
        fields: The columns it names, in order, each once.

    Raises:
        JobError: Naming what is wrong with it.
    """

    def __init__(self, text: str) -> None:
        self._pieces = _pieces(text)
        self.text = text
        self.fields = tuple(dict.fromkeys(field for _, field in self._pieces if field is not None))
        if not text.endswith(".{ext}"):
            raise JobError(f"{text!r} does not end with .{{ext}}, the suffix of the file's type")
        for part in "".join(literal + ("x" if field else "") for literal, field in self._pieces).split("/"):
            if part in {"", ".", ".."}:
                raise JobError(
                    f"{text!r} has {'an empty part' if not part else repr(part)}; names lie beneath the target"
                )

    def check_fields(self, known: Iterable[str]) -> None:
        """Refuse a template that names columns which a campaign does not have.

        Raises:
            JobError: With the nearest column.
        """
        names = list(dict.fromkeys([*OWN_FIELDS, *known]))
        for field in self.fields:
            if field not in names:
                hint = did_you_mean(field, names) or f"known are {', '.join(names)}"
                raise JobError(f"name: {self.text!r}: the campaign has no column {field}; {hint}")

    def filled(self, values: Mapping[str, Any]) -> str:
        """Return the name for a row's values.

        Raises:
            JobError: When a value is null, or the name too long or one of the delivery's own.
        """
        text = "".join(literal + ("" if field is None else _safe(field, values)) for literal, field in self._pieces)
        parts = [_safe_part(part) for part in unicodedata.normalize("NFC", text).split("/")]
        name = "/".join(parts)
        if longest := max((part for part in parts if len(part.encode()) > PART_BYTES_MAX), key=len, default=""):
            raise JobError(f"the name {longest[:60]!r}... has {len(longest.encode())} bytes, over {PART_BYTES_MAX}")
        if (size := len(name.encode())) > NAME_BYTES_MAX:
            raise JobError(f"the name {name[:60]!r}... has {size} bytes, over {NAME_BYTES_MAX}")
        if parts[0].casefold() in RESERVED:
            raise JobError(f"the name {name[:60]!r} begins with {parts[0]}, which is the delivery's own")
        return name


def folded(name: str) -> str:
    """Return a name as file systems compare it that do not tell capitals from small letters."""
    return unicodedata.normalize("NFC", unicodedata.normalize("NFKD", name).casefold())


def collisions(names: Iterable[tuple[str, str]]) -> list[str]:
    """Return a line for each file whose name another one has, or that stands where another one needs a folder.

    Args:
        names: Name and maker of each file; the maker is said in the line.
    """
    owners: dict[str, tuple[str, str]] = {}
    lines = []
    for name, maker in names:
        first = owners.setdefault(folded(name), (name, maker))
        if first[1] is not maker or first[0] is not name:
            same = "" if first[0] == name else f" (as {first[0]}; many disks do not tell capitals apart)"
            lines.append(f"{name}: both {first[1]} and {maker} have this name{same}")
    for key, (name, maker) in owners.items():
        parts = key.split("/")
        for count in range(1, len(parts)):
            if above := owners.get("/".join(parts[:count])):
                lines.append(f"{name}: {maker} needs a folder where {above[1]} has the file {above[0]}")
    return lines


def _pieces(text: str) -> list[tuple[str, str | None]]:
    """Return text and column, in turns, of a template."""
    try:
        parsed = list(string.Formatter().parse(text))
    except ValueError as error:
        raise JobError(f"{text!r} is no template: {error}") from error
    for literal, field, form, conversion in parsed:
        if bad := re.search(_UNSAFE.pattern.replace(r"[\\/", r"[\\"), literal):
            raise JobError(f"{text!r} has {bad[0]!r}, which not every file system takes")
        if field is not None and (form or conversion or not _COLUMN.fullmatch(field)):
            raise JobError(f"{text!r}: {{{field}}} is not the name of a column, and a template has nothing else")
    return [(unicodedata.normalize("NFC", literal), field) for literal, field, _, _ in parsed]


def _safe(field: str, values: Mapping[str, Any]) -> str:
    value = values.get(field)
    if value is None:
        raise JobError(f"{field} has no value")
    if isinstance(value, bool):
        value = str(value).lower()
    text = unicodedata.normalize("NFC", value if isinstance(value, str) else str(value))
    return _UNSAFE.sub("-", text).strip() or "-"


def _safe_part(part: str) -> str:
    """Return one part of a name that Windows takes too: no device, no dot or space at its end, none that hides it."""
    part = part.strip().rstrip(". ")
    stem, dot, rest = part.partition(".")
    if not stem:
        return f"_{part}" if part else "_"
    return f"{stem}_{dot}{rest}" if stem.strip().casefold() in _DEVICES else part
