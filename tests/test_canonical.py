"""One text for one value: our canonical JSON beside the `rfc8785` package's."""

from __future__ import annotations

import json
from typing import Any

import pytest
import rfc8785
from hypothesis import given
from hypothesis import strategies as st

from sdbatch.canonical import canonical, parse_canonical

INT_MAX = 2**53 - 1
FLOATS = st.floats(allow_nan=False, allow_infinity=False)
# A whole float from 2**53 on is written without a point, so it reads back as an integer too large for a number.
NARROW_FLOATS = st.floats(-INT_MAX, INT_MAX)


def _values(floats: st.SearchStrategy[float]) -> st.SearchStrategy[Any]:
    scalars = st.one_of(st.none(), st.booleans(), st.integers(-INT_MAX, INT_MAX), floats, st.text())
    return st.recursive(
        scalars, lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(st.text(), inner, max_size=4))
    )


@given(_values(FLOATS))
def test_our_text_is_the_reference_s(value: Any) -> None:
    assert canonical(value).encode() == rfc8785.dumps(value)


@given(FLOATS)
def test_a_float_reads_back_as_itself(value: float) -> None:
    assert float(canonical(value)) == value


@given(_values(NARROW_FLOATS))
def test_the_text_of_what_was_read_back_is_the_same(value: Any) -> None:
    text = canonical(value)
    assert canonical(parse_canonical(text)) == text


@given(st.dictionaries(st.text(), st.integers(0, 9), min_size=2))
def test_the_order_of_keys_does_not_show(value: dict[str, int]) -> None:
    assert canonical(dict(reversed(value.items()))) == canonical(value)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.0, "0"),
        (-0.0, "0"),
        (5.0, "5"),
        (7.5, "7.5"),
        (0.7, "0.7"),
        (-1.5e-7, "-1.5e-7"),
        (1e-6, "0.000001"),
        (1e-7, "1e-7"),
        (123456789012345680000.0, "123456789012345680000"),
        (1e21, "1e+21"),
        (1.5e300, "1.5e+300"),
        (5e-324, "5e-324"),
        (333333333.33333329, "333333333.3333333"),
        (9007199254740992.0, "9007199254740992"),
        (True, "true"),
        (1, "1"),
        (None, "null"),
        ('\b\f\n\r\t"\\/\x00\x1f\x7f\u2028é🦊', '"\\b\\f\\n\\r\\t\\"\\\\/\\u0000\\u001f\x7f\u2028é🦊"'),
        ([], "[]"),
        ({}, "{}"),
        ((1, [2]), "[1,[2]]"),
    ],
)
def test_a_value_has_this_text(value: Any, text: str) -> None:
    assert canonical(value) == text


@pytest.mark.parametrize("value", [INT_MAX, -INT_MAX])
def test_an_integer_that_a_double_holds_is_a_number(value: int) -> None:
    assert json.loads(canonical(value)) == value


@pytest.mark.parametrize("value", [INT_MAX + 1, -INT_MAX - 1, 2**63 - 1, 10**30])
def test_a_larger_integer_is_its_decimal_string(value: int) -> None:
    assert canonical([value]) == f'["{value}"]'


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_nan_and_infinity_are_refused_at_any_depth(value: float) -> None:
    with pytest.raises(ValueError, match="has no canonical JSON"):
        canonical({"a": [value]})


@pytest.mark.parametrize("value", [b"a", {1, 2}, object(), 1j])
def test_other_types_are_refused(value: Any) -> None:
    with pytest.raises(TypeError, match="has no canonical JSON"):
        canonical(value)


def test_keys_are_ordered_by_utf_16_units_not_by_code_points() -> None:
    fox, private = "\U0001f98a", "\ue000"
    assert sorted([fox, private]) == [private, fox]
    assert canonical({private: 1, fox: 2}) == f'{{"{fox}":2,"{private}":1}}'
