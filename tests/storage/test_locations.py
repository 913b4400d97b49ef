"""Which place a path means: the Unicode form that its names have on disk, `~`, and what lies beneath a file."""

from __future__ import annotations

import os
import unicodedata
from pathlib import Path
from typing import Final, Literal

import pytest

from sdbatch.errors import StoreRefused, UserError
from sdbatch.storage import open_campaign, parse_url

NAMES = ("Größe", "café.png")
Form = Literal["NFC", "NFD"]
FORMS: Final[tuple[Form, ...]] = ("NFC", "NFD")


@pytest.mark.fault("F36", "a path whose folder and file are NFC or NFD on disk, another in the table", "found")
@pytest.mark.parametrize("folder", FORMS)
@pytest.mark.parametrize("file", FORMS)
@pytest.mark.parametrize("written", FORMS)
@pytest.mark.parametrize("scheme", ["", "file://"])
def test_a_name_is_found_in_either_form(tmp_path: Path, folder: Form, file: Form, written: Form, scheme: str) -> None:
    path = tmp_path / unicodedata.normalize(folder, NAMES[0]) / unicodedata.normalize(file, NAMES[1])
    path.parent.mkdir()
    path.write_bytes(b"picture")
    asked = unicodedata.normalize(written, f"{scheme}{tmp_path}/{NAMES[0]}/{NAMES[1]}")

    assert parse_url(asked).path == str(path)


@pytest.mark.parametrize("form", FORMS)
def test_a_path_that_is_not_there_stays_as_it_was_written(tmp_path: Path, form: Form) -> None:
    asked = unicodedata.normalize(form, f"{tmp_path}/{NAMES[0]}/{NAMES[1]}")

    assert parse_url(asked).path == asked


def test_of_two_files_that_look_alike_the_one_that_was_written_is_taken(tmp_path: Path) -> None:
    for form in FORMS:
        (tmp_path / unicodedata.normalize(form, NAMES[1])).write_bytes(form.encode())

    for form in FORMS:
        found = parse_url(str(tmp_path / unicodedata.normalize(form, NAMES[1]))).path
        assert Path(found).read_bytes() == form.encode()


@pytest.mark.parametrize("path", ["~", "~/out", "~/out/spring.csv"])
def test_a_tilde_is_refused_with_the_folder_that_it_stands_for(monkeypatch: pytest.MonkeyPatch, path: str) -> None:
    monkeypatch.setenv("HOME", "/home/jane")

    with pytest.raises(UserError, match=rf"^{path}: `~` .*; write {path.replace('~', '/home/jane')}, or \./{path} if"):
        parse_url(path)
    assert parse_url(f"./{path}").path == str(Path.cwd() / path)
    assert parse_url("~$orders.xlsx").path.endswith("/~$orders.xlsx")


@pytest.mark.parametrize("below", ["", "/spring", "/2026/spring"])
def test_a_folder_that_would_lie_beneath_a_file_is_refused_with_the_file(tmp_path: Path, below: str) -> None:
    file = tmp_path / "orders.csv"
    file.write_text("id")
    store = open_campaign(f"{file}{below}", {})

    for use in (lambda: store.read("a.parquet"), lambda: store.put("a.parquet", b"a"), store.list):
        with pytest.raises(StoreRefused, match=f"^{file}: is a file, not a folder$"):
            use()


def test_a_path_that_no_record_could_hold_is_refused(tmp_path: Path) -> None:
    folder = os.fsdecode(os.fsencode(tmp_path) + b"/Fr\xfchling")
    Path(folder).mkdir()

    with pytest.raises(UserError, match="a name in it is not UTF-8"):
        parse_url(f"{folder}/out")
