"""Names of delivered files: what a template may say, and what becomes of values that no file system takes."""

from __future__ import annotations

import re
from typing import Any

import pytest

from sdbatch.deliver.names import Template, collisions
from sdbatch.errors import JobError

ROW = {"id": "mug.1", "n": 0, "format": "story", "ext": "jpg", "x_locale": "de-DE"}


def _filled(text: str, **values: Any) -> str:
    return Template(text).filled({**ROW, **values})


def test_columns_stand_for_their_values() -> None:
    assert _filled("{x_locale}/{format}/{id}_{n}.{ext}") == "de-DE/story/mug.1_0.jpg"


@pytest.mark.parametrize(
    ("value", "part"),
    [
        ("a/b", "a-b"),
        ("a\\b:c", "a-b-c"),
        ("../../etc", "_..-..-etc"),
        ("..", "_"),
        ("", "-"),
        ("CON", "CON_"),
        ("com1.txt", "com1_.txt"),
        ("console", "console"),
        ("cafe\u0301", "caf\u00e9"),
        ("a\u202egpj", "a-gpj"),
        ("a\nb", "a-b"),
        ("end. ", "end"),
        (".hidden", "_.hidden"),
        (7, "7"),
        (True, "true"),
    ],
)
def test_a_value_becomes_one_safe_part_of_a_name(value: Any, part: str) -> None:
    assert _filled("{x_a}/{id}.{ext}", x_a=value) == f"{part}/mug.1.jpg"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{id}", "does not end with .{ext}"),
        ("../{id}.{ext}", "has '..'"),
        ("/{id}.{ext}", "has an empty part"),
        ("a//{id}.{ext}", "has an empty part"),
        ("{id.__class__}.{ext}", "{id.__class__} is not the name of a column"),
        ("{id!r}.{ext}", "is not the name of a column"),
        ("{n:09d}.{ext}", "is not the name of a column"),
        ("{0}.{ext}", "is not the name of a column"),
        ("{id.{ext}", "is no template"),
        ("a\\{id}.{ext}", "not every file system takes"),
        ("a:{id}.{ext}", "not every file system takes"),
    ],
)
def test_a_template_has_columns_and_nothing_else(text: str, said: str) -> None:
    with pytest.raises(JobError, match=re.escape(said)):
        Template(text)


def test_an_unknown_column_is_told_the_nearest() -> None:
    with pytest.raises(JobError, match="no column x_local; did you mean x_locale"):
        Template("{x_local}/{id}.{ext}").check_fields(["x_locale", "prompt"])


@pytest.mark.parametrize(
    ("text", "values", "said"),
    [
        ("{x_a}/{id}.{ext}", {"x_a": None}, "x_a has no value"),
        ("{x_a}.{ext}", {"x_a": "ä" * 130}, "bytes, over 255"),
        ("{x_a}/{x_a}/{x_a}.{ext}", {"x_a": "a" * 200}, "bytes, over 512"),
        ("Deliveries/{id}.{ext}", {}, "which is the delivery's own"),
    ],
)
def test_a_name_that_cannot_be_is_refused(text: str, values: dict[str, Any], said: str) -> None:
    with pytest.raises(JobError, match=said):
        _filled(text, **values)


def test_a_collision_names_both_makers() -> None:
    (line,) = collisions([("A/mug.jpg", "one"), ("a/MUG.jpg", "two"), ("b.jpg", "three")])

    assert "both one and two" in line


def test_a_file_where_another_needs_a_folder_is_a_collision() -> None:
    (line,) = collisions([("a.jpg", "one"), ("A.jpg/b.jpg", "two")])

    assert "two needs a folder where one has the file a.jpg" in line
    assert collisions([("a.jpg", "one"), ("b/a.jpg", "two")]) == []
