"""The package's extras: what each is for, and the Python packages that it brings.

    pip install sdbatch              the core: check, plan, status, deliver
    pip install 'sdbatch[all]'       whatever a job may ask for

What is not installed is refused by name, before anything is begun with it.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib.util import find_spec
from typing import Final

from sdbatch.errors import JobError

MODULES: Final[Mapping[str, tuple[str, ...]]] = {
    "ray": ("ray", "pathspec"),
    "worker": ("torch", "diffusers", "transformers", "accelerate", "ftfy"),
    "s3": ("s3fs",),
    "gcs": ("gcsfs",),
    "azure": ("adlfs",),
    "provenance": ("c2pa", "cryptography"),
}
"""Modules that an extra is there for, by its name in pyproject.toml."""


def lacking(extra: str) -> str:
    """Return what an extra would bring and this Python lacks, with the remedy; "" where nothing is missing."""
    missing = [module for module in MODULES[extra] if find_spec(module) is None]
    return f"{', '.join(missing)} not installed here; pip install 'sdbatch[{extra}]'" if missing else ""


def require(extra: str, purpose: str) -> None:
    """Refuse what needs an extra that is not there.

    Args:
        extra: One of `MODULES`.
        purpose: What needs it, as the subject of a sentence.

    Raises:
        JobError: When a module of it is missing.
    """
    if missing := lacking(extra):
        raise JobError(f"{purpose} needs the Python packages of an extra: {missing}")
