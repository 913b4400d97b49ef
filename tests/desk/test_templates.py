"""Templates put values into texts, and can do nothing else."""

from __future__ import annotations

import time
from typing import Any

import pytest

from sdbatch.desk.axes import Axis
from sdbatch.desk.columns import column_makers
from sdbatch.desk.form import BriefRefused
from sdbatch.desk.templates import Templates
from sdbatch.types import RefusedValue

PRODUCT = Axis(
    name="product",
    keys=["p1", "p2"],
    columns={
        "name": ["mug", "plate"],
        "price": [12, None],
        "items": ["a", "b"],
        "is_sold": [True, False],
        "evil": ["{{ 7 * 7 }} {% for x in y %}", "{{ product.__class__ }}"],
    },
    typed={},
    kinds={},
)
LOCALE = Axis(name="locale", keys=["de", "ja"], columns={"text": ["Tasse", "\u30de\u30b0"]}, typed={}, kinds={})
AXES = (PRODUCT, LOCALE)


def _render(text: str, *row: int) -> Any:
    return Templates(AXES).template(text, "columns.prompt").render(row or (0, 0))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("plain", "plain"),
        ("{{ product.name }} in {{ locale }}", "mug in de"),
        ("{{ product }}", "p1"),
        ("{{ product.price }}", 12),
        ("sold: {{ product.is_sold }}", "sold: true"),
        ("sold: {{ product.is_sold | default('') }}", "sold: true"),
        ("{{ product['name'] }} {{ product.items }}", "mug a"),
        ("{{ product.name | upper }}{{ ', ' ~ locale.text if locale == 'de' else '' }}", "MUG, Tasse"),
        ("{% if product.price == none %}free{% else %}{{ product.price }} EUR{% endif %}", "12 EUR"),
        ("{{ product.name | replace('m', 'h') }}", "hug"),
        ("{{ product.name | default('x') }}", "mug"),
        ("{% if locale in ['de', 'fr'] and not product.name == 'x' %}yes{% endif %}", "yes"),
    ],
)
def test_a_template_gives_text_and_a_reference_alone_its_value(text: str, expected: Any) -> None:
    assert _render(text) == expected


def test_a_value_that_is_a_template_is_not_rendered() -> None:
    assert _render("{{ product.evil }}") == PRODUCT.columns["evil"][0]
    assert _render("see {{ product.evil }}", 1, 0) == "see {{ product.__class__ }}"
    assert _render("{{ product.evil | upper }}", 1, 0) == "{{ PRODUCT.__CLASS__ }}"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{{ product.__class__ }}", "product has no column '__class__'"),
        ("{{ product._axis }}", "product has no column '_axis'"),
        ("{{ ''.__class__ }}", "a part of const is not taken"),
        ("{{ product.name.upper }}", "a part of getattr is not taken"),
        ("{{ product.name.upper() }}", "a call is not taken"),
        ("{{ product['na' ~ 'me'] }}", "is not taken"),
        ("{{ 'a' * 1000000000 }}", "arithmetic is not taken"),
        ("{{ 9 ** 9 ** 9 }}", "arithmetic is not taken"),
        ("{{ '%099999999d' % 1 }}", "arithmetic is not taken"),
        ("{{ 1 + 1 }}", "~ joins texts"),
        ("{% for x in product %}{% endfor %}", "a loop is not taken"),
        ("{% set x = 1 %}", "set is not taken"),
        ("{% macro m() %}{% endmacro %}", "a macro is not taken"),
        ("{% include '/etc/passwd' %}", "include is not taken"),
        ("{{ range(9) }}", "a call is not taken"),
        ("{{ product.name | attr('x') }}", "the filter attr is not taken"),
        ("{{ product.name | center(1000000000) }}", "the filter center is not taken"),
        ("{{ product.name is callable }}", "the test callable is not taken"),
        ("{{ self }}", "self is no axis"),
        ("{{ produkt.name }}", "produkt is no axis; did you mean product?"),
        ("{{ product.nmae }}", "product has no column 'nmae'; did you mean name?"),
        ("{{ product.name", "line 1: "),
        ("{{ product.name | nope }}", "the filter nope is not taken"),
        ("x" * 20_000, "characters, over"),
    ],
)
def test_what_is_not_taken_is_refused_by_name(text: str, said: str) -> None:
    with pytest.raises(BriefRefused, match=r"^columns.prompt: ") as caught:
        _render(text)

    assert said in str(caught.value)


def test_a_text_that_grows_and_grows_is_refused() -> None:
    started = time.process_time()
    refused = _render("{{ product.name" + " | replace('m', 'mm')" * 60 + " }}")

    assert isinstance(refused, RefusedValue)
    assert "over 65536 characters" in refused.message
    assert time.process_time() - started < 2


def test_an_empty_value_is_never_written_as_a_word() -> None:
    refused = _render("costs {{ product.price }}", 1, 0)
    assert isinstance(refused, RefusedValue)
    assert refused.message == "cannot be made: product.price is empty; {{ product.price or '' }} leaves it out"
    assert isinstance(_render("costs {{ product.price if true else 1 }}", 1, 0), RefusedValue)
    assert _render("costs {{ product.price or '' }}", 1, 0) == "costs "
    assert _render("{{ product.price }}", 1, 0) is None


def test_what_cannot_be_compared_refuses_the_row_alone() -> None:
    refused = _render("{% if product.name < 3 %}x{% endif %}")

    assert isinstance(refused, RefusedValue)
    assert "'<' not supported" in refused.message


# --- columns --------------------------------------------------------------------------------------------------------


def test_a_column_is_chosen_by_an_axis() -> None:
    form = {"by": "locale", "ja": "{{ locale.text }}", "else": "{{ product.name }}"}
    (maker,) = column_makers({"prompt": form}, AXES, "brief")

    assert [maker.value((1, locale)) for locale in (0, 1)] == ["plate", "\u30de\u30b0"]
    assert maker.axes == {0, 1}
    (maker,) = column_makers({"guidance_scale": {"by": "product.name", "mug": 3, "plate": 4.5}}, AXES, "brief")
    assert [maker.value((product, 0)) for product in (0, 1)] == [3, 4.5]


def test_a_list_is_one_of_templates() -> None:
    (maker,) = column_makers({"images": ["{{ product.name }}.png", "b.png"]}, AXES, "brief")

    assert maker.value((0, 0)) == ["mug.png", "b.png"]


@pytest.mark.parametrize(
    ("columns", "said"),
    [
        ({"promt": "x"}, "columns.promt: is not a column of a manifest; did you mean prompt?"),
        ({"cfg": "7"}, "columns.cfg: is not a column of a manifest; did you mean guidance_scale?"),
        ({"id": "x"}, "columns.id: is made by the brief itself"),
        ({"seed_group": "x"}, "columns.seed_group: is made by the brief itself"),
        ({"x_product": "x"}, "columns.x_product: every axis stands in its own column already"),
        ({"prompt": {"ja": "x"}}, "a mapping needs by"),
        ({"prompt": {"by": "lokale"}}, "by 'lokale': axes are product, locale"),
        ({"prompt": {"by": "locale.x"}}, "by 'locale.x': locale has text"),
        ({"prompt": {"by": "locale", "de": "x"}}, "has nothing for locale ja, and no else"),
        ({"prompt": {"by": "locale", "jp": "x", "else": "y"}}, "locale never is 'jp'"),
        ({"prompt": {"by": "locale", False: "x", "else": "y"}}, "put it in quotes, as in 'no'"),
    ],
)
def test_a_column_that_cannot_be_is_refused(columns: dict[str, Any], said: str) -> None:
    with pytest.raises(BriefRefused) as caught:
        column_makers(columns, AXES, "brief")

    assert said in str(caught.value)
