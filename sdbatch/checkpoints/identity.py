"""Identities of weights, by their content.

    stated revision --> identity() --> goes into every request key
    no revision     --> digest_of() the files' own digests

A commit has 40 hex digits and is believed: nothing on a disk can be compared with it. A digest of 64 hex digits is over
paths and contents (`digest_of`); what is loaded under it is compared with it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

CONTENT_DIGITS = 64
"""Hex digits of a content digest; a shorter revision is a commit."""


def is_content_digest(revision: str) -> bool:
    """Whether a revision is a digest of contents, which can be compared with the files themselves."""
    return len(revision) == CONTENT_DIGITS


def identity(
    revision: str, *, file: str | None = None, variant: str | None = None, subfolder: str | None = None
) -> str:
    """Return what goes into the request key for weights of a revision.

    A commit stands for a whole repository, so the part of it that is read is named as well. A content digest is over
    what is read and nothing else, so it stands as it is; and so does a commit of which the whole folder is read.

    Args:
        revision: Commit or content digest.
        file: Name of the only file that is read.
        variant: Word in the names of the files that are read, such as `fp16`.
        subfolder: Folder of the repository that is read.
    """
    parts = {"file": file, "subfolder": subfolder, "variant": variant}
    named = [f"{name} {value}" for name, value in parts.items() if value]
    if not named or is_content_digest(revision):
        return revision
    return hashlib.sha256("\n".join([revision, *named]).encode()).hexdigest()


def digest_of(sha256_by_path: Mapping[str, str]) -> str:
    """Return the content digest of files: over their paths and the `sha256:...` of each, in order of path.

    It is the same for the same files in a local folder and in a bucket.
    """
    lines = [f"{path} {sha256_by_path[path]}" for path in sorted(sha256_by_path)]
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def combined(base: str, components: Mapping[str, str]) -> str:
    """Return one digest for a model and the folders laid over it; the model's own where there are none."""
    if not base or not any(components.values()):
        return base
    ordered = [components[name] for name in sorted(components)]
    return hashlib.sha256("\n".join([base, *ordered]).encode()).hexdigest()
