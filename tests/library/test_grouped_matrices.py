"""Matrices with a scale a group of columns: made, told, converted, kept; bad ones are refused."""

from __future__ import annotations

import copy
import gc
import pickle
import warnings

import numpy as np
import pytest

import ternops
from ternops.absmean import absmean
from ternops.encodings import PANELS
from ternops.encodings.panels import GROUPS
from ternops.kernels import reference
from tests.helpers import cases, internals
from tests.helpers.cases import grouped as of

ENCODING = pytest.mark.parametrize("encoding", PANELS)
GROUP = pytest.mark.parametrize("group", GROUPS)


def dense(weights, scale):
    """Each weight times its scale, one after the other's group."""
    size = weights.shape[1] // scale.shape[1]
    return weights * scale.astype(np.float32).repeat(size, axis=1)


@ENCODING
@GROUP
@pytest.mark.parametrize("is_half", [True, False])
@pytest.mark.parametrize("shape", [(0, 256), (1, 256), (16, 768), (37, 1280)], ids=cases.name)
def test_what_was_packed_comes_back(encoding, group, is_half, shape):
    """Weights, scale in its own dtype, dense values; the transpose has the same exchanged."""
    weights, scale, matrix = of(*shape, group, encoding, is_half)
    assert (matrix.shape, matrix.T.shape) == (shape, shape[::-1])
    assert matrix.group == matrix.T.group == group
    assert matrix.scale.dtype == (np.float16 if is_half or not scale.size else np.float32)
    assert cases.same_bits(matrix.scale, scale.astype(matrix.scale.dtype))
    assert cases.same_bits(matrix.to_trits(), weights)
    assert cases.same_bits(matrix.to_dense(), dense(weights, scale))
    assert cases.same_bits(np.asarray(matrix), dense(weights, scale))
    assert cases.same_bits(matrix.T.to_dense(), dense(weights, scale).T)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64, np.int64, np.uint8])
def test_scales_of_any_dtype_are_kept_in_float16_where_that_has_them(dtype):
    """All of them: one that it has not makes float32 of all."""
    scale = np.arange(1, 13).reshape(3, 4).astype(dtype)
    matrix = ternops.pack(cases.trits(3, 512), scale)
    assert cases.same_bits(matrix.scale, scale.astype(np.float16))
    wider = ternops.pack(cases.trits(3, 512), scale.astype(np.float64) + 2**-20 * np.eye(3, 4))
    assert wider.scale.dtype == np.float32
    assert wider.scale[0, 0] == np.float32(1 + 2**-20)
    for end in (6e-8, 65504.0):
        assert ternops.pack(cases.trits(1, 32), [[np.float16(end)]]).scale.dtype == np.float16
    for end in (2e-8, 65536.0):
        assert ternops.pack(cases.trits(1, 32), [[end]]).scale.dtype == np.float32


def test_bits_a_weight():
    """Scales of two bytes included; of four where they must be."""
    for encoding, columns, group, expected in (
        ("two_bit", 4096, 128, 2.125), ("two_bit", 4096, 64, 2.25), ("two_bit", 4096, 256, 2.0625),
        ("one_bit", 4096, 128, 1.125), ("base3", 4096, 128, 1.7266), ("base3", 5120, 128, 1.725),
    ):  # fmt: skip
        _, _, matrix = of(1024, columns, group, encoding)
        assert matrix.bits_per_weight == pytest.approx(expected, abs=2e-4)
        assert matrix.nbytes == round(matrix.bits_per_weight * matrix.size / 8)
        assert f"bits_per_weight={matrix.bits_per_weight:.3f}" in repr(matrix)
    _, _, wide = of(1024, 4096, 128, is_half=False)
    assert wide.bits_per_weight == pytest.approx(2.25, abs=2e-4)
    assert np.isnan(of(0, 128, 128)[2].bits_per_weight)


def test_it_says_what_it_is():
    """How many weights share a scale, along the side that they lie on."""
    _, _, matrix = of(5, 256, 64, "base3")
    assert repr(matrix).startswith(
        "TernaryMatrix(shape=(5, 256), encoding='base3', scale=one for 64 columns, bits_per_weight="
    )
    assert "shape=(256, 5), encoding='base3', scale=one for 64 rows," in repr(matrix.T)
    assert ternops.pack(cases.trits(5, 256), 1.0).group is None


@pytest.mark.parametrize("encoding", [name for name, each in PANELS.items() if each.blocks])
@GROUP
@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_quantize_takes_the_mean_of_each_group(encoding, group, dtype):
    """Scales rounded to float16, and weights as the encoding's quantiser has them."""
    w = cases.floats(7, 512, dtype=dtype).clip(-1e3, 1e3).astype(dtype)
    matrix = ternops.quantize(w, encoding, group=group)
    parts = w.reshape(7, -1, group).astype(np.float64)
    means = np.abs(parts).mean(axis=2).astype(np.float32).astype(np.float16)
    assert cases.same_bits(matrix.scale, np.maximum(means, np.float16(1e-5)))
    if encoding == "one_bit":
        expected = np.where(parts > parts.mean(axis=2, keepdims=True), 1, -1)
    else:
        scale = matrix.scale[..., None].astype(np.float32)
        wide = np.result_type(dtype, np.float32)
        expected = np.clip(np.rint(w.reshape(7, -1, group).astype(wide) / scale), -1, 1)
    assert (matrix.to_trits() == expected.reshape(7, 512)).all()
    again = ternops.pack(matrix.to_trits(), matrix.scale, encoding)
    assert cases.same_bits(internals.packed(again).bytes, internals.packed(matrix).bytes)


def test_quantize_at_the_ends():
    """Groups of zeros, means beyond float16, no rows; a group as long as a row is that row."""
    w = np.zeros((3, 128), np.float32)
    w[1, :64], w[2, 64:] = 1e5, 1e-30
    matrix = ternops.quantize(w, group=64)
    assert matrix.scale.dtype == np.float32
    least = np.float32(1e-5)
    expected = np.array([[least, least], [1e5, least], [least, least]], np.float32)
    assert cases.same_bits(matrix.scale, expected)
    assert matrix.to_trits().sum() == 64
    for encoding in PANELS:
        assert ternops.quantize(np.zeros((0, 64)), encoding, group=32).shape == (0, 64)
    row = cases.floats(1, 256)
    trits, scale = absmean(row)
    whole = ternops.quantize(row * np.float32(1 / scale), group=256)
    assert cases.same_bits(whole.to_trits(), trits)


@pytest.mark.parametrize("left", PANELS)
@pytest.mark.parametrize("right", PANELS)
@pytest.mark.parametrize("group", [16, 32, 128])
def test_a_matrix_takes_any_other_encoding(left, right, group):
    """Group, scale and orientation stay; the bytes are those that packing gives."""
    weights = cases.trits(35, 768, encoding=cases.both(left, right))
    for is_half in (True, False):
        scale = cases.group_scales(35, 768 // group, is_half)
        first, second = (ternops.pack(weights, scale, name) for name in (left, right))
        for before, wanted in ((first, second), (first.T, second.T)):
            after = before.to(right)
            assert (after.encoding, after.group, after.shape) == (right, group, wanted.shape)
            assert cases.same_bits(internals.packed(after).bytes, internals.packed(wanted).bytes)
            assert cases.same_bits(after.scale, scale)
            assert cases.same_bits(after.to_dense(), before.to_dense())
        assert first.to(left) is first
        if group in cases.groups_of(right):
            x = cases.floats(3, 768)
            assert cases.same_bits(x @ first.to(right).T, x @ second.T)
        if abs(weights).max() == 1:
            assert first.to("auto").group == group


@ENCODING
@GROUP
def test_unscaled_gives_exact_sums(encoding, group):
    """The same weights without scales: int8 operands give int32."""
    weights, _, matrix = of(19, 768, group, encoding)
    for each, trits in ((matrix.unscaled, weights), (matrix.T.unscaled, weights.T)):
        assert (each.scale, each.group, each.encoding) == (None, None, encoding)
        assert cases.same_bits(each.to_trits(), trits)
        x = cases.activations(3, trits.shape[1])
        assert cases.same_bits(x @ each.T, reference.matmul_int32(x, trits))


@ENCODING
@pytest.mark.parametrize("rows", [1, 16, 300, 4097])
@pytest.mark.parametrize("dtype", [np.int8, np.float16, np.float32, np.float64])
def test_sums_over_the_packed_rows(encoding, rows, dtype):
    """x @ W and W.T @ x add up floats, in float64, and round once."""
    weights, scale, matrix = of(rows, 64, 32, encoding)
    x = cases.activations(3, rows) if dtype == np.int8 else cases.floats(3, rows, dtype=dtype)
    expected = x.astype(np.float64) @ dense(weights, scale).astype(np.float64)
    bound = 1e-6 * (np.abs(x.astype(np.float64)) @ np.abs(dense(weights, scale))) + 1e-30
    for found in (x @ matrix, (matrix.T @ x.T).T, np.stack([each @ matrix for each in x])):
        assert found.dtype == np.float32
        assert (np.abs(found - expected) <= bound).all()


def test_sums_over_the_packed_rows_at_the_ends():
    """A row with NaN or infinity is NaN, a sum beyond float32 is infinite; no warning."""
    weights, _, matrix = of(40, 64, 32)
    x = np.ones((4, 40))
    x[0, 3], x[1, 4], x[2] = np.nan, np.inf, np.where(weights[:, 0] < 0, -1e300, 1e300)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = x @ matrix
    assert np.isnan(found[:2]).all()
    assert found[2, 0] == np.inf
    assert np.isfinite(found[3]).all()
    empty = ternops.pack(np.zeros((0, 64), np.int8), np.ones((0, 2)))
    assert cases.same_bits(np.ones((2, 0), np.float32) @ empty, np.zeros((2, 64), np.float32))
    assert (np.ones((2, 64), np.float32) @ empty.T).shape == (2, 0)


@pytest.mark.parametrize("duplicate", [copy.copy, copy.deepcopy,
                                       lambda each: pickle.loads(pickle.dumps(each))])  # fmt: skip
@pytest.mark.parametrize("transposed", [False, True])
@pytest.mark.parametrize("is_half", [True, False])
def test_copies_outlive_the_original(duplicate, transposed, is_half):
    """The same products once it is gone."""
    weights, scale, matrix = of(21, 320, 64, "base3", is_half)
    x = cases.floats(4, 320)
    expected = x @ matrix.T
    other = duplicate(matrix.T if transposed else matrix)
    del matrix
    gc.collect()
    litter = [np.full(1 << size, 9, np.uint8) for size in range(6, 18) for _ in range(20)]
    again = other.T if transposed else other
    assert cases.same_bits(x @ again.T, expected)
    assert cases.same_bits(again.scale, scale)
    assert cases.same_bits(again.to_trits(), weights)
    del litter


def test_it_does_not_follow_its_arguments():
    """Nor can its scale be written to a matrix through what `scale` gives."""
    weights, scale, _ = of(17, 128, 32)
    for given in (scale, scale.astype(np.float32) * np.float32(1 + 2**-20)):
        matrix = ternops.pack(weights, given)
        expected = matrix.scale.copy()
        given[:], kept = 7, matrix.scale
        if kept.flags.writeable:
            kept[:] = 7
        assert cases.same_bits(matrix.scale, expected)
