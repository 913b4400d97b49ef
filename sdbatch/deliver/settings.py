"""A delivery as its YAML file says it: from which campaign, in which formats, under which names, to where.

delivery.yaml --> read_delivery() --> Delivery
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from sdbatch.deliver.marking import Label, Metadata
from sdbatch.deliver.names import DEFAULT_TEMPLATE, Template
from sdbatch.deliver.placing import Focus
from sdbatch.deliver.signing import Sign
from sdbatch.errors import JobError
from sdbatch.job import Storage, refuse_unfilled, storage_faults
from sdbatch.job.read import explained, read_yaml, refuse_other_kind, refuse_secrets
from sdbatch.named_formats import NamedFormat, formats_of

DELIVERY_VERSION: Final = 1
"""Raised when a key changes its meaning."""
ZIP_SUFFIX: Final = ".zip"
ZIP_BYTES_MAX: Final = 512 << 20
"""Longest archive where the delivery says nothing; one archive at a time is held in memory."""
_NAME: Final = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$"
_COLOUR: Final = r"^#[0-9a-fA-F]{6}$"


class _Strict(BaseModel):
    """Refuses unknown keys and values of another type."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


class Quality(_Strict):
    """Bounds on the quality of JPEG, WebP and AVIF, 1 to 100."""

    least: Annotated[int, Field(ge=1, le=100)] = Field(
        default=40, description="Least quality; what is over its bytes there is not delivered."
    )
    most: Annotated[int, Field(ge=1, le=100)] = Field(default=95, description="Quality that is begun with.")

    @model_validator(mode="after")
    def _in_order(self) -> Quality:
        if self.least > self.most:
            raise ValueError(f"quality.least: {self.least} is over quality.most = {self.most}")
        return self


class FocusPoint(_Strict):
    """A point of the master that a crop keeps, as shares of its width and height."""

    x: Annotated[float, Field(ge=0, le=1)] = Field(default=0.5, description="From the left.")
    y: Annotated[float, Field(ge=0, le=1)] = Field(default=0.5, description="From the top.")


class Delivery(_Strict):
    """A whole delivery."""

    version: Annotated[int, Field(ge=1, le=DELIVERY_VERSION)] = Field(
        default=DELIVERY_VERSION, description="Of the meaning of these keys."
    )
    delivery: Annotated[str, Field(pattern=_NAME)] = Field(description="Its name; that of the file without one.")
    campaign: Annotated[str, Field(min_length=1)] = Field(description="Campaign folder or URL, or a job file.")
    only: Literal["all", "approved", "picked"] = Field(
        default="all", description="Outputs by what people decided; what is rejected is never delivered."
    )
    where: Annotated[str, Field(min_length=1)] | None = Field(
        default=None, description="Only rows of the metadata for which this expression holds."
    )
    formats: list[str | dict[str, Any]] = Field(
        description="Named formats, or {name, width, height, type, bytes_max, fit, dpi}."
    )
    name: str = Field(
        default=DEFAULT_TEMPLATE, description="Path of each file, of columns in braces, format, n and ext."
    )
    to: Annotated[str, Field(min_length=1)] = Field(description="Folder, bucket, or FILE.zip in one of them.")
    quality: Quality = Quality()
    focus: Literal["centre", "top"] | FocusPoint = Field(
        default="centre", description="What a crop keeps, for rows without x_focus_x and x_focus_y."
    )
    bars: Annotated[str, Field(pattern=_COLOUR)] = Field(default="#000000", description="Colour of letterbox bars.")
    crop_max: Annotated[float, Field(ge=0, le=1)] | None = Field(
        default=None, description="Largest share of a master that may be cropped; more is refused."
    )
    enlarge_max: Annotated[float, Field(gt=0)] | None = Field(
        default=None, description="Largest factor by which a master may be enlarged; more is refused."
    )
    zip_bytes_max: Annotated[int, Field(ge=1_000_000, le=4 << 30)] = Field(
        default=ZIP_BYTES_MAX, description="Longest archive; a longer one is split."
    )
    processes: Annotated[int, Field(ge=1, le=1024)] | Literal["auto"] = Field(
        default="auto", description="Processes that make files; auto is one for each core."
    )
    storage: dict[str, Storage] = Field(default={}, description="Access to buckets, as in a job.")
    metadata: Metadata = Field(default=Metadata(), description="What the files say of themselves.")
    sign: Sign | None = Field(default=None, description="Content credentials (C2PA).")
    label: Label | None = Field(default=None, description="Words that are seen in a corner of each file.")

    @property
    def own_formats(self) -> tuple[NamedFormat, ...]:
        """The formats, looked up and checked."""
        return formats_of(self.formats)

    @property
    def is_zip(self) -> bool:
        """Whether the files go into archives."""
        return self.to.lower().endswith(ZIP_SUFFIX)

    @property
    def focus_point(self) -> Focus:
        """The focus of rows that have none of their own."""
        if isinstance(self.focus, FocusPoint):
            return Focus(x=self.focus.x, y=self.focus.y)
        return Focus(x=0.5, y=0.0 if self.focus == "top" else 0.5)

    @property
    def bar_colour(self) -> tuple[int, int, int]:
        """Red, green and blue of letterbox bars."""
        red, green, blue = (int(self.bars[place : place + 2], 16) for place in (1, 3, 5))
        return red, green, blue

    @field_validator("formats")
    @classmethod
    def _known_formats(cls, entries: list[Any]) -> list[Any]:
        try:
            formats_of(entries)
        except JobError as error:
            raise ValueError(str(error).removeprefix("formats: ")) from error
        return entries

    @field_validator("name")
    @classmethod
    def _a_template(cls, text: str) -> str:
        try:
            Template(text)
        except JobError as error:
            raise ValueError(str(error)) from error
        return text

    @field_validator("label")
    @classmethod
    def _known_letters(cls, label: Label | None) -> Label | None:
        from sdbatch.deliver.label import check_label  # Pillow's letters, which no check or plan needs

        try:
            if label is not None:
                check_label(label)
        except JobError as error:
            raise ValueError(str(error).removeprefix("label.")) from error
        return label

    @field_validator("storage")
    @classmethod
    def _options_of_their_scheme(cls, storage: dict[str, Storage]) -> dict[str, Storage]:
        if faults := [fault for prefix, options in storage.items() for fault in storage_faults(prefix, options)]:
            raise ValueError("; ".join(faults))
        return storage


def delivery_schema() -> dict[str, Any]:
    """Return the JSON Schema of a delivery's file, for editors; `jobs/delivery.schema.json` holds it."""
    schema = Delivery.model_json_schema()
    schema["required"].remove("delivery")  # the file's name stands for it
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema}


def read_delivery(path: str | Path) -> Delivery:
    """Read a delivery's file and check it.

    Raises:
        JobError: Naming every key that is wrong.
    """
    values = read_yaml(path, "delivery")
    if isinstance(values, dict):
        stem = Path(path).stem
        values = {"delivery": stem, **values}
    return parse_delivery(values, name=str(path))


def parse_delivery(values: Any, *, name: str = "delivery") -> Delivery:
    """Check a delivery given as plain values. See `read_delivery`."""
    if not isinstance(values, dict):
        raise JobError(f"{name}: a delivery is a mapping of keys, not {type(values).__name__}")
    refuse_other_kind(values, name, "delivery")
    version = values.get("version")
    if isinstance(version, int) and version > DELIVERY_VERSION:
        raise JobError(
            f"{name}: version {version} is newer than {DELIVERY_VERSION}, which this sdbatch reads; update it"
        )
    refuse_secrets(values, name)
    refuse_unfilled(values.get("to"), f"{name}: to")
    try:
        return Delivery.model_validate(values)
    except ValidationError as error:
        raise explained(error, Delivery, name) from error
