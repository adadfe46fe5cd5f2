"""Bad input is one line that names the argument; unusual memory gives the right result."""

from __future__ import annotations

import numpy as np
import pytest

import ternops
from ternops.kernels import reference
from ternops.matrix import Packed, TernaryMatrix
from tests.helpers import cases
from tests.helpers.checks import fails

MOST = 2**24


@pytest.mark.parametrize(
    ("error", "words", "value"),
    [
        (TypeError, "trits int64", [[1, 0]]),
        (TypeError, "trits float32", np.zeros((2, 2), np.float32)),
        (TypeError, "trits uint8", np.zeros((2, 2), np.uint8)),
        (TypeError, "trits bool", np.zeros((2, 2), bool)),
        (TypeError, "trits", None),
        (TypeError, "trits", "abc"),
        (ValueError, "trits shape", np.zeros(3, np.int8)),
        (ValueError, "trits shape", np.zeros((2, 2, 2), np.int8)),
        (ValueError, "trits shape", np.int8(1)),
        (ValueError, "trits[0, 1] 2", np.array([[0, 2]], np.int8)),
        (ValueError, "trits[1, 0] -2", np.array([[0, 1], [-2, 0]], np.int8)),
        (ValueError, "trits[0, 0] -128", np.array([[-128, 0]], np.int8)),
        (ValueError, "trits[0, 0] 127", np.array([[127, 0]], np.int8)),
    ],
)
def test_pack_names_bad_trits(error, words, value):
    """Wrong dtypes, dimensions and values."""
    fails(error, words, lambda: ternops.pack(value))


@pytest.mark.parametrize(
    ("error", "words", "scale"),
    [
        (ValueError, "scale shape", np.ones(3, np.float32)),
        (ValueError, "scale shape", np.ones((2, 1), np.float32)),
        (ValueError, "scale finite", np.nan),
        (ValueError, "scale finite", np.inf),
        (ValueError, "scale finite", 1e39),
        (ValueError, "scale finite", np.array([1, np.nan], np.float32)),
        (TypeError, "scale dtype", "1"),
        (TypeError, "scale dtype", True),
        (TypeError, "scale dtype", 1j),
        (TypeError, "scale dtype", [None, None]),
    ],
)
def test_pack_names_a_bad_scale(error, words, scale):
    """One number or one a row, finite in float32."""
    fails(error, words, lambda: ternops.pack(cases.trits(2, 3), scale))


@pytest.mark.parametrize(
    ("error", "words", "value"),
    [
        (TypeError, "weight int8", np.zeros((2, 2), np.int8)),
        (TypeError, "weight int64", [[1, 2]]),
        (TypeError, "weight complex64", np.zeros((2, 2), np.complex64)),
        (TypeError, "weight", None),
        (ValueError, "weight shape", np.zeros(3)),
        (ValueError, "weight shape", np.zeros((1, 2, 3))),
        (ValueError, "weight[0, 1] nan", np.array([[0, np.nan]], np.float32)),
        (ValueError, "weight[1, 0] inf", np.array([[0, 1], [np.inf, 0]], np.float16)),
        (ValueError, "weight[0, 0] -inf", np.array([[-np.inf, 0]])),
        (ValueError, "weight", np.array([[1e300, 1e300]])),
        (ValueError, "weight", np.array([[1.7e308, 1.7e308]])),
    ],
)
def test_quantize_names_bad_weights(error, words, value):
    """Wrong dtypes, dimensions, and what is not finite, with its place."""
    words = words.replace("weight", "w")
    fails(error, words, lambda: ternops.quantize(value))


@pytest.mark.parametrize("encoding", ["four_bit", "", None, 2, "TWO_BIT"])
def test_an_unknown_encoding_is_named(encoding):
    """By both functions that take one."""
    fails(ValueError, "encoding two_bit", lambda: ternops.pack(cases.trits(2, 2), None, encoding))
    weight = np.ones((2, 2), np.float32)
    fails(ValueError, "encoding two_bit", lambda: ternops.quantize(weight, encoding))


def test_sums_that_could_overflow_are_refused():
    """2**24 terms times -128 exceed int32; nothing that large is ever copied."""
    for rows in (0, 1, 2**20):
        trits = np.broadcast_to(np.int8(0), (rows, MOST))
        fails(ValueError, "trits 2**24", lambda: ternops.pack(trits))  # noqa: B023
        weight = np.broadcast_to(np.float32(0), (rows, MOST))
        fails(ValueError, "w 2**24", lambda: ternops.quantize(weight))  # noqa: B023
    tall = TernaryMatrix(Packed(np.zeros(MOST + 64, np.uint8), MOST, 1, None, "two_bit"))
    x = np.broadcast_to(np.int8(0), (MOST,))
    fails(ValueError, "2**24", lambda: x @ tall)
    fails(ValueError, "2**24", lambda: tall.T @ x)
    limit = 2**24 // 3  # the level that is farthest from 0 counts, on either side
    for levels in (range(-3, 2), range(-1, 4)):
        trits = np.broadcast_to(np.int8(0), (1, limit))
        fails(ValueError, f"trits {limit}",
              lambda: ternops.pack(trits, None, "three_bit", levels=levels))  # noqa: B023  # fmt: skip


@pytest.mark.parametrize("threads", [0, -1, 257, 10**30])
def test_a_number_of_threads_out_of_range(threads):
    """A ValueError that names the argument, before anything else is looked at."""
    matrix, x = ternops.pack(cases.trits(2, 3)), cases.activations(3)
    fails(ValueError, "threads 256", lambda: ternops.matmul(matrix, x, threads=threads))


@pytest.mark.parametrize("threads", [True, 2.5, "2", [2], np.float32(2)])
def test_an_invalid_number_of_threads(threads):
    """A TypeError that names the argument."""
    matrix, x = ternops.pack(cases.trits(2, 3)), cases.activations(3)
    fails(TypeError, "threads integer", lambda: ternops.matmul(matrix, x, threads=threads))


def test_an_integer_of_numpy_is_a_number_of_threads():
    """np.int64 counts as an integer."""
    matrix, x = ternops.pack(cases.trits(2, 3)), cases.activations(3)
    result = ternops.matmul(matrix, x, threads=np.int64(2))
    assert cases.same_bits(result, reference.matmul_int32(x[None], matrix.to_trits())[0])


def test_mismatched_shapes_are_named():
    """The operand, its shape, and the matrix's."""
    matrix = ternops.pack(cases.trits(5, 7))
    for name, call in (
        ("b", lambda: matrix @ cases.activations(5)),
        ("b", lambda: matrix @ cases.activations(3, 5)),
        ("a", lambda: cases.activations(7) @ matrix),
        ("a", lambda: cases.activations(2, 7) @ matrix),
        ("b", lambda: matrix.T @ cases.activations(7)),
        ("a", lambda: ternops.matmul(np.int8(3), matrix)),
    ):
        fails(ValueError, f"matmul: {name}", call)


@pytest.mark.parametrize(
    ("error", "make"),
    [
        (ValueError, lambda: np.empty((3, 6), np.int32)),
        (ValueError, lambda: np.empty(15, np.int32)),
        (ValueError, lambda: np.empty((5, 3), np.int32)),
        (ValueError, lambda: np.broadcast_to(np.int32(0), (3, 5))),
        (TypeError, lambda: np.empty((3, 5), bool)),
        (TypeError, lambda: np.empty((3, 5), np.uint32)),
        (TypeError, lambda: [[0] * 5] * 3),
        (TypeError, lambda: "out"),
    ],
)
def test_a_bad_out_is_named(error, make):
    """Wrong shape, dtype, type, and memory that cannot be written."""
    matrix, x = ternops.pack(cases.trits(5, 7)), cases.activations(3, 7)
    fails(error, "out", lambda: ternops.matmul(x, matrix.T, out=make()))


def test_float_results_do_not_go_into_integers():
    """numpy.matmul refuses this cast too."""
    matrix, x = ternops.pack(cases.trits(5, 7)), cases.floats(3, 7)
    fails(TypeError, "out", lambda: ternops.matmul(x, matrix.T, out=np.empty((3, 5), np.int32)))
