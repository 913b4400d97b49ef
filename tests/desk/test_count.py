"""Counting and drawing without making: equal to what is made."""

from __future__ import annotations

import itertools
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sdbatch.desk.brief import Brief
from sdbatch.desk.form import BriefRefused, parse_form


def brief_of(values: dict[str, Any]) -> Brief:
    """Return a brief without tables."""

    def read(table: str, sheet: str | None) -> Any:
        raise AssertionError(f"{table} {sheet}")

    return Brief(parse_form({"brief": "b", "columns": {"prompt": "p"}, **values}), Path(), read, "brief")


def _axis(size: int, **columns: int) -> dict[str, Any]:
    """Return an axis of so many values, whose columns go round over so many values each."""
    return {
        "values": [
            {"key": f"k{number}", **{name: f"v{number % classes}" for name, classes in columns.items()}}
            for number in range(size)
        ]
    }


_AXES = st.fixed_dictionaries(
    {
        "a": st.builds(_axis, st.integers(1, 5), u=st.integers(1, 3), w=st.integers(1, 2)),
        "b": st.builds(_axis, st.integers(1, 4), u=st.integers(1, 3)),
        "c": st.builds(_axis, st.integers(1, 4), u=st.integers(1, 2)),
        "d": st.just({"values": ["plain", "neon"], "default": "plain"}),
    }
)
_WHERE = st.sampled_from(
    [
        "a.u == b.u",
        "b.u != c.u or a.w == 'v0'",
        "a == 'k0'",
        "a in ('k0', 'k2') or c.u == 'v1'",
        "c.u == 'v0' and a.w == 'v1'",
        "not (a.u == b.u and b.u == c.u)",
        "a == b",
        "true",
        "1 == 2",
    ]
)
_BLOCK = st.builds(
    lambda names, where, fixed, sample, outputs: {
        "for": [name for name in names if name not in fixed] or ["d"],
        "where": [text for text in where if all(name in {*names, *fixed} for name in "abc" if f"{name}" in text)],
        "with": {name: key for name, key in fixed.items() if name != "d" or [n for n in names if n not in fixed]},
        **({"sample": {"count": sample, "per": []}} if sample else {}),
        **({"outputs": outputs} if outputs else {}),
    },
    st.permutations(["a", "b", "c", "d"]).flatmap(lambda names: st.integers(2, 4).map(lambda n: names[:n])),
    st.lists(_WHERE, max_size=3),
    st.dictionaries(st.sampled_from(["a", "b", "c"]), st.just("k0"), max_size=1),
    st.sampled_from([0, 0, 0, 3]),
    st.just(0),
)


@settings(max_examples=120)
@given(axes=_AXES, rows=st.lists(_BLOCK, min_size=1, max_size=3))
def test_the_count_is_that_of_the_rows(axes: dict[str, Any], rows: list[dict[str, Any]]) -> None:
    brief = brief_of({"axes": axes, "rows": rows})
    made = [tuple(row.items()) for row in brief.rows()]

    assert len(set(made)) == len(made)
    assert brief.count().rows == len(made)


@settings(max_examples=120)
@given(axes=_AXES, where=st.lists(_WHERE, max_size=3))
def test_a_block_is_what_python_makes_of_it(axes: dict[str, Any], where: list[str]) -> None:
    axes = dict(sorted(axes.items()))
    brief = brief_of({"axes": axes, "rows": [{"for": ["a", "b", "c"], "where": where}]})

    class Value(str):
        __slots__ = ("columns",)
        columns: dict[str, str]

        def __getattr__(self, name: str) -> str:
            return str(self.columns[name])

    def values(name: str) -> list[Value]:
        made = []
        for entry in axes[name]["values"]:
            value = Value(entry["key"])
            value.columns = entry
            made.append(value)
        return made

    expected = [
        f"b.{a}.{b}.{c}"
        for a, b, c in itertools.product(values("a"), values("b"), values("c"))
        if all(eval(text, {"true": True}, {"a": a, "b": b, "c": c}) for text in where)
    ]
    assert [row["id"] for row in brief.rows()] == expected
    assert brief.count().rows == len(expected)


def test_fourteen_million_combinations_are_counted_at_once() -> None:
    axes = {
        "product": _axis(4000, season=4, kind=3),
        "scene": _axis(60, season=4),
        "locale": _axis(12, kind=3, script=2),
        "size": _axis(5, kind=3),
    }
    where = ["scene.season == product.season", "locale.script == 'v0' or product.kind != 'v1'", "size != 'k4'"]
    brief = brief_of({"axes": axes, "rows": [{"for": list(axes), "where": where}]})
    started = time.process_time()
    count = brief.count()

    assert time.process_time() - started < 1
    # A product has 15 scenes of its season and 4 sizes; those of kind v1 have 6 locales, the others 12.
    assert count.rows == sum(15 * 4 * (6 if number % 3 == 1 else 12) for number in range(4000))


def test_conditions_that_join_too_much_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sdbatch.desk.count.CLASSES_MAX", 50_000)
    axes = {"a": _axis(3000), "b": _axis(3000)}
    brief = brief_of({"axes": axes, "rows": [{"for": ["a", "b"], "where": "a != b"}]})

    with pytest.raises(BriefRefused, match=r"rows.0: its conditions join over 50000 combinations"):
        brief.count()


# --- samples --------------------------------------------------------------------------------------------------------


def _sampled(axes: dict[str, Any], **sample: Any) -> list[str]:
    block = {"for": list(axes), "sample": sample}
    where = sample.pop("where", [])
    return [row["id"] for row in brief_of({"axes": axes, "rows": [{**block, "where": where}]}).rows()]


def test_a_sample_of_a_trillion_stays_when_a_value_is_added() -> None:
    axes = {name: _axis(1000) for name in ("a", "b", "c")} | {"d": _axis(12)}
    before = _sampled(axes, count=300)
    after = _sampled({**axes, "d": _axis(13)}, count=300)

    assert len(set(before)) == len(set(after)) == 300
    assert 255 <= len(set(before) & set(after)) < 300  # 12 of 13 are 277
    backwards = {name: {"values": axis["values"][::-1]} for name, axis in axes.items()}
    assert sorted(_sampled(backwards, count=300)) == sorted(before)


def test_a_sample_has_so_many_of_each() -> None:
    axes = {"a": _axis(7), "b": _axis(9), "c": _axis(5)}
    ids = _sampled(axes, count=3, per=["a"])

    assert [key for key, group in itertools.groupby(ids, lambda row: row.split(".")[1]) if len(list(group)) == 3] == [
        f"k{number}" for number in range(7)
    ]
    assert len(set(ids)) == 21


def test_a_sample_of_few_rows_is_all_of_them() -> None:
    axes = {"a": _axis(40), "b": _axis(40)}

    assert len(_sampled(axes, count=50, where=["a == b"])) == 40
    rare = _sampled(axes, count=39, where=["a == b"])
    assert len(set(rare)) == 39
    assert all(row.split(".")[1] == row.split(".")[2] for row in rare)
