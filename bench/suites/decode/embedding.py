"""Texts to vectors: how many a second, beside the same decoder with fp16 weights."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import numpy as np

from bench.core.envelope import TIER
from bench.core.goals import Goal
from bench.core.measure import Case, speedup
from bench.suites.decode.cases import DecodeOptions
from ternops.cost.layouts import EMBEDDERS
from ternops.decoder import Model
from ternops.decoder.embed import Embedder
from ternops.decoder.weights import random_weights
from ternops.kernels.tuning import best_encoding

TEXTS, TOKENS = 32, 128
_ASKED = 3.0
#: Matrices of so many layers, which the others use as well: a pass of 512 tokens computes far
#: longer than it reads.
_DISTINCT = 4


def embed(options: DecodeOptions) -> Iterator[Goal]:
    """32 texts of 128 tokens to vectors, beside the same decoder with fp16 weights"""
    for size, config in EMBEDDERS.items():
        random = np.random.default_rng(0)
        sequences = random.integers(0, config.vocabulary, (TEXTS, TOKENS)).tolist()
        encoding = best_encoding(config.linear_weights)
        cases = {}
        for kind in (encoding, "fp16"):
            weights = random_weights(config, kind, distinct=_DISTINCT)
            model = Model(weights, options.threads, "fp16", sparse="never")
            run = partial(Embedder(model), sequences)
            metadata = {"ternops_threads": model.threads, "ternops_tier": TIER}
            cases[kind] = Case(f"embed {size} {kind}, {TOKENS} tokens", run, TEXTS, metadata)
        options.measure([*cases.values()], max(2, options.rounds // 3))
        ours, fp16 = cases[encoding], cases["fp16"]
        yield Goal(
            "embed", f"{size}, {encoding} over fp16 weights", _ASKED,
            speedup(fp16.values, ours.values).median, "x",
            f"{1 / ours.median:.2f} and {1 / fp16.median:.2f} texts/s of {TOKENS} tokens, "
            f"{TEXTS} texts",
        )  # fmt: skip
