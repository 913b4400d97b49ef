"""Every generated piece by its name: one more is a row here, and marks of its name in a page."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Final

from docs.generator import commands, schemas, signatures, tables

PIECES: Final[Mapping[str, Callable[[], str]]] = {
    "columns": tables.manifest_columns,
    "metadata": tables.metadata_columns,
    "families": tables.families,
    "named-formats": tables.named_formats,
    "exit-codes": tables.exit_codes,
    "outcomes": tables.outcomes_table,
    "errors": tables.error_classes,
    "job": schemas.job,
    "brief": schemas.brief,
    "delivery": schemas.delivery,
    "options": commands.shared_options,
    "commands-make": commands.to_make,
    "commands-look": commands.to_look,
    "python-make": partial(signatures.functions, signatures.MAKE),
    "python-look": partial(signatures.functions, signatures.LOOK),
    "python-values": signatures.values,
}
