"""Checkpoints: what weights say of themselves, what names their content and where they lie, without torch."""

from __future__ import annotations

from sdbatch.checkpoints.builtins import BUILTINS, SHIPPED, builtin_folder
from sdbatch.checkpoints.describe import describe, describe_lora
from sdbatch.checkpoints.entries import refuse_shared_revisions
from sdbatch.checkpoints.files import (
    component_files,
    content_digest,
    content_revision,
    folder_files,
    lora_files,
    model_files,
    variant_in,
)
from sdbatch.checkpoints.identity import digest_of, identity, is_content_digest
from sdbatch.checkpoints.info import LoraInfo, ModelInfo
from sdbatch.checkpoints.pin import Pin, pins

__all__ = [
    "BUILTINS",
    "SHIPPED",
    "LoraInfo",
    "ModelInfo",
    "Pin",
    "builtin_folder",
    "component_files",
    "content_digest",
    "content_revision",
    "describe",
    "describe_lora",
    "digest_of",
    "folder_files",
    "identity",
    "is_content_digest",
    "lora_files",
    "model_files",
    "pins",
    "refuse_shared_revisions",
    "variant_in",
]
