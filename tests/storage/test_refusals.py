"""Every refusal of a store is one line with its own code and what helps; a store that throttles is waited for."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import yaml
from conftest import prompts
from support.foreign_store import Answer, ForeignStore, foreign_store
from typer.testing import CliRunner

import sdbatch
from sdbatch.campaign import lease
from sdbatch.campaign.lease import acquire
from sdbatch.cli import app
from sdbatch.errors import StoreRefused, StoreUnavailable
from sdbatch.job import Storage, parse_job
from sdbatch.storage import open_campaign, open_store, retries
from sdbatch.storage.objects import _ARGUMENTS

URL = "s3://spring/out"
PREFIX = "s3://spring/"
FIRST_S, MOST_S = retries.BACKOFF_FIRST_S, retries.BACKOFF_MAX_S


@pytest.fixture(autouse=True)
def _short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retries, "BACKOFF_FIRST_S", 0.005)
    monkeypatch.setattr(retries, "BACKOFF_MAX_S", 0.02)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "key")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    monkeypatch.delenv("AWS_ENDPOINT_URL", raising=False)


@pytest.fixture
def foreign() -> Iterator[ForeignStore]:
    with foreign_store() as found:
        yield found


def _options(foreign: ForeignStore, **more: Any) -> dict[str, Storage]:
    return {PREFIX: Storage(endpoint_url=foreign.endpoint, region="us-east-1", **more)}


def _case(code: str, status: int, says: str, *, message: str = "no", number: str = "F29", **headers: str) -> Any:
    answer = Answer(status=status, code=code, message=message, headers=headers)
    right = f"one line, exit 2, that says: {says.format(prefix=PREFIX)}"
    mark = pytest.mark.fault(number, f"a store that answers {status} {code}", right)
    return pytest.param(answer, says.format(prefix=PREFIX), marks=mark, id=f"{status}-{code or 'HEAD'}")


REFUSALS = [
    _case("PermanentRedirect", 301, "storage.{prefix}.region", message="use the other endpoint"),
    _case(
        "AuthorizationHeaderMalformed",
        400,
        "another region, eu-west-1; say it in storage.{prefix}.region",
        message="the region 'us-east-1' is wrong; expecting 'eu-west-1'",
    ),
    _case("IllegalLocationConstraintException", 400, "storage.{prefix}.region"),
    _case("InvalidBucketName", 400, "not the name of a bucket"),
    _case("NoSuchBucket", 404, "no such bucket"),
    _case("AccessDenied", 403, "no right to do this"),
    _case("AllAccessDisabled", 403, "no right to do this"),
    _case("InvalidAccessKeyId", 403, "does not know the access key"),
    _case("SignatureDoesNotMatch", 403, "AWS_SECRET_ACCESS_KEY"),
    _case("RequestTimeTooSkewed", 403, "the clock of this machine"),
    _case("ExpiredToken", 400, "have expired; renew them"),
    _case("TokenRefreshRequired", 400, "have expired; renew them"),
    _case("InvalidToken", 400, "refused the credentials"),
    _case("XAmzContentSHA256Mismatch", 400, "request_checksum_calculation", number="F30"),
    _case("InvalidRequest", 400, "request_checksum_calculation", message="unsupported checksum header", number="F30"),
    _case("TeapotError", 418, "the store refused this (TeapotError: short and stout)", message="short and stout"),
]


@pytest.mark.parametrize(("answer", "says"), REFUSALS)
def test_a_refusal_is_one_line_with_the_stores_code_and_what_helps(
    foreign: ForeignStore, answer: Answer, says: str
) -> None:
    foreign.rule = lambda *_: answer
    store = open_campaign(URL, _options(foreign))

    with pytest.raises(StoreRefused) as caught:
        store.list("runs") if answer.status in {301, 404} else store.put_new("a", b"1")
    message = str(caught.value)
    assert says in message
    assert answer.code in message
    assert "\n" not in message
    assert caught.value.exit_code == 2


@pytest.mark.fault("F29", "301 to a request without a body", "the region, and storage.<prefix>.region")
@pytest.mark.parametrize(("status", "says"), [(301, "region, eu-west-3"), (400, "credentials that have expired")])
def test_an_answer_without_a_body_is_explained(foreign: ForeignStore, status: int, says: str) -> None:
    answer = Answer(status=status, headers={"x-amz-bucket-region": "eu-west-3"})
    foreign.rule = lambda method, *_: answer if method == "HEAD" else None

    with pytest.raises(StoreRefused, match=says):
        open_campaign(URL, _options(foreign)).stat("a")


@pytest.mark.fault("F29", "a store without If-None-Match", "no put-if-absent, with its code")
@pytest.mark.parametrize(
    ("status", "code"),
    [(501, "NotImplemented"), (400, "InvalidArgument"), (400, "InvalidRequest"), (405, "MethodNotAllowed")],
)
def test_a_store_that_refuses_the_condition_has_no_put_if_absent(foreign: ForeignStore, status: int, code: str) -> None:
    answer = Answer(status=status, code=code, message="a header you provided")
    foreign.rule = lambda _, __, headers: answer if "if-none-match" in headers else None

    with pytest.raises(StoreRefused, match=rf"no put-if-absent, .* \(it answers {code}: a header"):
        acquire(open_campaign(URL, _options(foreign)))


@pytest.mark.fault("F29", "a bucket called Bad_Name!", "one line, not the name of a bucket")
def test_a_bad_name_of_a_bucket_is_named_before_anything_is_sent(foreign: ForeignStore) -> None:
    with pytest.raises(StoreRefused, match="not the name of a bucket"):
        open_campaign("s3://Bad_Name!/x", {"s3://Bad_Name!/": Storage(endpoint_url=foreign.endpoint)}).list("runs")


@pytest.mark.fault("F29", "no credentials, or a profile that is not there", "one line that names where they come from")
def test_missing_credentials_are_one_line(
    foreign: ForeignStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE"):
        monkeypatch.setenv(name, str(tmp_path / "none"))
    with pytest.raises(StoreRefused, match=r"storage\.s3://spring/\.profile"):
        open_campaign(URL, _options(foreign, profile="nobody")).list("runs")
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    with pytest.raises(StoreRefused, match="there are none here; set AWS_ACCESS_KEY_ID"):
        open_campaign(URL, _options(foreign)).list("runs")


@pytest.mark.fault(
    "F29", "an endpoint_url where nothing listens", "one line, exit 2, that names storage.<prefix>.endpoint_url"
)
def test_an_address_where_nothing_listens_is_refused_unless_the_store_was_there() -> None:
    with closing(socket.socket()) as taken:
        taken.bind(("127.0.0.1", 0))
        endpoint = f"http://127.0.0.1:{taken.getsockname()[1]}"
        storage = {PREFIX: Storage(endpoint_url=endpoint)}
        with pytest.raises(StoreRefused, match=r"nothing listens .* storage\.s3://spring/\.endpoint_url") as caught:
            open_campaign(URL, storage).list("runs")
        with pytest.raises(StoreUnavailable, match="32 tries"):
            open_campaign(URL, storage, is_reached=True).list("runs")
    assert "\n" not in str(caught.value)


@pytest.mark.fault("F29", "https in the endpoint_url of a store without TLS", "one line that names http or https")
def test_a_store_without_tls_is_told_apart(foreign: ForeignStore) -> None:
    storage = {PREFIX: Storage(endpoint_url=foreign.endpoint.replace("http:", "https:"))}
    with pytest.raises(StoreRefused, match="http or https in storage"):
        open_campaign(URL, storage).list("runs")


@pytest.mark.fault("F29", "a user's name and password in endpoint_url", "exit 2, one line; it waited for minutes")
def test_an_address_with_a_users_name_is_refused(foreign: ForeignStore) -> None:
    storage = {PREFIX: Storage(endpoint_url=foreign.endpoint.replace("://", "://jane:word@"), region="us-east-1")}
    with pytest.raises(StoreRefused, match=r"holds a user's name; take it out, and .* AWS_ACCESS_KEY_ID") as caught:
        open_campaign(URL, storage).list("runs")
    assert "word@" not in str(caught.value)


@pytest.mark.fault("F29", "s3 access refused at `status`", "exit 2, one line, no traceback")
def test_a_refusal_ends_a_command_with_exit_code_2_and_one_line(foreign: ForeignStore, tmp_path: Path) -> None:
    foreign.rule = lambda *_: Answer(status=403, code="AccessDenied", message="no\nway")
    job = tmp_path / "job.yaml"
    storage = {name: options.model_dump(exclude_none=True) for name, options in _options(foreign).items()}
    job.write_text(yaml.safe_dump({"manifest": "m", "output": URL, "models": {"a": {"path": "b"}}, "storage": storage}))
    done = CliRunner().invoke(app, ["status", str(job)])

    assert (done.exit_code, done.stdout) == (2, "")
    assert done.stderr.startswith(f"sdbatch: {URL}/runs: the store refused the credentials")
    assert done.stderr.count("\n") == 1


@pytest.mark.fault("F29", "ExpiredToken in the middle of a run", "stopped, exit 1, one line, resumable")
def test_credentials_that_expire_stop_a_run_which_goes_on_later(
    foreign: ForeignStore, write_manifest: Any, job_of: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lease, "TERM_S", 3.0)  # the second run waits for it: the first could not give its lease back
    monkeypatch.setattr(lease, "BEAT_EVERY_S", 0.5)
    has_expired = threading.Event()

    def rule(method: str, path: str, _: Any) -> Answer | None:
        if method == "PUT" and "/assets/" in path:
            has_expired.set()
        return (
            Answer(status=400, code="ExpiredToken", message="The token has expired") if has_expired.is_set() else None
        )

    storage = {name: options.model_dump(exclude_none=True) for name, options in _options(foreign).items()}
    job = job_of(write_manifest(prompts(2)), URL, storage=storage)
    foreign.rule = rule
    stopped = sdbatch.run(job, in_process=True)
    foreign.rule = lambda *_: None
    resumed = sdbatch.run(job, in_process=True)

    assert (stopped.state, stopped.exit_code) == ("stopped", 1)
    assert "have expired; renew them and run again to go on (ExpiredToken" in (stopped.message or "")
    assert "\n" not in (stopped.message or "")
    assert (resumed.state, resumed.counts["rows_ok"], resumed.counts["rows_failed"]) == ("done", 2, 0)


# --- checksums and addresses ----------------------------------------------------------------------------------------


@pytest.mark.fault("F30", "a store that rejects boto3's checksums", "written: checksums go only where they must")
def test_a_store_of_ones_own_is_sent_no_checksums(foreign: ForeignStore) -> None:
    foreign.rule = lambda _, __, headers: (
        Answer(status=400, code="InvalidRequest", message="checksum")
        if any("checksum" in name for name in headers)
        else None
    )
    store = open_campaign(URL, _options(foreign))

    assert store.put_new("a", b"1")
    assert store.read("a") == b"1"
    supported = open_campaign(URL, _options(foreign, request_checksum_calculation="when_supported"))
    with pytest.raises(StoreRefused, match=r"storage\.s3://spring/\.request_checksum_calculation: when_required"):
        supported.put_new("b", b"1")


@pytest.mark.fault("F30", "addressing_style and checksum keys in `storage`", "taken, and passed on")
def test_the_keys_of_storage_reach_the_client(monkeypatch: pytest.MonkeyPatch) -> None:
    keys = {
        "addressing_style": "path",
        "request_checksum_calculation": "when_required",
        "response_checksum_validation": "when_supported",
    }
    job = parse_job({"manifest": "m", "output": URL, "models": {"a": {"path": "b"}}, "storage": {PREFIX: keys}})
    config = _ARGUMENTS["s3fs"](job.storage[PREFIX])["config_kwargs"]
    assert config["s3"] == {"addressing_style": "path"}
    assert (config["request_checksum_calculation"], config["response_checksum_validation"]) == (
        "when_required",
        "when_supported",
    )
    assert "request_checksum_calculation" not in _ARGUMENTS["s3fs"](Storage(region="eu-west-1"))["config_kwargs"]
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", "http://127.0.0.1:1")
    assert _ARGUMENTS["s3fs"](Storage())["config_kwargs"]["request_checksum_calculation"] == "when_required"
    monkeypatch.setenv("AWS_REQUEST_CHECKSUM_CALCULATION", "when_supported")
    assert "request_checksum_calculation" not in _ARGUMENTS["s3fs"](Storage())["config_kwargs"]


# --- patience -------------------------------------------------------------------------------------------------------


@pytest.mark.fault("F31", "SlowDown for 25 s at start", "waited out")
def test_a_store_that_throttles_at_start_is_waited_for(
    foreign: ForeignStore, capsys: pytest.CaptureFixture[str]
) -> None:
    left = [16]

    def rule(*_: Any) -> Answer | None:
        left[0] -= 1
        return Answer(status=503, code="SlowDown", message="reduce your request rate") if left[0] >= 0 else None

    foreign.rule = rule
    assert open_store(URL, _options(foreign)).list("runs") == []
    assert left[0] < 0


@pytest.mark.fault("F31", "the shortest patience that chance allows", "over 25 s")
def test_the_patience_is_longer_than_a_throttled_start() -> None:
    shortest_s = [min(FIRST_S * 2**tries, MOST_S) / 2 for tries in range(retries.ATTEMPTS_MAX - 1)]

    assert 25 < sum(shortest_s) < sum(shortest_s) * 2 < 180
    assert 25 < retries.WAIT_MAX_S <= 120
