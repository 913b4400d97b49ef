"""What a test's child process hears."""

from __future__ import annotations

import signal


def hear_ctrl_c() -> None:
    """Undo what a shell does to commands in its background, of which the tests may be one; for `preexec_fn`."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
