"""What travels with a submitted job: the files of its folder that it may need, and no secret.

    folder, what the job names --> list_package() --> Package --> described(), pack() --> one .zip file

What git ignores stays here, but for what the job names (a built manifest, pictures, a model). Names of secrets stay
here in any case: who reads the cluster's packages reads them.
"""

from __future__ import annotations

import os
import stat
import zipfile
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Final

from sdbatch.dispatch.ignored import Ignored, decision, rules_of
from sdbatch.dispatch.secret_names import holds_a_key, looks_like_a_secret
from sdbatch.errors import JobError

PACKAGE_BYTES_MAX: Final = 99 << 20
"""Ray's job server takes 100 MiB and answers 413 to more."""

FILES_MAX: Final = 20_000
NEVER_SENT: Final = (
    ".git/",
    ".venv/",
    "venv/",
    "node_modules/",
    "__pycache__/",
    "*.egg-info/",
    ".pytest_cache/",
    ".mypy_cache/",
    ".ruff_cache/",
    "/out/",
)
_SHOWN: Final = 5
_HEAD_BYTES: Final = 4096
_EPOCH: Final = (1980, 1, 1, 0, 0, 0)
"""Equal files give equal packages, which Ray does not send twice."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Package:
    """The files that travel, and those that do not.

    Attributes:
        folder: Where they lie.
        sizes: Bytes of each file that travels, by its path inside the folder.
        secrets: Files and folders left out because of their names.
        links: Links left out because they lead out of the folder, or to another folder.
        num_ignored: Files and folders left out because git ignores them, or a pattern does.
    """

    folder: Path
    sizes: dict[str, int] = field(default_factory=dict)
    secrets: tuple[str, ...] = ()
    links: tuple[str, ...] = ()
    num_ignored: int = 0

    @property
    def num_bytes(self) -> int:
        """Bytes of all files."""
        return sum(self.sizes.values())

    def described(self) -> str:
        """Return in one line what is sent and what is not."""
        text = f"sending {len(self.sizes)} files, {shown_bytes(self.num_bytes)}, of {self.folder}"
        text += f" ({', '.join(self.largest())})" if self.sizes else ""
        left = [f"{len(self.secrets)} named like secrets ({_first(self.secrets)})"] if self.secrets else []
        left += [f"{self.num_ignored} ignored"] if self.num_ignored else []
        left += [f"{len(self.links)} links that lead elsewhere ({_first(self.links)})"] if self.links else []
        return f"{text}; not sent: {', '.join(left)}" if left else text

    def largest(self) -> list[str]:
        """Return the largest files and folders at the top of the folder, each with its size."""
        tops: Counter[str] = Counter()
        for path, size in self.sizes.items():
            top, separator, _ = path.partition("/")
            tops[top + separator] += size
        return [f"{name} {shown_bytes(size)}" for name, size in tops.most_common(_SHOWN)]


def list_package(
    folder: Path, named: Collection[Path], left_out: Sequence[str] = (), campaign: Path | None = None
) -> Package:
    """Return what travels of a folder.

    Args:
        folder: The folder.
        named: Files and folders that the job names. They travel although git ignores them, when they lie inside.
        left_out: Further patterns of files that stay here, as lines of .gitignore.
        campaign: A local output, which stays here.

    Raises:
        JobError: When the job names a secret, or the folder has too many files.
    """
    root = folder.resolve()
    listing = _Listing(root, named, left_out, campaign)
    for path in named:
        inner = _inside(path, root)
        if inner is not None and looks_like_a_secret(inner):
            raise JobError(f"{path}: the job needs it, and it is named like a secret, which never travels; rename it")
    listing.walk(root)
    return Package(
        folder=folder,
        sizes=dict(sorted(listing.sizes.items())),
        secrets=tuple(sorted(listing.secrets)),
        links=tuple(sorted(listing.links)),
        num_ignored=listing.num_ignored,
    )


class _Listing:
    """Walks a folder; see `list_package`."""

    def __init__(self, root: Path, named: Iterable[Path], left_out: Iterable[str], campaign: Path | None) -> None:
        self._root = root
        self._named = [root / inner for path in named if (inner := _inside(path, root)) is not None]
        self._campaign = campaign and root / campaign
        self._ignored = Ignored(root)
        self._never = rules_of(NEVER_SENT)
        self._left_out = rules_of(left_out)
        self.sizes: dict[str, int] = {}
        self.secrets: list[str] = []
        self.links: list[str] = []
        self.num_ignored = 0

    def walk(self, folder: Path) -> None:
        """List a folder and those inside."""
        self._ignored.enter(folder)
        for entry in sorted(os.scandir(folder), key=lambda entry: entry.name):
            path = Path(entry.path)
            is_folder = entry.is_dir(follow_symlinks=False)
            name = path.relative_to(self._root).as_posix() + ("/" if is_folder else "")
            if looks_like_a_secret(PurePosixPath(name)):
                self.secrets.append(name)
            elif not self._travels(path, is_folder=is_folder):
                self.num_ignored += 1
            elif is_folder:
                self.walk(path)
            else:
                self._add(path, name)

    def _travels(self, path: Path, *, is_folder: bool) -> bool:
        if path == self._campaign or decision(self._left_out, self._root, path, is_folder=is_folder):
            return False
        if any(path.is_relative_to(named) for named in self._named):
            return True
        if is_folder and any(named.is_relative_to(path) for named in self._named):
            return True  # on the way to what the job names; of the rest there, each is looked at by itself
        parts = [path, *(parent for parent in path.parents if parent.is_relative_to(self._root))]
        return not any(
            decision(self._never, self._root, part, is_folder=is_folder or part != path)
            or self._ignored.covers(part, is_folder=is_folder or part != path)
            for part in parts
            if part != self._root
        )

    def _add(self, path: Path, name: str) -> None:
        try:
            target = path.resolve(strict=True)
            status = target.stat()
        except OSError:  # a link that leads nowhere, or in a circle
            self.links.append(name)
            return
        inner = _inside(target, self._root)
        if inner is None or looks_like_a_secret(inner) or (path.is_symlink() and target.is_dir()):
            self.links.append(name)
        elif stat.S_ISREG(status.st_mode):
            if holds_a_key(_head(target)):
                self.secrets.append(name)
                return
            self.sizes[name] = status.st_size
            if len(self.sizes) > FILES_MAX:
                raise JobError(f"{self._root}: over {FILES_MAX} files; {_REMEDY}")


def pack(package: Package, to: Path) -> None:
    """Write a package as one .zip file.

    Raises:
        JobError: When it would be larger than the job server takes, with what to leave out.
    """
    with zipfile.ZipFile(to, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        for name in package.sizes:
            path = package.folder / name
            info = zipfile.ZipInfo(name, _EPOCH)
            info.compress_type = zipfile.ZIP_DEFLATED
            info.external_attr = (path.stat().st_mode & 0o777 | stat.S_IFREG) << 16
            with path.open("rb") as source, archive.open(info, "w", force_zip64=True) as target:
                for chunk in _chunks(source):
                    target.write(chunk)
                    if to.stat().st_size > PACKAGE_BYTES_MAX:
                        raise JobError(
                            f"{package.folder}: its {len(package.sizes)} files ({shown_bytes(package.num_bytes)}) are "
                            f"over {shown_bytes(PACKAGE_BYTES_MAX)} when packed, the most that a job server takes; "
                            f"nothing was sent. The largest: {', '.join(package.largest())}. {_REMEDY}"
                        )


_REMEDY: Final = (
    "Leave out what the job does not need by .gitignore or --exclude PATTERN, submit from a smaller --working-dir, and "
    "keep pictures and models in a bucket"
)


def shown_bytes(number: int) -> str:
    """Return a number of bytes as people read it: 812 B, 4.0 KiB, 95.2 MiB."""
    size = float(number)
    for unit in ("B", "KiB", "MiB"):
        if size < 1024:
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1024
    return f"{size:.1f} GiB"


def _inside(path: Path, root: Path) -> PurePosixPath | None:
    """Return a path relative to a folder, None when it does not lie strictly inside."""
    whole = Path(os.path.normpath(path if path.is_absolute() else root / path))
    if whole == root or not whole.is_relative_to(root):
        return None
    return PurePosixPath(whole.relative_to(root).as_posix())


def _head(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(_HEAD_BYTES)


def _chunks(file: object) -> Iterator[bytes]:
    while chunk := file.read(1 << 20):  # type: ignore[attr-defined]
        yield chunk


def _first(names: Sequence[str]) -> str:
    return ", ".join(names[:_SHOWN]) + (", ..." if len(names) > _SHOWN else "")
