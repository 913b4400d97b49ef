"""A hundredth of the fuzzing of tables; `make fuzz` runs the whole of it."""

from __future__ import annotations

import io
import threading
from pathlib import Path
from typing import BinaryIO, ClassVar

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from checks import check_many
from shards import check_shards, damaged_shards, whole_shards

from sdbatch.manifest.read import list_shards, read_batches
from sdbatch.storage import LocalStore


@pytest.mark.fault("S11", "damaged shards: bits turned, cuts, holes, foreign footers", "refused in words, every one")
def test_damaged_shards_are_answered_in_words(tmp_path: Path) -> None:
    faults: list[str] = []
    answers = check_shards(30, tmp_path, seed=3, tell=faults.append)

    assert faults == []
    assert answers.keys() <= {"fine", "refused"}
    assert answers.total() == 30
    assert answers["refused"] >= 15


def test_damaged_shards_follow_from_their_seed_and_differ_from_whole_ones(tmp_path: Path) -> None:
    first, again = ([path.read_bytes() for path in damaged_shards(tmp_path, 18, seed=5)] for _ in range(2))
    other = [path.read_bytes() for path in damaged_shards(tmp_path, 18, seed=6)]

    assert first == again != other
    assert len({*first} - {*whole_shards()}) > 14
    assert list(tmp_path.iterdir()) == []


@pytest.mark.fault("S11", "a footer whose statistics do not fit its columns, which ends pyarrow", "refused in words")
@pytest.mark.parametrize("count", [250, pytest.param(1000, marks=[pytest.mark.slow, pytest.mark.long])])
def test_hundreds_of_damaged_shards_are_answered_in_words(count: int, tmp_path: Path) -> None:
    """With this seed number 219 is a footer that ends pyarrow."""
    assert check_shards(count, tmp_path, seed=1).keys() <= {"fine", "refused"}


@pytest.mark.fault("F28", "`sdbatch check` again and again", "exit 0 every time, and no abort at exit (134)")
def test_a_check_exits_with_0_every_time(tmp_path: Path) -> None:
    assert check_many(3, tmp_path) == {0: 3}


class _Recorded(io.BytesIO):
    """A file that knows which threads read it."""

    threads: ClassVar[set[str]] = set()

    def read(self, size: int | None = -1, /) -> bytes:
        self.threads.add("main" if threading.current_thread() is threading.main_thread() else "another")
        return super().read(size)


class _FarStore(LocalStore):
    """A folder that is read as an object store is: through Python files."""

    is_local = False

    def open(self, path: str) -> BinaryIO:
        return _Recorded((Path(self.url) / path).read_bytes())


@pytest.mark.fault("F28", "a remote shard, which Python reads", "no thread of Arrow's ever holds a Python file")
def test_no_thread_of_arrow_s_reads_a_python_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"id": [f"row-{number}" for number in range(20_000)]}), path, row_group_size=4096)
    _Recorded.threads.clear()
    for _ in pq.ParquetFile(_Recorded(path.read_bytes())).iter_batches(use_threads=False):
        pass
    assert "another" in _Recorded.threads  # what would abort: Arrow reads in threads of its own all the same

    _Recorded.threads.clear()
    monkeypatch.setattr("sdbatch.manifest.read.open_store", lambda url, _: _FarStore(url))
    monkeypatch.setattr("sdbatch.manifest.read._is_folder", lambda store: Path(store.url).is_dir())
    (shard,) = list_shards(str(path), {})
    assert sum(batch.num_rows for batch in read_batches(shard)) == 20_000
    assert _Recorded.threads == {"main"}
