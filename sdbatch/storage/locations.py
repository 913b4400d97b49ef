"""URLs and paths that a job may name, split into scheme and path."""

from __future__ import annotations

import os
import unicodedata
from dataclasses import dataclass

from sdbatch.errors import UserError

PACKAGES = {"s3": "s3fs", "gs": "gcsfs", "gcs": "gcsfs", "az": "adlfs", "abfs": "adlfs", "abfss": "adlfs"}

"""The fsspec package that reaches the object stores of each scheme. Each package turns `mode="create"` into one
conditional request (If-None-Match, ifGenerationMatch=0); that was read in the code of s3fs 2026.9, gcsfs 2026.9 and
adlfs."""

EXTRAS = {"s3fs": "s3", "gcsfs": "gcs", "adlfs": "azure"}

"""The extra of sdbatch that brings each of these packages."""

SCHEMES = ("file", *PACKAGES)

"""Schemes that a job may name. fsspec knows some fifty more (http, ssh, zip, chained ones); none of them is opened.
Most of them, its own local and memory file systems too, look whether a path exists and then write, so that two writers
of one path can both win."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Location:
    """A parsed URL.

    Attributes:
        scheme: `file` for local paths.
        path: Absolute local path, or `bucket/key`.
    """

    scheme: str
    path: str

    @property
    def is_local(self) -> bool:
        """Whether the location is on this machine's file system."""
        return self.scheme == "file"

    @property
    def url(self) -> str:
        """The URL again; a plain path when local."""
        return self.path if self.is_local else f"{self.scheme}://{self.path}"


def parse_url(url: str) -> Location:
    """Split a path or URL; relative paths are taken from the working directory.

    Raises:
        UserError: On chained URLs (`a::b`), schemes that are not in `SCHEMES`, `..` in a remote key, a NUL, or a `~`
            that only a shell takes for the home folder; on a local path that is no UTF-8, since no table or record
            could hold it.
    """
    if "::" in url or "\0" in url:
        raise UserError(f"{url!r}: chained URLs and NUL are refused")
    scheme, separator, rest = url.partition("://")
    if not separator:
        if url == "~" or url.startswith("~/"):
            home = os.path.expanduser(url)  # noqa: PTH111 -- without a HOME it stays as it is
            raise UserError(f"{url}: `~` stands for no folder here; write {home}, or ./{url} if that is meant")
        return Location(scheme="file", path=_as_on_disk(os.path.abspath(url)))  # noqa: PTH100 -- Path.resolve would follow symbolic links
    if scheme not in SCHEMES:
        raise UserError(f"{url}: scheme {scheme!r} is not one of {', '.join(SCHEMES)}")
    if scheme == "file":
        return Location(scheme="file", path=_as_on_disk(os.path.abspath("/" + rest.lstrip("/"))))  # noqa: PTH100
    parts = rest.rstrip("/").split("/")
    if not parts[0] or any(part in {"", ".", ".."} for part in parts):
        raise UserError(f"{url}: a bucket and a key without empty, '.' or '..' parts are needed")
    return Location(scheme=scheme, path="/".join(parts))


def _as_on_disk(path: str) -> str:
    """Return an absolute path in the Unicode form that its names have on disk.

    A name with an accent can be written in two forms that look alike. Tables have the composed one (NFC), files copied
    from a Mac often the other (NFD). A path that is there is left as it is, and so is one that is there in no form.
    """
    if path.isascii():
        return path
    try:
        path.encode()
    except UnicodeEncodeError as error:
        raise UserError(f"{path}: a name in it is not UTF-8; rename that file or folder") from error
    if os.path.lexists(path):
        return path
    found = "/"
    for name in path.strip("/").split("/"):
        forms = (name, unicodedata.normalize("NFC", name), unicodedata.normalize("NFD", name))
        found = next((there for form in forms if os.path.lexists(there := os.path.join(found, form))), "")  # noqa: PTH118
        if not found:
            return path
    return found


def leads_out(path: str) -> bool:
    """Whether a path relative to a folder leads out of it, or is none."""
    return path.startswith("/") or "\0" in path or ".." in path.split("/")


def joined(url: str, name: str) -> str:
    """Return `name` under the folder `url`."""
    return f"{url.rstrip('/')}/{name}"


def split(url: str) -> tuple[str, str]:
    """Return (folder URL, name) of a file."""
    folder, _, name = parse_url(url).url.rpartition("/")
    return folder or "/", name
