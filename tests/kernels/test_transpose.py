"""Packed matrices, packed anew by columns: the bytes that the encoding gives."""

from __future__ import annotations

import numpy as np
import pytest

import ternops
from ternops.decoder.sparsity import transposed
from ternops.memory import Arena
from tests.helpers import cases, internals

SIZES = (1, 2, 63, 64, 65, 255, 257, 320, 321, 513, 641)


@pytest.mark.parametrize("encoding", cases.BLOCKS)
def test_bytes(encoding):
    """For whole and shorter last blocks on either side, and any number of threads."""
    arena = Arena()
    for rows in SIZES:
        for columns in (1, 64, 320, 321, 700):
            values = cases.trits(rows, columns, encoding=encoding)
            expected = internals.packed(ternops.pack(values.T, encoding=encoding)).bytes
            matrix = ternops.pack(values, encoding=encoding)
            for threads in (1, 3):
                found = transposed(matrix, threads, arena)
                assert found.shape == (columns, rows)
                assert found.scale is None
                bytes_ = internals.packed(found).bytes
                assert np.array_equal(bytes_, expected), (rows, columns, threads)
