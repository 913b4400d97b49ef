"""Log lines as JSON, and nothing secret in them.

    logging --> JsonFormatter --> {"time": ..., "event": ..., "campaign": ..., "unit": ..., "worker": ...}

Events carry fields (`extra=`), not sentences. Whatever leaves the process as text, logs and error messages alike, goes
through `redacted` first.
"""

from __future__ import annotations

import json
import logging
import os
import re
import sys
from datetime import UTC, datetime
from typing import Final, Literal

LogFormat = Literal["text", "json"]
_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}
_SECRETS: Final = (
    re.compile(r"(?P<keep>)\b(?:AKIA|ASIA)[0-9A-Z]{16}\b"),
    re.compile(r"(?P<keep>://)[^/\s:@]+:[^/\s@]+@"),
    re.compile(r"(?P<keep>(?i:[?&](?:X-Amz-[A-Za-z-]*|Signature|sig|token|access_token)=))[^&\s\"']+"),
    re.compile(
        r"(?P<keep>(?i:authorization|bearer|secret\w*|password|token|api_?key)[\"']?\s*[:=]\s*[\"']?)[^\s\"',;&]{6,}"
    ),
)


# All controls but newline and tab, line and paragraph separators, marks of direction, lone surrogates.
_CONTROL: Final = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]")


def redacted(text: str) -> str:
    """Return a text that is safe to show.

    Whatever looks like a credential is replaced (access keys, signed URLs, passwords, tokens). Control characters are
    escaped, so that no file name or server's message moves a terminal's cursor or turns a line's direction.
    """
    for pattern in _SECRETS:
        text = pattern.sub(r"\g<keep>[redacted]", text)
    return _CONTROL.sub(lambda match: f"\\u{ord(match.group()):04x}", text)


def looks_secret(name: str, value: str) -> bool:
    """Whether a setting is a credential, by its name or by its value; credentials never travel in a job."""
    by_name = re.search(r"secret|password|passwd|token|access_?key|credential|api_?key", name, re.IGNORECASE)
    return bool(by_name) or redacted(value) != value


class JsonFormatter(logging.Formatter):
    """One JSON object a line: time, level, logger, event, and the record's own fields."""

    def __init__(self, fields: dict[str, str]) -> None:
        super().__init__()
        self._fields = fields

    def format(self, record: logging.LogRecord) -> str:
        """Return a record as a line."""
        line: dict[str, object] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "event": record.getMessage(),
            **self._fields,
            **{name: value for name, value in vars(record).items() if name not in _STANDARD},
        }
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        return redacted(json.dumps(line, ensure_ascii=False, default=str))


def log_format() -> LogFormat:
    """Return the format of SDBATCH_LOG: `json`, else `text`."""
    return "json" if os.environ.get("SDBATCH_LOG") == "json" else "text"


def configure(kind: LogFormat, **fields: str) -> None:
    """Send this package's events to standard error: all of them as JSON, warnings only as text.

    Args:
        kind: See `log_format`.
        fields: Fields of every line, such as `campaign` and `worker`.
    """
    logger = logging.getLogger("sdbatch")
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter(fields) if kind == "json" else _RedactedText("sdbatch: %(message)s"))
    logger.handlers[:] = [handler]
    logger.propagate = False
    logger.setLevel(logging.INFO if kind == "json" else logging.ERROR)


class _RedactedText(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        # A line that was smuggled into a message does not look like one of ours.
        return redacted(super().format(record)).replace("\n", "\n  ")
