"""What a source says of how it came to be: IPTC's digital source type in its XMP.

bytes --> said_source_type() --> address of IPTC's vocabulary, or ""
"""

from __future__ import annotations

import re
from typing import Final

from sdbatch.packets import packet_in

_SAID: Final = re.compile(
    # As an element, as an attribute, or as an rdf:resource; http or https.
    rb"\bDigitalSourceType\b[^<>]{0,200}?[>\"']\s*https?(://cv\.iptc\.org/newscodes/digitalsourcetype/[A-Za-z]{1,64})\b"
)


def said_source_type(data: bytes) -> str:
    """Return a source's digital source type; "" when it says nothing of it."""
    found = _SAID.search(packet_in(data) or b"")
    return f"http{found[1].decode()}" if found else ""
