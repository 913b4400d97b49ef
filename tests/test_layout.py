"""The law of rooms, held by a test: the tree is the data's way, and heavy imports stay in their rooms."""

from __future__ import annotations

import ast
import graphlib
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

import sdbatch

ROOT = Path(sdbatch.__file__).parent
ROOMS = (
    "desk",
    "manifest",
    "plan",
    "dispatch",
    "fetch",
    "generate",
    "after",
    "encode",
    "provenance",
    "campaign",
    "review",
    "deliver",
    "report",
)
NOUNS = {
    "arguments",
    "canonical",
    "checkpoints",
    "collector",
    "columns",
    "errors",
    "extras",
    "families",
    "ffmpeg",
    "formats",
    "hints",
    "interrupted_import",
    "job",
    "letters",
    "device_choice",
    "local_faults",
    "logs",
    "named_formats",
    "named_functions",
    "outcomes",
    "packets",
    "points",
    "prompt_syntax",
    "recipe",
    "scratch",
    "slate",
    "storage",
    "types",
    "verdicts",
    "where",
    "without_pandas",
}
HOMES = {
    "ray": {"dispatch"},
    "torch": {"generate", "after/device"},
    "diffusers": {"generate"},
    "transformers": {"generate", "after/device"},
    "fsspec": {"storage"},
    "s3fs": {"storage"},
    "imageio_ffmpeg": {"ffmpeg"},
    "jinja2": {"report", "desk"},
    "PIL": {"fetch", "generate", "encode", "deliver"},
    "pillow_heif": {"fetch"},
    "typer": {"cli"},
    "aiohttp": {"review", "dispatch"},
    "c2pa": {"provenance"},
    "cryptography": {"provenance"},
}


def _imports(file: Path) -> set[str]:
    """Return the modules a file imports, wherever in it."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module)
            if node.module == "sdbatch":
                found.update(f"sdbatch.{alias.name}" for alias in node.names)
    return found


def _room(file: Path) -> str:
    return file.relative_to(ROOT).parts[0].removesuffix(".py")


def _is_in(file: Path, homes: set[str]) -> bool:
    place = file.relative_to(ROOT).with_suffix("")
    return any(place.is_relative_to(home) for home in homes)


FILES = sorted(ROOT.rglob("*.py"))


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(ROOT)))
def test_a_room_knows_shared_nouns_and_itself(file: Path) -> None:
    room = _room(file)
    if room not in ROOMS and room not in NOUNS:
        return
    known = NOUNS | ({room} if room in ROOMS else set())
    foreign = {name.split(".")[1] for name in _imports(file) if name.startswith("sdbatch.")} - known

    assert not foreign


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(ROOT)))
def test_a_heavy_library_stays_in_its_room(file: Path) -> None:
    roots = {name.split(".")[0] for name in _imports(file)}

    assert {library for library in roots & HOMES.keys() if not _is_in(file, HOMES[library])} == set()


def test_only_the_driver_and_the_worker_put_rooms_together() -> None:
    joining = {}
    for file in FILES:
        rooms = {name.split(".")[1] for name in _imports(file) if name.startswith("sdbatch.")} & set(ROOMS)
        if len(rooms - {_room(file)}) > 1:
            joining[_room(file)] = rooms

    assert joining.keys() <= {"driver", "worker", "api", "public"}  # the last lists what the verbs of api return


def test_what_strangers_send_is_decoded_in_fetch_alone() -> None:
    decoders = {"decode_image", "decode_mask", "decode_clip", "decode_sources"}
    defined = {
        _room(file): node.name
        for file in FILES
        for node in ast.walk(ast.parse(file.read_text()))
        if isinstance(node, ast.FunctionDef) and node.name in decoders
    }

    assert defined.keys() == {"fetch"}


@pytest.mark.parametrize("module", ["sdbatch", "sdbatch.public", "sdbatch.cli"])
def test_importing_the_package_imports_neither_torch_nor_ray(module: str) -> None:
    heavy = "{'torch', 'diffusers', 'transformers', 'ray', 's3fs'}"
    script = f"import sys, {module}; sys.exit(str({heavy} & sys.modules.keys()) if {heavy} & sys.modules.keys() else 0)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)

    assert done.returncode == 0, done.stderr


def test_nothing_that_the_worker_imports_at_start_imports_ray() -> None:
    modules = {_module(file): file for file in FILES}
    reached, waiting = set(), ["sdbatch.worker", "sdbatch.generate.batch"]
    while waiting:
        reached.add(name := waiting.pop())
        packages = {name.rpartition(".")[0]} & modules.keys()
        waiting += (packages | _imported_at_start(modules[name], modules)) - reached

    assert {"sdbatch.worker.render", "sdbatch.generate.load"} <= reached
    assert [name for name in reached if "ray" in {one.split(".")[0] for one in _names_at_start(modules[name])}] == []


@pytest.mark.long
def test_the_worker_runs_without_ray() -> None:
    script = "import sys; sys.modules['ray'] = None; import sdbatch.worker, sdbatch.generate.batch"

    assert subprocess.run([sys.executable, "-c", script], capture_output=True).returncode == 0


def _module(file: Path) -> str:
    parts = ("sdbatch", *file.relative_to(ROOT).with_suffix("").parts)
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def _imports_at_start(file: Path) -> Iterator[tuple[str, set[str]]]:
    """Yield each module that a file imports when it is imported itself, with the full names that it takes of it."""
    for node in ast.parse(file.read_text()).body:
        if isinstance(node, ast.Import):
            yield from ((alias.name, set()) for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module, {f"{node.module}.{alias.name}" for alias in node.names}


def _names_at_start(file: Path) -> set[str]:
    """Return the modules, and what may be one, that a file imports when it is imported itself."""
    return {name for module, names in _imports_at_start(file) for name in (module, *names)}


def _imported_at_start(file: Path, modules: Mapping[str, Path]) -> set[str]:
    """Return the files of the package that a file imports when it is imported itself."""
    found: set[str] = set()
    for module, names in _imports_at_start(file):
        found |= names if names and names <= modules.keys() else names | {module}
    return found & modules.keys()


def test_no_files_import_each_other_in_a_circle() -> None:
    modules = {_module(file): file for file in FILES}
    order = graphlib.TopologicalSorter({name: _imported_at_start(file, modules) for name, file in modules.items()})

    assert {"sdbatch.worker.render", "sdbatch.families", "sdbatch"} <= set(order.static_order())


def test_no_file_is_called_utils() -> None:
    assert not {file.stem for file in FILES} & {"utils", "util", "common", "helpers", "misc"}
