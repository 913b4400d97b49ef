"""Makes an environment with another Ray, which borrows every other package from the one that runs this.

python tests/support/other_ray.py VERSION FOLDER
"""

from __future__ import annotations

import site
import subprocess
import sys
import venv
from pathlib import Path


def make(version: str, folder: Path) -> None:
    """Make the environment, unless it is there."""
    python = folder / "bin" / "python"
    if not python.exists():
        venv.create(folder, with_pip=True)
    (packages,) = folder.glob("lib/python*/site-packages")
    (own,) = site.getsitepackages()
    (packages / "borrowed.pth").write_text(f"import site; site.addsitedir({own!r})\n")
    # Ray itself is not borrowed, even where it is the same: tests start its command. What it refuses of the borrowed
    # packages, pip installs beside it; a submitted job looks for our own command.
    own_ray = [] if (folder / "bin" / "ray").exists() else [["--ignore-installed", "--no-deps", f"ray=={version}"]]
    for what in (*own_ray, [f"ray[default]=={version}"], ["--no-deps", "-e", str(Path(__file__).parents[2])]):
        subprocess.run([str(python), "-m", "pip", "install", "--quiet", *what], check=True)


if __name__ == "__main__":
    make(sys.argv[1], Path(sys.argv[2]))
