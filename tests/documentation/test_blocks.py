"""Every block of README and docs is right: commands are the parser's, YAML is the models', Python compiles."""

from __future__ import annotations

import ast
import csv
import io
import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml
from support.doc_blocks import ROOT, Block, all_blocks, commands_in, pages

from docs.generator.commands import every_command
from sdbatch.cli.options import with_optional_class
from sdbatch.deliver.settings import Delivery
from sdbatch.desk.form import Form, parse_form
from sdbatch.job import Job

BLOCKS = all_blocks()
COMMANDS = dict(every_command())
OPTIONS = {option for command in COMMANDS.values() for parameter in command.params for option in parameter.opts}
OPTIONS |= {"--help", "--version"}
LANGUAGES = {"bash", "yaml", "python", "text", "csv", "jsonl", "json", "sql"}
_INLINE = re.compile(r"(?<!`)`([^`\n]+)`(?!`)")
_FENCED = re.compile(r"^ *```.*?^ *```$", re.MULTILINE | re.DOTALL)
_OPTION = re.compile(r"--[a-z][a-z-]*")


def _of(*languages: str) -> list[Any]:
    return [pytest.param(block, id=block.place) for block in BLOCKS if block.language in languages]


def test_every_block_names_its_language() -> None:
    assert {block.place: block.language for block in BLOCKS if block.language not in LANGUAGES} == {}


def test_a_reason_is_a_sentence_and_stands_over_what_could_be_run() -> None:
    marked = [block for block in BLOCKS if block.not_run is not None]

    assert marked
    assert [block.place for block in marked if len(block.not_run or "") < 10] == []
    assert [block.place for block in marked if block.language not in {"bash", "python", "sql"}] == []


@pytest.mark.parametrize("block", _of("bash"))
def test_commands_are_taken_by_the_parser(block: Block) -> None:
    for words in commands_in(block.text):
        _parse(words, block.place)


def _parse(words: list[str], place: str) -> None:
    name, rest = _command(words, place)
    if "--help" in rest:
        return
    try:
        COMMANDS[name].make_context(name, with_optional_class([name, *rest])[1:])
    except Exception as error:  # noqa: BLE001 -- the parser's own; all that is wanted of it is its sentence
        pytest.fail(f"{place}: sdbatch {' '.join(words)}: {error}")


def _command(words: list[str], place: str) -> tuple[str, list[str]]:
    """Return a command's name and what follows it."""
    for length in (2, 1):
        name = " ".join(words[:length])
        if name in COMMANDS:
            return name, words[length:]
    return pytest.fail(f"{place}: sdbatch {' '.join(words)}: there is no such command")


@pytest.mark.parametrize("page", pages(), ids=lambda page: str(page.relative_to(ROOT)))
def test_commands_and_options_in_sentences_are_there(page: Path) -> None:
    text = _FENCED.sub("", page.read_text(encoding="utf-8"))
    for code in _INLINE.findall(text):
        words = code.split()
        if words[0] == "sdbatch" and len(words) > 1:
            if words[1].startswith("-") or words[1] == "COMMAND":
                assert set(_OPTION.findall(code)) <= OPTIONS, f"{page.name}: {code}"
                continue
            name, rest = _command(words[1:], page.name) if words[1] not in _groups() or len(words) > 2 else ("", [])
            known = {o for p in COMMANDS[name].params for o in p.opts} | {"--help"} if name else OPTIONS
            assert set(_OPTION.findall(" ".join(rest))) <= known, f"{page.name}: {code}"
        elif words[0].startswith("--"):
            assert words[0].split("=")[0] in OPTIONS, f"{page.name}: {code}"


def _groups() -> set[str]:
    return {name.split()[0] for name in COMMANDS if " " in name}


@pytest.mark.parametrize("block", _of("yaml"))
def test_yaml_is_what_its_model_takes(block: Block) -> None:
    values = yaml.safe_load(block.text)
    assert isinstance(values, dict), block.place
    if "brief" in values:
        parse_form(values, block.place)
    elif values.keys() & {"formats", "metadata", "sign", "label", "campaign"}:
        whole = {"delivery": "d", "campaign": "c", "formats": ["x-post"], "to": "t", **values}
        Delivery.model_validate(whole)
    else:
        base = {"manifest": "m", "output": "o", "models": {"m": {"path": "builtin:tiny-sd"}}}
        if "limits" in values:
            base["prices"] = {"gpu_hour": 1.0, "currency": "EUR"}
        Job.model_validate({**base, **values})
    assert not (block.title or "x.yaml").endswith(".csv")


def test_yaml_of_a_wrong_key_would_be_seen() -> None:
    wrong = Block(page="p", line=1, language="yaml", title=None, text="models: {m: {pth: x}}\n", not_run=None, first=())
    with pytest.raises(ValueError, match="pth"):
        test_yaml_is_what_its_model_takes(wrong)
    with pytest.raises(pytest.fail.Exception, match="No such option: --lmit"):
        _parse(["run", "job.yaml", "--lmit", "3"], "p")
    with pytest.raises(pytest.fail.Exception, match="no such command"):
        _parse(["rnu", "job.yaml"], "p")


@pytest.mark.parametrize("block", _of("python"))
def test_python_compiles_and_names_what_the_package_has(block: Block) -> None:
    import sdbatch

    for node in ast.walk(ast.parse(block.text)):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "sdbatch":
            assert hasattr(sdbatch, node.attr), f"{block.place}: sdbatch.{node.attr}"


@pytest.mark.parametrize("block", _of("csv", "jsonl", "json"))
def test_tables_are_whole(block: Block) -> None:
    rows = list(_rows(block))

    assert rows
    assert len({len(row) for row in rows}) == 1 or block.language != "csv", block.place


def _rows(block: Block) -> Iterator[Any]:
    if block.language == "csv":
        yield from csv.reader(io.StringIO(block.text))
    elif block.language == "jsonl":
        yield from (json.loads(line) for line in block.text.splitlines())
    else:
        yield json.loads(block.text)


def test_the_models_of_the_files_are_told_apart_by_their_keys() -> None:
    kinds: Mapping[str, Any] = {"brief": Form, "campaign": Delivery, "manifest": Job}

    assert all(key in model.model_fields for key, model in kinds.items())
