"""What is computed here, as digests that must be the same on every machine.

    python -m tests.arm.results [--brief]

prints one JSON object; expected.json in this folder is the one that x86 gave. It is of products in
every encoding and for few and many tokens, with a scale a group as well, each compared
with NumPy first, and of the tiny checkpoint's logits and greedy tokens with every head and cache.
--brief: what needs no other kernels than those that a wheel carries.
"""

from __future__ import annotations

import argparse
import gc
import hashlib
import json
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np

import ternops
from ternops.decoder import Model
from ternops.encodings import ENCODINGS, PANELS, TERNARY
from ternops.isa import detect
from ternops.kernels import reference
from tests.helpers import cases

#: (rows, columns): whole blocks, a ragged end, and more than a panel of the GEMM holds.
SHAPES = ((64, 640), (37, 333), (70, 8500))
TOKENS = (1, 3, 21)
#: Columns that share a scale, besides as few as are usual, and whether scales are float16; --brief
#: leaves out what is not usual.
USUAL, RARE = {128: True}, {32: False}
#: (weights, head, cache) of the decoder: every encoding, head and cache.
SETTINGS = [
    *((encoding, "fp16", "fp16") for encoding in TERNARY),
    ("two_bit", "screened", "int8"), ("base3", "int8", "fp16"), ("fp16", "fp16", "fp16"),
]  # fmt: skip
PROMPT = [1, 17, 300, 42, 7, 99, 256, 3]
_NEW_TOKENS = 24


def digest(array: np.ndarray) -> str:
    """Of the bytes, with shape and type."""
    text = f"{array.shape} {array.dtype.str} ".encode()
    return hashlib.sha256(text + np.ascontiguousarray(array).tobytes()).hexdigest()[:16]


def products() -> dict[str, str]:
    """int32 products, equal to NumPy's, and float32 ones."""
    found = {}
    for rows, columns in SHAPES:
        random = np.random.default_rng(rows)
        ternary = random.integers(-1, 2, (rows, columns), np.int8)
        for encoding in ENCODINGS:
            trits = ternary if encoding in TERNARY else np.where(ternary, ternary, np.int8(-1))
            matrix = ternops.pack(trits, 0.25, encoding)
            ones = ternops.pack(np.ones_like(trits), 1.0, encoding)
            for tokens in TOKENS:
                x = random.integers(-128, 128, (tokens, columns), np.int8)
                exact = ternops.matmul(x, matrix.unscaled.T)
                expected = x.astype(np.int32) @ trits.T.astype(np.int32)
                assert np.array_equal(exact, expected), (encoding, rows, columns, tokens)
                largest = ternops.matmul(np.full_like(x, -128), ones.unscaled.T)
                assert (largest == -128 * columns).all(), (encoding, rows, columns, tokens)
                floats = random.standard_normal((tokens, columns)).astype(np.float32)
                name = f"{encoding} {rows}x{columns}, {tokens} tokens"
                found[name] = digest(ternops.matmul(floats, matrix.T))
    return found


def _groups(brief: bool) -> Iterator[tuple[str, int, bool]]:
    """Encoding, columns that share a scale, and whether scales are float16."""
    for name, panels in PANELS.items():
        groups = {min(panels.usual_groups): False, **USUAL, **({} if brief else RARE)}
        for group, is_half in groups.items():
            yield name, group, is_half


def grouped(brief: bool) -> dict[str, str]:
    """Products with a scale a group of columns, equal to the oracle's."""
    found = {}
    for encoding, group, is_half in _groups(brief):
        weights, scale, matrix = cases.grouped(37, 1280, group, encoding, is_half)
        x = cases.activations(max(TOKENS), 1280)
        x[0] = -128
        steps = np.ones((len(x), scale.shape[1]), np.float32)
        expected = reference.grouped_product(x, weights, scale, steps)
        for tokens in TOKENS:
            product = ternops.matmul(x[:tokens], matrix.T)
            assert cases.same_bits(product, expected[:tokens]), (encoding, group, tokens)
            floats = cases.floats(tokens, 1280)
            name = f"{_grouped(encoding, group)}, {tokens} tokens"
            found[name] = digest(ternops.matmul(floats, matrix.T))
    return found


def _grouped(encoding: str, group: int) -> str:
    return f"{encoding}, group {group}"


def decoder() -> dict[str, str]:
    """Logits and greedy tokens of the tiny checkpoint."""
    found = {}
    for weights, head, cache in SETTINGS:
        model = Model.from_pretrained(weights=weights, head=head, cache=cache, threads=2)
        tokens = list(model.generate(PROMPT, _NEW_TOKENS, stop_at_eos=False))
        name = f"tiny, {weights} weights, {head} head, {cache} cache"
        found[f"{name}, tokens"] = json.dumps(tokens)
        if head == "fp16":
            found[f"{name}, logits"] = digest(model.logits(PROMPT + tokens))
    return found


def expected(brief: bool = False) -> dict[str, str]:
    """What x86 gave, from the project's file."""
    text = Path(__file__).with_name("expected.json").read_text("utf-8")
    found: dict[str, str] = json.loads(text)["results"]
    usual = {_grouped(*each[:2]) for each in _groups(brief=True)}
    rare = tuple(
        f"{name}, " for each in _groups(brief=False) if (name := _grouped(*each[:2])) not in usual
    )
    return {name: value for name, value in found.items() if not (brief and name.startswith(rare))}


def main() -> int:
    """Print the digests."""
    gc.disable()  # a tenth of the time under an emulator, most of which is compiling
    parser = argparse.ArgumentParser(prog="python -m tests.arm.results")
    parser.add_argument("--brief", action="store_true", help="with the kernels of a wheel alone")
    brief = parser.parse_args().brief
    found = {**products(), **grouped(brief), **decoder()}
    told = {"tier": detect.TIER.name, "compiles": "numba" in sys.modules, "results": found}
    json.dump(told, sys.stdout, indent=1)
    print()
    return 0


if __name__ == "__main__":
    sys.exit(main())
