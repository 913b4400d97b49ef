"""A label's letters: those of Pillow's own font, those of a font that a delivery names, and those that need more."""

from __future__ import annotations

import unicodedata
from pathlib import Path

import pytest
from PIL import features

from sdbatch.deliver.label import check_label, label_image
from sdbatch.deliver.marking import Label
from sdbatch.errors import JobError

DEJAVU = Path("/usr/share/fonts/truetype/dejavu/DejaVuSans.ttf")
needs_dejavu = pytest.mark.skipif(not DEJAVU.is_file(), reason="Debian's fonts-dejavu-core is not installed")


def test_letters_that_the_font_lacks_are_named_with_what_to_do() -> None:
    with pytest.raises(JobError, match="has é, which the label's font does not have; name another in label"):
        check_label(Label(text="Généré par IA"))


@needs_dejavu
@pytest.mark.parametrize("text", ["Généré par IA", "Vytvořeno pomocí AI", "Создано ИИ", "Δημιουργία από μηχανή"])
def test_a_font_brings_its_letters_however_accents_are_written(text: str) -> None:
    composed, apart = (Label(text=unicodedata.normalize(form, text), font=str(DEJAVU)) for form in ("NFC", "NFD"))
    check_label(apart)

    assert label_image(apart, 800, 600).tobytes() == label_image(composed, 800, 600).tobytes()
    bare = Label(text=unicodedata.normalize("NFD", text).encode("ascii", "ignore").decode() or "x", font=str(DEJAVU))
    assert label_image(bare, 800, 600).tobytes() != label_image(composed, 800, 600).tobytes()


@needs_dejavu
def test_a_font_that_lacks_letters_too_is_refused() -> None:
    with pytest.raises(JobError, match=r"has 成 生, which the label's font does not have$"):
        check_label(Label(text="AI生成", font=str(DEJAVU)))


@needs_dejavu
@pytest.mark.skipif(not features.check("raqm"), reason="this Pillow sets no letters that join")
def test_arabic_letters_join_and_run_from_right_to_left() -> None:
    joined, alone = (label_image(Label(text=text, font=str(DEJAVU)), 800, 600) for text in ("بب", "ب\u200cب"))

    assert joined.width < alone.width


@needs_dejavu
def test_letters_that_join_are_refused_where_nothing_joins_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(features, "check", lambda _: False)

    with pytest.raises(JobError, match="install FriBiDi"):
        check_label(Label(text="مولد", font=str(DEJAVU)))


def test_what_is_no_font_is_refused_by_name(tmp_path: Path) -> None:
    text = tmp_path / "font.ttf"
    text.write_text("no font")

    with pytest.raises(JobError, match="cannot be read as a font"):
        check_label(Label(text="AI", font=str(text)))
    with pytest.raises(JobError, match="is not a file of this machine"):
        check_label(Label(text="AI", font=str(tmp_path)))
    with pytest.raises(JobError, match=r"'DejaVuSans.ttf' is not a file"):  # Pillow alone would look elsewhere
        check_label(Label(text="AI", font="DejaVuSans.ttf"))
