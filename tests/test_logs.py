"""Log lines are JSON with fields, and nothing secret leaves in them."""

from __future__ import annotations

import json
import logging

import pytest

from sdbatch.campaign.write import error_columns
from sdbatch.logs import JsonFormatter, looks_secret, redacted


@pytest.mark.parametrize(
    ("text", "secret"),
    [
        ("PUT with AKIAIOSFODNN7EXAMPLE failed", "AKIAIOSFODNN7EXAMPLE"),
        ("https://user:hunter22@host/x refused", "hunter22"),
        ("GET https://b.s3/x?X-Amz-Signature=deadbeef99&a=1", "deadbeef99"),
        ("https://acc.blob/x?sv=1&sig=abc%2Fdef", "abc%2Fdef"),
        ("Authorization: BearerTokenValue", "BearerTokenValue"),
        ("secret_access_key = 'wJalrXUtnFEMI'", "wJalrXUtnFEMI"),
    ],
)
def test_what_looks_like_a_credential_is_not_said(text: str, secret: str) -> None:
    assert secret in text
    assert secret not in redacted(text)
    assert secret not in error_columns("X", text, retryable=False)["error_message"]


@pytest.mark.parametrize("text", ["row 17 of s3://b/m.parquet: height 500", "at 12:30, secretly sunny", "300 tokens"])
def test_plain_text_stays_as_it_is(text: str) -> None:
    assert redacted(text) == text


@pytest.mark.parametrize(
    ("name", "value", "is_secret"),
    [
        ("AWS_SECRET_ACCESS_KEY", "x", True),
        ("HF_TOKEN", "x", True),
        ("URL", "https://a:b12345@c", True),
        ("AWS_ENDPOINT_URL", "http://127.0.0.1:9000", False),
        ("prompt", "a key on a table", False),
    ],
)
def test_a_secret_is_known_by_name_or_value(name: str, value: str, is_secret: bool) -> None:
    assert looks_secret(name, value) is is_secret


def test_a_line_holds_its_fields() -> None:
    values = {"name": "sdbatch.worker", "levelname": "INFO", "msg": "committed", "unit": "000001"}
    record = logging.makeLogRecord(values)
    line = json.loads(JsonFormatter({"campaign": "s3://b/c", "worker": "w0"}).format(record))

    assert (line["event"], line["unit"], line["campaign"], line["worker"]) == ("committed", "000001", "s3://b/c", "w0")
    assert line["level"] == "info"
