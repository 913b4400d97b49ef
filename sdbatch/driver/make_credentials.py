"""A certificate chain for trying: three files in a folder, of which the key is for its owner alone.

name --> write_chain() --> certificate.pem, key.pem, root.pem
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

from sdbatch.errors import JobError
from sdbatch.extras import require
from sdbatch.provenance.signing_keys import make_chain

_NAMES: Final = ("certificate.pem", "key.pem", "root.pem")
NAME_CHARACTERS_MAX: Final = 40


def write_chain(folder: Path, name: str) -> list[Path]:
    """Write a chain; what is there already stays.

    Raises:
        JobError: When one of the files is there, or the folder cannot be written.
    """
    require("provenance", "credentials selfsign")
    if not 1 <= len(name) <= NAME_CHARACTERS_MAX:
        raise JobError(f"--name {name!r}: has {len(name)} characters; 1 to {NAME_CHARACTERS_MAX} are taken")
    files = [folder / file for file in _NAMES]
    if there := next((file for file in files if file.exists()), None):
        raise JobError(f"{there}: is there already; name another folder")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for file, text in zip(files, make_chain(name), strict=True):
            mode = 0o600 if file.name == "key.pem" else 0o644
            with os.fdopen(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "w") as opened:
                opened.write(text)
    except OSError as error:
        raise JobError(f"{folder}: cannot be written: {error.strerror or error}") from error
    return files
