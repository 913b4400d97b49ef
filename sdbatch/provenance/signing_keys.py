"""The certificate and the key that deliveries are signed with: read, checked, and for trying made.

PEM texts (or a function that signs) --> checked_key() --> SigningKey          make_chain() --> a chain for trying
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Final

from sdbatch.errors import JobError

if TYPE_CHECKING:
    from cryptography.x509 import Certificate

DAYS_LEFT_MIN: Final = 30
"""Without a time stamp, what is signed is worth nothing once its certificate has expired."""
TRIAL_DAYS: Final = 365
_ROOT_DAYS: Final = 3650
PURPOSES: Final = {
    "1.3.6.1.4.1.62558.2.1": "claim signing (C2PA)",
    "1.3.6.1.5.5.7.3.4": "emailProtection",
    "1.3.6.1.5.5.7.3.36": "documentSigning",
    "1.3.6.1.4.1.311.76.59.1.9": "C2PA signing (Microsoft)",
    "1.3.6.1.5.5.7.3.8": "timeStamping",
    "1.3.6.1.5.5.7.3.9": "OCSPSigning",
}
"""Extended key usages of certificates in content credentials: those that c2patool's own list has."""
_OTHER_PURPOSES: Final = {
    "1.3.6.1.5.5.7.3.1": "serverAuth",
    "1.3.6.1.5.5.7.3.2": "clientAuth",
    "1.3.6.1.5.5.7.3.3": "codeSigning",
    "2.5.29.37.0": "any",
}
_CURVES: Final = {"secp256r1": "es256", "secp384r1": "es384", "secp521r1": "es512"}


@dataclass(frozen=True, slots=True, kw_only=True)
class SigningKey:
    """A certificate chain, and what signs in its name.

    Attributes:
        chain: Certificates in PEM, the signer's first.
        private_key: In PEM, as PKCS #8; "" where a function signs.
        call: `module:function` that signs; "" where the key is here.
        algorithm: By its C2PA name.
        timestamp_url: Of a time stamp authority (RFC 3161); None for none.
        trust: Root certificates in PEM that readers are taken to trust; "" for none.
        signer: Name of the signer, for people.
        fingerprint: sha256 of the signer's certificate.
        days_left: Days until it expires.
    """

    chain: str
    private_key: str = field(repr=False)
    call: str
    algorithm: str
    timestamp_url: str | None
    trust: str
    signer: str
    fingerprint: str
    days_left: int


def checked_key(
    chain: str, private_key: str, call: str, timestamp_url: str | None, trust: str, now: datetime | None = None
) -> SigningKey:
    """Return a certificate chain and its key, after a look at both.

    Args:
        chain: Certificates in PEM, the signer's first.
        private_key: In PEM of any form, not encrypted; "" where `call` signs.
        call: `module:function`, or "".
        timestamp_url: Of a time stamp authority.
        trust: Root certificates in PEM, or "".
        now: The time; the clock's by default.

    Raises:
        JobError: When it is no chain or no key, they do not belong together, or its time is over or nearly so.
    """
    from cryptography.hazmat.primitives.serialization import Encoding
    from cryptography.x509.oid import NameOID

    now = now or datetime.now(UTC)
    certificates = _certificates(chain, "certificate")
    certificate = certificates[0]
    if trust:
        _certificates(trust, "trust_file")
    begins, ends = certificate.not_valid_before_utc, certificate.not_valid_after_utc
    if begins > now:
        raise JobError(f"sign: the certificate is not valid before {begins:%Y-%m-%d %H:%M} UTC")
    if ends <= now:
        raise JobError(f"sign: the certificate expired on {ends:%Y-%m-%d}; sign with a newer one")
    days_left = (ends - now).days
    if days_left < DAYS_LEFT_MIN and timestamp_url is None:
        raise JobError(
            f"sign: the certificate expires in {days_left} days, under {DAYS_LEFT_MIN}, and without a time stamp its "
            "signatures end with it; give timestamp_url or a newer certificate"
        )
    algorithm = _algorithm(certificate)
    key = "" if call else _key_of(certificate, private_key)
    _check_purpose(certificate)
    names = certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    return SigningKey(
        chain="".join(one.public_bytes(Encoding.PEM).decode() for one in certificates),
        private_key=key,
        call=call,
        algorithm=algorithm,
        timestamp_url=timestamp_url,
        trust=trust,
        signer=str(names[0].value) if names else certificate.subject.rfc4514_string(),
        fingerprint=hashlib.sha256(certificate.public_bytes(Encoding.DER)).hexdigest(),
        days_left=days_left,
    )


def _certificates(text: str, what: str) -> list[Certificate]:
    from cryptography.x509 import load_pem_x509_certificates

    try:
        return load_pem_x509_certificates(text.encode())
    except ValueError as error:
        raise JobError(f"sign: the {what} holds no certificate in PEM: {error}") from error


def _algorithm(certificate: Certificate) -> str:
    from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

    public = certificate.public_key()
    if isinstance(public, ec.EllipticCurvePublicKey) and public.curve.name in _CURVES:
        return _CURVES[public.curve.name]
    if isinstance(public, ed25519.Ed25519PublicKey):
        return "ed25519"
    if isinstance(public, rsa.RSAPublicKey) and public.key_size >= 2048:
        return "ps256"
    raise JobError(
        "sign: the certificate's key is none that C2PA takes: P-256, P-384, P-521, Ed25519, RSA from 2048 bits"
    )


def _check_purpose(certificate: Certificate) -> None:
    """Refuse a certificate for something else, such as a web server's: no reader would take its signatures."""
    from cryptography.x509 import ExtendedKeyUsage, ExtensionNotFound

    try:
        usages = [one.dotted_string for one in certificate.extensions.get_extension_for_class(ExtendedKeyUsage).value]
    except ExtensionNotFound:
        usages = []
    if PURPOSES.keys().isdisjoint(usages):
        found = ", ".join(_OTHER_PURPOSES.get(usage, usage) for usage in usages) or "none"
        raise JobError(
            f"sign: the certificate is not for signing content: its extended key usage is {found}; taken are "
            f"{', '.join(PURPOSES.values())}"
        )


def _key_of(certificate: Certificate, private_key: str) -> str:
    """Return the key of a certificate in the one form that the library takes; openssl writes others too."""
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.serialization import (
        Encoding,
        NoEncryption,
        PrivateFormat,
        load_pem_private_key,
    )

    try:
        key = load_pem_private_key(private_key.encode(), None)
    except TypeError as error:
        raise JobError("sign: the key is encrypted; give it without a passphrase, or a function that signs") from error
    except (ValueError, UnsupportedAlgorithm) as error:
        raise JobError("sign: the key is no private key in PEM") from error
    if key.public_key() != certificate.public_key():
        raise JobError("sign: the key does not belong to the first certificate of the chain")
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()


def make_chain(
    name: str, now: datetime | None = None, days: int = TRIAL_DAYS, purpose: str = "1.3.6.1.5.5.7.3.4"
) -> tuple[str, str, str]:
    """Return a chain, its key and its root in PEM, made by nobody whom readers know: for trying.

    Args:
        name: Name of the signer.
        now: From when on it is valid; the clock's time by default.
        days: How long.
        purpose: Its extended key usage; emailProtection by default.
    """
    from cryptography import x509
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
    from cryptography.x509.oid import NameOID, ObjectIdentifier

    now = now or datetime.now(UTC) - timedelta(minutes=5)

    def subject(common: str) -> x509.Name:
        names = ((NameOID.ORGANIZATION_NAME, name), (NameOID.COMMON_NAME, common))
        return x509.Name([x509.NameAttribute(kind, text) for kind, text in names])

    root_key, key = (ec.generate_private_key(ec.SECP256R1()) for _ in range(2))
    root_subject = subject(f"{name} root (for trying)"[:64])
    root = _signed(root_subject, root_subject, root_key, root_key, now, _ROOT_DAYS, is_root=True)
    extended = x509.ExtendedKeyUsage([ObjectIdentifier(purpose)])
    leaf = _signed(subject(name[:64]), root_subject, key, root_key, now, days, is_root=False, extended=extended)
    root_pem = root.public_bytes(Encoding.PEM).decode()
    private = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()
    return leaf.public_bytes(Encoding.PEM).decode() + root_pem, private, root_pem


def _signed(
    subject: Any,
    issuer: Any,
    key: Any,
    issuer_key: Any,
    now: datetime,
    days: int,
    *,
    is_root: bool,
    extended: Any = None,
) -> Certificate:
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes

    usage = dict.fromkeys(
        ("content_commitment", "key_encipherment", "data_encipherment", "key_agreement", "encipher_only"), False
    )
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now)
        .not_valid_after(now + timedelta(days=days))
        .add_extension(x509.BasicConstraints(ca=is_root, path_length=None), critical=True)
        .add_extension(
            x509.KeyUsage(
                digital_signature=True, key_cert_sign=is_root, crl_sign=is_root, decipher_only=False, **usage
            ),
            critical=True,
        )
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer_key.public_key()), critical=False)
    )
    if extended is not None:
        builder = builder.add_extension(extended, critical=False)
    return builder.sign(issuer_key, hashes.SHA256())
