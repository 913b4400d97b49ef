"""Calls to a store, tried again within bounds.

    call --> retried() --> its answer | StoreRefused (credentials, bucket) | StoreUnavailable (the bound was reached)

The store's own code says what an error means. It stands in one of the error's causes, since the outermost class differs
by server and by package.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterable
from typing import TypeVar

from sdbatch.errors import SdbatchError, StoreRefused, StoreUnavailable

ATTEMPTS_MAX = 8
BACKOFF_FIRST_S = 0.2
BACKOFF_MAX_S = 5.0
"""Waits between tries double up to here, each shortened by chance to its half at most: 8 to 16 s in all."""
WAIT_MAX_S = 120.0
"""After so long no further try of a call begins, however few were made."""

_TRANSIENT_CODES = {
    "408",
    "409",
    "ConditionalRequestConflict",  # AWS answers a lost race like this and wants a retry; s3fs does not make one
    "429",
    "500",
    "502",
    "503",
    "504",
    "InternalError",
    "OperationAborted",
    "RequestTimeout",
    "ServerBusy",
    "ServiceUnavailable",
    "SlowDown",
    "Throttling",
    "ThrottlingException",
    "TooManyRequests",
    "TooManyRequestsException",
}
_TRANSIENT_CLASSES = {
    "ClientPayloadError",
    "ConnectionClosedError",
    "ConnectTimeoutError",
    "EndpointConnectionError",
    "HTTPClientError",
    "IncompleteRead",
    "IncompleteReadError",
    "ProxyError",  # what gcsfs makes of a 502
    "ReadTimeoutError",
    "ResponseParserError",  # a proxy's page instead of the store's XML
    "ResponseStreamingError",
    "ServerDisconnectedError",
    "ServiceRequestError",  # azure: the request did not get out,
    "ServiceResponseError",  # or its answer not back
}
_CREDENTIAL_CLASSES = {"NoCredentialsError", "PartialCredentialsError", "ProfileNotFound", "TokenRetrievalError"}
_CREDENTIAL_CODES = {
    "403",
    "AccessDenied",
    "ExpiredToken",
    "InvalidAccessKeyId",
    "InvalidToken",
    "SignatureDoesNotMatch",
}
_T = TypeVar("_T")


def retried(call: Callable[[], _T], name: str) -> _T:
    """Call a store with bounded retries, backoff and jitter; name what was touched in the error.

    Raises:
        StoreRefused: On wrong credentials or a missing bucket.
        StoreUnavailable: When `ATTEMPTS_MAX` tries failed, or those of `WAIT_MAX_S`.
        FileNotFoundError: When the object is not there.
    """
    started_s = time.monotonic()
    for attempt in range(ATTEMPTS_MAX):
        try:
            return call()
        except SdbatchError:
            raise
        except Exception as error:
            if refusal := _refusal(error, name):
                raise refusal from error
            if not _is_transient(error):
                raise
            spent_s = time.monotonic() - started_s
            if attempt + 1 == ATTEMPTS_MAX or spent_s >= WAIT_MAX_S:
                tries = f"{attempt + 1} tries in {spent_s:.0f} s failed"
                raise StoreUnavailable(f"{name}: {tries}, the last with {type(error).__name__}: {error}") from error
            time.sleep(random.uniform(0.5, 1.0) * min(BACKOFF_FIRST_S * 2**attempt, BACKOFF_MAX_S))  # noqa: S311 -- jitter
    raise AssertionError("unreachable: the loop returns or raises")


def _chain(error: BaseException) -> Iterable[BaseException]:
    current: BaseException | None = error
    while current is not None:
        yield current
        current = current.__cause__ or current.__context__


def error_code(error: BaseException) -> str:
    """Return the store's own error code, from whichever of the causes holds it; "" where none does."""
    for part in _chain(error):
        response = getattr(part, "response", None)
        if isinstance(response, dict) and "Error" in response:
            return str(response["Error"].get("Code", ""))
        for name in ("code", "status_code"):  # gcsfs, azure
            if str(getattr(part, name, "")).isdigit():
                return str(getattr(part, name))
    return ""


def _refusal(error: Exception, name: str) -> StoreRefused | None:
    code = error_code(error)
    names = {type(part).__name__ for part in _chain(error)}
    if names & _CREDENTIAL_CLASSES or isinstance(error, PermissionError) or code in _CREDENTIAL_CODES:
        return StoreRefused(f"{name}: the store refused the credentials ({code or type(error).__name__}: {error})")
    if str(error).startswith("Forbidden: "):  # gcsfs, whose 403 is a plain OSError
        return StoreRefused(f"{name}: the store refused the credentials ({error})")
    if code == "NoSuchBucket" or "bucket does not exist" in str(error):
        return StoreRefused(f"{name}: there is no such bucket")
    return None


def _is_transient(error: Exception) -> bool:
    if isinstance(error, FileNotFoundError | FileExistsError):
        return False
    names = {type(part).__name__ for part in _chain(error)}
    return (
        error_code(error) in _TRANSIENT_CODES
        or isinstance(error, ConnectionError | TimeoutError)
        or bool(names & _TRANSIENT_CLASSES)
    )
