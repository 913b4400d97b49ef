"""sdbatch: a table of prompts and source images becomes finished pictures and clips, on as many GPUs as you have.

The tree, in the order the data walks:

    job/ -> desk/ -> manifest/ -> plan/ -> dispatch/ -> fetch/ -> generate/ -> after/ -> encode/ -> campaign/
    -> review/ -> deliver/, report/

The driver (`driver/`) and the worker (`worker/`) put rooms together; nothing else does. Importing this package
imports none of them; the first use of a public name does, and neither torch nor Ray.
"""

from __future__ import annotations

from sdbatch import interrupted_import

if interrupted_import.is_command():  # Python runs this file before the first line of the command
    interrupted_import.end_at_once()

import sys
from importlib import import_module
from importlib.util import find_spec
from types import ModuleType
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from sdbatch.public import *  # noqa: F403 -- what is public is listed there alone
    from sdbatch.public import __all__ as __all__
    from sdbatch.public import __version__ as __version__

_VERBS_LIKE_ROOMS: Final = frozenset({"deliver", "plan", "report", "review"})


class _Package(ModuleType):
    """The package, in which `plan` is the verb: a room of that name that is imported does not take its place."""

    def __setattr__(self, name: str, value: object) -> None:
        if not (name in _VERBS_LIKE_ROOMS and isinstance(value, ModuleType)):
            super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Package


if not TYPE_CHECKING:  # who checks types knows every name, and tells of one that is not there

    def __getattr__(name: str) -> Any:
        if not name.startswith("_") or name in {"__all__", "__version__"}:  # Python asks every module for other ones
            if name not in _VERBS_LIKE_ROOMS and find_spec(f"{__name__}.{name}"):
                return import_module(f"{__name__}.{name}")  # `from sdbatch import ffmpeg` imports nothing else
            public = import_module("sdbatch.public")
            if name in {*public.__all__, "__all__"}:
                return getattr(public, name)
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *import_module("sdbatch.public").__all__})
