"""The digital source type of an output, by the words of IPTC.

    task + what the sources say of themselves --> digital_source_type()

What a text alone made is trained algorithmic media. What began with a picture or a clip is a composite with it, unless
every one of these says of itself that it was generated: then nothing else is in the output.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

VOCABULARY: Final = "http://cv.iptc.org/newscodes/digitalsourcetype/"
GENERATED: Final = VOCABULARY + "trainedAlgorithmicMedia"
COMPOSITE: Final = VOCABULARY + "compositeWithTrainedAlgorithmicMedia"


def digital_source_type(task: str, said: Iterable[str]) -> str:
    """Return the digital source type of what a task makes.

    Args:
        task: By its Hugging Face name. What guides a task from text, such as a ControlNet's picture, is not in the
            output and does not count.
        said: What each source picture and clip says of itself; "" where one says nothing.
    """
    if task.startswith("text-to-"):
        return GENERATED
    words = list(said)
    return GENERATED if words and all(word == GENERATED for word in words) else COMPOSITE
