"""One decision: somebody's verdict on one stored file, as a line of JSON.

    {"format_version":1,"id":"spring.p1","request_key":"...","n":0,"sha256":"...",
     "verdict":"approved|rejected|picked|none","comment":"...","by":"jane","at":"2026-11-26T10:00:00.000Z"}

`none` withdraws what the same person said before; with a comment it is a note without a verdict.
"""

from __future__ import annotations

import json
import re
import unicodedata
from datetime import UTC, datetime
from functools import lru_cache
from json.encoder import encode_basestring
from typing import Any, Final, NamedTuple

from sdbatch.verdicts import VERDICTS

DECISION_VERSION: Final = 1
"""Raised when a reader of the old form would misread the new one."""
LINE_BYTES_MAX: Final = 16 << 10
COMMENT_CHARACTERS_MAX: Final = 2000
BY_CHARACTERS_MAX: Final = 120
N_MAX: Final = 2**31 - 1
NONE: Final = "none"
WORDS: Final = (*VERDICTS, NONE)
_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
_HEX = re.compile(r"[0-9a-f]{64}")
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029]")
_SHOWN = 60
_PLAIN = r"[ !#-\[\]-~]"
_AS_WRITTEN = re.compile(
    r'\{"at":"(\d{4}-\d\d-\d\dT\d\d:\d\d):([0-5]\d)\.(\d{3})Z",'
    rf'"by":"(?! )({_PLAIN}{{1,{BY_CHARACTERS_MAX}}})(?<! )","comment":"({_PLAIN}{{0,{COMMENT_CHARACTERS_MAX}}})",'
    rf'"format_version":{DECISION_VERSION},"id":"({_ID.pattern})","n":(0|[1-9]\d{{0,8}}),'
    rf'"request_key":"({_HEX.pattern})","sha256":"({_HEX.pattern})","verdict":"({"|".join(WORDS)})"\}}'
)
"""A line as `Decision.line` writes it, with texts of plain characters: as nearly every one is, and read faster."""


class Decision(NamedTuple):
    """One decision. A tuple, because hundreds of thousands are read.

    Attributes:
        id: The manifest's id.
        request_key: Key of the request.
        n: Output number.
        sha256: Of the file that was judged.
        verdict: `approved`, `rejected`, `picked` or `none`.
        comment: What the person wrote; "" for nothing.
        by: Who.
        at_ms: When, in milliseconds since 1970 UTC.
    """

    id: str
    request_key: str
    n: int
    sha256: str
    verdict: str
    comment: str
    by: str
    at_ms: int

    @property
    def at(self) -> str:
        """When, as the line says it."""
        return time_text(self.at_ms)

    @property
    def line(self) -> str:
        """The line in its canonical form (RFC 8785), without its end."""
        # Written out, since hundreds of thousands are imported at once; a test compares it with `canonical`.
        return (
            f'{{"at":"{self.at}","by":{encode_basestring(self.by)},"comment":{encode_basestring(self.comment)},'
            f'"format_version":{DECISION_VERSION},"id":"{self.id}","n":{self.n},"request_key":"{self.request_key}",'
            f'"sha256":"{self.sha256}","verdict":"{self.verdict}"}}'
        )


def time_text(at_ms: int) -> str:
    """Return a time as decisions have it."""
    moment = datetime.fromtimestamp(at_ms / 1000, UTC)
    return f"{moment:%Y-%m-%dT%H:%M:%S}.{at_ms % 1000:03d}Z"


def parse_decision(line: bytes, by: str | None = None) -> Decision:
    """Read a line.

    Args:
        line: One line.
        by: Who decided, where the line does not say.

    Raises:
        ValueError: With the field, its value and the bound.
        NewerDecision: When a later version wrote it.
    """
    if line.isascii() and (found := _AS_WRITTEN.fullmatch(line.decode())):
        minute, second, rest, name, comment, request_id, n_text, request_key, sha256, word = found.groups()
        at_ms = _minute_ms(minute) + int(second + rest)
        return Decision(request_id, request_key, int(n_text), sha256, word, comment, name, at_ms)
    if len(line) > LINE_BYTES_MAX:
        raise ValueError(f"has {len(line)} bytes; a decision has at most {LINE_BYTES_MAX}")
    try:
        values = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise ValueError("is no JSON") from error
    if not isinstance(values, dict):
        raise ValueError(f"is {type(values).__name__} and no JSON object")  # noqa: TRY004 -- as any other fault of a line
    _check_version(values.get("format_version", 1))
    verdict = values.get("verdict")
    if verdict not in WORDS:
        raise ValueError(f"verdict {_quoted(verdict)} is none of {', '.join(WORDS)}")
    n = values.get("n")
    if type(n) is not int or not 0 <= n <= N_MAX:
        raise ValueError(f"n {_quoted(n)} is no whole number in 0..{N_MAX}")
    return Decision(
        _matching(values, "id", _ID, "an id"),
        _matching(values, "request_key", _HEX, "64 hex digits"),
        n,
        _matching(values, "sha256", _HEX, "64 hex digits"),
        verdict,
        checked_text("comment", values.get("comment") or "", COMMENT_CHARACTERS_MAX),
        checked_name(values.get("by") or by or ""),
        _milliseconds(values.get("at")),
    )


class NewerDecision(ValueError):
    """A later version wrote the line."""


def _check_version(version: Any) -> None:
    if type(version) is not int or version < 1:
        raise ValueError(f"format_version {_quoted(version)} is no version")
    if version > DECISION_VERSION:
        raise NewerDecision(f"has format_version {version}; this sdbatch reads up to {DECISION_VERSION}")


def checked_name(by: Any) -> str:
    """Return who decided. Raises ValueError when it is no name."""
    text = checked_text("by", by, BY_CHARACTERS_MAX).strip()
    if not text or "\n" in text or "\t" in text:
        raise ValueError(f"by {_quoted(by)} is no name")
    return text


def checked_text(name: str, value: Any, characters_max: int) -> str:
    """Return a person's text in NFC. Raises ValueError when it is none, too long, or has control characters."""
    if not isinstance(value, str):
        raise ValueError(f"{name} {_quoted(value)} is no text")  # noqa: TRY004 -- as any other fault of a line
    if len(value) > characters_max:
        raise ValueError(f"{name} has {len(value)} characters, over {characters_max}")
    if _CONTROL.search(value):
        raise ValueError(f"{name} {_quoted(value)} has a control character")
    if value.isascii():
        return value
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise ValueError(f"{name} has half of a surrogate pair") from error
    return unicodedata.normalize("NFC", value)


def _matching(values: dict[str, Any], name: str, pattern: re.Pattern[str], what: str) -> str:
    value = values.get(name)
    if not isinstance(value, str) or not pattern.fullmatch(value):
        raise ValueError(f"{name} {_quoted(value)} is not {what}")
    return value


def _milliseconds(at: Any) -> int:
    try:
        moment = datetime.fromisoformat(at)
    except (TypeError, ValueError):
        moment = None
    if moment is None or moment.tzinfo is None:
        raise ValueError(f"at {_quoted(at)} is no time with its zone, such as 2026-11-26T10:00:00.000Z")
    since = moment - _EPOCH
    at_ms = since.days * 86_400_000 + since.seconds * 1000 + since.microseconds // 1000
    if not 0 <= at_ms < _YEAR_10000_MS:
        raise ValueError(f"at {_quoted(at)} is not between the years 1970 and 9999")
    return at_ms


@lru_cache(maxsize=1024)
def _minute_ms(minute: str) -> int:
    """Return the time of a minute, of which many decisions are."""
    return _milliseconds(f"{minute}:00.000Z")


_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_YEAR_10000_MS: Final = 253_402_300_800_000


def _quoted(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=True, default=str)
    return text if len(text) <= _SHOWN else text[:_SHOWN] + "..."
