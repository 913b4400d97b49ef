"""A process that reads the credentials of one source, which may be anybody's: its memory and time are bounded.

source (file) + label, relation, title --> archive(): bounds, library --> archive (file), or a line that says why not
"""

from __future__ import annotations

import json
import resource
import sys
from pathlib import Path
from typing import Final

from sdbatch.provenance.signing import SignFailed, archive_of

MEMORY_BYTES_MAX: Final = 2 << 30
PROCESSOR_S_MAX: Final = 20
ARCHIVE_BYTES_MAX: Final = 4 << 20
"""Longest archive that is kept: of some 10 KB for each manifest in it, a file that was edited often has many."""
REFUSED: Final = 3
"""Exit status when the credentials cannot be read; the reason stands on standard output."""


def archive(arguments: str) -> None:
    """Write the archive of a source's credentials beside it.

    Args:
        arguments: JSON of the source's path, its media type, label, relation, and title.
    """
    path, media_type, label, relation, title = json.loads(arguments)
    for name, value in (("RLIMIT_CORE", 0), ("RLIMIT_CPU", PROCESSOR_S_MAX), ("RLIMIT_FSIZE", ARCHIVE_BYTES_MAX)):
        resource.setrlimit(getattr(resource, name), (value, value))
    if sys.platform.startswith("linux"):  # macOS counts libraries that all processes share
        resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES_MAX, MEMORY_BYTES_MAX))
    source = Path(path)
    try:
        source.with_name("archive").write_bytes(archive_of(source.read_bytes(), media_type, label, relation, title))
    except SignFailed as error:
        sys.stdout.write(str(error)[:300])
        sys.exit(REFUSED)
