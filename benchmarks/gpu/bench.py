"""What a part of the benchmark is given: a folder, a clock, and a place where every figure is kept at once.

Bench.step("B4", measure, needs_s=8) --> figures, or the traceback, or "left out" --> gpu.json
"""

from __future__ import annotations

import gc
import json
import os
import re
import time
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from benchmarks.architectures import ARCHITECTURES, PARTIAL, Architecture, make
from benchmarks.gpu.device import is_in_use
from benchmarks.lab import load

Figures = dict[str, Any]

ALIKE: Mapping[str, str] = {"sdxl-4-steps": "sdxl"}
"""Architectures that differ in their rows alone, by the one whose weights they share."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Results:
    """One JSON file that is whole at every moment: parts run one after another, and any of them may be killed.

    Attributes:
        file: The file.
    """

    file: Path

    def read(self) -> Figures:
        """Return what was kept so far."""
        found: Figures = json.loads(self.file.read_text()) if self.file.is_file() else {}
        return found

    def put(self, *place: str, value: Any) -> None:
        """Keep a value under its place: part, step."""
        result = self.read()
        inner = result
        for name in place[:-1]:
            inner = inner.setdefault(name, {})
        inner[place[-1]] = value
        partial = self.file.with_name(f"{self.file.name}.{os.getpid()}")
        partial.write_text(json.dumps(result, indent=1, default=str) + "\n")
        partial.replace(self.file)


@dataclass(frozen=True, slots=True, kw_only=True)
class Bench:
    """One part on this machine.

    Attributes:
        part: Its name.
        device: `cuda` or `cpu`.
        is_toy: Small enough for a CPU.
        folder: Of models and of what is made; shared by all parts.
        results: Where figures are kept.
        limit_s: Seconds that the part may take; it is killed a little later.
        seconds: How long a measured run of a campaign should last.
        options: Further keys of every job's model.
        steps: Pattern of the names of the steps that are measured.
        is_compiling: Whether what compiles is measured as well: on a CPU a toy takes minutes for it.
        begin_s: Its start, by the monotonic clock.
    """

    part: str
    device: str
    is_toy: bool
    folder: Path
    results: Results
    limit_s: float
    seconds: float = 12.0
    options: Mapping[str, Any] = field(default_factory=dict)
    steps: str = ""
    is_compiling: bool = True
    begin_s: float = field(default_factory=time.monotonic)

    @property
    def left_s(self) -> float:
        """Return the seconds that the part still has."""
        return self.limit_s - (time.monotonic() - self.begin_s)

    @property
    def dtype(self) -> str:
        """Return the job's dtype."""
        return "float32" if self.is_toy else "bfloat16"

    def put(self, name: str, value: Any) -> None:
        """Keep and print a figure of this part."""
        self.results.put("parts", self.part, name, value=value)
        print(f"{self.part} {name}: {json.dumps(value, default=str)[:600]}", flush=True)

    def step(self, name: str, measure: Callable[[], Figures], needs_s: float = 0.0) -> Figures | None:
        """Measure one thing and keep it; None when it raised, was not asked for, or needs more than is left.

        Args:
            name: Of the figures.
            measure: Returns them.
            needs_s: Seconds it takes on a card.
        """
        if not re.search(self.steps, name):
            return None
        if not self.is_toy and self.left_s < needs_s:
            self.put(name, {"left_out": f"it needs {needs_s:.0f} s, {self.left_s:.0f} s are left"})
            return None
        begin_s = time.monotonic()
        figures: Figures | None = None
        said: Figures
        try:
            figures = said = measure()
        except Exception:  # noqa: BLE001 -- minutes on a card are dear: the next step goes on, and this one says why
            said = {"raised": traceback.format_exc()[-4000:]}
        self.put(name, {**said, "took_s": round(time.monotonic() - begin_s, 2), "load": load()})
        release()
        return figures

    def model(self, name: str) -> Path:
        """Return the folder of an architecture's model; its weights are drawn where no part has done so yet."""
        name = ALIKE.get(name, name)
        folder = self.folder / "models" / name
        if not folder.is_dir():
            begin_s = time.monotonic()
            partial = folder.with_name(f"{name}.{os.getpid()}")
            make(
                self.architecture(name),
                partial,
                device=self.device,
                dtype=getattr(torch, self.dtype),
                is_toy=self.is_toy,
            )
            with suppress(OSError):  # a process beside this one was first
                partial.rename(folder)
            release()
            self.put(f"made {name}", {"took_s": round(time.monotonic() - begin_s, 2)})
        return folder

    def architecture(self, name: str) -> Architecture:
        """Return the row of an architecture."""
        return ARCHITECTURES[name] if name in ARCHITECTURES else PARTIAL[name]

    def arguments(self, name: str) -> Figures:
        """Return the arguments of an architecture's pipeline."""
        architecture = self.architecture(name)
        return {**architecture.arguments, **(architecture.toy_arguments if self.is_toy else {})}


def release() -> None:
    """Free what nothing refers to any longer."""
    gc.collect()
    if is_in_use():
        torch.cuda.empty_cache()


def allocated() -> int:
    """Return the bytes that tensors of this process take on the GPU; 0 without one."""
    return torch.cuda.memory_allocated() if is_in_use() else 0


@contextmanager
def peak(found: Figures, name: str) -> Iterator[None]:
    """Keep under a name by how many GiB the block's peak was above what was allocated before it."""
    if not torch.cuda.is_available():
        yield
        return
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    yield
    torch.cuda.synchronize()
    found[name] = round((torch.cuda.max_memory_allocated() - before) / 2**30, 3)
