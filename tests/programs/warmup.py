"""Compile ahead, multiply and decode, and print the jobs that were compiled after all.

python -m tests.programs.warmup [--decoder]
"""

from __future__ import annotations

import sys

import numpy as np

import ternops
from ternops.decoder import Model
from ternops.kernels.tuning import auto
from tests.helpers import internals


def main(decoder: bool) -> None:
    """Without a decoder only products are compiled, and made."""
    compiled = internals.count_compilations()
    assert ternops.warmup(decoder=decoder) > 0
    ahead = len(compiled)
    for rows, tokens in ((8, 1), (8, 3), (8, 300), (2048, 1)):
        weights = ternops.pack(np.ones((rows, 2048), np.int8))
        assert (np.ones((tokens, 2048), np.int8) @ weights.T == 2048).all()
        for encoding in auto():
            weights = ternops.pack(np.ones((rows, 2048), np.int8), np.ones((rows, 16)), encoding)
            assert (np.ones((tokens, 2048), np.int8) @ weights.T == 2048).all()
    if decoder:
        list(Model.from_pretrained(threads=2).generate([1, 2], 2))
    print(*compiled[ahead:])


if __name__ == "__main__":
    main("--decoder" in sys.argv[1:])
