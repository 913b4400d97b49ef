"""A worker that makes what every worker makes and states another version of torch."""

from __future__ import annotations

from sdbatch.worker import Worker

OTHER_TORCH = "1.0.0+elsewhere"


class OtherTorchWorker(Worker):
    """Says that its torch is another one."""

    def start(self) -> dict[str, str]:
        """Start; see `Worker`."""
        return {**super().start(), "torch": OTHER_TORCH}
