"""No link, anchor or picture of the README and the documentation leads nowhere, and no message quoted is another."""

from __future__ import annotations

import re
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest
import yaml
from support.doc_blocks import DOCS, ROOT, pages

PAGES = [*pages(), ROOT / "CONTRIBUTING.md", ROOT / "SECURITY.md", ROOT / "CHANGELOG.md"]
PICTURE_BYTES_MAX = 200_000
README_LINES_MAX = 160
_LINK = re.compile(r"!?\[[^\]]*\]\(([^)\s]+)\)")
_HEADING = re.compile(r"^#+ (.+)$", re.MULTILINE)
_FENCED = re.compile(r"^ *```.*?^ *```$", re.MULTILINE | re.DOTALL)


@cache
def _anchors(page: Path) -> frozenset[str]:
    """Return the anchors that a page's headings get, as MkDocs and GitHub make them."""
    text = _FENCED.sub("", page.read_text(encoding="utf-8"))
    return frozenset(_slug(heading) for heading in _HEADING.findall(text))


def _slug(heading: str) -> str:
    kept = re.sub(r"[^\w\s-]", "", heading.replace("`", "")).strip().lower()
    return re.sub(r"[-\s]+", "-", kept)


def _links(page: Path) -> list[str]:
    text = _FENCED.sub("", page.read_text(encoding="utf-8"))
    return [link for link in _LINK.findall(text) if not link.startswith(("https://", "http://", "mailto:"))]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    for link in _links(page):
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        assert target.is_file(), f"{page.name}: {link}"
        assert target.is_relative_to(ROOT), f"{page.name}: {link}"
        assert not anchor or anchor in _anchors(target), f"{page.name}: {link}: there are {sorted(_anchors(target))}"


def test_a_link_that_leads_nowhere_would_be_seen(tmp_path: Path) -> None:
    page = tmp_path / "p.md"
    page.write_text("# One two\n[a](#one-two) [b](#three) ![c](d.jpg)\n```text\n[e](f.md)\n```\n")

    assert _links(page) == ["#one-two", "#three", "d.jpg"]
    assert _anchors(page) == {"one-two"}


def test_every_page_and_picture_is_shown_somewhere() -> None:
    config = yaml.safe_load((ROOT / "mkdocs.yml").read_text())
    parts = [[part] if isinstance(part, str) else next(iter(part.values())) for part in config["nav"]]
    shown = {entry for part in parts for entry in part}
    here = {str(page.relative_to(DOCS)) for page in pages() if page.is_relative_to(DOCS)}
    pictures = {link.rsplit("/", 1)[1] for page in pages() for link in _links(page) if "pictures/" in link}

    assert shown == here
    assert pictures == {file.name for file in (DOCS / "pictures").iterdir()}
    assert all(file.stat().st_size <= PICTURE_BYTES_MAX for file in (DOCS / "pictures").iterdir())


def test_the_readme_is_one_page() -> None:
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) <= README_LINES_MAX


def test_the_site_needs_no_network() -> None:
    config = yaml.safe_load((ROOT / "mkdocs.yml").read_text())

    assert config["theme"]["font"] is False
    assert "offline" in config["plugins"]
    assert config.get("extra_javascript", []) == config.get("extra_css", []) == []


@pytest.mark.long
def test_the_built_site_is_strict_and_loads_nothing_from_elsewhere(tmp_path: Path) -> None:
    pytest.importorskip("mkdocs", reason="`make docs` brings it")
    command = [sys.executable, "-m", "mkdocs", "build", "--quiet", "--strict", "--site-dir", str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    built = {str(file.relative_to(tmp_path)): file.read_text(encoding="utf-8") for file in tmp_path.rglob("*.html")}

    assert "trouble/messages.html" in built
    assert not [name for name in built if name.startswith(("generator", "new"))]
    loaded = r'<script[^>]* src="https?://|<link[^>]* rel="stylesheet"[^>]* href="https?://|@import url\(.?https?://'
    assert {name for name, text in built.items() if re.search(loaded, text)} == set()


def test_messages_that_the_page_explains_are_the_codes() -> None:
    text = (DOCS / "trouble/messages.md").read_text(encoding="utf-8")
    source = "".join(file.read_text(encoding="utf-8") for file in sorted((ROOT / "sdbatch").rglob("*.py")))
    quoted = [
        part for row in re.findall(r"^\| (`.+?`) \| ", text, re.MULTILINE) for part in re.findall("`([^`]+)`", row)
    ]

    assert len(quoted) > 25
    assert [part for part in quoted if part not in source] == []
