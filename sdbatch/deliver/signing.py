"""Who signs the files of a delivery: certificate and key from the environment or files, or a function of a key service.

No secret stands in a delivery: SDBATCH_SIGN_CERTIFICATE and SDBATCH_SIGN_KEY hold PEM, or the path of a file with it.
"""

from __future__ import annotations

from typing import Annotated, Final

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

CERTIFICATE_VARIABLE: Final = "SDBATCH_SIGN_CERTIFICATE"
KEY_VARIABLE: Final = "SDBATCH_SIGN_KEY"


class Sign(BaseModel):
    """Content credentials (C2PA) in each file."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    certificate_file: str | None = Field(
        default=None, description=f"Certificates in PEM, the signer's first; {CERTIFICATE_VARIABLE} without it."
    )
    key_file: str | None = Field(default=None, description=f"Private key in PEM; {KEY_VARIABLE} without it.")
    call: Annotated[str, Field(pattern=r"^[A-Za-z_][\w.]*:[A-Za-z_]\w*$")] | None = Field(
        default=None, description="module:function that signs instead of a key; needs --allow-code."
    )
    version: Annotated[str, Field(min_length=1)] | None = Field(default=None, description="Version of that function.")
    timestamp_url: str | None = Field(default=None, description="Of a time stamp authority (RFC 3161).")
    trust_file: str | None = Field(
        default=None, description="Root certificates in PEM, by which is told whether the chain is trusted."
    )
    required: bool = Field(default=False, description="Whether a file that cannot be signed is not delivered.")

    @field_validator("timestamp_url")
    @classmethod
    def _over_http(cls, url: str | None) -> str | None:
        if url is not None and not url.startswith(("http://", "https://")):
            raise ValueError(f"timestamp_url: {url!r} begins with neither http:// nor https://")
        return url

    @model_validator(mode="after")
    def _one_way_to_sign(self) -> Sign:
        if self.call is not None and self.key_file is not None:
            raise ValueError("sign: call and key_file are two ways to sign; give one")
        if (self.call is None) != (self.version is None):
            raise ValueError("sign: call and version belong together")
        return self
