"""Every trit is where the description of its encoding says, and comes back."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import ternops
from ternops.encodings import ENCODINGS, TERNARY, common
from ternops.encodings.panels import Panels
from tests.helpers import cases, checks

SHAPES = st.tuples(st.integers(0, 140), st.integers(0, 700), st.integers(0, 2**32 - 1))
MANY = settings(max_examples=150, deadline=None, derandomize=True)

#: In-features of published models' matrices.
WIDTHS = (
    768, 1024, 1536, 2048, 2560, 3072, 3200, 3584, 3840, 4096, 5120, 6656, 6912, 7680, 8192, 8640,
    9216, 12032, 13824, 16384, 24576, 45568,
)  # fmt: skip

#: Of `check`.
ONE_LINE = rf"^packed: holds .*, expected .* \(not ({'|'.join(ENCODINGS)})\?\)\Z"

EVERY = pytest.mark.parametrize("name", ENCODINGS)
#: Those that are not packed in panels, of which tests/encodings/test_panels.py tells the places.
WHOLE = [name for name, each in ENCODINGS.items() if not isinstance(each, Panels)]
BLOCKS = pytest.mark.parametrize("name", cases.FACTORS)
LOOK_UPS = pytest.mark.parametrize("name", ["tl1", "tl2"])


def described(name, trits):
    """The bytes of a matrix as the module describes its layout, weight after weight."""
    rows, columns = trits.shape
    values = trits.tolist()
    result = [0x44 if name == "tl1" else 0] * ENCODINGS[name].nbytes(rows, columns)
    for row, column in itertools.product(range(rows), range(columns)):
        group, inside = divmod(row, 64)
        width = min(64, rows - 64 * group)
        weight = values[row][column]
        if name == "tl1":
            lines, tile = -(-columns // 4), column // 4
            byte = 64 * lines * group + tile * width + inside
            result[byte] += weight * (3, 1, 48, 16)[column % 4]
        elif name == "tl2":
            lines, tile, triple = 5 * -(-columns // 24), column // 24, column % 24 // 3
            if column % 3:
                continue
            sum_ = sum(w * f for w, f in zip(values[row][column:], (9, 3, 1), strict=False))
            first = 64 * lines * group + inside
            result[first + (5 * tile + triple // 2) * width] |= abs(sum_) << 4 * (triple % 2)
            result[first + (5 * tile + 4) * width] |= (sum_ < 0) << triple
        else:
            factors, _ = cases.FACTORS[name]
            fields = len(factors)
            block, place = divmod(column, 64 * fields)
            stride = min(64, -(-(columns - 64 * fields * block) // fields))
            field, byte = divmod(place, stride)
            code = ENCODINGS[name].values.index(weight)
            result[row * -(-columns // fields) + 64 * block + byte] += code * factors[field]
    return np.array(result, np.uint8)


@EVERY
@MANY
@given(SHAPES)
def test_unpack_is_the_inverse_of_pack(name, shape):
    """For any shape; the bytes have the promised number, the slack is zero, check accepts them."""
    rows, columns, seed = shape
    layout, trits = ENCODINGS[name], cases.trits(rows, columns, seed, encoding=name)
    packed = layout.pack(trits)
    size = layout.nbytes(rows, columns)
    assert packed.dtype == np.uint8
    assert packed.shape == (size + 64,)
    assert (packed[size:] == 0).all()
    layout.check(packed, rows, columns)
    assert cases.same_bits(layout.unpack(packed, rows, columns), trits)


@EVERY
@MANY
@given(SHAPES, st.data())
def test_unpack_takes_any_range_of_rows(name, shape, data):
    """Within a group, over several, up to the end, and none."""
    rows, columns, seed = shape
    first = data.draw(st.integers(0, rows))
    last = data.draw(st.none() | st.integers(first, rows))
    layout, trits = ENCODINGS[name], cases.trits(rows, columns, seed, encoding=name)
    part = layout.unpack(layout.pack(trits), rows, columns, first, last)
    assert cases.same_bits(part, trits[first:last])


@pytest.mark.slow
@pytest.mark.parametrize("name", WHOLE)
@pytest.mark.parametrize("rows", [1, 2, 63, 64, 65, 130])
def test_each_trit_has_its_place(name, rows):
    """Every byte by the module's description, that of no weight included."""
    for columns in (
        1, 2, 3, 4, 5, 6, 23, 24, 25, 63, 64, 65, 255, 256, 257, 300, 319, 320, 321, 515, 650,
    ):  # fmt: skip
        trits = cases.trits(rows, columns, encoding=name)
        packed = ENCODINGS[name].pack(trits)
        assert (packed[:-64] == described(name, trits)).all(), columns


@EVERY
def test_large_matrices_are_worked_on_in_pieces(name):
    """Beside the result, packing and unpacking need little memory; pieces join without a seam."""
    checks.packed_in_pieces(ENCODINGS[name], cases.trits(2111, 9000, encoding=name))


@EVERY
def test_trits_in_any_order_of_memory(name):
    """A transposed view packs as its copy does."""
    layout, trits = ENCODINGS[name], cases.trits(700, 130, encoding=name).T
    assert cases.same_bits(layout.pack(trits), layout.pack(trits.copy()))


@pytest.mark.parametrize(("left", "right"), [*itertools.permutations(ENCODINGS, 2)])
def test_one_encoding_becomes_another(left, right):
    """Through trits, without loss: there and back gives the same bytes."""
    source, target = ENCODINGS[left], ENCODINGS[right]
    for shape in cases.SHAPES:
        trits = cases.trits(*shape, encoding=cases.both(left, right))
        packed = source.pack(trits)
        there = target.pack(source.unpack(packed, *shape))
        assert cases.same_bits(there, target.pack(trits))
        assert cases.same_bits(source.pack(target.unpack(there, *shape)), packed)


@pytest.mark.parametrize(
    ("name", "columns", "expected"),
    [
        ("two_bit", (0, 1, 4, 5, 256, 257), (0, 1, 1, 2, 64, 65)),
        ("base3", (0, 1, 5, 6, 320, 321), (0, 1, 1, 2, 64, 65)),
        ("tl1", (0, 1, 4, 5, 256, 257), (0, 1, 1, 2, 64, 65)),
        ("tl2", (0, 1, 24, 25, 240, 241), (0, 5, 5, 10, 50, 55)),
    ],
)
def test_nbytes(name, columns, expected):
    """Exactly the bytes of a row, times the rows."""
    for rows in (0, 1, 63, 64, 65, 1000):
        sizes = [ENCODINGS[name].nbytes(rows, k) for k in columns]
        assert sizes == [rows * size for size in expected]


@pytest.mark.parametrize("columns", WIDTHS)
def test_bits_a_weight(columns):
    """For the matrices of real models, padding included."""
    bits = {
        name: 8 * layout.nbytes(100, columns) / (100 * columns)
        for name, layout in ENCODINGS.items()
    }
    assert bits["two_bit"] == bits["tl1"] == 2
    assert 1.6 <= bits["base3"] <= 1.65
    assert 1.66 <= bits["tl2"] <= 1.69


@BLOCKS
@MANY
@given(SHAPES)
def test_place_fits_the_codes(name, shape):
    """Placed activations times the fields of the packed bytes give the sums of the product."""
    rows, columns, seed = shape
    layout, (factors, codes) = ENCODINGS[name], cases.FACTORS[name]
    assert layout.block == 64 * layout.fields == 64 * len(factors)
    trits, x = (
        cases.trits(rows, columns, seed, encoding=name),
        cases.activations(3, columns, seed=seed),
    )
    placed = layout.place(x)
    blocks = -(-columns // layout.block)
    assert placed.dtype == np.int8
    assert placed.shape == (3, blocks * layout.block)
    size = layout.row_bytes(columns)
    assert rows * size == layout.nbytes(rows, columns)
    whole = np.zeros((rows, blocks * 64), np.int32)
    whole[:, :size] = layout.pack(trits)[: rows * size].reshape(rows, size)
    # Bytes after a row's last one belong to the next row: zeros in x must hide them.
    whole[:, size:] = 0b10_01_10_01
    fields = whole.reshape(rows, blocks, 1, 64) // np.array(factors)[:, None] % codes
    sums = placed.astype(np.int32) @ fields.reshape(rows, blocks * layout.block).T
    codes = np.searchsorted(layout.values, trits.T)
    assert (sums == x.astype(np.int32) @ codes).all()


@LOOK_UPS
@pytest.mark.parametrize("columns", [0, 1, 2, 3, 4, 5, 23, 24, 25, 50])
def test_tables_hold_the_sum_of_every_index(name, columns):
    """By the meaning of an index, found by trying all trits; what is padded counts as zero."""
    weights, entries, step = {"tl1": (2, 9, 4), "tl2": (3, 14, 24)}[name]
    x = np.concatenate([cases.activations(2, columns), np.full((1, columns), -128, np.int8)])
    tables = ENCODINGS[name].tables(x)
    padded = np.zeros((3, -(-columns // step) * step), np.int64)
    padded[:, :columns] = x
    assert tables.dtype == np.int16
    assert tables.shape == (3, padded.shape[1] // weights, entries)
    for trits in itertools.product((-1, 0, 1), repeat=weights):
        number = sum(w * 3**i for i, w in enumerate(reversed(trits)))
        index = number + 4 if name == "tl1" else number
        if index >= 0:
            expected = padded.reshape(3, -1, weights) @ np.array(trits)
            assert (tables[:, :, index] == expected).all()


@LOOK_UPS
@MANY
@given(SHAPES)
def test_multiply_is_the_product(name, shape):
    """Exactly, for any shape."""
    rows, columns, seed = shape
    layout, trits = ENCODINGS[name], cases.trits(rows, columns, seed, encoding=name)
    x = cases.activations(3, columns, seed=seed)
    sums = layout.multiply(layout.pack(trits), rows, columns, x)
    assert cases.same_bits(sums, x.astype(np.int32) @ trits.T.astype(np.int32))


@LOOK_UPS
def test_multiply_reaches_the_largest_sums(name):
    """-128 and 127 against all signs: int16 holds a table's sums, int32 those of a row."""
    layout, columns = ENCODINGS[name], 2001
    x = np.stack([*cases.extreme_activations(columns).values()])
    trits = np.stack([*cases.extreme_trits(columns).values()])
    sums = layout.multiply(layout.pack(trits), *trits.shape, x)
    assert sums.max() == 128 * columns
    assert cases.same_bits(sums, x.astype(np.int32) @ trits.T.astype(np.int32))


def accepted(name, packed, *shape):
    """Whether `check` has no objection."""
    try:
        ENCODINGS[name].check(packed, *shape)
    except ValueError:
        return False
    return True


@pytest.mark.parametrize(
    ("name", "columns", "good"),
    [
        ("two_bit", 4, lambda byte: all(byte >> bit & 3 < 3 for bit in (0, 2, 4, 6))),
        ("base3", 5, lambda byte: byte <= 242),
        ("tl1", 4, lambda byte: byte >> 4 <= 8 and byte & 15 <= 8),
        ("tl2", 24, lambda byte: byte >> 4 <= 13 and byte & 15 <= 13),
        ("one_bit", 8, lambda byte: True),
    ],
)
def test_every_byte_is_judged_by_its_meaning(name, columns, good):
    """256 bytes, as the first one; in tl2 these are indices, and there are no signs."""
    weights = np.full((1, columns), 0 if name in TERNARY else 1, np.int8)
    packed = ENCODINGS[name].pack(weights)
    for byte in range(256):
        packed[0] = byte
        assert accepted(name, packed, 1, columns) == good(byte)


def test_tl2_has_no_sign_of_zero():
    """256 bytes of signs of 8 triples: bits where the index is 0 are refused, others are not."""
    indices = np.array([0x10, 0x0D, 0x00, 0x92], np.uint8)
    for signs in range(256):
        packed = np.concatenate([indices, np.array([signs], np.uint8), np.zeros(64, np.uint8)])
        assert accepted("tl2", packed, 1, 24) == (signs & 0b00111001 == 0)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "lines", "line", "byte"),
    [
        *(("two_bit", 1, 0, 3 << 2 * field) for field in range(4)),
        *(("base3", 1, 0, byte) for byte in (243, 255)),
        *(("tl1", 1, 0, byte) for byte in (0x49, 0x94, 0x4F, 0xF4)),
        *(("tl2", 5, line, byte) for line in range(4) for byte in (0x0E, 0xE0)),
        *(("tl2", 5, 4, 1 << triple) for triple in range(8)),
    ],
)
def test_damage_is_found_anywhere(name, lines, line, byte):
    """First, last, and on both sides of where a piece of the check and a group of rows end."""
    layout, columns = ENCODINGS[name], 120_000
    packed = layout.pack(np.zeros((70, columns), np.int8))
    assert accepted(name, packed, 70, columns)
    group = layout.nbytes(64, columns)
    piece = common.PIECE // (64 * lines)
    assert piece * 64 * lines < group
    for first, last, width in ((0, group, 64), (group, layout.nbytes(70, columns), 6)):
        tiles = (last - first) // (width * lines)
        for tile in {0, piece - 1, piece, tiles - 1} & set(range(tiles)):
            for row in (0, width - 1):
                place = first + (tile * lines + line) * width + row
                whole, packed[place] = packed[place], byte
                with pytest.raises(ValueError, match=ONE_LINE):
                    layout.check(packed, 70, columns)
                packed[place] = whole
    assert accepted(name, packed, 70, columns)


@EVERY
def test_only_the_bytes_of_weights_are_judged(name):
    """What follows them is never looked at, even in an empty matrix."""
    for rows, columns in ((0, 0), (0, 5), (5, 0), (3, 7), (64, 24), (66, 50)):
        packed = ENCODINGS[name].pack(cases.trits(rows, columns, encoding=name))
        packed[ENCODINGS[name].nbytes(rows, columns) :] = 255
        assert accepted(name, packed, rows, columns)


def test_the_table_of_encodings():
    """By name, with what tells them apart."""
    assert list(ENCODINGS) == [
        "two_bit", "base3", "tl1", "tl2", "one_bit", "three_bit", "nibble", "eight_bit",
    ]  # fmt: skip
    assert all(name == encoding.name for name, encoding in ENCODINGS.items())
    bits = {name: encoding.bits for name, encoding in ENCODINGS.items()}
    assert bits == {
        "two_bit": 2, "base3": 1.6, "tl1": 2, "tl2": pytest.approx(5 / 3), "one_bit": 1,
        "three_bit": 3, "nibble": 4, "eight_bit": 8,
    }  # fmt: skip
    assert common.SLACK == 64
    looks = {(encoding.color, encoding.marker) for encoding in ENCODINGS.values()}
    assert len(looks) == len(ENCODINGS)


def test_every_encoding_has_its_own_quantiser():
    """`quantize` gives values of the encoding; one_bit's are sign(w - mean) and mean|w|."""
    w = np.array([[0.5, -1.5, 0.25], [2.0, 0.25, 0.0]], np.float32)  # mean 0.25, mean|w| 0.75
    signs = ternops.quantize(w, encoding="one_bit")
    assert signs.to_trits().tolist() == [[1, -1, -1], [1, -1, -1]]
    assert signs.scale == np.float32(0.75)
    for name, layout in ENCODINGS.items():
        matrix = ternops.quantize(cases.floats(33, 70), encoding=name)
        assert set(np.unique(matrix.to_trits())) <= set(layout.values)
    with pytest.raises(ValueError, match=r"^w: w\[1, 2\] is nan, expected finite numbers\Z"):
        ternops.quantize(np.where(w == 0, np.nan, w), encoding="one_bit")


def test_a_weight_that_an_encoding_has_not():
    """Is named, where it is packed and where a matrix is converted."""
    words = r"^trits: trits\[0, 1\] is 0, expected -1 or 1\Z"
    trits = np.array([[1, 0]], np.int8)
    with pytest.raises(ValueError, match=words):
        ternops.pack(trits, encoding="one_bit")
    with pytest.raises(ValueError, match=words):
        ternops.pack(trits).to("one_bit")
    signs = ternops.pack(np.array([[1, -1]], np.int8))
    assert signs.to("one_bit").to("two_bit").to_trits().tolist() == [[1, -1]]
