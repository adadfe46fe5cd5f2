"""What every kernel must compute, in plain NumPy: the oracles.

Integer results are exact. Float results are exact too, because the order of every operation is
part of its definition: a sum is 16 partial sums, each a chain of fused multiply-adds over every
16th element, and then one fixed tree. Kernels on every tier and any number of threads give these
very bits.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]
LANES = 16
_COLUMNS = 2**16
_LEAST_NORMAL = np.finfo(np.float32).tiny

# exp(r) on |r| <= ln(2)/2: Taylor's coefficients 1/k!, good to 1 ulp of float32 there.
EXP_COEFFICIENTS = tuple(np.float32(1.0 / k) for k in (5040, 720, 120, 24, 6, 2, 1, 1))
LOG2_E = np.float32(1.4426950408889634)
# ln(2) in two parts; the first has few bits, so that n times it is exact (Cody and Waite).
LN2_HIGH = np.float32(0.693359375)
LN2_LOW = np.float32(-2.12194440054690583e-4)
#: Adding and subtracting it rounds a float32 below 2**22 to the nearest integer, ties to even.
ROUNDER = np.float32(1.5 * 2**23)
#: exp gives 0 below this.
EXP_MIN = np.float32(-87.0)


def matmul_int32(activations: Array, trits: Array) -> Array:
    """int8 (m, k) times int8 trits (n, k), transposed: the exact int32 (m, n).

    In float64, where sums of fewer than 2**39 such products are exact in any order: NumPy has a
    fast product of floats alone. It takes blocks of columns, for the memory of long rows.
    """
    total = np.zeros((len(activations), len(trits)), np.int64)
    for start in range(0, activations.shape[1], _COLUMNS):
        part = slice(start, start + _COLUMNS)
        found = activations[:, part].astype(np.float64) @ trits[:, part].T.astype(np.float64)
        total += found.astype(np.int64)
    return total.astype(np.int32)


def grouped_product(activations: Array, values: Array, scales: Array, steps: Array) -> Array:
    """int8 (m, k) times int8 (n, k), transposed, with a scale a group of columns: float32 (m, n).

    scales: (n, groups), steps: float32 (m, groups). The sums of a group are exact, and one chain of
    fused multiply-adds takes them in the order of the groups.
    """
    groups = scales.shape[1]
    size = activations.shape[1] // max(1, groups)
    result = np.zeros((len(activations), len(values)), np.float32)
    for group in range(groups):
        part = slice(group * size, (group + 1) * size)
        total = matmul_int32(activations[:, part], values[:, part]).astype(np.float32)
        factor = scales[:, group].astype(np.float32) * steps[:, group, None]
        result = fma(total, factor, result)
    return result


def delta_product(base: Array, x: Array, signs: Array, alpha: np.float32, floor: float) -> Array:
    """A product with a fine-tuned matrix: float32 base (m, n), that with the matrix it was tuned
    from, plus float32 x (m, k) times int8 signs (n, k), transposed, times alpha.

    x is rounded to int8 as `quantize_rows` has it, and its sums with the signs are exact; one float
    addition follows.
    """
    quantized, step = quantize_rows(x, floor)
    total = matmul_int32(quantized, signs).astype(np.float32)
    return base + total * alpha * step[:, None]


def low_rank(base: Array, x: Array, a: Array, b: Array, scale: float) -> Array:
    """A product, float32 (m, n), with two low-rank matrices beside it: base + scale * (x A^T) B^T.

    x: float32 (m, k); a: (rank, k); b: (n, rank). What A gives is scaled, and one chain of fused
    multiply-adds takes that in the order of the ranks.
    """
    z = dot(a, x[:, None]) * np.float32(scale)
    total = np.zeros_like(base)
    for rank in range(len(a)):
        total = fma(z[:, rank, None], b[:, rank], total)
    return base + total


def quantize_groups(x: Array, group: int, floor: float) -> tuple[Array, Array]:
    """As `quantize_rows`, with a step for each group of columns: steps (m, k / group)."""
    m, k = x.shape
    quantized, steps = quantize_rows(x.reshape(-1, group), floor)
    return quantized.reshape(m, k), steps.reshape(m, -1)


def quantize_rows(x: Array, floor: float) -> tuple[Array, Array]:
    """float32 (m, k) -> int8 (m, k) and the float32 (m,) step that one unit stands for.

    Per-row absmax (BitNet b1.58, arXiv 2402.17764, section 2): q = round(x * 127 / max|x|), ties
    to even, with max|x| at least `floor`. A row with NaN or infinity gets a NaN step.
    """
    absmax = np.abs(x).max(axis=1, initial=0.0)
    finite = np.isfinite(absmax)
    absmax = np.maximum(np.where(finite, absmax, 0), np.float32(floor)).astype(np.float32)
    scaled = np.where(finite[:, None], x, 0) * (np.float32(127) / absmax)[:, None]
    step = np.where(finite, absmax / np.float32(127), np.float32(np.nan))
    return np.rint(scaled).astype(np.int8), step.astype(np.float32)


def fma(a: npt.ArrayLike, b: npt.ArrayLike, c: npt.ArrayLike) -> Array:
    """float32 a * b + c, rounded once."""
    a64, b64, c64 = (np.asarray(each, np.float32).astype(np.float64) for each in (a, b, c))
    return _added(a64 * b64, c64).astype(np.float32)


def _added(product: Array, c64: Array) -> Array:
    """float64: a product of two float32, which float64 has exactly, plus a float32, rounded once to
    float32.

    Their sum is rounded to float64. Rounding that to float32 is one rounding too many only half-way
    between two float32: for those above the least normal one, where the last 29 bits are a 1 and
    zeros.
    """
    total = np.asarray(product + c64)
    doubtful = (total.view(np.int64) & (2**29 - 1)) == 2**28
    doubtful |= (np.abs(total) < _LEAST_NORMAL) & (total != 0)
    at = np.flatnonzero(doubtful)
    if at.size:
        flat = total.reshape(-1)  # a view
        flat[at] = _made_odd(_flat(product, total)[at], _flat(c64, total)[at], flat[at])
    return total.astype(np.float32).astype(np.float64)


def _chain(products: Iterable[Array], shape: tuple[int, ...]) -> Array:
    """float32: one chain of fused multiply-adds, from products of two float32 in float64."""
    total = np.zeros(shape)
    for product in products:
        total = _added(product, total)
    return total.astype(np.float32)


def _flat(x: Array, like: Array) -> Array:
    """The elements of an array, or of what it is broadcast to."""
    return (x if x.shape == like.shape else np.broadcast_to(x, like.shape)).reshape(-1)


def _made_odd(product: Array, c64: Array, total: Array) -> Array:
    """The float64 sums, odd where they are inexact, so that they are half-way between no two
    float32 (Boldo and Melquiond, "Emulation of FMA and correctly rounded sums", 2008)."""
    with np.errstate(invalid="ignore"):
        virtual = total - product
        error = (product - (total - virtual)) + (c64 - virtual)
    bits = total.view(np.int64)
    even = (bits & 1) == 0
    # Towards the error's sign: away from zero if the signs agree, else towards zero.
    step = np.where((error > 0) == (total > 0), 1, -1)
    inexact = np.isfinite(total) & (error != 0) & even
    return np.where(inexact, bits + step, bits).view(np.float64)


def tree_sum(partial: Array) -> Array:
    """float32 (..., 16) -> (...): the upper half onto the lower, four times."""
    while partial.shape[-1] > 1:
        half = partial.shape[-1] // 2
        partial = partial[..., :half] + partial[..., half:]
    return partial[..., 0]


def dot(a: Array, b: Array) -> Array:
    """float32 (..., k) . (..., k) -> (...), broadcasting, in the fixed order."""
    a, b = _whole_lanes(a), _whole_lanes(b)
    *shape, k = np.broadcast_shapes(a.shape, b.shape)
    parts = (slice(start, start + LANES) for start in range(0, k, LANES))
    return tree_sum(_chain((a[..., part] * b[..., part] for part in parts), (*shape, LANES)))


def _whole_lanes(x: Array) -> Array:
    """float32 (..., k) as float64, with zeros behind them up to whole LANES."""
    k = x.shape[-1]
    found = np.zeros((*x.shape[:-1], -(-k // LANES) * LANES))
    found[..., :k] = np.asarray(x, np.float32)
    return found


def int8_product(codes: Array, scales: Array, x: Array) -> Array:
    """int8 (n, k), float32 (n,) and (m, k) -> (m, n): x rounded to 16 bits, exact sums, scaled.

    A row of x becomes multiples of max|x| / 32512, ties to even; one with infinity or NaN is NaN.
    """
    absmax = np.maximum(np.abs(x).max(axis=1, initial=0.0), np.float32(1e-30)).astype(np.float32)
    finite = np.isfinite(absmax)
    factor = np.float32(32512) / np.where(finite, absmax, np.float32(1))
    whole = np.rint(np.where(finite[:, None], x, 0) * factor[:, None]).astype(np.float64)
    # Exact, as in `matmul_int32`: the terms are below 2**22.
    sums = (whole @ codes.T.astype(np.float64)).astype(np.float32)
    step = np.where(finite, absmax / np.float32(32512), np.float32(np.nan))
    return sums * step[:, None] * scales


def float8_product(weights: Array, factor: float, scales: Array, x: Array) -> Array:
    """float32 (n, k), float32 (n,) and (m, k) -> (m, n): dot products of a `factor`th of each
    weight, an exact float32, times the factor, times the scale."""
    return dot(weights / np.float32(factor), x[:, None]) * np.float32(factor) * scales


def rms_norm(x: Array, weight: Array, epsilon: float) -> Array:
    """float32 (..., k): x / sqrt(mean(x^2) + epsilon) * weight (Zhang and Sennrich, 2019)."""
    mean = dot(x, x) / np.float32(x.shape[-1])
    factor = np.float32(1) / np.sqrt(mean + np.float32(epsilon))
    return (x * factor[..., None]) * weight


def exp(x: Array) -> Array:
    """float32 e**x for x <= 88, within 1 ulp: 2**n times a polynomial of the remainder."""
    n = (fma(x, LOG2_E, ROUNDER) - ROUNDER).astype(np.float32)
    r = fma(n, -LN2_LOW, fma(n, -LN2_HIGH, x))
    p = np.broadcast_to(EXP_COEFFICIENTS[0], x.shape)
    for coefficient in EXP_COEFFICIENTS[1:]:
        p = fma(p, r, coefficient)
    power = ((n.astype(np.int32) + 127) << 23).view(np.float32)
    return np.where(x > EXP_MIN, p * power, np.float32(0))


def softmax(x: Array) -> Array:
    """float32 (..., k): exp(x - max) over its sum, the sum in the fixed order."""
    e = exp(x - x.max(axis=-1, keepdims=True))
    total = dot(e, np.ones(e.shape[-1], np.float32))
    return e * (np.float32(1) / total)[..., None]


def silu(x: Array) -> Array:
    """float32 x / (1 + exp(-x)), with the exponent kept where exp is finite."""
    return x / (np.float32(1) + exp(np.minimum(-x, np.float32(87))))


def sigmoid(x: Array) -> Array:
    """float32 1 / (1 + exp(-x))."""
    return np.float32(1) / (np.float32(1) + exp(np.minimum(-x, np.float32(87))))


# log(1 + u) / (2s) in powers of s^2, s = u / (2 + u) at most 1/3: good to 1 ulp of float32.
LOG_COEFFICIENTS = tuple(np.float32(1.0 / k) for k in (15, 13, 11, 9, 7, 5, 3, 1))


def softplus(x: Array) -> Array:
    """float32 log(1 + exp(x)), as max(x, 0) + log(1 + exp(-|x|))."""
    u = exp(-np.abs(x))
    s = u / (np.float32(2) + u)
    z = s * s
    p = np.broadcast_to(LOG_COEFFICIENTS[0], x.shape)
    for coefficient in LOG_COEFFICIENTS[1:]:
        p = fma(p, z, coefficient)
    return fma(s * np.float32(2), p, np.maximum(x, np.float32(0)))


def convolve(x: Array, before: Array, taps: Array) -> Array:
    """silu of float32 (t, k) convolved with taps (n, k), the oldest position first, one chain of
    fused multiply-adds; before: (n - 1, k), the rows before the first."""
    whole, count = np.concatenate([before, x]), len(x)
    total = whole[:count] * taps[0]
    for i in range(1, len(taps)):
        total = fma(whole[i : i + count], taps[i], total)
    return silu(total)


def unit(x: Array, scale: float) -> Array:
    """float32 (..., k) over its length, times scale; as transformers', of which 1e-6 is a part."""
    factor = np.float32(1) / np.sqrt(dot(x, x) + UNIT_EPSILON) * np.float32(scale)
    return x * factor[..., None]


#: What is added to the square of a length before it divides.
UNIT_EPSILON = np.float32(1e-6)


def delta_step(
    state: Array, query: Array, key: Array, value: Array, kept: Array, written: Array
) -> tuple[Array, Array]:
    """One token of the gated delta rule (arXiv 2412.06464), each head for itself.

    state: float32 (heads, k, d); query, key: (heads, k); value: (heads, d); kept, written:
    (heads,). Gives the new state, in which the key stands for the value, and what the query finds
    there, (heads, d). Sums over k are one chain of fused multiply-adds.
    """
    before = _sum_rows(key, state) * kept[:, None]
    change = (value - before) * written[:, None]
    state = fma(key[..., None], change[:, None], state * kept[:, None, None])
    return state, _sum_rows(query, state)


def _sum_rows(weights: Array, rows: Array) -> Array:
    """float32 (heads, k) and (heads, k, d) -> (heads, d)."""
    weights, rows = weights.astype(np.float64), rows.astype(np.float64)
    products = (weights[:, i, None] * rows[:, i] for i in range(rows.shape[1]))
    return _chain(products, (rows.shape[0], rows.shape[2]))


#: gelu_tanh's exponent is x * (GELU_LINEAR + GELU_CUBIC * x^2): 2 * sqrt(2/pi), times 0.044715.
GELU_LINEAR = np.float32(2 * (2 / np.pi) ** 0.5)
GELU_CUBIC = np.float32(2 * (2 / np.pi) ** 0.5 * 0.044715)


def gelu_tanh(x: Array) -> Array:
    """float32 x/2 * (1 + tanh(sqrt(2/pi) * (x + 0.044715 x^3))) (Hendrycks and Gimpel, 2016).

    As silu with another exponent, since (1 + tanh(u)) / 2 = 1 / (1 + exp(-2u)).
    """
    inner = fma(x * x, GELU_CUBIC, GELU_LINEAR) * x
    return x / (np.float32(1) + exp(np.minimum(-inner, np.float32(87))))


def weighted_sum(weights: Array, values: Array) -> Array:
    """float32 (..., t) and (t, d) -> (..., d): one chain of fused multiply-adds over t."""
    weights, values = weights.astype(np.float64), values.astype(np.float64)
    products = (weights[..., t, None] * values[t] for t in range(len(values)))
    return _chain(products, (*weights.shape[:-1], values.shape[-1]))


def scores(queries: Array, keys: Array) -> Array:
    """float32 (..., d) and (..., d) -> (...), broadcasting: one chain of fused multiply-adds."""
    queries, keys = queries.astype(np.float64), keys.astype(np.float64)
    products = (keys[..., d] * queries[..., d] for d in range(keys.shape[-1]))
    return _chain(products, np.broadcast_shapes(queries.shape, keys.shape)[:-1])


def to_half(x: Array) -> Array:
    """float32 rounded to float16, kept within its range; as float32."""
    return np.clip(x, -65504, 65504).astype(np.float16).astype(np.float32)
