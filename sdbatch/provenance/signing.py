"""C2PA: a file's claims signed into it, and read back.

    bytes + claims + SigningKey --> FileSigner.sign() --> Signed        bytes --> read_credentials() --> Credentials

A signature is never the same twice, so that masters stay unsigned and signing comes last. The library's objects do not
outlive a fork: they are made anew in each process. WebM takes no credentials inside: they stand in a file beside it.
"""

from __future__ import annotations

import io
import json
import os
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final

from sdbatch.named_functions import function_of
from sdbatch.provenance.definition import Ingredient
from sdbatch.provenance.signing_keys import PURPOSES, SigningKey

RESERVED_BYTES: Final = 6_144
"""Bytes that a signature and its claims take at least; 3.4 KB were seen with a short chain and a key, and 12.5 KB with
a function, for whose signature the library (c2pa-python 0.38.1) leaves 10 KB of room."""
CLAIMS_BYTES: Final = 2_560
"""Bytes that the claims of a file take beyond those of the picture on which a signature was tried."""
TIME_STAMP_BYTES: Final = 16_384
"""Bytes that a time stamp takes besides, with the certificates of its authority."""
INGREDIENT_BYTES: Final = 3_072
"""Bytes that an ingredient takes beside its archive."""
_BESIDE: Final = frozenset({"video/webm"})
_EC_BYTES: Final = {"es256": 32, "es384": 48, "es512": 66}


class SignFailed(Exception):
    """A file could not be signed; the text says why."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Signed:
    """A file with its credentials.

    Attributes:
        data: Content of the file.
        sidecar: Credentials that stand beside it; None where they are inside.
        label: Name of the manifest.
    """

    data: bytes
    sidecar: bytes | None
    label: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Credentials:
    """What the credentials of a file say.

    Attributes:
        state: `none`, `trusted`, `valid` (by a signer that is not among the trusted roots) or `invalid`.
        label: Name of the manifest.
        signer: Name of the signer.
        faults: Codes of what is wrong, of those that make it invalid.
        has_time_stamp: Whether a time stamp authority vouches for the time.
        source_types: Digital source types that its actions name.
        ingredients: Titles of the sources it names.
    """

    state: str
    label: str = ""
    signer: str = ""
    faults: tuple[str, ...] = ()
    has_time_stamp: bool = False
    source_types: tuple[str, ...] = ()
    ingredients: tuple[str, ...] = ()


class FileSigner:
    """Signs files, in whatever process it finds itself.

    Args:
        key: The certificate chain, and what signs.
    """

    def __init__(self, key: SigningKey) -> None:
        self.key = key
        self._made_in = 0
        self._objects: tuple[Any, Any] | None = None
        self._raised: BaseException | None = None

    def sign(
        self, data: bytes, media_type: str, claims: dict[str, Any], ingredients: Sequence[Ingredient] = ()
    ) -> Signed:
        """Return a file with its credentials.

        Raises:
            SignFailed: When the key, the function that signs, the time stamp authority or the library refuses.
        """
        import c2pa

        context, signer = self._here()
        self._raised = None
        target = io.BytesIO()
        try:
            with c2pa.Builder(claims, context=context) as builder:
                for one in ingredients:
                    builder.add_ingredient_from_archive(io.BytesIO(one.archive))
                if media_type in _BESIDE:
                    builder.set_no_embed()
                store = builder.sign(signer, media_type, io.BytesIO(data), target)
        except c2pa.C2paError as error:
            raise SignFailed(self._why(error)) from (self._raised or error)
        is_beside = media_type in _BESIDE
        made = data if is_beside else target.getvalue()
        found = read_credentials(made, media_type, store if is_beside else None)
        if found.state not in {"trusted", "valid"}:
            raise SignFailed(f"what was signed does not hold: {', '.join(found.faults) or found.state}")
        return Signed(data=made, sidecar=store if is_beside else None, label=found.label)

    def _here(self) -> tuple[Any, Any]:
        if self._objects is None or self._made_in != os.getpid():
            self._objects = (_context(self.key.trust), self._signer())
            self._made_in = os.getpid()
        return self._objects

    def _signer(self) -> Any:
        import c2pa

        key = self.key
        try:
            if not key.call:
                url = key.timestamp_url
                info = c2pa.C2paSignerInfo(
                    key.algorithm.encode(), key.chain.encode(), key.private_key.encode(), url.encode() if url else None
                )
                return c2pa.Signer.from_info(info)
            algorithm = getattr(c2pa.C2paSigningAlg, key.algorithm.upper())
            return c2pa.Signer.from_callback(
                self._guarded(function_of(key.call, "sign.call")), algorithm, key.chain, key.timestamp_url
            )
        except c2pa.C2paError as error:
            raise SignFailed(self._why(error)) from error

    def _guarded(self, call: Callable[[bytes], bytes]) -> Callable[[bytes], bytes]:
        """Return a function that keeps what the given one raises: the library would swallow it."""

        def signature(data: bytes) -> bytes:
            try:
                return _as_raw(call(data), self.key.algorithm)
            except Exception as error:
                self._raised = error
                raise

        return signature

    def _why(self, error: BaseException) -> str:
        if self._raised is not None:
            return f"{self.key.call} raised {type(self._raised).__name__}: {self._raised}"
        said = " ".join(str(error).split())
        if self.key.timestamp_url and "internal error" in said:
            lacks = "does not answer" if "http resolver" in said else "gives no time stamp"
            return f"the time stamp authority {self.key.timestamp_url} {lacks}: {said}"
        return said


def _as_raw(signature: bytes, algorithm: str) -> bytes:
    """Return an elliptic curve's signature as C2PA has it, r and s; key services give it in DER."""
    size = _EC_BYTES.get(algorithm)
    if not isinstance(signature, bytes):
        raise TypeError(f"returned {type(signature).__name__}, not bytes")
    if size is None or len(signature) == 2 * size:
        return signature
    from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature

    r, s = decode_dss_signature(signature)
    return r.to_bytes(size, "big") + s.to_bytes(size, "big")


def _context(trust: str) -> Any:
    import c2pa

    # A file of a stranger may name an address where its credentials lie; the library would ask there.
    settings: dict[str, Any] = {
        "builder": {"thumbnail": {"enabled": False}},
        "verify": {"remote_manifest_fetch": False, "ocsp_fetch": False},
        # Without it emailProtection alone counts, and what others on the C2PA trust list signed is called invalid.
        "trust": {"trust_config": "\n".join(PURPOSES)},
    }
    if trust:
        settings["trust"]["user_anchors"] = trust
    return c2pa.Context(c2pa.Settings.from_dict(settings))


def archive_of(data: bytes, media_type: str, label: str, relation: str, title: str) -> bytes:
    """Return the archive of a source's credentials, from which it becomes an ingredient when the source is gone.

    Args:
        data: Content of the source.
        media_type: Its media type.
        label: Name by which actions point to it.
        relation: `parentOf` or `inputTo`.
        title: Its name, for people.

    Raises:
        SignFailed: When its credentials cannot be read.
    """
    import c2pa

    target = io.BytesIO()
    try:
        with c2pa.Builder({"claim_generator_info": [{"name": "sdbatch"}]}, context=_context("")) as builder:
            values = {"title": title, "relationship": relation, "label": label, "instance_id": label}
            builder.add_ingredient(values, media_type, io.BytesIO(data))
            builder.write_ingredient_archive(label, target)
    except c2pa.C2paError as error:
        raise SignFailed(str(error)) from error
    return target.getvalue()


def read_credentials(data: bytes, media_type: str, sidecar: bytes | None = None, trust: str = "") -> Credentials:
    """Return what the credentials of a file say.

    Args:
        data: Content of the file.
        media_type: Its media type.
        sidecar: Credentials that stand beside it.
        trust: Root certificates in PEM that are trusted.
    """
    import c2pa

    if sidecar is None and media_type in _BESIDE:
        return Credentials(state="none")
    try:
        with c2pa.Reader(media_type, io.BytesIO(data), sidecar, _context(trust)) as reader:
            said = json.loads(reader.json())
            state = str(reader.get_validation_state() or "Invalid").lower()
    except c2pa.C2paError as error:
        if str(error).startswith("ManifestNotFound"):
            return Credentials(state="none")
        return Credentials(state="invalid", faults=(str(error)[:200],))
    label = said.get("active_manifest", "")
    manifest = said.get("manifests", {}).get(label, {})
    signature = manifest.get("signature_info") or {}
    untrusted = "signingCredential.untrusted"
    faults = [one.get("code", "") for one in said.get("validation_status") or () if one.get("code") != untrusted]
    types: dict[str, None] = {}
    with suppress(TypeError, KeyError):
        for assertion in manifest.get("assertions", ()):
            if str(assertion.get("label")).startswith("c2pa.actions"):
                for action in assertion["data"]["actions"]:
                    types.setdefault(action.get("digitalSourceType") or "")
    return Credentials(
        state=state,
        label=label,
        signer=str(signature.get("common_name") or signature.get("issuer") or ""),
        faults=tuple(dict.fromkeys(faults)),
        has_time_stamp=bool(signature.get("time")),
        source_types=tuple(name for name in types if name),
        ingredients=tuple(str(one.get("title") or "") for one in manifest.get("ingredients") or ()),
    )
