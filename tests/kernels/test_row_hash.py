"""Hashes of rows: the oracle's bits, and what they tell."""

from __future__ import annotations

import numpy as np
import pytest

from ternops.kernels.row_hash import FACTOR, LANES, ROW_HASHES, row_hashes
from ternops.memory import aligned_copy
from ternops.team import TEAM


def hashes(words, threads=2):
    """Of int32 (rows, words), by the kernel."""
    words, found = aligned_copy(words), np.zeros(len(words) + 1, np.int32)
    record = np.zeros((), ROW_HASHES)
    record["weights"], record["hashes"] = words.ctypes.data, found.ctypes.data
    record["rows"], record["stride"] = len(words), words.strides[0]
    TEAM.run(row_hashes, record, threads)
    assert found[-1] == 0
    return found[:-1]


def expected(words):
    """By whole numbers modulo 2**32."""
    sums = np.zeros((len(words), LANES), np.uint32)
    for at in range(0, words.shape[1], LANES):
        sums = sums * np.uint32(FACTOR) + words[:, at : at + LANES].view(np.uint32)
    return (sums * np.arange(1, 2 * LANES, 2, dtype=np.uint32)).sum(1, np.uint32).view(np.int32)


def random_words(rows, lines, seed=0):
    limits = np.iinfo(np.int32)
    random = np.random.default_rng((seed, rows, lines))
    return random.integers(limits.min, limits.max, (rows, lines * LANES), np.int32, endpoint=True)


@pytest.mark.parametrize("threads", [1, 2, 3])
@pytest.mark.parametrize("shape", [(1, 1), (17, 3), (100, 80)])
def test_hashes_are_the_oracles(shape, threads):
    words = random_words(*shape)
    assert np.array_equal(hashes(words, threads), expected(words))


def test_whatever_changes_is_seen():
    """A bit of any word; two words, lines or rows that change places."""
    words = random_words(3, 4)
    before = hashes(words)
    for at in range(words.shape[1]):
        for bit in (0, 15, 31):
            other = words.copy()
            other[1, at] ^= np.int32(np.uint32(1 << bit).astype(np.int32))
            assert (hashes(other) != before).tolist() == [False, True, False]
    for source, target in ((0, 1), (0, 16), (5, 63)):
        other = words.copy()
        other[:, [source, target]] = other[:, [target, source]]
        assert (hashes(other) != before).all()
    assert (hashes(words[::-1]) != before).tolist() == [True, False, True]
