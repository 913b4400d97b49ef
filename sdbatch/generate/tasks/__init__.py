"""What each task passes to its pipeline: a task is one file here and one row."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from sdbatch.generate.tasks import image_to_image, text_to_image

CALLS: Final[Mapping[str, Callable[[Sequence[Any]], dict[str, Any]]]] = {
    "text-to-image": text_to_image.arguments,
    "image-to-image": image_to_image.arguments,
}
"""Task to the function that makes a call's arguments from a batch of items, generators and output type apart."""
