"""Loads a model folder safely: only safetensors, only local files, no code from a folder."""

from __future__ import annotations

from sdbatch.generate.load.loaded import LoadedModel
from sdbatch.generate.load.loading import load_model, quieten_libraries

__all__ = ["LoadedModel", "load_model", "quieten_libraries"]
