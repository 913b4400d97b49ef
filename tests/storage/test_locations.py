"""Paths are taken in the Unicode form that their names have on disk."""

from __future__ import annotations

import unicodedata
from pathlib import Path
from typing import Final, Literal

import pytest

from sdbatch.storage import parse_url

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
