"""A product by the kernels of a tier; prints "computed"."""

from __future__ import annotations

import numpy as np

import ternops

if __name__ == "__main__":
    matrix = ternops.pack(np.ones((64, 640), np.int8), encoding="two_bit")
    assert (ternops.matmul(np.ones((32, 640), np.int8), matrix.unscaled.T) == 640).all()
    print("computed")
