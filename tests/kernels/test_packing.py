"""Packing and unpacking by kernels: the bytes of the NumPy of `ternops.encodings`."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

import ternops
from ternops import set_num_threads
from ternops.encodings import ENCODINGS, PANELS, TERNARY, panels
from ternops.encodings.common import SLACK
from ternops.packing import pack_trits, repack, turn_scales, unpack_rows
from tests.helpers import cases

LAYOUTS = [(name, layout) for name in PANELS for layout in (ENCODINGS[name], PANELS[name])]
EVERY = pytest.mark.parametrize(
    ("name", "layout"), LAYOUTS, ids=[f"{name}-{type(layout).__name__}" for name, layout in LAYOUTS]
)
ROWS = (0, 1, 15, 16, 17, 33, 70)
#: Around blocks of 256, 320 and 512 columns, and around the 2560 that are worked on at a time.
COLUMNS = (0, 1, 2, 31, 32, 63, 64, 96, 255, 256, 288, 319, 320, 321, 352, 511, 512, 513, 640, 1000,
           2559, 2560, 2561, 2592, 3200, 5120, 5216)  # fmt: skip
ENDS = 0xAB


@EVERY
def test_pack_and_unpack(eager_threads, name, layout):
    """Every shape, and some rows of it; nothing behind the slack is written."""
    for rows, columns in itertools.product(ROWS, COLUMNS):
        values = cases.trits(rows, columns, encoding=name)
        expected = layout.pack(values)
        for threads in (1, 2, 5):
            room = np.full(len(expected) + 64, ENDS, np.uint8)
            with set_num_threads(threads):
                pack_trits(layout, values, room[:-64])
                assert cases.same_bits(room[:-64], expected), (rows, columns, threads)
                assert (room[-64:] == ENDS).all()
                assert cases.same_bits(unpack_rows(layout, expected, rows, columns), values)
                for first, last in ((rows // 3, rows), (rows // 2, -(-rows // 2)), (rows, rows)):
                    found = unpack_rows(layout, expected, rows, columns, first, last)
                    assert cases.same_bits(found, values[first:last])


@EVERY
def test_any_order_of_memory(name, layout):
    """Transposed views, every second row, every second column."""
    values = cases.trits(200, 1000, encoding=name)
    for view in (values.T, values[::2], values[:, ::2], values[::-1, ::-1]):
        assert cases.same_bits(pack_trits(layout, view), layout.pack(view))


@EVERY
def test_from_each_to_each(name, layout):
    """By pieces of rows, which join without a seam; tl1 and tl2, which have no kernel, too."""
    values = cases.trits(1111, 2000, encoding=name)
    packed = layout.pack(values)
    for other in (*ENCODINGS.values(), *PANELS.values()):
        if set(layout.values) <= set(other.values):
            found = repack(layout, packed, *values.shape, other)
            assert cases.same_bits(found, other.pack(values))
            if layout.step == other.step:
                assert cases.same_bits(repack(other, found, *values.shape, layout), packed)


@pytest.mark.parametrize("name", TERNARY)
def test_other_layouts(name):
    """What has no kernel is packed all the same, into room that is given."""
    layout, values = ENCODINGS[name], cases.trits(33, 500, encoding=name)
    room = np.full(layout.nbytes(33, 500) + SLACK, ENDS, np.uint8)
    assert pack_trits(layout, values, room) is room
    assert cases.same_bits(room, layout.pack(values))
    assert cases.same_bits(unpack_rows(layout, room, 33, 500, 7, 20), values[7:20])


@pytest.mark.parametrize("dtype", [np.float16, np.float32])
@pytest.mark.parametrize("rows", [0, 1, 15, 16, 17, 40])
@pytest.mark.parametrize("count", [1, 2, 4, 24])
def test_scales(eager_threads, dtype, rows, count):
    """As NumPy turns them; of neighbours that agree, the one that they are, whichever are 0."""
    scale = cases.floats(rows, 24 // count, dtype=dtype)
    scale = scale + np.copysign(dtype(0.5), scale)
    each = np.repeat(scale, count, axis=1)
    for threads in (1, 3):
        with set_num_threads(threads):
            found, flaws = turn_scales(each, count)
        assert (found.dtype, flaws) == (dtype, 0)
        assert cases.same_bits(found, panels.turn_scales(scale))
    if rows and count > 1:
        each[rows // 2, 1::count] = 0
        again, flaws = turn_scales(each, count)
        assert cases.same_bits(again, found)
        assert flaws == 4
        each[rows // 2, 1] = 7
        assert turn_scales(each, count)[1] & 1
    if rows:
        each[rows // 2] = 0
        for unused in (0, 1):
            scale[rows // 2] = unused
            found, flaws = turn_scales(each, count, unused)
            assert flaws == 4
            assert cases.same_bits(found, panels.turn_scales(scale))
        for value in (np.inf, -np.inf, np.nan):
            each[rows // 2, -1] = value
            assert turn_scales(each, count)[1] == 4 + 2, value


def test_matrices():
    """What people call takes these ways, and large ones on several threads."""
    values = cases.trits(1000, 2560)
    scale = np.abs(cases.floats(1000, 20)) + np.float32(0.1)
    for group in (None, scale):
        matrix = ternops.pack(values, group, "two_bit")
        for name in ("base3", "two_bit", "auto"):
            moved = matrix.to(name)
            assert cases.same_bits(moved.to_trits(), values)
            assert moved.group == matrix.group
            expected = ternops.pack(values, group, moved.encoding)
            assert cases.same_bits(moved.to_dense(), expected.to_dense())
            assert cases.same_bits(moved.unscaled.to_trits(), values)
