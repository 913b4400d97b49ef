"""Writes the digests of what pip would install: report of `pip install --dry-run --report` in, requirements out."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

HEAD = """# What constraints.txt names, with digests of the files for Python 3.11 on Linux x86_64. torch is not there:
# its wheel differs from index to index, so it is installed first. Renew: `make hashes`. Use:
#   pip install -c constraints.txt torch
#   pip install --require-hashes --no-deps -r constraints-hashes.txt
#   pip install --no-deps sdbatch
"""


def lines(report: Mapping[str, Any]) -> Iterator[str]:
    """Yield a requirement with its digest for each package of a report, by name."""
    for entry in sorted(report["install"], key=lambda entry: str(entry["metadata"]["name"]).lower()):
        metadata, digest = entry["metadata"], entry["download_info"]["archive_info"]["hashes"]["sha256"]
        yield f"{metadata['name']}=={metadata['version']} --hash=sha256:{digest}"


if __name__ == "__main__":
    sys.stdout.write(HEAD + "\n".join(lines(json.loads(Path(sys.argv[1]).read_text()))) + "\n")
