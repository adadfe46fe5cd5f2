"""The proof that a run is lossless: the same bits on every tier and thread count as in NumPy.

``python -m bench.lossless --threads 1 2`` prints, for the tier of its process, one digest of the
logits a thread count; `prove` runs it once a tier and compares with the NumPy oracle's digest.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import statistics
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

import ternops
from ternops.decoder import Model, reference
from ternops.decoder.formats.hugging_face_config import read_config
from ternops.decoder.formats.loading import TINY
from ternops.decoder.text import load_tokenizer
from ternops.simd import targets

#: Sequences of text for the perplexity; the first one serves the proof as well.
WINDOWS = 8


@dataclass(frozen=True)
class Proof:
    """tiers: tier -> thread count -> whether all logits equal the oracle's, bit for bit.

    tokens: of the proof; the perplexities are over WINDOWS times as many.
    """

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
    """Decode text with the tiny checkpoint on every tier this CPU has."""
    model, windows = Model.from_pretrained(threads=1), _windows()
    expected = _digest(reference.logits(model, windows[0]))
    advance("NumPy oracle")
    tiers = {}
    for tier in targets.available():
        digests = _digests_of(tier.name, threads)
        tiers[tier.name] = {n: digest == expected for n, digest in digests.items()}
        advance(tier.name)
    ours, float64 = [], []
    for tokens in windows:
        ours.append(reference.perplexity(model.logits(tokens), tokens))
        double = reference.logits(model, tokens, reference.Double)
        float64.append(reference.perplexity(double, tokens))
        advance("float64 forward")
    # The windows are equally long: the geometric mean is the perplexity of all of them.
    return Proof(
        len(windows[0]), tiers, statistics.geometric_mean(ours), statistics.geometric_mean(float64)
    )


def steps() -> int:
    """How often `prove` calls advance."""
    return 1 + WINDOWS + len(targets.available())


def _windows() -> list[list[int]]:
    """Sequences as long as the context, of this package's own sources: Python, which is what the
    checkpoint knows, and files that it cannot have seen."""
    model_context = read_config(TINY).context
    sources = sorted(Path(ternops.__file__).parent.glob("*.py"))
    text = "".join(path.read_text("utf-8") for path in sources)
    bos, *tokens = load_tokenizer(TINY).encode(text).ids
    size = model_context - 1
    return [[bos, *tokens[i * size : (i + 1) * size]] for i in range(WINDOWS)]


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
    tokens = _windows()[0]
    weights = Model.from_pretrained().weights
    for count in parser.parse_args().threads:
        print(count, _digest(Model(weights, count).logits(tokens)))


if __name__ == "__main__":
    main()
