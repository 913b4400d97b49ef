"""The one expression language: what it means, and what it refuses."""

from __future__ import annotations

import datetime as dt
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sdbatch.where import MANIFEST_KINDS, Kind, WhereRefused, compile_conjuncts, compile_where, kind_of

KINDS: dict[str, Kind] = {
    "locale": "text",
    "product.season": "text",
    "product.price": "number",
    "product.is_sold": "boolean",
    "product.from": "date",
    "launch": "date",
    "made_at": "timestamp",
    "images": "texts",
    "empty": "null",
    "loras": "other",
}
ROW: dict[str, Any] = {
    "locale": "de-DE",
    "product.season": "winter",
    "product.price": 12.5,
    "product.is_sold": True,
    "launch": dt.date(2026, 11, 26),
    "made_at": dt.datetime(2026, 11, 26, 10, tzinfo=dt.UTC),
    "images": ["a.png", "b.png"],
    "empty": None,
    "loras": [],
}


def _holds(text: str, **changes: Any) -> bool:
    return compile_where(text, KINDS).holds({**ROW, **{name.replace("__", "."): v for name, v in changes.items()}})


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("locale == 'de-DE'", True),
        ("locale != 'de-DE'", False),
        ("locale in ('zh-CN',)", False),
        ("locale not in ['zh-CN', 'ja-JP'] and product.season == 'winter'", True),
        ("locale in ('zh-CN',) or product.is_sold", True),
        ("not product.is_sold", False),
        ("product.is_sold == false", False),
        ("10 <= product.price < 12.5", False),
        ("product.price > -1", True),
        ("launch >= '2026-11-26'", True),
        ("made_at < '2026-11-26T09:00:00'", False),
        ("'a.png' in images", True),
        ("'int' in product.season", True),
        ("empty == null", True),
        ("locale == empty", False),
        ("empty < 3", False),
        ("not empty < 3", True),
        ("  locale ==\n 'de-DE' ", True),
    ],
)
def test_an_expression_holds_or_not(text: str, expected: bool) -> None:
    assert _holds(text) is expected


def test_null_equals_only_null_and_has_no_order() -> None:
    row = {"product__price": None}

    assert not _holds("product.price == 0", **row)
    assert _holds("product.price != 0", **row)
    assert not _holds("product.price < 1", **row)
    assert not _holds("product.price >= 1", **row)
    assert _holds("product.price in [null, 3]", **row)
    assert _holds("product.price == null", product__price=float("nan"))
    assert not _holds("product.is_sold", product__is_sold=None)
    assert not _holds("'a' in product.season", product__season=None)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("product.price == '12'", "at character 18: is text, and product.price is a number"),
        ("locale < 3", "is a number, and locale is text"),
        ("product.price in (1, 'x')", "is text, and product.price is a number"),
        ("product.is_sold < true", "has no order"),
        ("locale", "is text alone, where something true or false must stand"),
        ("1", "is a number alone"),
        ("locale in ('de-DE')", "a list of one value has brackets"),
        ("3 in images", "in which a number cannot stand"),
        ("locale in [locale]", "no columns"),
        ("launch > 'soon'", "is no date"),
        ("loras == null", "of a kind that cannot be compared"),
        ("lokale == 'x'", "lokale is no column here; did you mean locale?"),
        ("zzz == 'x'", "known are locale, product.season"),
        ("locale = 'x'", "write == to compare"),
        ("locale == 'x' && locale == 'y'", "write and for &&"),
        ("locale is null", "write == or !="),
        ("product.from > '2026-01-01'", "product.from ends in a word that expressions keep for themselves; rename"),
        ("product.price + 1 == 2", "is arithmetic"),
        ("9**9**9 == 1", "is arithmetic"),
        ("len(locale) == 2", "is a call"),
        ("locale.__class__ == 'x'", "locale.__class__ is no column here"),
        ("''.__class__ == 'x'", "is a column of a column"),
        ("locale[0] == 'd'", "is a part of something"),
        ("[x for x in locale]", "not taken"),
        ("(lambda: 1)() == 1", "is a call"),
        ("f'{locale}' == 'x'", "is a text with braces"),
        ("b'x' == locale", "not taken"),
        ("__import__('os') == 1", "is a call"),
        ("(x := 3) == 3", "not taken"),
        ("(" * 300 + "1" + ")" * 300, "is no expression"),
        ("not " * 300 + "true", "is nested more than 100 deep"),
        ("not " * 3000 + "true", "characters, over"),
        ("", "is no expression"),
        ("x\0y", "is no expression"),
    ],
)
def test_what_is_refused_names_the_expression_and_the_place(text: str, said: str) -> None:
    with pytest.raises(WhereRefused, match=r"^--where: ") as caught:
        compile_where(text, KINDS, "--where")

    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_parts_that_and_joins_stand_alone() -> None:
    parts = compile_conjuncts("locale == 'x' and (launch > '2026-01-01' or empty == null)", KINDS)

    assert [(part.text, part.names) for part in parts] == [
        ("locale == 'x'", ("locale",)),
        ("launch > '2026-01-01' or empty == null", ("empty", "launch")),
    ]


def test_columns_are_known_by_their_types() -> None:
    assert (MANIFEST_KINDS["prompt"], MANIFEST_KINDS["images"], MANIFEST_KINDS["loras"]) == ("text", "texts", "other")
    kinds = [pa.dictionary(pa.int32(), pa.string()), pa.decimal128(3), pa.bool_(), pa.timestamp("us"), pa.null()]
    assert [kind_of(kind) for kind in kinds] == ["text", "number", "boolean", "timestamp", "null"]


_VALUES = st.none() | st.integers(-2, 2) | st.floats(-2, 2)
_COMPARED = st.tuples(
    st.sampled_from(["a", "b"]), st.sampled_from(["==", "!=", "<", "<=", ">", ">="]), st.sampled_from(["a", "b", "1"])
).map(" ".join)
_EXPRESSIONS = st.recursive(
    _COMPARED,
    lambda inner: (
        st.tuples(inner, st.sampled_from([" and ", " or "]), inner).map(lambda three: f"({''.join(three)})")
        | inner.map(lambda one: f"(not {one})")
    ),
    max_leaves=6,
)


def _by_python(text: str, a: Any, b: Any) -> bool:
    """Return the same through Python, whose numbers stand in objects that know null."""

    class Number:
        def __init__(self, value: Any) -> None:
            self.value = value

        def __eq__(self, other: object) -> bool:
            return bool(self.value == getattr(other, "value", other))

        __hash__ = None  # type: ignore[assignment]

        def _order(self, sign: str, other: Any) -> bool:
            other = getattr(other, "value", other)
            return None not in (self.value, other) and bool(getattr(float(self.value), sign)(float(other)))

        def __lt__(self, other: Any) -> bool:
            return self._order("__lt__", other)

        def __le__(self, other: Any) -> bool:
            return self._order("__le__", other)

        def __gt__(self, other: Any) -> bool:
            return self._order("__gt__", other)

        def __ge__(self, other: Any) -> bool:
            return self._order("__ge__", other)

    return bool(eval(text, {}, {"a": Number(a), "b": Number(b)}))


@settings(max_examples=150)
@given(text=_EXPRESSIONS, a=_VALUES, b=_VALUES)
def test_it_means_what_python_means(text: str, a: Any, b: Any) -> None:
    assert compile_where(text, {"a": "number", "b": "number"}).holds({"a": a, "b": b}) is _by_python(text, a, b)
