"""Who signs a delivery: looked up, tried on one tiny picture, and told about before any file is made.

Delivery + environment --> signing_of() --> Signing, or None          row of a master --> sources_of() --> its archives
"""

from __future__ import annotations

import os
import struct
import zlib
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final, Literal

from sdbatch.campaign import layout
from sdbatch.columns import SOURCE_ROLES
from sdbatch.deliver.settings import Delivery
from sdbatch.deliver.signing import CERTIFICATE_VARIABLE, KEY_VARIABLE
from sdbatch.driver.delivery.plan import DeliverReport
from sdbatch.errors import JobError
from sdbatch.extras import require
from sdbatch.named_functions import function_of
from sdbatch.plan.sources import listed
from sdbatch.provenance.definition import definition, relation_of
from sdbatch.provenance.signing import FileSigner, SignFailed, read_credentials
from sdbatch.provenance.signing_keys import DAYS_LEFT_MIN, SigningKey, checked_key
from sdbatch.provenance.source_type import GENERATED

_PEM: Final = "-----BEGIN"
Relation = Literal["parentOf", "inputTo"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Signing:
    """How a delivery is signed; plain values, which go to other processes.

    Attributes:
        key: Certificate chain, and what signs.
        required: Whether a file that cannot be signed is not delivered.
        version: Of the function that signs; "" for a key.
        trial_bytes: What a signature added to the picture it was tried on; 0 where none was tried.
    """

    key: SigningKey
    required: bool
    version: str
    trial_bytes: int = 0

    @property
    def identity(self) -> dict[str, Any]:
        """What of it is part of a file's key."""
        own = {"certificate": self.key.fingerprint, "time_stamp": self.key.timestamp_url}
        return {**own, "call": f"{self.key.call} {self.version}"} if self.key.call else own


def signing_of(delivery: Delivery, report: DeliverReport, *, allow_code: bool, dry_run: bool) -> Signing | None:
    """Return how a delivery is signed, None when it is not.

    Args:
        delivery: The delivery.
        report: Is told of what readers of the files will find lacking.
        allow_code: Whether a function that the delivery names may be run.
        dry_run: Leave the trial out: it would call a key service.

    Raises:
        JobError: When it cannot be signed as the delivery says.
    """
    sign = delivery.sign
    if sign is None:
        return None
    if sign.call is not None and not allow_code:
        raise JobError(f"sign.call: {sign.call} is code; --allow-code lets a delivery run what it names")
    if delivery.is_zip and any(one.type == "webm" for one in delivery.own_formats):
        raise JobError("sign: the credentials of a WebM stand beside it, and an archive has no such place; deliver MP4")
    require("provenance", "sign")
    chain = _pem(sign.certificate_file, "certificate_file", CERTIFICATE_VARIABLE)
    private_key = "" if sign.call else _pem(sign.key_file, "key_file", KEY_VARIABLE)
    if not chain or (not private_key and sign.call is None):
        lacking = f"{CERTIFICATE_VARIABLE} (or certificate_file)" if not chain else f"{KEY_VARIABLE} (or key_file)"
        if sign.required:
            raise JobError(f"sign: {lacking} is not set, and sign.required is; nothing was made")
        report.warnings.append(f"sign: {lacking} is not set, so that no file is signed")
        return None
    trust = _pem(sign.trust_file, "trust_file", "")
    key = checked_key(chain, private_key, sign.call or "", sign.timestamp_url, trust)
    signing = Signing(key=key, required=sign.required, version=sign.version or "")
    if sign.call:
        function_of(sign.call, "sign.call")
    _tell(key, report)
    return signing if dry_run else replace(signing, trial_bytes=_try(signing, report))


def _tell(key: SigningKey, report: DeliverReport) -> None:
    if key.timestamp_url is None:
        report.warnings.append(
            f"sign: without timestamp_url the signatures end with the certificate, in {key.days_left} days"
        )
    elif key.days_left < DAYS_LEFT_MIN:
        report.warnings.append(f"sign: the certificate expires in {key.days_left} days")


def _try(signing: Signing, report: DeliverReport) -> int:
    """Sign a picture of one pixel, and read it back; return how many bytes that added."""
    picture = _one_pixel()
    claims = definition(
        title="trial",
        media_type="image/png",
        source_type=GENERATED,
        system="",
        system_version="",
        steps=(),
        fingerprint="",
    )
    try:
        signed = FileSigner(signing.key).sign(picture, "image/png", claims)
    except SignFailed as error:
        raise JobError(f"sign: {error}") from error
    if read_credentials(signed.data, "image/png", trust=signing.key.trust).state != "trusted":
        where = "no root in trust_file" if signing.key.trust else "no root known here (trust_file names some)"
        report.warnings.append(
            f"sign: {where} vouches for {signing.key.signer}; programs that do not know the chain call it unknown"
        )
    return len(signed.data) - len(picture)


def _one_pixel() -> bytes:
    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", 1, 1, 8, 2, 0, 0, 0)
    pixels = zlib.compress(b"\0\0\0\0")
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")


def _pem(file: str | None, key: str, variable: str) -> str:
    """Return PEM from a file or the environment, whose variable holds it or the path of a file with it; "" for none."""
    text = os.environ.get(variable, "") if file is None and variable else ""
    if text.lstrip().startswith(_PEM):
        return text
    path = file if file is not None else text
    if not path:
        return ""
    name = f"sign.{key}" if file is not None else variable
    try:
        return Path(path).expanduser().read_text(encoding="utf-8")
    except OSError as error:
        raise JobError(f"{name}: {path} cannot be read: {error.strerror or error}") from error
    except UnicodeDecodeError as error:
        hint = "`openssl x509 -inform der` and `openssl pkcs12 -nodes` make PEM of other forms"
        raise JobError(f"{name}: {path} is not text, and so no PEM; {hint}") from error


def sources_of(row: Mapping[str, Any], archived: Collection[str]) -> tuple[tuple[str, Relation], ...]:
    """Return the sources of a master whose credentials were kept: label of the archive, and what it is to the output.

    Args:
        row: Of the master.
        archived: Paths of the archives that the campaign has.
    """
    digests = list(row.get("source_digests") or ())
    places = [(role, number) for role in SOURCE_ROLES for number, _ in enumerate(listed(row.get(role)))]
    if len(places) != len(digests):
        return ()
    found: dict[tuple[str, Relation], None] = {}
    for (role, number), digest in zip(places, digests, strict=True):
        relation = relation_of(row.get("task") or "", role, number)
        label = layout.credentials_label(digest)
        if layout.credentials(label, relation) in archived:
            found.setdefault((label, relation))
    return tuple(found)
