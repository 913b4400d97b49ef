"""Checkpoints: what weights say of themselves, what names their content and where they lie, without torch."""

from __future__ import annotations

from sdbatch.checkpoints.builtins import BUILTINS, SHIPPED, builtin_folder
from sdbatch.checkpoints.components import component_entries, has_weights, is_file, store_of
from sdbatch.checkpoints.describe import describe, describe_lora
from sdbatch.checkpoints.entries import refuse_shared_revisions
from sdbatch.checkpoints.files import (
    component_files,
    content_digest,
    content_revision,
    folder_files,
    lora_files,
    model_files,
    read_json,
    variant_in,
)
from sdbatch.checkpoints.identity import digest_of, identity, is_content_digest
from sdbatch.checkpoints.info import LoraInfo, ModelInfo
from sdbatch.checkpoints.lora_forms import forms_of
from sdbatch.checkpoints.pin import Pin, pins
from sdbatch.checkpoints.quantizing import CPU_NEAREST, GPU_ALONE, loras_problem, missing_package

__all__ = [
    "BUILTINS",
    "CPU_NEAREST",
    "GPU_ALONE",
    "SHIPPED",
    "LoraInfo",
    "ModelInfo",
    "Pin",
    "builtin_folder",
    "component_entries",
    "component_files",
    "content_digest",
    "content_revision",
    "describe",
    "describe_lora",
    "digest_of",
    "folder_files",
    "forms_of",
    "has_weights",
    "identity",
    "is_content_digest",
    "is_file",
    "lora_files",
    "loras_problem",
    "missing_package",
    "model_files",
    "pins",
    "read_json",
    "refuse_shared_revisions",
    "store_of",
    "variant_in",
]
