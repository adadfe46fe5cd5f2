"""One base and many fine-tunes of one bit a weight, beside as many fine-tunes in fp16."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from bench.core.envelope import TIER
from bench.core.goals import Goal
from bench.core.measure import Case, speedup
from bench.suites.decode.cases import DecodeOptions
from ternops.cost.layouts import SIZES
from ternops.decoder import Batch, Model
from ternops.decoder.deltas import Delta, fingerprint_of
from ternops.decoder.session import Session
from ternops.decoder.weights import Weights, random_ternary, random_weights
from ternops.encodings.one_bit import ONE_BIT
from ternops.matrix import TernaryMatrix
from ternops.memory import Arena

#: The layout, sequences with a fine-tune each, tokens of each, and how the base may be held.
_SIZE, _COUNT, _TOKENS, _BASES = "7B", 8, 2, ("fp16", "two_bit")
#: Matrices of so many layers, which the others use as well: more than any cache holds.
_DISTINCT = 4
_ASKED, _MOST_BYTES = 4.0, 1.2e9


def deltas(options: DecodeOptions) -> Iterator[Goal]:
    """8 sequences, each with a delta of its own, beside 8 fine-tunes in fp16"""
    config = SIZES[_SIZE]
    cases = {}
    for kind in _BASES:
        weights = random_weights(config, kind, distinct=_DISTINCT)
        tuned = {f"tuned {i}": _random_delta(weights, i) for i in range(_COUNT)}
        model = Model(weights, options.threads, "fp16", sparse="never", deltas=tuned)
        cases[kind] = _together(model)
        if kind == "fp16":
            alone = _apart(Model(weights, options.threads, "fp16"))
    options.measure([alone, *cases.values()], max(2, options.rounds // 3))
    for kind, case in cases.items():
        yield Goal(
            "deltas", f"{_SIZE}, {_COUNT} deltas on a {kind} base, over {_COUNT} fp16 models",
            _ASKED, speedup(alone.values, case.values).median, "x",
            f"{1 / case.median:.2f} and {1 / alone.median:.2f} tokens/s",
        )  # fmt: skip
    size = next(iter(tuned.values())).nbytes
    fp16 = 2 * config.linear_weights
    yield Goal(
        "deltas", f"{_SIZE}, memory of a further fine-tune", _MOST_BYTES, size, " GB",
        f"{8 * size / config.linear_weights:.3f} bits a weight; in fp16 {fp16 / 1e9:.1f} GB, "
        f"{fp16 / size:.1f}x",
    )  # fmt: skip


def _random_delta(weights: Weights, seed: int) -> Delta:
    """Random signs for each matrix; layers that share theirs share these."""
    random, arena = np.random.default_rng(seed), Arena()
    made: dict[int, dict[str, TernaryMatrix]] = {}
    for layer in weights.layers:
        if id(layer) not in made:
            made[id(layer)] = {
                name: random_ternary(*matrix.shape, ONE_BIT.name, random, arena)
                for name, matrix in layer.linear.items()
            }
    return Delta([made[id(layer)] for layer in weights.layers], fingerprint_of(weights))


def _together(model: Model) -> Case:
    """The tokens of all sequences in one batch; the first of each is not timed."""
    batch = Batch(model, _COUNT)

    def admit() -> None:
        for number, name in enumerate(model.deltas.of):
            batch.add([number + 1], _TOKENS + 1, stop_at_eos=False, delta=name)
        batch.step()

    def run() -> None:
        for _ in range(_TOKENS):
            batch.step()
        assert not len(batch)

    metadata = {"ternops_threads": model.threads, "ternops_tier": TIER}
    name = f"decode {_SIZE}, {_COUNT} deltas on a {model.encoding} base"
    return Case(name, run, _COUNT * _TOKENS, metadata, before=admit)


def _apart(model: Model) -> Case:
    """The same number of tokens, each read with all weights: as many models in turn."""
    sessions = [Session(model) for _ in range(_COUNT)]

    def begin() -> None:
        for each in sessions:
            each.position = 0
            each.step(1, exact_top=1)

    def run() -> None:
        for _ in range(_TOKENS):
            for each in sessions:
                int(np.argmax(each.step(2, exact_top=1)))

    metadata = {"ternops_threads": model.threads, "ternops_tier": TIER}
    name = f"decode {_SIZE}, {_COUNT} models in fp16"
    return Case(name, run, _COUNT * _TOKENS, metadata, before=begin)
