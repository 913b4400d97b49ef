"""What exiftool, which did not write our files, finds in them; tests are skipped where it is not installed."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest


def exiftool(file: Path, *arguments: str) -> dict[str, Any]:
    """Return what exiftool finds in a file, by group and name."""
    if shutil.which("exiftool") is None:
        pytest.skip("Debian's libimage-exiftool-perl is not here")
    command = ["exiftool", "-j", "-G1", "-u", "-charset", "utf8", *arguments, str(file)]
    done = subprocess.run(command, capture_output=True, check=True)
    (found,) = json.loads(done.stdout)
    return dict(found)
