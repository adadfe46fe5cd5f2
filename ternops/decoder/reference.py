"""The same decoder in plain NumPy: the oracle of `forward`, and a float64 forward to judge both.

Three arithmetics: `Exact` computes every float32 operation in the kernels' order, so that its
logits have the kernels' very bits; `Double` computes the same quantised model in float64, and
`Unquantised` one whose activations are not rounded to int8.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from ternops.absmean import floor_of
from ternops.decoder.architectures import INNER_NORMS
from ternops.decoder.config import Config
from ternops.decoder.formats.scales import products
from ternops.decoder.loaded import LoadedModel, rotations_of
from ternops.decoder.weights import HalfMatrix, Layer
from ternops.kernels import reference
from ternops.kernels.attention import MIN_CACHED
from ternops.matrix import TernaryMatrix

Array = npt.NDArray[Any]
_SUMS = 512


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
    fma = staticmethod(reference.fma)

    @staticmethod
    def cached(x: Array, kind: str) -> tuple[Array, Array]:
        """Keys or values (..., d) as the cache has them: elements, and a step a position."""
        if kind != "int8":
            elements = x if kind == "fp32" else reference.to_half(x)
            return elements, np.ones(x.shape[:-1], np.float32)
        quantized, step = reference.quantize_rows(x.reshape(-1, x.shape[-1]), MIN_CACHED)
        return quantized.reshape(x.shape).astype(np.float32), step.reshape(x.shape[:-1])

    @staticmethod
    def ternary(x: Array, matrix: TernaryMatrix) -> Array:
        if matrix.group:
            quantized, steps = reference.quantize_groups(x, matrix.group, floor_of(True))
            scales = np.asarray(matrix.scale, np.float32)
            return reference.grouped_product(quantized, matrix.to_trits(), scales, steps)
        quantized, step = reference.quantize_rows(x, floor_of(False))
        total = reference.matmul_int32(quantized, matrix.to_trits()).astype(np.float32)
        assert matrix.scale is not None
        return total * matrix.scale * step[:, None]


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
    def fma(a: Array, b: Any, c: Array) -> Array:
        return a * b + c

    @staticmethod
    def ternary(x: Array, matrix: TernaryMatrix) -> Array:
        if group := matrix.group:
            parts = x.reshape(len(x), -1, group)
            absmax = np.maximum(np.abs(parts).max(axis=2, keepdims=True), floor_of(True))
            rounded = np.rint(parts * (127 / absmax)) * (absmax / 127)
            return rounded.reshape(x.shape) @ _dense(matrix).T
        absmax = np.maximum(np.abs(x).max(axis=1, keepdims=True), floor_of(False))
        quantized = np.rint(x * (127 / absmax))
        assert matrix.scale is not None
        return (quantized @ matrix.to_trits().T) * (matrix.scale * absmax / 127)


class Unquantised(Double):
    """float64 with activations as they are: a model whose weights alone are ternary."""

    @staticmethod
    def ternary(x: Array, matrix: TernaryMatrix) -> Array:
        return x @ _dense(matrix).T


def _dense(matrix: TernaryMatrix) -> Array:
    """float64 (rows, columns): trits times scale."""
    return products(matrix.to_trits().astype(np.float64), np.asarray(matrix.scale, np.float64))


def logits(
    model: LoadedModel, token_ids: Sequence[int], arithmetic: type[Exact] | type[Double] = Exact
) -> Array:
    """(tokens, vocabulary) logits of one sequence, in the arithmetic's dtype."""
    m: Any = arithmetic
    c, w = model.config, model.weights
    x = _hidden(model, token_ids, arithmetic)
    return _product(m, m.rms_norm(x, w.norm * m.dtype(c.logit_scale), c.epsilon), w.head)


def states(
    model: LoadedModel, token_ids: Sequence[int], arithmetic: type[Exact] | type[Double] = Exact
) -> Array:
    """(tokens, hidden): the normed hidden states of one sequence, in the arithmetic's dtype."""
    m: Any = arithmetic
    x = _hidden(model, token_ids, arithmetic)
    result: Array = m.rms_norm(x, model.weights.norm, model.config.epsilon)
    return result


def _hidden(
    model: LoadedModel, token_ids: Sequence[int], arithmetic: type[Exact] | type[Double]
) -> Array:
    """(tokens, hidden): what the last layer gives."""
    m: Any = arithmetic
    c = model.config
    w = model.weights
    x = w.embedding.to_dense()[list(token_ids)].astype(m.dtype) * np.float32(c.embedding_scale)
    residual = m.dtype(c.residual_scale)
    rotations = rotations_of(c, m.dtype)
    for number, layer in enumerate(w.layers):
        h = _norm(m, c, layer, "input", x)
        q, k, v = (_linear(m, c, layer, name, h) for name in "qkv")
        q = _norm(m, c, layer, "q", q.reshape(-1, c.heads, c.head_dim))
        k = _norm(m, c, layer, "k", k.reshape(-1, c.kv_heads, c.head_dim))
        h = _attention(m, model, number, rotations[number], q, k, v)
        h = _norm(m, c, layer, "attention", h)
        h = _norm(m, c, layer, "o_output", _linear(m, c, layer, "o", h))
        x = m.fma(h, residual, x)
        h = _norm(m, c, layer, "post", x)
        gate, up = (_linear(m, c, layer, name, h) for name in ("gate", "up"))
        h = _norm(m, c, layer, "ffn", _activation(m, c, gate) * up)
        h = _norm(m, c, layer, "down_output", _linear(m, c, layer, "down", h))
        x = m.fma(h, residual, x)
    result: Array = x
    return result


def perplexity(logits: Array, token_ids: Sequence[int]) -> float:
    """exp of the mean negative log-likelihood of each token but the first, in float64."""
    scores = logits[:-1].astype(np.float64)
    scores -= scores.max(axis=1, keepdims=True)
    chosen = scores[np.arange(len(scores)), list(token_ids)[1:]]
    return float(np.exp(np.mean(np.log(np.exp(scores).sum(axis=1)) - chosen)))


def _norm(m: Any, config: Config, layer: Layer, place: str, x: Array) -> Array:
    """x as it is, where the architecture has no norm in this place."""
    if place not in config.norms:
        return x
    epsilon = config.inner_epsilon if place in INNER_NORMS else config.epsilon
    result: Array = m.rms_norm(x, layer.norms[place], epsilon)
    return result


def _activation(m: Any, config: Config, x: Array) -> Array:
    if config.activation == "relu2":
        positive = np.maximum(x, 0)
        return positive * positive
    result: Array = getattr(m, config.activation)(x)
    return result


def _linear(m: Any, config: Config, layer: Layer, name: str, x: Array) -> Array:
    """A linear layer, with the norm and the bias that it may have."""
    x, matrix = _norm(m, config, layer, f"{name}_input", x), layer.linear[name]
    result = _product(m, x, matrix)
    return result + layer.biases[name] if name in layer.biases else result


def _product(m: Any, x: Array, matrix: TernaryMatrix | HalfMatrix) -> Array:
    result: Array = _half(m, x, matrix) if isinstance(matrix, HalfMatrix) else m.ternary(x, matrix)
    return result


def _half(m: Any, x: Array, matrix: HalfMatrix) -> Array:
    dense = matrix.to_dense().astype(m.dtype)
    # Some rows of x at a time: few calls, and temporary arrays that are small.
    step = max(1, _SUMS // max(1, len(dense)))
    parts = [m.dot(dense, x[i : i + step, None]) for i in range(0, len(x), step)]
    return np.concatenate(parts)


def _rotate(x: Array, cosine: Array, sine: Array) -> Array:
    half = x.shape[-1] // 2
    a, b = x[..., :half], x[..., half:]
    return np.concatenate([a * cosine - b * sine, b * cosine + a * sine], axis=-1)


def _attention(
    m: Any, model: LoadedModel, layer: int, rotations: Sequence[Array], q: Array, k: Array, v: Array
) -> Array:
    c, count = model.config, len(q)
    cosine, sine = (each[:count, None] for each in rotations)
    queries, keys = _rotate(q, cosine, sine), _rotate(k, cosine, sine)
    keys, key_steps = m.cached(keys, model.cache)
    values, value_steps = m.cached(v.reshape(count, c.kv_heads, c.head_dim), model.cache)
    scale = m.dtype(1) / np.sqrt(m.dtype(c.query_scalar or c.head_dim))
    unseen = np.triu(np.full((count, count), -np.inf, m.dtype), 1)
    if window := c.window(layer):
        unseen += np.tril(np.full((count, count), -np.inf, m.dtype), -window)
    out = np.empty_like(queries)
    shared = np.arange(c.heads) // c.group  # which keys and values a head has
    queries, keys = queries.swapaxes(0, 1), keys.swapaxes(0, 1)[shared]
    scores = m.scores(queries[:, :, None], keys[:, None]) * scale
    with np.errstate(invalid="ignore"):
        weights = m.softmax(scores * key_steps.T[shared, None] + unseen)
    weights = weights * value_steps.T[shared, None]
    for head in range(c.heads):
        out[:, head] = m.weighted_sum(weights[head], values[:, shared[head]])
    return out.reshape(count, -1)
