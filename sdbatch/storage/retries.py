"""Calls to a store, tried again within bounds.

    call --> Line.call() --> its answer | StoreRefused (see `refusals`) | StoreUnavailable (the bound was reached)

The patience is the same at a run's start as later: a store that throttles is waited for. Only where nothing listens,
and nothing ever did, the address is taken for wrong after a few tries.
"""

from __future__ import annotations

import logging
import random
import time
from collections.abc import Callable
from typing import Final, TypeVar

from sdbatch.errors import SdbatchError, StoreRefused, StoreUnavailable, causes
from sdbatch.storage.refusals import error_code, http_status, message_of, refusal, unknown_refusal

LOG = logging.getLogger("sdbatch.storage")
ATTEMPTS_MAX = 32
BACKOFF_FIRST_S = 0.2
BACKOFF_MAX_S = 5.0
"""Waits between tries double up to here, each shortened by chance to its half at most: 68 to 136 s in all."""
WAIT_MAX_S = 120.0
"""After so long no further try of a call begins, however few were made."""
UNREACHED_ATTEMPTS_MAX = 8
"""Tries where nothing listens and nothing ever answered: 8 to 16 s."""
SAID_AT_ATTEMPT = 6
"""Try of a call, some 3 to 6 s after its first, from which on a person is told that the store is waited for."""

_TRANSIENT_CODES: Final = {
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
_UNREACHED_CLASSES: Final = {"ClientConnectorDNSError", "ClientConnectorError", "EndpointConnectionError"}
_TRANSIENT_CLASSES: Final = _UNREACHED_CLASSES | {
    "ClientOSError",
    "ClientPayloadError",
    "ConnectionClosedError",
    "ConnectTimeoutError",
    "HTTPClientError",
    "IncompleteRead",
    "IncompleteReadError",
    "ProxyConnectionError",
    "ProxyError",  # what gcsfs makes of a 502
    "ReadTimeoutError",
    "ResponseParserError",  # a proxy's page instead of the store's XML
    "ResponseStreamingError",
    "ServerDisconnectedError",
    "ServiceRequestError",  # azure: the request did not get out,
    "ServiceResponseError",  # or its answer not back
}
_NOT_IMPLEMENTED: Final = 501
_T = TypeVar("_T")


class Line:
    """The line to one store: calls over it are tried again, and what it refuses is said in one line.

    Args:
        prefix: Prefix in the job's `storage` that the store's options stand under, or would.
        is_reached: Whether the store is known to be there.
    """

    def __init__(self, prefix: str, *, is_reached: bool = False) -> None:
        self.prefix = prefix
        self._is_reached = is_reached

    def call(self, call: Callable[[], _T], name: str) -> _T:
        """Call a store with bounded retries, backoff and jitter; name what was touched in the error.

        Raises:
            StoreRefused: When the store says no, or nothing listens where it should be.
            StoreUnavailable: When `ATTEMPTS_MAX` tries failed, or those of `WAIT_MAX_S`.
            FileNotFoundError: When the object is not there.
        """
        started_s = time.monotonic()
        for attempt in range(ATTEMPTS_MAX):
            try:
                answer = call()
            except SdbatchError:
                raise
            except Exception as error:  # noqa: BLE001 -- `_settle` raises what no further try can help
                self._settle(error, name)
                self._give_up(error, name, attempt + 1, time.monotonic() - started_s)
                if attempt + 1 == SAID_AT_ATTEMPT:
                    reason = error_code(error) or type(error).__name__
                    LOG.error("%s: waiting for the store (%s)", name, reason)  # noqa: TRY400 -- one line, no traceback
                time.sleep(random.uniform(0.5, 1.0) * min(BACKOFF_FIRST_S * 2**attempt, BACKOFF_MAX_S))  # noqa: S311 -- jitter
            else:
                self._is_reached = True
                return answer
        raise AssertionError("unreachable: the loop returns or raises")

    def _settle(self, error: Exception, name: str) -> None:
        """Return when another try may help; raise otherwise what the error means."""
        self._is_reached = self._is_reached or http_status(error) > 0
        if refused := refusal(error, name, self.prefix):
            raise refused from error
        if _is_transient(error):
            return
        if isinstance(error, FileNotFoundError | FileExistsError | IsADirectoryError):
            raise error
        if isinstance(error, OSError) or type(error).__module__.startswith(
            ("botocore", "aiobotocore", "azure", "gcsfs")
        ):
            raise unknown_refusal(error, name) from error
        raise error

    def _give_up(self, error: Exception, name: str, tries: int, spent_s: float) -> None:
        """Raise when the bound is reached."""
        said = f"{type(error).__name__}: {message_of(error)}"
        if not self._is_reached and _is_unreached(error) and tries >= min(UNREACHED_ATTEMPTS_MAX, ATTEMPTS_MAX):
            raise StoreRefused(
                f"{name}: nothing listens where the store should be, {tries} tries in {spent_s:.0f} s; look at "
                f"storage.{self.prefix}.endpoint_url or AWS_ENDPOINT_URL ({said})"
            ) from error
        if tries >= ATTEMPTS_MAX or spent_s >= WAIT_MAX_S:
            raise StoreUnavailable(f"{name}: {tries} tries in {spent_s:.0f} s failed, the last with {said}") from error


def _is_unreached(error: Exception) -> bool:
    return bool({type(part).__name__ for part in causes(error)} & _UNREACHED_CLASSES)


def _is_transient(error: Exception) -> bool:
    if isinstance(error, FileNotFoundError | FileExistsError):
        return False
    names = {type(part).__name__ for part in causes(error)}
    return (
        error_code(error) in _TRANSIENT_CODES
        or (http_status(error) >= 500 and http_status(error) != _NOT_IMPLEMENTED)
        or isinstance(error, ConnectionError | TimeoutError)
        or bool(names & _TRANSIENT_CLASSES)
    )
