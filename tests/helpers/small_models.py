"""Small random models of odd sizes, for tests that decode."""

from __future__ import annotations

import dataclasses
import itertools
from typing import Any

import numpy as np

from ternops.bitdelta import delta
from ternops.decoder import Config, Model
from ternops.decoder.deltas import Delta, fingerprint_of
from ternops.decoder.weights import (
    HalfMatrix,
    Layer,
    Weights,
    random_half,
    random_ternary,
    random_weights,
)
from ternops.matrix import TernaryMatrix, quantize
from tests.helpers import cases

#: Small models of odd sizes: heads x head_dim need not be hidden, nothing is a power of two.
SIZES: dict[str, dict[str, Any]] = {
    "hidden 24": {"hidden": 24, "ffn": 70, "heads": 3, "kv_heads": 1, "head_dim": 10},
    "hidden 100": {"hidden": 100, "ffn": 70, "heads": 3, "kv_heads": 3, "head_dim": 50},
    "hidden 200": {"hidden": 200, "ffn": 300, "heads": 6, "kv_heads": 3, "head_dim": 100},
    "hidden 1": {"hidden": 1, "ffn": 1, "heads": 1, "kv_heads": 1, "head_dim": 2},
    "hidden 128": {"hidden": 128, "ffn": 384, "heads": 4, "kv_heads": 2, "head_dim": 64},
    "hidden 257": {"hidden": 257, "ffn": 513, "heads": 2, "kv_heads": 1, "head_dim": 34},
}
#: Each trunk, with scales and epsilons that show where one is left out.
LAYOUTS: dict[str, dict[str, Any]] = {
    "bitnet": {"activation": "relu2", "architecture": "bitnet", "tied": True},
    "llama": {"activation": "silu", "architecture": "llama", "tied": False},
    "qwen2": {"activation": "silu", "architecture": "qwen2", "tied": False},
    "qwen3": {"activation": "silu", "architecture": "qwen3", "tied": True},
    "qwen3 inner": {
        "activation": "silu", "architecture": "qwen3", "tied": True, "inner_norms": True,
        "inner_epsilon": 1e-3,
    },
    "gemma3": {
        "activation": "gelu_tanh", "architecture": "gemma3", "tied": True, "windows": (7, 0),
        "rope_local_theta": 300.0, "query_scalar": 21.0, "embedding_scale": 4.9,
    },
    "minicpm": {
        "activation": "silu", "architecture": "minicpm", "tied": False, "embedding_scale": 12.0,
        "residual_scale": 0.31, "logit_scale": 0.3, "rope_scale": 1.1,
    },
    "qwen3.5": {
        "activation": "silu", "architecture": "qwen3.5", "tied": False, "rotary_dim": 2,
        "delta_layers": (1, 0), "delta_heads": 6, "delta_key_heads": 3, "delta_key_dim": 10,
        "delta_value_dim": 21,
    },
    "qwen3.5 tiled": {
        "activation": "silu", "architecture": "qwen3.5", "tied": True, "delta_layers": (0, 1),
        "delta_heads": 4, "delta_key_heads": 2, "delta_key_dim": 33, "delta_value_dim": 80,
        "delta_tiled": True,
    },
}  # fmt: skip


def small_config(size: str, layout: str, **changes: Any) -> Config:
    """A Config of two layers, 33 tokens and a short context."""
    settings = {
        "layers": 2,
        "vocabulary": 33,
        "context": 40,
        **SIZES[size],
        **LAYOUTS[layout],
    }
    return Config(**{**settings, **changes})


def tokens_of(config: Config, count: int, seed: int = 0) -> list[int]:
    """Random tokens of its vocabulary."""
    tokens: list[int] = np.random.default_rng(seed).integers(0, config.vocabulary, count).tolist()
    return tokens


def small_model(
    config: Config,
    kind: str = "two_bit",
    threads: int = 2,
    bf16: bool = False,
    head: str = "fp16",
    cache: str = "fp16",
    group: int = 0,
) -> Model:
    """A random model whose norms are not all 1, with a bfloat16 embedding if asked for."""
    plain = random_weights(config, kind, seed=1, group=group)
    random = np.random.default_rng(2)
    layers = [
        Layer(
            layer.linear,
            {
                name: random.uniform(0.5, 2, len(norm)).astype(np.float32)
                for name, norm in layer.norms.items()
            },
            {
                name: random.normal(0, 1, len(bias)).astype(np.float32)
                for name, bias in layer.biases.items()
            },
            layer.vectors,
        )
        for layer in plain.layers
    ]
    embedding, head_matrix = plain.embedding, plain.head
    if bf16:
        bits = (embedding.to_dense().view(np.uint32) >> 16).astype(np.uint16)
        embedding = HalfMatrix.from_bits(bits, is_bf16=True)
        head_matrix = embedding if config.tied else HalfMatrix.from_bits(bits[::-1], is_bf16=True)
    norm = random.uniform(0.5, 2, config.hidden).astype(np.float32)
    return Model(Weights(config, layers, norm, embedding, head_matrix), threads, head, cache)


def small_delta(weights: Weights, seed: int = 0) -> Delta:
    """A fine-tune of random weights that changes each of them by about a third."""
    random = np.random.default_rng((seed, 5))
    layers: list[dict[str, TernaryMatrix]] = []
    for layer in weights.layers:
        layers.append({})
        for name, base in layer.linear.items():
            dense = base.to_dense()
            change = random.normal(0, 0.3, dense.shape) * max(1e-3, np.abs(dense).mean())
            layers[-1][name] = delta(base, (dense + change).astype(np.float32)).signs
    return Delta(layers, fingerprint_of(weights))


def tuned_model(model: Model, count: int = 3, threads: int | None = None) -> Model:
    """The same model with the deltas "a", "b" and so on."""
    deltas = {name: small_delta(model.weights, seed)
              for seed, name in enumerate("abcdefghijkl"[:count])}  # fmt: skip
    return Model(
        model.weights, threads or model.threads, model.head.kind, model.cache, deltas=deltas
    )


NF4 = quantize(cases.floats(16, 64), method="nf4").levels
#: (encoding, columns that share a scale, levels), as neighbours in every combination of layouts.
TYPES = (
    ("two_bit", 0, ()),
    ("nibble", 32, NF4),
    ("fp16", 0, ()),
    ("two_bit", 64, (-3, -1, 1, 3)),
    ("base3", 0, ()),
    ("nibble", 32, tuple(range(-8, 8))),
    ("eight_bit", 0, ()),
    ("tl2", 0, ()),
    ("one_bit", 64, ()),
    ("three_bit", 16, tuple(range(-7, 8, 2))),
)


def _matrix(
    kind: tuple[str, int, tuple[int, ...]], shape: tuple[int, int], random: np.random.Generator
) -> TernaryMatrix | HalfMatrix:
    encoding, group, levels = kind
    if encoding == "fp16":
        return random_half(*shape, random)
    return random_ternary(*shape, encoding, random, group=group, levels=levels)


def mixed_weights(config: Config, types: Any = TYPES, seed: int = 0) -> Weights:
    """Random weights, each matrix of the next type."""
    weights, random = random_weights(config, "two_bit", seed), np.random.default_rng(seed)
    kinds = itertools.cycle(types)
    layers = [
        dataclasses.replace(
            layer,
            linear={
                name: _matrix(next(kinds), matrix.shape, random)
                for name, matrix in layer.linear.items()
            },
        )
        for layer in weights.layers
    ]
    return dataclasses.replace(weights, layers=layers)
