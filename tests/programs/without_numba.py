"""A first product, and with --token a first token; prints what of Numba was imported for it."""

from __future__ import annotations

import sys

import numpy as np

import ternops

if __name__ == "__main__":
    matrix = ternops.pack(np.ones((64, 640), np.int8), encoding="two_bit")
    assert (ternops.matmul(np.ones((1, 640), np.int8), matrix.T, threads=2) == 640).all()
    if "--token" in sys.argv[1:]:
        from ternops.decoder import Model

        assert len(list(Model.from_pretrained(threads=2).generate([1, 2], 1))) == 1
    print(*(name for name in sys.modules if name.partition(".")[0] == "numba"))
