"""What arguments mean, and what is said of bad ones and of bad weights."""

from __future__ import annotations

import numpy as np
import pytest

import ternops
from ternops.encodings import ENCODINGS
from ternops.kernels.reference import matmul_int32
from ternops.quantizers import DEFAULTS, METHODS, choose, holders, quantize
from tests.helpers import cases

METHOD = pytest.mark.parametrize("name", METHODS)


@pytest.mark.parametrize(
    ("arguments", "method", "count", "encoding", "group"),
    [
        ({}, "absmean", 3, "auto", None),
        ({"encoding": "base3"}, "absmean", 3, "base3", None),
        ({"encoding": "one_bit", "group": 64}, "sign", 2, "one_bit", 64),
        ({"encoding": "three_bit"}, "int3", 8, "three_bit", "row"),
        ({"encoding": "nibble", "group": 128}, "int4", 16, "nibble", 128),
        ({"encoding": "eight_bit", "group": 32}, "int8", 255, "eight_bit", 32),
        ({"encoding": "two_bit", "levels": 4}, "absmax", 4, "two_bit", "row"),
        ({"levels": 3}, "absmean", 3, "auto", None),
        ({"levels": (-5, -1, 2, 9)}, "mse", 4, "nibble", "row"),
        ({"levels": range(-4, 4)}, "mse", 8, "three_bit", "row"),
        ({"levels": np.arange(-7, 8, 2)}, "mse", 8, "three_bit", "row"),
        ({"method": "seq"}, "seq", 4, "two_bit", "row"),
        ({"method": "seq", "levels": 3}, "seq", 3, "auto", "row"),
        ({"method": "seq", "encoding": "base3"}, "seq", 3, "base3", "row"),
        ({"method": "lsq"}, "lsq", 16, "nibble", "row"),
        ({"method": "lsq", "encoding": "three_bit"}, "lsq", 8, "three_bit", "row"),
        ({"method": "mse", "encoding": "one_bit"}, "mse", 2, "one_bit", "row"),
        ({"method": "mse", "encoding": "nibble"}, "mse", 3, "nibble", "row"),
        ({"method": "nf4"}, "nf4", 16, "nibble", 64),
        ({"method": "nf4", "group": "row"}, "nf4", 16, "nibble", "row"),
        ({"method": "quantile", "levels": 8}, "quantile", 8, "nibble", 64),
        ({"method": "fp4"}, "fp4", 15, "nibble", "row"),
        ({"method": "mxfp4"}, "mxfp4", 15, "nibble", 32),
        ({"method": "nvfp4", "group": 16}, "nvfp4", 15, "nibble", 16),
        ({"method": "denseshift"}, "denseshift", 14, "nibble", "row"),
        ({"method": "bct", "encoding": "eight_bit"}, "bct", 16, "eight_bit", 64),
    ],
)  # fmt: skip
def test_what_is_meant(arguments, method, count, encoding, group):
    found = choose(256, **arguments)
    assert (found.method.name, found.many, found.encoding, found.group) == (
        method, count, encoding, group
    )  # fmt: skip


@pytest.mark.parametrize(
    ("levels", "expected"),
    [
        ((-1, 1), ("one_bit", "nibble", "eight_bit")),
        ((-1, 0, 1), ("auto", "two_bit", "base3", "tl1", "tl2", "nibble", "eight_bit")),
        ((-3, -1, 1, 3), ("two_bit", "nibble", "eight_bit")),
        ((-2, -1, 0, 1), ("two_bit", "nibble", "eight_bit")),
        ((-3, -1, 0, 3), ("nibble", "eight_bit")),
        ((-6, -3, 0, 3), ("nibble", "eight_bit")),
        (tuple(range(-4, 4)), ("three_bit", "nibble", "eight_bit")),
        (tuple(range(-7, 9, 2)), ("three_bit", "nibble", "eight_bit")),
        (tuple(range(-8, 8)), ("nibble", "eight_bit")),
        (tuple(range(-8, 9)), ("eight_bit",)),
    ],
)
def test_which_encodings_can_hold_levels(levels, expected):
    assert holders(levels) == expected


def test_every_method_has_its_record():
    """A name, a paper with its section, an encoding for each of its levels."""
    for name, method in METHODS.items():
        assert method.name == name
        assert "section" in method.paper
        assert "algorithm" in method.paper or "arXiv" in method.paper
        for count, levels in method.levels.items():
            assert method.fit or (len(levels) == count and holders(levels))
    assert set(DEFAULTS.values()) <= set(METHODS)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"method": "gptq"}, r"^method='gptq': expected one of absmean, sign, absmax, mse, seq, "),
        ({"method": 4}, r"^method=4: expected one of absmean, "),
        ({"encoding": "fp2"}, r"^encoding='fp2': expected one of auto, two_bit, base3, "),
        ({"encoding": "fp2", "levels": 4}, r"^encoding='fp2': expected one of auto, two_bit, "),
        (
            {"method": "seq", "levels": 5},
            r"^levels=5: method 'seq' has 4 or 3 levels$",
        ),
        (
            {"method": "nf4", "levels": (-1, 0, 1)},
            r"^levels=\(-1, 0, 1\): method 'nf4' has \(-127, -88, ",
        ),
        ({"levels": 5}, r"^levels=5: method 'absmax' has 3 or 2 or 4 or 8 or 16 or 255 levels$"),
        ({"levels": (1, 0)}, r"^levels=\(1, 0\): expected two or more in ascending order$"),
        ({"levels": (1,)}, r"^levels=\(1,\): expected two or more in ascending order$"),
        ({"levels": (0, 0, 1)}, r"^levels=\(0, 0, 1\): expected two or more in ascending order$"),
        ({"levels": (-128, 1)}, r"^levels=\(-128, 1\): expected integers from -127 to 127, the"),
        ({"levels": (-3, -1)}, r"^levels=\(-3, -1\): expected integers from -127 to 127, the last"),
        (
            {"method": "nf4", "encoding": "two_bit"},
            r"^encoding='two_bit': cannot hold the levels of method 'nf4' \(\(-127, .*127\)\), "
            r"expected nibble or eight_bit$",
        ),
        (
            {"method": "seq", "encoding": "three_bit"},
            r"^encoding='three_bit': cannot hold the levels of method 'seq' \(4 or 3\), expected "
            r"two_bit or nibble or eight_bit$",
        ),
        (
            {"levels": tuple(range(-9, 9)), "encoding": "nibble"},
            r"^encoding='nibble': cannot hold the levels of method 'mse' \(18\), expected "
            r"eight_bit$",
        ),
        (
            {"method": "nf4", "group": 48},
            r"^group=48: groups of 48 in 192 columns, expected one of 16, 32, 64, 128, 256 that "
            r"divides them, or group='row'$",
        ),
        ({"method": "nf4", "group": 128}, r"^group=128: groups of 128 in 192 columns, expected "),
        ({"method": "mxfp4", "group": 64}, r"^group=64: method 'mxfp4' has groups of 32$"),
        ({"method": "nvfp4", "group": "row"}, r"^group='row': method 'nvfp4' has groups of 16$"),
    ],
)  # fmt: skip
def test_bad_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        choose(192, **arguments)


def test_columns_that_a_methods_own_group_does_not_divide():
    with pytest.raises(
        ValueError, match=r"^method='nf4': groups of 64 in 100 columns, expected on"
    ):
        choose(100, method="nf4")
    message = r"^method='mxfp4': groups of 32 in 100 columns, expected 32 that divides them$"
    with pytest.raises(ValueError, match=message):
        choose(100, method="mxfp4")
    assert choose(100, method="nf4", group="row").group == "row"


@pytest.mark.parametrize("levels", [True, "3", 3.0, (1.5, 2), (True, 2), [None], {"a": 1}])
def test_levels_of_a_wrong_type(levels):
    with pytest.raises(TypeError, match=r"^levels=.*: expected how many, or a sequence of integer"):
        choose(64, levels=levels)


@pytest.mark.parametrize("group", [True, 64.0, "64", "matrix", (64,)])
def test_a_group_of_a_wrong_type(group):
    with pytest.raises(TypeError, match=r"^group=.*: expected an integer, 'row' or None$"):
        choose(64, method="nf4", group=group)


def rounded(w, name, group=None):
    return quantize(w, choose(w.shape[1], method=name, group=group))


@METHOD
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("group", [None, 64])
def test_nan_and_infinity(name, bad, group):
    w = cases.floats(5, 128).astype(np.float32)
    w[3, 77] = bad
    if METHODS[name].is_fixed:
        group = None
    with pytest.raises(ValueError, match=r"^w: .*(nan|inf).*, expected finite numbers$"):
        rounded(w, name, group)


@METHOD
@pytest.mark.parametrize("rows", [0, 1, 5])
def test_zeros_and_no_rows(name, rows):
    """The values nearest to 0, and scales that are positive; no warning."""
    found = rounded(np.zeros((rows, 128), np.float32), name)
    assert found.values.shape == (rows, 128)
    levels = found.levels
    least = min(map(abs, levels))
    if rows:
        assert set(np.abs(found.values).ravel().tolist()) == {least}
        is_whole = METHODS[name].group is None
        assert (found.scale > 0).all() or is_whole
        assert least * found.scale.max() <= 1e-5
    group = None if METHODS[name].is_fixed else 64
    half = np.ones((2, 128), np.float32)
    half[1, 64:] = 0
    found = rounded(half, name, group)
    assert np.array_equal(found.scale, found.scale.astype(np.float16))


@METHOD
@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
@pytest.mark.parametrize("size", [1e-45, 1e-38, 6e-8, 6e4, 1e30, 3e38])
def test_very_small_and_very_large_weights(name, dtype, size):
    """float32 scales where float16 has none; levels of weights of one magnitude agree."""
    if not float(np.finfo(dtype).smallest_subnormal) <= size <= float(np.finfo(dtype).max):
        return
    w = (np.sign(cases.floats(4, 128, seed=3)) * size).astype(dtype)
    w[w == 0] = size
    found = rounded(w, name, None if METHODS[name].is_fixed else 64)
    scale = found.scale
    assert np.isfinite(scale).all()
    assert (scale > 0).all()
    dense = found.values * scale.repeat(128 // scale.shape[1], axis=1).astype(np.float64)
    largest = np.abs(found.levels).max()
    if name in ("absmean", "sign"):
        assert np.allclose(np.abs(dense), max(size, 1e-5)) or size < 1e-5
    elif size / largest > 2.0**-126:
        assert np.abs(np.abs(dense) / np.abs(w.astype(float)) - 1).max() < 0.6
        assert (np.sign(dense) == np.sign(w.astype(float))).all()


@METHOD
def test_weights_beyond_float32(name):
    w = np.full((2, 128), 1e300)
    with pytest.raises(ValueError, match=r"^w: .*beyond float32"):
        rounded(w, name, None if METHODS[name].is_fixed else 64)


@METHOD
def test_what_is_no_matrix_of_floats(name):
    choice = choose(128, method=name)
    with pytest.raises(TypeError, match=r"^w: dtype int8, expected float16, float32 or float64"):
        quantize(np.zeros((2, 128), np.int8), choice)
    with pytest.raises(ValueError, match=r"^w: shape \(128,\), expected two dimensions"):
        quantize(np.zeros(128), choice)


@METHOD
def test_how_a_matrix_lies_in_memory_does_not_matter(name):
    w = cases.floats(64, 128).astype(np.float32).clip(-9, 9)
    choice = choose(128, method=name, group=None if METHODS[name].is_fixed else 64)
    for left, right in zip(
        quantize(w, choice)[:2], quantize(np.asfortranarray(w), choice)[:2], strict=True
    ):
        assert cases.same_bits(left, right)


@pytest.mark.parametrize("encoding", ENCODINGS)
@pytest.mark.parametrize("method", METHODS)
def test_every_encoding_holds_what_a_method_rounds_to(method, encoding):
    """The very values, or a line that says which encodings there are."""
    w = cases.floats(35, 256)
    of_matrix = ("nibble", "eight_bit")  # hold levels that come from the matrix
    usual = METHODS[method].levels.values()
    if not any(encoding in (holders(each) if each else of_matrix) for each in usual):
        with pytest.raises(ValueError, match="cannot hold the levels"):
            ternops.quantize(w, encoding, method=method)
        return
    chosen = choose(256, encoding, None, method, None)
    values, scale, levels = quantize(w, chosen)
    matrix = ternops.quantize(w, encoding, method=method)
    assert matrix.encoding == encoding
    assert set(levels) <= set(matrix.levels)
    assert cases.same_bits(matrix.to_trits(), values)
    x = cases.activations(3, 256)
    assert cases.same_bits(x @ matrix.unscaled.T, matmul_int32(x, values))
    assert (np.asarray(matrix.scale, np.float32) == scale).all()
