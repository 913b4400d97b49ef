"""A header is read as the safetensors package reads it: what that refuses is refused where a job is checked."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from safetensors import SafetensorError, safe_open
from support.weights import with_length

from sdbatch.checkpoints.headers import read_header
from sdbatch.errors import ModelError
from sdbatch.storage import open_store

ONE: Mapping[str, Any] = {"dtype": "F16", "shape": [1], "data_offsets": [0, 2]}
TWO: Mapping[str, Any] = {**ONE, "data_offsets": [2, 4]}


def _said(tmp_path: Path, data: bytes) -> str:
    (tmp_path / "a b é.safetensors").write_bytes(data)
    store = open_store(str(tmp_path), {})
    with pytest.raises(ModelError) as refused:
        read_header(store, store.stat("a b é.safetensors"))
    said = str(refused.value)
    assert said.startswith(f"{tmp_path}/a b é.safetensors: ")
    return said


@pytest.mark.parametrize(
    ("header", "num_bytes", "said"),
    [
        ({"a": ONE, "b": ONE}, 2, "puts 'b' at bytes 0 to 2, and the tensor before it ends at 2"),
        ({"a": ONE, "b": {**ONE, "data_offsets": [4, 6]}}, 6, "puts 'b' at bytes 4 to 6, and the tensor before it"),
        ({"a": {**ONE, "data_offsets": [2, 0]}}, 0, "puts 'a' at bytes 2 to 0"),
        ({"a": {**ONE, "shape": [3, 2]}}, 2, "'a' has 2 bytes, and by its shape [3, 2] of F16 12"),
        ({"a": {**ONE, "dtype": "F9"}}, 2, "'a' is of 'F9', which is none of the formats F4, "),
        ({"a": {**ONE, "shape": [True]}}, 2, "its header names no tensors"),
        ({"a": ONE, "__metadata__": {"steps": 5}}, 2, "its __metadata__ must hold texts by name"),
        ({"a": ONE, "__metadata__": ["pt"]}, 2, "its __metadata__ must hold texts by name"),
    ],
)
def test_a_header_that_the_package_refuses_is_refused_with_what_is_wrong(
    header: Mapping[str, Any], num_bytes: int, said: str, tmp_path: Path
) -> None:
    data = with_length(json.dumps(header).encode()) + bytes(num_bytes)

    assert said in _said(tmp_path, data)
    with pytest.raises(SafetensorError), safe_open(tmp_path / "a b é.safetensors", "np") as _:
        pass


@pytest.mark.parametrize("header", [{"a": ONE, "b": TWO}, {"b": TWO, "a": ONE, "__metadata__": None}, {}])
def test_a_header_that_the_package_reads_is_read(header: Mapping[str, Any], tmp_path: Path) -> None:
    num_bytes = 4 if "a" in header else 0
    (tmp_path / "a.safetensors").write_bytes(with_length(json.dumps(header).encode()) + bytes(num_bytes))
    store = open_store(str(tmp_path), {})

    with safe_open(tmp_path / "a.safetensors", "np") as file:
        assert read_header(store, store.stat("a.safetensors")).tensors.keys() == set(file.keys())


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"", "it is empty; copy the file again"),
        (b"<!DOCTYPE html><title>Access denied</title>", "but a web page, as a download leaves that was refused; "),
        (b'{"error": "Invalid username or password."}', "but a text in JSON, as a download leaves"),
        (b"GGUF\x03\0\0\0" + bytes(40), "but a GGUF file; it begins with b'GGUF"),
        (b"PK\x03\x04\x14\x00\x08\x08\x08\x08" + bytes(40), "a zip, as pickles of torch are"),
        (b"# xet version 0\nfilesize = 1234\n", "a pointer of a hub and not the file"),
        ((1 << 62).to_bytes(8, "little") + b"{}", ": a header of 4611686018427387904 bytes is over 100000000"),
        (with_length(b"[" * 200_000), "is not a safetensors file: maximum recursion depth"),
    ],
)  # fmt: skip
def test_a_file_of_another_kind_is_told_by_how_it_begins(data: bytes, said: str, tmp_path: Path) -> None:
    assert said in _said(tmp_path, data)
