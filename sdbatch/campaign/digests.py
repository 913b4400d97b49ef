"""Requests as 128-bit numbers: what a million rows are joined by, while their texts stay on the disk.

    (id, request key) --> Digests: two uint64 a row --> DigestTable.positions() --> where each stands, -1 for nowhere

Ids are hashed by Python's own hash, which differs from process to process: digests never leave the process.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

_KEY_DIGITS = 64
_WORD_DIGITS = 16
_STEPS_MAX = 32
"""Hashes that a search walks past before it bisects; of even ones it passes four or so."""
_SPREAD = np.uint64(0x9E3779B97F4A7C15)
"""An odd number without a pattern (2**64 over the golden ratio): products with it differ where the factors do."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Digests:
    """One number of 128 bits for each row.

    Attributes:
        high: Upper 64 bits.
        low: Lower 64 bits.
    """

    high: NDArray[np.uint64]
    low: NDArray[np.uint64]

    def __len__(self) -> int:
        return len(self.high)

    def take(self, positions: NDArray[np.int64]) -> Digests:
        """Return the digests at some positions."""
        return Digests(high=self.high[positions], low=self.low[positions])


def id_digests(ids: pa.Array | pa.ChunkedArray) -> NDArray[np.uint64]:
    """Return 64 bits for each id."""
    return np.fromiter(map(hash, ids.to_pylist()), np.int64, len(ids)).view(np.uint64)


def request_digests(ids: NDArray[np.uint64], keys: pa.Array | pa.ChunkedArray) -> Digests:
    """Return the digests of requests: half of the request key, with the id's bits laid over it.

    Args:
        ids: From `id_digests`.
        keys: Request keys, one for each id.
    """
    words = key_words(keys)
    return Digests(high=words[:, 0] ^ ids, low=words[:, 1] ^ (ids * _SPREAD))


def first_key_words(requests: Digests, ids: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Return the first 64 bits of request keys, which `request_digests` was given with the same ids."""
    return requests.high ^ ids


def output_digests(requests: Digests, numbers: NDArray[np.int64]) -> Digests:
    """Return the digests of outputs; number -1 stands for a request as a whole."""
    return Digests(high=requests.high, low=requests.low + (numbers + 1).astype(np.uint64) * _SPREAD)


def numbers_of(column: pa.Array | pa.ChunkedArray) -> NDArray[np.int64]:
    """Return output numbers, -1 for null: neither Arrow's joins nor ours match a null with a null."""
    return np.asarray(pc.fill_null(column, -1)).astype(np.int64)


def digest_order(digests: Digests, then: NDArray[np.int32] | NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the order that sorts digests, and equal ones by `then`."""
    order = np.argsort(digests.high)
    high = digests.high[order]
    if len(high) < 2:
        return order
    is_same = high[1:] == high[:-1]
    if is_same.any():  # most requests have one outcome, so that the slower sort by three keys sees few rows
        tied = np.flatnonzero(np.append(is_same, False) | np.append(False, is_same))
        rows = order[tied]
        order[tied] = rows[np.lexsort((then[rows], digests.low[rows], digests.high[rows]))]
    return order


def group_starts(digests: Digests) -> NDArray[np.int64]:
    """Return where each run of equal digests begins, of sorted ones."""
    if not len(digests):
        return np.empty(0, np.int64)
    is_new = (digests.high[1:] != digests.high[:-1]) | (digests.low[1:] != digests.low[:-1])
    return np.append(0, np.flatnonzero(is_new) + 1)


class SortedHashes:
    """Hashes in ascending order, found by where those with the same upper bits begin.

    A bisection would jump through all of the memory for each of them.

    Args:
        words: 64 bits each, sorted; hashes lie evenly between 0 and 2**64, and others are found too, but more slowly.
    """

    def __init__(self, words: NDArray[np.uint64]) -> None:
        self._words = words
        bits = max(1, len(words).bit_length() - 3)  # four to eight hashes, a line of the cache, begin alike
        self._shift = np.uint64(64 - bits)
        self._starts = np.searchsorted(words, np.arange(1 << bits, dtype=np.uint64) << self._shift).astype(np.int32)

    def places(self, wanted: NDArray[np.uint64]) -> NDArray[np.int64]:
        """Return for each wanted hash the first place whose hash is not less, as `numpy.searchsorted` does."""
        place = self._starts[(wanted >> self._shift).view(np.int64)].astype(np.int64)
        pending = np.arange(len(wanted))
        for _ in range(_STEPS_MAX):
            pending = pending[self._is_before(place[pending], wanted[pending])]
            if not len(pending):
                return place
            place[pending] += 1
        place[pending] = np.searchsorted(self._words, wanted[pending])
        return place

    def _is_before(self, place: NDArray[np.int64], wanted: NDArray[np.uint64]) -> NDArray[np.bool_]:
        if not len(self._words):
            return np.zeros(len(place), np.bool_)
        return (self._words.take(place, mode="clip") < wanted) & (place < len(self._words))


class DigestTable:
    """Digests that are looked up in.

    Args:
        digests: Sorted, each once.
    """

    def __init__(self, digests: Digests) -> None:
        self._digests = digests
        self._high = SortedHashes(digests.high)

    def positions(self, wanted: Digests) -> NDArray[np.int64]:
        """Return where each wanted digest stands, -1 for one that does not."""
        found = np.full(len(wanted), -1, np.int64)
        place = self._high.places(wanted.high)
        pending = np.arange(len(wanted))
        while len(pending):
            pending = pending[place[pending] < len(self._digests)]
            pending = pending[self._digests.high[place[pending]] == wanted.high[pending]]
            is_equal = self._digests.low[place[pending]] == wanted.low[pending]
            found[pending[is_equal]] = place[pending[is_equal]]
            pending = pending[~is_equal]
            place[pending] += 1  # another request with the same upper half stands before it
        return found


def key_words(keys: pa.Array | pa.ChunkedArray, num_words: int = 2) -> NDArray[np.uint64]:
    """Return the first 64 bits of request keys, or so many times as many: a word each, all words of a key in a row."""
    texts = _whole_keys(keys)
    if not len(texts):
        return np.empty((0, num_words), np.uint64)
    offsets = np.frombuffer(texts.buffers()[1], np.int32)[texts.offset : texts.offset + len(texts) + 1]
    data = np.frombuffer(texts.buffers()[2], np.uint8)[offsets[0] : offsets[-1]]
    digits = data.reshape(len(texts), _KEY_DIGITS)[:, : num_words * _WORD_DIGITS]
    halves = (digits & 15) + 9 * (digits >> 6)  # "0".."9" are 0x30.., "a".."f" 0x61..
    words: NDArray[np.uint64] = np.ascontiguousarray((halves[:, 0::2] << 4) | halves[:, 1::2]).view(np.uint64)
    return words


def _whole_keys(keys: pa.Array | pa.ChunkedArray) -> pa.Array:
    """Return keys as one array of 64 digits each; what is none, as nothing of ours writes, is hashed into one."""
    texts = keys.combine_chunks() if isinstance(keys, pa.ChunkedArray) else keys
    if isinstance(texts, pa.ChunkedArray):  # an empty one, and one of over 2 GiB, stays chunked
        texts = pa.concat_arrays(texts.chunks) if texts.num_chunks else pa.array([], pa.string())
    if texts.type != pa.string():
        texts = texts.cast(pa.string())
    if pc.all(pc.equal(pc.binary_length(texts), _KEY_DIGITS)).as_py() is not False and not texts.null_count:
        return texts
    return pa.array([_whole_key(key) for key in texts.to_pylist()], pa.string())


def _whole_key(key: str | None) -> str:
    text = key or ""
    return text if len(text) == _KEY_DIGITS and text.isascii() else hashlib.sha256(text.encode()).hexdigest()
