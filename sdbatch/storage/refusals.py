"""What a store's refusal means, and what helps: one row of a table for each code.

    error of s3fs, gcsfs or adlfs --> refusal() --> StoreRefused, one line with the store's own code | None

The store's own code says what an error means. It stands in one of the error's causes, since the outermost class differs
by server and by package.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

from sdbatch.errors import StoreRefused, causes

MESSAGE_CHARACTERS_MAX = 300

_REGION: Final = "the bucket lies in another region{region}; say it in storage.{prefix}.region"
_CREDENTIALS: Final = "the store refused the credentials"
_EXPIRED: Final = "the store refused the credentials, which have expired; renew them and run again to go on"
_RIGHTS: Final = (
    f"{_CREDENTIALS}: they have no right to do this; ask for it, or name others in storage.{{prefix}}.profile"
)
_KEY: Final = (
    f"{_CREDENTIALS}: it does not know the access key; look at AWS_ACCESS_KEY_ID or storage.{{prefix}}.profile"
)
_SIGNATURE: Final = (
    f"{_CREDENTIALS}: the signature is wrong; look at AWS_SECRET_ACCESS_KEY, at storage.{{prefix}}.region, and whether "
    "a proxy before the store changes requests"
)
_CLOCK: Final = "the clock of this machine differs too much from the store's; set it"
_NO_BUCKET: Final = "there is no such bucket; make it, or look at its name and at storage.{prefix}.endpoint_url"
_NAME: Final = "this is not the name of a bucket: 3 to 63 letters in lower case, digits, dots and hyphens"
_NONE: Final = (
    f"{_CREDENTIALS}: there are none here; set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or name a profile in "
    "storage.{prefix}.profile"
)
_CHECKSUM: Final = (
    "the store does not take the checksums of the request; say storage.{prefix}.request_checksum_calculation: "
    "when_required"
)
_ADDRESS: Final = "storage.{prefix}.endpoint_url is not the address of a store"
_USER: Final = (
    "the address in storage.{prefix}.endpoint_url, or AWS_ENDPOINT_URL, holds a user's name; take it out, and give the "
    "store's keys as AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
)
_TLS: Final = (
    "no secure connection comes about; look at http or https in storage.{prefix}.endpoint_url, and name the store's "
    "certificate authority in AWS_CA_BUNDLE"
)
_QUESTION: Final = (
    "the store answers 400 without a reason, as it does for a wrong region{region} (storage.{prefix}.region) and for "
    "credentials that have expired"
)

BY_CODE: Final[Mapping[str, str]] = {
    **dict.fromkeys(
        ("301", "307", "PermanentRedirect", "IllegalLocationConstraintException", "IncorrectEndpoint"), _REGION
    ),
    **dict.fromkeys(("ExpiredToken", "ExpiredTokenException", "RequestExpired", "TokenRefreshRequired"), _EXPIRED),
    **dict.fromkeys(("InvalidToken", "401", "Unauthorized", "UnauthorizedAccess", "AuthFailure"), _CREDENTIALS),
    **dict.fromkeys(
        ("403", "AccessDenied", "AllAccessDisabled", "AccountProblem", "AccountDisabled", "NotSignedUp"), _RIGHTS
    ),
    "InvalidAccessKeyId": _KEY,
    "SignatureDoesNotMatch": _SIGNATURE,
    "RequestTimeTooSkewed": _CLOCK,
    "NoSuchBucket": _NO_BUCKET,
    "InvalidBucketName": _NAME,
    **dict.fromkeys(
        ("XAmzContentSHA256Mismatch", "XAmzContentChecksumMismatch", "MissingContentLength", "411"), _CHECKSUM
    ),
    "400": _QUESTION,
}
"""What each code of a store means."""

BY_CLASS: Final[Mapping[str, str]] = {
    "NoCredentialsError": _NONE,
    "PartialCredentialsError": _NONE,
    "ProfileNotFound": "storage.{prefix}.profile, or AWS_PROFILE, names a profile that is not in ~/.aws",
    **dict.fromkeys(
        ("CredentialRetrievalError", "TokenRetrievalError", "SSOTokenLoadError", "UnauthorizedSSOTokenError"), _EXPIRED
    ),
    "ParamValidationError": _NAME,
    # aiobotocore 3.10 asks the same address again, without bound, where a redirection does not name the region.
    "RecursionError": "the store answers 301 PermanentRedirect and not where to; say the bucket's region in "
    "storage.{prefix}.region",
    **dict.fromkeys(("InvalidRegionError", "NoRegionError"), "storage.{prefix}.region is not the name of a region"),
    **dict.fromkeys(("InvalidURL", "InvalidUrlClientError", "InvalidEndpointDiscoveryConfigurationError"), _ADDRESS),
    **dict.fromkeys(
        ("SSLError", "SSLCertVerificationError", "ClientConnectorCertificateError", "ClientConnectorSSLError"), _TLS
    ),
}
"""What an error means that was raised on this machine, by the name of its class."""

_BY_TEXT: Final = (
    (re.compile(r"region .* is wrong|expecting '[a-z0-9-]+'", re.IGNORECASE), _REGION),
    (re.compile(r"checksum|content-sha256|aws-chunked|trailer", re.IGNORECASE), _CHECKSUM),
    (re.compile(r"bucket does not exist", re.IGNORECASE), _NO_BUCKET),
    (re.compile(r"^Forbidden: "), _CREDENTIALS),  # gcsfs, whose 403 is a plain OSError
    (re.compile(r"^Invalid endpoint"), _ADDRESS),
    (re.compile(r"credentials encoded in URL"), _USER),  # aiohttp's words
    (re.compile(r"expired", re.IGNORECASE), _EXPIRED),
)
"""What the text of an error means whose code is one of many meanings, or which has none."""
_EXPECTED_REGION: Final = re.compile(r"expecting '([a-z0-9-]+)'")


def refusal(error: BaseException, name: str, prefix: str) -> StoreRefused | None:
    """Return what is to be done about an error of a store; None for one that no row of the tables tells of.

    Args:
        error: As its package raised it.
        name: URL of what was touched.
        prefix: Prefix in the job's `storage` that its options stand under, or would.
    """
    code, text = error_code(error), message_of(error)
    names = [type(part).__name__ for part in causes(error)]
    by_text = next((meaning for pattern, meaning in _BY_TEXT if pattern.search(text)), None)
    by_class = next((BY_CLASS[kind] for kind in names if kind in BY_CLASS), None)
    meaning = BY_CODE.get(code) or by_class or (_RIGHTS if isinstance(error, PermissionError) else None)
    meaning = by_text if meaning in {None, _QUESTION, _CREDENTIALS} and by_text else meaning
    if meaning is None:
        return None
    return StoreRefused(f"{name}: {_filled(meaning, error, prefix)} ({code or names[0]}: {text})")


def has_reason(error: BaseException) -> bool:
    """Whether code or text of an error say what it means; a bare 400 means one of several things."""
    text = message_of(error)
    return error_code(error) in BY_CODE.keys() - {"400"} or any(pattern.search(text) for pattern, _ in _BY_TEXT)


def unknown_refusal(error: BaseException, name: str) -> StoreRefused:
    """Return what is said of a refusal that is in no table."""
    return StoreRefused(
        f"{name}: the store refused this ({error_code(error) or type(error).__name__}: {message_of(error)})"
    )


def error_code(error: BaseException) -> str:
    """Return the store's own error code, from whichever of the causes holds it; "" where none does."""
    for part in causes(error):
        response = getattr(part, "response", None)
        if isinstance(response, dict) and "Error" in response:
            return str(response["Error"].get("Code", ""))
        if type(part).__module__.startswith("aiohttp"):  # its code is not the store's: 400 for half a body
            continue
        for name in ("code", "status_code"):  # gcsfs, azure
            if str(getattr(part, name, "")).isdigit():
                return str(getattr(part, name))
    return ""


def http_status(error: BaseException) -> int:
    """Return the HTTP status that a store answered; 0 where nothing was answered, or nobody says."""
    for part in causes(error):
        response = getattr(part, "response", None)
        if isinstance(response, dict) and "Error" in response:
            return int(response.get("ResponseMetadata", {}).get("HTTPStatusCode") or 0)
    code = error_code(error)
    return int(code) if code.isdigit() else 0


def message_of(error: BaseException) -> str:
    """Return a store's own message as one line of bounded length."""
    response = _response(error)
    text = str(response.get("Error", {}).get("Message") or error)
    return " ".join(text.split())[:MESSAGE_CHARACTERS_MAX]


def _response(error: BaseException) -> Mapping[str, Any]:
    responses = (getattr(part, "response", None) for part in causes(error))
    return next((one for one in responses if isinstance(one, dict)), {})


def _filled(meaning: str, error: BaseException, prefix: str) -> str:
    response = _response(error)
    headers = response.get("ResponseMetadata", {}).get("HTTPHeaders", {})
    expected = _EXPECTED_REGION.search(message_of(error))
    region = headers.get("x-amz-bucket-region") or response.get("Error", {}).get("Region")
    region = region or (expected[1] if expected else "")
    return meaning.format(prefix=prefix, region=f", {region}" if region else "")
