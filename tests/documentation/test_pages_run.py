"""Every page's blocks run, in their order, as a reader would type them; `make long` and `make docs` do this."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from support.doc_blocks import ROOT, Block, blocks_of, pages

RUN = {"bash", "python"}
PAGE_S_MAX = 1500
RUNNABLE = [
    page for page in pages() if any(block.language in RUN and block.not_run is None for block in blocks_of(page))
]


def script_of(blocks: list[Block]) -> str:
    """Return the shell script of a page: files are written, commands and programs run, the first that fails ends it."""
    parts = ["set -euo pipefail"]
    for block in blocks:
        parts += [f"echo '== {block.place}'", *block.first]
        if block.title:
            parts.append(f"cat > {shlex.quote(block.title)} <<'END_OF_FILE'\n{block.text}END_OF_FILE")
        elif block.not_run is None and block.language == "bash":
            parts.append(block.text)
        elif block.not_run is None and block.language == "python":
            parts.append(f"python - <<'END_OF_FILE'\n{block.text}END_OF_FILE")
    return "\n".join(parts) + "\n"


def _environment(folder: Path, **more: str) -> dict[str, str]:
    """Return an environment in which `sdbatch` and `python` are this checkout's."""
    programs = folder / "bin"
    programs.mkdir(exist_ok=True)
    for name, command in (("python", ""), ("sdbatch", "-m sdbatch ")):
        program = programs / name
        program.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} {command}"$@"\n')
        program.chmod(0o755)
    path = f"{programs}{os.pathsep}{os.environ['PATH']}"
    return {**os.environ, "PATH": path, "PYTHONPATH": str(ROOT), "CHECKOUT": str(ROOT), **more}


def _run(script: str, folder: Path, **more: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    environment = _environment(folder.parent, **more)
    done = subprocess.run(
        ["bash", "-c", script], cwd=folder, env=environment, capture_output=True, text=True, timeout=PAGE_S_MAX
    )
    assert done.returncode == 0, f"{done.stdout[-3000:]}\n{done.stderr[-3000:]}"


@pytest.fixture(scope="session")
def spring(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of `sdbatch init` whose campaign is rendered, in few steps."""
    folder = tmp_path_factory.mktemp("pages")
    _run("sdbatch init spring\ncd spring\nsed -i s/12/2/ job.yaml\nsdbatch run job.yaml --in-process\n", folder)
    return folder / "spring"


def test_there_are_pages_to_run() -> None:
    assert len(RUNNABLE) > 8


def test_a_script_ends_where_a_block_fails(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(
        '```csv title="a.csv"\nid,prompt\n```\n\n<!-- not run: it would fail -->\n```bash\nfalse\n```\n\n'
        "<!-- first: touch first -->\n```bash\ntest -e first\ntest -e a.csv\n```\n\n"
        "```python\nraise SystemExit(3)\n```\n"
    )
    blocks = list(blocks_of(page, tmp_path))

    with pytest.raises(AssertionError, match=r"page.md:16\s+assert"):
        _run(script_of(blocks), tmp_path / "scratch")
    _run(script_of(blocks[:3]), tmp_path / "other")


@pytest.mark.long
@pytest.mark.timeout(PAGE_S_MAX + 60)
@pytest.mark.parametrize("page", RUNNABLE, ids=lambda page: str(page.relative_to(ROOT)))
def test_a_page_runs(page: Path, spring: Path, tmp_path: Path) -> None:
    _run(script_of(list(blocks_of(page))), tmp_path / "scratch", SPRING=str(spring))
