"""One product of every library that is installed, in a process of its own.

    python -m bench.suites.run.products REQUEST.json ANSWER.json

x @ W.T for a feed-forward layer of BitNet 2B4T's layout, one token and a prompt of them: what a
reader would otherwise use. The libraries take turns; one that is missing, fails or crashes costs a
line.
"""

from __future__ import annotations

import sys
from typing import Any

import numpy as np

from bench import engines
from bench.core import process
from bench.core.command import Advance
from bench.core.errors import first_line
from bench.core.kernels import REMARK, VERSION, Product, Timings
from bench.core.measure import Case, interleave
from bench.suites.kernels import cases as make
from ternops.cost.layouts import SIZES

TOKENS = (1, 512)
_LAYOUT = SIZES["2B4T"]
_ROUNDS = 7
_ENCODINGS = ("base3", "two_bit")
STEPS = len(TOKENS)  #: how often `run` calls advance


def run(threads: int, advance: Advance) -> tuple[list[dict[str, Any]], list[str]]:
    """The products as run.json holds them, and a line for each that could not be."""
    try:
        found = process.call("bench.suites.run.products", {"threads": threads}, advance)
    except process.WorkerError as error:
        return [], [f"products: {first_line(error)}"]
    return found["products"], found["left_out"]


def measure(threads: int, advance: Advance) -> dict[str, Any]:
    """The same, in this process."""
    installed, left_out = engines.find()
    rows, columns = _LAYOUT.ffn, _LAYOUT.hidden
    trits = np.random.default_rng(0).integers(-1, 2, (rows, columns), np.int8)
    found = []
    for tokens in TOKENS:
        group = f"{tokens} token(s)"
        x = make.tokens_of(tokens, columns)
        cases = make.peer_cases("products", group, installed, trits, x, threads, left_out)
        for encoding in _ENCODINGS:
            matrix = make.weights(encoding, rows, columns)
            cases.append(make.matmul_case("products", group, matrix, x, threads, beside_peers=True))
        interleave(cases, _ROUNDS)
        found += [_found(product, case) for product, case in Timings(cases).products.items()]
        for case in cases:
            case.release()
        advance(group)
    return {"products": found, "left_out": left_out}


def _found(product: Product, case: Case) -> dict[str, Any]:
    return {
        "engine": " ".join(filter(None, (product.engine, product.encoding))),
        "shape": [product.rows, product.columns], "tokens": product.tokens,
        "threads": product.threads, "seconds": case.median, "spread": case.spread,
        "version": str(case.metadata.get(VERSION, "")),
        "remark": str(case.metadata.get(REMARK, "")),
    }  # fmt: skip


if __name__ == "__main__":
    sys.exit(process.answer(lambda request, advance: measure(request["threads"], advance)))
