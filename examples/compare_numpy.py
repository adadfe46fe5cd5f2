"""Time products with a 2048 x 2048 ternary matrix against NumPy's float32 product, in ms.

    python examples/compare_numpy.py

The last rows sum over the rows of the packed matrix: `x @ W`. With a scale a group ternops loses.
"""

import timeit
from collections.abc import Callable

import numpy as np

import ternops

SIZE = 2048


def best_ms(product: Callable[[], object], repeats: int = 30) -> float:
    """The fastest of some runs, after one that compiles, in milliseconds."""
    product()
    return 1e3 * min(timeit.repeat(product, number=1, repeat=repeats))


def main() -> None:
    random = np.random.default_rng(0)
    weights = random.standard_normal((SIZE, SIZE)).astype(np.float32)
    packed = ternops.quantize(weights)
    print(f"{'product':>24} {'ternops':>9} {'NumPy':>9} {'ratio':>7}")
    for tokens in (1, 8, 128, 512):
        x = random.standard_normal((tokens, SIZE)).astype(np.float32)
        row(f"({tokens}, {SIZE}) @ W.T", lambda x=x: x @ packed.T, lambda x=x: x @ weights.T)
    x = random.standard_normal((1, SIZE)).astype(np.float32)
    row(f"(1, {SIZE}) @ W", lambda: x @ packed, lambda: x @ weights)
    for encoding in ("tl1", "tl2"):
        other = packed.to(encoding)
        row(f"the same, {encoding}", lambda w=other: x @ w, lambda: x @ weights)
    grouped = ternops.quantize(weights, group=128)
    row("the same, group=128", lambda: x @ grouped, lambda: x @ weights)


def row(name: str, ours: Callable[[], object], numpy: Callable[[], object]) -> None:
    mine, theirs = best_ms(ours), best_ms(numpy)
    print(f"{name:>24} {mine:>9.3f} {theirs:>9.3f} {theirs / mine:>6.2f}x")


if __name__ == "__main__":
    main()
