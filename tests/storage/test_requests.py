"""How many requests a bucket sees."""

from __future__ import annotations

import pytest
from support.servers import BUCKET

from benchmarks.counted import requests_of_buckets
from sdbatch.storage import open_campaign


@pytest.mark.s3
@pytest.mark.usefixtures("s3_endpoint")
def test_a_file_is_read_in_one_request() -> None:
    store = open_campaign(f"s3://{BUCKET}/requests", {})
    store.put_new("assets/a.png", b"x" * 5000)
    store.put_new("assets/empty.png", b"")

    with requests_of_buckets() as calls:
        assert (len(store.read("assets/a.png")), store.read("assets/empty.png")) == (5000, b"")

    assert calls == {"GetObject": 2}
