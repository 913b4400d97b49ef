"""Blocks outputs that an image classifier takes for something nobody is to see.

    frames of a batch --> image processor --> classifier --> highest score of the named labels --> Verdict

The classifier is a local folder in transformers' layout, safetensors only; no code of the folder is run.
"""

# B outputs, F frames, H and W pixels, C = 3 channels, N images of a pass, K labels of the classifier.

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Final

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from sdbatch.after.stage import Judge, Output, Stage, StageSettings, Verdict
from sdbatch.checkpoints.classifiers import describe_classifier
from sdbatch.errors import ModelError, ModelLoadFailed

STAGE: Final = Stage(where="device", blocks=True)
FRAMES_MAX: Final = 7
"""Frames of a clip that are looked at, evenly spaced: the first, the middle and the last are among them."""

IMAGES_MAX: Final = 32
"""Images of one pass, which bounds the classifier's memory."""


class Settings(StageSettings):
    """An image classifier, and the labels that it blocks."""

    path: str = Field(description="Local folder of the classifier.")
    labels: Annotated[list[str], Field(min_length=1)] = Field(description="Labels that are blocked.")
    above: Annotated[float, Field(ge=0, lt=1)] = Field(description="Score over which an output is blocked.")

    def check(self) -> None:
        """See `StageSettings.check`."""
        known = describe_classifier(self.path, "after.safety", with_revision=False).labels
        for label in self.labels:
            if label not in known:
                raise ModelError(f"after.safety.labels: {self.path} knows no {label!r}; it knows {', '.join(known)}")

    def content(self) -> str:
        """See `StageSettings.content`."""
        return describe_classifier(self.path, "after.safety").revision


def load(settings: Settings, device: str) -> Judge:
    """Load the classifier.

    Raises:
        ModelLoadFailed: When it cannot be loaded, or lacks a label; names the stage, the folder and the reason.
    """
    from transformers import AutoImageProcessor, AutoModelForImageClassification

    safely = {"local_files_only": True, "trust_remote_code": False}
    try:
        settings.check()
        # Pillow's image processor: the other one needs torchvision.
        processor = AutoImageProcessor.from_pretrained(settings.path, backend="pil", **safely)
        model = _whole(
            *AutoModelForImageClassification.from_pretrained(
                settings.path, use_safetensors=True, output_loading_info=True, **safely
            )
        )
        return _Classifier(settings, processor, model.eval().to(device), device)
    except Exception as error:  # whatever transformers raises of a folder, the classifier does not load
        raise ModelLoadFailed(f"after.safety: {settings.path}: {type(error).__name__}: {error}") from error


def _whole(model: Any, found: Any) -> Any:
    """Return a model that has all its weights; transformers fills those that are not there with random numbers."""
    if missing := found["missing_keys"]:
        raise ModelError(f"lacks {len(missing)} weights, such as {min(missing)}")
    return model


class _Classifier:
    """A loaded classifier. See `Judge`."""

    def __init__(self, settings: Settings, processor: Any, model: Any, device: str) -> None:
        self._settings = settings
        self._processor = processor
        self._model = model
        self._device = device
        self._columns = [int(model.config.label2id[label]) for label in settings.labels]

    def __call__(self, outputs: Sequence[Output]) -> list[Verdict]:
        frames = [_looked_at(output.frames_FHWC) for output in outputs]
        scores_NK = self._scores(np.concatenate(frames))
        ends = np.cumsum([len(frames_FHWC) for frames_FHWC in frames])
        return [self._verdict(scores_FK.max(axis=0)) for scores_FK in np.split(scores_NK, ends[:-1])]

    def _scores(self, images_NHWC: NDArray[np.uint8]) -> NDArray[np.float64]:
        """Return the scores of the labels that are blocked."""
        import torch

        parts = []
        for start in range(0, len(images_NHWC), IMAGES_MAX):
            images = list(images_NHWC[start : start + IMAGES_MAX])
            inputs = self._processor(images, input_data_format="channels_last", return_tensors="pt")
            with torch.inference_mode():
                logits_NK = self._model(**inputs.to(self._device)).logits.float()
            is_multi_label = self._model.config.problem_type == "multi_label_classification"
            scores_NK = logits_NK.sigmoid() if is_multi_label else logits_NK.softmax(dim=-1)
            parts.append(scores_NK[:, self._columns].double().cpu().numpy())
        return np.concatenate(parts)

    def _verdict(self, scores_K: NDArray[np.float64]) -> Verdict:
        highest = int(scores_K.argmax())
        label, score, above = self._settings.labels[highest], float(scores_K[highest]), self._settings.above
        if score <= above:
            return Verdict(name="safety", verdict="ok", label=label, score=score)
        message = f"safety: the score of {label!r} is {score:.3f}, over {above:g}"
        return Verdict(name="safety", verdict="blocked", label=label, score=score, message=message)


def _looked_at(frames_FHWC: NDArray[np.uint8]) -> NDArray[np.uint8]:
    last = len(frames_FHWC) - 1
    numbers = sorted({round(float(number)) for number in np.linspace(0, last, min(last + 1, FRAMES_MAX))})
    return frames_FHWC[numbers]
