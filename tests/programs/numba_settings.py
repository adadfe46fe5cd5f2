"""Numba's settings after a product: four of them that NUMBA_* variables choose."""

from __future__ import annotations

import numba
import numpy as np

import ternops

if __name__ == "__main__":
    assert ternops.pack(np.ones((1, 1), np.int8)) @ np.ones(1, np.int8) == 1
    found = numba.config
    print(int(found.OPT), found.BOUNDSCHECK, found.DEBUGINFO_DEFAULT, found.CACHE_LOCATOR_CLASSES)
