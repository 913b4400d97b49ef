"""Spreadsheets as people have them: encodings, separators, decimals, headers, workbooks."""

from __future__ import annotations

import datetime as dt
import json
import random
import re
import time
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import openpyxl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from sdbatch.errors import ManifestError
from sdbatch.manifest.build import Built, build_shards
from sdbatch.manifest.western import strange_word

Rows = list[dict[str, Any]]


def _rows(built: Built) -> Rows:
    return [row for file in built.files for row in pq.read_table(file).to_pylist()]


@pytest.fixture
def build(tmp_path: Path) -> Callable[..., tuple[Rows, Built]]:
    """Write bytes as a file, and build a manifest from it."""

    def built(name: str, content: str | bytes, **options: Any) -> tuple[Rows, Built]:
        source = tmp_path / name
        source.write_bytes(content if isinstance(content, bytes) else content.encode())
        result = build_shards(source, tmp_path / "out", **options)
        return _rows(result), result

    return built


def _refused(build: Callable[..., Any], name: str, content: str | bytes, **options: Any) -> str:
    with pytest.raises(ManifestError) as caught:
        build(name, content, **options)
    assert len(caught.value.problems) == caught.value.num_problems
    return str(caught.value)


def _workbook(path: Path, sheets: dict[str, list[list[Any]]]) -> openpyxl.Workbook:
    book = openpyxl.Workbook()
    book.remove(book.active)
    for title, rows in sheets.items():
        sheet = book.create_sheet(title)
        for row in rows:
            sheet.append(row)
    book.save(path)
    return book


# --- encodings ------------------------------------------------------------------------------------------------------

TEXT = "id,prompt\na,ein Caf\u00e9 am M\u00fchlbach\n"


@pytest.mark.fault("F27", "CSV in UTF-8, with and without a mark, UTF-16, cp1252", "read alike, and said aloud")
@pytest.mark.parametrize(
    ("encoding", "mark", "said"),
    [
        ("utf-8", b"", None),
        ("utf-8-sig", b"", None),
        ("utf-16", b"", "is read as UTF-16"),
        ("utf-16-le", b"", "is read as UTF-16"),
        ("utf-16-be", b"", "is read as UTF-16"),
        ("utf-16-be", b"\xfe\xff", "is read as UTF-16"),
        ("utf-32", b"", "is read as UTF-32"),
        ("cp1252", b"", "is read as cp1252 (Windows, western Europe), since it is not UTF-8: line 2 has 'Caf\u00e9'"),
    ],
)
def test_an_encoding_is_told(build: Any, encoding: str, mark: bytes, said: str | None) -> None:
    rows, built = build("t.csv", mark + TEXT.encode(encoding))

    assert rows == [{"id": "a", "prompt": "ein Caf\u00e9 am M\u00fchlbach"}]
    assert built.notes == (() if said is None else (f"t.csv: {said}",))


@pytest.mark.parametrize(
    ("text", "encoding"),
    [
        ("\u043c\u043e\u0440\u0435 \u0438 \u0433\u043e\u0440\u044b", "cp1251"),
        ("zbo\u017ce i \u0142\u0105ka", "cp1250"),
        ("\u6d77\u3068\u5c71", "shift_jis"),
        ("un caf\u00e9 \u00e0 Orl\u00e9ans, c'est \u00e9gal, fa\u00e7ade", "mac_roman"),
    ],
)
def test_another_alphabet_is_refused_and_not_guessed(build: Any, text: str, encoding: str) -> None:
    message = _refused(build, "t.csv", f'id,prompt\na,plain\nb,"{text}"\n'.encode(encoding))

    assert "t.csv: is neither UTF-8 nor western European text (line 3" in message


_OF_CENTRAL_EUROPE = [
    ("cp1250", "červený hrnek na dřevěném stole"),
    ("cp1250", "naplemente, őszi erdő"),
    ("cp1250", "munţi cu zăpadă şi soare"),
    ("cp1250", "čaj u kući, večer"),
    ("cp1250", "rdeča skodelica"),
    ("cp1254", "karl\u0131 g\u00fcne\u015f"),
    ("cp1257", "sniegotos kalnų viršūnės žiemą"),
]
_WESTERN = (
    "Hüttencafé mit Entréetür, Citroën, Häagen-Dazs; crème brûlée, où, œuvre, L'Haÿ; pingüino, Señor, Dalí, 2ª, nºs; "
    "manhã, irmãs, corações, põe, órgão, sanduíche; però, conèixer, dèiem, cançó; più, lunedì, perché; één; "
    "smörgåstårta à la crème, idéträdgård, smørrebrød, caféområde; Guðmundsdóttir, samþykkja, íþróttir; õlu, Škoda; "
    "5 µm, ƒ/2.8, CAFÉ, GROß"
)


@pytest.mark.parametrize(("encoding", "text"), _OF_CENTRAL_EUROPE)
def test_letters_of_central_europe_are_not_read_as_western_ones(build: Any, encoding: str, text: str) -> None:
    message = _refused(build, "t.csv", f'id,prompt\na,plain\nb,"{text}"\n'.encode(encoding))

    assert "is neither UTF-8 nor western European text (line 3, which would have '" in message


def test_words_of_every_western_language_are_read(build: Any) -> None:
    rows, _ = build("t.csv", f'id,prompt\na,"{_WESTERN}"\n'.encode("cp1252"))

    assert rows == [{"id": "a", "prompt": _WESTERN}]


def test_a_text_without_blanks_takes_no_time() -> None:
    begun_s = time.process_time()
    assert strange_word("x" * (1 << 20)) is None
    assert strange_word("xé" * (1 << 19)) is None
    assert time.process_time() - begun_s < 5


@pytest.mark.parametrize("pad", ["", " "])
def test_no_word_is_cut_where_a_table_is_read_in_pieces(build: Any, pad: str) -> None:
    lines = [f'r{number:03d},"{"õe" * 16_000}"' for number in range(40)]
    rows, _ = build("t.csv", "\n".join([f"id,prompt{pad}", *lines]).encode("cp1252"))

    assert len(rows) == 40


def test_a_file_that_stops_being_utf_16_is_refused(build: Any) -> None:
    message = _refused(build, "t.csv", TEXT.encode("utf-16") + b"x")

    assert "begins as UTF-16 and is not (line 3)" in message


# --- separators, decimals, cells ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("t.csv", "id;prompt;strength\na;sea, sky;0,7\n", ("has ; between its cells", "decimals with a comma")),
        ("t.csv", "sep=;\nid;prompt;strength\na;sea, sky;0.7\n", ("has ; between its cells",)),
        ("t.csv", "id\tprompt\tstrength\na\tsea, sky\t0.7\n", ("has a tab between its cells",)),
        ("t.txt", 'id\tprompt\tstrength\na\t"sea, sky"\t0.7\n', ("has a tab between its cells",)),
        ("t.csv", "id|prompt|strength\na|sea, sky|0.7\n", ("has | between its cells",)),
        ("t.csv", 'id,prompt,strength\na,"sea, sky","0,7"\n', ("decimals with a comma, as '0,7' on line 2",)),
        ("t.tsv", "id\tprompt\tstrength\na\tsea, sky\t0,7\n", ("decimals with a comma",)),
    ],
)
def test_separator_and_decimal_mark_are_told(build: Any, name: str, text: str, said: tuple[str, ...]) -> None:
    rows, built = build(name, text)

    assert rows == [{"id": "a", "prompt": "sea, sky", "strength": 0.7}]
    assert len(built.notes) == len(said)
    assert all(part in note for part, note in zip(said, built.notes, strict=True))


def test_a_german_excel_file_is_read(build: Any) -> None:
    text = (
        "ID;Prompt ;Guidance_Scale;Images;Produkt\r\n"
        'tasse;"Tasse am Fenster;\r\nMorgenlicht";7,5;a.png|b.png;Kaffeebecher\r\n'
        ';;;;\r\nk2;"K\u00e4se";4;;\r\n;;;;\r\n'
    )
    rows, built = build("t.csv", text.encode("cp1252"), own=True)

    assert rows == [
        {
            "id": "tasse",
            "prompt": "Tasse am Fenster;\nMorgenlicht",
            "guidance_scale": 7.5,
            "images": ["a.png", "b.png"],
            "x_Produkt": "Kaffeebecher",
        },
        {"id": "k2", "prompt": "K\u00e4se", "guidance_scale": 4.0, "images": None, "x_Produkt": None},
    ]
    assert [note.split(": ", 1)[1][:24] for note in built.notes] == [
        "is read as cp1252 (Windo",
        "has ; between its cells",
        "has decimals with a comm",
        "images has cells with se",
    ]


def test_two_decimal_marks_in_one_table_are_refused(build: Any) -> None:
    message = _refused(build, "t.csv", "id;strength\na;0,7\nb;0.5\n")

    assert "line 3 of" in message
    assert "(b): strength '0.5' has a point as its decimal mark, and the number on line 2 has a comma" in message


@pytest.mark.parametrize("text", ["id;seed\na;1.000\n", "id;seed\na;1,000\n", 'id,seed\na,"1,000"\n'])
def test_a_mark_for_thousands_is_not_taken_for_a_decimal_one(build: Any, text: str) -> None:
    message = _refused(build, "t.csv", text)

    assert "may have a mark for thousands, or a decimal one; write it with digits alone" in message


@pytest.mark.parametrize(("column", "error"), [("prompt", "#NAME?"), ("x_price", "#BEZUG!"), ("seed", "#N/A")])
def test_what_a_failed_formula_left_in_a_csv_is_refused(build: Any, column: str, error: str) -> None:
    message = _refused(build, "t.csv", f"id,{column}\na,{error}\n")

    assert message.endswith(f"t.csv (a): {column} holds the error {error} of a formula")


def test_quotes_behind_a_blank_are_not_painted(build: Any) -> None:
    message = _refused(build, "t.csv", 'id, prompt\na, "a beach"\n')

    assert "(a): prompt has a blank before its quotes, so that they count as text; leave the blank out" in message
    assert "quote commas, without a blank before" in _refused(build, "t.csv", 'id, prompt\na, "a beach, at sunset"\n')
    assert build("t.csv", 'id, prompt\na, a "wide" beach\n')[0] == [{"id": "a", "prompt": ' a "wide" beach'}]


def test_numbers_that_lost_their_digits_are_said(build: Any) -> None:
    rows, built = build("t.csv", "id,x_ean,x_size\na,4006381333931,2E+3\nb,4.00638E+12,\n")

    assert [row["x_ean"] for row in rows] == ["4006381333931", "4.00638E+12"]
    said = "x_ean has long numbers of which a spreadsheet saved the first digits, as 4.00638E+12 on line 3"
    assert built.notes == (f"t.csv: {said}",)


@pytest.mark.parametrize(
    ("cell", "images"),
    [
        ("a.png", ["a.png"]),
        ('"a.png\nb.png"', ["a.png", "b.png"]),
        ("a.png | b.png |", ["a.png", "b.png"]),
        ('"[""a|b.png""]"', ["a|b.png"]),
        ("[draft] p.png", ["[draft] p.png"]),
        (" ", None),
    ],
)
def test_a_cell_may_hold_several_images(build: Any, cell: str, images: list[str] | None) -> None:
    assert build("t.csv", f"id,images\na,{cell}\n")[0] == [{"id": "a", "images": images}]


@pytest.mark.fault("F25", "trailing empty rows and columns", "dropped")
def test_empty_rows_and_columns_at_the_end_are_dropped(build: Any) -> None:
    rows, _ = build("t.csv", "id,prompt,,\na,p,,\nb,q, ,\n,,,\n , ,,\n")

    assert rows == [{"id": "a", "prompt": "p"}, {"id": "b", "prompt": "q"}]


def test_a_cell_of_what_cannot_be_seen_is_empty(build: Any) -> None:
    rows, _ = build(
        "t.csv", "id,prompt,\u200b\na,\u200b,\nb,\ufeff\u00a0,\u00ad\n\u2060,\u200e,\nc,x\u200by,\n", drop=["\u200b"]
    )

    assert rows == [{"id": "a", "prompt": None}, {"id": "b", "prompt": None}, {"id": "c", "prompt": "x\u200by"}]


def test_blanks_at_the_end_of_a_text_of_ones_own_are_said(build: Any) -> None:
    rows, built = build("t.csv", "id,prompt,x_a,x_b\na,p ,summer,\u200bde\nb,q,summer\u00a0,fr\nc,r,winter ,it\n")

    assert [row["x_a"] for row in rows] == ["summer", "summer\u00a0", "winter "]
    said = "has texts with blanks at their ends, which count, as"
    assert built.notes == (
        f"t.csv: x_b {said} '\\u200bde' on line 2",
        f"t.csv: x_a {said} 'summer\\xa0' on line 3",
    )


def test_a_value_without_a_name_is_refused(build: Any) -> None:
    message = _refused(build, "t.csv", "id,prompt,,x_a\na,p,lost,1\n")

    assert "line 2 of" in message
    assert "has a value in column 3, which has no name in the header" in message


@pytest.mark.parametrize("text", ["", "\n\n", " , ,\n"])
def test_a_table_without_a_header_is_refused(build: Any, text: str) -> None:
    assert "t.csv: is empty; the first row that is filled names the columns" in _refused(build, "t.csv", text)


def test_a_header_without_rows_is_read_as_strictly_as_one_with_rows(build: Any, tmp_path: Path) -> None:
    assert build("t.csv", "id,prompt\n")[0] == []
    assert build("t.csv", "sku,prompt\n", id_format="{sku}", own=True)[0] == []
    assert "t.csv: Promt is not a column of a manifest" in _refused(build, "t.csv", "id,Promt\n")
    assert "t.csv: id is missing; the table has a header" in _refused(build, "t.csv", "prompt\n")
    _workbook(tmp_path / "t.xlsx", {"S": [["id", "Promt"]]})
    with pytest.raises(ManifestError, match=r"t.xlsx \[S\]: Promt is not a column"):
        build_shards(tmp_path / "t.xlsx", tmp_path / "out")


def test_a_title_above_the_header_is_told(build: Any, tmp_path: Path) -> None:
    way_out = "take out what stands above the names of the columns"
    message = _refused(build, "t.csv", "Spring 2026\nid,prompt\na,p\n", id_format="{id}")
    assert f"2 rows: has 2 cells, the header 1 ('Spring 2026'); {way_out}, or quote" in message
    _workbook(tmp_path / "t.xlsx", {"S": [["Spring 2026"], [], ["id", "prompt"], ["a", "p"]]})
    with pytest.raises(ManifestError) as caught:
        build_shards(tmp_path / "t.xlsx", tmp_path / "out")

    assert f"has 2 cells, the header 1 ('Spring 2026'); {way_out}" in str(caught.value)
    assert "no rows" not in str(caught.value)


def test_a_header_that_stands_twice_is_no_row(build: Any, tmp_path: Path) -> None:
    message = _refused(build, "t.csv", "id,prompt,x_a\na,p,1\nid, prompt ,x_a\nb,q,2\n")
    assert "line 3 of" in message
    assert "repeats the header" in message
    assert build("t.csv", "id,prompt,x_a\na,p,1\nid,prompt,x_b\n")[1].num_rows == 2
    _workbook(tmp_path / "t.xlsx", {"S": [["id", None, "prompt", None], ["a", None, "p"], ["id", None, "prompt"]]})
    with pytest.raises(ManifestError, match=r"line 3 of .*t\.xlsx \[S\].*: repeats the header"):
        build_shards(tmp_path / "t.xlsx", tmp_path / "out")


def test_a_date_stands_in_a_message_as_people_write_it(tmp_path: Path) -> None:
    _workbook(tmp_path / "t.xlsx", {"S": [["id", "prompt", "x_at"], [dt.date(2026, 3, 1), "p", dt.time(12, 30)]]})
    with pytest.raises(ManifestError) as caught:
        build_shards(tmp_path / "t.xlsx", tmp_path / "out")

    assert "id 2026-03-01 is a date or a time; write it as text" in str(caught.value)
    assert "x_at 12:30:00 is of type time" in str(caught.value)


# --- names ----------------------------------------------------------------------------------------------------------


def test_near_misses_are_told_in_one_message(build: Any) -> None:
    message = _refused(build, "t.csv", "Id,Promt,negativ prompt,seed,Heigth\na,p,n,3,64\n", own=True)

    assert [line.split(": ", 1)[1].split(";")[:2] for line in message.splitlines()[1:]] == [
        ["Promt is not a column of a manifest", " did you mean prompt?"],
        ["negativ prompt is not a column of a manifest", " did you mean negative_prompt?"],
        ["Heigth is not a column of a manifest", " did you mean height?"],
    ]


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("steps", "num_inference_steps"),
        ("CFG Scale", "guidance_scale"),
        ("Sampler", "scheduler"),
        ("Negative", "negative_prompt"),
        ("denoise", "strength"),
        ("frames", "num_frames"),
        ("ckpt", "model"),
    ],
)
def test_what_other_programs_call_a_column_is_never_taken_for_an_own_one(build: Any, name: str, meant: str) -> None:
    refused = _refused(build, "t.csv", f"id,prompt,{name}\na,p,20\n", own=True)

    assert f"{name} is not a column of a manifest; did you mean {meant}?" in refused
    assert build("t.csv", f"id,prompt,{name}\na,p,20\n", rename={name: "x_theirs"})[0][0]["x_theirs"] == "20"


def test_names_are_taken_without_capitals_and_blanks(build: Any) -> None:
    rows, _ = build("t.csv", " ID ,PROMPT,X_Sku,SKU\na,p,1,2\n", rename={"sku": "x_other"})

    assert rows == [{"id": "a", "prompt": "p", "x_Sku": "1", "x_other": "2"}]
    rows, _ = build("t.jsonl", '{"Id": "a", "Prompt ": "p"}\n')
    assert rows == [{"id": "a", "prompt": "p"}]


def test_two_names_of_one_column_are_refused(build: Any) -> None:
    assert "prompt is the name of two columns (Prompt, prompt); drop one" in _refused(
        build, "t.csv", "id,Prompt,prompt\na,p,q\n"
    )


def test_ids_are_made_from_columns_whatever_their_capitals(build: Any) -> None:
    rows, _ = build("t.csv", "SKU,Prompt\nA 1,p\n", id_format="{sku}", own=True)

    assert rows == [{"x_SKU": "A 1", "prompt": "p", "id": "A-1"}]


# --- workbooks ------------------------------------------------------------------------------------------------------


def test_a_workbook_is_read(tmp_path: Path) -> None:
    day = dt.datetime.combine(dt.date(2026, 11, 26), dt.time())
    moment = day + dt.timedelta(hours=10, minutes=30)
    rows: list[list[Any]] = [
        [None, None, None, None, None, None, None, None, None],
        ["ID", "Prompt ", "Strength", "Seed", "Images", "x_sku", "x_day", "x_at", None],
        ["a", "one\ntwo_x000D_\nthree", 0.7, 12.0, "a.png\nb.png", 12, day, day],
        [],
        [7, 1984, None, None, None, "12b", day, moment, None],
        [None, "  ", None],
    ]
    _workbook(tmp_path / "t.xlsx", {"Preise": [["x"]], "Tabelle1": rows})
    built = build_shards(tmp_path / "t.xlsx", tmp_path / "out", sheet="tabelle1")

    assert _rows(built) == [
        {
            "id": "a",
            "prompt": "one\ntwo\nthree",
            "strength": 0.7,
            "seed": 12,
            "images": ["a.png", "b.png"],
            "x_sku": "12",
            "x_day": day.date(),
            "x_at": day,
        },
        {
            "id": "7",
            "prompt": "1984",
            "strength": None,
            "seed": None,
            "images": None,
            "x_sku": "12b",
            "x_day": day.date(),
            "x_at": moment,
        },
    ]
    assert [note.removeprefix("t.xlsx: ") for note in built.notes] == [
        "images has cells with several items, divided by | or by line ends",
        "x_sku has numbers and texts, and is read as text",
    ]


def test_a_text_that_is_written_as_a_formula_is_what_spreadsheets_show(build: Callable[..., Any]) -> None:
    table = 'id,prompt,x_sku,x_size,x_sum\na,="00123","=""00456""","=""2"""" wide""",="1"+"2"\nb,b,="",,\n'

    rows, _ = build("t.csv", table)

    assert rows == [
        {"id": "a", "prompt": "00123", "x_sku": "00456", "x_size": '2" wide', "x_sum": '="1"+"2"'},
        {"id": "b", "prompt": "b", "x_sku": None, "x_size": None, "x_sum": None},
    ]


@pytest.mark.parametrize(
    "text", ['[{"id": "a"},\n{"id": "b"}]\n', '[{"id": "a"}]', '[\n{"id": "a"}\n]\n', '{\n"id": "a"\n}\n']
)
def test_json_that_is_not_of_lines_is_told_so(build: Callable[..., Any], text: str) -> None:
    assert _refused(build, "t.jsonl", text).endswith(
        "t.jsonl: is one JSON text over several lines or in a list; write one object a line"
    )
    assert _refused(build, "t.json", text).endswith("; write one JSON object a line, as .jsonl")


@pytest.mark.parametrize(
    ("number_format", "number", "shown"),
    [
        ("00000", 12, "00012"),
        ("[$-407]00000;@", 0, "00000"),
        ("[Red]00000_)", 123456, "123456"),
        ("00000-0000", 123456789, "12345-6789"),
        ("00000\\-0000", 1234567890123, "123456789-0123"),
        ('"D-"00000', 1067, "D-01067"),
        ('"0-0 "000', 7, "0-0 007"),
        ("0", 12, 12),
        ('0" px"', 512, 512),
        ("#,##0", 12000, 12000),
        ("0.00", 12, 12),
        ("0.00E+00", 12, 12),
        ("00%", 12, 12),
        ("[<=99999]00000;00000-0000", 12, 12),
        ("00000", -12, -12),
    ],
)
def test_a_number_that_is_shown_with_zeros_keeps_them(
    tmp_path: Path, number_format: str, number: int, shown: str | int
) -> None:
    book = openpyxl.Workbook()
    book.active.append(["id", "x_sku"])
    book.active.append(["a", number])
    book.active["B2"].number_format = number_format
    book.save(tmp_path / "t.xlsx")

    assert _rows(build_shards(tmp_path / "t.xlsx", tmp_path / "out")) == [{"id": "a", "x_sku": shown}]


def test_a_number_has_the_digits_that_a_sheet_shows(tmp_path: Path) -> None:
    header = ["id", "prompt", "num_inference_steps", "guidance_scale", "x_size"]
    _workbook(tmp_path / "t.xlsx", {"S": [header, ["a", 71, 72, 73, 74]]})
    for number, computed in [(71, 1.1 + 0.1), (72, 0.28 * 100), (73, 0.1 + 0.2), (74, 1.1 * 3)]:
        written = f"<v>{computed!r}</v>".encode()  # as Excel writes what a formula gives, with 17 digits
        assert len(written) > 20
        _spoiled(tmp_path / "t.xlsx", "xl/worksheets/sheet1.xml", f"<v>{number}</v>".encode(), written)

    rows = _rows(build_shards(tmp_path / "t.xlsx", tmp_path / "out"))

    assert rows == [{"id": "a", "prompt": "1.2", "num_inference_steps": 28, "guidance_scale": 0.3, "x_size": 3.3}]


def test_an_error_names_the_row_of_the_sheet_and_the_id(tmp_path: Path) -> None:
    header, filled = ["id", "prompt", "height"], [["a", "p", 64], [], ["b", "p", 64.5], ["c", True, 64]]
    _workbook(tmp_path / "t.xlsx", {"S": [header, *filled]})
    with pytest.raises(ManifestError) as caught:
        build_shards(tmp_path / "t.xlsx", tmp_path / "out")

    assert [str(problem).replace(str(tmp_path), "") for problem in caught.value.problems] == [
        "line 4 of /t.xlsx [S] (b): height 64.5 is not a whole number",
        "line 5 of /t.xlsx [S] (c): prompt True is a boolean; this column takes text alone",
    ]


def _spoiled(path: Path, part: str, old: bytes, new: bytes) -> None:
    """Replace some of the bytes of a part of a workbook."""
    with zipfile.ZipFile(path) as archive:
        parts = {name: archive.read(name) for name in archive.namelist()}
    assert old in parts[part]
    parts[part] = parts[part].replace(old, new)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in parts.items():
            archive.writestr(name, data)


def _formula(path: Path) -> None:
    _workbook(path, {"S": [["id", "prompt"], ["a", '="a "&"b"']]})


def _computed(path: Path) -> None:
    _formula(path)
    _spoiled(path, "xl/worksheets/sheet1.xml", b'<c r="B2">', b'<c r="B2" t="str">')
    _spoiled(path, "xl/worksheets/sheet1.xml", b"</f><v />", b"</f><v>a b</v>")


def test_a_formula_gives_the_value_that_was_computed(tmp_path: Path) -> None:
    _computed(tmp_path / "t.xlsx")

    assert _rows(build_shards(tmp_path / "t.xlsx", tmp_path / "out")) == [{"id": "a", "prompt": "a b"}]


def _formula_of_another_program(path: Path) -> None:
    _formula(path)
    with zipfile.ZipFile(path) as archive:
        text = archive.read("xl/worksheets/sheet1.xml")
    prefixed = re.sub(rb"<(/?)(\w)", rb"<\1x:\2", text).replace(b" xmlns=", b" xmlns:x=")
    _spoiled(path, "xl/worksheets/sheet1.xml", text, prefixed)


def _written_by_xlsxwriter(path: Path) -> None:
    _formula(path)
    _spoiled(path, "xl/worksheets/sheet1.xml", b"</f><v />", b"</f><v>0</v>")


def test_a_formula_whose_value_is_zero_gives_it(tmp_path: Path) -> None:
    _written_by_xlsxwriter(tmp_path / "t.xlsx")
    _spoiled(tmp_path / "t.xlsx", "xl/workbook.xml", b' fullCalcOnLoad="1"', b"")

    assert _rows(build_shards(tmp_path / "t.xlsx", tmp_path / "out")) == [{"id": "a", "prompt": "0"}]


def test_control_characters_are_those_of_the_cell(tmp_path: Path) -> None:
    _workbook(tmp_path / "t.xlsx", {"S": [["id", "prompt"], ["a", "one_x000B_two_x0009_three"]]})

    assert _rows(build_shards(tmp_path / "t.xlsx", tmp_path / "out")) == [{"id": "a", "prompt": "one\vtwo\tthree"}]


def test_a_text_that_looks_like_an_escaped_character_stays_as_it_is(tmp_path: Path) -> None:
    texts = ["hero_x005F_x1024_v2", "a_x005f_x000D_b", "poster_x1080_a", "x005F_x0041_"]
    _workbook(tmp_path / "t.xlsx", {"S": [["id", "prompt"], *([f"row{n}", text] for n, text in enumerate(texts))]})

    rows = _rows(build_shards(tmp_path / "t.xlsx", tmp_path / "out"))

    assert [row["prompt"] for row in rows] == ["hero_x1024_v2", "a_x000D_b", "poster_x1080_a", "x005F_x0041_"]


def _long_number(path: Path) -> None:
    _workbook(path, {"S": [["id", "seed"], ["a", 77]]})
    _spoiled(path, "xl/worksheets/sheet1.xml", b"<v>77</v>", b"<v>9.00719925474099E+15</v>")


def _error_cell(path: Path) -> None:
    _workbook(path, {"S": [["id", "prompt"], ["a", "#N/A"]]})


def _merged(path: Path) -> None:
    book = _workbook(path, {"S": [["id", "x_product"], ["a", "mug"], ["b", None]]})
    book["S"].merge_cells("B2:B3")
    book.save(path)


def _entities(path: Path) -> None:
    _workbook(path, {"S": [["id"], ["a"]]})
    _spoiled(path, "xl/worksheets/sheet1.xml", b"<worksheet", b'<!DOCTYPE x [<!ENTITY a "aa">]><worksheet')


@pytest.mark.parametrize(
    ("make", "options", "said"),
    [
        (_formula, {}, "t.xlsx: sheet 'S': B2 holds a formula without its value; open it in Excel"),
        (_written_by_xlsxwriter, {}, "sheet 'S': B2 holds a formula without its value"),
        (_formula_of_another_program, {}, "sheet 'S': B2 holds a formula without its value"),
        (
            lambda path: _workbook(path, {"S": [["id", "seed"], ["a", 2**53 - 1], ["b", 2**53 + 1]]}),
            {},
            "line 3 of .*: seed holds a number of over 15 digits, of which a sheet keeps 15",
        ),
        (_long_number, {}, "line 2 of .*: seed holds a number of over 15 digits, of which a sheet keeps 15"),
        (_error_cell, {}, "line 2 of .*t.xlsx .S. .a.: prompt holds the error #N/A of a formula"),
        (_merged, {}, "the cells B2:B3 are merged, and only the first holds their value"),
        (_entities, {}, "with a DOCTYPE"),
        (lambda path: _workbook(path, {"A": [["id"]], "B": [["id"]], "C": []}), {}, r"has 2 sheets \(A, B\); name one"),
        (lambda path: _workbook(path, {"A": [["id"]]}), {"sheet": "Z"}, "has no sheet 'Z'; it has A"),
        (lambda path: _workbook(path, {"A": []}), {}, "has no sheet that holds anything"),
        (lambda path: path.write_bytes(b"\xd0\xcf\x11\xe0 protected"), {}, "cannot be read as a workbook"),
        (lambda path: _workbook(path, {"A": [["id"], ["a", "lost"]]}), {}, r"has 2 cells, the header 1 \('id'\)"),
    ],
)
def test_a_workbook_that_would_be_read_wrongly_is_refused(
    tmp_path: Path, make: Callable[[Path], Any], options: dict[str, Any], said: str
) -> None:
    make(tmp_path / "t.xlsx")
    with pytest.raises(ManifestError, match=said):
        build_shards(tmp_path / "t.xlsx", tmp_path / "out", **options)


def test_hidden_rows_are_read_and_said(tmp_path: Path) -> None:
    book = _workbook(tmp_path / "t.xlsx", {"S": [["id"], ["a"], ["b"]]})
    book["S"].row_dimensions[3].hidden = True
    book.save(tmp_path / "t.xlsx")
    built = build_shards(tmp_path / "t.xlsx", tmp_path / "out")

    assert _rows(built) == [{"id": "a"}, {"id": "b"}]
    assert built.notes == ("t.xlsx: 1 hidden rows are read as the others are",)


def test_hidden_columns_are_read_and_said(tmp_path: Path) -> None:
    book = _workbook(tmp_path / "t.xlsx", {"S": [["id", "prompt", None, "x_old"], ["a", "p", None, "v"]]})
    for letter in "BCDEF":
        book["S"].column_dimensions[letter].hidden = True
    book.save(tmp_path / "t.xlsx")
    built = build_shards(tmp_path / "t.xlsx", tmp_path / "out")

    assert _rows(built) == [{"id": "a", "prompt": "p", "x_old": "v"}]
    assert built.notes == ("t.xlsx: hidden columns are read as the others are: prompt, x_old",)


def test_a_workbook_of_the_strict_form_is_called_so(tmp_path: Path) -> None:
    _workbook(tmp_path / "t.xlsx", {"S": [["id"], ["a"]]})
    main = b"http://schemas.openxmlformats.org/spreadsheetml/2006/main"
    _spoiled(tmp_path / "t.xlsx", "xl/workbook.xml", main, b"http://purl.oclc.org/ooxml/spreadsheetml/main")

    with pytest.raises(ManifestError, match="is a Strict Open XML Spreadsheet; save it as Excel Workbook"):
        build_shards(tmp_path / "t.xlsx", tmp_path / "out")


def test_a_sheet_of_a_text_is_refused(build: Any) -> None:
    assert "has no sheets; only a workbook (.xlsx) has the sheet 'A'" in _refused(build, "t.csv", "id\na\n", sheet="A")


@pytest.mark.parametrize("seed", range(60))
def test_a_damaged_workbook_is_read_or_refused_in_words(tmp_path: Path, seed: int) -> None:
    chance = random.Random(seed)
    name, text = chance.choice(sorted(_PARTS.items()))
    data = bytearray(text.encode())
    for _ in range(chance.randint(1, 4)):
        at = chance.randrange(len(data))
        match chance.randrange(3):
            case 0:
                data[at] = chance.choice(b'0123456789<>"/=ABCstrn')
            case 1:
                del data[at : at + chance.randint(1, 30)]
            case _:
                data[at:at] = data[: chance.randint(1, 30)]
    with zipfile.ZipFile(tmp_path / "t.xlsx", "w") as archive:
        for part, whole in _PARTS.items():
            archive.writestr(part, bytes(data) if part == name else whole)
    try:
        build_shards(tmp_path / "t.xlsx", tmp_path / "out")
    except ManifestError as error:
        assert "t.xlsx" in str(error)  # noqa: PT017 -- it may also be read


# --- one table in every form ----------------------------------------------------------------------------------------


def test_a_table_gives_the_same_rows_in_every_form(tmp_path: Path) -> None:
    names = ["id", "prompt", "height", "guidance_scale", "images", "seed", "x_sku"]
    rows: list[dict[str, Any]] = [
        {
            "id": f"row-{number}",
            "prompt": f"caf\u00e9 {number}, \u201equoted\u201c; and\nmore",
            "height": 64 + 8 * (number % 3),
            "guidance_scale": number / 8 or None,
            "images": ["a.png", f"b{number}.png"][: 1 + number % 2],
            "seed": number * 10**9,
            "x_sku": f"s{number}",
        }
        for number in range(40)
    ]
    cells = [[("|".join(row[name]) if name == "images" else row[name]) for name in names] for row in rows]
    _workbook(tmp_path / "t.xlsx", {"S": [[name.upper() if name != "x_sku" else name for name in names], *cells]})
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "t.parquet")
    (tmp_path / "t.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    import csv
    import io

    text = io.StringIO()
    csv.writer(text, delimiter=";").writerows([names, *cells])
    (tmp_path / "t.csv").write_bytes(text.getvalue().encode("utf-16"))
    tables = [
        pa.concat_tables(pq.read_table(file) for file in build_shards(path, tmp_path / path.suffix[1:]).files)
        for path in sorted(tmp_path.glob("t.*"))
    ]

    assert len(tables) == 4
    assert all(table.select(names).equals(tables[0].select(names)) for table in tables)
    assert tables[0].select(names).to_pylist() == rows


def test_a_sheet_that_says_a_wrong_size_is_read_whole(tmp_path: Path) -> None:
    _workbook(tmp_path / "t.xlsx", {"S": [["id", "prompt"], ["a", "p"], ["b", "q"]]})
    _spoiled(tmp_path / "t.xlsx", "xl/worksheets/sheet1.xml", b'ref="A1:B3"', b'ref="A1:A1"')

    assert len(_rows(build_shards(tmp_path / "t.xlsx", tmp_path / "out"))) == 2


_MAIN = 'xmlns="http://schemas.openxmlformats.org/spreadsheetml/2006/main"'
_RELATIONS = "http://schemas.openxmlformats.org/officeDocument/2006/relationships"
_PARTS = {
    "[Content_Types].xml": '<Types xmlns="http://schemas.openxmlformats.org/package/2006/content-types">'
    '<Default Extension="rels" ContentType="application/vnd.openxmlformats-package.relationships+xml"/>'
    '<Override PartName="/xl/workbook.xml" '
    'ContentType="application/vnd.openxmlformats-officedocument.spreadsheetml.sheet.main+xml"/>'
    '<Override PartName="/xl/worksheets/sheet1.xml" '
    'ContentType="application/vnd.openxmlformats-officedocument.spreadsheetml.worksheet+xml"/>'
    '<Override PartName="/xl/sharedStrings.xml" '
    'ContentType="application/vnd.openxmlformats-officedocument.spreadsheetml.sharedStrings+xml"/></Types>',
    "_rels/.rels": '<Relationships xmlns="http://schemas.openxmlformats.org/package/2006/relationships">'
    f'<Relationship Id="r1" Type="{_RELATIONS}/officeDocument" Target="xl/workbook.xml"/></Relationships>',
    "xl/workbook.xml": f'<workbook {_MAIN} xmlns:r="{_RELATIONS}"><sheets>'
    '<sheet name="Tabelle1" sheetId="1" r:id="r1"/></sheets></workbook>',
    "xl/_rels/workbook.xml.rels": '<Relationships xmlns="http://schemas.openxmlformats.org/package/2006/relationships">'
    f'<Relationship Id="r1" Type="{_RELATIONS}/worksheet" Target="worksheets/sheet1.xml"/>'
    f'<Relationship Id="r2" Type="{_RELATIONS}/sharedStrings" Target="sharedStrings.xml"/></Relationships>',
    "xl/sharedStrings.xml": f"<sst {_MAIN}><si><t>id</t></si><si><t>prompt</t></si><si><t>mug</t></si>"
    '<si><r><t xml:space="preserve">a </t></r><r><rPr><b/></rPr><t>bold</t></r>'
    '<r><t xml:space="preserve">_x000D_\n mug</t></r></si></sst>',
    "xl/worksheets/sheet1.xml": f'<worksheet {_MAIN}><sheetData><row r="3"><c r="B3" t="s"><v>0</v></c>'
    '<c r="C3" t="s"><v>1</v></c></row><row r="5"><c r="B5" t="s"><v>2</v></c><c r="C5" t="s"><v>3</v></c></row>'
    "</sheetData></worksheet>",
}


def _as_excel_writes_it(path: Path) -> None:
    """Write a workbook with a table of texts, which openpyxl does not write; the first rows and column are empty."""
    with zipfile.ZipFile(path, "w") as archive:
        for name, text in _PARTS.items():
            archive.writestr(name, f'<?xml version="1.0" encoding="UTF-8" standalone="yes"?>\n{text}')


def test_a_table_of_texts_and_text_in_runs_are_read(tmp_path: Path) -> None:
    _as_excel_writes_it(tmp_path / "t.xlsx")

    assert _rows(build_shards(tmp_path / "t.xlsx", tmp_path / "out")) == [{"id": "mug", "prompt": "a bold\n mug"}]


@pytest.mark.parametrize("bound", ["PART_BYTES_MAX", "OTHER_BYTES_MAX", "TEXTS_BYTES_MAX"])
def test_a_workbook_that_would_become_much_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, bound: str
) -> None:
    _as_excel_writes_it(tmp_path / "t.xlsx")
    monkeypatch.setattr(f"sdbatch.manifest.workbook.{bound}", 100)

    with pytest.raises(ManifestError, match=r"t.xlsx: has a part '.*' of [0-9]+ bytes, over 100"):
        build_shards(tmp_path / "t.xlsx", tmp_path / "out")
