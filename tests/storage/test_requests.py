"""How many requests a bucket sees."""

from __future__ import annotations

import pytest
from support.servers import BUCKET

from benchmarks.counted import requests_of_buckets
from sdbatch.storage import Store, open_campaign
from sdbatch.storage.objects import SMALL_PARQUET_BYTES

pytestmark = pytest.mark.s3


@pytest.fixture
def store(s3_endpoint: str) -> Store:
    return open_campaign(f"s3://{BUCKET}/requests", {})


@pytest.mark.parametrize("suffix", ["png", "json", "parquet"])
def test_a_file_is_read_in_one_request(store: Store, suffix: str) -> None:
    store.put_new(f"assets/a.{suffix}", b"x" * 5000)
    store.put_new(f"assets/empty.{suffix}", b"")

    with requests_of_buckets() as calls:
        assert (len(store.read(f"assets/a.{suffix}")), store.read(f"assets/empty.{suffix}")) == (5000, b"")
        with pytest.raises(FileNotFoundError):
            store.read(f"assets/none.{suffix}")

    assert calls == {"GetObject": 3}


@pytest.mark.parametrize("more", [-1, 0, 1])
def test_parquet_is_read_whole_whatever_its_size(store: Store, more: int) -> None:
    content = bytes(range(251)) * (SMALL_PARQUET_BYTES // 251 + 1)
    content = (content + b"end")[-(SMALL_PARQUET_BYTES + more) :]
    store.put(f"runs/{more}.parquet", content)

    assert store.read(f"runs/{more}.parquet") == content


def test_a_folder_is_listed_in_one_request_and_one_more_where_it_is_not_there(store: Store) -> None:
    store.put("reviews/a.jsonl", b"a")
    store.put("reviews/deep/b.jsonl", b"b")

    with requests_of_buckets() as calls:
        assert [entry.path for entry in store.list("reviews", deep=False)] == ["reviews/a.jsonl"]
    assert calls == {"ListObjectsV2": 1}
    with requests_of_buckets() as calls:
        assert store.list("takedowns", deep=False) == []
    assert calls == {"ListObjectsV2": 2}  # s3fs looks whether it is a file
