"""What a campaign has done, asked by a few ids."""

from __future__ import annotations

from collections.abc import Sequence

import pyarrow as pa

from sdbatch.campaign.campaign import Campaign
from sdbatch.storage import Store


def missing(store: Store, ids: Sequence[str], keys: Sequence[str], num_outputs: Sequence[int]) -> list[tuple[int, ...]]:
    """Return the outputs of some requests that are not made yet."""
    columns = (pa.array(ids, pa.string()), pa.array(keys, pa.string()), pa.array(num_outputs, pa.int32()))
    return Campaign(store).done().standing(*map(pa.chunked_array, [[column] for column in columns])).outputs
