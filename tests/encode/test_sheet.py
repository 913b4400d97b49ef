"""Labels of a sheet can be read, whatever letters they have."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from PIL import Image, ImageFont

from sdbatch.encode import sheet
from sdbatch.encode.sheet import Labelled, SheetSection, contact_sheet


def _sheet(*labels: str) -> bytes:
    picture = Image.new("RGB", (64, 64), "#88aacc")
    cells = [Labelled(place, 0, picture) for place in range(len(labels))]
    return contact_sheet(("prompt", labels), None, [SheetSection("row", cells)])


@pytest.fixture(autouse=True)
def _fonts_looked_up_anew() -> Iterator[None]:
    sheet._fonts.cache_clear()
    yield
    sheet._fonts.cache_clear()


def test_letters_that_no_font_here_has_lose_their_accents(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sheet, "_FONTS", ())

    assert _sheet("\u00e9t\u00e9 \u00e0 Paris", "Le\u0301a") == _sheet("ete a Paris", "Lea")
    assert _sheet("日本語") == _sheet("中国的")  # boxes


def test_each_label_is_in_a_font_that_has_its_letters(monkeypatch: pytest.MonkeyPatch) -> None:
    try:
        ImageFont.truetype("DejaVuSans.ttf", 14)
    except OSError:
        pytest.skip("DejaVu Sans is not on this machine")
    monkeypatch.setattr(sheet, "_FONTS", ("no such font.ttf", "DejaVuSans.ttf"))

    assert len({_sheet(text) for text in ("été", "ete", "зима", "кожа", "قطة", "كلب")}) == 6
    assert _sheet("Le\u0301a") == _sheet("L\u00e9a")
    own = sheet._font("plain words", 14)[0]
    assert own.getname() == ImageFont.load_default(14).getname()  # type: ignore[union-attr]
