"""The key `watermark` of a job: a function of the user's own that marks every picture before it is encoded."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field


class Watermark(BaseModel):
    """A function that is called with each picture, and with each frame of a clip, before it is encoded."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    call: Annotated[str, Field(pattern=r"^[A-Za-z_][\w.]*:[A-Za-z_]\w*$")] = Field(
        description="module:function(image_HWC, *, request_key, n) that returns the marked picture; needs --allow-code."
    )
    version: Annotated[str, Field(pattern=r"^\S{1,64}$")] = Field(
        description="Version of that function; another one makes other assets."
    )

    @property
    def identity(self) -> str:
        """Its name and version, as recipes and metadata have them."""
        return f"{self.call} {self.version}"
