"""Some rows and columns of a matrix, several matrices in one: NumPy's, and packed as before."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

import ternops
from ternops.encodings import ENCODINGS, PANELS
from tests.helpers import cases, internals
from tests.helpers.checks import fails

ROWS, COLUMNS = 150, 320  # panels of 16, and groups of 64, of which the last is not whole
GROUPS = 10
KINDS = [
    (name, kind)
    for name in ENCODINGS
    for kind in ("none", "scalar", "rows", *(("half", "float") if name in PANELS else ()))
]
KIND = pytest.mark.parametrize(("encoding", "kind"), KINDS)
ONES = np.ones((2, COLUMNS), np.int8)
KEYS = {
    "slice": slice(100),
    "end": slice(-7, None),
    "middle": slice(63, 66),
    "steps": slice(140, 3, -5),
    "all": slice(None),
    "nothing": slice(5, 5),
    "list": [149, 0, 64, 64, -1],
    "numbers": np.random.default_rng(5).integers(-ROWS, ROWS, 200),
    "unsigned": np.arange(70, dtype=np.uint8),
    "mask": np.arange(ROWS) % 3 == 1,
    "all false": np.zeros(ROWS, bool),
    "one in a tuple": (slice(10, 90),),
    "dots": (slice(10, 90), ...),
    "dots first": (..., slice(None)),
}


def scale_of(kind):
    """A scale of each kind: of groups in float16, and in float32 of which some rows fit float16."""
    if kind not in ("half", "float"):
        return cases.scales(ROWS)[kind]
    scale = cases.group_scales(ROWS, GROUPS, kind == "half").copy()
    scale[:20] = 1
    return scale


def made(encoding, kind):
    """Trits, their scale, and the matrix of both."""
    trits, scale = cases.trits(ROWS, COLUMNS, encoding=encoding), scale_of(kind)
    return trits, scale, ternops.pack(trits, scale, encoding)


def same(found, expected):
    """The same bytes, scale and orientation."""
    left, right = internals.packed(found), internals.packed(expected)
    assert (found.shape, found.encoding, found.group) == (
        expected.shape, expected.encoding, expected.group,
    )  # fmt: skip
    assert internals.is_transposed(found) == internals.is_transposed(expected)
    assert cases.same_bits(left.bytes, right.bytes)
    assert (found.scale is None) == (expected.scale is None)
    assert found.scale is None or cases.same_bits(found.scale, expected.scale)


def of(scale, rows=slice(None), columns=slice(None)):
    """The part of a scale that belongs to some rows and columns."""
    if scale is None or np.ndim(scale) == 0:
        return scale
    return scale[rows] if scale.ndim == 1 else scale[rows][:, columns]


@KIND
@pytest.mark.parametrize("key", KEYS)
def test_rows_stay_packed(encoding, kind, key):
    """Byte for byte what packing these rows gives; of the transpose they are its columns."""
    trits, scale, matrix = made(encoding, kind)
    key = KEYS[key]
    rows = key[0] if isinstance(key, tuple) else key
    rows = slice(None) if rows is ... else rows
    expected = ternops.pack(trits[rows], of(scale, rows), encoding)
    same(matrix[key], expected)
    same(matrix.T[:, rows], expected.T)
    x = cases.floats(2, COLUMNS)
    assert cases.same_bits(x @ matrix[key].T, x @ expected.T)


@KIND
def test_columns_are_packed_anew(encoding, kind):
    """The same by columns, which with a scale a group are taken in whole groups."""
    trits, scale, matrix = made(encoding, kind)
    grouped = kind in ("half", "float")
    keys = [slice(64, 192), slice(None, 256), np.r_[32:64, 0:32, 32:64]]
    if not grouped:
        keys += [slice(3, 200, 7), [319, 0, 0], np.arange(COLUMNS) % 2 == 0, slice(0, 0)]
    for key in keys:
        blocks = np.arange(COLUMNS)[key][::32] // 32 if grouped else slice(None)
        expected = ternops.pack(trits[:, key], of(scale, columns=blocks), encoding)
        same(matrix[:, key], expected)
        same(matrix.T[key], expected.T)
        same(matrix.T[key, ...], expected.T)
        both = ternops.pack(trits[10:80, key], of(scale, slice(10, 80), blocks), encoding)
        same(matrix[10:80, key], both)
        same(matrix.T[key, 10:80], both.T)


@pytest.mark.parametrize("key", [slice(0, 16), [0, 1], slice(32, 65), slice(0, 0), slice(16, 48)])
def test_a_part_of_a_group_is_refused(key):
    """It would need another scale a group."""
    _, _, matrix = made("two_bit", "half")
    fails(ValueError, "columns share scale 32 whole groups", lambda: matrix[:, key])
    fails(ValueError, "columns share scale 32 whole groups", lambda: matrix.T[key])


@KIND
def test_one_row_or_column_is_an_array(encoding, kind):
    """float32, as of the dense matrix; so is an element."""
    _, _, matrix = made(encoding, kind)
    for each in (matrix, matrix.T):
        dense = each.to_dense()
        for key in (0, -1, 77, np.int8(64), (3,), (slice(None), 5), (slice(2, 9), -2), (5, [1, 1]),
                    ([7, 8], 149), (4, 140), (-1, -1), (..., 3)):  # fmt: skip
            found = each[key]
            assert cases.same_bits(found, dense[key]), key
    assert cases.same_bits(np.stack(list(matrix)), matrix.to_dense())


@pytest.mark.parametrize(
    ("error", "words", "key"),
    [
        (IndexError, "index 150 out of bounds axis 0 size 150", 150),
        (IndexError, "index -151 out of bounds axis 0", [-151]),
        (IndexError, "index 320 out of bounds axis 1 size 320", (0, 320)),
        (IndexError, "index 320 out of bounds axis 1", (slice(3), [320])),
        (IndexError, "boolean index axis 0 size 150 3", np.ones(3, bool)),
        (IndexError, "boolean index axis 1 size 320 150", (slice(3), np.ones(150, bool))),
        (IndexError, "only integers slices", 1.5),
        (IndexError, "only integers slices", "a"),
        (IndexError, "integer boolean type", np.ones(3)),
        (IndexError, "new axis", None),
        (IndexError, "new axis", (slice(None), None)),
        (IndexError, "3 indices", (1, 2, 3)),
        (IndexError, "3 indices", (..., ..., 1)),
        (IndexError, "2 dimensions", [[1, 2], [3, 4]]),
        (IndexError, "too many indices", np.ones((150, 320), bool)),
        (IndexError, "2 dimensions", True),
        (IndexError, "two arrays slice", ([1, 2], [3, 4])),
        (TypeError, "masked", np.ma.masked_array([1, 2], [True, False])),
        (TypeError, "masked", (slice(2), np.ma.masked_array([1, 2], [True, False]))),
    ],
)
def test_errors_are_numpys(error, words, key):
    """Or say in one line what of NumPy's there is not."""
    fails(error, words, lambda: made("two_bit", "rows")[2][key])


def test_all_of_it_is_not_copied():
    """Nothing of a matrix changes."""
    _, _, matrix = made("two_bit", "rows")
    assert internals.packed(matrix[:]) is internals.packed(matrix)
    assert internals.packed(matrix.T[..., :]) is internals.packed(matrix)
    with pytest.raises(TypeError, match="does not support item assignment"):
        matrix[0] = 1


def test_levels_stay():
    """Those that are not the encoding's, also where no row has some of them."""
    levels = (-3, -1, 1, 3)
    trits = np.random.default_rng(1).choice(np.array(levels, np.int8), (40, 70))
    matrix = ternops.pack(trits, encoding="two_bit", levels=levels)
    for found, values in (
        (matrix[17:], trits[17:]),
        (matrix[:, 3:9], trits[:, 3:9]),
        (np.concatenate([matrix[:3], matrix[30:]]), trits[np.r_[:3, 30:40]]),
    ):
        same(found, ternops.pack(values, encoding="two_bit", levels=levels))
        assert found.levels == levels


@KIND
def test_matrices_one_after_another(encoding, kind):
    """numpy.concatenate of rows, byte for byte what packing them together gives."""
    trits, scale, matrix = made(encoding, kind)
    for bounds in ((0, 150), (0, 70, 150), (0, 16, 16, 17, 64, 130, 150)):
        parts = [matrix[a:b] for a, b in itertools.pairwise(bounds)]
        same(np.concatenate(parts), matrix)
        same(np.concatenate([each.T for each in parts], axis=1), matrix.T)
        same(np.concatenate([each.T for each in parts], axis=-1), matrix.T)
    twice = None if scale is None else scale if scale.ndim == 0 else np.concatenate([scale] * 2)
    same(
        np.concatenate((matrix, matrix)),
        ternops.pack(np.concatenate([trits, trits]), twice, encoding),
    )


def test_scales_of_several_kinds_become_one_a_row():
    """A product is that of its parts, bit for bit."""
    kinds = [made("base3", kind)[2] for kind in ("none", "scalar", "rows", "none")]
    kinds.append(ternops.pack(cases.trits(3, COLUMNS), np.float32(2), "base3"))
    whole = np.concatenate(kinds)
    assert whole.scale.shape == (603,)
    x = cases.floats(5, COLUMNS)
    assert cases.same_bits(x @ whole.T, np.concatenate([x @ each.T for each in kinds], axis=1))


@pytest.mark.parametrize(
    ("error", "words", "call"),
    [
        (ValueError, "arrays[1] encoding 'base3' 'two_bit'",
         lambda a, b: np.concatenate([a, b.to("base3")])),
        (ValueError, "arrays[1] packed columns 5 320", lambda a, b: np.concatenate([a, b[:, :5]])),
        (ValueError, "arrays[1] levels",
         lambda a, b: np.concatenate([a, ternops.pack(ONES, None, "two_bit", (-1, 1))])),
        (ValueError, "arrays[1] group 32 None",
         lambda a, b: np.concatenate([a, made("two_bit", "half")[2]])),
        (ValueError, "axis=1 transposes", lambda a, b: np.concatenate([a, b], axis=1)),
        (ValueError, "axis=0 transposes", lambda a, b: np.concatenate([a.T, b.T])),
        (ValueError, "axis=0 transposes", lambda a, b: np.concatenate([a, b.T])),
        (ValueError, "axis 2", lambda a, b: np.concatenate([a, b], axis=2)),
        (TypeError, "arrays[1] ndarray TernaryMatrix",
         lambda a, b: np.concatenate([a, np.ones((2, 320))])),
        (TypeError, "arrays[0] ndarray TernaryMatrix",
         lambda a, b: np.concatenate([np.ones((2, 320)), a])),
        (TypeError, "axis=None", lambda a, b: np.concatenate([a, b], axis=None)),
        (TypeError, "out", lambda a, b: np.concatenate([a, b], out=np.ones((300, 320)))),
        (TypeError, "dtype", lambda a, b: np.concatenate([a, b], dtype=np.float32)),
    ],
)  # fmt: skip
def test_what_is_not_joined(error, words, call):
    """One line that names which, and what was expected."""
    matrix = made("two_bit", "rows")[2]
    fails(error, words, lambda: call(matrix, matrix))


@KIND
def test_the_number_of_values_that_are_not_0(encoding, kind):
    """As numpy.count_nonzero of the dense matrix: a scale of 0 makes none."""
    _, _, matrix = made(encoding, kind)
    expected = np.count_nonzero(matrix.to_dense())
    assert matrix.nonzero_count == matrix.T.nonzero_count == expected
    assert np.count_nonzero(matrix) == expected
    assert matrix[:0].nonzero_count == matrix[:, :0].nonzero_count if not matrix.group else True
