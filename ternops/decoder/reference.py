"""The same decoder in plain NumPy: the oracle of `forward`, and a float64 forward to judge both.

In one of three arithmetics (`ternops.decoder.arithmetics`): the kernels' own, float64, and float64
with activations that are not rounded to int8.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from ternops.bitdelta import DeltaMatrix
from ternops.decoder.adapter import AdaptedMatrix, adapted_layers
from ternops.decoder.architectures import INNER_NORMS, TAPS
from ternops.decoder.arithmetics import Double, Exact, Unquantised
from ternops.decoder.config import A48, Config
from ternops.decoder.loaded import LoadedModel, rotations_of
from ternops.decoder.weights import HalfMatrix, Layer
from ternops.kernels.reference_low import keep_largest
from ternops.matrix import TernaryMatrix

__all__ = ["Double", "Exact", "Unquantised", "logits", "perplexity", "states"]

Array = npt.NDArray[Any]
_SUMS = 512
#: The linear layers whose inputs BitNet a4.8 rounds to 4 bits.
_INT4_INPUTS = ("q", "k", "v", "gate", "up")


def logits(
    model: LoadedModel, token_ids: Sequence[int], arithmetic: type[Exact] | type[Double] = Exact,
    delta: str | None = None,
) -> Array:  # fmt: skip
    """(tokens, vocabulary) logits of one sequence, in the arithmetic's dtype.

    delta: the name of one of the model's, to whose signs each linear layer's inputs go as well.
    """
    m: Any = arithmetic
    c, w = model.config, model.weights
    x = _hidden(model, token_ids, arithmetic, delta)
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
    model: LoadedModel, token_ids: Sequence[int], arithmetic: type[Exact] | type[Double],
    delta: str | None = None,
) -> Array:  # fmt: skip
    """(tokens, hidden): what the last layer gives."""
    m: Any = arithmetic
    c = model.config
    w = model.weights
    x = w.embedding.to_dense()[list(token_ids)].astype(m.dtype) * np.float32(c.embedding_scale)
    residual = m.dtype(c.residual_scale)
    rotations = rotations_of(c, m.dtype)
    layers = adapted_layers(model.deltas.layers(w, delta), model.adapter)
    for number, layer in enumerate(layers):
        h = _norm(m, c, layer, "input", x)
        if c.is_delta(number):
            h = _linear(m, c, layer, "out", _delta_net(m, c, layer, h))
        else:
            h = _attention(m, model, layer, number, rotations[number], h)
            h = _linear(m, c, layer, "o", _norm(m, c, layer, "attention", h))
        h = _norm(m, c, layer, "o_output", h)
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
    if place not in layer.norms:
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
    is_low = config.activation_quantization == A48
    if is_low and name == "o":
        x = keep_largest(x, -(-x.shape[1] // 2))
    result = _product(m, x, matrix, is_low and name in _INT4_INPUTS)
    return result + layer.biases[name] if name in layer.biases else result


def _product(
    m: Any, x: Array, matrix: TernaryMatrix | HalfMatrix | DeltaMatrix | AdaptedMatrix,
    is_int4: bool = False,
) -> Array:  # fmt: skip
    if isinstance(matrix, AdaptedMatrix):
        adapted: Array = m.low_rank(_product(m, x, matrix.base), x, *matrix.beside)
        return adapted
    if isinstance(matrix, DeltaMatrix):
        tuned: Array = m.tuned(_product(m, x, matrix.base), x, matrix.signs)
        return tuned
    if isinstance(matrix, HalfMatrix):
        return _half(m, x, matrix)
    result: Array = m.ternary(x, matrix, is_int4)
    return result


def _half(m: Any, x: Array, matrix: HalfMatrix) -> Array:
    dense = matrix.to_dense().astype(m.dtype)
    # Some rows of x at a time: few calls, and temporary arrays that are small.
    step = max(1, _SUMS // max(1, len(dense)))
    parts = [m.dot(dense, x[i : i + step, None]) for i in range(0, len(x), step)]
    return np.concatenate(parts)


def _rotate(x: Array, cosine: Array, sine: Array) -> Array:
    half = cosine.shape[-1]
    a, b, rest = x[..., :half], x[..., half : 2 * half], x[..., 2 * half :]
    return np.concatenate([a * cosine - b * sine, b * cosine + a * sine, rest], axis=-1)


def _delta_net(m: Any, c: Config, layer: Layer, h: Array) -> Array:
    """What a gated delta net gives, before its output's product."""
    v = {name: each.astype(m.dtype) for name, each in layer.vectors.items()}
    mixed, z = (_linear(m, c, layer, name, h) for name in ("qkv", "z"))
    mixed = m.convolve(mixed, np.zeros((TAPS - 1, mixed.shape[1]), m.dtype), v["taps"])
    keys, shape = c.delta_key_heads * c.delta_key_dim, (-1, c.delta_key_heads, c.delta_key_dim)
    number = np.arange(c.delta_heads)
    ratio = c.delta_heads // c.delta_key_heads
    number = number % c.delta_key_heads if c.delta_tiled else number // ratio
    scale = m.dtype(1) / np.sqrt(m.dtype(c.delta_key_dim))
    queries = m.unit(mixed[:, :keys].reshape(shape), scale)[:, number]
    found = m.unit(mixed[:, keys : 2 * keys].reshape(shape), m.dtype(1))[:, number]
    values = mixed[:, 2 * keys :].reshape(-1, c.delta_heads, c.delta_value_dim)
    forget, write = (m.dot(v[name], h[:, None]) for name in ("forget", "write"))
    kept = m.exp(m.softplus(forget + v["forget_bias"]) * -v["forget_rate"])
    written, out = m.sigmoid(write), np.empty_like(values)
    state = np.zeros((c.delta_heads, c.delta_key_dim, c.delta_value_dim), m.dtype)
    for t in range(len(h)):
        state, out[t] = m.delta_step(state, queries[t], found[t], values[t], kept[t], written[t])
    out = _norm(m, c, layer, "delta", out) * m.silu(z.reshape(values.shape))
    return out.reshape(len(h), -1)


def _attention(
    m: Any, model: LoadedModel, layer: Layer, number: int, rotations: Sequence[Array], h: Array
) -> Array:
    c, count = model.config, len(h)
    q, k, v = (_linear(m, c, layer, name, h) for name in "qkv")
    q = q.reshape(count, c.heads, -1)
    q, gate = q[..., : c.head_dim], q[..., c.head_dim :]
    q = _norm(m, c, layer, "q", q)
    k = _norm(m, c, layer, "k", k.reshape(count, c.kv_heads, c.head_dim))
    cosine, sine = (each[:count, None] for each in rotations)
    queries, keys = _rotate(q, cosine, sine), _rotate(k, cosine, sine)
    keys, key_steps = m.cached(keys, model.cache)
    values, value_steps = m.cached(v.reshape(count, c.kv_heads, c.head_dim), model.cache)
    scale = m.dtype(1) / np.sqrt(m.dtype(c.query_scalar or c.head_dim))
    unseen = np.triu(np.full((count, count), -np.inf, m.dtype), 1)
    if window := c.window(number):
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
    if gate.size:
        out *= m.sigmoid(gate)
    return out.reshape(count, -1)
