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

EVERY = pytest.mark.parametrize("name", PANELS)
#: Of the encodings that have no other layout and one plane.
FACTORS = {"nibble": ((1, 16), 16), "eight_bit": ((1,), 255)} | cases.FACTORS


def parts(name, field, code):
    """What a code adds to the bytes of each plane."""
    if name == "three_bit":
        return {field // 4: (code & 3) << 2 * (field % 4), 2: (code >> 2) << field}
    return {0: code * FACTORS[name][0][field]}


def described(name, weights):
    """The bytes as the module describes them, weight after weight."""
    rows, columns = weights.shape
    fields, planes = PANELS[name].fields, PANELS[name].planes
    whole, rest = divmod(columns, 64 * fields)
    stride = -(-rest // fields)
    stride += -stride % 4
    row_bytes = 64 * whole + stride
    lines = row_bytes // 4
    result = np.zeros((-(-rows // 16), lines, planes, 16, 4), np.uint8)
    codes = np.searchsorted(ENCODINGS[name].values, weights)
    for column in range(columns):
        block, place = divmod(column, 64 * fields)
        field, byte = divmod(place, 64 if block < whole else stride)
        line, byte = divmod(64 * block + byte, 4)
        for row in range(rows):
            for plane, amount in parts(name, field, int(codes[row, column])).items():
                result[row // 16, line, plane, row % 16, byte] += amount
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
    lines = [each.reshape(layout.planes, -1) for each in layout.pieces(packed, *weights.shape)]
    pieces = np.concatenate(lines, axis=1).reshape(layout.planes, -1, 64)
    assert cases.same_bits(
        np.moveaxis(pieces, 0, 1).ravel(), packed[: layout.nbytes(*weights.shape)]
    )


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


@pytest.mark.parametrize(
    ("name", "byte"), [("two_bit", 0b11 << 4), ("base3", 243), ("eight_bit", 255)]
)
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
    assert [name for name, each in PANELS.items() if each.blocks] == [*cases.FACTORS]
    for name, panels in PANELS.items():
        own = ENCODINGS[name]
        assert (panels.blocks or panels) is own is layout_of(name, 0)
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


LEVELS = [
    ("two_bit", (-3, -1, 1, 3)),
    ("two_bit", (-2, -1, 0, 1)),
    ("three_bit", tuple(range(-7, 8, 2))),
    ("three_bit", (-1, 0, 1)),
    ("nibble", (-127, -8, 0, 1, 90)),
    ("nibble", (-12, -8, -6, -4, -3, -2, -1, 0, 1, 2, 3, 4, 6, 8, 12)),
]


@pytest.mark.parametrize(("name", "levels"), LEVELS)
def test_levels_take_the_place_of_values(name, levels):
    """The same codes are the same bytes; a code of no level is damage, and is named."""
    layout = PANELS[name]
    codes = np.random.default_rng(5).integers(0, len(levels), (33, 700))
    weights = np.array(levels, np.int8)[codes]
    packed = layout.pack(weights, levels)
    assert cases.same_bits(layout.unpack(packed, 33, 700, levels=levels), weights)
    assert cases.same_bits(layout.unpack(packed, 33, 700, 5, 20, levels), weights[5:20])
    first = layout.widened.values[: len(levels)]
    plain = np.array(first, np.int8)[codes]
    assert cases.same_bits(packed, layout.pack(plain, first))
    layout.check_codes(packed, 33, 700, len(levels))
    with pytest.raises(ValueError, match=rf"^packed: holds .*\(not {name}\?\)\Z"):
        layout.check_codes(packed, 33, 700, len(levels) - 1)


@pytest.mark.parametrize(
    ("name", "levels", "message"),
    [
        ("base3", (-2, 0, 2), r"levels=\(-2, 0, 2\): expected \(-1, 0, 1\), of encoding 'base3'"),
        ("one_bit", (0, 1), r"levels=\(0, 1\): expected \(-1, 1\), of encoding 'one_bit'"),
        ("two_bit", (-3, 0, 3), r"levels=.*: expected neighbours that are all 1 or all 2 apart"),
        ("two_bit", (-2, -1, 0, 1, 2), r"levels=.*: 5 of them, expected 2 to 4"),
        ("three_bit", (-1, 0, 2), r"levels=.*: expected neighbours that are all 1 or all 2 apart"),
        ("nibble", (3,), r"levels=\(3,\): 1 of them, expected 2 to 16"),
        ("nibble", (1, 1, 2), r"levels=.*: expected ascending integers"),
        ("nibble", (-128, 0), r"levels=.*: expected integers from -127 to 127"),
        ("nibble", (0, 128), r"levels=.*: expected integers from -127 to 127"),
    ],
)
def test_levels_that_no_matrix_can_have(name, levels, message):
    """One line, which names them."""
    with pytest.raises(ValueError, match=message):
        ENCODINGS[name].check_levels(levels)
    with pytest.raises(TypeError, match=r"levels=.*: 0\.5 is no integer"):
        ENCODINGS[name].check_levels((0, 0.5))
