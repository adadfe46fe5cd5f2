"""The arithmetics that the reference decoder computes in.

`Exact` has every float32 operation in the kernels' order, so that its logits have the kernels' very
bits; `Double` computes the same quantised model in float64, and `Unquantised` one whose activations
are not rounded to int8.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from ternops.absmean import MIN_ABSMAX, floor_of
from ternops.decoder.formats.scales import products
from ternops.kernels import reference, reference_low
from ternops.kernels.attention import MIN_CACHED
from ternops.matrix import TernaryMatrix

Array = npt.NDArray[Any]


class Exact:
    """float32 as the kernels compute it."""

    dtype = np.float32
    dot = staticmethod(reference.dot)
    scores = staticmethod(reference.scores)
    softmax = staticmethod(reference.softmax)
    weighted_sum = staticmethod(reference.weighted_sum)
    rms_norm = staticmethod(reference.rms_norm)
    silu = staticmethod(reference.silu)
    gelu_tanh = staticmethod(reference.gelu_tanh)
    sigmoid = staticmethod(reference.sigmoid)
    softplus = staticmethod(reference.softplus)
    exp = staticmethod(reference.exp)
    convolve = staticmethod(reference.convolve)
    unit = staticmethod(reference.unit)
    delta_step = staticmethod(reference.delta_step)
    fma = staticmethod(reference.fma)
    low_rank = staticmethod(reference.low_rank)

    @staticmethod
    def cached(x: Array, kind: str) -> tuple[Array, Array]:
        """Keys or values (..., d) as the cache has them: elements, and a step a position."""
        if kind in ("fp16", "fp32"):
            elements = x if kind == "fp32" else reference.to_half(x)
            return elements, np.ones(x.shape[:-1], np.float32)
        rows = x.reshape(-1, x.shape[-1])
        if kind == "int3":
            codes, step = reference_low.quantize_three_bits(rows, MIN_CACHED)
            quantized = codes.astype(np.float32) - reference_low.MIDDLE
        else:
            quantized, step = reference.quantize_rows(rows, MIN_CACHED)
        return quantized.reshape(x.shape).astype(np.float32), step.reshape(x.shape[:-1])

    @staticmethod
    def ternary(x: Array, matrix: TernaryMatrix, is_int4: bool = False) -> Array:
        if matrix.group:
            quantized, steps = reference.quantize_groups(x, matrix.group, floor_of(True))
            scales = np.asarray(matrix.scale, np.float32)
            return reference.grouped_product(quantized, matrix.to_trits(), scales, steps)
        quantize = reference_low.quantize_absmean if is_int4 else reference.quantize_rows
        quantized, step = quantize(x, floor_of(False))
        total = reference.matmul_int32(quantized, matrix.to_trits()).astype(np.float32)
        assert matrix.scale is not None
        return total * matrix.scale * step[:, None]

    @staticmethod
    def tuned(product: Array, x: Array, signs: TernaryMatrix) -> Array:
        """A product with the base, and what a delta's signs make of it."""
        alpha = np.float32(np.asarray(signs.scale))
        return reference.delta_product(product, x, signs.to_trits(), alpha, MIN_ABSMAX)


class Double:
    """float64, in NumPy's own order."""

    dtype = np.float64

    @staticmethod
    def dot(a: Array, b: Array) -> Array:
        return np.einsum("...k,...k->...", a, b)

    scores = dot

    @staticmethod
    def cached(x: Array, kind: str) -> tuple[Array, Array]:
        return x, np.ones(x.shape[:-1])

    @staticmethod
    def softmax(x: Array) -> Array:
        e = np.exp(x - x.max(axis=-1, keepdims=True))
        return e / e.sum(axis=-1, keepdims=True)

    @staticmethod
    def weighted_sum(weights: Array, values: Array) -> Array:
        return weights @ values

    @staticmethod
    def rms_norm(x: Array, weight: Array, epsilon: float) -> Array:
        return x / np.sqrt(np.mean(x * x, axis=-1, keepdims=True) + epsilon) * weight

    @staticmethod
    def silu(x: Array) -> Array:
        return x / (1 + np.exp(-x))

    @staticmethod
    def gelu_tanh(x: Array) -> Array:
        return x / 2 * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3)))

    @staticmethod
    def sigmoid(x: Array) -> Array:
        return 1 / (1 + np.exp(-x))

    @staticmethod
    def softplus(x: Array) -> Array:
        return np.logaddexp(0, x)

    exp = np.exp

    @staticmethod
    def convolve(x: Array, before: Array, taps: Array) -> Array:
        whole = np.concatenate([before, x])
        return Double.silu(sum(tap * whole[i : i + len(x)] for i, tap in enumerate(taps)))

    @staticmethod
    def unit(x: Array, scale: float) -> Array:
        return x * scale / np.sqrt((x * x).sum(axis=-1, keepdims=True) + 1e-6)

    @staticmethod
    def delta_step(
        state: Array, query: Array, key: Array, value: Array, kept: Array, written: Array
    ) -> tuple[Array, Array]:
        state = state * kept[:, None, None]
        change = (value - np.einsum("hk,hkd->hd", key, state)) * written[:, None]
        state = state + key[..., None] * change[:, None]
        return state, np.einsum("hk,hkd->hd", query, state)

    @staticmethod
    def fma(a: Array, b: Any, c: Array) -> Array:
        return a * b + c

    @staticmethod
    def low_rank(product: Array, x: Array, a: Array, b: Array, scale: float) -> Array:
        return product + scale * (x @ a.T.astype(np.float64)) @ b.T

    @staticmethod
    def ternary(x: Array, matrix: TernaryMatrix, is_int4: bool = False) -> Array:
        if group := matrix.group:
            parts = x.reshape(len(x), -1, group)
            absmax = np.maximum(np.abs(parts).max(axis=2, keepdims=True), floor_of(True))
            rounded = np.rint(parts * (127 / absmax)) * (absmax / 127)
            return rounded.reshape(x.shape) @ _dense(matrix).T
        if is_int4:
            step = np.maximum(np.abs(x).mean(axis=1, keepdims=True), floor_of(False)) / np.sqrt(7)
            quantized = np.clip(np.rint(x / step), -8, 7)
        else:
            step = np.maximum(np.abs(x).max(axis=1, keepdims=True), floor_of(False)) / 127
            quantized = np.rint(x / step)
        assert matrix.scale is not None
        return (quantized @ matrix.to_trits().T) * (matrix.scale * step)

    @staticmethod
    def tuned(product: Array, x: Array, signs: TernaryMatrix) -> Array:
        absmax = np.maximum(np.abs(x).max(axis=1, keepdims=True), MIN_ABSMAX)
        return product + np.rint(x * (127 / absmax)) * (absmax / 127) @ _dense(signs).T


class Unquantised(Double):
    """float64 with activations as they are: a model whose weights alone are ternary."""

    @staticmethod
    def ternary(x: Array, matrix: TernaryMatrix, is_int4: bool = False) -> Array:
        return x @ _dense(matrix).T

    @staticmethod
    def tuned(product: Array, x: Array, signs: TernaryMatrix) -> Array:
        return product + x @ _dense(signs).T


def _dense(matrix: TernaryMatrix) -> Array:
    """float64 (rows, columns): trits times scale."""
    return products(matrix.to_trits().astype(np.float64), np.asarray(matrix.scale, np.float64))
