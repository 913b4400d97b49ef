"""Prompt syntax of other programs is told by name, and plain prose is not."""

from __future__ import annotations

import pytest

from sdbatch.manifest.foreign_syntax import TABLE, foreign_syntax, may_hold_syntax

FOREIGN = {
    "a (red:1.3) mug": ("(red:1.3)", "weight of A1111"),
    "a (red mug:0.8), (sky: 1.2)": ("(red mug:0.8)", "weight of A1111"),
    "((masterpiece)), a mug": ("((masterpiece))", "emphasis of A1111"),
    "a mug, [blurry]": ("[blurry]", "less of it"),
    "a [cat:dog:0.5]": ("[cat:dog:0.5]", "prompt editing"),
    "a [cat|dog] by the sea": ("[cat|dog]", "prompt editing"),
    "a mug <lora:cozy:0.8>": ("<lora:cozy:0.8>", "LoRA"),
    "a mug <hypernet:old:1>": ("<hypernet:old:1>", "hypernetwork"),
    "a mug BREAK a beach": ("BREAK", "new chunk"),
    "a mug AND a beach": ("AND", "joins several prompts"),
    "a {red|blue} mug": ("{red|blue}", "dynamic prompts"),
    "a {2$$red|blue|green} mug": ("{2$$red|blue|green}", "dynamic prompts"),
    "a photo of {product}": ("{product}", "placeholder"),
    "a mug, __lighting__": ("__lighting__", "wildcard"),
    "a mug, __styles/oil-paint__": ("__styles/oil-paint__", "wildcard"),
    "a mug, embedding:EasyNegative": ("embedding:EasyNegative", "textual inversion"),
    "hatsune \\(miku\\)": ("\\(", "escaped bracket"),
    "a (red)1.3 mug": (")1.3", "compel"),
    "a (red)++ mug": (")++", "compel"),
    '("a cat", "a dog").blend(0.5, 0.5)': (").blend(", "compel"),
    "a mug --ar 16:9": ("--ar", "Midjourney"),
    "hot::2 dog::1": ("t::2", "Midjourney"),
}
PROSE = (
    "a cat (a tabby, very old) on a mat",
    "a poster (ratio 16:9), cinematic (2.39:1)",
    "a clock (at 10:30), a scroll (John 3:16), a map (scale 1:50)",
    "a mug (size: 2 m), a recipe (step: 3)",
    "a sign that says COFFEE BREAK, and one that says SALT AND PEPPER",
    "break dance and sand",
    "a quote [sic], a footnote [1], and so on [...]",
    "a well -- known -- place; semi-(trans)-parent, word--",
    "a C++ book, 3 < 4 > 2, smile :) and frown :(",
    "a file called snake__case__name.png",
    "nice (very) nice (quite), (one) (two)",
    "an embedding: dense vectors",
    "std::string on a screen, and a --dry run",
    "der Preis (in Euro): 5; 混沌の街",
)


@pytest.mark.parametrize(
    "text",
    [
        pytest.param(text, marks=pytest.mark.fault("F19", text, f"a warning that names it: {FOREIGN[text][1]}"))
        for text in FOREIGN
    ],
)
def test_foreign_syntax_is_named(text: str) -> None:
    snippet, meaning = FOREIGN[text]

    found = list(foreign_syntax(text))
    assert len(found) == 1
    assert found[0][0] == snippet
    assert meaning in found[0][1]
    assert may_hold_syntax(["plain", None, text])


@pytest.mark.parametrize("text", PROSE)
@pytest.mark.fault("F19", "prose with parentheses, ratios, times, capitals, dashes", "no warning")
def test_prose_is_no_syntax(text: str) -> None:
    assert list(foreign_syntax(text)) == []


def test_every_kind_is_found_somewhere() -> None:
    found = {message for text in FOREIGN for _, message in foreign_syntax(text)}

    assert found == {syntax.message for syntax in TABLE}


def test_several_kinds_in_one_text_are_each_told_once() -> None:
    found = list(foreign_syntax("(a:1.2) BREAK (b:0.9), <lora:x:1>, <lora:y:1> [z]"))

    assert [snippet for snippet, _ in found] == ["<lora:x:1>", "(a:1.2)", "[z]", "BREAK"]


@pytest.mark.parametrize(
    ("text", "left"),
    [("a (red:1.3) mug", []), ("a (red)1.3 \\(mug\\)", []), ("(red:1.3) mug BREAK [z]", ["[z]", "BREAK"])],
)
def test_weights_are_no_foreign_syntax_where_they_are_read(text: str, left: list[str]) -> None:
    assert [snippet for snippet, _ in foreign_syntax(text, reads_weights=True)] == left
    assert len(list(foreign_syntax(text))) > len(left)


def test_a_long_hostile_text_takes_no_time() -> None:
    import time

    started_s = time.process_time()
    for text in ("(" * 8000, "[" * 8000, "{" * 8000, "<lora:" * 1300, "((a" * 2600, "__a" * 2600, "\\" * 8000):
        list(foreign_syntax(text))

    assert time.process_time() - started_s < 2.0
