"""Log lines are JSON with fields, and nothing secret leaves in them."""

from __future__ import annotations

import base64
import json
import logging
from typing import Any

import pytest

from sdbatch.campaign.write import error_columns
from sdbatch.errors import JobError
from sdbatch.job import parse_job
from sdbatch.logs import FORMS, JsonFormatter, looks_secret, redacted, redacted_json, without_secrets_in


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


# --- every form of a secret, row by row -------------------------------------------------------------------------------

# Made up; in two parts each, so that no scanner takes this file for a leak.
AWS = "AKIA" + "IOSFODNN7EXAMPLE"
AWS_SECRET = "wJalrXUtnFEMI/K7MDENG/" + "bPxRfiCYEXAMPLEKEY"
BASIC = base64.b64encode(b"user:hunter22").decode()
PEM = "MIIEpAIBAAKCAQEA" + "x" * 20

SECRETS: dict[str, tuple[str, str]] = {
    "private key in PEM": (f"-----BEGIN RSA PRIVATE KEY-----\n{PEM}\n-----END RSA PRIVATE KEY-----", PEM),
    "age key": ("AGE-SECRET-KEY-" + "1QYQSZQGPQYQSZQGP", "1QYQSZQGPQYQSZQGP"),
    "name and password in a URL": ("http://minio:hunter22@host:9000/b", "hunter22"),
    "name in a URL": ("https://sometoken99@github.example/x.git", "sometoken99"),
    "signed URL": ("GET https://b/x?X-Goog-Credential=me&X-Goog-Signature=deadbeef99&a=1", "deadbeef99"),
    "signature": ("AWS4 X-Amz-Signature=deadbeef99aa", "deadbeef99aa"),
    "Authorization header": ("Authorization: Negotiate YIIabcdefgh", "YIIabcdefgh"),
    "Cookie header": ("Set-Cookie: session=abcdef123; Path=/", "abcdef123"),
    "Bearer token": ("sent Bearer abc.def-123456", "abc.def-123456"),
    "Basic credentials": (f"sent Basic {BASIC}", BASIC),
    "AWS key pair": (f"{AWS}:{AWS_SECRET}", AWS_SECRET),
    "Azure key": ("AccountName=a;AccountKey=abcdefGHIJKL0123456789+/==;x=1", "abcdefGHIJKL0123456789+/=="),
    "Azure shared access": ("SharedAccessSignature=sv=2020&sig=abcdef", "sv=2020&sig=abcdef"),
    "Google key": ("AIza" + "SyA1234567890abcdefghijklmnopqrstuv", "SyA1234567890abcdefghijklmnopqrstuv"),
    "Google token": ("ya29." + "a0AfB_byC1234567890", "a0AfB_byC1234567890"),
    "Google client secret": ("GOCSPX-" + "abcdefghij1234567890", "abcdefghij1234567890"),
    "Hugging Face token": ("hf_" + "abcdefghijklmnopqrstuvwxyzABCDEFGH", "abcdefghijklmnopqrstuvwxyzABCDEFGH"),
    "GitHub token": ("ghp_" + "abcdefghijklmnop0123456789ABCDEFGHIJ", "abcdefghijklmnop0123456789ABCDEFGHIJ"),
    "GitLab token": ("glpat-" + "abcdefghij0123456789", "abcdefghij0123456789"),
    "sk- key": ("sk-" + "proj-abcdefghijkl0123456789", "abcdefghijkl0123456789"),
    "Stripe key": ("sk_live_" + "abcdefghij0123456789", "abcdefghij0123456789"),
    "Slack token": ("xoxb-" + "123456789012-abcdefghijkl", "123456789012-abcdefghijkl"),
    "Slack app token": ("xapp-" + "1-A0123-456-abcdef", "1-A0123-456-abcdef"),
    "Slack webhook": ("https://hooks.slack.com/services/" + "T0/B0/abcdefgh", "T0/B0/abcdefgh"),
    "npm or PyPI token": ("pypi-" + "AgEIcHlwaS5vcmcCJabcdefgh", "AgEIcHlwaS5vcmcCJabcdefgh"),
    "token of another service": ("r8_" + "abcdefghijklmnopqrstuvwxyz", "abcdefghijklmnopqrstuvwxyz"),
    "SendGrid key": ("SG." + "abcdefghijkl.mnopqrstuvwxyz0123", "mnopqrstuvwxyz0123"),
    "JSON web token": ("eyJ" + "hbGciOiJIUzI1.eyJzdWIiOiIxMjM0.SflKxwRJSM", "SflKxwRJSM"),
    "password": ('password = "correct horse battery"', "correct horse battery"),
    "named secret": ("aws_session_token: FwoGZXIvYXdzEXAMPLE", "FwoGZXIvYXdzEXAMPLE"),
    "secret on a command line": ("curl --token abcdef123 https://x", "abcdef123"),
}


def test_every_form_has_its_example() -> None:
    assert SECRETS.keys() == {form.name for form in FORMS}


@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=pytest.mark.fault("S14", f"a text with a {name}", "not said")) for name in SECRETS],
)
def test_a_form_of_secret_is_not_said(name: str) -> None:
    text, secret = SECRETS[name]
    (form,) = [form for form in FORMS if form.name == name]

    assert secret in text
    assert form.pattern.search(text), "the row itself knows it, not only another one"
    for said in (redacted(f"before {text} after"), redacted_json({"a": [{"b": text}]}), redacted_json({text: 1})):
        assert secret not in said
        assert "[redacted]" in said
    json.loads(redacted_json({"a": text}))
    assert looks_secret("setting", text)


@pytest.mark.parametrize(
    ("text", "secret"),
    [
        (f"{AWS} {AWS_SECRET}", AWS_SECRET),
        (f"Access key ID,Secret access key\n{AWS},{AWS_SECRET}", AWS_SECRET),
        ("Authorization: Bearer abcdefghijkl", "abcdefghijkl"),
        (f"authorization: basic {BASIC}", BASIC),
        ("github_pat_" + "11ABCDEFG0abcdefghijkl_mnopqrstuvwxyz", "11ABCDEFG0abcdefghijkl_mnopqrstuvwxyz"),
        (f"-----BEGIN OPENSSH PRIVATE KEY-----\\n{PEM}", PEM),  # cut off, and escaped
        ("?se=2026&sp=r&sig=abc%2Fdef%3D", "abc%2Fdef%3D"),
        ("HF_TOKEN=hf_short", "hf_short"),
        ("x-api-key: abcdef123456", "abcdef123456"),
        ("redis://:hunter22@cache:6379/0", "hunter22"),
        ("xoxp-" + "1234567890-abcdef", "1234567890-abcdef"),
    ],
)
def test_other_spellings_are_not_said_either(text: str, secret: str) -> None:
    assert secret not in redacted(text)


@pytest.mark.parametrize(
    "text",
    [
        "a basic landscape, basic understanding",
        "the bearer of bad news",
        "risk-assessment-methodology-overview",
        "hf_transfer and hf_hub_download",
        "abfs://container@account.dfs.core.windows.net/x",
        "s3://bucket/secretly/token.png",
        "prompt_tokens 77, tokenizer: clip",
        "models.sdxl: 3 of 4 rows at 12:30",
        "http://127.0.0.1:9000/x@2x.png",
        "0" * 64,
    ],
)
def test_what_is_no_secret_stays(text: str) -> None:
    assert redacted(text) == text
    assert not looks_secret("setting", text)


def test_redaction_takes_time_in_proportion_to_the_text() -> None:
    import time

    for text in ("a_" * 50_000, "://" * 30_000, "-----BEGIN " * 10_000, "Basic " * 20_000, "AKIA" * 30_000):
        started_s = time.process_time()
        redacted(text)
        assert time.process_time() - started_s < 2


@pytest.mark.fault("S14", "secrets in lists, in mappings, in keys, under the name of a secret", "not said")
def test_secrets_are_found_wherever_they_stand() -> None:
    value = {"a": [[f"x {AWS}"], {"password": "p"}], f"k {AWS}": ("tuple", AWS), "client_secret": ["plain"], "n": 3}
    found = json.dumps(without_secrets_in(value))

    assert AWS not in found
    assert '"p"' not in found
    assert "plain" not in found
    assert json.loads(found)["n"] == 3


@pytest.mark.parametrize(
    ("changes", "place"),
    [
        pytest.param(
            changes, place, marks=pytest.mark.fault("S14", f"a job with a secret at {place}", "refused by place")
        )
        for changes, place in (
            ({"sources": {"allow": ["s3://a/", "https://user:hunter22@host/"]}}, "sources.allow.1"),
            ({"storage": {"s3://b/": {"endpoint_url": "http://key:hunter22@host"}}}, "storage.s3://b/.endpoint_url"),
            ({"storage": {"https://u:hunter22@h/": {}}}, "the key storage.https://[redacted]h/"),
            ({"after": [{"safety": {"path": "p", "labels": ["hf_" + "a" * 34]}}]}, "after.0.safety.labels.0"),
            ({"defaults": {"prompt": f"-----BEGIN PRIVATE KEY-----{PEM}"}}, "defaults.prompt"),
        )
    ],
)
def test_a_job_with_a_secret_in_it_is_refused(changes: dict[str, Any], place: str) -> None:
    values = {"manifest": "m", "output": "o", "models": {"a": {"path": "p"}}, **changes}
    with pytest.raises(JobError) as caught:
        parse_job(values)

    assert f"{place} looks like a secret" in str(caught.value)
    assert "hunter22" not in str(caught.value)
