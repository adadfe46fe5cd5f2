"""two_bit: every trit is where its description says, and comes back."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ternops.encodings import ENCODINGS, two_bit
from tests import cases

SHAPES = st.tuples(st.integers(0, 6), st.integers(0, 600), st.integers(0, 2**32 - 1))
MANY = settings(max_examples=150, deadline=None, derandomize=True)


def position(column, columns):
    """(byte of the row, bit of the byte) of a weight, as the module describes its layout."""
    block, inside = divmod(column, 256)
    rest = columns - block * 256
    stride = 64 if rest >= 256 else -(-rest // 4)
    field, byte = divmod(inside, stride)
    return block * 64 + byte, 2 * field


@MANY
@given(SHAPES)
def test_unpack_is_the_inverse_of_pack(shape):
    """For any shape; the bytes have the promised number, the slack is zero, no code is 3."""
    rows, columns, seed = shape
    trits = cases.trits(rows, columns, seed)
    packed = two_bit.pack(trits)
    assert packed.dtype == np.uint8
    assert packed.shape == (rows * two_bit.row_bytes(columns) + two_bit.SLACK,)
    assert (packed[rows * two_bit.row_bytes(columns) :] == 0).all()
    two_bit.check(packed)
    assert cases.same_bits(two_bit.unpack(packed, rows, columns), trits)


@pytest.mark.parametrize("columns", [1, 2, 3, 4, 5, 63, 64, 65, 255, 256, 257, 300, 511, 512, 515])
def test_each_trit_has_its_place(columns):
    """Byte and bits of every weight by the module's description; all other bits are 0."""
    trits = cases.trits(2, columns)
    table = two_bit.pack(trits)[: 2 * two_bit.row_bytes(columns)].reshape(2, -1)
    expected = np.zeros_like(table)
    for column in range(columns):
        byte, bit = position(column, columns)
        expected[:, byte] |= (trits[:, column] + 1).astype(np.uint8) << bit
    assert (table == expected).all()


def test_a_row_takes_two_bits_a_weight():
    """A quarter of a byte each, rounded up."""
    assert [two_bit.row_bytes(k) for k in (0, 1, 4, 5, 256, 257)] == [0, 1, 1, 2, 64, 65]


@MANY
@given(SHAPES)
def test_place_meets_the_codes(shape):
    """Placed activations times the fields of the packed bytes give the sums of the product."""
    rows, columns, seed = shape
    trits, x = cases.trits(rows, columns, seed), cases.activations(3, columns, seed=seed)
    placed = two_bit.place(x)
    blocks = -(-columns // 256)
    assert placed.shape == (3, blocks * 256)
    size = two_bit.row_bytes(columns)
    table = two_bit.pack(trits)[: rows * size].reshape(rows, size)
    whole = np.zeros((rows, blocks * 64), np.int32)
    whole[:, :size] = table
    # Bytes behind a row's last one belong to the next row: zeros in x must hide them.
    whole[:, size:] = 0b10_01_10_01
    fields = (whole.reshape(rows, blocks, 1, 64) >> np.arange(0, 8, 2)[:, None]) & 3
    sums = placed.astype(np.int32) @ fields.reshape(rows, blocks * 256).T
    expected = x.astype(np.int32) @ (trits.T.astype(np.int32) + 1)
    assert (sums == expected).all()


@pytest.mark.parametrize("field", range(4))
def test_the_code_3_is_found_anywhere(field):
    """In each field, first, last, and beyond the size of one step of the check."""
    length = (1 << 20) + 7
    packed = np.full(length, 0b10_01_10_00, np.uint8)
    two_bit.check(packed)
    for place in (0, 1, (1 << 20) - 1, 1 << 20, length - 1):
        damaged = packed.copy()
        damaged[place] |= 3 << 2 * field
        with pytest.raises(ValueError, match="code 3"):
            two_bit.check(damaged)


def test_every_byte_is_judged_by_its_codes():
    """256 bytes: accepted exactly if none of the four codes is 3."""
    for byte in range(256):
        bad = any(byte >> bit & 3 == 3 for bit in (0, 2, 4, 6))
        try:
            two_bit.check(np.array([byte], np.uint8))
        except ValueError:
            assert bad
        else:
            assert not bad


def test_the_table_of_encodings():
    """Each has the functions that its users call."""
    assert set(ENCODINGS) == {"two_bit"}
    for layout in ENCODINGS.values():
        for name in ("pack", "unpack", "row_bytes", "place", "check"):
            assert callable(getattr(layout, name))
