"""The image, without building it: what its Dockerfile says, and that what it copies is enough to install sdbatch."""

from __future__ import annotations

import fnmatch
import json
import re
import shlex
import shutil
import site
import subprocess
import sys
import tomllib
import venv
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[2]
DOCKERFILE = ROOT / "k8s/Dockerfile"


def instructions(text: str) -> list[tuple[str, str]]:
    """Return (instruction, arguments) of a Dockerfile, comments and line breaks taken out."""
    lines = "\n".join(line for line in text.splitlines() if not line.lstrip().startswith("#"))
    joined = re.sub(r"\\\n\s*", " ", lines)
    return [
        (word.upper(), rest.strip()) for word, _, rest in (line.partition(" ") for line in joined.splitlines()) if word
    ]


STEPS = instructions(DOCKERFILE.read_text())


def _all(word: str) -> list[str]:
    return [rest for name, rest in STEPS if name == word]


def _copies() -> list[tuple[list[str], str]]:
    return [(parts[:-1], parts[-1]) for parts in map(shlex.split, _all("COPY"))]


def test_the_base_is_an_argument_that_stands_before_from() -> None:
    assert [name for name, _ in STEPS[:2]] == ["ARG", "FROM"]
    assert STEPS[0][1].startswith("BASE=python:3.11-")
    assert STEPS[1][1] == "${BASE}"
    assert 'TORCH_INDEX=""' in _all("ARG")


def test_every_copied_path_exists_and_reaches_the_build() -> None:
    ignore = (ROOT / "k8s/Dockerfile.dockerignore").read_text().splitlines()
    let_in = {line.removeprefix("!") for line in ignore if line.startswith("!")}
    assert "*" in ignore
    sources = {source for sources, _ in _copies() for source in sources}
    assert sources == let_in  # neither a file the build misses nor one it does not need
    assert all((ROOT / source).exists() for source in sources)


def test_nothing_is_fetched_but_packages_and_no_model_is_baked_in() -> None:
    assert not _all("ADD")
    text = " ".join(rest for _, rest in STEPS)
    assert not re.search(r"\b(curl|git clone|huggingface|from_pretrained|hf_hub_download)\b", text)
    assert not re.search(r"wget\s+(-|http)", text)
    # Comments too: which index a site uses is the site's business.
    assert "://" not in DOCKERFILE.read_text()
    sources = [source for sources, _ in _copies() for source in sources]
    assert not fnmatch.filter(sources, "*models*")
    assert "HF_HUB_OFFLINE=1" in text


def test_every_install_takes_its_versions_from_constraints() -> None:
    installs = re.findall(r"pip install [^;&]*", " ".join(_all("RUN")))
    assert len(installs) == 3
    assert all("-c constraints.txt" in install for install in installs)
    # The last one brings our own code only: the layer below holds everything else and stays.
    assert "--no-deps" in installs[-1]
    assert next(i for i, step in enumerate(STEPS) if step == ("COPY", "sdbatch sdbatch")) > next(
        i for i, (_, rest) in enumerate(STEPS) if '-c constraints.txt ".[' in rest
    )


def test_the_image_runs_as_a_plain_user_with_a_writable_home_and_a_shell() -> None:
    assert _all("USER") == ["1000:1000"]
    assert STEPS.index(("USER", "1000:1000")) > max(i for i, (name, _) in enumerate(STEPS) if name in {"RUN", "COPY"})
    environment = dict(part.split("=", 1) for rest in _all("ENV") for part in shlex.split(rest))
    assert environment["HOME"] == "/home/sdbatch"
    assert environment["SDBATCH_CACHE"] == "/cache"
    assert not _all("ENTRYPOINT")  # KubeRay's own command must come through
    assert _all("CMD") == ['["sdbatch", "--help"]']


def _argument(name: str) -> str:
    (value,) = [rest.partition("=")[2].strip('"') for rest in _all("ARG") if rest.partition("=")[0] == name]
    return value


def test_the_image_has_the_extras_that_the_overlays_jobs_need() -> None:
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    asked = set(_argument("EXTRAS").split(","))
    assert asked <= extras.keys()
    assert '".[${EXTRAS}]"' in " ".join(_all("RUN"))
    (everything,) = extras["all"]
    there = asked | (set(everything.removeprefix("sdbatch[").removesuffix("]").split(",")) if "all" in asked else set())
    jobs = [yaml.safe_load(path.read_text()) for path in (ROOT / "k8s").rglob("job.yaml")]
    assert len(jobs) >= 4
    needed = {"ray", "worker"}
    for job in jobs:
        text = json.dumps(job)
        needed |= {
            extra for scheme, extra in (("s3", "s3"), ("gs", "gcs"), ("abfs", "azure")) if f"{scheme}://" in text
        }
        needed |= {model["quantize"]["backend"] for model in job["models"].values() if "quantize" in model}
    assert needed <= there


def test_an_image_for_gpus_can_compile() -> None:
    packages = _argument("COMPILER").split()
    assert {"gcc", "g++"} <= set(packages)
    (install,) = [rest for rest in _all("RUN") if "apt-get install" in rest]
    assert "${COMPILER}" in install
    assert STEPS.index(("ARG", f'COMPILER="{" ".join(packages)}"')) < STEPS.index(("RUN", install))
    # Triton's stub includes Python.h: python's images have it, Ubuntu's package must be asked for.
    assert "python3-dev" in DOCKERFILE.read_text()


@pytest.mark.slow
def test_what_the_dockerfile_copies_is_enough_to_install_sdbatch(tmp_path: Path) -> None:
    pytest.importorskip("setuptools", reason="the build backend is not in this environment")
    source = tmp_path / "src"
    source.mkdir()
    for name in (name for names, _ in _copies() for name in names):
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(ROOT / name, source / name)
    clean = tmp_path / "venv"
    venv.create(clean, with_pip=False)
    python = clean / "bin/python"
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--python", str(python)]
    # The dependencies are those of this environment, lent by path; sdbatch itself comes from the clean one.
    (packages,) = clean.glob("lib/python*/site-packages")
    (packages / "lent.pth").write_text("\n".join(site.getsitepackages()))
    _done([*pip, "install", "--quiet", "--no-deps", "--no-build-isolation", "--no-index", str(source)])
    _done([str(clean / "bin/sdbatch"), "--help"])
    where = _done([str(python), "-c", "import sdbatch, sdbatch.report; print(sdbatch.__file__)"])
    assert Path(where.strip()).is_relative_to(clean)
    assert (packages / "sdbatch/report/page/gallery.css").exists()  # what is no Python goes along too


def _done(command: list[str]) -> str:
    result = subprocess.run(command, capture_output=True, text=True, timeout=240, cwd="/")
    assert result.returncode == 0, result.stderr
    return result.stdout
