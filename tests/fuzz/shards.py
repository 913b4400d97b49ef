"""Damaged Parquet shards: whether `check` ever answers one with anything but a problem in words.

    real shards --> damaged_shards(folder, count, seed) --> check_damaged(path) --> what it said, or a Traceback

Damage is what disks, copies and strangers do: bits turned, ends cut off, holes of zeros, parts put in or taken out,
footers of other shards, and lengths that lie. Each file follows from the seed and its number. `damaged_shards` and
`check_shards` are what `run_fuzz.py` and the tests call; from the command line: `python tests/fuzz/shards.py 3000`.
"""

from __future__ import annotations

import random
import sys
import tempfile
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from damage import cut, hole, put_in, taken_out

from sdbatch.errors import UserError
from sdbatch.job import Job, parse_job

_ROWS = 60
Damage = Callable[[random.Random, bytes, bytes], bytes]


def whole_shards() -> list[bytes]:
    """Return shards as different writers leave them: encodings, compression, types, nested columns, row groups."""
    ids = [f"row-{number:03d}" for number in range(_ROWS)]
    columns = {
        "id": ids,
        "prompt": [f"caf\u00e9 number {number % 9}" for number in range(_ROWS)],
        "negative_prompt": pa.array([None, "text"] * (_ROWS // 2)).dictionary_encode(),
        "images": pa.array([["a.png", "b.png"], None, []] * (_ROWS // 3), pa.list_(pa.string())),
        "loras": pa.array(
            [[{"name": "ink", "weight": 0.7}], None] * (_ROWS // 2),
            pa.list_(pa.struct([("name", pa.string()), ("weight", pa.float32())])),
        ),
        "seed": pa.array([None, 7] * (_ROWS // 2), pa.int64()),
        "strength": pa.array([0.7, None] * (_ROWS // 2), pa.float32()),
        "x_sku": pa.array([f"s{number % 4}" for number in range(_ROWS)], pa.large_string()),
        "x_seen": pa.array(range(_ROWS), pa.timestamp("ns", "Europe/Berlin")),
        "x_price": pa.array([None, 1.5] * (_ROWS // 2)),
    }
    table = pa.table(columns)
    plain = pa.table({"id": ids, "prompt": ["a beach"] * _ROWS, "x_n": list(range(_ROWS))})
    written = [
        _written(table, compression="zstd"),
        _written(table, compression="snappy", row_group_size=17, write_page_checksum=True),
        _written(table, compression="none", use_dictionary=False, data_page_version="2.0", data_page_size=200),
        _written(
            table, compression="gzip", store_schema=False, use_byte_stream_split=["x_price"], use_dictionary=["id"]
        ),
    ]
    return [*written, _written(plain, compression="none"), _written(plain, compression="lz4", version="1.0")]


def _written(table: pa.Table, **options: object) -> bytes:
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink, **options)
    data: bytes = sink.getvalue().to_pybytes()
    return data


def damaged_shards(folder: Path, count: int, seed: int) -> Iterator[Path]:
    """Write damaged shards, one after the other, each in a folder of its own; yield the file.

    Args:
        folder: Gets them; each is removed again when the next one is asked for.
        count: Number of shards.
        seed: Equal seeds give equal shards.
    """
    whole = whole_shards()
    for number in range(count):
        draw = random.Random(f"{seed}:{number}")
        data = _DAMAGES[number % len(_DAMAGES)](draw, draw.choice(whole), draw.choice(whole))
        path = folder / f"damaged-{number:05d}.parquet"
        path.write_bytes(data)
        yield path
        path.unlink()


def check_damaged(path: Path) -> str:
    """Check a shard in this process, as `sdbatch check` does; return "fine", "refused", or the text of a traceback."""
    from sdbatch.driver.check import check_job

    try:
        check_job(_job(str(path)))
    except UserError as error:
        return "refused" if str(error).strip() else "refused without a word"
    except Exception:  # noqa: BLE001 -- this is what is looked for
        return traceback.format_exc()
    return "fine"


def check_shards(count: int, folder: Path, seed: int = 1, tell: Callable[[str], None] = lambda _: None) -> Counter[str]:
    """Check so many damaged shards; return how often each answer came. All but "fine" and "refused" are faults.

    Args:
        count: Number of shards.
        folder: Gets them, one at a time.
        seed: Equal seeds give equal shards.
        tell: Given the traceback of each fault, with the number of its shard.
    """
    answers: Counter[str] = Counter()
    for path in damaged_shards(folder, count, seed):
        answer = check_damaged(path)
        if answer not in {"fine", "refused"}:
            tell(f"{path.name}: {answer}")
            answer = answer.strip().splitlines()[-1]
        answers[answer] += 1
    return answers


def _job(manifest: str) -> Job:
    return parse_job(
        {
            "manifest": manifest,
            "output": "out",
            "models": {"tiny": {"path": "builtin:tiny-sd"}},
            "defaults": {"model": "tiny", "task": "text-to-image"},
        }
    )


def _bits_turned(draw: random.Random, data: bytes, _: bytes) -> bytes:
    changed = bytearray(data)
    for _bit in range(draw.choice((1, 1, 2, 8, 64))):
        changed[draw.randrange(len(changed))] ^= 1 << draw.randrange(8)
    return bytes(changed)


def _footer_bits_turned(draw: random.Random, data: bytes, _: bytes) -> bytes:
    """Turn bits where they hurt most: the footer says where everything lies and how long it is."""
    changed = bytearray(data)
    start = len(data) - 8 - int.from_bytes(data[-8:-4], "little")
    for _bit in range(draw.choice((1, 2, 4))):
        changed[draw.randrange(start, len(data) - 8)] ^= 1 << draw.randrange(8)
    return bytes(changed)


def _footer_of_another(_: random.Random, data: bytes, other: bytes) -> bytes:
    def footer(of: bytes) -> int:
        return len(of) - 8 - int.from_bytes(of[-8:-4], "little")

    return data[: footer(data)] + other[footer(other) :]


def _length_lies(draw: random.Random, data: bytes, _: bytes) -> bytes:
    length = draw.choice((0, 1, len(data), len(data) - 8, 2**31 - 1, 2**32 - 1, draw.randrange(2**16)))
    return data[:-8] + length.to_bytes(4, "little") + data[-4:]


_DAMAGES: tuple[Damage, ...] = (
    _bits_turned,
    _footer_bits_turned,
    hole,
    _footer_bits_turned,
    cut,
    taken_out,
    put_in,
    _footer_of_another,
    _length_lies,
)


def _say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def main(count: int, seed: int) -> int:
    """Check so many damaged shards; return 0 when each was answered in words."""
    with tempfile.TemporaryDirectory(prefix="sdbatch-shards-") as folder:
        answers = check_shards(count, Path(folder), seed, _say)
    _say(f"{count} damaged shards: {dict(answers)}")
    return 0 if answers.keys() <= {"fine", "refused"} else 1


if __name__ == "__main__":
    numbers = [int(text) for text in sys.argv[1:]]
    sys.exit(main(*[*numbers, *(3000, 1)[len(numbers) :]]))
