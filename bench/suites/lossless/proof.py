"""The lossless table: every encoding on every tier gives the bits that NumPy gives.

The tiny checkpoint reads 8 windows of 512 tokens of Python (in the quick form 4), in about forty
seconds on two cores once the kernels are compiled, more than half of them NumPy's. For each tier of
this CPU (in the quick form for three of them), each encoding and "fp16", and each thread count, the
table says

- whether logits are bit-identical. Those of the first window are compared with the NumPy oracle's,
  three times: read as a prompt, 64 tokens in a pass, and decoded, one token in a pass, with and
  without the rows and columns that ReLU^2 makes useless (`ternops.decoder.sparsity`). Those of all
  windows are compared with the other tiers', encodings' and thread counts': the oracle would take
  minutes for them;
- the perplexity: exp of the mean negative log-likelihood of each token but the first of a window;
- the greedy agreement: the share of positions at which the most likely token is that of the float64
  forward pass.

There are two computations, and an oracle and a float64 forward pass (`ternops.decoder.reference`,
`Exact` and `Double`) of each. The encodings hold the same trits: activations are quantised to int8
before each linear layer and sums are exact in int32, so that every encoding has the same oracle.
"fp16" weights are the float16 of trit times scale, and their activations are not quantised: sums
are float32 in the kernels' fixed order, in the oracle too. They stand where bitnet.cpp's paper has
full precision; their perplexity differs from the encodings' by int8 activations and the rounding of
the scale, not by kernels. The float64 forward passes quantise activations as their computation does
and round nothing else: where that tips a step of an int8 activation, the encodings' most likely
token can be another.

Lossless means that every tier, encoding and thread count has the bits of its oracle. Perplexities
are then equal in all digits, which is checked as well.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from bench.core.command import Advance
from bench.core.results import FP16
from bench.suites.lossless.tier import (
    CONTEXT,
    WINDOWS,
    digest_of,
    greedy,
    perplexity_of,
    text_of,
)
from ternops.ahead import jobs
from ternops.ahead.pool import Task, compile_all
from ternops.commands.tiers import output_on
from ternops.decoder import Model, reference
from ternops.encodings import TERNARY as ENCODINGS
from ternops.isa import detect
from ternops.threads import usable_cpus

#: A perplexity this much off the float64 forward pass's is an error: relative, over 4096 tokens.
#: Each token is off by chance, so that over n of them sqrt(4096 / n) times as much is allowed.
MAX_PERPLEXITY_DIFFERENCE = 1e-3
#: The two computations: trits and int8 activations, in any encoding; fp16 weights.
TERNARY = "ternary"
COMPUTATIONS = (TERNARY, FP16)
_DIGESTS = ("read", "decoded", "sparse", "text")


@dataclass(frozen=True)
class Verdict:
    """One encoding, or "fp16", on one tier.

    bit_identical: thread count -> whether all logits have the bits that they should have.
    agreement: the share of positions with the float64 forward pass's most likely token.
    """

    tier: str
    encoding: str
    bit_identical: dict[int, bool]
    perplexity: float
    agreement: float

    @property
    def computation(self) -> str:
        return _computation(self.encoding)


@dataclass(frozen=True)
class Proof:
    """tokens: of a window; the perplexities are over all `windows`.

    float64: computation -> perplexity of its float64 forward pass.
    """

    tokens: int
    windows: int
    rows: list[Verdict]
    float64: dict[str, float]

    @property
    def lossless(self) -> bool:
        equal = all(all(row.bit_identical.values()) for row in self.rows)
        perplexities = {(row.computation, row.perplexity) for row in self.rows}
        return equal and len(perplexities) == len(COMPUTATIONS)

    def as_json(self) -> dict[str, Any]:
        """As run.json holds it: a perplexity that is not finite is None."""
        return {
            "lossless": self.lossless,
            "tokens_against_numpy": self.tokens,
            "tokens": self.tokens * self.windows,
            "perplexity_float64": self.float64,
            "table": [
                {
                    **asdict(row),
                    "bit_identical": {str(n): equal for n, equal in row.bit_identical.items()},
                    "perplexity": row.perplexity if math.isfinite(row.perplexity) else None,
                }
                for row in self.rows
            ],
        }


def tiers(few: bool) -> list[str]:
    """The tiers of the table: all that this CPU has, or the process's own, "generic", which every
    CPU has, and the one half-way between."""
    names = [tier.name for tier in detect.available()]
    if not few:
        return names
    own = names.index(detect.TIER.name)
    return sorted({names[own], names[(own + len(names)) // 2], names[-1]}, key=names.index)


def prove(threads: list[int], names: Sequence[str], advance: Advance, few: bool = False) -> Proof:
    """Read and decode text with the tiny checkpoint on tiers that this CPU has.

    few: half of the windows. Raises ValueError if a tier's process fails.
    """
    text = text_of(_windows(few), CONTEXT)
    oracles = _oracles(text, advance)
    found: dict[tuple[str, str], list[dict[str, Any]]] = {}
    digests: dict[str, Counter[str]] = {name: Counter() for name in COMPUTATIONS}
    for tier in names:
        for each in _computed_on(tier, threads, len(text)):
            found.setdefault((tier, each["encoding"]), []).append(each)
            digests[_computation(each["encoding"])][each["text"]] += 1
        advance(tier)
    rows = []
    for (name, encoding), figures in found.items():
        oracle = oracles[_computation(encoding)]
        # Of all windows' logits those are right that most have.
        ((usual, _),) = digests[_computation(encoding)].most_common(1)
        wanted = (oracle.digest, oracle.digest, oracle.digest, usual)
        rows.append(Verdict(
            name, encoding,
            {f["threads"]: tuple(f[name] for name in _DIGESTS) == wanted for f in figures},
            figures[0]["perplexity"],
            float(np.mean(np.array(figures[0]["greedy"]) == oracle.greedy)),
        ))  # fmt: skip
    float64 = {name: oracle.perplexity for name, oracle in oracles.items()}
    return Proof(len(text[0]), len(text), rows, float64)


def compile_ahead(names: Sequence[str], advance: Callable[[str, float], None]) -> None:
    """What models need on these tiers and have not yet, as many at a time as there are CPUs.

    advance: called with a job and the part of all that is done.
    """
    needed = "--plain", "--encodings", *ENCODINGS
    tasks = [Task(name, needed, (("TERNOPS_ISA", name),)) for name in names]
    # Each tier has about as many; what other tiers' are is known when they begin.
    total = len(names) * len(jobs.needed(ENCODINGS, decoder=True, plain=True))
    with suppress(RuntimeError, OSError):  # the tier's own process says what is wrong
        compile_all(tasks, usable_cpus(), lambda key, done, _: advance(key, done / total))


def failures(record: Mapping[str, Any]) -> list[str]:
    """A line for each thing wrong with what `Proof.as_json` gave."""
    found = []
    most = MAX_PERPLEXITY_DIFFERENCE * math.sqrt(4096 / record["tokens"])
    for row in record["table"]:
        where = f"{row['encoding']} on {row['tier']}"
        if wrong := [count for count, equal in row["bit_identical"].items() if not equal]:
            found.append(f"{where}, {', '.join(wrong)} thread(s): logits differ from NumPy's")
        exact = record["perplexity_float64"][_computation(row["encoding"])]
        ours = math.nan if row["perplexity"] is None else row["perplexity"]
        if not abs(ours / exact - 1) <= most:
            found.append(f"{where}: perplexity {ours:.4f}, the float64 forward's is {exact:.4f}")
    if not record["lossless"] and not found:
        found.append("perplexities of the same logits differ")
    return found


def steps(names: Sequence[str], few: bool = False) -> int:
    """How often `prove` calls advance."""
    return len(COMPUTATIONS) * (1 + _windows(few)) + len(names)


def _windows(few: bool) -> int:
    return (WINDOWS + 1) // 2 if few else WINDOWS


@dataclass(frozen=True)
class _Oracle:
    """digest: of the exact logits of the first window; the others: of the float64 forward pass."""

    digest: str
    perplexity: float
    greedy: npt.NDArray[Any]


def _oracles(text: list[list[int]], advance: Advance) -> dict[str, _Oracle]:
    """Of each computation, in NumPy, which lets two threads run at a time."""
    models = {
        name: Model.from_pretrained(weights=name, head="fp16", threads=1) for name in COMPUTATIONS
    }
    pool = ThreadPoolExecutor(2)
    try:
        # The slowest are first.
        exact = {
            name: pool.submit(reference.logits, models[name], text[0]) for name in (FP16, TERNARY)
        }
        double = {
            name: [pool.submit(reference.logits, model, part, reference.Double) for part in text]
            for name, model in models.items()
        }
        found = {}
        for name in COMPUTATIONS:
            digest = digest_of([exact[name].result()])
            advance(f"NumPy oracle, {name}")
            logits = []
            for each in double[name]:
                logits.append(each.result())
                advance(f"float64 forward, {name}")
            found[name] = _Oracle(digest, perplexity_of(logits, text), greedy(logits))
        return found
    finally:
        pool.shutdown(cancel_futures=True)


def _computation(encoding: str) -> str:
    return FP16 if encoding == FP16 else TERNARY


def _computed_on(tier: str, threads: Sequence[int], windows: int) -> list[dict[str, Any]]:
    options = ["--threads", *threads, "--windows", windows, "--context", CONTEXT]
    output = output_on(
        tier, ["-m", "bench.suites.lossless.tier", *map(str, options)], "the lossless table"
    )
    return [json.loads(line) for line in output.splitlines()]
