"""What a process that runs models sets before torch and diffusers are imported: both read it once, then.

prepare_environment() --> os.environ: no hub, a private folder for compiled kernels, the allocator, few compilers
"""

from __future__ import annotations

import logging
import os
import tempfile
from pathlib import Path
from typing import Final

from sdbatch.errors import UserError
from sdbatch.storage.cache import cache_folder, private_folder

LOG = logging.getLogger("sdbatch.worker")

OFFLINE_ENVIRONMENT: Final = {
    "HF_HUB_OFFLINE": "1",
    "TRANSFORMERS_OFFLINE": "1",
    "DIFFUSERS_DISABLE_REMOTE_CODE": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    "TOKENIZERS_PARALLELISM": "false",
}
"""No model folder may reach a hub or bring code. diffusers reads these once, when it is imported."""

QUIET_ENVIRONMENT: Final = {"DIFFUSERS_VERBOSITY": "error", "TRANSFORMERS_VERBOSITY": "error"}
"""Both libraries tell at import what they could do with further packages; nobody who runs a job asked."""

QUIET_LOGGERS: Final = ("torchao", "torch.utils._pytree")
"""Loggers that warn at the import of torchao, of libraries that a machine without its kind of GPU cannot load."""

COMPILED: Final = "TORCHINDUCTOR_CACHE_DIR"
"""Folder of compiled kernels. They are read as pickles and as code: whoever can write there runs code in our name."""

COMPILED_FOLDER: Final = "compiled"
"""Its name in the cache folder, where a user's workers and later runs find it."""

ALLOCATOR: Final = ("PYTORCH_ALLOC_CONF", "PYTORCH_CUDA_ALLOC_CONF")
"""Settings of torch's allocator on a GPU, by the present name and the one before torch 2.9."""


INDUCTOR_BY_RULE: Final = "TORCHINDUCTOR_DETERMINISTIC"
"""Lets the processes that compile for torch choose kernels by rule. torch's own setting does not reach them: on an H200
two workers that compiled on their own made other pictures until the environment said it (torch 2.11)."""


def prepare_environment(num_cpus: int = 1, *, is_exact: bool = False) -> None:
    """Set the environment of a process that runs models.

    Args:
        num_cpus: Cores that the process may use.
        is_exact: Whether its pictures must be the same bits on every run.
    """
    os.environ.update(OFFLINE_ENVIRONMENT)
    for name, value in QUIET_ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    for name in QUIET_LOGGERS:
        logging.getLogger(name).setLevel(logging.ERROR)
    os.environ[COMPILED] = str(compiled_folder())
    os.environ.setdefault("TORCHINDUCTOR_COMPILE_THREADS", str(num_cpus))  # torch's own: 32, in every worker of a node
    if is_exact:
        os.environ[INDUCTOR_BY_RULE] = "1"
    if not any(name in os.environ for name in ALLOCATOR):
        # Batches of changing sizes leave holes that blocks of fixed size cannot fill.
        os.environ[ALLOCATOR[0]] = "expandable_segments:True"


def compiled_folder() -> Path:
    """Return a folder for compiled kernels that nobody else can write to, nor put another in its place.

    The one that the environment names counts where it is such a folder, then one in the cache folder, then one in the
    temporary folder. Where others can write to all of these, it is a new one, for this process alone.
    """
    candidates = [Path(os.environ[COMPILED])] if COMPILED in os.environ else []
    try:
        candidates.append(cache_folder() / COMPILED_FOLDER)
    except UserError as error:
        LOG.warning("no cache folder", extra={"error": str(error)})
    candidates.append(Path(tempfile.gettempdir()) / f"sdbatch-{os.geteuid()}" / COMPILED_FOLDER)
    for folder in candidates:
        try:
            if private_folder(folder):
                return folder
        except OSError as error:
            LOG.warning("compiled kernels are not kept here", extra={"folder": str(folder), "error": str(error)})
            continue
        LOG.warning("others can write here, so no compiled kernels are read from it", extra={"folder": str(folder)})
    return Path(tempfile.mkdtemp(prefix="sdbatch-compiled-"))
