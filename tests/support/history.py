"""What a campaign has done, asked by a few ids."""

from __future__ import annotations

from collections.abc import Sequence

import pyarrow as pa

from sdbatch.campaign.campaign import Campaign
from sdbatch.campaign.digests import id_digests, request_digests
from sdbatch.storage import Store


def missing(store: Store, ids: Sequence[str], keys: Sequence[str], num_outputs: Sequence[int]) -> list[tuple[int, ...]]:
    """Return the outputs of some requests that are not made yet."""
    names, numbers = pa.chunked_array([ids], pa.string()), pa.chunked_array([num_outputs], pa.int32())
    requests = request_digests(id_digests(names), pa.array(keys, pa.string()))
    return Campaign(store).done().standing(requests, names, numbers).outputs
