"""Whether workers are alike enough for equal rows to give equal pixels.

    facts of a worker that is ready + what made its models' outputs so far --> differences

Pure: no clock, no Ray, no storage.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from sdbatch.errors import WorkersUnlike

Facts = Mapping[str, str]

COMPARED: Final = ("sdbatch", "torch", "diffusers", "transformers", "Pillow", "ffmpeg", "zlib", "CUDA", "cuDNN", "GPU")
"""Facts in which workers must agree. Host, process and node say where a worker is. Python and the GPU's driver are
recorded and not compared: no pixel comes from them, and Ray refuses nodes with another Python."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Standard:
    """The facts that the workers of one model are compared with.

    Attributes:
        source: Who set it: `worker w0` of this run, or an earlier run.
        facts: Its versions and its device.
    """

    source: str
    facts: Facts


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """One fact in which a worker differs from the standard of a model.

    Attributes:
        name: The fact, of `COMPARED`.
        worker: The worker.
        value: Its value.
        source: Who set the standard.
        standard: The standard's value.
    """

    name: str
    worker: str
    value: str
    source: str
    standard: str

    def __str__(self) -> str:
        value, standard = (text or "none" for text in (self.value, self.standard))
        return f"worker {self.worker} has {self.name} {value}, {self.source} had {standard}"


def values_by_fact(facts: Mapping[str, Facts]) -> dict[str, dict[str, tuple[str, ...]]]:
    """Return the facts in which workers differ: for each its values, and which workers have them.

    Args:
        facts: Facts by worker. A fact that a worker does not state is not compared.
    """
    values: dict[str, dict[str, tuple[str, ...]]] = {}
    for name in COMPARED:
        by_value: dict[str, tuple[str, ...]] = {}
        for worker in sorted(facts):
            if name in facts[worker]:
                value = facts[worker][name]
                by_value[value] = (*by_value.get(value, ()), worker)
        if len(by_value) > 1:
            values[name] = by_value
    return values


def refusal(differences: Sequence[Difference]) -> WorkersUnlike:
    """Return the error that names some differences and what to do about them."""
    return WorkersUnlike(
        f"{'; '.join(map(str, differences))}: determinism: exact holds on one kind of device and one set of versions; "
        "run on workers like those, or into a new output"
    )


def compared(facts: Facts) -> dict[str, str]:
    """Return those facts in which workers must agree."""
    return {name: facts[name] for name in COMPARED if name in facts}


class Likeness:
    """Compares each worker with what its models' outputs are made with.

    The first ready worker sets the standard of a model, unless an earlier run did.

    Args:
        standards: Standards that earlier runs set, by model.
    """

    def __init__(self, standards: Mapping[str, Standard]) -> None:
        self._standards = dict(standards)
        self._seen: set[tuple[str, str, str]] = set()

    def compare(self, worker: str, models: Iterable[str], facts: Facts) -> list[Difference]:
        """Return in what a worker differs, each difference once however many workers have it.

        Args:
            worker: Its name.
            models: Models it may be given.
            facts: What it says of itself.
        """
        differences = []
        for model in sorted(models):
            standard = self._standards.setdefault(model, Standard(source=f"worker {worker}", facts=compared(facts)))
            for name in values_by_fact({"standard": standard.facts, "worker": facts}):
                difference = (name, facts[name], standard.facts[name])
                if difference not in self._seen:
                    self._seen.add(difference)
                    differences.append(
                        Difference(
                            name=name,
                            worker=worker,
                            value=facts[name],
                            source=standard.source,
                            standard=standard.facts[name],
                        )
                    )
        return differences
