"""One value of a table becomes a value of its column, or is refused in words.

    what a cell, a JSON value or a Parquet value holds --> read_value() --> text, number or list, or ValueRefused

Every way into a manifest goes through here, a built one and a Parquet file that is used as it is, so that equal tables
give equal request keys.
"""

from __future__ import annotations

import json
import math
import re
import unicodedata
from collections.abc import Callable
from decimal import Decimal
from typing import Any, Final

import pyarrow as pa

from sdbatch.canonical import parse_json
from sdbatch.columns import seed_problem
from sdbatch.manifest.schema import COLUMNS

TEXT_BYTES_MAX = 64 << 10
"""Longest text of any column. Prompts have a tighter bound of their own."""
LIST_ITEMS_MAX = 1000
"""Most items of a list in one row."""
FLOAT_EXACT_MAX = 2**53
"""Below it a float holds every whole number."""
NORMALIZED = ("prompt", "negative_prompt", "seed_group")
"""Texts that decide pixels: line ends become LF, and letters Unicode normal form NFC."""
_NUMBER = re.compile(r"[+-]?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][+-]?[0-9]{1,4})?")
_NUMBER_CHARS_MAX = 400
_THOUSANDS = re.compile(r"[+-]?[0-9]{1,3}[.][0-9]{3}")
_SHORTENED_FROM = 10**11
"""Spreadsheets show longer whole numbers in powers of ten, and save to a CSV what they show."""
_WHOLE_MAX = 2**70
"""Over every integer type; infinities and numbers of a thousand digits are told by it."""
_LORA_FIELDS = ("name", "weight")


class ValueRefused(ValueError):
    """A value does not fit its column; the text follows column and value in a line for people."""


def read_value(name: str, value: Any) -> Any:
    """Return a value as its column has it; null and NaN are None.

    Args:
        name: A manifest column.
        value: Text, a number, a boolean, a list, a dict, or None; a cell of a CSV is text.

    Raises:
        ValueRefused: When the column cannot hold the value exactly.
    """
    if value is None or _is_nan(value):
        return None
    return _READERS[name](name, value)


def normal_text(text: str) -> str:
    """Return a text with LF as its line end, in Unicode normal form NFC."""
    if "\r" in text:
        text = text.replace("\r\n", "\n").replace("\r", "\n")
    return unicodedata.normalize("NFC", text)


def called(value: Any) -> str:
    """Return what a value is, in words."""
    for kinds, words in _WORDS:
        if isinstance(value, kinds):
            return words
    return f"of type {type(value).__name__}"


_WORDS: Final[tuple[tuple[tuple[type, ...], str], ...]] = (
    ((str,), "text"),
    ((bool,), "a boolean"),
    ((int, float, Decimal), "a number"),
    ((list, tuple), "a list"),
    ((dict,), "an object"),
    ((bytes,), "binary"),
)


def _text(name: str, value: Any) -> str:
    if name == "parameters" and isinstance(value, dict):
        value = json.dumps(value, ensure_ascii=False)
    text = plain_text(value)
    return normal_text(text) if name in NORMALIZED else text


def plain_text(value: Any) -> str:
    """Return a value that is text.

    Raises:
        ValueRefused: When it is something else, no Unicode, or over `TEXT_BYTES_MAX`.
    """
    if not isinstance(value, str):
        raise ValueRefused(f"is {called(value)}; this column takes text alone")
    try:
        size = len(value.encode())
    except UnicodeEncodeError as error:
        raise ValueRefused("holds half of a surrogate pair, which is no character") from error
    if size > TEXT_BYTES_MAX:
        raise ValueRefused(f"has {size} bytes, over {TEXT_BYTES_MAX}")
    return value


def _number(name: str, value: Any) -> int | float | Decimal | None:
    """Return a number exactly as it is written, also when a cell or a JSON text holds it; None for the text "nan"."""
    if isinstance(value, str):
        text = value.strip()
        if text.lower() == "nan":
            return None
        if len(text) <= _NUMBER_CHARS_MAX and _NUMBER.fullmatch(text):
            return Decimal(text)
        hint = "; decimals are written with a point" if _NUMBER.fullmatch(text.replace(",", ".", 1)) else ""
        raise ValueRefused(f"is not {_called_number(name)}{hint}")
    if isinstance(value, bool) or not isinstance(value, int | float | Decimal):
        raise ValueRefused(f"is not {_called_number(name)}")
    return None if _is_nan(value) else value


def _is_nan(value: Any) -> bool:
    return isinstance(value, float | Decimal) and math.isnan(value)


def _kind(name: str) -> pa.DataType:
    """Return the type of a column's numbers."""
    kind = COLUMNS[name]
    return pa.float64() if name == "loras" else kind.value_type if pa.types.is_list(kind) else kind


def _called_number(name: str) -> str:
    """Return what people call a column's numbers."""
    return "a whole number" if pa.types.is_integer(_kind(name)) else "a number"


def _integer(name: str, value: Any) -> int | None:
    number = _number(name, value)
    if number is None:
        return None
    if not -_WHOLE_MAX < number < _WHOLE_MAX or number != int(number):
        raise ValueRefused(f"is not {_called_number(name)}")
    if isinstance(number, float) and not -FLOAT_EXACT_MAX < number < FLOAT_EXACT_MAX:
        raise ValueRefused("is a float of 2^53 or more, which is not exact; write it as an integer or as text")
    whole = int(number)
    if isinstance(value, str):
        _refuse_shortened(value.strip(), whole)
    message = seed_problem(whole) if name == "seed" else _width_problem(whole, _kind(name))
    if message:
        raise ValueRefused(message)
    return whole


def _refuse_shortened(text: str, number: int) -> None:
    """Refuse a whole number that is written in a way that spreadsheets have, and that may stand for another one."""
    if _THOUSANDS.fullmatch(text):
        raise ValueRefused("may have a mark for thousands, or a decimal one; write it with digits alone")
    if "e" in text.lower() and abs(number) >= _SHORTENED_FROM:
        raise ValueRefused("is a power of ten, as spreadsheets shorten long numbers; write all of its digits")


def _width_problem(number: int, kind: pa.DataType) -> str | None:
    most: int = 2 ** (kind.bit_width - 1) - 1
    return None if -most - 1 <= number <= most else f"is not in {-most - 1}..{most}"


def _float(name: str, value: Any) -> float | None:
    number = _number(name, value)
    if number is None:
        return None
    try:
        real = float(number)
    except OverflowError:
        real = math.inf
    if not math.isfinite(real):
        raise ValueRefused("is not a finite number")
    return real


def _list(name: str, value: Any) -> list[Any]:
    items = _parsed(name, value) if isinstance(value, str) else value
    if not isinstance(items, list | tuple):
        raise ValueRefused("is not a list")
    if len(items) > LIST_ITEMS_MAX:
        raise ValueRefused(f"has {len(items)} items, over {LIST_ITEMS_MAX}")
    return [_ITEMS[name](name, item) for item in items]


def _parsed(name: str, text: str) -> list[Any]:
    """Return the list that a text stands for: a JSON list, else the text as its one item."""
    stripped = text.strip()
    if not (stripped.startswith("[") and stripped.endswith("]")):
        if stripped.startswith(('["', "['", "[{")) or name == "loras":
            raise ValueRefused("is not a list")
        return [text]
    try:
        items = parse_json(text)
    except (ValueError, RecursionError) as error:
        raise ValueRefused('is not a JSON list, as in ["a.png", "b.png"]') from error
    return items if isinstance(items, list) else [text]


def _text_item(_: str, value: Any) -> str:
    if not isinstance(value, str):
        found = "null" if value is None else f"{value!r:.40}, which is {called(value)}"
        raise ValueRefused(f"holds {found}; its items are text")
    return plain_text(value)


def _frame_item(name: str, value: Any) -> int:
    frame = None if value is None else _integer(name, value)
    if frame is None:
        raise ValueRefused("holds null; its items are numbers of frames")
    return frame


def _lora_item(name: str, value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        found = "null" if value is None else f"{value!r:.40}, which is {called(value)}"
        raise ValueRefused(f"holds {found}; its items have a name and a weight")
    if foreign := sorted(value.keys() - set(_LORA_FIELDS)):
        raise ValueRefused(f"holds an item with {foreign[0]!r:.40}; its items have a name and a weight")
    weight = value.get("weight")
    return {
        "name": _text_item(name, value.get("name")),
        "weight": None if weight is None else _float(name, weight),
    }


def _reader(name: str) -> Callable[[str, Any], Any]:
    kind = COLUMNS[name]
    if pa.types.is_string(kind):
        return _text
    if pa.types.is_integer(kind):
        return _integer
    return _float if pa.types.is_floating(kind) else _list


_READERS: Final[dict[str, Callable[[str, Any], Any]]] = {name: _reader(name) for name in COLUMNS}


def _item_reader(kind: pa.DataType) -> Callable[[str, Any], Any]:
    if pa.types.is_struct(kind.value_type):
        return _lora_item
    return _text_item if pa.types.is_string(kind.value_type) else _frame_item


_ITEMS: Final[dict[str, Callable[[str, Any], Any]]] = {
    name: _item_reader(kind) for name, kind in COLUMNS.items() if pa.types.is_list(kind)
}
