"""What each delivered file says of itself: words at plan time, an XMP packet in the process that makes it.

row of the master + delivery --> words_of() --> plain values, part of the file's key
words + bytes of the master --> packet_for() --> Packet
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Final

from sdbatch.deliver.marking import Metadata
from sdbatch.packets import Packet, packet_in
from sdbatch.provenance.source_type import COMPOSITE, GENERATED, digital_source_type
from sdbatch.provenance.xmp import XMP_VERSION, Properties, document_of, packet_of, read_packet

READ: Final = ("task", "model", "model_revision", "pipeline_class", "committed_at", "prompt", "recipe")
"""Columns of a master's row that its files tell of; the last two only where the delivery asks for them."""
_PROPERTIES: Final = frozenset(Properties.__slots__) - {"source_type"}


def columns_read(metadata: Metadata) -> frozenset[str]:
    """Return the columns of a master's row that its files' words come from."""
    unasked = {name for name in ("prompt", "recipe") if not getattr(metadata, name)}
    return (frozenset(READ) - unasked) | metadata.columns


def words_of(metadata: Metadata, row: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a file says of itself, but what only its master's bytes tell.

    Args:
        metadata: As the delivery says.
        row: Of the master.
    """
    at = row.get("committed_at")
    model, pipeline = row.get("model"), row.get("pipeline_class")
    said = {
        "version": XMP_VERSION,
        "task": row.get("task") or "",
        "system": f"{model} ({pipeline})" if model and pipeline else model or pipeline or "sdbatch",
        "system_version": row.get("model_revision") or "",
        "document": document_of(row["request_key"], row["n"]),
        "made_at": at.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ") if isinstance(at, datetime) else "",
    }
    return {**{name: value for name, value in said.items() if value != ""}, **metadata.words(row)}


def source_type_of(words: Mapping[str, Any], master: bytes) -> str:
    """Return a file's digital source type: what its master says of itself, else what follows from the task alone."""
    said = read_packet(packet_in(master)).get("Iptc4xmpExt:DigitalSourceType")
    return said if said in {GENERATED, COMPOSITE} else digital_source_type(words.get("task", ""), ())


def packet_for(words: Mapping[str, Any], master: bytes, suffix: str) -> Packet:
    """Return the packet of a file.

    Args:
        words: From `words_of`.
        master: Bytes of the master.
        suffix: Type of the file.
    """
    values = {name: value for name, value in words.items() if name in _PROPERTIES}
    values["keywords"] = tuple(values.get("keywords", ()))
    values.setdefault("system_version", "")
    return packet_of(Properties(source_type=source_type_of(words, master), **values), suffix)
