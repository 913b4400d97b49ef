"""`sdbatch review OUTPUT`: the gallery in a browser of this machine, its decisions saved in the campaign.

gallery, written anew --> ReviewServer --> DecisionBook.add() --> reviews/
"""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable, Sequence
from contextlib import suppress

from sdbatch.driver.review import refuse_future
from sdbatch.errors import JobError
from sdbatch.review.decision import Decision
from sdbatch.review.files import DecisionBook
from sdbatch.storage import Store


def serve_review(store: Store, by: str, port: int, say: Callable[[str], None], opened: Callable[[str], None]) -> int:
    """Serve a campaign's gallery until a signal comes; return the number of decisions that were saved.

    Args:
        store: The campaign; its gallery is there.
        by: Who decides, where the page does not say.
        port: 0 for any that is free.
        say: Told of decisions that were not saved.
        opened: Given the page's address once it answers.

    Raises:
        JobError: When aiohttp is not installed.
        UserError: When the port is taken, or a file of decisions is not readable.
    """
    try:
        from sdbatch.review.server import ReviewServer
    except ImportError as error:
        raise JobError("review: serving the gallery needs aiohttp: pip install 'sdbatch[review]'") from error
    book = DecisionBook(store)

    def save(decisions: Sequence[Decision]) -> None:
        refuse_future(decisions, "decisions")
        book.add(decisions)

    async def serve() -> int:
        server = ReviewServer(store=store, save=save, by=by, say=say)
        ended = asyncio.Event()
        for number in (signal.SIGINT, signal.SIGTERM):
            with suppress(NotImplementedError, RuntimeError, ValueError):  # not in the main thread
                asyncio.get_running_loop().add_signal_handler(number, ended.set)
        opened(await server.start(port))
        try:
            await ended.wait()
        finally:
            await server.stop()
        return server.num_saved

    return asyncio.run(serve())
