"""The reference is the code's: no generated piece is older than what it is made from, and each has its place."""

from __future__ import annotations

import pytest

from docs.generator.pages import names_in, pages, with_pieces
from docs.generator.pieces import PIECES
from sdbatch.columns import MANIFEST
from sdbatch.families import FAMILIES

LINES_MAX = 350


def test_the_pages_are_as_the_code_is() -> None:
    stale = []
    for page in pages():
        text = page.read_text(encoding="utf-8")
        if with_pieces(text, PIECES) != text:
            stale.append(page.name)

    assert stale == [], "run `make reference`"


def test_every_piece_stands_in_one_page() -> None:
    asked = [name for page in pages() for name in names_in(page.read_text(encoding="utf-8"))]

    assert sorted(asked) == sorted(PIECES)


def test_a_mark_that_is_not_closed_or_not_known_is_told() -> None:
    with pytest.raises(ValueError, match="is not closed"):
        with_pieces("<!-- generated: columns -->\n", PIECES)
    with pytest.raises(KeyError, match="colums"):
        with_pieces("<!-- generated: colums -->\n<!-- /generated: colums -->\n", PIECES)


def test_what_the_code_has_is_in_the_tables() -> None:
    assert all(f"| `{name}` |" in PIECES["columns"]() for name in MANIFEST)
    assert all(f"| {title} (`{family.class_name}`) |" in PIECES["families"]() for title, family in FAMILIES.items())
    assert "| `130` | interrupted" in PIECES["exit-codes"]()
    assert "## manifest build\n" in PIECES["commands-make"]()
    assert "`--by NAME`" in PIECES["commands-look"]()
    assert "| `guidance_interval` |" in PIECES["job"]()


def test_no_page_is_longer_than_a_person_reads() -> None:
    lengths = {page.name: len(page.read_text(encoding="utf-8").splitlines()) for page in pages()}

    assert {name: length for name, length in lengths.items() if length > LINES_MAX} == {}
