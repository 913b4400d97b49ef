"""Decisions as lines, for tests."""

from __future__ import annotations

import hashlib
import json
from typing import Any

from sdbatch.review.decision import Decision, parse_decision

KEY = hashlib.sha256(b"key").hexdigest()
FILES = tuple(hashlib.sha256(text).hexdigest() for text in (b"one file", b"another"))
LINE = {
    "format_version": 1,
    "id": "spring.p1.beach.de-DE",
    "request_key": KEY,
    "n": 0,
    "sha256": FILES[0],
    "verdict": "approved",
    "comment": "",
    "by": "jane",
    "at": "2026-11-26T10:00:00.000Z",
}


def made(**changes: Any) -> Decision:
    return parse_decision(json.dumps({**LINE, **changes}).encode())
