"""The package: its core needs neither torch nor Ray, its extras say what they bring, its weights stay small."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import tomllib
import venv
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FunctionType
from typing import Any, get_args, get_type_hints

import pytest
import yaml
from conftest import prompts
from PIL import Image

import sdbatch
from sdbatch import errors, public
from sdbatch.extras import MODULES

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
EXTRAS: dict[str, list[str]] = PROJECT["optional-dependencies"]
WEIGHTS_BYTES_MAX = 24 << 20
CORE = """
import sys
from importlib.machinery import PathFinder

# As where the extras were never installed: nobody finds their modules.
hidden = {hidden}
find = PathFinder.find_spec
PathFinder.find_spec = lambda name, *more: None if name.partition(".")[0] in hidden else find(name, *more)
from sdbatch.cli import main
sys.argv[0] = "sdbatch"
main()
"""


def _core(*arguments: str) -> subprocess.CompletedProcess[str]:
    hidden = sorted({module for modules in MODULES.values() for module in modules} | {"aiohttp", "openpyxl", "peft"})
    command = [sys.executable, "-c", CORE.format(hidden=hidden), *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=120)


def _package(requirement: str) -> str:
    return re.split(r"[\[<>=~! ]", requirement, maxsplit=1)[0].lower()


def test_every_extra_brings_the_modules_it_is_there_for() -> None:
    for extra, modules in MODULES.items():
        assert {_package(one).removesuffix("-python") for one in EXTRAS[extra]} >= set(modules), extra
    core = {_package(one) for one in PROJECT["dependencies"]}
    assert not core & {module for modules in MODULES.values() for module in modules}


def test_all_brings_every_extra_that_any_machine_can_have() -> None:
    (own,) = EXTRAS["all"]
    named = set(re.fullmatch(r"sdbatch\[(.+)\]", own).group(1).split(","))  # type: ignore[union-attr]

    assert named <= EXTRAS.keys()
    # For development, or for some devices alone: a person names those.
    assert EXTRAS.keys() - named == {
        "all",
        "test",
        "core-test",
        "local",
        "bench",
        "docs",
        "torchao",
        "quanto",
        "gguf",
        "bitsandbytes",
    }


def test_the_core_checks_plans_and_looks_without_torch_and_ray(
    tmp_path: Path, write_manifest: Callable[..., str], job_of: Callable[..., dict[str, Any]]
) -> None:
    job = job_of(write_manifest(prompts(2)))
    path = tmp_path / "job.yaml"
    path.write_text(json.dumps(job))
    plan = _core("plan", str(path), "--json")
    assert plan.returncode == 0, plan.stderr
    assert json.loads(plan.stdout)["rows"] == {"new": 2}
    assert _core("check", str(path)).returncode == 0
    for arguments, extra in ((["run", str(path)], "ray"), (["run", str(path), "--in-process"], "worker")):
        refused = _core(*arguments)
        assert refused.returncode == 2
        assert refused.stderr.count("\n") == 1
        assert f"pip install 'sdbatch[{extra}]'" in refused.stderr
    refused = _core("status", "s3://bucket/campaign")
    assert refused.returncode == 2
    assert "s3:// needs a package that is missing: s3fs not installed here" in refused.stderr
    assert not Path(job["output"]).exists()

    sdbatch.run(job, in_process=True)
    delivery = {"campaign": job["output"], "to": str(tmp_path / "out"), "name": "{id}_{format}.{ext}"}
    formats = [{"name": "small", "width": 20, "height": 10, "type": "jpg"}]
    (tmp_path / "delivery.yaml").write_text(json.dumps({**delivery, "formats": formats}))
    for arguments in (
        ["status", job["output"]],
        ["verify", job["output"]],
        ["deliver", str(tmp_path / "delivery.yaml")],
    ):
        done = _core(*arguments)
        assert done.returncode == 0, done.stderr
    sizes = {file.name: Image.open(file).size for file in (tmp_path / "out").glob("*.jpg")}
    assert sizes == {f"{row['id']}_small.jpg": (20, 10) for row in prompts(2)}


def test_errors_are_exported() -> None:
    classes = {
        name
        for name, value in vars(errors).items()
        if isinstance(value, type) and issubclass(value, Exception) and value.__module__ == errors.__name__
    }

    assert classes - {name for name in classes if name.startswith("_")} <= set(sdbatch.__all__)
    assert all(hasattr(sdbatch, name) for name in sdbatch.__all__)
    assert sdbatch.__all__ == sorted(sdbatch.__all__)


def _classes(hint: Any) -> Iterator[type]:
    """Yield the classes that a type hint names."""
    if isinstance(hint, type) and not get_args(hint):
        yield hint
    for part in get_args(hint):
        yield from _classes(part)


def test_whatever_a_verb_takes_and_returns_is_exported() -> None:
    exported = {name: getattr(sdbatch, name) for name in sdbatch.__all__}
    named = set()
    for verb in exported.values():
        if isinstance(verb, FunctionType):
            hints = get_type_hints(verb, localns=exported)  # NameError where a class is not exported
            named |= {found for hint in hints.values() for found in _classes(hint)}
    ours = {found.__name__ for found in named if found.__module__.partition(".")[0] == "sdbatch"}

    assert ours >= {"RunResult", "DeliverReport", "VerifyReport"}
    assert ours <= exported.keys()
    with pytest.raises(AttributeError, match="has no attribute 'Nothing'"):
        getattr(sdbatch, "Nothing")  # noqa: B009 -- a type checker tells of it as well


@pytest.mark.parametrize(
    ("imported", "not_there"),
    [
        ("sdbatch.public", set(public._WHERE_USED.values())),
        ("sdbatch", {"sdbatch.public", "sdbatch.api", "pyarrow"}),
        ("sdbatch.worker", {"sdbatch.public", "sdbatch.api", "sdbatch.driver", "jinja2"}),
        ("sdbatch.dispatch.ray_cluster", {"sdbatch.public", "sdbatch.api", "sdbatch.driver", "pyarrow"}),
    ],
)
def test_what_is_imported_on_demand_costs_nobody_else(imported: str, not_there: set[str]) -> None:
    code = f"import sys, {imported}; print(*sorted(sys.modules.keys() & {not_there!r}))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []


@pytest.mark.parametrize("code", ["from sdbatch import ffmpeg", "import sdbatch; sdbatch.errors.JobError"])
def test_a_module_of_the_package_is_had_by_its_name_without_what_is_public(code: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", f"{code}; import sys; print('sdbatch.public' in sys.modules)"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == "False\n"


def test_a_verb_is_not_hidden_by_the_room_of_its_name() -> None:
    rooms = {path.name.removesuffix(".py") for path in (ROOT / "sdbatch").iterdir()}
    alike = sorted(rooms.intersection(sdbatch.__all__))
    code = f"""
import importlib, sdbatch
for name in {alike!r}:
    importlib.import_module(f"sdbatch.{{name}}")
print(*(name for name in {alike!r} if callable(getattr(sdbatch, name))))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert "plan" in alike
    assert done.stdout.split() == alike


def test_the_package_says_what_it_offers() -> None:
    assert set(sdbatch.__all__) <= set(dir(sdbatch))
    names: dict[str, Any] = {}
    exec("from sdbatch import *", names)
    assert set(sdbatch.__all__) <= names.keys()


def test_the_version_is_the_projects() -> None:
    assert sdbatch.__version__ == PROJECT["version"]


def _versions(name: str) -> dict[str, str]:
    lines = (ROOT / name).read_text().splitlines()
    pins = (line.partition(" ")[0].partition("==") for line in lines if line and not line.startswith("#"))
    return {re.sub(r"[-_.]+", "-", package).lower(): version for package, _, version in pins}


def test_every_constraint_has_its_digest() -> None:
    constraints, hashed = _versions("constraints.txt"), _versions("constraints-hashes.txt")
    lines = [line for line in (ROOT / "constraints-hashes.txt").read_text().splitlines() if not line.startswith("#")]

    assert {name: version for name, version in constraints.items() if name != "torch"} == hashed
    assert all(re.fullmatch(r"[\w.-]+==[\w.]+ --hash=sha256:[0-9a-f]{64}", line) for line in lines)


def test_make_tries_both_ends_of_the_range_of_ray() -> None:
    oldest, newest = re.search(r"^RAY_RANGE \?= (\S+) (\S+)$", (ROOT / "Makefile").read_text(), re.MULTILINE).groups()  # type: ignore[union-attr]
    (floor,) = [one.partition(">=")[2] for one in EXTRAS["ray"] if one.startswith("ray")]

    assert re.fullmatch(r"\d+\.\d+", floor), "a floor and no ceiling"
    assert oldest.startswith(f"{floor}.")
    assert newest == _versions("constraints.txt")["ray"]


def test_before_a_commit_the_commands_of_make_check_run_and_nothing_is_fetched() -> None:
    (source,) = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())["repos"]
    entries = {hook["entry"].removeprefix(".venv/bin/").removesuffix(" --force-exclude") for hook in source["hooks"]}

    assert source["repo"] == "local"
    assert {hook["language"] for hook in source["hooks"]} == {"system"}
    assert entries == {"ruff check", "ruff format", "mypy"}


def test_the_shipped_weights_stay_small() -> None:
    weights = [file for file in (ROOT / "sdbatch").rglob("*") if file.suffix in {".safetensors", ".bin", ".pt"}]

    assert weights
    assert sum(file.stat().st_size for file in weights) <= WEIGHTS_BYTES_MAX
    assert {file.suffix for file in weights} == {".safetensors"}


@pytest.mark.long
def test_the_wheel_alone_is_enough_for_the_core(tmp_path: Path) -> None:
    """Installs from the index that pip is set to."""
    source = tmp_path / "source"
    source.mkdir()
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source / name)
    shutil.copytree(ROOT / "sdbatch", source / "sdbatch", ignore=shutil.ignore_patterns("__pycache__"))
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet"]
    subprocess.run([*pip, "wheel", "--no-deps", "-w", str(tmp_path), str(source)], check=True)
    (wheel,) = tmp_path.glob("*.whl")
    clean = tmp_path / "venv"
    venv.create(clean, with_pip=False)
    to = ["--python", str(clean / "bin/python")]
    # Not from the checkout: pip would take the package that is installed for development there for this one.
    install = [*pip, *to, "install", "-c", str(ROOT / "constraints.txt"), str(wheel)]
    subprocess.run(install, check=True, cwd=tmp_path)
    (packages,) = clean.glob("lib/python*/site-packages")
    size_bytes = sum(file.stat().st_size for file in packages.rglob("*") if file.is_file())
    sys.stdout.write(f"wheel {wheel.stat().st_size / 2**20:.1f} MiB, the core installed {size_bytes / 2**20:.0f} MiB\n")

    assert {path.name for path in packages.iterdir()} & {"torch", "ray", "diffusers", "transformers", "tiny"} == set()
    job = {"manifest": "m.csv", "output": "out", "models": {"tiny-sd": {"path": "builtin:tiny-sd"}}}
    (tmp_path / "m.csv").write_text("id,prompt\na,a beach\n")
    (tmp_path / "job.yaml").write_text(json.dumps({**job, "defaults": {"task": "text-to-image", "model": "tiny-sd"}}))
    for verb in ("check", "plan"):
        subprocess.run([str(clean / "bin/sdbatch"), verb, "job.yaml"], check=True, cwd=tmp_path)
