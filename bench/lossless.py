"""The proof that a run is lossless: the same bits on every tier and thread count as in NumPy.

``python -m bench.lossless --threads 1 2`` prints, for the tier of its process, one digest of the
logits a thread count; `prove` runs it once a tier and compares with the NumPy oracle's digest.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ternops.decoder import Model, reference
from ternops.decoder.model import TINY
from ternops.decoder.text import load_tokenizer
from ternops.simd import targets

#: Text that the checkpoint was not given as such; its kind, Python, is what it knows.
TEXT = '''"""Counting the words of a file."""

import collections
import sys


def count_words(path):
    """Return how often each word occurs in the file at path."""
    counter = collections.Counter()
    with open(path, encoding="utf-8") as file:
        for line in file:
            for word in line.split():
                counter[word.strip(".,;:").lower()] += 1
    return counter


class Report:
    def __init__(self, counter, limit=10):
        self.counter = counter
        self.limit = limit

    def lines(self):
        for word, number in self.counter.most_common(self.limit):
            yield "%8d  %s" % (number, word)


def main(argv=None):
    if argv is None:
        argv = sys.argv[1:]
    if not argv:
        raise ValueError("expected the name of a file")
    for line in Report(count_words(argv[0])).lines():
        print(line)


if __name__ == "__main__":
    main()
'''


@dataclass(frozen=True)
class Proof:
    """tiers: tier -> thread count -> whether all logits equal the oracle's, bit for bit."""

    tokens: int
    tiers: dict[str, dict[int, bool]]
    perplexity: float
    perplexity_float64: float

    @property
    def lossless(self) -> bool:
        return all(equal for threads in self.tiers.values() for equal in threads.values())

    @property
    def perplexity_difference(self) -> float:
        """Relative to the float64 forward."""
        return abs(self.perplexity / self.perplexity_float64 - 1)


def prove(threads: list[int], advance: Callable[[str], None]) -> Proof:
    """Decode TEXT with the tiny checkpoint on every tier this CPU has."""
    model, tokens = Model.from_pretrained(threads=1), _tokens()
    expected = reference.logits(model, tokens)
    advance("NumPy oracle")
    double = reference.logits(model, tokens, reference.Double)
    advance("float64")
    tiers = {}
    for tier in targets.available():
        digests = _digests_of(tier.name, threads)
        tiers[tier.name] = {n: digest == _digest(expected) for n, digest in digests.items()}
        advance(tier.name)
    return Proof(
        len(tokens),
        tiers,
        reference.perplexity(expected, tokens),
        reference.perplexity(double, tokens),
    )


def steps() -> int:
    """How often `prove` calls advance."""
    return 2 + len(targets.available())


def _tokens() -> list[int]:
    ids: list[int] = load_tokenizer(TINY).encode(TEXT).ids
    return ids


def _digest(logits: npt.NDArray[np.float32]) -> str:
    return hashlib.sha256(np.ascontiguousarray(logits).tobytes()).hexdigest()


def _digests_of(tier: str, threads: list[int]) -> dict[int, str]:
    command = [sys.executable, "-m", "bench.lossless", "--threads", *map(str, threads)]
    environment = {**os.environ, "TERNOPS_ISA": tier}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"tier {tier} failed: {done.stderr.strip().splitlines()[-1:]}")
    pairs = (line.split() for line in done.stdout.splitlines())
    return {int(count): digest for count, digest in pairs}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.lossless", description=__doc__)
    parser.add_argument("--threads", type=int, nargs="+", required=True)
    tokens = _tokens()
    weights = Model.from_pretrained().weights
    for count in parser.parse_args().threads:
        print(count, _digest(Model(weights, count).logits(tokens)))


if __name__ == "__main__":
    main()
