"""A brief: ids that never move, rows that merge, and what is refused."""

from __future__ import annotations

import copy
import random
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from sdbatch.desk.axes import axis_of
from sdbatch.desk.brief import Brief
from sdbatch.desk.form import AxisForm, BriefRefused, parse_form, read_form
from sdbatch.errors import UserError

TABLES: dict[str, list[dict[str, Any]]] = {
    "products.csv": [
        {"SKU": f"P {n}", "Name DE": f"Tasse {n}", "season": ("winter", "summer")[n % 2], "price": f"{n}.50"}
        for n in range(15)
    ],
    "scenes.csv": [{"name": f"scene{n}", "season": ("winter", "summer", None)[n % 3]} for n in range(15)],
    "locales.csv": [{"locale": name} for name in ("de-DE", "fr-FR", "ja-JP", "no")],
}
FORM: dict[str, Any] = {
    "brief": "spring",
    "axes": {
        "product": {"table": "products.csv", "key": "sku"},
        "scene": {"table": "scenes.csv", "key": "name"},
        "locale": {"table": "locales.csv", "key": "locale"},
    },
    "rows": [{"for": ["product", "scene", "locale"]}],
    "same_seed": ["locale"],
    "columns": {"prompt": "{{ product.Name_DE }} {{ scene }} {{ locale }}"},
}


def _brief(form: dict[str, Any], tables: dict[str, list[dict[str, Any]]] = TABLES) -> Brief:
    def read(table: str, sheet: str | None) -> Any:
        assert sheet is None
        return list(enumerate(tables.get(Path(table).name, []), 2))

    return Brief(parse_form(form), Path("/nowhere"), read, "brief")


def _rows(form: dict[str, Any], tables: dict[str, list[dict[str, Any]]] = TABLES) -> dict[str, dict[str, Any]]:
    rows = {row["id"]: row for row in _brief(form, tables).rows()}
    assert len(rows) == _brief(form, tables).count().rows
    return rows


def _changed(**changes: Any) -> dict[str, Any]:
    return {**copy.deepcopy(FORM), **changes}


def _what_is_made(row: dict[str, Any]) -> tuple[Any, ...]:
    return row["prompt"], row["seed_group"]


def test_ids_and_what_they_make_stay_whatever_is_added_or_turned_round() -> None:
    before = _rows(FORM)
    assert len(before) == 900
    assert before["spring.P-3.scene0.de-DE"] == {
        "id": "spring.P-3.scene0.de-DE",
        "seed_group": "spring.P-3.scene0",
        "prompt": "Tasse 3 scene0 de-DE",
        "x_product": "P-3",
        "x_scene": "scene0",
        "x_locale": "de-DE",
    }

    def kept(after: dict[str, dict[str, Any]]) -> int:
        return sum(name in after and _what_is_made(after[name]) == _what_is_made(row) for name, row in before.items())

    with_locale = {**TABLES, "locales.csv": [{"locale": "es-ES"}, *TABLES["locales.csv"]]}
    assert (kept(_rows(FORM, with_locale)), len(_rows(FORM, with_locale))) == (900, 1125)
    backwards = {name: rows[::-1] for name, rows in TABLES.items()}
    turned = _rows(_changed(rows=[{"for": ["locale", "scene", "product"]}]), backwards)
    assert (kept(turned), len(turned)) == (900, 900)
    with_product = {**TABLES, "products.csv": [{"SKU": "new", "Name DE": "n", "season": None}, *TABLES["products.csv"]]}
    assert (kept(_rows(FORM, with_product)), len(_rows(FORM, with_product))) == (900, 960)
    styled = _changed(
        axes={"style": {"values": ["plain", "neon"], "default": "plain"}, **FORM["axes"]},
        rows=[{"for": ["style", "product", "scene", "locale"]}],
    )
    assert (kept(_rows(styled)), len(_rows(styled))) == (900, 1800)
    assert "spring.style-neon.P-3.scene0.de-DE" in _rows(styled)


def test_a_default_stands_where_a_block_does_not_name_the_axis() -> None:
    axes = {**FORM["axes"], "style": {"values": ["plain", "neon"], "default": "plain"}}
    columns = {"prompt": "{{ product.Name_DE }} {{ style }}"}
    rows = _rows(_changed(axes=axes, columns=columns, rows=[{"for": ["product"]}], same_seed=[]))

    assert rows["spring.P-0"] == {
        "id": "spring.P-0",
        "prompt": "Tasse 0 plain",
        "x_product": "P-0",
        "x_scene": None,
        "x_locale": None,
        "x_style": "plain",
    }


def test_where_reads_numbers_and_columns_of_both_sides() -> None:
    where = ["scene.season == product.season", "product.price > 10", "locale not in ('no',) or product.price >= 14"]
    rows = _rows(_changed(rows=[{"for": ["product", "scene", "locale"], "where": where}]))

    # Products 10 to 14: winter is even, of 5 scenes each; three locales, and the fourth for 14 alone.
    assert len(rows) == 5 * 5 * 3 + 5
    assert {row["x_product"] for row in rows.values()} == {f"P-{n}" for n in range(10, 15)}


def test_equal_rows_of_two_blocks_are_one() -> None:
    blocks = [{"for": ["product", "locale"], "with": {"scene": "scene1"}}, {"for": ["product", "scene", "locale"]}]

    assert len(_rows(_changed(rows=blocks))) == 900
    assert _brief(_changed(rows=blocks)).count().blocks == {"rows.0": 60, "rows.1": 840}


def test_blocks_that_want_other_outputs_of_one_row_are_refused() -> None:
    blocks: list[dict[str, Any]] = [
        {"for": ["product", "locale"], "with": {"scene": "scene1"}, "outputs": 4},
        {"for": ["product", "scene", "locale"], "where": "product in ('P-1', 'P-2')"},
    ]
    with pytest.raises(BriefRefused, match=r"rows.1: 8 of its rows are also in rows.0, with other outputs"):
        _brief(_changed(rows=blocks))

    blocks[1]["where"] = "product in ('P-1', 'P-2') and scene != 'scene1'"
    count = _brief(_changed(rows=blocks)).count()
    assert (count.rows, count.outputs) == (60 + 112, 240 + 112)


def test_zipped_axes_go_together() -> None:
    rows = _rows(_changed(rows=[{"for": ["product", "locale"], "zip": [["product", "scene"]]}]))

    assert len(rows) == 60
    assert {(row["x_product"], row["x_scene"]) for row in rows.values()} == {(f"P-{n}", f"scene{n}") for n in range(15)}


def test_a_preview_is_spread_over_all_values() -> None:
    rows = _brief(FORM).preview(30)

    assert len({row["id"] for row in rows}) == 30
    assert len({row["x_product"] for row in rows}) > 8
    assert len({row["x_locale"] for row in rows}) == 4


def test_the_values_of_an_axis_may_be_chosen() -> None:
    axes = {**FORM["axes"], "product": {"table": "products.csv", "key": "SKU", "where": "season == 'winter'"}}

    assert len(_rows(_changed(axes=axes))) == 8 * 15 * 4


def _lines(text: bytes, tmp_path: Path) -> list[str]:
    (tmp_path / "colours.txt").write_bytes(text)
    form = AxisForm.model_validate({"lines": "colours.txt"})
    axis = axis_of("colour", form, tmp_path, lambda *_: [], "axes.colour")
    assert axis.columns["text"] == [line.strip() for line in text.decode("utf-8-sig").splitlines() if line.strip()]
    return axis.keys


def test_lines_are_values_whose_keys_are_made_of_them(tmp_path: Path) -> None:
    assert _lines("\ufeffdeep blue\r\n\r\n caf\u00e9 au lait \n".encode(), tmp_path) == ["deep-blue", "cafe-au-lait"]
    with pytest.raises(BriefRefused, match=r"line 2 of colours.txt has the same key, deep-blue, as line 1"):
        _lines(b"deep blue\ndeep, blue\n", tmp_path)
    with pytest.raises(BriefRefused, match="No such file"):
        axis_of("x", AxisForm.model_validate({"lines": "none.txt"}), tmp_path, lambda *_: [], "axes.x")


LONG = {"values": [f"{letter * 40}" for letter in "ab"]}


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"axis": 1}, "unknown key; did you mean axes?"),
        ({"brief": "a b"}, "brief: 'a b' should match pattern"),
        ({"same_seed": "locale"}, "same_seed: 'locale' should be a list"),
        ({"rows": [["a"]]}, "rows.0: should be a mapping of keys"),
        ({"axes": {"a": {"vlaues": ["x"]}}}, "axes.a.vlaues: unknown key; did you mean values?"),
        ({"rows": []}, "rows: "),
        ({"rows": [{"for": ["product"], "wher": "x"}]}, "rows.0.wher: unknown key; did you mean where?"),
        ({"rows": [{"for": ["produkt"]}]}, "rows.0: produkt is no axis; axes are product, scene, locale"),
        ({"rows": [{"for": ["product", "locale"]}]}, "rows.0: columns read scene, and its rows have none"),
        ({"rows": [{"for": ["product", "scene", "locale"], "with": {"scene": "x"}}]}, "scene has one value by `with`"),
        ({"rows": [{"for": ["product", "locale"], "with": {"scene": "x"}}]}, "scene has no value 'x'; it has scene0"),
        ({"rows": [{"for": ["product", "locale"], "zip": [["locale", "scene"]]}]}, "locale has 4, scene has 15 values"),
        (
            {"rows": [{"for": ["product", "scene", "locale"], "where": "product.price == '1'"}]},
            "rows.0: where.0: \"product.price == '1'\", at character 18: is text, and product.price is a number",
        ),
        ({"rows": [{"for": ["product", "scene", "locale"], "where": "x.y == 1"}]}, "x.y is no column here"),
        ({"same_seed": ["style"]}, "same_seed: style is no axis"),
        ({"axes": {**FORM["axes"], "style": {"values": [True]}}}, "put the word in quotes"),
        ({"axes": {**FORM["axes"], "style": {"values": ["a", "A"]}}}, "a key that differs from a in capitals alone"),
        ({"axes": {**FORM["axes"], "style": {"values": ["x" * 41]}}}, "is no key; keys are letters"),
        ({"axes": {**FORM["axes"], "style": {"values": ["a"], "lines": "x"}}}, "has values and lines; one of them"),
        ({"axes": {**FORM["axes"], "style": {"values": ["a"], "default": "b"}}}, "default: style has no value 'b'"),
        ({"axes": {**FORM["axes"], "shape": {"values": ["a"]}}}, "the axis shape is made from formats"),
        ({"axes": {"product": {"table": "products.csv", "key": "id"}}}, "products.csv has no column 'id'; it has SKU"),
        ({"axes": {"product": {"table": "products.csv"}}}, "a table needs key"),
        ({"axes": {"product": {"lines": "a\0b"}}}, "a path holds no NUL"),
        (
            {
                "axes": {"a": LONG, "b": LONG, "c": LONG, "d": LONG},
                "rows": [{"for": ["a", "b", "c", "d"]}],
                "columns": {"prompt": "x"},
                "same_seed": [],
            },
            "ids would have up to 170 characters, over 128 (a 40, b 40, c 40, d 40)",
        ),
    ],
)
def test_what_is_wrong_is_named(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(UserError) as caught:
        _brief(_changed(**changes))

    assert said in str(caught.value)


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ("no", "line 4: YAML reads no without quotes as a truth value; put the word in quotes"),
        ("{key: en, word: On}", "line 4: YAML reads On without quotes as a truth value"),
        ("0012", "line 4: '0012' is 10 to base 8"),
    ],
)
def test_a_value_that_yaml_takes_for_another_one_is_refused_with_its_line(
    tmp_path: Path, value: str, said: str
) -> None:
    file = tmp_path / "brief.yaml"
    text = "brief: b\naxes:\n  locale: {values: [\n    %s]}\nrows: [{for: [locale]}]\ncolumns: {prompt: p}\n"
    file.write_text(text % value)
    with pytest.raises(UserError, match=re.escape(said)):
        read_form(file, "brief.yaml")
    file.write_text(text % "'no', {key: en, sold: true}")
    assert (read_form(file, "brief.yaml").axes["locale"].values or [])[1] == {"key": "en", "sold": True}


def test_a_key_that_stands_twice_in_a_table_is_refused() -> None:
    tables = {**TABLES, "products.csv": [{"SKU": "a"}, {"SKU": "b"}, {"SKU": "A"}]}
    with pytest.raises(BriefRefused, match=r"axes.product: line 4 of products.csv has a key that differs from a in"):
        _brief(FORM, tables)
    with pytest.raises(BriefRefused, match=r"line 2 of products.csv: sku is empty"):
        _brief(FORM, {**TABLES, "products.csv": [{"SKU": None}]})
    with pytest.raises(BriefRefused, match=r"the columns 'a b' and 'a-b' are both called a_b"):
        _brief(FORM, {**TABLES, "products.csv": [{"SKU": "a", "a b": "1", "a-b": "2"}]})


_STRANGE: tuple[Any, ...] = (
    None, True, -1, 1.5, float("nan"), 10**30, "", "x", [], {}, [None], {"a": 1}, "{{ product.season }}", "{{", "\0",
    "{% if %}", "product.season == 1", "a" * 500, {"by": "locale"}, {"by": None, "else": 3}, "shape", [["product"]],
)  # fmt: skip


def _places(value: Any, place: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, one in inner:
        yield (*place, key)
        yield from _places(one, (*place, key))


@pytest.mark.parametrize("seed", range(150))
def test_a_brief_with_something_strange_in_it_is_taken_or_refused_in_words(seed: int) -> None:
    chance = random.Random(seed)
    form = _changed(rows=[{"for": ["product", "scene", "locale"], "where": ["product.price > 3"], "outputs": 2}])
    for _ in range(chance.randint(1, 2)):
        *above, key = chance.choice(list(_places(form)))
        inner: Any = form
        for part in above:
            inner = inner[part]
        inner[key] = copy.deepcopy(chance.choice(_STRANGE))
    try:
        assert _brief(form).count().rows >= len(_brief(form).preview(3)) > 0
    except UserError as error:
        assert str(error).startswith("brief")  # noqa: PT017 -- it may also be taken
