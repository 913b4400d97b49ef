"""accelerate's split_between_processes over the groups, two processes; the groups lie in the order of their settings.

Every second group goes to the same process, so that both have their share of what is dear.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from benchmarks.mixed.grouping import groups


def main(manifest: Path, models: Path, output: Path) -> None:
    """Render a manifest with two processes."""
    # On CPUs `accelerate launch` starts processes through MPI only; torch's own launcher sets the same variables.
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    subprocess.run(
        [*launch, "-m", "benchmarks.mixed.split", str(manifest), str(models), str(output)],
        check=True,
    )


def split(manifest: Path, models: Path, output: Path) -> None:
    """Render this process's share."""
    from accelerate import PartialState

    from benchmarks.mixed.careful import Pictures

    pictures = Pictures(models, output)
    state = PartialState(cpu=True)
    everything = groups(manifest)
    dealt = [group for first in range(state.num_processes) for group in everything[first :: state.num_processes]]
    with state.split_between_processes(dealt) as share:
        for group in share:
            pictures.render(group)
    state.destroy_process_group()


if __name__ == "__main__":
    split(*(Path(argument) for argument in sys.argv[1:4]))
