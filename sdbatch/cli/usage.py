"""A command line that is wrong is told as an object where `--json` asks for objects; its exit code is 2 anyway."""

from __future__ import annotations

import sys
from typing import Any, Final

import typer
from typer.core import TyperGroup

from sdbatch.cli.shown import show_json

_ROOT: Final = "ClickException"
# Newer versions of typer bring their own copy of click; either way its errors have this root.
_REFUSED: Final[Any] = next(kind for kind in typer.BadParameter.__mro__ if kind.__name__ == _ROOT)


class Commands(TyperGroup):
    """The commands of sdbatch."""

    def main(self, args: Any = None, *others: Any, **named: Any) -> Any:
        """Run a command; see above."""
        given = sys.argv[1:] if args is None else list(args)
        if "--json" not in given:
            return super().main(given, *others, **named)
        try:
            code = super().main(given, *others, **{**named, "standalone_mode": False})
        except _REFUSED as error:
            place = getattr(getattr(error, "ctx", None), "command_path", "")
            message = f"{place}: {error.format_message()}" if place else error.format_message()
            show_json({"error": "UsageError", "message": message, "problems": []})
            code = getattr(error, "exit_code", 2)
        sys.exit(code if isinstance(code, int) else 0)
