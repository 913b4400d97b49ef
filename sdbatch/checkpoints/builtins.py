"""Models that come with the package, or that it makes where they are first used."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from sdbatch.storage.cache import cache_folder


@dataclass(frozen=True, slots=True, kw_only=True)
class Builtin:
    """A model that the package makes itself, where it is first used.

    Attributes:
        maker: Dotted path of the function that writes its folder.
        family: Title.
        revision: Name of the maker and its number, raised when the maker's output changes; names the folder it is
            made in.
        height: Native, pixels.
        width: Native, pixels.
        parameters: Number of the denoiser's parameters.
    """

    maker: str
    family: str
    revision: str
    height: int
    width: int
    parameters: int

    @property
    def identity(self) -> str:
        """Identity that stands for its content: the digest of `revision`, 64 hex digits like every content digest."""
        return hashlib.sha256(self.revision.encode()).hexdigest()


SHIPPED: Final[Mapping[str, Path]] = {
    name: Path(__file__).parent / "builtin" / name for name in ("tiny-sd", "tiny-video")
}

"""Builtins whose weights come with the package: a folder like any other."""

SHIPPED_DEFAULTS: Final[Mapping[str, Mapping[str, Any]]] = {
    "tiny-video": {"height": 64, "width": 64, "num_frames": 17, "fps": 8.0, "guidance_scale": 2.0},
}

"""Settings they were trained for, where their folder cannot state them and their family's defaults would be wrong."""

BUILTINS: Final[Mapping[str, Builtin]] = {
    "tiny-random": Builtin(
        maker="sdbatch.generate.random_weights:make_tiny_random",
        family="Stable Diffusion 1.x/2.x",
        revision="tiny-sd-random-1",
        height=64,
        width=64,
        parameters=253_364,
    ),
}


def builtin_folder(name: str) -> str:
    """Return where a builtin's folder lies on this machine, once it was made if it is not shipped."""
    return str(SHIPPED.get(name) or cache_folder() / "models" / BUILTINS[name].revision)
