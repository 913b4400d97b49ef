"""Checkpoints: what weights say of themselves and where they lie, without torch."""

from __future__ import annotations

from sdbatch.checkpoints.builtins import BUILTINS, SHIPPED, builtin_folder
from sdbatch.checkpoints.describe import describe, describe_lora
from sdbatch.checkpoints.files import component_files, content_revision, folder_files
from sdbatch.checkpoints.info import LoraInfo, ModelInfo

__all__ = [
    "BUILTINS",
    "SHIPPED",
    "LoraInfo",
    "ModelInfo",
    "builtin_folder",
    "component_files",
    "content_revision",
    "describe",
    "describe_lora",
    "folder_files",
]
