"""Log lines as JSON, and nothing secret in them.

    logging --> JsonFormatter --> {"time": ..., "event": ..., "campaign": ..., "unit": ..., "worker": ...}
    text    --> redacted()    --> the same without secrets (one row of `FORMS` for each form) and without controls

Events carry fields (`extra=`), not sentences. Whatever leaves the process as text, logs and error messages alike, goes
through `redacted` first.
"""

from __future__ import annotations

import base64
import binascii
import json
import logging
import os
import re
import sys
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final, Literal

LogFormat = Literal["text", "json"]
_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}
HIDDEN: Final = "[redacted]"


@dataclass(frozen=True, slots=True, kw_only=True)
class Form:
    """One form.

    Attributes:
        name: What it is, for people.
        pattern: Matches a secret; the group `keep` stays.
        holds: Says of a match whether it is a secret after all.
    """

    name: str
    pattern: re.Pattern[str]
    holds: Callable[[re.Match[str]], bool] = lambda _: True


def _form(name: str, pattern: str, *, holds: Callable[[re.Match[str]], bool] = lambda _: True, flags: int = 0) -> Form:
    return Form(name=name, pattern=re.compile(pattern, flags), holds=holds)


def _is_basic(match: re.Match[str]) -> bool:
    """Whether what follows "Basic" is a name and a password in base64; an English word is not."""
    try:
        decoded = base64.b64decode(match["secret"] + "==")
    except binascii.Error:
        return False
    return b":" in decoded and decoded.isascii() and decoded.decode().isprintable()


_VALUE: Final = r"""(?:"[^"\n]{3,}"|'[^'\n]{3,}'|[^\s"',;&<>]{6,})"""
"""A value: in quotes with blanks, or one word."""
_SHORT_VALUE: Final = r"""(?:"[^"\n]+"|'[^'\n]+'|[^\s"',;&<>]{3,})"""
_NAMES: Final = (
    r"[\w-]*?(?:bearer|secret\w*|token|api[_-]?key|access[_-]?key(?:[_-]?id)?|private[_-]?key|"
    r"account[_-]?key|signing[_-]?key|encryption[_-]?key|credentials?)"
)
_I: Final = re.IGNORECASE

FORMS: Final[tuple[Form, ...]] = (
    # Whole blocks first, since what stands in them looks like other forms.
    _form(
        "private key in PEM",
        r"(?P<keep>-----BEGIN [A-Z0-9 ]*PRIVATE KEY(?: BLOCK)?-----).*?"
        r"(?:-----END [A-Z0-9 ]*PRIVATE KEY(?: BLOCK)?-----|\Z)",
        flags=re.DOTALL,
    ),
    _form("age key", r"(?P<keep>\bAGE-SECRET-KEY-)1[0-9A-Z]{10,}"),
    # URLs
    _form("name and password in a URL", r"(?P<keep>://)[^/\s:@\"'<>]*:[^/\s\"'<>]+@"),
    _form("name in a URL", r"(?P<keep>\b(?:https?|ftps?|git|ssh)://)[^/\s@\"'<>]+@", flags=_I),
    _form(
        "signed URL",
        r"(?P<keep>(?:[?&;]|\\u0026|%26)(?:X-(?:Amz|Goog)-[A-Z-]*|Signature|sig|s?token|access_token|id_token|refresh_token|"
        r"auth|key|api_?key|AWSAccessKeyId|GoogleAccessId|client_secret|code|password)=)[^&\s\"'<>]+",
        flags=_I,
    ),
    _form(
        "signature", r"(?P<keep>(?<![a-z])(?:x-(?:amz|goog)-signature|signature|sig)=)[A-Za-z0-9%+/=_-]{6,}", flags=_I
    ),
    # Headers
    _form(
        "Authorization header",
        r"(?P<keep>\bauthorization[\"']?\s*[:=]\s*[\"']?(?:(?:bearer|basic|token|digest|negotiate|aws4-hmac-sha256)\s+)?)"
        r"[^\s\"',;][^\n\"']*",
        flags=_I,
    ),
    _form("Cookie header", r"(?P<keep>\b(?:set-)?cookie[\"']?\s*:\s*[\"']?)[^\n\"']+", flags=_I),
    _form(
        "Bearer token", r"(?P<keep>\bbearer\s+)(?=[^\s\"']*[0-9._~+/=-]|[^\s\"']{16})[A-Za-z0-9._~+/=-]{8,}", flags=_I
    ),
    _form("Basic credentials", r"(?P<keep>\bbasic\s+)(?P<secret>[A-Za-z0-9+/_-]{6,}={0,2})", holds=_is_basic, flags=_I),
    # Clouds
    _form(
        "AWS key pair",
        r"(?P<keep>)\b(?:AKIA|ASIA|ABIA|ACCA|AROA|AIDA)[0-9A-Z]{12,}\b(?:[\s:,;/|\"'=]+(?:\w*(?:secret|key)\w*[\s:=\"']+)?"
        r"[A-Za-z0-9/+]{40}(?![A-Za-z0-9/+]))?",
        flags=0,
    ),
    _form("Azure key", r"(?P<keep>(?:account|sharedaccess)key\s*=\s*)[A-Za-z0-9+/=]{6,}", flags=_I),
    _form("Azure shared access", r"(?P<keep>sharedaccesssignature\s*=\s*)\S{6,}", flags=_I),
    _form("Google key", r"(?P<keep>\bAIza)[0-9A-Za-z_-]{20,}"),
    _form("Google token", r"(?P<keep>\bya29\.)[0-9A-Za-z_.-]{10,}"),
    _form("Google client secret", r"(?P<keep>\bGOCSPX-)[0-9A-Za-z_-]{10,}"),
    # Tokens with a mark of their maker
    _form("Hugging Face token", r"(?P<keep>\b(?:hf|api_org)_)[A-Za-z0-9]{16,}\b"),
    _form("GitHub token", r"(?P<keep>\b(?:gh[oprsu]|github_pat)_)[A-Za-z0-9_]{16,}"),
    _form("GitLab token", r"(?P<keep>\bgl(?:pat|ptt|dt|rt|cbt|agent|soat)-)[A-Za-z0-9_-]{16,}"),
    _form("sk- key", r"(?P<keep>(?<![A-Za-z0-9_-])sk-)(?=[A-Za-z0-9_-]*[0-9A-Z])[A-Za-z0-9_-]{16,}"),
    _form("Stripe key", r"(?P<keep>\b(?:sk|rk|pk)_(?:live|test)_)[A-Za-z0-9]{10,}"),
    _form("Slack token", r"(?P<keep>\bxox[a-z]-)[A-Za-z0-9-]{8,}"),
    _form("Slack app token", r"(?P<keep>\bxapp-)[A-Za-z0-9-]{8,}"),
    _form("Slack webhook", r"(?P<keep>hooks\.slack\.com/services/)\S+"),
    _form("npm or PyPI token", r"(?P<keep>\b(?:npm_|pypi-))[A-Za-z0-9_-]{20,}"),
    _form(
        "token of another service",
        r"(?P<keep>\b(?:r8_|gsk_|nvapi-|dop_v1_|whsec_|shpat_|lin_api_|rpa_))[A-Za-z0-9_-]{16,}",
    ),
    _form("SendGrid key", r"(?P<keep>\bSG\.)[A-Za-z0-9_-]{10,}\.[A-Za-z0-9_-]{10,}"),
    _form("JSON web token", r"(?P<keep>\beyJ)[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]{8,}(?:\.[A-Za-z0-9_-]*)?"),
    # By the name before it
    _form("password", rf"(?P<keep>(?:password|passwd|passphrase|\bpwd)[\"']?\s*[:=]\s*){_SHORT_VALUE}", flags=_I),
    _form("named secret", rf"(?P<keep>(?<![\w-]){_NAMES}[\"']?\s*[:=]\s*){_VALUE}", flags=_I),
    _form(
        "secret on a command line",
        r"(?P<keep>--?(?:password|token|secret|api-key|access-key)[ =])[^\s\"']{3,}",
        flags=_I,
    ),
)
"""In the order in which they are looked for."""

SECRET_NAME: Final = re.compile(
    r"secret|passw(?:or)?d|passphrase|token(?!i[sz]er)|access_?key|credential|api_?key|private_?key|account_?key", _I
)
"""Names of settings that hold credentials."""

# All controls but newline and tab; line and paragraph separators; marks of direction, also those of one letter; what is
# not seen at all, but for the joiners that scripts and emoji need; lone surrogates.
_CONTROL: Final = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u180e\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb"
    "\ud800-\udfff\U000e0000-\U000e007f]"
)


def redacted(text: str) -> str:
    """Return a text that is safe to show.

    Whatever looks like a credential is replaced. Control characters are escaped, so that no file name or server's
    message moves a terminal's cursor or turns a line's direction.
    """
    return _visible(without_secrets(text))


def redacted_json(value: Any) -> str:
    """Return a plain value as JSON that is safe to show: every text and key in it goes the way of `redacted`."""
    return _visible(json.dumps(without_secrets_in(value), ensure_ascii=False, default=_as_text))


def without_secrets(text: str) -> str:
    """Return a text in which whatever looks like a credential is replaced."""
    for form in FORMS:
        text = form.pattern.sub(lambda match, form=form: _hidden(form, match), text)  # type: ignore[misc]
    return text


def without_secrets_in(value: Any, name: str = "") -> Any:
    """Return a plain value without secrets: texts, and what stands in lists and mappings, keys too.

    Args:
        value: Texts, numbers, lists, mappings.
        name: Key that it stands under: a text under the name of a secret is one, whatever it looks like.
    """
    if isinstance(value, str):
        return HIDDEN if value and SECRET_NAME.search(name) else without_secrets(value)
    if isinstance(value, dict):
        return {
            without_secrets(key) if isinstance(key, str) else key: without_secrets_in(inner, str(key))
            for key, inner in value.items()
        }
    if isinstance(value, list | tuple | set | frozenset):
        return [without_secrets_in(inner, name) for inner in value]
    return value


def _hidden(form: Form, match: re.Match[str]) -> str:
    return f"{match['keep']}{HIDDEN}" if form.holds(match) else match[0]


def _as_text(value: Any) -> str:
    return without_secrets(str(value))


def _visible(text: str) -> str:
    return _CONTROL.sub(lambda match: _escape(match.group()), text)


def _escape(letter: str) -> str:
    """Return a character as JSON escapes it: in two halves where it lies beyond the first plane."""
    halves = letter.encode("utf-16-be", "surrogatepass")
    return "".join(f"\\u{halves[at : at + 2].hex()}" for at in range(0, len(halves), 2))


def looks_secret(name: str, value: str) -> bool:
    """Whether a setting is a credential, by its name or by its value; credentials never travel in a job."""
    return bool(SECRET_NAME.search(name)) or without_secrets(value) != value


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
        return redacted_json(line)


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
