"""The command line: parses, calls a verb of `sdbatch.api`, prints. Nothing is decided here."""

from __future__ import annotations

from sdbatch.collector import left_to_stay

with left_to_stay():  # a tenth of the time that the imports take
    from sdbatch.cli.commands import app, main
    from sdbatch.cli.process import prepare_command

__all__ = ["app", "main", "prepare_command"]
