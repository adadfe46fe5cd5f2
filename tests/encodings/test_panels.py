"""Panels: every weight of a matrix with a scale a group is where the description says."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ternops.encodings import ENCODINGS, PANELS, common, layout_of
from ternops.encodings.panels import turn_scales, turn_scales_back
from tests.helpers import cases, checks

ROWS = (1, 15, 16, 17, 1000)
#: On both sides of the blocks of every encoding (256, 320 and 512 columns), and of two of them.
COLUMNS = (32, 64, 96, 224, 256, 288, 320, 352, 480, 512, 544, 640, 672, 992, 1024, 1056)
SHAPES = st.tuples(st.integers(0, 70), st.integers(1, 50), st.integers(0, 2**32 - 1))

EVERY = pytest.mark.parametrize("name", cases.FACTORS)


def described(name, weights):
    """The bytes as the module describes them, weight after weight."""
    rows, columns = weights.shape
    factors, _ = cases.FACTORS[name]
    fields = len(factors)
    whole, rest = divmod(columns, 64 * fields)
    stride = -(-rest // fields)
    stride += -stride % 4
    row_bytes = 64 * whole + stride
    lines = row_bytes // 4
    result = np.zeros((-(-rows // 16), lines, 16, 4), np.uint8)
    codes = np.searchsorted(ENCODINGS[name].values, weights)
    for column in range(columns):
        block, place = divmod(column, 64 * fields)
        field, byte = divmod(place, 64 if block < whole else stride)
        line, byte = divmod(64 * block + byte, 4)
        for row in range(rows):
            result[row // 16, line, row % 16, byte] += codes[row, column] * factors[field]
    return result.ravel()


@EVERY
@pytest.mark.parametrize("rows", ROWS)
def test_each_weight_has_its_place(name, rows):
    """Every byte by the module's description, rows that fill up the last panel included."""
    for columns in COLUMNS if rows < 1000 else (96, 544):
        weights = cases.trits(rows, columns, encoding=name)
        layout = PANELS[name]
        packed, size = layout.pack(weights), layout.nbytes(rows, columns)
        assert packed.dtype == np.uint8
        assert packed.shape == (size + common.SLACK,)
        assert (packed[size:] == 0).all()
        assert (packed[:size] == described(name, weights)).all(), columns
        layout.check(packed, rows, columns)


@EVERY
@settings(max_examples=100, deadline=None, derandomize=True)
@given(SHAPES, st.data())
def test_unpack_is_the_inverse_of_pack(name, shape, data):
    """Of all rows and of any range of them."""
    rows, columns, seed = shape[0], 32 * shape[1], shape[2]
    first = data.draw(st.integers(0, rows))
    last = data.draw(st.none() | st.integers(first, rows))
    layout, weights = PANELS[name], cases.trits(rows, columns, seed, encoding=name)
    packed = layout.pack(weights)
    assert cases.same_bits(layout.unpack(packed, rows, columns), weights)
    assert cases.same_bits(layout.unpack(packed, rows, columns, first, last), weights[first:last])


@EVERY
def test_any_order_of_memory(name):
    """A transposed view packs as its copy does."""
    weights = cases.trits(672, 50, encoding=name).T
    assert cases.same_bits(PANELS[name].pack(weights), PANELS[name].pack(weights.copy()))


@EVERY
def test_large_matrices_are_worked_on_in_pieces(name):
    """Beside the result, packing and unpacking need little memory; pieces join without a seam."""
    layout, weights = PANELS[name], cases.trits(2111, 9056, encoding=name)
    packed = checks.packed_in_pieces(layout, weights)
    pieces = np.concatenate([*layout.pieces(packed, *weights.shape)])
    assert cases.same_bits(pieces, packed[: layout.nbytes(*weights.shape)])


@EVERY
def test_one_row_of_many_is_looked_up_cheaply(name):
    """As an embedding does it: no more than the row's panel is unpacked."""
    layout, weights = PANELS[name], cases.trits(4000, 1024, encoding=name)
    packed = layout.pack(weights)
    tracemalloc.start()
    for row in (0, 15, 16, 1999, 3999):
        assert cases.same_bits(layout.unpack(packed, 4000, 1024, row, row + 1), weights[[row]])
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 10 * 16 * 1024


@pytest.mark.parametrize(("name", "byte"), [("two_bit", 0b11 << 4), ("base3", 243)])
@pytest.mark.parametrize("columns", [256, 352])
def test_damage_is_found_anywhere(name, byte, columns):
    """Each byte of a matrix, those of rows that fill it up included, but no byte behind them."""
    layout = PANELS[name]
    packed = layout.pack(cases.trits(17, columns, encoding=name))
    size = layout.nbytes(17, columns)
    for place in range(size):
        whole, packed[place] = packed[place], byte
        with pytest.raises(ValueError, match=rf"^packed: holds .*\(not {name}\?\)\Z"):
            layout.check(packed, 17, columns)
        packed[place] = whole
    packed[size:] = 255
    layout.check(packed, 17, columns)


def test_which_encodings_have_them():
    """Those of blocks, under their own names, with all that tells them apart."""
    assert list(PANELS) == [*cases.FACTORS]
    for name, panels in PANELS.items():
        own = ENCODINGS[name]
        assert panels.blocks is own is layout_of(name, 0)
        assert layout_of(name, 64) is panels
        for what in ("name", "bits", "values", "step", "color", "marker", "unpacks_slowly"):
            assert getattr(panels, what) == getattr(own, what)


@pytest.mark.parametrize("dtype", [np.float16, np.float32])
@pytest.mark.parametrize("rows", [0, 1, 15, 16, 17, 40])
def test_scales_are_turned_and_turned_back(dtype, rows):
    """A panel's scales of a group lie side by side; zeros fill up the last panel."""
    for groups in (1, 3, 8):
        scale = cases.floats(rows, groups, dtype=dtype)
        turned = turn_scales(scale)
        assert turned.dtype == dtype
        assert turned.shape == (-(-rows // 16), groups, 16)
        for row in range(16 * len(turned)):
            expected = scale[row] if row < rows else np.zeros(groups, dtype)
            assert cases.same_bits(turned[row // 16, :, row % 16], expected)
        assert cases.same_bits(turn_scales_back(turned, rows), scale)
