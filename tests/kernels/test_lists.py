"""Lists of what matters, against NumPy's, and that nothing else is written."""

from __future__ import annotations

import numpy as np
import pytest

from ternops.encodings import ENCODINGS
from ternops.encodings.blocks import BLOCK_BYTES
from ternops.kernels import lists
from ternops.simd import kernel, pointer
from tests.helpers import cases

UNTOUCHED = -7


@kernel
def _list_positive(x, first, last, listed):
    return lists.list_positive(pointer(x), first, last, pointer(listed))


@kernel
def _list_codes(placed, row_bytes, fields, most, listed, codes):
    return lists.list_codes(
        pointer(placed), row_bytes, fields, most, pointer(listed), pointer(codes)
    )


def checked(listed, count, expected):
    """The list is what was expected, then its last entry as often as it is padded."""
    assert count == len(expected)
    assert listed[:count].tolist() == expected.tolist()
    last = expected[-1] if count else 0
    assert (listed[count : count + lists.PADDING] == last).all()
    assert (listed[count + lists.PADDING :] == UNTOUCHED).all()


@pytest.mark.parametrize("share", [0.0, 0.02, 0.5, 1.0])
@pytest.mark.parametrize("bounds", [(0, 0), (0, 1), (3, 4), (16, 96), (5, 70), (0, 64), (17, 999)])
def test_positive_floats(bounds, share):
    """What exceeds 0, and so no NaN, no -0 and nothing outside of the bounds."""
    random = np.random.default_rng(len(bounds) + bounds[1])
    x = np.where(random.random(1000) < share, 1, -1) * random.random(1000)
    x = x.astype(np.float32)
    x[::13], x[::29], x[::31], x[::37] = np.nan, np.inf, 0.0, -0.0
    x[::41], x[::43] = -np.inf, np.float32(1e-45)
    first, last = bounds
    listed = np.full(1000 + 2 * lists.PADDING, UNTOUCHED, np.int32)
    count = _list_positive(x, first, last, listed)
    with np.errstate(invalid="ignore"):
        checked(listed, count, first + np.flatnonzero(x[first:last] > 0))


@pytest.mark.parametrize("name", cases.BLOCKS)
@pytest.mark.parametrize("share", [0.0, 0.2, 1.0])
def test_codes(name, share):
    """Columns are those before the activations were placed, also in a shorter last block."""
    encoding = ENCODINGS[name]
    for columns in (1, 2, 63, 64, 65, 255, 256, 257, 320, 321, 513, 641, 1021):
        random = np.random.default_rng(columns)
        x = random.integers(-128, 128, columns).astype(np.int8)
        x[random.random(columns) >= share] = 0
        placed = encoding.place(x[None])[0].copy()
        listed = np.full(columns + 2 * lists.PADDING, UNTOUCHED, np.int32)
        codes = np.full(columns + 2 * lists.PADDING, UNTOUCHED, np.int8)
        row_bytes = encoding.row_bytes(columns)
        count = _list_codes(placed, row_bytes, encoding.fields, columns, listed, codes)
        expected = np.flatnonzero(x)
        checked(listed, count, expected)
        assert (codes[:count] == x[expected]).all()
        assert (codes[count : count + lists.PADDING] == 0).all()


def test_codes_end_early():
    """Where there are more than wanted, which is all that the number says."""
    x = np.ones(16 * BLOCK_BYTES, np.int8)
    listed, codes = np.zeros(2000, np.int32), np.zeros(2000, np.int8)
    assert _list_codes(x, len(x) // 4, 4, len(x), listed, codes) == len(x)
    assert 10 < _list_codes(x, len(x) // 4, 4, 10, listed, codes) < len(x)
