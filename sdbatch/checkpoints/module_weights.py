"""The weights of every module of a model: counted where its files were looked into, the published model's elsewhere."""

from __future__ import annotations

from sdbatch.checkpoints.info import ModelInfo
from sdbatch.families.peaks import peaks_of


def module_parameters(model: ModelInfo) -> dict[str, int]:
    """Return the parameters of each module by its name."""
    is_unread = model.single_file is not None or (model.options.family is not None and not model.modules)
    published = peaks_of(model.family.title, model.parameters) if is_unread else None
    return {**(published.modules if published is not None else {}), **model.module_parameters}
