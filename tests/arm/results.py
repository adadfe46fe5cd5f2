"""What is computed here, as digests that must be the same on every machine.

    python -m tests.arm.results [--brief]

prints one JSON object; expected.json in this folder is the one that x86 gave. It is of products in
every encoding and for few and many tokens, with a scale a group as well, each compared
with NumPy first, and of the tiny checkpoint's logits and greedy tokens with every head and cache.
"""

from __future__ import annotations

import argparse
import gc
import hashlib
import itertools
import json
import sys
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
#: Columns that share a scale, as few as there may be, and more; and whether scales are float16.
GROUPED = {32: False, 128: True}
#: (weights, head, cache) of the decoder: every encoding, and, which --brief leaves out, every head
#: and cache.
ENCODED = [(encoding, "fp16", "fp16") for encoding in TERNARY]
OTHERS = [("two_bit", "screened", "int8"), ("base3", "int8", "fp16"), ("fp16", "fp16", "fp16")]
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


def grouped() -> dict[str, str]:
    """Products with a scale a group of columns, equal to the oracle's."""
    found = {}
    for encoding, group in itertools.product(PANELS, GROUPED):
        weights, scale, matrix = cases.grouped(37, 1280, group, encoding, GROUPED[group])
        x = cases.activations(max(TOKENS), 1280)
        x[0] = -128
        steps = np.ones((len(x), scale.shape[1]), np.float32)
        expected = reference.grouped_product(x, weights, scale, steps)
        for tokens in TOKENS:
            product = ternops.matmul(x[:tokens], matrix.T)
            assert cases.same_bits(product, expected[:tokens]), (encoding, group, tokens)
            floats = cases.floats(tokens, 1280)
            name = f"{encoding}, group {group}, {tokens} tokens"
            found[name] = digest(ternops.matmul(floats, matrix.T))
    return found


def _named(weights: str, head: str, cache: str) -> str:
    return f"tiny, {weights} weights, {head} head, {cache} cache"


def decoder(settings: list[tuple[str, str, str]]) -> dict[str, str]:
    """Logits and greedy tokens of the tiny checkpoint."""
    found = {}
    for weights, head, cache in settings:
        model = Model.from_pretrained(weights=weights, head=head, cache=cache, threads=2)
        tokens = list(model.generate(PROMPT, _NEW_TOKENS, stop_at_eos=False))
        name = _named(weights, head, cache)
        found[f"{name}, tokens"] = json.dumps(tokens)
        if head == "fp16":
            found[f"{name}, logits"] = digest(model.logits(PROMPT + tokens))
    return found


def expected(brief: bool = False) -> dict[str, str]:
    """What x86 gave, from the project's file."""
    text = Path(__file__).with_name("expected.json").read_text("utf-8")
    found: dict[str, str] = json.loads(text)["results"]
    others = tuple(f"{_named(*each)}, " for each in OTHERS) if brief else ()
    return {name: value for name, value in found.items() if not name.startswith(others)}


def main() -> int:
    """Print the digests."""
    gc.disable()  # a tenth of the time under an emulator, most of which is compiling
    parser = argparse.ArgumentParser(prog="python -m tests.arm.results")
    parser.add_argument("--brief", action="store_true", help="of the decoder, the encodings alone")
    brief = parser.parse_args().brief
    found = {**products(), **grouped(), **decoder(ENCODED if brief else ENCODED + OTHERS)}
    json.dump({"tier": detect.TIER.name, "results": found}, sys.stdout, indent=1)
    print()
    return 0


if __name__ == "__main__":
    sys.exit(main())
